//! `/state`.

use std::sync::Arc;

use weft::model::filter::{FilterRules, Masquerade, VtepFilter};
use weft::status::state::render;

use crate::world::{World, assert_expected};

#[test]
fn the_whole_state_of_a_node_with_troubled_peers() {
    let mut world = World::with_trouble();
    world.pass();
    world.flush_routes();
    world.refuse(1, 1);
    world.pass();
    assert_expected("state.json", &render(&world.view()));
}

#[test]
fn every_setting_is_shown_as_it_is() {
    let mut world = World::with_peers(1);
    world.pass();
    let mut view = world.view();
    let identity = Arc::make_mut(&mut view.identity);
    let settings = &mut identity.settings;
    settings.overlay.direct_routing = true;
    settings.underlay.udp_checksum = true;
    let exclude = vec!["192.0.2.0/24".parse().expect("a network")];
    settings.filter =
        FilterRules { masquerade: Some(Masquerade { exclude, fully_random: true }), vteps: VtepFilter::Enforce };
    let state: serde_json::Value = serde_json::from_str(&render(&view)).expect("JSON");
    let config = &state["config"];
    assert_eq!([&config["direct_routing"], &config["udp_checksum"]], [true, true]);
    assert_eq!(config["ip_masq"], serde_json::json!({ "exclude": ["192.0.2.0/24"], "fully_random": true }));
    assert_eq!(config["vtep_filter"], "enforce");
    let filter = &state["families"]["ipv4"]["packet_filter"];
    assert_eq!(filter["packets_of_strangers_are"], "counted and dropped", "{filter}");
}

#[test]
fn it_is_json_before_the_first_pass_too() {
    let state: serde_json::Value = serde_json::from_str(&render(&World::new().view())).expect("JSON");
    assert_eq!(state["ready"], false);
    assert_eq!(state["last_pass"], serde_json::Value::Null);
    assert_eq!(state["not_ready_because"][0], "no pass has been made yet");
}

#[test]
fn a_node_that_cannot_begin_says_why() {
    let mut world = World::with_peers(1);
    world.snapshot.own = None;
    world.pass();
    let state: serde_json::Value = serde_json::from_str(&render(&world.view())).expect("JSON");
    assert_eq!(state["last_pass"]["verdict"], "waiting");
    let because = state["last_pass"]["because"].as_str().expect("a sentence");
    assert!(because.starts_with("our own Node object is not in the API server's list"), "{because}");
}
