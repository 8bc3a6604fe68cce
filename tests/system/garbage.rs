//! A hundred kinds of nonsense in every annotation, and in the pod CIDRs: one node is affected, its rows are
//! held or go as the rules say, the reason is shown and counted, and no other row is touched.

use serde_json::{Value, json};

use crate::cluster::name;
use crate::stage::{Facts, SOON, Stage, annotate, difference, kernel};
use crate::world::within;

crate::tests![
    nonsense_in_annotations_harms_nobody_else,
    nonsense_in_pod_cidrs_harms_nobody_else,
    nodes_of_no_shape_at_all_harm_nobody,
];

/// Enough that the victims are less than a third.
const BYSTANDERS: u32 = 320;
const VICTIMS: u32 = BYSTANDERS + 1;

/// No annotation may have any of these values.
fn nonsense() -> Vec<Value> {
    let texts = [
        " ",
        "\n",
        "\0",
        "\u{feff}",
        "null",
        "nil",
        "None",
        "undefined",
        "NaN",
        "0",
        "1",
        "-1",
        "1e999",
        "true ",
        "TRUE",
        "yes",
        "[]",
        "{}",
        "{",
        "}",
        "[",
        "]",
        "\"",
        "'",
        "\\",
        "{}{}",
        "[{}]",
        "\"{}\"",
        "{{}}",
        "{\"\":\"\"}",
        "/",
        "../..",
        "%",
        "%s%n",
        "$(reboot)",
        "`id`",
        "; ip link del eth0",
        "<html>502</html>",
        "\u{1f9f6}",
        "é",
        "\u{202e}",
        "a\u{0}b",
        "0x7f",
        "127.0.0.1",
        "::1",
        "0.0.0.0",
        "::",
        "255.255.255.255",
        "224.0.0.1",
        "ff02::1",
        "169.254.1.1",
        "fe80::1",
        "fe80::1%eth0",
        "1.2.3",
        "1.2.3.4.5",
        "01.02.03.04",
        "1.2.3.256",
        "1.2.3.4/24",
        "fd00::1/64",
        "1.2.3.4:8472",
        "[fd00::1]",
        "localhost",
        "node-1",
        "example.com",
        " 172.16.3.3",
        "172.16.3.3 ",
        "172.16.3.3,172.16.3.4",
        "fd00:174::1::2",
        ":::",
        "12345::1",
        "vxlan ",
        "VXLAN",
        "vx-lan",
        "host-gw",
        "udp",
        r#"{"VNI":1}"#,
        r#"{"VtepMAC":""}"#,
        r#"{"VtepMAC":null}"#,
        r#"{"VtepMAC":5}"#,
        r#"{"VtepMAC":[]}"#,
        r#"{"VtepMAC":{}}"#,
        r#"{"VtepMAC":"00:00:00:00:00:00"}"#,
        r#"{"VtepMAC":"ff:ff:ff:ff:ff:ff"}"#,
        r#"{"VtepMAC":"01:00:5e:00:00:01"}"#,
        r#"{"VtepMAC":"0e:00:00:00:00"}"#,
        r#"{"VtepMAC":"0e:00:00:00:00:01:02"}"#,
        r#"{"VtepMAC":"0e:00:00:00:00:01:02:03"}"#,
        r#"{"VtepMAC":"0e:00:00:00:00:0g"}"#,
        r#"{"VtepMAC":"0e:00:00:00:00:1"}"#,
        r#"{"VtepMAC":"0e00000000001"}"#,
        r#"{"VtepMAC":" 0e:00:00:00:00:01"}"#,
        r#"{"VtepMAC":"0e:00-00:00:00:01"}"#,
        r#"{"VNI":2,"VtepMAC":"0e:00:00:00:00:01"}"#,
        r#"{"VNI":-1,"VtepMAC":"0e:00:00:00:00:01"}"#,
        r#"{"VNI":1.5,"VtepMAC":"0e:00:00:00:00:01"}"#,
        r#"{"VNI":"1","VtepMAC":"0e:00:00:00:00:01"}"#,
        r#"{"VNI":[1],"VtepMAC":"0e:00:00:00:00:01"}"#,
        r#"{"VNI":99999999999999999999,"VtepMAC":"0e:00:00:00:00:01"}"#,
        r#"{"VNI":18446744073709551615,"VtepMAC":"0e:00:00:00:00:01"}"#,
        r#"{"VNI":1,"VtepMAC":"0e:00:00:00:00:01""#,
        r#"{"VNI":1,"VtepMAC":"0e:00:00:00:00:01"}}"#,
        r#"{"VNI":1,"VtepMAC":"0e:00:00:00:00:01"} x"#,
        r"{'VNI':1,'VtepMAC':'0e:00:00:00:00:01'}",
        r#"[{"VNI":1,"VtepMAC":"0e:00:00:00:00:01"}]"#,
    ];
    let long = ["x".repeat(200_000), "[".repeat(100_000), "{\"a\":".repeat(5000), "9".repeat(5000), "1.".repeat(5000)];
    let shapes = [json!(5), json!(1.5), json!(false), json!([]), json!([[["vxlan"]]]), json!({ "a": { "b": [] } })];
    texts.iter().map(|text| Value::from(*text)).chain(long.map(Value::from)).chain(shapes).collect()
}

fn nonsense_in_annotations_harms_nobody_else() {
    let nonsense = nonsense();
    let count = u32::try_from(nonsense.len()).expect("some");
    assert!(count >= 100, "{count} kinds");
    let mut stage = Stage::with_peers(BYSTANDERS + count);
    let all = stage.rows();
    for (annotation, label, family) in [
        ("kube-subnet-manager", None, None),
        ("backend-type", None, None),
        ("backend-data", Some("bad_annotation"), Some(0)),
        ("backend-v6-data", Some("bad_annotation"), Some(1)),
        ("public-ip", Some("bad_annotation"), Some(0)),
        ("public-ipv6", Some("bad_annotation"), Some(1)),
    ] {
        let mut numbers = VICTIMS..;
        for value in &nonsense {
            let victim = name(numbers.next().expect("a number"));
            stage.world.api.patch_node(&victim, annotate(annotation, value.clone())).expect("a victim");
        }
        match (label, family) {
            (Some(label), Some(family)) => {
                // They mean to take part: what was installed for their pod CIDRs is held. A wrong VNI is counted as
                // what it is.
                let of_this_family = ["ipv4", "ipv6"][family];
                within(SOON, annotation, || {
                    let (bad, other) = (
                        stage.counted("weft_peers_unusable", family, label),
                        stage.counted("weft_peers_unusable", family, "vni_mismatch"),
                    );
                    if bad + other == f64::from(count) { Ok(()) } else { Err((bad, other)) }
                });
                let state = stage.world.agent().state();
                for number in VICTIMS..VICTIMS + count {
                    let shown = &state["families"][of_this_family]["peers"][&name(number)];
                    let because = shown["because"].as_str().unwrap_or_default();
                    assert_eq!(shown["state"], "unusable", "{number}: {shown}");
                    assert!(because.contains(annotation) || because.contains("VNI"), "{shown}");
                    assert!(because.chars().count() < 400, "a reason of {} characters", because.chars().count());
                    let other = &state["families"][["ipv6", "ipv4"][family]]["peers"][&name(number)];
                    assert_eq!(other["state"], "installed", "{number}: {other}");
                }
                stage.settled_with(annotation, all.clone());
            }
            // They opted out.
            _ => {
                (0..count).for_each(|at| drop(stage.peers.remove(&(VICTIMS + at))));
                stage.settled(annotation);
                stage.shown(VICTIMS, [("absent", annotation); 2]);
            }
        }
        (VICTIMS..VICTIMS + count).for_each(|number| stage.put(number, Facts::of(number)));
        within(SOON, "reason", || {
            let state = stage.world.agent().metrics().sum("weft_peers", &[("state", "installed")]);
            if state == f64::from(2 * (BYSTANDERS + count)) { Ok(()) } else { Err(state) }
        });
        stage.settled(&format!("{annotation} is right again"));
    }
    let log = stage.world.agent().log();
    assert!(log.iter().all(|line| line.len() < 4000), "a line of the log is as long as the nonsense");
}

fn nonsense_in_pod_cidrs_harms_nobody_else() {
    let specs = [
        json!(null),
        json!(5),
        json!("10.241.0.0/24"),
        json!([]),
        json!({ "podCIDR": "" }),
        json!({ "podCIDR": "10.241.0.0" }),
        json!({ "podCIDR": "10.241.0.0/33" }),
        json!({ "podCIDR": "10.241.0.0/-1" }),
        json!({ "podCIDR": "10.241.0.0/ 24" }),
        json!({ "podCIDR": "10.241.0.0/024" }),
        json!({ "podCIDR": "10.241.0/24" }),
        json!({ "podCIDR": "tomorrow" }),
        json!({ "podCIDR": ["10.241.0.0/24"] }),
        json!({ "podCIDR": { "a": 1 } }),
        json!({ "podCIDRs": "10.241.0.0/24" }),
        json!({ "podCIDRs": [null] }),
        json!({ "podCIDRs": [5, {}] }),
        json!({ "podCIDRs": [[["10.241.0.0/24"]]] }),
        json!({ "podCIDRs": ["", ""] }),
        json!({ "podCIDRs": ["/24", "/64"] }),
        json!({ "podCIDRs": ["0.0.0.0/0", "::/0"] }),
        json!({ "podCIDRs": ["10.241.0.0/24/24", "fd00:10:240:1000::/64/64"] }),
        json!({ "podCIDRs": ["fd00:10:240:1000::/129"] }),
        json!({ "podCIDRs": ["10.241.0.0/24", "10.241.1.0/24", "10.241.2.0/24"] }),
        json!({ "podCIDRs": vec!["10.241.0.0/24"; 1000] }),
        json!({ "podCIDRs": ["127.0.0.0/8", "::1/128"] }),
        json!({ "podCIDRs": ["224.0.0.0/4", "ff00::/8"] }),
        json!({ "podCIDRs": ["169.254.0.0/16", "fe80::/10"] }),
    ];
    let count = u32::try_from(specs.len()).expect("some");
    let mut stage = Stage::with_peers(3 * count);
    for (number, spec) in (1000..).zip(&specs) {
        let mut node = Facts::of(number).node(number);
        node["spec"] = spec.clone();
        stage.world.api.put_node(node);
    }
    within(SOON, "all of them are seen", || {
        let nodes = stage.world.agent().metrics().sum("weft_nodes", &[]);
        if nodes == f64::from(4 * count + 1) { Ok(()) } else { Err(nodes) }
    });
    let state = stage.world.agent().state();
    for (number, spec) in (1000..).zip(&specs) {
        for family in ["ipv4", "ipv6"] {
            let shown = &state["families"][family]["peers"][&name(number)];
            let said = ["absent", "unusable", "rejected"].map(Value::from).contains(&shown["state"])
                && !shown["because"].as_str().unwrap_or_default().is_empty();
            assert!(said, "{spec}: {shown}");
        }
    }
    stage.settled("nonsense in pod CIDRs");
}

fn nodes_of_no_shape_at_all_harm_nobody() {
    let mut stage = Stage::with_peers(5);
    for (at, node) in [
        json!({ "metadata": { "name": "a", "annotations": [] } }),
        json!({ "metadata": { "name": "b", "annotations": null }, "spec": null, "status": 7 }),
        json!({ "metadata": { "name": "c", "annotations": "x", "uid": 5, "creationTimestamp": {} }, "spec": [] }),
        json!({ "metadata": { "name": "d", "creationTimestamp": "0000-00-00T99:99:99Z", "resourceVersion": [] } }),
        json!({ "metadata": { "name": "e".repeat(253) }, "spec": "x".repeat(100_000) }),
    ]
    .into_iter()
    .enumerate()
    {
        stage.world.api.put_node(node);
        within(SOON, "it is seen", || {
            let nodes = stage.world.agent().metrics().sum("weft_nodes", &[]);
            if nodes >= f64::from(7 + u32::try_from(at).expect("few")) { Ok(()) } else { Err(nodes) }
        });
    }
    stage.settled("Nodes of no shape");
    // A node whose age cannot be read is the newest: it takes nothing from anybody.
    let mut thief = Facts::of(1).node(900);
    thief["metadata"]["creationTimestamp"] = "yesterday".into();
    stage.world.api.put_node(thief);
    stage.shown(900, [("rejected", "node-1"); 2]);
    stage.settled("a thief without an age");
    difference(&kernel(), &stage.rows()).expect("the tables");
}
