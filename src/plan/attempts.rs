//! When to try again: failing entries with growing delay, each on its own; and entries that somebody
//! keeps changing, so that two programs do not fight as fast as they can.
//!
//! Times are durations since the agent started; the caller has the clock.

use std::collections::HashMap;
use std::time::Duration;

use crate::model::addr::IfName;
use crate::model::op::{LinkOp, Op};
use crate::model::table::{Entry, FdbKey, RouteKey};

/// The first delay after a failure; it doubles.
const FIRST_DELAY: Duration = Duration::from_millis(100);
/// The longest delay.
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// Repairs of one entry that are made at once before it counts as a fight.
const PEACEFUL_REPAIRS: u32 = 10;
/// The first delay in a fight; it doubles with every repair.
const FIRST_TRUCE: Duration = Duration::from_secs(1);
/// An entry that was left alone this long has a clean record again.
const FORGIVEN_AFTER: Duration = Duration::from_secs(120);

/// What is being tried: a key of a table, or a kind of change to a device.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    Route(RouteKey),
    Neighbour(std::net::IpAddr),
    Fdb(FdbKey),
    Link(std::mem::Discriminant<LinkOp>),
}

#[derive(Clone, Debug, Default)]
struct Record {
    failures: u32,
    repairs: u32,
    last: Duration,
    not_before: Duration,
    problem: String,
}

/// The records of everything that failed or was repaired lately.
#[derive(Debug, Default)]
pub struct Attempts {
    records: HashMap<(IfName, Subject), Record>,
}

/// Why something is not tried now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutOff {
    /// When it will be.
    pub until: Duration,
    /// Whether somebody keeps undoing it, rather than the kernel refusing it.
    pub fight: bool,
    /// What happened the last time.
    pub problem: String,
    /// How often in a row.
    pub times: u32,
}

impl Attempts {
    /// Whether the change has to wait.
    pub fn put_off(&self, op: &Op, now: Duration) -> Option<PutOff> {
        let record = self.records.get(&key(op))?;
        let (fight, times) = if record.failures > 0 { (false, record.failures) } else { (true, record.repairs) };
        (now < record.not_before).then(|| PutOff {
            until: record.not_before,
            fight,
            problem: record.problem.clone(),
            times,
        })
    }

    /// Whether the last attempt at this failed.
    pub fn has_failed(&self, op: &Op) -> bool {
        self.records.get(&key(op)).is_some_and(|record| record.failures > 0)
    }

    /// Takes note of a failure.
    pub fn failed(&mut self, op: &Op, problem: String, now: Duration) {
        let record = self.records.entry(key(op)).or_default();
        record.not_before = now + doubled(FIRST_DELAY, record.failures);
        record.failures = record.failures.saturating_add(1);
        record.last = now;
        record.problem = problem;
    }

    /// Takes note of a success; `drift` if it undid what somebody else had done.
    pub fn succeeded(&mut self, op: &Op, drift: bool, now: Duration) {
        let key = key(op);
        if !drift {
            self.records.remove(&key);
            return;
        }
        let record = self.records.entry(key).or_default();
        record.failures = 0;
        record.repairs = record.repairs.saturating_add(1);
        record.last = now;
        if let Some(beyond) = record.repairs.checked_sub(PEACEFUL_REPAIRS + 1) {
            record.not_before = now + doubled(FIRST_TRUCE, beyond);
            record.problem = "something else keeps changing it".to_owned();
        }
    }

    /// Forgets what is long over. Call once a pass.
    pub fn forgive(&mut self, now: Duration) {
        self.records.retain(|_, record| {
            now < record.not_before || now.saturating_sub(record.last) < FORGIVEN_AFTER || record.failures > 0
        });
    }

    /// The earliest moment at which something put off may be tried.
    pub fn next_try(&self, now: Duration) -> Option<Duration> {
        self.records.values().map(|record| record.not_before).filter(|at| *at > now).min()
    }
}

fn doubled(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(LONGEST_DELAY)
}

fn key(op: &Op) -> (IfName, Subject) {
    let subject = match op {
        Op::Link(link) => Subject::Link(std::mem::discriminant(link)),
        Op::Set { entry, .. } | Op::Del { entry, .. } => match entry {
            Entry::Route(key, _) => Subject::Route(*key),
            Entry::Neighbour(ip, _) => Subject::Neighbour(*ip),
            Entry::Fdb(key, _) => Subject::Fdb(*key),
        },
    };
    (op.device().clone(), subject)
}
