//! The process itself, from /proc.

use std::fs;

/// What the kernel says of our process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    /// Bytes of memory that are resident; `None` if /proc does not say.
    pub resident_bytes: Option<u64>,
    /// When it started, in seconds since 1970.
    pub started_at: Option<f64>,
}

/// Clock ticks in a second, as /proc counts them (USER_HZ: 100 on every architecture that Linux
/// exports it on).
const USER_HZ: f64 = 100.0;

impl Process {
    /// Reads /proc.
    pub fn read() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            resident_bytes: resident(&read("/proc/self/status")),
            started_at: started(&read("/proc/self/stat"), &read("/proc/stat")),
        }
    }
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Field 22 of /proc/self/stat counts from boot; `btime` of /proc/stat says when that was. The name
/// in field 2 may hold anything, so the fields are counted from behind its bracket.
fn started(own: &str, system: &str) -> Option<f64> {
    let ticks: f64 = own.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let boot: f64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + ticks / USER_HZ)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read_whatever_the_process_is_called() {
        let stat = "42 (a) b) R 1 42 42 0 -1 4194304 94 0 0 0 0 0 0 0 20 0 1 0 12345 1 1 1";
        assert_eq!(started(stat, "cpu 1 2\nbtime 1000\n"), Some(1123.45));
        assert_eq!(resident("Name:\tweft\nVmRSS:\t    5120 kB\n"), Some(5_242_880));
        assert_eq!((started("", ""), resident("")), (None, None));
    }

    #[test]
    fn this_process_is_found() {
        let process = Process::read();
        assert!(process.resident_bytes.is_some_and(|bytes| bytes > 100_000), "{process:?}");
        assert!(process.started_at.is_some_and(|at| at > 1e9), "{process:?}");
    }
}
