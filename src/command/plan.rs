//! `weft plan`: what would change on this machine, without changing it.

use std::process::ExitCode;

use crate::config::PlanConfig;

/// Exit code when nothing would change.
pub const NOTHING_TO_DO: u8 = 0;
/// Exit code when something went wrong.
pub const FAILED: u8 = 1;
/// Exit code when something would change.
pub const SOMETHING_TO_DO: u8 = 2;

/// Runs the command.
pub fn run(_config: &PlanConfig) -> ExitCode {
    ExitCode::from(FAILED)
}
