//! The packet filter, as far as it can be told without a kernel.

use weft::kernel::fake::Fate;
use weft::model::addr::Family;
use weft::model::filter::Masquerade;
use weft::model::op::Op;

use crate::world::World;

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
