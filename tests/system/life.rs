//! The life of a node, as the kernel of another sees it: each change does what it must to the rows that it
//! concerns, and nothing at all to any other, not for a moment.

use serde_json::json;

use crate::cluster::{OWN, bare, name, pod_cidrs};
use crate::sandbox::sh;
use crate::stage::{Facts, GONE, INSTALLED, Stage, annotate, new_ip, new_mac};
use crate::world::{UNDERLAY, World};

crate::tests![
    a_node_joins_with_its_annotations_late,
    a_node_changes_one_thing_at_a_time_and_everything_at_once,
    a_node_opts_out_changes_its_backend_and_leaves,
    a_node_may_have_one_family,
    what_two_nodes_claim_the_older_has,
    what_no_node_may_claim_none_has,
    what_happened_while_weft_was_down_is_made_up_for,
];

const BYSTANDERS: u32 = 12;
/// The node that things happen to.
const X: u32 = 77;

fn a_node_joins_with_its_annotations_late() {
    let mut stage = Stage::with_peers(BYSTANDERS);
    stage.world.api.put_node(json!({ "metadata": { "name": name(X) }, "spec": {} }));
    stage.shown(X, [("absent", "kube-subnet-manager"); 2]);
    stage.settled("a Node without anything");
    stage.world.api.put_node(bare(X));
    stage.world.api.patch_node(&name(X), annotate("kube-subnet-manager", "true"));
    stage.shown(X, [("unusable", "backend-type is missing"); 2]);
    stage.world.api.patch_node(&name(X), annotate("backend-type", "vxlan"));
    stage.shown(X, [("unusable", "backend-data is missing"), ("unusable", "backend-v6-data is missing")]);
    stage.settled("a Node with some annotations");
    assert_eq!(stage.counted("weft_peers_unusable", 0, "missing_annotation"), 1.0);
    // flannel writes an empty MAC before it has a device.
    stage.world.api.patch_node(&name(X), annotate("backend-data", r#"{"VNI":1,"VtepMAC":""}"#));
    stage.shown(X, [("unusable", "VtepMAC is empty"), ("absent", "no VTEP announced")]);
    stage.settled("a Node with half of its annotations");
    stage.put(X, Facts::of(X));
    stage.shown(X, INSTALLED);
    stage.settled("a Node with all of its annotations");
    assert_eq!(stage.counted("weft_peers_unusable", 0, "missing_annotation"), 0.0);
}

fn a_node_changes_one_thing_at_a_time_and_everything_at_once() {
    let mut stage = Stage::with_peers(BYSTANDERS);
    stage.put(X, Facts::of(X));
    stage.settled("joined");
    for family in [0, 1] {
        let at = |what: &str| format!("{what}, family {family}");
        let mut facts = stage.peers[&X].clone();
        facts.macs[family] = Some(new_mac(X, family));
        stage.put(X, facts.clone());
        stage.settled(&at("another MAC"));
        facts.ips[family] = Some(new_ip(X, family));
        stage.put(X, facts.clone());
        stage.settled(&at("another public IP"));
        facts.cidrs[family] = Some(pod_cidrs(X + 1)[family].clone());
        stage.put(X, facts.clone());
        stage.settled(&at("another pod CIDR"));
        facts.macs[family] = Facts::of(X).macs[family].clone();
        facts.ips[family] = Facts::of(X).ips[family].clone();
        stage.put(X, facts);
        stage.settled(&at("MAC and public IP at once"));
    }
    stage.put(X, Facts::of(X + 2));
    stage.settled("everything at once, in both families");
    // The pod CIDR that it had goes to another node in the same moment.
    stage.at_once(|stage| {
        stage.put(X + 3, Facts { macs: Facts::of(X + 3).macs, ips: Facts::of(X + 3).ips, ..Facts::of(X + 2) });
        stage.put(X, Facts::of(X));
    });
    stage.settled("a pod CIDR that goes from one node to another");
    let (one, two) = (stage.peers[&X].clone(), stage.peers[&(X + 3)].clone());
    stage.at_once(|stage| {
        stage.put(X, Facts { cidrs: one.cidrs.clone(), ..two.clone() });
        stage.put(X + 3, Facts { cidrs: two.cidrs, ..one });
    });
    stage.settled("two nodes that exchange their VTEPs");
    stage.shown(X, INSTALLED);
    stage.shown(X + 3, INSTALLED);
}

fn a_node_opts_out_changes_its_backend_and_leaves() {
    let mut stage = Stage::with_peers(BYSTANDERS);
    let without = stage.rows();
    stage.put(X, Facts::of(X));
    stage.settled("joined");
    for (annotation, value, because) in [
        ("kube-subnet-manager", serde_json::Value::Null, "kube-subnet-manager"),
        ("kube-subnet-manager", "false".into(), "kube-subnet-manager"),
        ("backend-type", "host-gw".into(), "host-gw"),
        ("backend-type", "VXLAN".into(), "VXLAN"),
    ] {
        stage.world.api.patch_node(&name(X), annotate(annotation, value.clone()));
        stage.shown(X, [("absent", because); 2]);
        stage.settled_with(&format!("{annotation} {value}"), without.clone());
        stage.put(X, Facts::of(X));
        stage.settled("back again");
    }
    stage.delete(X);
    stage.shown(X, GONE);
    stage.settled("deleted");
    // Under its old name another machine comes, with another of everything.
    stage.put(X, Facts::of(X + 5));
    stage.settled("back as another machine");
    stage.delete(X);
    stage.put(X, Facts::of(X));
    stage.settled("deleted and made again at once");
}

fn a_node_may_have_one_family() {
    let mut stage = Stage::with_peers(BYSTANDERS);
    for family in [0, 1] {
        let other = 1 - family;
        let mut facts = Facts::of(X);
        facts.macs[other] = None;
        facts.ips[other] = None;
        let mut expected = INSTALLED;
        expected[other] = ("absent", "no VTEP announced for this family");
        stage.put(X, facts.clone());
        stage.shown(X, expected);
        stage.settled("announces one family, has pod CIDRs of both");
        facts.cidrs[other] = None;
        expected[other] = ("absent", "no pod CIDR of this family");
        stage.put(X, facts);
        stage.shown(X, expected);
        stage.settled("has one family");
        // One family at a time: the other comes and goes, this one stays untouched.
        stage.put(X, Facts::of(X));
        stage.settled("has both");
        // An IPv6 pod CIDR first in the list, and none in `podCIDR`.
        let [v4, v6] = pod_cidrs(X);
        stage.world.api.patch_node(&name(X), json!({ "spec": { "podCIDR": null, "podCIDRs": [v6, v4] } }));
        stage.shown(X, INSTALLED);
        stage.settled("lists IPv6 first");
    }
}

fn what_two_nodes_claim_the_older_has() {
    let mut stage = Stage::with_peers(BYSTANDERS);
    stage.put(X, Facts::of(X));
    stage.settled("the older");
    let (older, y) = (name(X), X + 1);
    for (what, reason) in [("cidr", "duplicate_pod_cidr"), ("mac", "duplicate_mac"), ("ip", "duplicate_public_ip")] {
        for family in [0, 1] {
            let (taken, mut facts) = (Facts::of(X), Facts::of(y));
            match what {
                "cidr" => facts.cidrs[family].clone_from(&taken.cidrs[family]),
                "mac" => facts.macs[family].clone_from(&taken.macs[family]),
                _ => facts.ips[family].clone_from(&taken.ips[family]),
            }
            let mut node = facts.node(y);
            node["metadata"]["creationTimestamp"] = "2026-03-01T08:00:01Z".into();
            stage.world.api.put_node(node);
            let mut expected = INSTALLED;
            expected[family] = ("rejected", &older);
            stage.shown(y, expected);
            assert_eq!(stage.counted("weft_peers_rejected", family, reason), 1.0, "{reason}");
            let mut rows = stage.rows();
            rows.extend(facts.rows_in(1 - family));
            stage.settled_with(&format!("a second claim to a {what}, family {family}"), rows);
            // The older one goes: the claim is free.
            stage.delete(X);
            stage.peers.insert(y, facts);
            stage.shown(y, INSTALLED);
            stage.settled("the older is gone");
            // It comes back, and it is the older by its age: the Node is older, whoever was seen first.
            let newer = stage.peers.remove(&y).expect("the newer");
            stage.put(X, Facts::of(X));
            stage.shown(y, expected);
            let mut rows = stage.rows();
            rows.extend(newer.rows_in(1 - family));
            stage.settled_with("the older is back", rows);
            stage.world.api.delete_node(&name(y));
            stage.shown(y, GONE);
            stage.settled("the newer is gone");
            assert_eq!(stage.counted("weft_peers_rejected", family, reason), 0.0, "{reason}");
        }
    }
}

fn what_no_node_may_claim_none_has() {
    // An underlay that is inside the pod network, as in clusters where somebody chose badly.
    let world = World::with_peers(BYSTANDERS);
    sh(&format!(
        "ip address add 10.250.0.1/24 dev {UNDERLAY}\nip address add fd00:10:240:ff::1/64 dev {UNDERLAY} nodad"
    ));
    let mut stage = Stage::in_world(world, BYSTANDERS);
    let own = stage.world.api.node(OWN).expect("our Node");
    let mac = |key: &str| {
        let text = crate::cluster::annotation(&own, key).expect("what we announce");
        serde_json::from_str::<serde_json::Value>(text).expect("JSON")["VtepMAC"].as_str().expect("a MAC").to_owned()
    };
    let our_macs = [mac("backend-data"), mac("backend-v6-data")];
    let our_ips = crate::cluster::public_ips(0).map(|ip| ip.to_string());
    let claims: [(&str, &str, [&str; 2]); 8] = [
        ("cidr", "outside_network", ["192.168.7.0/24", "fd00:99::/64"]),
        ("cidr", "outside_network", ["10.224.0.0/11", "fd00:10:200::/40"]),
        ("cidr", "overlaps_own", ["10.240.0.0/24", "fd00:10:240::/64"]),
        ("cidr", "overlaps_own", ["10.240.0.128/25", "fd00:10:240:0:8000::/65"]),
        ("cidr", "overlaps_underlay", ["10.250.0.0/24", "fd00:10:240:ff::/64"]),
        ("cidr", "duplicate_pod_cidr", ["10.240.0.0/16", "fd00:10:240:8::/61"]),
        ("mac", "our_mac", [&our_macs[0], &our_macs[1]]),
        ("ip", "our_address", [&our_ips[0], &our_ips[1]]),
    ];
    for (what, reason, values) in claims {
        // The first would cover our own pod CIDR too.
        let reason_in = |family: usize| match (reason, values[family]) {
            ("duplicate_pod_cidr", "10.240.0.0/16") => "overlaps_own",
            _ => reason,
        };
        for family in [0, 1] {
            let mut facts = Facts::of(X);
            let value = Some(values[family].to_owned());
            match what {
                "cidr" => facts.cidrs[family] = value,
                "mac" => facts.macs[family] = value,
                _ => facts.ips[family] = value,
            }
            stage.world.api.put_node(facts.node(X));
            let mut expected = INSTALLED;
            expected[family] = ("rejected", values[family]);
            stage.shown(X, expected);
            assert_eq!(stage.counted("weft_peers_rejected", family, reason_in(family)), 1.0, "{reason} {facts:?}");
            let mut rows = stage.rows();
            rows.extend(facts.rows_in(1 - family));
            stage.settled_with(&format!("{what} {}", values[family]), rows);
        }
    }
    // A public IP inside a pod CIDR: its packets would go round in circles.
    let mut facts = Facts::of(X);
    facts.ips = [Some("10.240.3.7".to_owned()), Some("fd00:10:240:3::7".to_owned())];
    stage.world.api.put_node(facts.node(X));
    stage.shown(X, [("rejected", "10.240.3.0/24"), ("rejected", "fd00:10:240:3::/64")]);
    stage.settled("a public IP inside a pod CIDR");
    stage.put(X, Facts::of(X));
    stage.settled("reason prevails");
}

fn what_happened_while_weft_was_down_is_made_up_for() {
    let mut stage = Stage::with_peers(BYSTANDERS + 30);
    for kill in [false, true] {
        let agent = stage.world.take_agent();
        if kill {
            agent.kill();
        } else {
            assert!(agent.terminate().success(), "SIGTERM");
        }
        stage.settled("the end of weft");
        let offset = if kill { 10 } else { 0 };
        for (number, what) in (BYSTANDERS + 1 + offset..).zip(["gone", "mac", "cidr", "out", "broken", "all"]) {
            let mut facts = Facts::of(number);
            match what {
                "gone" => stage.delete(number),
                "mac" => facts.macs = [0, 1].map(|family| Some(new_mac(number, family))),
                "cidr" => facts.cidrs = pod_cidrs(number + 500).map(Some),
                "out" => {
                    stage.world.api.patch_node(&name(number), annotate("kube-subnet-manager", serde_json::Value::Null));
                    stage.peers.remove(&number);
                }
                // What was installed stays.
                "broken" => drop(stage.world.api.patch_node(&name(number), annotate("public-ip", "tomorrow"))),
                _ => facts = Facts::of(number + 600),
            }
            if matches!(what, "mac" | "cidr" | "all") {
                stage.put(number, facts);
            }
        }
        stage.put(100 + offset, Facts::of(100 + offset));
        stage.world.start();
        stage.settled("what happened while weft was down");
        stage.shown(BYSTANDERS + 5 + offset, [("unusable", "tomorrow"), ("installed", "")]);
    }
}
