//! What weft makes is what flannel makes, but for the differences that are written down.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::cluster;
use crate::flannel;
use crate::picture::Picture;
use crate::sandbox::isolated;
use crate::world::{World, make_underlay, pictures, within};

crate::tests![a_peer_gets_what_flannel_gives_it];

/// Every difference: what it is on, which field, flannel's value, ours. `docs/flannel-compatibility.md` has
/// the reasons.
const RECORDED: [&[&str]; 2] = [
    &[
        "link flannel.1: inet6_addr_gen_mode eui64 -> none",
        "link flannel.1: udp_csum true -> false",
        // What follows from it: no link-local address, and so none of its routes.
        "address fe80: only flannel's",
        "route fe80: only flannel's",
        "route 10.240.1.0/24 table main: protocol boot -> 119",
        "route 10.240.1.0/24 table main: metric (0) -> 2",
    ],
    &[
        "link flannel-v6.1: inet6_addr_gen_mode eui64 -> none",
        "address fe80: only flannel's",
        "route fe80: only flannel's",
        "address fd00:10:240::: nodad (false) -> true",
        "route fd00:10:240:1::/64 table main: protocol boot -> 119",
    ],
];

fn a_peer_gets_what_flannel_gives_it() {
    let mut world = World::with_peers(1);
    world.start();
    let macs = ["backend-data", "backend-v6-data"].map(|key| own_mac(&world, key));
    let ours = pictures();
    let flannels = isolated(|| {
        make_underlay(cluster::public_ips(0).map(|ip| ip.to_string()));
        flannel::lay(0, &macs, &(1..=1));
        within(std::time::Duration::from_secs(10), "duplicate address detection ends", || {
            let pictures = pictures();
            if pictures.iter().any(|picture| format!("{picture:?}").contains("tentative")) {
                Err(pictures)
            } else {
                Ok(pictures)
            }
        })
    })
    .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    for family in [0, 1] {
        let recorded: BTreeSet<String> = RECORDED[family].iter().map(ToString::to_string).collect();
        let differences = differences(&flannels[family], &ours[family]);
        assert_eq!(differences, recorded, "flannel: {:#?}\nweft: {:#?}", flannels[family], ours[family]);
    }
    assert!(world.take_agent().terminate().success());
}

fn own_mac(world: &World, key: &str) -> String {
    let data: Value = serde_json::from_str(&world.own_annotation(key).expect("an announcement")).expect("JSON");
    data["VtepMAC"].as_str().expect("a MAC").to_owned()
}

/// Each fact's fields by its name.
fn named(picture: &Picture) -> BTreeMap<String, Value> {
    let named = picture.facts().map(|(kind, fact)| {
        let name = ["dst", "local", "ifname"].into_iter().find_map(|key| fact[key].as_str()).unwrap_or_default();
        let mac = fact["mac"].as_str().unwrap_or_default();
        let name = if name.starts_with("fe80") { "fe80" } else { name };
        let table = fact["table"].as_str().map(|table| format!(" table {table}")).unwrap_or_default();
        let name = if name == "fe80" { format!("{kind} {name}") } else { format!("{kind} {mac}{name}{table}") };
        (name, fact)
    });
    named.collect()
}

fn differences(flannels: &Picture, ours: &Picture) -> BTreeSet<String> {
    let (flannels, ours) = (named(flannels), named(ours));
    let mut differences = BTreeSet::new();
    for name in flannels.keys().chain(ours.keys()) {
        match (flannels.get(name), ours.get(name)) {
            (Some(theirs), Some(ours)) => differences.extend(fields(name, theirs, ours)),
            (theirs, _) => {
                differences.insert(format!("{name}: only {}", if theirs.is_some() { "flannel's" } else { "ours" }));
            }
        }
    }
    differences
}

/// The fields that differ, with what a field that is not shown stands for.
fn fields(name: &str, theirs: &Value, ours: &Value) -> Vec<String> {
    let shown = |fact: &Value, key: &str| match &fact[key] {
        Value::Null => match key {
            "metric" => "(0)",
            "nodad" => "(false)",
            _ => "(none)",
        }
        .to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let keys: BTreeSet<&String> =
        [theirs, ours].iter().flat_map(|fact| fact.as_object().expect("fields").keys()).collect();
    let differing = keys.into_iter().filter(|key| theirs[*key] != ours[*key]);
    let one = |key: &String| match (&theirs[key], &ours[key]) {
        (Value::Object(_), Value::Object(_)) => fields(name, &theirs[key], &ours[key]),
        _ => vec![format!("{name}: {key} {} -> {}", shown(theirs, key), shown(ours, key))],
    };
    differing.flat_map(one).collect()
}
