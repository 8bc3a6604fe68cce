//! Who gets what: compared with a second, naive implementation of the rules; and each rule by name.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use weft::model::addr::{Family, Subnet};
use weft::model::node::{NodeRecord, Peer, Standing};
use weft::plan::desired::{Wanted, Without};
use weft::reconcile::{PeerState, peers::peer_states};

use crate::cluster::{any_node, plain, unusable};
use crate::properties::cases;
use crate::reference;
use crate::world::{World, cidr, ip, pod_cidr, public_ip, vtep_mac};

fn wanted(world: &mut World, family: Family) -> Wanted {
    let report = world.pass();
    report.desired.expect("our own node is known").families.get(family).clone().expect("the family is on")
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn every_claim_is_decided_as_the_rules_say(nodes in vec(any_node(10), 0..20)) {
        let mut world = World::new();
        world.put_all(nodes);
        for family in Family::BOTH {
            let wanted = wanted(&mut world, family);
            let granted: BTreeMap<Subnet, _> =
                reference::granted(&world.snapshot, family).into_iter().map(|it| (it.1.subnet, it)).collect();
            prop_assert_eq!(&wanted.peers, &granted);
            let held: Vec<Subnet> = wanted.held.keys().copied().collect();
            let mut expected = reference::held(&world.snapshot, family);
            expected.sort_unstable();
            prop_assert_eq!(held, expected);
            // Nobody falls through: every node is a peer or has a reason why not.
            for node in world.snapshot.nodes.values() {
                let is_peer = wanted.peers.values().any(|(name, _)| *name == node.name);
                prop_assert!(is_peer != wanted.without.contains_key(&node.name), "{}", node.name);
            }
        }
    }

    /// No two peers share anything, whatever the nodes claim.
    #[test]
    fn peers_never_get_in_each_others_way(nodes in vec(any_node(10), 0..20)) {
        let mut world = World::new();
        world.put_all(nodes);
        for family in Family::BOTH {
            let peers: Vec<Peer> = wanted(&mut world, family).peers.values().map(|(_, peer)| *peer).collect();
            for (at, one) in peers.iter().enumerate() {
                for other in &peers[at + 1..] {
                    prop_assert!(!one.subnet.overlaps(other.subnet));
                    prop_assert!(one.mac != other.mac && one.public_ip != other.public_ip);
                }
                prop_assert!(!peers.iter().any(|other| other.subnet.contains(one.public_ip)));
            }
        }
    }

    /// A node that is refused, or cannot be used, takes nothing from anybody else by coming or going.
    #[test]
    fn losers_leave_no_trace(nodes in vec(any_node(8), 1..14)) {
        let mut world = World::new();
        world.put_all(nodes);
        for family in Family::BOTH {
            let with = wanted(&mut world, family);
            let losers = with.without.iter().filter(|(_, why)| matches!(why, Without::Rejected(..)));
            let mut without = World::new();
            without.snapshot = world.snapshot.clone();
            losers.for_each(|(name, _)| without.remove(name));
            prop_assert_eq!(wanted(&mut without, family).tables, with.tables);
        }
    }
}

/// Node 2, younger than node 1, with something changed.
fn with(change: impl Fn(Family, &mut Peer)) -> NodeRecord {
    let mut node = plain(2);
    for family in Family::BOTH {
        if let Standing::Usable(peer) = node.standing.get_mut(family) {
            change(family, peer);
        }
    }
    node
}

fn state_of_second(node: NodeRecord) -> [PeerState; 2] {
    let mut world = World::new();
    let name = node.name.clone();
    world.put_all([plain(1), node]);
    let report = world.converge();
    Family::BOTH.map(|family| peer_states(&report, family)[&name].clone())
}

fn assert_rejected(node: NodeRecord, because: &str) {
    for state in state_of_second(node) {
        assert!(matches!(&state, PeerState::Rejected(why) if why.contains(because)), "{state:?}");
    }
}

#[test]
fn the_older_node_keeps_what_two_claim() {
    assert_rejected(with(|family, peer| peer.subnet = pod_cidr(family, 1)), "node-001");
    assert_rejected(with(|family, peer| peer.mac = Some(vtep_mac(family, 1))), "node-001");
    assert_rejected(with(|family, peer| peer.public_ip = public_ip(family, 2)), "node-001");
}

#[test]
fn a_part_of_anothers_pod_cidr_is_a_conflict_either_way() {
    let part = |family| cidr(if family == Family::V4 { "10.244.1.64/26" } else { "fd00:244:0:1:1::/80" });
    assert_rejected(with(|family, peer| peer.subnet = part(family)), "overlaps");
    let more = |family| cidr(if family == Family::V4 { "10.244.0.0/23" } else { "fd00:244::/62" });
    assert_rejected(with(|family, peer| peer.subnet = more(family)), "overlaps");
}

#[test]
fn what_belongs_to_this_host_is_not_given_away() {
    assert_rejected(with(|family, peer| peer.subnet = pod_cidr(family, 0)), "our own");
    assert_rejected(with(|family, peer| peer.subnet = pod_cidr(family, 200)), "underlay");
    assert_rejected(with(|family, peer| peer.mac = Some(vtep_mac(family, 0))), "our own");
    assert_rejected(with(|family, peer| peer.public_ip = public_ip(family, 1)), "this host");
    let docker = |family| ip(if family == Family::V4 { "172.17.0.1" } else { "fd17::1" });
    assert_rejected(with(|family, peer| peer.public_ip = docker(family)), "this host");
}

#[test]
fn an_address_that_this_host_gets_later_is_taken_back_from_a_peer() {
    let mut world = World::with_peers(2);
    let report = world.converge();
    assert_eq!(peer_states(&report, Family::V4)[&plain(2).name], PeerState::Installed);
    let docker = world.kernel.net.index(&weft::model::addr::IfName::new("docker0")).unwrap();
    world.kernel.net.add_address(docker, public_ip(Family::V4, 3), 32);
    crate::world::lock(&world.watch).off = true;
    let report = world.pass();
    assert!(matches!(&peer_states(&report, Family::V4)[&plain(2).name], PeerState::Rejected(_)));
    assert_eq!(world.tables(Family::V4).len(), 3);
}

#[test]
fn a_pod_cidr_outside_the_network_is_refused() {
    let outside = |family| cidr(if family == Family::V4 { "10.245.2.0/24" } else { "fd00:245::/64" });
    assert_rejected(with(|family, peer| peer.subnet = outside(family)), "outside Network");
}

#[test]
fn packets_for_a_vtep_never_enter_the_overlay() {
    let inside = |n: u8| {
        move |family| {
            if family == Family::V4 { ip(&format!("10.244.{n}.9")) } else { ip(&format!("fd00:244:0:{n}::9")) }
        }
    };
    for n in 0..=2 {
        assert_rejected(with(|family, peer| peer.public_ip = inside(n)(family)), "lies inside pod CIDR");
    }
}

#[test]
fn the_loser_takes_over_when_the_winner_is_gone() {
    let mut world = World::new();
    world.put_all([plain(1), with(|family, peer| peer.mac = Some(vtep_mac(family, 1)))]);
    world.converge();
    world.remove(&plain(1).name);
    world.converge();
    for family in Family::BOTH {
        assert_eq!(world.tables(family).neighbours.keys().collect::<Vec<_>>(), [&pod_cidr(family, 2).base()]);
    }
}

#[test]
fn a_node_of_unknown_age_is_the_newest() {
    let mut old = with(|family, peer| peer.subnet = pod_cidr(family, 1));
    old.created = i64::MAX;
    let mut first = plain(1);
    first.created = 1_700_000_000;
    let mut world = World::new();
    world.put_all([old.clone(), first]);
    let report = world.converge();
    assert!(matches!(peer_states(&report, Family::V4)[&old.name], PeerState::Rejected(_)));
}

#[test]
fn an_unusable_nodes_pod_cidr_is_kept_free_for_it() {
    let mut older = plain(1);
    for family in Family::BOTH {
        *older.standing.get_mut(family) = unusable(Some(pod_cidr(family, 1)));
    }
    let mut world = World::new();
    world.put_all([older, with(|family, peer| peer.subnet = pod_cidr(family, 1))]);
    let report = world.converge();
    for family in Family::BOTH {
        assert!(matches!(peer_states(&report, family)[&plain(2).name], PeerState::Rejected(_)));
        assert!(world.tables(family).is_empty());
    }
}
