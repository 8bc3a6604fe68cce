//! Sums over all passes, which a single report cannot know.

use std::collections::BTreeMap;
use std::time::Duration;

use super::words::{Outcome, Target, verdict_label};
use crate::model::addr::Family;
use crate::plan::cause::Cause;
use crate::reconcile::report::{FamilyReport, Report, Verdict};

/// Upper bounds of the buckets of a pass's duration, in seconds: a pass that finds nothing to do
/// among 5,000 peers takes some 20 ms, filling their tables from empty some 50 ms.
pub(super) const BUCKETS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, f64::INFINITY];

/// The sums.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    pub(super) changes: BTreeMap<(Family, Target, Cause), u64>,
    pub(super) failures: BTreeMap<(Family, Target, Outcome), u64>,
    pub(super) passes: BTreeMap<&'static str, u64>,
    pub(super) buckets: [u64; BUCKETS.len()],
    pub(super) seconds: f64,
    pub(super) verified: Option<Duration>,
    pub(super) completed: Option<Duration>,
}

impl Totals {
    /// Adds a pass.
    pub fn absorb(&mut self, report: &Report) {
        for change in &report.changes {
            let target = Target::of(&change.op);
            match Outcome::of(change) {
                Outcome::Done => *self.changes.entry((change.family, target, change.cause)).or_default() += 1,
                outcome => *self.failures.entry((change.family, target, outcome)).or_default() += 1,
            }
        }
        *self.passes.entry(verdict_label(&report.verdict)).or_default() += 1;
        let seconds = report.took.as_secs_f64();
        self.seconds += seconds;
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound).and_then(|at| self.buckets.get_mut(at));
        if let Some(bucket) = bucket {
            *bucket += 1;
        }
        let ended = report.at + report.took;
        if matches!(report.verdict, Verdict::Converged | Verdict::Incomplete) {
            self.verified = Some(ended);
        }
        if is_complete(report) {
            self.completed.get_or_insert(ended);
        }
    }

    /// Passes so far.
    pub fn passes(&self) -> u64 {
        self.passes.values().sum()
    }

    /// When a pass last saw the kernel whole and did what could be done, since the agent started.
    pub const fn verified(&self) -> Option<Duration> {
        self.verified
    }

    /// When a first pass had put in everything that the kernel took, since the agent started.
    pub const fn completed(&self) -> Option<Duration> {
        self.completed
    }
}

/// Whether a pass left nothing undone but rows that have a problem of their own: one bad peer does
/// not make a node unready.
pub fn is_complete(report: &Report) -> bool {
    let done = |family: &FamilyReport| {
        let missing = Target::ALL.iter().map(|target| match target {
            Target::Table(kind) => family.wanted.get(*kind).saturating_sub(family.present.get(*kind)),
            Target::Device | Target::Filter => 0,
        });
        family.ready && missing.sum::<usize>() <= family.pending.len()
    };
    let mut families = report.families.iter().filter_map(|(_, family)| family.as_ref()).peekable();
    matches!(report.verdict, Verdict::Converged | Verdict::Incomplete)
        && families.peek().is_some()
        && families.all(done)
}
