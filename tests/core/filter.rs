//! The packet filter, as far as it can be told without a kernel.

use std::sync::Arc;

use weft::kernel::ObserveError;
use weft::kernel::fake::Fate;
use weft::model::addr::{Family, IfName};
use weft::model::filter::{FilterRules, Masquerade, VtepFilter};
use weft::model::op::Op;
use weft::plan::pace::Ended;
use weft::reconcile::report::FilterReport;
use weft::reconcile::{Report, Verdict};

use crate::world::{World, ip, own, peer, public_ip, rows};

/// EOPNOTSUPP: the kernel lacks a part of nf_tables.
const LACKING: i32 = 95;

fn world() -> World {
    let mut world = World::with_peers(2);
    world.settings.filter.masquerade = Some(Masquerade::default());
    world
}

#[test]
fn what_pods_are_told_of_masquerading_does_not_follow_each_look() {
    let mut world = world();
    world.kernel.rule(|op| matches!(op, Op::Filter(_)).then_some(Fate::Refused(LACKING)));
    let said = |world: &mut World| {
        let report = world.settle_with_problems();
        Family::BOTH.map(|family| {
            let filter = report.filter.get(family);
            (filter.stands_in(), filter.has_masqueraded)
        })
    };
    assert_eq!(said(&mut world), [(false, false); 2], "before there are any rules");
    world.converge();
    assert_eq!(said(&mut world), [(true, true); 2]);
    world.kernel.rule(|op| matches!(op, Op::Filter(_)).then_some(Fate::Refused(LACKING)));
    Family::BOTH.iter().for_each(|family| *world.kernel.net.filter_mut(*family) = None);
    assert_eq!(said(&mut world), [(false, true); 2], "while they cannot be put back");
}

#[test]
fn a_pass_without_its_packet_rules_is_not_done() {
    for masquerade in [Some(Masquerade::default()), None] {
        let mut world = world();
        world.settings.filter.masquerade = masquerade;
        world.settings.filter.vteps = VtepFilter::Audit;
        world.kernel.rule(|op| matches!(op, Op::Filter(_)).then_some(Fate::Refused(LACKING)));
        let report = world.settle_with_problems();
        assert_eq!(report.verdict, Verdict::Incomplete);
        assert!(report.next_try.is_some(), "it is tried again");
        world.converge();
    }
}

#[test]
fn a_table_that_is_to_go_and_stays_is_something_left_to_do() {
    let mut world = world();
    world.converge();
    world.settings.filter = FilterRules::default();
    world.kernel.rule(|op| matches!(op, Op::Filter(_)).then_some(Fate::Refused(LACKING)));
    assert_eq!(world.settle_with_problems().verdict, Verdict::Incomplete);
}

#[test]
fn what_strangers_sent_is_never_less() {
    let mut world = world();
    world.settings.filter.vteps = VtepFilter::Audit;
    world.converge();
    for (packets, family) in [10, 20].into_iter().zip(Family::BOTH) {
        count(&mut world, family, packets);
    }
    let sent = |report: &Report| Family::BOTH.map(|family| report.filter.get(family).from_strangers.0);
    assert_eq!(sent(&world.pass()), [10, 20]);
    world.kernel.fail_observation(1, ObserveError::Torn { what: "routes", attempts: 8 });
    assert_eq!(sent(&world.pass()), [10, 20], "while the kernel cannot be read");
    let mut own = own();
    own.subnet.v4 = Err("no pod CIDR".into());
    world.snapshot.own = Some(Arc::new(own));
    let report = world.pass();
    assert!(report.families.v4.as_ref().is_some_and(|family| family.waiting.is_some()), "{report:#?}");
    assert_eq!(sent(&report), [10, 20], "while a family waits");
}

#[test]
fn while_a_family_cannot_be_read_all_is_told_as_it_was_and_the_other_is_kept_right() {
    let mut world = world();
    world.settings.filter.vteps = VtepFilter::Audit;
    world.converge();
    count(&mut world, Family::V4, 10);
    let right = world.pass();
    world.kernel.net.hide_filter(Family::V4, Some("reading nf_tables sets: no answer"));
    *world.kernel.net.filter_mut(Family::V6) = None;
    for _ in 0..2 {
        let report = world.pass();
        assert_eq!((&report.verdict, report.ended()), (&Verdict::Incomplete, Ended::Unfinished));
        let expected = FilterReport {
            problem: Some("reading nf_tables sets: no answer".into()),
            ..right.filter.get(Family::V4).clone()
        };
        assert_eq!(*report.filter.get(Family::V4), expected);
        assert_eq!(report.filter.get(Family::V6), right.filter.get(Family::V6), "made again");
    }
    world.put(crate::cluster::plain(9));
    let report = world.pass();
    let filter = report.filter.get(Family::V4);
    assert!(!filter.in_place && filter.has_masqueraded && !filter.lacks_masquerading, "a VTEP more: {filter:?}");
    world.kernel.net.hide_filter(Family::V4, None);
    let report = world.converge();
    assert_eq!(report.filter.get(Family::V4).from_strangers, (10, 1000), "counted once");
}

/// Whatever else is put off or missing: nothing but a look tells when it can be read again.
#[test]
fn a_filter_that_cannot_be_read_is_looked_at_again_soon() {
    let mut world = world();
    let [fdb, ..] = rows(&peer(Family::V4, 1));
    world.kernel.rule(move |op| (op.entry() == Some(&fdb)).then_some(Fate::Refused(12)));
    assert_eq!(world.settle_with_problems().ended(), Ended::Done, "what is left is put off");
    world.kernel.net.hide_filter(Family::V6, Some("no answer"));
    let report = world.pass();
    assert!(report.next_try.is_some(), "{report:#?}");
    assert_eq!(report.ended(), Ended::Unfinished);

    world.kernel.net.hide_filter(Family::V6, None);
    world.converge();
    let eth0 = world.kernel.net.index(&IfName::new("eth0")).expect("the underlay");
    for address in [public_ip(Family::V6, 1), ip("fd00:244:0:c8::1")] {
        world.kernel.net.del_address(eth0, address, 64);
    }
    assert_eq!(world.settle_with_problems().ended(), Ended::Waiting, "IPv6 has no address");
    world.kernel.net.hide_filter(Family::V4, Some("no answer"));
    assert_eq!(world.pass().ended(), Ended::Unfinished);
}

#[test]
fn an_agent_that_has_never_read_the_filter_does_not_know_that_it_masquerades() {
    let mut world = world();
    world.converge();
    world.kernel.net.hide_filter(Family::V4, Some("no answer"));
    let lacks = |world: &mut World| Family::BOTH.map(|family| world.pass().filter.get(family).lacks_masquerading);
    assert_eq!(lacks(&mut world), [false, false]);
    world.restart();
    assert_eq!(lacks(&mut world), [true, false]);
    world.settings.filter.masquerade = None;
    assert_eq!(lacks(&mut world), [false, false]);
    world.kernel.net.hide_filter(Family::V4, None);
    world.converge();
}

/// So many packets of strangers have come.
fn count(world: &mut World, family: Family, packets: u64) {
    let table = world.kernel.net.filter_mut(family).as_mut().expect("a table");
    let (_, rules) = table.chains.get_mut("unknown_vtep").expect("a chain");
    rules.last_mut().expect("a rule").counted = Some((packets, packets * 100));
}

#[test]
fn a_table_that_is_only_said_to_be_made_is_not_asked_for_in_a_hot_loop() {
    let mut world = world();
    world.kernel.rule(|op| matches!(op, Op::Filter(_)).then_some(Fate::Lie));
    let report = world.pass();
    let asked = report.changes.iter().filter(|change| matches!(change.op, Op::Filter(_))).count();
    assert!((2..=6).contains(&asked), "{asked} times");
    for family in Family::BOTH {
        let problem = report.filter.get(family).problem.as_deref();
        assert!(
            problem.is_some_and(|problem| problem.contains("acknowledged it but does not have it so")),
            "{problem:?}"
        );
    }
}
