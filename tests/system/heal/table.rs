//! The times of all tests of the binary, in one table.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::LIMIT;
use crate::sandbox::sh;

/// How long the start of a program takes on a machine that has time for it: ten times less.
const STARVED: Duration = Duration::from_millis(30);

static TIMES: Mutex<BTreeMap<(&str, &str), Vec<Duration>>> = Mutex::new(BTreeMap::new());

/// Takes note of one healing; false if it does not count: it took too long, on a machine that takes too
/// long for everything.
pub(super) fn note(what: &'static str, dev: &'static str, took: Duration) -> bool {
    if took > LIMIT && is_starved() {
        eprintln!("*** {what} on {dev}: {took:?}, but this machine is starved of time: once more ***");
        return false;
    }
    TIMES.lock().expect("the table").entry((what, dev)).or_default().push(took);
    true
}

fn is_starved() -> bool {
    let start = Instant::now();
    (0..10).for_each(|_| sh("ip -brief link show lo"));
    start.elapsed() > 10 * STARVED
}

/// Prints the table, and leaves it next to what Cargo builds, for people and for programs.
pub(crate) fn print() {
    let times = TIMES.lock().expect("the table");
    if times.is_empty() {
        return;
    }
    let mut text =
        String::from("| disturbance | device | times | median (ms) | worst (ms) |\n|---|---|---:|---:|---:|\n");
    let mut rows = Vec::new();
    for ((what, dev), times) in times.iter() {
        let mut times: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1000.0).collect();
        times.sort_by(f64::total_cmp);
        let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
        writeln!(text, "| {what} | {dev} | {} | {median:.0} | {worst:.0} |", times.len()).expect("room");
        rows.push(serde_json::json!({ "disturbance": what, "device": dev, "milliseconds": times }));
    }
    println!("\nTime to heal, 200 dual-stack peers:\n\n{text}");
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    // Somebody else's target directory is read only; the table was printed.
    let _ = std::fs::write(directory.join("heal.md"), text);
    let _ = std::fs::write(directory.join("heal.json"), serde_json::Value::from(rows).to_string());
}
