//! What we write on our own Node: flannel's annotations, byte for byte, and no more often than needed.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use weft::cluster::annotations::{DEFAULT_PREFIX, Keys};
use weft::cluster::announce::{Place, decide};
use weft::cluster::node;
use weft::cluster::wire::SlimNode;
use weft::model::addr::{ByFamily, Vni};
use weft::model::node::OwnNode;

type Annotations = BTreeMap<String, String>;

fn keys() -> Keys {
    Keys::new(DEFAULT_PREFIX).unwrap()
}

fn own(annotations: &Annotations) -> OwnNode {
    let keys = keys();
    let node = json!({ "metadata": { "name": "us", "annotations": annotations } });
    node::own("us".into(), &SlimNode::read(&keys, node.to_string().as_bytes()).unwrap())
}

fn vtep(mac: &str, ip: &str) -> Place {
    let vtep = Some((Vni::new(1).unwrap(), mac.parse().unwrap()));
    Place { vtep, public_ip: ip.parse().unwrap() }
}

fn v4() -> Place {
    vtep("3a:1f:00:00:00:01", "192.168.1.11")
}

fn v6() -> Place {
    vtep("66:0c:00:00:00:01", "2001:db8::11")
}

fn both() -> ByFamily<Option<Place>> {
    ByFamily { v4: Some(v4()), v6: Some(v6()) }
}

/// Applies what is decided, as the API server would; says which keys it was.
fn announce(annotations: &mut Annotations, vteps: &ByFamily<Option<Place>>) -> Vec<String> {
    let Some(patch) = decide(&keys(), vteps, &own(annotations)) else { return Vec::new() };
    let body: Value = serde_json::from_slice(&patch.body()).unwrap();
    assert_eq!(body.as_object().unwrap().len(), 1, "only metadata");
    assert_eq!(body["metadata"].as_object().unwrap().len(), 1, "only annotations");
    let mut written = Vec::new();
    for (key, value) in body["metadata"]["annotations"].as_object().unwrap() {
        annotations.insert(key.clone(), value.as_str().unwrap().to_owned());
        written.push(key.rsplit('/').next().unwrap().to_owned());
    }
    written
}

fn announced(vteps: &ByFamily<Option<Place>>) -> Annotations {
    let mut annotations = Annotations::new();
    announce(&mut annotations, vteps);
    annotations
}

fn full(key: &str) -> String {
    format!("flannel.alpha.coreos.com/{key}")
}

#[test]
fn a_v4_node_gets_flannels_five_annotations_less_the_one_of_people() {
    let expected = [
        ("backend-data", r#"{"VNI":1,"VtepMAC":"3a:1f:00:00:00:01"}"#),
        ("backend-type", "vxlan"),
        ("kube-subnet-manager", "true"),
        ("public-ip", "192.168.1.11"),
    ];
    let expected: Annotations = expected.iter().map(|(key, value)| (full(key), (*value).to_owned())).collect();
    assert_eq!(announced(&ByFamily { v4: Some(v4()), v6: None }), expected);
}

#[test]
fn a_dual_stack_node_gets_the_v6_twins_too() {
    let annotations = announced(&both());
    assert_eq!(annotations.len(), 6);
    assert_eq!(annotations[&full("backend-v6-data")], r#"{"VNI":1,"VtepMAC":"66:0c:00:00:00:01"}"#);
    assert_eq!(annotations[&full("public-ipv6")], "2001:db8::11");
}

#[test]
fn a_v6_only_node_says_nothing_of_v4() {
    let annotations = announced(&ByFamily { v4: None, v6: Some(v6()) });
    let keys: Vec<_> = annotations.keys().map(|key| key.rsplit('/').next().unwrap()).collect();
    assert_eq!(keys, ["backend-type", "backend-v6-data", "kube-subnet-manager", "public-ipv6"]);
}

#[test]
fn nothing_is_announced_before_a_device_is_ready() {
    assert_eq!(decide(&keys(), &ByFamily::default(), &own(&Annotations::new())), None);
}

#[test]
fn what_is_already_said_is_not_said_again() {
    let mut annotations = announced(&both());
    assert_eq!(announce(&mut annotations, &both()), Vec::<String>::new());
}

#[test]
fn an_edit_by_somebody_else_is_put_right_whichever_it_is() {
    let right = announced(&both());
    for key in right.keys() {
        for edit in [None, Some("nonsense"), Some("")] {
            let mut annotations = right.clone();
            match edit {
                Some(value) => drop(annotations.insert(key.clone(), value.to_owned())),
                None => drop(annotations.remove(key)),
            }
            let written = announce(&mut annotations, &both());
            assert!(written.contains(&key.rsplit('/').next().unwrap().to_owned()), "{key} {edit:?}: {written:?}");
            assert_eq!(announce(&mut annotations, &both()), Vec::<String>::new(), "once is enough");
        }
    }
}

/// flanneld's test of an updated Node with both families enabled: no change if either triple is as before.
fn flanneld_hears(before: &Annotations, after: &Annotations) -> bool {
    let differs = |keys: [&str; 3]| keys.iter().any(|key| before.get(&full(key)) != after.get(&full(key)));
    differs(["backend-data", "backend-type", "public-ip"])
        && differs(["backend-v6-data", "backend-type", "public-ipv6"])
}

#[test]
fn a_running_flanneld_hears_of_a_change_of_one_family() {
    let mut annotations = announced(&both());
    let moved =
        |ip: &str, mac: &str| ByFamily { v4: Some(vtep("3a:1f:00:00:00:01", ip)), v6: Some(vtep(mac, "2001:db8::11")) };
    for vteps in [
        moved("192.168.1.12", "66:0c:00:00:00:01"),
        moved("192.168.1.13", "66:0c:00:00:00:01"),
        moved("192.168.1.13", "66:0c:00:00:00:02"),
        moved("192.168.1.14", "66:0c:00:00:00:02"),
        moved("192.168.1.15", "66:0c:00:00:00:03"),
    ] {
        let before = annotations.clone();
        announce(&mut annotations, &vteps);
        assert!(flanneld_hears(&before, &annotations), "{before:#?} {annotations:#?}");
        assert_eq!(announce(&mut annotations, &vteps), Vec::<String>::new(), "no to and fro");
        let own = own(&annotations);
        let mac = |place: Option<Place>| place.and_then(|place| place.vtep).map(|(_, mac)| mac);
        assert_eq!(own.annotated_mac.v4, mac(vteps.v4), "and a restart finds its MAC");
        assert_eq!(own.annotated_mac.v6, mac(vteps.v6));
    }
}

#[test]
fn a_node_of_one_family_never_needs_the_other_spelling() {
    let mut annotations = announced(&ByFamily { v4: Some(v4()), v6: None });
    announce(&mut annotations, &ByFamily { v4: Some(vtep("3a:1f:00:00:00:01", "192.168.1.99")), v6: None });
    assert!(!annotations[&full("backend-data")].contains(' '));
}

#[test]
fn an_overwrite_is_copied_as_it_stands() {
    let mut annotations = announced(&both());
    annotations.insert(full("public-ip-overwrite"), "203.0.113.7".into());
    annotations.insert(full("public-ipv6-overwrite"), "2001:DB8::7".into());
    announce(&mut annotations, &both());
    assert_eq!(annotations[&full("public-ip")], "203.0.113.7");
    assert_eq!(annotations[&full("public-ipv6")], "2001:DB8::7", "as flannel copies it");
    assert_eq!(announce(&mut annotations, &both()), Vec::<String>::new());
    annotations.remove(&full("public-ip-overwrite"));
    announce(&mut annotations, &both());
    assert_eq!(annotations[&full("public-ip")], "192.168.1.11", "honoured while it is there");
}

#[test]
fn an_overwrite_that_is_no_address_is_ignored() {
    let mut annotations = announced(&both());
    annotations.insert(full("public-ip-overwrite"), "127.0.0.1".into());
    assert_eq!(announce(&mut annotations, &both()), Vec::<String>::new());
}

fn host_gw() -> ByFamily<Option<Place>> {
    let place = |ip: &str| Some(Place { vtep: None, public_ip: ip.parse().unwrap() });
    ByFamily { v4: place("192.168.1.11"), v6: place("2001:db8::11") }
}

/// flannel's host-gw writes these, with the JSON of no data at all.
#[test]
fn host_gw_announces_what_flannels_does() {
    let annotations = announced(&host_gw());
    let expected = [
        ("backend-data", "null"),
        ("backend-type", "host-gw"),
        ("backend-v6-data", "null"),
        ("kube-subnet-manager", "true"),
        ("public-ip", "192.168.1.11"),
        ("public-ipv6", "2001:db8::11"),
    ];
    assert_eq!(annotations, expected.map(|(key, value)| (full(key), value.to_owned())).into_iter().collect());
}

#[test]
fn a_change_of_the_backend_replaces_everything_but_the_addresses_and_is_heard() {
    let mut annotations = announced(&both());
    for (places, backend) in [(host_gw(), "host-gw"), (both(), "vxlan")] {
        let before = annotations.clone();
        announce(&mut annotations, &places);
        assert_eq!(annotations[&full("backend-type")], backend);
        assert!(flanneld_hears(&before, &annotations), "{before:#?} {annotations:#?}");
        assert_eq!(announce(&mut annotations, &places), Vec::<String>::new(), "once is enough");
    }
    // A running flanneld hears of a change of one family, though the other has nothing that could differ.
    let mut annotations = announced(&host_gw());
    for last in [12, 13, 14] {
        let mut places = host_gw();
        places.v4 = Some(Place { vtep: None, public_ip: [192, 168, 1, last].into() });
        let before = annotations.clone();
        announce(&mut annotations, &places);
        assert!(flanneld_hears(&before, &annotations), "{before:#?} {annotations:#?}");
        assert_eq!(announce(&mut annotations, &places), Vec::<String>::new(), "no to and fro");
    }
}
