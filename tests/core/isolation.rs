//! One bad entry costs only itself; and every mixture of right, wrong and missing rows is put right in
//! the right order.

use proptest::collection::vec;
use proptest::prelude::*;
use weft::kernel::fake::Fate;
use weft::model::addr::Family;
use weft::model::op::Op;
use weft::model::table::{Entry, Fdb, Kind, Neighbour, Route, RouteKey};
use weft::reconcile::{PeerState, Verdict, peers::peer_states};

use crate::cluster::plain;
use crate::properties::cases;
use crate::world::{World, device, flannel_route, peer, pod_cidr, public_ip, rows, vtep_mac};

const PEERS: u8 = 3;

/// What was found of one row.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Found {
    Right,
    Missing,
    Wrong,
}

/// The rows of one peer as found: FDB entry, neighbour, route, and flannel's or a hand-made route beside
/// it.
type Mixture = ([Found; 3], bool, bool);

fn any_mixture() -> impl Strategy<Value = Mixture> {
    let found = || prop_oneof![Just(Found::Right), Just(Found::Missing), Just(Found::Wrong)];
    ([found(), found(), found()], any::<bool>(), any::<bool>())
}

fn lay_out(world: &mut World, family: Family, n: u8, (found, flannels, by_hand): Mixture) {
    let net = &mut world.kernel.net;
    let index = net.index(&device(family)).unwrap();
    let dst = pod_cidr(family, n);
    for (row, found) in rows(&peer(family, n)).into_iter().zip(found) {
        let wrong = found == Found::Wrong;
        match row {
            _ if found == Found::Right => {}
            Entry::Fdb(key, _) => {
                net.del_fdb(index, key.mac);
                if wrong {
                    net.put_fdb(index, key.mac, Fdb::to(public_ip(family, 99)));
                }
            }
            Entry::Neighbour(ip, _) => {
                net.del_neighbour(index, ip);
                if wrong {
                    // Another peer's MAC: its FDB entry is pointed at by two.
                    net.put_neighbour(index, ip, vtep_mac(family, n % PEERS + 1));
                }
            }
            Entry::Route(key, _) => {
                net.del_routes(|held, _| held == key);
                if wrong {
                    net.put_route(key, Some(index), Route::through(pod_cidr(family, n % PEERS + 1).base()));
                }
            }
        }
    }
    if flannels {
        let (key, route) = flannel_route(dst);
        if family == Family::V4 || found[2] == Found::Missing {
            net.put_route(key, Some(index), route);
        }
    }
    if by_hand {
        let key = RouteKey { dst, metric: 2 };
        net.put_route(key, Some(index), Route { protocol: 3, ..Route::through(pod_cidr(family, 98).base()) });
    }
}

fn is_about(op: &Op, family: Family, n: u8, kind: Kind) -> bool {
    op.entry().is_some_and(|entry| {
        entry.kind() == kind
            && match entry {
                Entry::Fdb(key, _) => key.mac == vtep_mac(family, n),
                Entry::Neighbour(ip, _) => *ip == pod_cidr(family, n).base(),
                Entry::Route(key, _) => key.dst == pod_cidr(family, n),
            }
    })
}

fn any_fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        proptest::sample::select(&[1, 12, 16, 22, 105][..]).prop_map(Fate::Refused),
        Just(Fate::NotDoneUnheard),
        Just(Fate::DoneUnheard),
    ]
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn every_mixture_of_rows_is_put_right_in_the_right_order(
        mixtures in vec(any_mixture(), 6),
        victims in vec((0..6_usize, 0..3_usize, any_fate()), 0..3),
        restarted: bool,
    ) {
        let mut world = World::with_peers(PEERS);
        world.pass();
        for (at, mixture) in mixtures.iter().enumerate() {
            lay_out(&mut world, Family::BOTH[at / 3], 1 + u8::try_from(at % 3).unwrap(), *mixture);
        }
        if restarted {
            world.restart();
        }
        world.kernel.rule(move |op| {
            let hit = |(at, kind, _): &&(usize, usize, Fate)| {
                is_about(op, Family::BOTH[at / 3], 1 + u8::try_from(at % 3).unwrap(), Kind::ALL[*kind])
            };
            victims.iter().find(hit).map(|(_, _, fate)| *fate)
        });
        world.pass();
        world.now += crate::world::MINUTE;
        world.pass();
        world.converge();
    }

    /// Whatever the kernel refuses of one peer, the others are right after one pass.
    #[test]
    fn a_peer_that_cannot_be_installed_delays_no_other(
        n in 1..=PEERS,
        kind in proptest::sample::select(&Kind::ALL[..]),
        family in proptest::sample::select(&Family::BOTH[..]),
        errno in proptest::sample::select(&[1, 12, 16, 22, 105][..]),
    ) {
        let mut world = World::with_peers(PEERS);
        world.kernel.rule(move |op| is_about(op, family, n, kind).then_some(Fate::Refused(errno)));
        let report = world.pass();
        prop_assert_eq!(&report.verdict, &Verdict::Incomplete);
        for of in Family::BOTH {
            let tables = world.tables(of);
            let states = peer_states(&report, of);
            let said = report.families.get(of).as_ref().unwrap();
            for kind in Kind::ALL {
                let there = (1..=PEERS).flat_map(|n| rows(&peer(of, n))).filter(|row| tables.at(row) == Some(*row));
                prop_assert_eq!(said.present.get(kind), there.filter(|row| row.kind() == kind).count());
            }
            for other in (1..=PEERS).filter(|other| of != family || *other != n) {
                prop_assert_eq!(&states[&plain(other).name], &PeerState::Installed);
                for row in rows(&peer(of, other)) {
                    prop_assert_eq!(tables.at(&row), Some(row));
                }
            }
        }
        let told_pending = matches!(&peer_states(&report, family)[&plain(n).name], PeerState::Pending(_));
        prop_assert!(told_pending);
        world.converge();
    }
}

#[test]
fn a_foreign_route_on_a_key_blocks_that_peer_alone_and_stays() {
    for family in Family::BOTH {
        let mut world = World::with_peers(PEERS);
        let [_, _, Entry::Route(key, _)] = rows(&peer(family, 2)) else { panic!("a route") };
        let eth0 = world.kernel.net.index(&weft::model::addr::IfName::new("eth0"));
        let foreign = Route { via: None, onlink: false, protocol: 4, plain: true, dev: None };
        world.kernel.net.put_route(key, eth0, foreign);
        let report = world.settle_with_problems();
        assert_eq!(report.verdict, Verdict::Incomplete);
        let states = peer_states(&report, family);
        // IPv6 refuses the gateway before it looks at the key.
        let reason = if family == Family::V4 { "somebody else" } else { "device mismatch" };
        assert!(matches!(&states[&plain(2).name], PeerState::Pending(why) if why.contains(reason)), "{states:?}");
        assert_eq!(states[&plain(3).name], PeerState::Installed);
        let shadows = &report.families.get(family).as_ref().unwrap().shadows;
        assert!(shadows.len() == 1 && shadows[0].peer == plain(2).name, "{shadows:?}");
        let held: Vec<_> = world.kernel.net.routes().filter(|(held, _)| *held == key).map(|(_, it)| it.route).collect();
        assert_eq!(held, [foreign]);
        world.kernel.net.del_routes(|held, _| held == key);
        world.converge();
    }
}

#[test]
fn a_route_waits_for_its_fdb_entry_though_its_neighbour_is_there() {
    for family in Family::BOTH {
        let mut world = World::with_peers(PEERS);
        world.pass();
        lay_out(&mut world, family, 2, ([Found::Missing, Found::Right, Found::Missing], false, false));
        world.kernel.rule(move |op| is_about(op, family, 2, Kind::Fdb).then_some(Fate::Refused(12)));
        let report = world.pass();
        assert_eq!(report.changes.len(), 1, "{:?}", report.changes);
        world.converge();
    }
}

#[test]
fn of_two_routes_that_go_the_one_that_leads_nowhere_goes_first() {
    let mut world = World::with_peers(PEERS);
    world.pass();
    // Flannel's, with metric 0, carries the packets; behind it waits a hand-made one with metric 2.
    lay_out(&mut world, Family::V4, 2, ([Found::Right, Found::Right, Found::Missing], true, true));
    let report = world.pass();
    let metrics = report.changes.iter().filter_map(|change| match change.op {
        Op::Del { entry: Entry::Route(key, _), .. } => Some(key.metric),
        _ => None,
    });
    assert_eq!(metrics.collect::<Vec<_>>(), [2, 0]);
}

/// It appears after the look and before any one of the operations that follow.
#[test]
fn a_foreign_route_that_appears_at_the_last_moment_is_not_overwritten() {
    let foreign = Route { via: None, onlink: false, protocol: 4, plain: true, dev: None };
    for nth in 1..=26 {
        for family in Family::BOTH {
            let mut world = World::with_peers(PEERS);
            crate::world::lock(&world.watch).off = true;
            let [_, _, Entry::Route(key, _)] = rows(&peer(family, 2)) else { panic!("a route") };
            let appear = move |net: &mut weft::kernel::fake::Net| {
                if net.routes().all(|(held, _)| held != key) {
                    net.put_route(key, net.index(&weft::model::addr::IfName::new("docker0")), foreign);
                }
            };
            world.kernel.fail(nth, weft::kernel::fake::Fault::overtaken(appear));
            world.pass();
            assert_eq!(world.kernel.unspent(), 0, "operation {nth}");
            let report = world.settle_with_problems();
            let held = world.kernel.net.routes().find(|(held, _)| *held == key).map(|(_, it)| it.route);
            let states = peer_states(&report, family);
            if held == Some(foreign) {
                assert!(matches!(states[&plain(2).name], PeerState::Pending(_)), "operation {nth}: {states:?}");
            } else {
                assert_eq!(states[&plain(2).name], PeerState::Installed, "it came too late");
            }
            assert_eq!(states[&plain(1).name], PeerState::Installed);
        }
    }
}

#[test]
fn a_route_of_ours_on_a_device_of_before_is_taken_over() {
    for family in Family::BOTH {
        let mut world = World::with_peers(PEERS);
        world.pass();
        let index = world.kernel.net.index(&device(family)).unwrap();
        let [_, _, Entry::Route(key, route)] = rows(&peer(family, 2)) else { panic!("a route") };
        // The device of another VNI keeps its routes when the configuration changes.
        world.kernel.net.rename(index, "flannel.9");
        world.kernel.net.set_vxlan(index, |vxlan| vxlan.port = 4789);
        world.kernel.net.put_route(key, Some(index), route);
        crate::world::lock(&world.watch).off = true;
        world.converge();
    }
}

#[test]
fn an_address_of_this_host_where_a_peers_vtep_should_be_costs_that_peer_alone() {
    let mut world = World::with_peers(PEERS);
    let docker = world.kernel.net.index(&weft::model::addr::IfName::new("docker0")).unwrap();
    world.kernel.net.add_address(docker, pod_cidr(Family::V4, 2).base(), 32);
    let report = world.settle_with_problems();
    let states = peer_states(&report, Family::V4);
    assert!(matches!(&states[&plain(2).name], PeerState::Pending(_) | PeerState::Rejected(_)), "{states:?}");
    assert_eq!(states[&plain(1).name], PeerState::Installed);
    assert_eq!(peer_states(&report, Family::V6)[&plain(2).name], PeerState::Installed);
    world.kernel.net.del_address(docker, pod_cidr(Family::V4, 2).base(), 32);
    world.converge();
}

#[test]
fn neighbours_that_the_kernel_resolved_by_itself_do_not_get_in_the_way() {
    let mut world = World::with_peers(PEERS);
    world.pass();
    for family in Family::BOTH {
        let index = world.kernel.net.index(&device(family)).unwrap();
        let base = pod_cidr(family, 1).base();
        world.kernel.net.del_neighbour(index, base);
        world.kernel.net.resolve(index, base);
        world.kernel.net.del_fdb(index, vtep_mac(family, 2));
        world.kernel.net.learn(index, vtep_mac(family, 2), public_ip(family, 77));
    }
    assert_eq!(world.pass().verdict, Verdict::Converged);
    world.assert_right();
    let wrong = Neighbour { mac: vtep_mac(Family::V4, 9) };
    assert!(!world.tables(Family::V4).neighbours.values().any(|neighbour| *neighbour == wrong));
}
