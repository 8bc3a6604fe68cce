//! The change log: one line for each change, in the words of iproute2.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::words::{Outcome, Target, result, why};
use crate::model::op::Op;
use crate::reconcile::report::{Change, Report};

/// Lines for single changes in one pass; what is beyond is summed up (and is at `debug` in full).
const LINES: usize = 100;

/// One change as a line. The peer's name is left out where there is none.
macro_rules! line {
    ($level:ident, $change:expr) => {{
        let change: &Change = $change;
        let (why, result) = (why(change), result(change));
        match (&change.op, &change.peer) {
            // In full it can be as long as the cluster is large; `nft list table` shows it.
            (Op::Filter(op), _) => tracing::$level!(cause = %why, result = %result, "{}", op.in_short()),
            (op, Some(peer)) => tracing::$level!(cause = %why, peer = %peer, result = %result, "{op}"),
            (op, None) => tracing::$level!(cause = %why, result = %result, "{op}"),
        }
    }};
}

/// Logs what a pass changed, and tried to.
pub fn log_changes(report: &Report) {
    let (in_full, in_sum) = report.changes.split_at(report.changes.len().min(LINES));
    for change in in_full {
        match Outcome::of(change) {
            Outcome::Done => line!(info, change),
            Outcome::Overtaken => line!(debug, change),
            Outcome::Blocked | Outcome::Refused | Outcome::Unknown => line!(warn, change),
        }
    }
    if in_sum.is_empty() {
        return;
    }
    for change in in_sum {
        line!(debug, change);
    }
    let sum = sum(in_sum);
    if in_sum.iter().all(|change| matches!(Outcome::of(change), Outcome::Done | Outcome::Overtaken)) {
        tracing::info!(pass = report.pass, "and {} changes more in this pass: {sum}", in_sum.len());
    } else {
        tracing::warn!(pass = report.pass, "and {} changes more in this pass: {sum}", in_sum.len());
    }
}

/// `fdb 40 done, route 38 done, route 2 refused`.
fn sum(changes: &[Change]) -> String {
    let mut counts: BTreeMap<(Target, Outcome), usize> = BTreeMap::new();
    for change in changes {
        *counts.entry((Target::of(&change.op), Outcome::of(change))).or_default() += 1;
    }
    let mut text = String::new();
    for ((target, outcome), count) in counts {
        let comma = if text.is_empty() { "" } else { ", " };
        // Writing to a String cannot fail.
        let _ = write!(text, "{comma}{} {count} {}", target.label(), outcome.label());
    }
    text
}
