//! From Node objects to a snapshot and back: parsing, the reducer, our announcement, and the list-watch
//! loop against the lab's API server on its bad days.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "what was measured")]

mod announce;
mod garbage;
mod memory;
mod nodes;
mod peers;
mod rig;
mod watch;
