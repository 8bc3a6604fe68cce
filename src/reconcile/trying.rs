//! One change and what becomes of it: whether it is tried now, what its ack means, and how that is told.

use super::pass::Pass;
use super::report::{Change, Pending};
use crate::model::addr::Family;
use crate::model::node::NodeName;
use crate::model::op::{Ack, Op};
use crate::plan::attempts::{Look, PutOff};
use crate::plan::cause::Cause;
use crate::plan::verdict::{Verdict, explain, verdict};

/// Changes by when they are tried.
pub(super) struct Due {
    /// In this round.
    pub(super) now: Vec<Op>,
    /// They failed a moment ago, or are fought over.
    pub(super) later: Vec<Pending>,
}

impl Pass<'_> {
    /// What of all that a look found to be done (`ops`) is tried now.
    pub(super) fn due(&mut self, look: Look<'_>, ops: Vec<Op>) -> Due {
        self.memory.attempts.looked(look, &ops);
        let mut due = Due { now: Vec::new(), later: Vec::new() };
        for op in ops {
            // Done twice in this pass and not there: once can be somebody who undid it meanwhile.
            let told = self.report.changes.iter().filter(|change| change.ack == Ack::Done && change.op == op);
            if told.count() > 1 {
                self.memory.attempts.doubted(&op, self.now);
            }
            match self.memory.attempts.put_off(&op, self.now) {
                Some(put_off) => due.later.push(pending(op, None, &put_off)),
                None => due.now.push(op),
            }
        }
        due
    }

    /// Has the kernel make these changes, and reports each, with its cause; what became of them.
    pub(super) fn carry_out(
        &mut self,
        family: Family,
        batch: Vec<Op>,
        cause: impl Fn(&Op) -> Cause,
    ) -> Vec<(Op, Settled)> {
        if batch.is_empty() {
            return Vec::new();
        }
        let mut all = Vec::new();
        let acks = self.kernel.apply(&batch);
        for (op, ack) in batch.into_iter().zip(acks) {
            let cause = cause(&op);
            let settled = self.settle(&op, &ack, cause.is_drift());
            all.push((op.clone(), settled));
            self.report.changes.push(Change { family, op, cause, peer: None, ack });
        }
        all
    }

    /// Draws the conclusions from one ack.
    pub(super) fn settle(&mut self, op: &Op, ack: &Ack, drift: bool) -> Settled {
        let settled = Settled::of(op, ack);
        match (settled, ack) {
            (_, Ack::Done) => self.memory.attempts.succeeded(op, drift, self.now),
            (Settled::Recreate | Settled::Failed, _) => self.memory.attempts.failed(op, problem(op, ack), self.now),
            (Settled::Done | Settled::LookAgain, _) => {}
        }
        settled
    }
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// The kernel has it, or says so.
    Done,
    /// The ground moved: look again.
    LookAgain,
    /// It needs a new device.
    Recreate,
    /// It will be tried again.
    Failed,
}

impl Settled {
    /// What an ack means for the rest of the pass.
    pub(super) fn of(op: &Op, ack: &Ack) -> Self {
        let refusal = match ack {
            Ack::Done => return Self::Done,
            Ack::Unknown(_) => return Self::Failed,
            Ack::Refused(refusal) => refusal,
        };
        match verdict(op, refusal) {
            Verdict::Settled => Self::Done,
            Verdict::LookAgain => Self::LookAgain,
            Verdict::Recreate => Self::Recreate,
            Verdict::Blocked | Verdict::Retry => Self::Failed,
        }
    }
}

/// What was in the way of a change, for the operator.
fn problem(op: &Op, ack: &Ack) -> String {
    let refusal = match ack {
        Ack::Done => return String::new(),
        Ack::Unknown(problem) => return problem.clone(),
        Ack::Refused(refusal) => refusal,
    };
    match verdict(op, refusal) {
        Verdict::Blocked => {
            format!("a route of somebody else holds this key ({refusal}); remove it or change its metric")
        }
        _ => explain(op, refusal).unwrap_or_else(|| refusal.to_string()),
    }
}

/// Something put off, for the report.
pub(super) fn pending(op: Op, peer: Option<NodeName>, put_off: &PutOff) -> Pending {
    let (label, problem) = if put_off.fight {
        let problem = format!(
            "{}: repaired again and again, so weft waits longer and longer between repairs; find out what does it \
             (`{}`)",
            put_off.problem,
            watch(&op)
        );
        ("fight", problem)
    } else {
        let problem = format!("{}; weft tries again", put_off.problem);
        ("refused", problem)
    };
    Pending { op, peer, problem, times: put_off.times, label }
}

/// What shows who changes it.
fn watch(op: &Op) -> String {
    op.device().map_or_else(|| "nft monitor".to_owned(), |device| format!("ip monitor all dev {device}"))
}
