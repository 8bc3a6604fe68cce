//! The times of all tests of the binary, in one table.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

static TIMES: Mutex<BTreeMap<(&str, &str), Vec<Duration>>> = Mutex::new(BTreeMap::new());

/// Takes note of one healing.
pub(super) fn note(what: &'static str, dev: &'static str, took: Duration) {
    TIMES.lock().expect("the table").entry((what, dev)).or_default().push(took);
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
