//! A noisy machine, made a little calmer for the benchmark; and what machine it is.

use serde_json::{Value, json};

/// Goes before everything else that wants the CPUs, where it is allowed to: in a scheduling group of its
/// own, at the highest weight. Without the right to, the figures are noisier and the ratios the same.
pub(crate) fn first() {
    // A session of its own has a scheduling group of its own. It would outlive a cargo that is interrupted.
    let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
    let _ = nix::unistd::setsid();
    if std::fs::write("/proc/self/autogroup", "-20").is_err() {
        eprintln!("not allowed to go first: expect noisier figures");
    }
}

/// What was measured on.
pub(crate) fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
    let load = read("/proc/loadavg");
    json!({
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "cpu": model.unwrap_or("unknown"),
        "cpus": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "load": load.split_whitespace().next().unwrap_or("unknown"),
    })
}
