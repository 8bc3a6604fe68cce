//! Whole Node objects, as they are met in clusters: `tests/fixtures/nodes`, each named after its point.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::json;
use weft::cluster::annotations::{DEFAULT_PREFIX, Keys};
use weft::cluster::node;
use weft::cluster::wire::SlimNode;
use weft::model::addr::{ByFamily, Family, Vni};
use weft::model::node::{NodeRecord, OwnNode, Standing};

/// What each node is to us, if our VNI is 1, in IPv4 and in IPv6.
const STANDINGS: &[(&str, &str, &str)] = &[
    ("flanneld_v4", "10.244.1.0/24 3a:1f:5e:00:00:01 192.168.1.11", "absent: no pod CIDR of this family"),
    (
        "flanneld_dual_stack",
        "10.244.2.0/24 3a:1f:5e:00:00:02 192.168.1.12",
        "fd00:10:244:2::/64 66:0c:7d:00:00:02 2001:db8:1::12",
    ),
    (
        "v6_first_in_pod_cidrs",
        "10.244.3.0/24 3a:1f:5e:00:00:03 192.168.1.13",
        "fd00:10:244:3::/64 66:0c:7d:00:00:03 2001:db8:1::13",
    ),
    (
        "v4_only_in_a_dual_stack_cluster",
        "10.244.4.0/24 3a:1f:5e:00:00:04 192.168.1.14",
        "absent: no VTEP announced for this family",
    ),
    ("v6_only", "absent: no pod CIDR of this family", "fd00:10:244:5::/64 66:0c:7d:00:00:05 2001:db8:1::15"),
    ("k3s_with_external_ip", "10.42.0.0/24 1e:6a:9b:00:00:06 203.0.113.6", "absent: no pod CIDR of this family"),
    (
        "windows_starting_with_empty_mac",
        "unusable, holds 10.244.7.0/24: annotation backend-data is \"{\\\"VNI\\\":4096,\\\"VtepMAC\\\":\\\"\\\"}\": \
         VtepMAC is empty (not announced yet)",
        "absent: no pod CIDR of this family",
    ),
    ("windows", "unusable, holds 10.244.7.0/24: its VNI is 4096, ours is 1", "absent: no pod CIDR of this family"),
    ("big_ip_dummy_without_vni", "10.244.8.0/24 fa:16:3e:00:00:08 198.19.0.2", "absent: no pod CIDR of this family"),
    (
        "host_gw",
        "absent: backend-type is \"host-gw\", ours is \"vxlan\"",
        "absent: backend-type is \"host-gw\", ours is \"vxlan\"",
    ),
    (
        "not_a_flannel_node",
        "absent: annotation kube-subnet-manager is not \"true\"",
        "absent: annotation kube-subnet-manager is not \"true\"",
    ),
    (
        "opted_out",
        "absent: annotation kube-subnet-manager is not \"true\"",
        "absent: annotation kube-subnet-manager is not \"true\"",
    ),
    ("joined_without_pod_cidr", "absent: no pod CIDR of this family", "absent: no pod CIDR of this family"),
    (
        "joined_without_annotations",
        "absent: annotation kube-subnet-manager is not \"true\"",
        "absent: annotation kube-subnet-manager is not \"true\"",
    ),
    (
        "all_of_the_announcement_lost",
        "unusable, holds 10.244.14.0/24: annotation backend-data is missing",
        "unusable, holds fd00:10:244:e::/64: annotation backend-v6-data is missing",
    ),
    (
        "public_ip_lost",
        "unusable, holds 10.244.15.0/24: annotation public-ip is missing",
        "absent: no pod CIDR of this family",
    ),
    (
        "backend_type_lost",
        "unusable, holds 10.244.16.0/24: annotation backend-type is missing",
        "absent: no pod CIDR of this family",
    ),
    (
        "three_pod_cidrs",
        "unusable, holds nothing: 3 pod CIDRs, at most one of each family is allowed",
        "unusable, holds nothing: 3 pod CIDRs, at most one of each family is allowed",
    ),
    ("two_v4_pod_cidrs", "10.244.18.0/24 3a:1f:5e:00:00:12 192.168.1.28", "absent: no pod CIDR of this family"),
    (
        "one_garbled_pod_cidr_of_two",
        "10.244.19.0/24 3a:1f:5e:00:00:13 192.168.1.29",
        "unusable, holds nothing: pod CIDR \"fd00:10:244:13::/640\": prefix length out of range",
    ),
    ("host_bits_in_pod_cidr", "10.244.20.0/24 3a:1f:5e:00:00:14 192.168.1.30", "absent: no pod CIDR of this family"),
    (
        "other_prefix",
        "absent: annotation kube-subnet-manager is not \"true\"",
        "absent: annotation kube-subnet-manager is not \"true\"",
    ),
    (
        "other_spelling_of_backend_data",
        "10.244.22.0/24 3a:1f:5e:00:00:16 192.168.1.32",
        "absent: no pod CIDR of this family",
    ),
    (
        "node_public_ip_set_by_a_person",
        "10.244.23.0/24 3a:1f:5e:00:00:17 192.168.1.33",
        "absent: no VTEP announced for this family",
    ),
    ("odd_shapes_elsewhere", "10.244.24.0/24 3a:1f:5e:00:00:18 192.168.1.34", "absent: no pod CIDR of this family"),
];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/nodes")
}

fn fixture(name: &str) -> Vec<u8> {
    fs::read(folder().join(format!("{name}.json"))).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn record(name: &str, prefix: &str) -> NodeRecord {
    let keys = Keys::new(prefix).unwrap();
    let slim = SlimNode::read(&keys, &fixture(name)).unwrap();
    node::record(node::name(&slim).unwrap(), &slim, Vni::new(1))
}

fn own(name: &str) -> OwnNode {
    let keys = Keys::new(DEFAULT_PREFIX).unwrap();
    let slim = SlimNode::read(&keys, &fixture(name)).unwrap();
    node::own(node::name(&slim).unwrap(), &slim)
}

/// The same with the host-gw backend: `backend-data` says nothing there.
#[test]
fn with_host_gw_a_peer_is_its_pod_cidr_and_its_public_ip() {
    let keys = Keys::new(DEFAULT_PREFIX).unwrap();
    let standing = |name: &str| {
        let fixture = fixture(name);
        let slim = SlimNode::read(&keys, &fixture).unwrap();
        node::record(node::name(&slim).unwrap(), &slim, None).standing
    };
    let ByFamily { v4: Standing::Usable(peer), v6 } = standing("host_gw") else { panic!("usable") };
    let said = (peer.subnet.to_string(), peer.mac, peer.public_ip.to_string());
    assert_eq!(said, ("10.244.9.0/24".to_owned(), None, "192.168.1.19".to_owned()));
    assert_eq!(say(&v6), "absent: no pod CIDR of this family");
    for (_, standing) in standing("flanneld_dual_stack").iter() {
        assert_eq!(say(standing), "absent: backend-type is \"vxlan\", ours is \"host-gw\"");
    }
}

fn say(standing: &Standing) -> String {
    match standing {
        Standing::Absent(absence) => format!("absent: {absence}"),
        Standing::Usable(peer) => format!("{} {} {}", peer.subnet, peer.mac.unwrap(), peer.public_ip),
        Standing::Unusable { subnet: Some(subnet), reason } => format!("unusable, holds {subnet}: {reason}"),
        Standing::Unusable { subnet: None, reason } => format!("unusable, holds nothing: {reason}"),
    }
}

#[test]
fn every_kind_of_node_gets_the_standing_it_should() {
    for (name, v4, v6) in STANDINGS {
        let node = record(name, DEFAULT_PREFIX);
        assert_eq!((say(&node.standing.v4).as_str(), say(&node.standing.v6).as_str()), (*v4, *v6), "{name}");
    }
}

#[test]
fn every_fixture_is_in_the_table() {
    let files: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|file| file.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    let listed: BTreeSet<String> = STANDINGS.iter().map(|(name, ..)| (*name).to_owned()).collect();
    assert_eq!(files, listed);
}

#[test]
fn a_node_is_known_by_name_uid_and_the_second_it_was_made_in() {
    let node = record("flanneld_v4", DEFAULT_PREFIX);
    assert_eq!((&*node.name, &*node.uid), ("worker-1", "6f1c2b0e-9a5d-4c57-8f3e-000000000001"));
    assert_eq!(node.created, 1_773_480_413, "date -u -d 2026-03-14T09:26:53Z +%s");
}

#[test]
fn a_moment_that_the_calendar_does_not_have_makes_nobody_the_older() {
    let created = |text: &str| {
        let (keys, json) = (Keys::new(DEFAULT_PREFIX).unwrap(), json!({ "metadata": { "creationTimestamp": text } }));
        node::record("x".into(), &SlimNode::read(&keys, json.to_string().as_bytes()).unwrap(), Vni::new(1)).created
    };
    assert_eq!(created("2024-02-29T23:59:59Z"), 1_709_251_199);
    assert_eq!(created("2024-03-01T01:59:59+02:00"), 1_709_251_199, "RFC 3339 has offsets");
    for text in ["2026-02-29T00:00:00Z", "2026-04-31T00:00:00Z", "2026-13-01T00:00:00Z", "yesterday", ""] {
        assert_eq!(created(text), i64::MAX, "{text}");
    }
}

#[test]
fn another_annotation_prefix_finds_another_clusters_nodes() {
    let node = record("other_prefix", "flannel.example.com/blue");
    assert_eq!(say(&node.standing.v4), "10.244.21.0/24 3a:1f:5e:00:00:15 192.168.1.31");
    assert_eq!(say(&record("flanneld_v4", "flannel.example.com/blue").standing.v4).get(..6), Some("absent"));
}

#[test]
fn our_own_node_tells_subnets_macs_and_what_a_person_asked_for() {
    let node = own("flanneld_dual_stack");
    let subnets = ByFamily::from_fn(|family| node.subnet.get(family).clone().map(|subnet| subnet.to_string()));
    assert_eq!(subnets.v4.as_deref(), Ok("10.244.2.0/24"));
    assert_eq!(subnets.v6.as_deref(), Ok("fd00:10:244:2::/64"));
    assert_eq!(node.annotated_mac.v4, "3a:1f:5e:00:00:02".parse().ok());
    assert_eq!(node.annotated_mac.v6, "66:0c:7d:00:00:02".parse().ok());
    assert_eq!(node.annotations.len(), 6);
    assert!(node::complaints(&node).is_empty());

    let node = own("k3s_with_external_ip");
    assert_eq!(node.overwrite.v4, "203.0.113.6".parse().ok());
    assert!(node.subnet.v6.clone().unwrap_err().contains("no ipv6 pod CIDR"));

    let node = own("node_public_ip_set_by_a_person");
    assert_eq!(node.node_public_ip.v4, "198.51.100.33".parse().ok());
    assert_eq!(*node.overwrite.get(Family::V6), "2001:db8:2::33".parse().ok());
    assert_eq!(node.overwrite.v4, None);
    let complaints = node::complaints(&node);
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    assert!(
        complaints[0].contains("public-ip-overwrite") && complaints[0].contains("not an address"),
        "{complaints:?}"
    );
}

#[test]
fn our_own_node_says_what_is_wrong_with_its_pod_cidr() {
    let reason = |name: &str| own(name).subnet.v4.unwrap_err();
    assert!(reason("joined_without_pod_cidr").contains("no ipv4 pod CIDR yet"));
    assert!(reason("three_pod_cidrs").contains("3 pod CIDRs"));
    assert!(own("one_garbled_pod_cidr_of_two").subnet.v6.unwrap_err().contains("fd00:10:244:13::/640"));
}
