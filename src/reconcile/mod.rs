//! One pass: look, decide, change, look again. Joins [`crate::plan`] to [`crate::kernel`].

pub mod report;

pub use report::{Cause, Change, FamilyReport, PeerState, Report, Verdict};
