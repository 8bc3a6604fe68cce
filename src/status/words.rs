//! The words for what a pass did, shared by the log, the metrics and `/state`.

use crate::model::op::{Ack, LinkOp, Op};
use crate::model::table::Kind;
use crate::plan::cause::Cause;
use crate::plan::verdict::{self, verdict};
use crate::reconcile::report::{Change, PeerState, Verdict};

/// What a change was made to: one of the tables, or the device with its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    /// A row.
    Table(Kind),
    /// The device.
    Device,
    /// Our table of the packet filter.
    Filter,
}

impl Target {
    pub(super) const ALL: [Self; 5] =
        [Self::Table(Kind::Fdb), Self::Table(Kind::Neighbour), Self::Table(Kind::Route), Self::Device, Self::Filter];

    pub(super) fn of(op: &Op) -> Self {
        match op {
            Op::Set { entry, .. } | Op::Del { entry, .. } => Self::Table(entry.kind()),
            Op::Link(_) => Self::Device,
            Op::Filter(_) => Self::Filter,
        }
    }

    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Table(kind) => kind.label(),
            Self::Device => "device",
            Self::Filter => "filter",
        }
    }
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// The kernel says it is done.
    Done,
    /// It was done already, or the ground moved: no fault of anybody's, the next look tells.
    Overtaken,
    /// Somebody else's route holds the key.
    Blocked,
    /// The kernel said no.
    Refused,
    /// The answer was lost.
    Unknown,
}

impl Outcome {
    /// Those that are not what was hoped for.
    pub(super) const FAILURES: [Self; 4] = [Self::Overtaken, Self::Blocked, Self::Refused, Self::Unknown];

    pub(super) fn of(change: &Change) -> Self {
        match &change.ack {
            Ack::Done => Self::Done,
            Ack::Unknown(_) => Self::Unknown,
            Ack::Refused(refusal) => match verdict(&change.op, refusal) {
                verdict::Verdict::Settled | verdict::Verdict::LookAgain => Self::Overtaken,
                verdict::Verdict::Blocked => Self::Blocked,
                verdict::Verdict::Recreate | verdict::Verdict::Retry => Self::Refused,
            },
        }
    }

    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Overtaken => "overtaken",
            Self::Blocked => "blocked",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}

/// What a change and what became of it, for a person: `done`, `refused: No such device`.
pub(super) fn result(change: &Change) -> String {
    let label = Outcome::of(change).label();
    match &change.ack {
        Ack::Done => label.to_owned(),
        Ack::Refused(refusal) => format!("{label}: {refusal}"),
        Ack::Unknown(problem) => format!("{label}: {problem}"),
    }
}

/// Why a change was made, for a person.
pub(super) fn why(change: &Change) -> String {
    let words = match change.cause {
        Cause::Start => "found so at the start",
        Cause::NodeJoined => "node joined",
        Cause::NodeChanged => "node changed",
        Cause::NodeLeft => "node left",
        Cause::LocalChanged => "own node changed",
        Cause::Retry => "retry",
        Cause::DriftDeleted => return format!("drift: {} deleted", object(&change.op)),
        Cause::DriftChanged => return format!("drift: {} changed", object(&change.op)),
        Cause::DriftAdded => return format!("drift: {} added", object(&change.op)),
    };
    words.to_owned()
}

fn object(op: &Op) -> &'static str {
    match op {
        Op::Link(LinkOp::AddAddress(..) | LinkOp::DelAddress(..)) => "address",
        op => Target::of(op).label(),
    }
}

/// How a pass ended, as a metric label.
pub(super) const fn verdict_label(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Converged => VERDICTS[0],
        Verdict::Incomplete => VERDICTS[1],
        Verdict::Waiting(_) => VERDICTS[2],
        Verdict::Blind(_) => VERDICTS[3],
    }
}

/// Every label of [`verdict_label`].
pub(super) const VERDICTS: [&str; 4] = ["converged", "incomplete", "waiting", "blind"];

/// What a peer is to us, as a metric label and in `/state`.
pub(super) const fn state_label(state: &PeerState) -> &'static str {
    match state {
        PeerState::Installed => STATES[0],
        PeerState::Pending(_) => STATES[1],
        PeerState::Unusable(_) => STATES[2],
        PeerState::Rejected(_) => STATES[3],
        PeerState::Absent(_) => STATES[4],
    }
}

/// Every label of [`state_label`].
pub(super) const STATES: [&str; 5] = ["installed", "pending", "unusable", "rejected", "absent"];
