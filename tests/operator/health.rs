//! `/healthz` and `/readyz`: what counts, and what does not.

use std::time::Duration;

use weft::kernel::ObserveError;
use weft::kernel::fake::Fate;
use weft::model::filter::{Masquerade, VtepFilter};
use weft::model::op::Op;
use weft::status::View;
use weft::status::health::{live, ready};

use crate::world::World;

fn why(view: &View) -> String {
    ready(view).expect_err("not ready").join("\n")
}

#[test]
fn a_node_is_ready_after_its_first_pass() {
    let mut world = World::with_peers(2);
    assert_eq!(why(&world.view()), "no pass has been made yet");
    world.pass();
    assert_eq!(ready(&world.view()), Ok(()));
}

#[test]
fn a_peer_with_a_problem_of_its_own_does_not_count() {
    let mut world = World::with_trouble();
    // Link create, addrgenmode, up, address; then the first FDB entry.
    world.refuse(5, 1);
    let report = world.pass();
    assert!(!report.families.v4.as_ref().expect("the family").pending.is_empty(), "{report:#?}");
    assert_eq!(ready(&world.view()), Ok(()));
}

#[test]
fn a_device_that_cannot_be_made_counts() {
    let mut world = World::with_peers(1);
    world.kernel.rule(|_| Some(weft::kernel::fake::Fate::Refused(1)));
    world.pass();
    let why = why(&world.view());
    assert!(why.starts_with("ipv4: flannel.1 is not ready: ip link add flannel.1 "), "{why}");
    assert!(why.contains("Operation not permitted"), "{why}");
}

#[test]
fn masquerading_that_is_not_in_place_counts() {
    let mut world = World::with_peers(1);
    world.settings.filter.masquerade = Some(Masquerade::default());
    world.kernel.rule(|op| matches!(op, Op::Filter(_)).then_some(Fate::Refused(1)));
    world.pass();
    let why = why(&world.view());
    assert!(why.starts_with("ipv4: masquerading (--ip-masq) is not in place: "), "{why}");
    assert!(why.contains("Operation not permitted"), "{why}");
    world.kernel.calm();
    world.pass();
    assert_eq!(ready(&world.view()), Ok(()));
}

#[test]
fn a_filter_for_vteps_that_is_not_in_place_does_not_count() {
    let mut world = World::with_peers(1);
    world.settings.filter.vteps = VtepFilter::Enforce;
    world.kernel.rule(|op| matches!(op, Op::Filter(_)).then_some(Fate::Refused(1)));
    world.pass();
    assert_eq!(ready(&world.view()), Ok(()));
}

#[test]
fn a_kernel_that_cannot_be_read_counts_also_later() {
    let mut world = World::with_peers(1);
    world.pass();
    let error = ObserveError::Broken { what: "routes", problem: "no answer".into() };
    world.kernel.fail_observation(1, error);
    world.pass();
    assert_eq!(why(&world.view()), "reading routes: no answer; nothing is changed, weft looks again");
    world.pass();
    assert_eq!(ready(&world.view()), Ok(()));
}

#[test]
fn an_api_server_that_fails_is_named_where_something_is_missing_and_is_no_reason_by_itself() {
    let mut world = World::with_peers(1);
    let failing = |world: &World| {
        let mut view = world.view();
        view.api.failing_since = Some(Duration::from_secs(1));
        view.api_problems[0].request = "watch";
        view
    };
    let why = why(&failing(&world));
    assert_eq!(why, "no pass has been made yet\nthe API server answered 403 Forbidden, 0 s ago");
    world.pass();
    assert_eq!(ready(&failing(&world)), Ok(()));
}

#[test]
fn what_the_agent_adds_counts() {
    let mut world = World::with_peers(1);
    world.pass();
    let mut view = world.view();
    view.unready.push("subnet.env is not written: read-only file system".into());
    assert_eq!(why(&view), "subnet.env is not written: read-only file system");
}

#[test]
fn a_loop_that_hangs_is_named() {
    let mut view = World::new().view();
    assert_eq!(live(&view), Ok(()));
    view.beats[0].age = Duration::from_secs(31);
    assert_eq!(
        live(&view),
        Err(vec!["the reconciler loop last went round 31 s ago; more than 30 s means that it hangs".to_owned()])
    );
}
