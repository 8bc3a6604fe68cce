//! weft: keeps a node's flannel-compatible VXLAN device, routes, neighbours and FDB right.
//!
//! ```text
//! cluster:  watch events ──► Snapshot             what the API server says, the unusable included
//! plan:     Snapshot + Host ──► Desired           what the kernel should hold: pure, order-independent
//! kernel:   observe() ──► Host                    what it holds: ours, and what is not to be touched
//! plan:     next_batch(Desired, believed) ──► ops repeated until empty;  kernel: apply(ops) ──► acks
//! status:   Report ──► metrics, health, /state    one value, rendered in one place
//! ```
//!
//! `plan`, `kernel` and `cluster` never import each other: they speak [`model`]. `tests/core/layering.rs`
//! enforces who may import whom.

pub mod kernel;
pub mod model;
pub mod plan;
pub mod reconcile;

#[cfg(feature = "agent")]
pub mod agent;
#[cfg(feature = "agent")]
pub mod cli;
#[cfg(feature = "agent")]
pub mod cluster;
#[cfg(feature = "agent")]
pub mod command;
#[cfg(feature = "agent")]
pub mod config;
#[cfg(feature = "agent")]
pub mod lab;
#[cfg(feature = "agent")]
pub mod logging;
#[cfg(feature = "agent")]
pub mod node;
#[cfg(feature = "agent")]
pub mod status;
