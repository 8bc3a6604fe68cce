//! A hundred kinds of garbage in every place that a person, a bug or an attacker can write to.

use proptest::prelude::*;
use serde_json::{Value, json};
use weft::cluster::annotations::{DEFAULT_PREFIX, Keys};
use weft::cluster::event::Event;
use weft::cluster::node;
use weft::cluster::peers::{Seen, Viewpoint};
use weft::cluster::wire::{Page, SlimNode};
use weft::model::addr::Vni;
use weft::model::node::{NodeRecord, Standing};

/// Texts that are no value for any annotation that we read.
const TEXTS: &[&str] = &[
    "",
    " ",
    "\n",
    "\t",
    "\0",
    "null",
    "nil",
    "None",
    "undefined",
    "NaN",
    "-",
    "--",
    ".",
    "..",
    "/",
    "//",
    ":",
    "::1/",
    "0",
    "1",
    "-1",
    "1.5",
    "1e9",
    "99999999999999999999999999",
    "0x0a000001",
    "TRUE",
    "True",
    "true ",
    " true",
    "truetrue",
    "yes",
    "on",
    "false",
    "VXLAN",
    "Vxlan",
    "vxlan ",
    " vxlan",
    "vxlan\n",
    "vxlan,vxlan",
    "\"vxlan\"",
    "\"true\"",
    "10.0.0",
    "10.0.0.",
    ".10.0.0.1",
    "10.0.0.1.",
    "10.0.0.256",
    "10.0.0.01",
    "010.0.0.1",
    "10.0.0.1 ",
    " 10.0.0.1",
    "10.0.0.1:8472",
    "10.0.0.1,10.0.0.2",
    "10.0.0.1/33",
    "10.0.0.1/-1",
    "10.0.0.0/255.255.255.0",
    "10.0.0.0/024",
    "10.0.0.0/+24",
    "10.0.0.0/ 24",
    "10.0.0.0/24/24",
    "/24",
    "10/8",
    "localhost",
    "example.com",
    "0.0.0.0",
    "0.1.2.3",
    "127.0.0.1",
    "169.254.0.1",
    "224.0.0.1",
    "239.255.255.255",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "ff02::1",
    ":::",
    "1::2::3",
    "[2001:db8::1]",
    "2001:db8::g",
    "12345::1",
    "2001:db8::1/129",
    "::ffff:0.0.0.0",
    "::ffff:127.0.0.1",
    "3a:1f:5e:00:00:01",
    "3a1f5e000001",
    "ff:ff:ff:ff:ff:ff",
    "00:00:00:00:00:00",
    "{",
    "}",
    "{}",
    "[]",
    "[{}]",
    "{\"VNI\":1}",
    "{\"VtepMAC\":\"\"}",
    "{\"VtepMAC\":null}",
    "{\"VtepMAC\":17}",
    "{\"VtepMAC\":[]}",
    "{\"VtepMAC\":{}}",
    "{\"VtepMAC\":\"3a:1f:5e:00:00\"}",
    "{\"VtepMAC\":\"3a:1f:5e:00:00:01:02\"}",
    "{\"VtepMAC\":\"3a:1f:5e:00:00:01:02:03\"}",
    "{\"VtepMAC\":\"3a:1f:5e:00:00:0g\"}",
    "{\"VtepMAC\":\"3a:1f:5e-00:00:01\"}",
    "{\"VtepMAC\":\"3:1:5:0:0:1\"}",
    "{\"VtepMAC\":\"00:00:00:00:00:00\"}",
    "{\"VtepMAC\":\"ff:ff:ff:ff:ff:ff\"}",
    "{\"VtepMAC\":\"01:00:5e:00:00:01\"}",
    "{\"VtepMAC\":\"33:33:00:00:00:01\"}",
    "{\"VtepMAC\":\" 3a:1f:5e:00:00:01\"}",
    "{\"VNI\":\"1\",\"VtepMAC\":\"3a:1f:5e:00:00:01\"}",
    "{\"VNI\":-1,\"VtepMAC\":\"3a:1f:5e:00:00:01\"}",
    "{\"VNI\":1.0,\"VtepMAC\":\"3a:1f:5e:00:00:01\"}",
    "{\"VNI\":null,\"VtepMAC\":null}",
    "{\"VNI\":[1],\"VtepMAC\":\"3a:1f:5e:00:00:01\"}",
    "{\"VNI\":2,\"VtepMAC\":\"3a:1f:5e:00:00:01\"}",
    "{\"VNI\":0,\"VtepMAC\":\"3a:1f:5e:00:00:01\"}",
    "{\"VNI\":16777217,\"VtepMAC\":\"3a:1f:5e:00:00:01\"}",
    "{\"VNI\":4294967297,\"VtepMAC\":\"3a:1f:5e:00:00:01\"}",
    "{\"VNI\":1,\"VtepMAC\":\"3a:1f:5e:00:00:01\"} ,",
    "{\"VNI\":1,\"VtepMAC\":\"3a:1f:5e:00:00:01\"",
    "{'VNI':1,'VtepMAC':'3a:1f:5e:00:00:01'}",
    "{\"VNI\":1,\"VtepMAC\":\"3a:1f:5e:00:00:01\"}{\"VNI\":1}",
    "[{\"VNI\":1,\"VtepMAC\":\"3a:1f:5e:00:00:01\"}]",
    "\"{\\\"VNI\\\":1}\"",
    "{\"VNI\":1,\"VtepMAC\":\"\\ud800\"}",
    "\u{feff}{\"VtepMAC\":\"3a:1f:5e:00:00:01\"}",
    "💥",
    "é\u{301}",
    "<html><body>502</body></html>",
    "$(reboot)",
    "; ip link del flannel.1",
    "%s%n%s%n",
    "../../etc/passwd",
];

/// Values of the wrong JSON type, and texts too large to spell out.
fn others() -> Vec<Value> {
    vec![
        Value::Null,
        json!(true),
        json!(false),
        json!(0),
        json!(-1),
        json!(1.5),
        json!(u64::MAX),
        json!([]),
        json!(["true"]),
        json!({}),
        json!({ "true": "true" }),
        json!([[[[[[[["deep"]]]]]]]]),
        json!("x".repeat(200_000)),
        json!("{".repeat(10_000)),
        json!("[".repeat(10_000)),
        json!(format!("{{\"VtepMAC\":\"{}\"}}", "0".repeat(100_000))),
        json!(format!("{{\"x\":{}1{}}}", "[".repeat(500), "]".repeat(500))),
        json!("10.0.0.1\u{200b}"),
        json!("１０.0.0.1"),
    ]
}

fn garbage() -> Vec<Value> {
    TEXTS.iter().map(|text| json!(text)).chain(others()).collect()
}

fn good() -> Value {
    json!({
        "metadata": {
            "name": "victim", "uid": "u", "resourceVersion": "7", "creationTimestamp": "2026-03-14T09:26:53Z",
            "annotations": {
                "flannel.alpha.coreos.com/kube-subnet-manager": "true",
                "flannel.alpha.coreos.com/backend-type": "vxlan",
                "flannel.alpha.coreos.com/backend-data": "{\"VNI\":1,\"VtepMAC\":\"3a:1f:5e:00:00:01\"}",
                "flannel.alpha.coreos.com/public-ip": "192.168.1.11",
                "flannel.alpha.coreos.com/backend-v6-data": "{\"VNI\":1,\"VtepMAC\":\"66:0c:7d:00:00:01\"}",
                "flannel.alpha.coreos.com/public-ipv6": "2001:db8:1::11",
            },
        },
        "spec": { "podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00:10:244:1::/64"] },
    })
}

fn annotated(key: &str, value: &Value) -> Value {
    let mut node = good();
    node["metadata"]["annotations"][format!("{DEFAULT_PREFIX}/{key}")] = value.clone();
    node
}

/// Reads the object as one of a list with a good one on either side, as a peer and as our own.
fn read(node: &Value) -> NodeRecord {
    let keys = Keys::new(DEFAULT_PREFIX).unwrap();
    let neighbour = |name: &str| {
        let mut node = good();
        node["metadata"]["name"] = json!(name);
        node
    };
    let list = json!({ "metadata": { "resourceVersion": "9" }, "items": [neighbour("a"), node, neighbour("z")] });
    let page = Page::read(&keys, list.to_string().as_bytes()).unwrap();
    let view = Viewpoint { own: "self".into(), vni: Vni::new(1) };
    let mut seen: Vec<_> = page.items.nodes.iter().map(|node| view.see(node)).collect();
    assert_eq!(seen.len(), 3);
    for (at, name) in [(0, "a"), (2, "z")] {
        let Seen::Other(other) = &seen[at] else { panic!("{name} was not read") };
        assert!(&*other.name == name && usable(&other.standing.v4) && usable(&other.standing.v6), "{other:?}");
    }
    let slim = SlimNode::read(&keys, node.to_string().as_bytes()).unwrap();
    let own = node::own("victim".into(), &slim);
    assert!(own.annotations.values().all(|value| value.len() <= 4 * 1024), "our own annotations are cut");
    for complaint in node::complaints(&own) {
        assert!(complaint.len() < 1000, "{} bytes", complaint.len());
    }
    match seen.swap_remove(1) {
        Seen::Other(record) => record,
        _ => node::record("victim".into(), &slim, Vni::new(1)),
    }
}

fn usable(standing: &Standing) -> bool {
    matches!(standing, Standing::Usable(_))
}

/// What is said about a node is short enough for a log line, whatever it wrote.
fn said(standing: &Standing) -> String {
    let said = match standing {
        Standing::Absent(absence) => absence.to_string(),
        Standing::Unusable { reason, .. } => reason.to_string(),
        Standing::Usable(_) => String::new(),
    };
    assert!(said.len() < 1000, "{} bytes: {said:.200}", said.len());
    assert!(!said.contains(['\n', '\0', '\t']), "control characters are escaped: {said:?}");
    said
}

#[test]
fn there_are_more_than_a_hundred_kinds() {
    let kinds: std::collections::BTreeSet<_> = garbage().iter().map(Value::to_string).collect();
    assert!(kinds.len() > 150, "{}", kinds.len());
}

#[test]
fn the_node_that_is_spoilt_here_is_good() {
    let node = read(&good());
    assert!(usable(&node.standing.v4) && usable(&node.standing.v6));
}

#[test]
fn garbage_in_the_annotations_of_one_family_costs_that_family_alone() {
    for value in garbage() {
        for key in ["backend-data", "public-ip"] {
            // Bare addresses of the right kind for the key would not be garbage; the table has none.
            let node = read(&annotated(key, &value));
            assert!(matches!(node.standing.v4, Standing::Unusable { subnet: Some(_), .. }), "{key}: {value:.100}");
            assert!(said(&node.standing.v4).contains(key) || said(&node.standing.v4).contains("VNI"));
            assert!(usable(&node.standing.v6), "{key}: {value:.100}");
        }
        for key in ["backend-v6-data", "public-ipv6"] {
            let node = read(&annotated(key, &value));
            assert!(matches!(node.standing.v6, Standing::Unusable { subnet: Some(_), .. }), "{key}: {value:.100}");
            said(&node.standing.v6);
            assert!(usable(&node.standing.v4), "{key}: {value:.100}");
        }
    }
}

#[test]
fn garbage_in_the_annotations_that_open_the_gate_keeps_it_shut() {
    for value in garbage() {
        for key in ["kube-subnet-manager", "backend-type"] {
            let node = read(&annotated(key, &value));
            for (family, standing) in node.standing.iter() {
                assert!(!usable(standing), "{key} {family}: {value:.100}");
                assert!(!said(standing).is_empty());
            }
        }
    }
}

#[test]
fn garbage_in_annotations_that_only_our_own_node_reads_does_a_peer_no_harm() {
    for value in garbage() {
        for key in ["public-ip-overwrite", "public-ipv6-overwrite", "node-public-ip", "node-public-ipv6", "unheard-of"]
        {
            let node = read(&annotated(key, &value));
            assert!(usable(&node.standing.v4) && usable(&node.standing.v6), "{key}: {value:.100}");
        }
    }
}

#[test]
fn garbage_as_a_pod_cidr_costs_the_family_that_it_stands_for() {
    for value in garbage() {
        let mut node = good();
        node["spec"]["podCIDRs"][0] = value.clone();
        let node = read(&node);
        assert!(!usable(&node.standing.v4), "{value:.100}");
        said(&node.standing.v4);
        assert!(usable(&node.standing.v6), "{value:.100}");
    }
}

#[test]
fn garbage_in_the_place_of_whole_parts_is_survived() {
    for value in garbage() {
        for at in [
            "/metadata/annotations",
            "/metadata/uid",
            "/metadata/creationTimestamp",
            "/spec",
            "/spec/podCIDR",
            "/spec/podCIDRs",
            "/metadata/resourceVersion",
            "/metadata",
            "/metadata/name",
        ] {
            let mut node = good();
            *node.pointer_mut(at).unwrap() = value.clone();
            let node = read(&node);
            assert!(node.uid.len() <= 300 && node.name.len() <= 253, "{at}: {value:.100}");
            if at == "/metadata/creationTimestamp" {
                assert_eq!(node.created, i64::MAX, "a node of unknown age is the newest: {value:.100}");
            }
            for (_, standing) in node.standing.iter() {
                said(standing);
            }
        }
    }
}

#[test]
fn garbage_in_the_place_of_a_node_is_an_object_without_a_name() {
    let keys = Keys::new(DEFAULT_PREFIX).unwrap();
    for value in garbage() {
        let slim = SlimNode::read(&keys, value.to_string().as_bytes()).unwrap();
        assert_eq!(node::name(&slim), None, "{value:.100}");
    }
}

#[test]
fn garbage_in_the_place_of_a_list_is_no_empty_cluster() {
    let keys = Keys::new(DEFAULT_PREFIX).unwrap();
    for value in garbage() {
        assert!(Page::read(&keys, value.to_string().as_bytes()).is_err(), "{value:.100}");
        let text = value.as_str().unwrap_or_default();
        assert!(Page::read(&keys, text.as_bytes()).is_err(), "{text:.100}");
    }
    for no_list in [
        r#"{"kind":"Status","status":"Success","metadata":{"resourceVersion":"1"},"items":[]}"#,
        r#"{"kind":"NodeList","metadata":{"resourceVersion":""},"items":[]}"#,
        r#"{"kind":"NodeList","metadata":{"resourceVersion":"1"}}"#,
        r#"{"kind":"NodeList","metadata":{"resourceVersion":"1"},"items":["#,
        r#"{"kind":"NodeList","metadata":{"resourceVersion":"1"},"items":[]} x"#,
    ] {
        assert!(Page::read(&keys, no_list.as_bytes()).is_err(), "{no_list}");
    }
    assert!(Page::read(&keys, br#"{"kind":"NodeList","metadata":{"resourceVersion":"1"},"items":[]}"#).is_ok());
}

/// Bytes of a real node, some of them replaced, some taken out.
fn spoilt() -> impl Strategy<Value = Vec<u8>> {
    let edits = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..8);
    edits.prop_map(|edits| {
        let mut bytes = good().to_string().into_bytes();
        for (at, byte, remove) in edits {
            let at = at.index(bytes.len());
            if remove {
                bytes.remove(at);
            } else {
                bytes[at] = byte;
            }
        }
        bytes
    })
}

proptest! {
    #[test]
    fn bytes_gone_wrong_are_an_error_or_a_node_and_never_a_crash(bytes in spoilt()) {
        let keys = Keys::new(DEFAULT_PREFIX).unwrap();
        let view = Viewpoint { own: "self".into(), vni: Vni::new(1) };
        if let Ok(node) = SlimNode::read(&keys, &bytes) {
            if let Seen::Other(record) = view.see(&node) {
                for (_, standing) in record.standing.iter() {
                    said(standing);
                }
            }
            node::own("self".into(), &node);
        }
        let list = [br#"{"metadata":{"resourceVersion":"1"},"items":["#, &*bytes, b"]}"].concat();
        let _ = Page::read(&keys, &list);
        let line = [br#"{"type":"MODIFIED","object":"#, &*bytes, b"}"].concat();
        let _ = Event::read(&keys, &line);
        let _ = Event::read(&keys, &bytes);
    }

    #[test]
    fn any_text_as_an_annotation_is_survived(text in "\\PC{0,200}", key in 0_usize..6) {
        let keys = ["backend-data", "public-ip", "backend-type", "kube-subnet-manager", "backend-v6-data", "public-ipv6"];
        let node = read(&annotated(keys[key], &json!(text)));
        for (_, standing) in node.standing.iter() {
            said(standing);
        }
    }
}
