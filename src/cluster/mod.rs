//! Ears, and one mouth, towards the Kubernetes API.
//!
//! ```text
//! client ──► api ──► wire, event (bytes → slim Node) ──► node (→ NodeRecord, OwnNode) ──► peers ──► Snapshot
//!             ▲                                                                     ▲
//!          announce (our annotations), events                 watch (the list-watch loop) drives it
//! ```
//!
//! A Node object dies in [`node`]: beyond it there are only the types of [`crate::model::node`].
//! [`annotations`], [`node`], [`peers`] and the deciding half of [`announce`] are pure.

pub mod annotations;
pub mod announce;
mod api;
pub mod client;
pub mod condition;
pub mod counters;
pub mod event;
pub mod events;
mod json;
pub mod node;
pub mod peers;
pub mod problem;
mod rounds;
pub mod timing;
pub mod trouble;
pub mod watch;
pub mod wire;
