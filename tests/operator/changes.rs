//! The change log.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use weft::config::LogConfig;
use weft::config::flags::{LogFormat, LogLevel};
use weft::logging::subscriber;
use weft::reconcile::Report;
use weft::status::changes::log_changes;

use crate::world::World;

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("not poisoned").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn log(format: LogFormat, level: LogLevel, report: &Report) -> Vec<String> {
    let sink = Sink::default();
    let writer = sink.clone();
    tracing::subscriber::with_default(subscriber(LogConfig { format, level }, move || writer.clone()), || {
        log_changes(report);
    });
    let bytes = sink.0.lock().expect("not poisoned").clone();
    String::from_utf8(bytes).expect("UTF-8").lines().map(str::to_owned).collect()
}

/// Without the time.
fn text(level: LogLevel, report: &Report) -> Vec<String> {
    let after_time = |line: String| line.split_once("Z ").expect("a time").1.trim_start().to_owned();
    log(LogFormat::Text, level, report).into_iter().map(after_time).collect()
}

#[test]
fn a_line_is_a_command_with_its_cause_its_peer_and_its_result() {
    let mut world = World::with_peers(1);
    world.pass();
    world.flush_routes();
    assert_eq!(
        text(LogLevel::Info, &world.pass()),
        ["INFO ip route add 10.244.1.0/24 via 10.244.1.0 dev flannel.1 proto 119 metric 1026 onlink \
              cause=drift: route deleted peer=node-1 result=done"]
    );
    world.remove("node-1");
    let lines = text(LogLevel::Info, &world.pass());
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].starts_with("INFO ip route del 10.244.1.0/24 "), "{lines:?}");
    assert!(lines.iter().all(|line| line.ends_with("cause=node left peer=node-1 result=done")), "{lines:?}");
}

#[test]
fn a_refusal_is_a_warning_in_the_kernels_words() {
    let mut world = World::with_peers(1);
    world.pass();
    world.flush_routes();
    world.refuse(1, 1);
    assert_eq!(
        text(LogLevel::Info, &world.pass()),
        ["WARN ip route add 10.244.1.0/24 via 10.244.1.0 dev flannel.1 proto 119 metric 1026 onlink \
              cause=drift: route deleted peer=node-1 result=refused: Operation not permitted (os error 1)"]
    );
}

#[test]
fn a_machine_gets_one_object_a_line() {
    let mut world = World::with_peers(1);
    world.pass();
    world.flush_routes();
    let lines = log(LogFormat::Json, LogLevel::Info, &world.pass());
    let line: serde_json::Value = serde_json::from_str(&lines[0]).expect("JSON");
    assert_eq!(line["message"], "ip route add 10.244.1.0/24 via 10.244.1.0 dev flannel.1 proto 119 metric 1026 onlink");
    assert_eq!(line["cause"], "drift: route deleted");
    assert_eq!(line["peer"], "node-1");
    assert_eq!(line["result"], "done");
}

#[test]
fn a_pass_with_very_many_changes_is_summed_up() {
    let mut world = World::with_peers(99);
    let report = world.pass();
    assert_eq!(report.changes.len(), 4 + 3 * 99);
    let lines = text(LogLevel::Info, &report);
    assert_eq!(lines.len(), 101);
    assert_eq!(
        lines[100],
        "INFO and 201 changes more in this pass: fdb 3 done, neighbour 99 done, route 99 done pass=1"
    );
    assert_eq!(text(LogLevel::Debug, &report).len(), 4 + 3 * 99 + 1);
}

#[test]
fn a_quiet_pass_logs_nothing() {
    let mut world = World::with_peers(3);
    world.pass();
    assert_eq!(log(LogFormat::Text, LogLevel::Trace, &world.pass()), [""; 0]);
}
