//! The lab's API server keeps the promises of the real one ([`promises`]: the same file runs against
//! either), and breaks them when told to ([`faults`]).

#![expect(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test may")]

#[path = "../support/http.rs"]
mod http;

mod faults;
mod kubectl;
mod promises;
mod server;
