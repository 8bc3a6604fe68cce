//! The lab: a cluster on one Linux machine, out of nothing but this program and the kernel.
//!
//! `weft lab` builds machines from network namespaces ([`topology`]), an API server in memory
//! ([`apiserver`]), and starts the real agent on each machine ([`agent`]). Then it shows, breaks and
//! measures (`tour`). What it is made of is public: the tests of the whole agent stand on it.

pub mod addressing;
pub mod agent;
pub mod apiserver;
pub mod breakage;
pub mod heal;
mod hold;
pub mod link;
pub mod netns;
pub mod outcome;
pub mod ping;
mod ready;
pub mod rows;
mod sandbox;
pub mod stage;
pub mod topology;
mod tour;
pub mod witness;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use self::addressing::Stack;
use self::outcome::{Outcome, time};
use self::stage::Stage;
use self::tour::Voice;
use crate::model::settings::Backend;

/// What to build, and how to tell.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Machines; at least two.
    pub nodes: u8,
    /// Networks that they are on, a router in between: 1 or 2.
    pub segments: u8,
    /// How the agents get packets from machine to machine.
    pub backend: Backend,
    /// The families.
    pub stack: Stack,
    /// Keep it up afterwards.
    pub hold: bool,
    /// Tell programs, not people.
    pub json: bool,
    /// Show the agents' logs as they come.
    pub logs: bool,
}

/// Runs the lab. Exit code 0 only if everything it promises happened. Call it while the process has one
/// thread.
pub fn main(options: Options) -> ExitCode {
    if !sandbox::is_inside() {
        return sandbox::outside().unwrap_or_else(|obstacle| refuse(&obstacle));
    }
    match sandbox::inside() {
        Ok(()) => perform(options),
        Err(obstacle) => refuse(&obstacle),
    }
}

fn refuse(obstacle: &sandbox::Obstacle) -> ExitCode {
    // Nobody is left to tell if standard error is closed.
    let _ = writeln!(std::io::stderr().lock(), "{obstacle}");
    ExitCode::FAILURE
}

fn perform(options: Options) -> ExitCode {
    let voice = Voice { on: !options.json };
    let (stage, outcome) = tour::run(options, &Path::new(sandbox::DIRECTORY).join("weft"), voice);
    conclude(options, voice, stage.as_ref(), &outcome);
    if let (true, Some(stage)) = (options.hold, stage) {
        hold::hold(&stage);
    }
    if outcome.ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn conclude(options: Options, voice: Voice, stage: Option<&Stage>, outcome: &Outcome) {
    voice.say(&format!("\n{}", outcome.table()));
    if options.json {
        let _ = writeln!(std::io::stdout().lock(), "{:#}", outcome.json());
    }
    let Some(problem) = &outcome.problem else {
        return voice.say(&format!("Everything healed. The tour took {}.", time(outcome.took)));
    };
    let mut stderr = std::io::stderr().lock();
    if !options.logs {
        for member in stage.into_iter().flat_map(|stage| stage.members.values()) {
            let log = member.agent.as_ref().map(agent::Agent::log).unwrap_or_default();
            for line in log.iter().rev().take(15).rev() {
                let _ = writeln!(stderr, "[{}] {line}", member.machine.name);
            }
        }
    }
    let _ = writeln!(stderr, "The lab failed: {problem}");
}
