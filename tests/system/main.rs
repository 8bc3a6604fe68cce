//! Whole machines: the lab's parts, the lab itself, and agents in it.

#![expect(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test may")]

#[path = "../support/sandbox.rs"]
mod sandbox;
mod topology;

fn main() -> std::process::ExitCode {
    sandbox::main(topology::all())
}
