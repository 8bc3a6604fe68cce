//! What is kept, and until when: rows of nodes that cannot be used, rows during a list that is not
//! whole, rows of most peers at once, rows that flannel made.

use proptest::collection::{hash_set, vec};
use proptest::prelude::*;
use weft::model::addr::{ByFamily, Family};
use weft::model::node::{Absence, Standing};
use weft::model::op::Op;
use weft::model::table::{Entry, PROTOCOL_WEFT, Tables};
use weft::plan::cause::Cause;
use weft::reconcile::{PeerState, Verdict, peers::peer_states};

use crate::cluster::{any_node, plain, unusable};
use crate::meddling::any_meddle;
use crate::properties::cases;
use crate::world::{World, device, flannel_route, peer, pod_cidr, reaches, rows, vtep_mac};

const PEERS: u8 = 4;

fn becomes(n: u8, standing: impl Fn(Family) -> Standing) -> weft::model::node::NodeRecord {
    let mut node = plain(n);
    node.standing = ByFamily::from_fn(standing);
    node
}

fn has_rows(tables: &Tables, family: Family, n: u8) -> usize {
    rows(&peer(family, n)).iter().filter(|row| tables.at(row) == Some(**row)).count()
}

#[test]
fn rows_of_a_node_that_becomes_unusable_stay_and_the_pass_is_content() {
    let mut world = World::with_peers(PEERS);
    world.pass();
    world.put(becomes(2, |family| unusable(Some(pod_cidr(family, 2)))));
    let report = world.pass();
    assert_eq!((report.changes.len(), &report.verdict), (0, &Verdict::Converged));
    for family in Family::BOTH {
        assert_eq!(has_rows(&world.tables(family), family, 2), 3);
        assert!(matches!(peer_states(&report, family)[&plain(2).name], PeerState::Unusable(_)));
    }
    // Also for a process that never saw it usable.
    world.restart();
    assert_eq!(world.converge().changes.len(), 0);
}

#[test]
fn held_rows_are_not_repaired_but_replaced_when_the_node_is_usable_again() {
    let mut world = World::with_peers(PEERS);
    world.pass();
    world.put(becomes(2, |family| unusable(Some(pod_cidr(family, 2)))));
    for family in Family::BOTH {
        let index = world.kernel.net.index(&device(family)).unwrap();
        world.kernel.net.del_neighbour(index, pod_cidr(family, 2).base());
    }
    world.converge();
    world.put(plain(2));
    world.converge();
    for family in Family::BOTH {
        assert_eq!(has_rows(&world.tables(family), family, 2), 3);
    }
}

#[test]
fn held_rows_go_when_the_node_goes_opts_out_or_moves() {
    let ends: [fn(&mut World); 4] = [
        |world| world.remove(&plain(2).name),
        |world| world.put(becomes(2, |_| Standing::Absent(Absence::NotFlannel))),
        |world| {
            let absence = Absence::OtherBackend { theirs: "host-gw".into(), ours: "vxlan" };
            world.put(becomes(2, |_| Standing::Absent(absence.clone())));
        },
        |world| world.put(becomes(2, |family| unusable(Some(pod_cidr(family, 9))))),
    ];
    for end in ends {
        let mut world = World::with_peers(PEERS);
        world.pass();
        world.put(becomes(2, |family| unusable(Some(pod_cidr(family, 2)))));
        world.pass();
        end(&mut world);
        world.converge();
        for family in Family::BOTH {
            assert_eq!(has_rows(&world.tables(family), family, 2), 0);
            assert_eq!(world.tables(family).len(), 3 * usize::from(PEERS - 1));
        }
    }
}

#[test]
fn all_rows_of_a_held_node_go_because_it_left() {
    let mut world = World::with_peers(PEERS);
    world.pass();
    world.put(becomes(2, |family| unusable(Some(pod_cidr(family, 2)))));
    world.pass();
    world.remove(&plain(2).name);
    let report = world.pass();
    let told: Vec<_> = report.changes.iter().map(|change| (change.cause, change.peer.as_deref())).collect();
    assert_eq!(told, [(Cause::NodeLeft, Some(&*plain(2).name)); 6], "{report:#?}");
}

#[test]
fn many_nodes_becoming_unusable_at_once_are_no_mass_removal() {
    let mut world = World::with_peers(30);
    world.pass();
    world.put_all((1..=30).map(|n| becomes(n, |family| unusable(Some(pod_cidr(family, n))))));
    let report = world.pass();
    assert!(!report.wants_list && report.changes.is_empty(), "{report:#?}");
    assert_eq!(report.verdict, Verdict::Converged);
}

proptest! {
    #![proptest_config(cases(24))]

    /// Before the list of nodes is whole, or when our own node is missing in it, no row goes for want of
    /// a node; and nothing at all happens before our own node was ever seen.
    #[test]
    fn nothing_is_removed_on_partial_knowledge(
        nodes in vec(any_node(6), 0..8),
        meddles in vec(any_meddle(6), 0..6),
        own_known: bool,
        complete: bool,
        restarted: bool,
    ) {
        prop_assume!(!own_known || !complete);
        let mut world = World::with_peers(6);
        world.pass();
        for (family, meddle) in &meddles {
            meddle.act(&mut world.kernel.net, *family);
        }
        (1..=6).for_each(|n| world.remove(&plain(n).name));
        world.put_all(nodes);
        let whole = world.snapshot.clone();
        world.snapshot.complete = complete;
        if !own_known {
            world.snapshot.own = None;
        }
        if restarted {
            world.restart();
        }
        let before = world.kernel.net.clone();
        for _ in 0..3 {
            let report = world.pass();
            if !own_known && restarted {
                prop_assert!(matches!(report.verdict, Verdict::Waiting(_)));
                prop_assert!(world.kernel.net == before);
            }
            let removed = |change: &&weft::reconcile::Change| matches!(change.op, Op::Del { .. }) && !change.cause.is_drift();
            prop_assert_eq!(report.changes.iter().find(removed).map(|change| change.op.to_string()), None);
            world.now += crate::world::MINUTE;
        }
        world.snapshot = whole;
        world.converge();
    }

    /// More than ten peers and more than a third of them gone: not before another whole LIST says so too.
    /// What else changed is done meanwhile.
    #[test]
    fn a_mass_removal_waits_for_another_list(there in 11..40_u8, gone in hash_set(1..40_u8, 11..40), joining: bool) {
        let gone: Vec<u8> = gone.into_iter().filter(|n| *n <= there).collect();
        let mass = gone.len() > 10 && gone.len() * 3 > usize::from(there);
        let mut world = World::with_peers(there);
        world.pass();
        for n in &gone {
            world.remove(&plain(*n).name);
        }
        if joining {
            world.put(plain(60));
        }
        let lists = world.snapshot.lists;
        for _ in 0..3 {
            let report = world.pass();
            // `World` plays the agent, which lists again when asked: not here.
            world.snapshot.lists = lists;
            prop_assert_eq!(report.wants_list, mass);
            let removals = report.changes.iter().filter(|change| matches!(change.op, Op::Del { .. })).count();
            prop_assert!(!mass || removals == 0);
            prop_assert!(!mass || report.verdict == Verdict::Incomplete);
            for family in Family::BOTH {
                prop_assert_eq!(has_rows(&world.tables(family), family, 60), if joining { 3 } else { 0 });
            }
        }
        world.snapshot.lists += 1;
        world.converge();
    }

    /// A mass removal that the next LIST takes back never happened.
    #[test]
    fn a_list_that_was_cut_short_costs_nothing(there in 21..40_u8) {
        let mut world = World::with_peers(there);
        world.pass();
        (1..=there).for_each(|n| world.remove(&plain(n).name));
        world.pass();
        world.put_all((1..=there).map(plain));
        let before = world.kernel.operations();
        let report = world.pass();
        prop_assert_eq!(report.verdict, Verdict::Converged);
        prop_assert_eq!(world.kernel.operations(), before);
    }

    /// State in flannel's exact shape, all or in part, is taken over without any peer being cut off
    /// (`Watch` asserts that after each operation), and what was right is not written.
    #[test]
    fn flannels_state_is_adopted_without_a_gap(
        count in 1..20_u8,
        stale in hash_set(1..20_u8, 0..8),
        nodes_changed in hash_set(1..20_u8, 0..3),
    ) {
        let mut world = World::with_peers(count);
        world.pass();
        for family in Family::BOTH {
            let index = world.kernel.net.index(&device(family)).unwrap();
            for n in 1..=count {
                let (key, route) = flannel_route(pod_cidr(family, n));
                world.kernel.net.del_routes(|held, _| held.dst == key.dst);
                world.kernel.net.put_route(key, Some(index), route);
            }
        }
        world.restart();
        let left: Vec<u8> = stale.into_iter().filter(|n| *n <= count).collect();
        for n in &left {
            world.remove(&plain(*n).name);
        }
        let changed: Vec<u8> = nodes_changed.into_iter().filter(|n| *n <= count && !left.contains(n)).collect();
        for n in &changed {
            let mut node = plain(*n);
            for family in Family::BOTH {
                if let Standing::Usable(peer) = node.standing.get_mut(family) {
                    peer.mac = Some(vtep_mac(family, 100 + n));
                }
            }
            world.put(node);
        }
        world.snapshot.lists += 1;
        let before = Family::BOTH.map(|family| world.tables(family));
        let reached = Family::BOTH.map(|family| (1..=count).filter(|n| reaches(&before[usize::from(family == Family::V6)], pod_cidr(family, *n))).count());
        prop_assert_eq!(reached, [usize::from(count); 2]);
        world.kernel.take_tried();
        world.converge();
        let kept = usize::from(count) - left.len();
        let tried = world.kernel.take_tried();
        // A peer that stays costs one new route and, for IPv4, the removal of flannel's.
        let routes = |family| tried.iter().filter(|it| matches!(it.op.entry(), Some(Entry::Route(key, _)) if key.dst.family() == family)).count();
        prop_assert_eq!(routes(Family::V4), kept * 2 + left.len());
        prop_assert_eq!(routes(Family::V6), kept + left.len());
        let others = tried.iter().filter(|it| !matches!(it.op.entry(), Some(Entry::Route(..)))).count();
        prop_assert_eq!(others, 2 * (2 * left.len() + 3 * changed.len()), "{:?}", tried);
        for family in Family::BOTH {
            let all_ours = world.tables(family).routes.values().all(|route| route.protocol == PROTOCOL_WEFT);
            prop_assert!(all_ours);
        }
    }
}
