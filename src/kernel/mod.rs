//! The kernel as weft sees it: look, and change.
//!
//! Two implementations: [`netlink`] is Linux, [`fake`] is Linux in memory with a schedule of faults.
//! `tests/kernel` runs the same random operations on both and compares.

pub mod fake;
#[cfg(feature = "agent")]
pub mod flannel;
#[cfg(feature = "agent")]
pub mod forward;
#[cfg(feature = "agent")]
pub mod legacy;
#[cfg(feature = "agent")]
pub mod netlink;
#[cfg(feature = "agent")]
pub mod nft;

use std::time::Duration;

use crate::model::host::{Host, Scope};
use crate::model::op::{Ack, Op, Refusal};

/// The two verbs.
pub trait Kernel {
    /// Looks at everything in `scope`. Notifications that came in before are forgotten first: what
    /// they announced is in what this returns. Never partly true: a dump that was interrupted is
    /// repeated, one that failed is an error.
    ///
    /// # Errors
    /// If any part could not be read whole.
    fn observe(&mut self, scope: &Scope) -> Result<Host, ObserveError>;

    /// Tries every operation, in order, whatever becomes of the ones before; one ack for each.
    fn apply(&mut self, ops: &[Op]) -> Vec<Ack>;
}

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The time is up.
    Nothing,
    /// Another thread asked for attention.
    Woken,
    /// The kernel announced a change of something that matters here, or that announcements were lost.
    Changed,
}

/// A kernel that announces changes. What it announces is never more than "look again".
pub trait Listen: Kernel {
    /// Waits until something happens or `timeout` is over.
    fn wait(&mut self, timeout: Duration) -> Heard;
}

/// Why the kernel could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObserveError {
    /// The table changed under every one of several attempts (NLM_F_DUMP_INTR).
    #[error("{what} kept changing while it was read ({attempts} attempts)")]
    Torn {
        /// What was being read.
        what: &'static str,
        /// How often it was tried.
        attempts: u32,
    },
    /// The kernel refused the dump.
    #[error("reading {what}: {refusal}")]
    Refused {
        /// What was being read.
        what: &'static str,
        /// Its answer.
        refusal: Refusal,
    },
    /// The socket failed, or an answer made no sense.
    #[error("reading {what}: {problem}")]
    Broken {
        /// What was being read.
        what: &'static str,
        /// What happened.
        problem: String,
    },
}
