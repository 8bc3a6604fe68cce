//! The lab does not flatter: it fails if nothing was broken, and if nothing heals.

use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use weft::lab::addressing::{Addressing, Stack};
use weft::lab::agent::STATUS_PORT;
use weft::lab::breakage::{self, Wound};
use weft::lab::heal::{self, Proof, Traffic};
use weft::lab::stage::Stage;
use weft::lab::witness::Cry;
use weft::model::addr::Family;

crate::tests![a_wound_that_was_none_is_no_success, what_does_not_heal_is_reported_row_by_row, a_wound_heals];

/// Two machines whose agents have settled, in the test's own namespace.
fn two(directory: &Path) -> Stage {
    let addressing = Addressing { stack: Stack::V4, segments: 1 };
    let mut stage = Stage::build(addressing, Path::new(env!("CARGO_BIN_EXE_weft")), directory, false).unwrap();
    for number in [1, 2] {
        stage.add_machine(number).unwrap();
        stage.add_node(number);
        stage.start_agent(number).unwrap();
    }
    stage.settle().unwrap();
    stage
}

fn a_wound_heals() {
    let directory = tempfile::tempdir().unwrap();
    let mut stage = two(directory.path());
    assert_eq!(stage.ping_all().unwrap(), 8);
    let begun = Instant::now();
    let scene = breakage::inflict(&mut stage, Family::V4, Wound::Route, false).unwrap();
    assert!(scene.healed > Duration::ZERO && scene.healed < begun.elapsed());
    assert!(scene.command.unwrap().starts_with("ip route del 10.244.2.0/24 via 10.244.2.0 dev flannel.1"));
    let status = || TcpStream::connect(("127.0.0.1", STATUS_PORT)).is_ok();
    assert!(stage.members[&1].machine.network.run(status).unwrap(), "the agent tells of itself, on its machine");
    assert!(!status(), "and nowhere else");
}

fn a_wound_that_was_none_is_no_success() {
    let directory = tempfile::tempdir().unwrap();
    let mut stage = two(directory.path());
    let proof = Proof { on: 1, cry: Cry::RouteGone };
    let found = heal::measure(&mut stage, "nothing", Traffic::between(1, 2, Family::V4), Some(proof), |_| Ok(()));
    assert!(found.unwrap_err().to_string().contains("`nothing` broke nothing"));
}

fn what_does_not_heal_is_reported_row_by_row() {
    let directory = tempfile::tempdir().unwrap();
    let mut stage = two(directory.path());
    stage.members[&1].agent.as_ref().unwrap().signal(Signal::SIGSTOP).unwrap();
    stage.patience = Duration::from_millis(200);
    let found = breakage::inflict(&mut stage, Family::V4, Wound::Route, false);
    let problem = found.unwrap_err().to_string();
    assert!(problem.contains("+ route      10.244.2.0/24 via 10.244.2.0 onlink"), "{problem}");
    stage.members[&1].agent.as_ref().unwrap().signal(Signal::SIGCONT).unwrap();
    stage.patience = weft::lab::stage::PATIENCE;
    stage.settle().unwrap();
    stage.stop_agent(1).unwrap();
    assert_eq!(stage.look(1).unwrap().rows.len(), 3, "an agent that stops tears nothing down");
}
