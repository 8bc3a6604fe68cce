//! Our own Node, whatever happens to it; and whatever is not there yet when weft starts.

use std::time::Duration;

use serde_json::{Value, json};
use weft::lab::apiserver::Verb;

use crate::cluster::{OWN, bare, gateways, pod_cidrs, public_ips};
use crate::sandbox::{json, sh};
use crate::stage::{INSTALLED, SOON, Stage, annotate, difference, kernel, port, rows_of, until_kernel_has};
use crate::world::{DEVICES, UNDERLAY, World, add_default_routes, within};

crate::tests![
    deleted_and_back_the_tables_stay,
    another_pod_cidr_moves_the_device_and_no_row,
    an_edited_annotation_is_put_right,
    who_keeps_editing_is_answered_ever_more_rarely,
    a_public_ip_overwrite_is_obeyed_while_it_is_there,
    a_node_public_ip_is_announced_and_chooses_the_underlay,
    without_a_pod_cidr_weft_waits,
    without_an_underlay_address_weft_waits,
    without_an_api_server_weft_waits,
    without_our_node_weft_waits,
];

const PEERS: u32 = 8;

/// What our Node announces for both families: MAC and address.
fn announced(stage: &Stage) -> [Option<String>; 4] {
    ["backend-data", "public-ip", "backend-v6-data", "public-ipv6"].map(|name| stage.world.own_annotation(name))
}

fn until_announced(stage: &Stage, name: &str, value: &str) {
    within(SOON, &format!("{name} is {value}"), || match stage.world.own_annotation(name) {
        Some(now) if now == value => Ok(()),
        other => Err(other),
    });
}

/// The addresses of a device, by iproute2.
fn addresses(dev: &str) -> Vec<String> {
    let links = json(&format!("ip -j address show dev {dev}"));
    let all = links.iter().flat_map(|link| link["addr_info"].as_array().into_iter().flatten());
    all.map(|it| format!("{}/{}", it["local"].as_str().unwrap_or("?"), it["prefixlen"])).collect()
}

fn until_log_says(world: &mut World, text: &str) {
    within(SOON, text, || {
        let log = world.agent().log();
        if log.iter().any(|line| line.contains(text)) { Ok(()) } else { Err(log) }
    });
}

fn times_said(world: &mut World, text: &str) -> usize {
    world.agent().log().iter().filter(|line| line.contains(text)).count()
}

fn deleted_and_back_the_tables_stay() {
    let mut stage = Stage::with_peers(PEERS);
    let before = announced(&stage);
    stage.world.api.delete_node(OWN);
    until_gone(&mut stage);
    stage.settled("our Node is deleted");
    until_log_says(&mut stage.world, "WARN our own Node is not in the API server's list any more: other nodes take");
    within(SOON, "the node is out", || match stage.world.agent().readyz() {
        Some(503) => Ok(()),
        other => Err(other),
    });
    // The tables are kept right without it, and rows appear, but none goes.
    sh(&format!("ip route del {} dev {}", pod_cidrs(1)[0], DEVICES[0]));
    within(SOON, "the route is back", || difference(&kernel(), &stage.rows()));
    stage.forget();
    let rows = stage.rows();
    stage.put(20, crate::stage::Facts::of(20));
    stage.settled("a node joins meanwhile");
    stage.delete(20);
    stage.shown(20, crate::stage::GONE);
    let with_20 = rows_of((1..=PEERS).chain([20]));
    stage.settled_with("a node leaves meanwhile", with_20);
    stage.world.api.put_node(bare(0));
    until_announced(&stage, "public-ip", before[1].as_deref().expect("an address"));
    assert_eq!(announced(&stage), before, "the same MACs, also for a Node with another UID");
    stage.settled_with("our Node is back", rows);
    until_log_says(&mut stage.world, "no longer so: our own Node is not in the API server's list any more");
    stage.world.agent().until_ready();
}

fn until_gone(stage: &mut Stage) {
    within(SOON, "our Node is not there", || {
        let state = stage.world.agent().state();
        if state["own_node"].is_null() { Ok(()) } else { Err(state["own_node"].clone()) }
    });
}

fn another_pod_cidr_moves_the_device_and_no_row() {
    let mut stage = Stage::with_peers(PEERS);
    let before = announced(&stage);
    for (number, families) in [(300, [true, false]), (301, [false, true]), (302, [true, true])] {
        let now: Vec<Value> =
            stage.world.api.node(OWN).expect("our Node")["spec"]["podCIDRs"].as_array().expect("two").clone();
        let cidrs =
            [0, 1].map(
                |family| if families[family] { pod_cidrs(number)[family].clone().into() } else { now[family].clone() },
            );
        stage.world.api.patch_node(OWN, json!({ "spec": { "podCIDR": cidrs[0], "podCIDRs": cidrs } }));
        for family in [0, 1].into_iter().filter(|family| families[*family]) {
            let expected = format!("{}/{}", gateways(number)[family], [32, 128][family]);
            within(SOON, "the device has its address and no other", || match addresses(DEVICES[family]) {
                now if now == [expected.clone()] => Ok(()),
                now => Err(now),
            });
            let subnet_env = stage.world.directory.join("subnet.env");
            let first = pod_cidrs(number)[family].split_once('/').expect("a CIDR").0.to_owned();
            let first = first.strip_suffix('0').map_or_else(|| format!("{first}1"), |net| format!("{net}1"));
            within(SOON, "subnet.env", || {
                let text = std::fs::read_to_string(&subnet_env).expect("subnet.env");
                if text.contains(&format!("SUBNET={first}/")) { Ok(()) } else { Err(text) }
            });
        }
        assert_eq!(announced(&stage), before);
        difference(&kernel(), &stage.rows()).expect("the tables");
    }
    let heard = stage.witness.heard();
    let rows = rows_of(1..=PEERS);
    let touched: Vec<_> = heard.iter().filter(|event| rows.iter().any(|row| row.key == event.1)).collect();
    assert!(touched.is_empty(), "{touched:?}");
    // The kernel announces a new IPv6 address only when it has made its local route (see `World::start`).
    let own = gateways(302)[1].to_string();
    within(SOON, "our new IPv6 address has its local route", || {
        let routes = crate::sandbox::json("ip -6 -j route show table local type local dev flannel-v6.1");
        if routes.iter().any(|route| route["dst"] == own.as_str()) { Ok(()) } else { Err(routes) }
    });
    // What was ours may be somebody else's.
    stage.forget();
    stage.put(0x12b, crate::stage::Facts { cidrs: pod_cidrs(0).map(Some), ..crate::stage::Facts::of(0x12b) });
    stage.settled("a peer with our old pod CIDR");
    stage.shown(0x12b, INSTALLED);
}

fn an_edited_annotation_is_put_right() {
    let mut stage = Stage::with_peers(PEERS);
    let before = announced(&stage);
    for (annotation, value) in [
        ("public-ip", Value::from("192.0.2.1")),
        ("public-ipv6", Value::Null),
        ("backend-data", r#"{"VNI":1,"VtepMAC":"0e:00:00:00:00:66"}"#.into()),
        ("backend-v6-data", "{}".into()),
        ("kube-subnet-manager", Value::Null),
        ("backend-type", "host-gw".into()),
    ] {
        let right = stage.world.own_annotation(annotation).expect("an annotation");
        stage.world.api.patch_node(OWN, annotate(annotation, value));
        within(SOON, annotation, || {
            let now = stage.world.own_annotation(annotation);
            let same = now.as_deref().map(|text| text.replace(' ', "")) == Some(right.replace(' ', ""));
            if same { Ok(()) } else { Err(now) }
        });
    }
    let plain = |texts: [Option<String>; 4]| texts.map(|text| text.unwrap_or_default().replace(' ', ""));
    assert_eq!(plain(announced(&stage)), plain(before));
    // Other people's annotations are theirs.
    let node = stage.world.api.node(OWN).expect("our Node");
    assert_eq!(node["metadata"]["annotations"]["node.alpha.kubernetes.io/ttl"], "0");
    stage.settled("edited annotations");
}

fn who_keeps_editing_is_answered_ever_more_rarely() {
    let stage = Stage::with_peers(1);
    stage.world.api.clear_log();
    let end = std::time::Instant::now() + Duration::from_secs(16);
    while std::time::Instant::now() < end {
        if stage.world.own_annotation("public-ip").as_deref() != Some("192.0.2.1") {
            stage.world.api.patch_node(OWN, annotate("public-ip", "192.0.2.1"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let patches = stage.world.api.count(Verb::Patch);
    // Five as soon as they are due, then after 4 s and 8 s more; without patience it would be hundreds.
    assert!((3..=10).contains(&patches), "{patches} patches in 16 s");
}

fn a_public_ip_overwrite_is_obeyed_while_it_is_there() {
    let mut stage = Stage::with_peers(PEERS);
    let [_, v4, _, v6] = announced(&stage).map(|text| text.expect("an annotation"));
    for (overwrite, annotation, value, own) in [
        ("public-ip-overwrite", "public-ip", "198.51.100.7", v4),
        ("public-ipv6-overwrite", "public-ipv6", "2001:DB8::0:7", v6),
    ] {
        stage.world.api.patch_node(OWN, annotate(overwrite, value));
        // As it stands there, as flannel copies it.
        until_announced(&stage, annotation, value);
        stage.world.api.patch_node(OWN, annotate(overwrite, "nowhere"));
        until_announced(&stage, annotation, &own);
        until_log_says(&mut stage.world, &format!("annotation {overwrite} on our own Node"));
        let state = stage.world.agent().state();
        assert!(state["own_node"]["problems"][0].as_str().unwrap_or_default().contains("nowhere"), "{state:#}");
        stage.world.api.patch_node(OWN, annotate(overwrite, value));
        until_announced(&stage, annotation, value);
        stage.world.api.patch_node(OWN, annotate(overwrite, Value::Null));
        until_announced(&stage, annotation, &own);
    }
    // The source address of our packets is one of the host's, whatever is announced: the device is untouched.
    stage.settled("overwrites");
    // A peer that claims what we announce is refused as long as we announce it.
    stage.world.api.patch_node(OWN, annotate("public-ip-overwrite", public_ips(3)[0].to_string()));
    stage.shown(3, [("rejected", "is an address of this host"), ("installed", "")]);
    let others = stage.rows().difference(&crate::stage::Facts::of(3).rows_in(0)).cloned().collect();
    stage.settled_with("a peer with our public IP", others);
    stage.world.api.patch_node(OWN, annotate("public-ip-overwrite", Value::Null));
    stage.shown(3, INSTALLED);
    stage.settled("as before");
}

fn a_node_public_ip_is_announced_and_chooses_the_underlay() {
    let world = World::with_peers(PEERS);
    // A second address in the same network, and none of the default route's choice.
    sh(&format!("ip address add 172.16.77.7/16 dev {UNDERLAY}"));
    let stage = Stage::in_world(world, PEERS);
    until_announced(&stage, "public-ip", &public_ips(0)[0].to_string());
    stage.world.api.patch_node(OWN, annotate("node-public-ip", "172.16.77.7"));
    until_announced(&stage, "public-ip", "172.16.77.7");
    let local = || json(&format!("ip -j -d link show dev {}", DEVICES[0]))[0]["linkinfo"]["info_data"]["local"].clone();
    assert_eq!(local(), "172.16.77.7");
    difference(&kernel(), &stage.rows()).expect("the tables");
    // One that no interface has (NAT) is announced too.
    stage.world.api.patch_node(OWN, annotate("node-public-ip", "203.0.113.5"));
    until_announced(&stage, "public-ip", "203.0.113.5");
    assert_eq!(local(), public_ips(0)[0].to_string());
    stage.world.api.patch_node(OWN, annotate("node-public-ip", Value::Null));
    until_announced(&stage, "public-ip", &public_ips(0)[0].to_string());
    until_kernel_has(&stage.rows());
}

fn without_a_pod_cidr_weft_waits() {
    let mut world = World::with_peers(PEERS);
    let mut node = bare(0);
    node["spec"] = json!({});
    world.api.put_node(node);
    world.spawn();
    until_log_says(&mut world, "has no ipv4 pod CIDR yet");
    assert_eq!(world.agent().readyz(), Some(503));
    assert_eq!(kernel(), rows_of([]));
    // One family first.
    let [v4, v6] = pod_cidrs(0);
    world.api.patch_node(OWN, json!({ "spec": { "podCIDR": v4, "podCIDRs": [v4] } }));
    let v4_rows = (1..=PEERS).flat_map(|number| crate::stage::Facts::of(number).rows_in(0)).collect();
    until_kernel_has(&v4_rows);
    assert_eq!(
        world.own_annotation("public-ip"),
        None,
        "half of us must not be announced: flanneld peers would drop it"
    );
    world.api.patch_node(OWN, json!({ "spec": { "podCIDR": v4, "podCIDRs": [v4, v6] } }));
    until_kernel_has(&rows_of(1..=PEERS));
    world.agent().until_ready();
    assert_eq!(times_said(&mut world, "WARN ipv4: node node-0 has no ipv4 pod CIDR yet"), 1);
}

fn without_an_underlay_address_weft_waits() {
    let mut world = World::with_peers(PEERS);
    sh(&format!("ip address flush dev {UNDERLAY}"));
    world.spawn();
    until_log_says(&mut world, "no underlay interface for ipv4");
    until_log_says(&mut world, "no underlay interface for ipv6");
    assert_eq!(world.agent().readyz(), Some(503));
    let [v4, v6] = public_ips(0);
    sh(&format!("ip address add {v4}/16 dev {UNDERLAY}\n ip address add {v6}/64 dev {UNDERLAY} nodad"));
    add_default_routes();
    until_kernel_has(&rows_of(1..=PEERS));
    world.agent().until_ready();
    assert_eq!(times_said(&mut world, "WARN ipv4: no underlay interface"), 1, "{:#?}", world.agent().log());
}

fn without_an_api_server_weft_waits() {
    let mut world = World::with_peers(PEERS);
    world.api.stop();
    world.spawn();
    until_log_says(&mut world, "the API server cannot be reached");
    assert_eq!(world.agent().readyz(), Some(503));
    assert_eq!(crate::http::get("127.0.0.1:8081".parse().expect("an address"), "/healthz").status, 200);
    assert!(!std::fs::exists(format!("/proc/sys/net/ipv4/conf/{}", DEVICES[0])).expect("/proc"));
    world.api.resume(port()).expect("to serve");
    until_kernel_has(&rows_of(1..=PEERS));
    world.agent().until_ready();
    assert_eq!(times_said(&mut world, "WARN the API server's list of Nodes has not been read whole yet"), 1);
}

fn without_our_node_weft_waits() {
    let mut world = World::with_peers(PEERS);
    world.api.delete_node(OWN);
    world.spawn();
    until_log_says(&mut world, "our own Node object is not in the API server's list");
    assert_eq!(world.agent().readyz(), Some(503));
    assert!(!std::fs::exists(format!("/proc/sys/net/ipv4/conf/{}", DEVICES[0])).expect("/proc"));
    world.api.put_node(bare(0));
    until_kernel_has(&rows_of(1..=PEERS));
    world.agent().until_ready();
    assert_eq!(times_said(&mut world, "WARN our own Node object is not"), 1);
}
