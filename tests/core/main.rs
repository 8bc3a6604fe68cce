//! Tests of the core alone: no network, no API server, no clock. Builds without the `agent` feature.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod cluster;
mod conflicts;
mod direct;
mod fake;
mod filter;
mod host_gw;
mod isolation;
mod keeping;
mod layering;
mod meddling;
mod ours;
mod patience;
mod properties;
mod reference;
mod underlay;
mod world;
