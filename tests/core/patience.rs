//! When something is tried again: failures with growing delay, fights with growing truces.

use std::time::Duration;

use weft::kernel::fake::{Fate, Net};
use weft::model::addr::{Family, IfIndex, IfName, Mac};
use weft::model::op::{Dev, LinkOp, Op, Refusal};
use weft::model::table::{Entry, Route, RouteKey};
use weft::plan::cause::Cause;
use weft::plan::pace::Ended;
use weft::plan::verdict::{Verdict as Meaning, verdict};
use weft::reconcile::{Report, Verdict};

use crate::world::{MINUTE, World, device, peer, pod_cidr, rows, vtep_mac};

fn family() -> Family {
    Family::V4
}

/// Runs passes for `span`, whenever the last one asked for the next but at least each `idle`. Returns
/// when the kernel was asked for something.
fn run(world: &mut World, span: Duration, idle: Duration, mut between: impl FnMut(&mut World)) -> Vec<Duration> {
    let end = world.now + span;
    let mut asked = Vec::new();
    while world.now < end {
        between(world);
        let report = world.pass();
        if !report.changes.is_empty() {
            asked.push(world.now);
        }
        let next = report.next_try.map_or(world.now + idle, |at| at.min(world.now + idle));
        world.now = next.max(world.now);
    }
    asked
}

fn gaps(times: &[Duration]) -> Vec<Duration> {
    times.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect()
}

#[test]
fn a_failure_is_tried_again_later_and_later_up_to_a_minute() {
    let mut world = World::with_peers(1);
    let [fdb, ..] = rows(&peer(family(), 1));
    world.kernel.rule(move |op| (op.entry() == Some(&fdb)).then_some(Fate::Refused(12)));
    let asked = run(&mut world, 10 * MINUTE, 10 * MINUTE, |_| ());
    let gaps = gaps(&asked);
    assert!(gaps[0] >= Duration::from_millis(100) && gaps[0] < Duration::from_millis(200), "{gaps:?}");
    assert!(gaps.windows(2).all(|pair| pair[1] >= pair[0]), "{gaps:?}");
    assert!(gaps.iter().all(|gap| *gap <= MINUTE + Duration::from_secs(1)), "{gaps:?}");
    assert!((12..25).contains(&gaps.len()), "{gaps:?}");
    world.converge();
}

#[test]
fn a_failure_that_is_over_is_forgotten() {
    let mut world = World::with_peers(1);
    let [fdb, ..] = rows(&peer(family(), 1));
    world.kernel.rule(move |op| (op.entry() == Some(&fdb)).then_some(Fate::Refused(12)));
    run(&mut world, 5 * MINUTE, MINUTE, |_| ());
    world.converge();
    let index = world.kernel.net.index(&device(family())).unwrap();
    world.kernel.net.del_fdb(index, vtep_mac(family(), 1));
    world.kernel.rule(move |op| (op.entry() == Some(&fdb)).then_some(Fate::Refused(12)));
    let asked = run(&mut world, Duration::from_millis(300), MINUTE, |_| ());
    assert!(gaps(&asked)[0] < Duration::from_millis(200), "the first delay again: {asked:?}");
}

/// Whatever weft's own delay has grown to: the route that was in the way is seen to go.
#[test]
fn a_route_that_another_was_in_the_way_of_is_put_in_as_soon_as_that_one_has_gone() {
    for family in Family::BOTH {
        let mut world = World::with_peers(3);
        let [_, _, Entry::Route(key, route)] = rows(&peer(family, 2)) else { panic!("a route") };
        let eth0 = world.kernel.net.index(&IfName::new("eth0"));
        let theirs = Route { via: None, onlink: false, protocol: 4, plain: true, dev: None };
        world.kernel.net.put_route(key, eth0, theirs);
        let asked = run(&mut world, 5 * MINUTE, MINUTE, |_| ());
        assert!(gaps(&asked).last() > Some(&Duration::from_secs(20)), "{asked:?}");
        world.pass();
        let operations = world.kernel.operations();
        (0..50).for_each(|_| drop(world.pass()));
        assert_eq!(world.kernel.operations(), operations, "it is not asked for while that one is there");
        world.kernel.net.del_routes(|held, _| held == key);
        let report = world.pass();
        assert_eq!(report.verdict, Verdict::Converged);
        let put_in = report.changes.iter().map(|change| (change.op.entry().copied(), change.cause));
        assert_eq!(put_in.collect::<Vec<_>>(), [(Some(Entry::Route(key, route)), Cause::Retry)]);
        world.assert_right();
    }
}

/// The kernel refuses for a reason that no look shows.
#[test]
fn a_route_of_somebody_else_that_was_not_in_the_way_brings_nothing_forward() {
    let mut world = World::with_peers(3);
    let [_, _, route] = rows(&peer(family(), 2));
    world.kernel.rule(move |op| (op.entry() == Some(&route)).then_some(Fate::Refused(17)));
    let eth0 = world.kernel.net.index(&IfName::new("eth0"));
    let theirs = Route { via: None, onlink: false, protocol: 4, plain: true, dev: None };
    let key = RouteKey { dst: pod_cidr(family(), 3), metric: 9000 };
    let mut there = false;
    let asked = run(&mut world, 5 * MINUTE, Duration::from_secs(1), |world| {
        there = !there;
        if there {
            world.kernel.net.put_route(key, eth0, theirs);
        } else {
            world.kernel.net.del_routes(|held, _| held == key);
        }
    });
    assert!(asked.len() < 20, "{asked:?}");
}

/// What is put off for a minute says nothing of what the pass did not get done.
#[test]
fn a_pass_that_somebody_kept_moving_the_ground_under_is_followed_by_another_soon() {
    let mut world = World::with_peers(2);
    let [Entry::Fdb(key, fdb), ..] = rows(&peer(family(), 1)) else { panic!("an FDB entry") };
    world
        .kernel
        .rule(move |op| matches!(op.entry(), Some(Entry::Fdb(it, _)) if *it == key).then_some(Fate::Refused(12)));
    run(&mut world, 5 * MINUTE, MINUTE, |_| ());
    assert_eq!(world.pass().ended(), Ended::Done, "what is left is put off");
    let index = world.kernel.net.index(&device(family())).unwrap();
    let mut strays = (0..=u8::MAX).cycle().map(move |n| Mac([0x0e, 9, 9, 9, 9, n]));
    let mut stray = move |net: &mut Net| net.put_fdb(index, strays.next().unwrap(), fdb);
    stray(&mut world.kernel.net);
    world.kernel.meddle(stray);
    let report = world.pass();
    assert!(report.next_try.is_some_and(|at| at > world.now + Duration::from_secs(10)), "{report:#?}");
    assert_eq!(report.ended(), Ended::Unfinished);
    world.converge();
}

fn tear_down_route(world: &mut World) {
    world.kernel.net.del_routes(|key, _| key.dst == pod_cidr(family(), 1));
}

#[test]
fn the_first_repairs_are_made_at_once() {
    let mut world = World::with_peers(2);
    world.converge();
    for _ in 0..5 {
        tear_down_route(&mut world);
        let report = world.pass();
        assert_eq!(report.verdict, Verdict::Converged);
        assert_eq!(report.changes[0].cause, Cause::DriftDeleted);
    }
}

#[test]
fn a_fight_is_fought_slower_and_slower_and_said_aloud() {
    let mut world = World::with_peers(2);
    world.converge();
    let repaired = run(&mut world, 10 * MINUTE, Duration::from_millis(500), tear_down_route);
    assert!((60..90).contains(&repaired.len()), "{} repairs in ten minutes", repaired.len());
    let gaps = gaps(&repaired);
    assert!(gaps[gaps.len() - 1] > Duration::from_secs(30), "{gaps:?}");
    tear_down_route(&mut world);
    let report: Report = world.pass();
    let pending = &report.families.v4.as_ref().unwrap().pending;
    assert!(pending.iter().any(|it| it.label == "fight"), "{pending:#?}");
    assert_eq!(report.verdict, Verdict::Incomplete);
    // The other peer's rows are repaired at once meanwhile.
    let index = world.kernel.net.index(&device(family())).unwrap();
    world.kernel.net.del_neighbour(index, pod_cidr(family(), 2).base());
    let report = world.pass();
    assert_eq!(report.changes.len(), 1, "{:?}", report.changes);
    assert!(matches!(report.changes[0].op.entry(), Some(Entry::Neighbour(..))));
    world.converge();
}

#[test]
fn a_truce_that_holds_ends_the_fight() {
    let mut world = World::with_peers(1);
    world.converge();
    run(&mut world, 3 * MINUTE, Duration::from_millis(500), tear_down_route);
    world.converge();
    run(&mut world, 10 * MINUTE, MINUTE, |_| ());
    tear_down_route(&mut world);
    assert_eq!(world.pass().verdict, Verdict::Converged, "repaired at once again");
}

/// A kernel that says yes to `which` and does nothing is asked less and less often, and believed as
/// soon as it does.
fn lied_to(world: &mut World, which: impl Fn(&Op) -> bool + Send + 'static) {
    crate::world::lock(&world.watch).off = true;
    world.kernel.rule(move |op| which(op).then_some(Fate::Lie));
    let before = world.kernel.operations();
    let asked = run(world, 10 * MINUTE, MINUTE, |_| ());
    let operations = world.kernel.operations() - before;
    assert!((10..40).contains(&asked.len()), "{} passes wrote", asked.len());
    let asked = u64::try_from(asked.len()).unwrap();
    assert!(operations <= 3 * asked + 20, "{operations} operations in {asked} passes");
    world.settle();
    world.assert_right();
}

#[test]
fn a_kernel_that_only_says_it_put_a_row_in_is_not_asked_in_a_hot_loop() {
    for row in rows(&peer(family(), 1)) {
        let mut world = World::with_peers(1);
        lied_to(&mut world, move |op| op.entry() == Some(&row));
    }
}

#[test]
fn a_kernel_that_only_says_it_took_a_row_out_is_not_asked_in_a_hot_loop() {
    for row in rows(&peer(family(), 1)) {
        let mut world = World::with_peers(2);
        world.converge();
        world.remove("node-001");
        lied_to(&mut world, move |op| matches!(op, Op::Del { entry, .. } if *entry == row));
    }
}

#[test]
fn a_kernel_that_only_says_it_changed_the_device_is_not_asked_in_a_hot_loop() {
    type Pick = fn(&LinkOp) -> bool;
    let picks: [Pick; 4] = [
        |op| matches!(op, LinkOp::Create(_)),
        |op| matches!(op, LinkOp::AddrGenNone(_)),
        |op| matches!(op, LinkOp::Up(_)),
        |op| matches!(op, LinkOp::AddAddress(..)),
    ];
    for pick in picks {
        let mut world = World::with_peers(1);
        lied_to(&mut world, move |op| matches!(op, Op::Link(op) if op.device() == &device(family()) && pick(op)));
    }
}

#[test]
fn a_device_setting_that_is_refused_does_not_keep_the_peers_away() {
    // Extended modes that an old kernel or a container does not grant.
    for refused in [95, 1, 22] {
        let mut world = World::with_peers(2);
        let addrgen = |op: &Op| matches!(op, Op::Link(LinkOp::AddrGenNone(_)));
        world.kernel.rule(move |op| addrgen(op).then_some(Fate::Refused(refused)));
        world.pass();
        world.now += MINUTE;
        world.pass();
        for of in Family::BOTH {
            assert_eq!(world.tables(of).len(), 6, "{of}");
        }
        world.settle();
        world.assert_right();
    }
}

#[test]
fn a_device_that_somebody_keeps_deleting_is_remade_less_and_less_often() {
    let mut world = World::with_peers(2);
    world.converge();
    let remade = run(&mut world, 10 * MINUTE, Duration::from_millis(500), |world| {
        world.kernel.net.del_link(&device(family()));
    });
    assert!((60..90).contains(&remade.len()), "{} times in ten minutes", remade.len());
    world.converge();
}

#[test]
fn what_is_gone_already_is_done_and_what_vanished_is_looked_at_again() {
    let [fdb, neighbour, route] = rows(&peer(family(), 1));
    let dev = Dev { index: IfIndex(4), name: device(family()) };
    let says = |op: &Op, errno| verdict(op, &Refusal { errno, text: None });
    for (entry, gone) in [(fdb, 2), (neighbour, 2), (route, 3)] {
        let (set, del) = (Op::Set { dev: dev.clone(), entry, replace: false }, Op::Del { dev: dev.clone(), entry });
        assert_eq!(says(&del, gone), Meaning::Settled);
        for vanished in [19, 100] {
            assert_eq!(says(&set, vanished), Meaning::LookAgain);
        }
        for other in [1, 12, 22, 105] {
            assert_eq!(says(&set, other), Meaning::Retry);
            assert_eq!(says(&del, other), Meaning::Retry);
        }
    }
    assert_eq!(says(&Op::Set { dev, entry: route, replace: false }, 17), Meaning::Blocked);
}
