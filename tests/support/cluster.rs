//! Node objects as flanneld makes them, numbered: number 0 is our own node, the others are its peers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

/// The prefix of flannel's annotations.
pub(crate) const PREFIX: &str = "flannel.alpha.coreos.com";
/// The name of our own node.
pub(crate) const OWN: &str = "node-0";

/// The name of a node.
pub(crate) fn name(number: u32) -> String {
    format!("node-{number}")
}

/// The pod networks that hold the pod CIDRs of 4,096 nodes.
pub(crate) const NETWORKS: [&str; 2] = ["10.240.0.0/12", "fd00:10:240::/48"];

/// The first address of each of a node's pod CIDRs: its VTEP's own, and the gateway of the routes to it.
pub(crate) fn gateways(number: u32) -> [IpAddr; 2] {
    let (v4, v6) = (0x0af0_0000 + (number << 8), (0xfd00_0010_0240 << 80) + (u128::from(number) << 64));
    [Ipv4Addr::from(v4).into(), Ipv6Addr::from(v6).into()]
}

/// A node's pod CIDRs: IPv4, IPv6.
pub(crate) fn pod_cidrs(number: u32) -> [String; 2] {
    let [v4, v6] = gateways(number);
    [format!("{v4}/24"), format!("{v6}/64")]
}

/// A node's public addresses, all in the networks of the underlay of [`crate::world::World`].
pub(crate) fn public_ips(number: u32) -> [IpAddr; 2] {
    let host = if number == 0 { 1 } else { 0x100 + number };
    [Ipv4Addr::from(0xac10_0000 + host).into(), Ipv6Addr::from((0xfd00_0174 << 96) + u128::from(host)).into()]
}

/// A node's VTEP MACs.
pub(crate) fn macs(number: u32) -> [String; 2] {
    let [_, _, high, low] = number.to_be_bytes();
    [format!("0a:58:04:00:{high:02x}:{low:02x}"), format!("0a:58:06:00:{high:02x}:{low:02x}")]
}

/// A Node without any annotation, as the controller manager leaves it: what flanneld has not seen yet.
pub(crate) fn bare(number: u32) -> Value {
    let [v4, v6] = pod_cidrs(number);
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name(number),
            "uid": format!("5f0c7e52-0000-4000-8000-{number:012x}"),
            "creationTimestamp": "2026-03-01T08:00:00Z",
            "labels": { "kubernetes.io/hostname": name(number), "kubernetes.io/os": "linux" },
            "annotations": { "node.alpha.kubernetes.io/ttl": "0" },
        },
        "spec": { "podCIDR": v4, "podCIDRs": [v4, v6] },
        "status": {
            "nodeInfo": { "operatingSystem": "linux", "kubeletVersion": "v1.33.1", "architecture": "amd64" },
            "conditions": [{ "type": "Ready", "status": "True", "reason": "KubeletReady" }],
        },
    })
}

/// A dual-stack peer with everything that flanneld announces.
pub(crate) fn peer(number: u32) -> Value {
    let ([v4, v6], [mac4, mac6]) = (public_ips(number), macs(number));
    let mut node = bare(number);
    let annotations = &mut node["metadata"]["annotations"];
    for (key, value) in [
        ("kube-subnet-manager", "true".to_owned()),
        ("backend-type", "vxlan".to_owned()),
        ("backend-data", backend_data(1, &mac4)),
        ("backend-v6-data", backend_data(1, &mac6)),
        ("public-ip", v4.to_string()),
        ("public-ipv6", v6.to_string()),
    ] {
        annotations[format!("{PREFIX}/{key}")] = value.into();
    }
    node
}

/// The same of a node with flannel's host-gw backend.
pub(crate) fn host_gw(number: u32) -> Value {
    let mut node = peer(number);
    let annotations = &mut node["metadata"]["annotations"];
    for (key, value) in [("backend-type", "host-gw"), ("backend-data", "null"), ("backend-v6-data", "null")] {
        annotations[format!("{PREFIX}/{key}")] = value.into();
    }
    node
}

/// The compact JSON of `backend-data`.
pub(crate) fn backend_data(vni: u32, mac: &str) -> String {
    format!(r#"{{"VNI":{vni},"VtepMAC":"{mac}"}}"#)
}

/// The value of one of flannel's annotations.
pub(crate) fn annotation<'a>(node: &'a Value, key: &str) -> Option<&'a str> {
    node["metadata"]["annotations"][format!("{PREFIX}/{key}")].as_str()
}

/// The condition `NetworkUnavailable` of a Node.
pub(crate) fn network_unavailable(node: &Value) -> Option<Value> {
    let conditions = node["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == "NetworkUnavailable").cloned()
}
