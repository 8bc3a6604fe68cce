//! What an operator gives to weft and sees of it: files, flags, metrics, pages, log lines. Exact texts.
#![expect(clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod changes;
mod flags;
mod health;
mod http;
mod manifests;
mod metrics;
mod net_conf;
mod state;
mod world;
