//! Tests on a real kernel: what Linux does, whether our engine does with it what it says, and whether the
//! kernel in memory is like it.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod conformance;
mod engine;
mod facts;
mod nft;
#[path = "../support/sandbox.rs"]
#[allow(dead_code, reason = "shared by several test binaries")]
mod sandbox;
mod support;

fn main() -> std::process::ExitCode {
    sandbox::main([facts::all(), engine::all(), nft::all(), conformance::all()].concat())
}
