//! One pass: look, decide, change, look again. Joins [`crate::plan`] to [`crate::kernel`].
//!
//! A pass over a kernel that is right reads it once and writes nothing. One that wrote ends with
//! another look: what the kernel acknowledges is not a proof.

mod bridge;
mod device;
mod filter;
mod leave;
mod memory;
mod pass;
pub mod peers;
mod preview;
pub mod report;
#[cfg(test)]
mod stories;
mod tables;
mod trying;

pub use leave::{Leave, leave};
pub use memory::Memory;
pub use pass::{Input, pass};
pub use preview::{Copy, preview};
pub use report::{Change, FamilyReport, PeerState, Report, Verdict};
