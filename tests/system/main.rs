//! Whole machines: the lab's parts, the lab itself, and agents in them: what they make, and how they keep it.

#![expect(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test may")]
#![allow(clippy::float_cmp, reason = "the metrics compared are counts")]
#![allow(clippy::too_many_lines, reason = "a table of cases is as long as there are cases")]
#![allow(clippy::assigning_clones, reason = "once in a test, the plain form reads better")]
#![expect(clippy::print_stdout, reason = "what was measured")]

mod adoption;
#[path = "../support/agent.rs"]
#[allow(dead_code, reason = "shared by several test binaries")]
mod agent;
mod api_away;
mod citizen;
mod cleanup;
#[path = "../support/cluster.rs"]
#[allow(dead_code, reason = "shared by several test binaries")]
mod cluster;
mod cni;
#[path = "../support/cni.rs"]
mod cni_runtime;
mod connection;
mod filter;
#[path = "../support/flannel.rs"]
mod flannel;
mod fragments;
mod garbage;
mod heal;
mod honesty;
mod host;
mod host_gw;
#[path = "../support/http.rs"]
#[allow(dead_code, reason = "shared by several test binaries")]
mod http;
mod lab;
mod life;
#[path = "../support/machines.rs"]
mod machines;
mod own_node;
#[path = "../support/picture.rs"]
#[allow(dead_code, reason = "shared by several test binaries")]
mod picture;
mod plan;
mod reach;
mod restart;
mod rights;
#[path = "../support/sandbox.rs"]
#[allow(dead_code, reason = "shared by several test binaries")]
mod sandbox;
mod shape;
#[path = "../support/stage.rs"]
mod stage;
mod takeover;
mod topology;
mod underlay;
#[path = "../support/world.rs"]
#[allow(dead_code, reason = "shared by several test binaries")]
mod world;

fn main() -> std::process::ExitCode {
    let tests = [
        topology::all(),
        host_gw::all(),
        filter::all(),
        fragments::all(),
        takeover::all(),
        reach::all(),
        lab::all(),
        honesty::all(),
        shape::all(),
        adoption::all(),
        cleanup::all(),
        plan::all(),
        life::all(),
        garbage::all(),
        own_node::all(),
        api_away::all(),
        citizen::all(),
        heal::all(),
        restart::all(),
        rights::all(),
        cni::all(),
        connection::all(),
        host::all(),
        underlay::all(),
    ];
    sandbox::contained(tests.concat(), heal::print)
}
