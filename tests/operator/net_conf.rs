//! `net-conf.json` as it stands in clusters, and as people get it wrong.

use std::path::Path;

use weft::config::netconf::{NetConf, NetConfError, parse};
use weft::model::{Backend, Overlay};

fn fixture(name: &str) -> NetConf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/net-conf").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// One line for what matters.
fn summary(overlay: &Overlay) -> String {
    let network =
        |network: Option<weft::model::Subnet>| network.map_or("off".to_owned(), |network| network.to_string());
    let Overlay { networks, backend, vni, port, mtu, gbp, learning, direct_routing } = overlay;
    format!(
        "{} {}{} vni {vni} port {port} mtu {mtu:?} gbp {gbp} learning {learning}{}",
        network(networks.v4),
        network(networks.v6),
        if *backend == Backend::HostGw { " host-gw" } else { "" },
        if *direct_routing { " direct" } else { "" }
    )
}

#[test]
fn files_of_real_clusters_are_understood() {
    for (name, expected, notices) in [
        ("kubeadm.json", "10.244.0.0/16 off vni 1 port 8472 mtu None gbp false learning false", 0),
        ("k3s.json", "10.42.0.0/16 off vni 1 port 8472 mtu None gbp false learning false", 0),
        ("k3s-dual-stack.json", "10.42.0.0/16 2001:db8:42::/56 vni 1 port 8472 mtu None gbp false learning false", 0),
        ("k3s-ipv6-only.json", "off 2001:db8:42::/56 vni 1 port 8472 mtu None gbp false learning false", 0),
        ("rke2-canal.json", "10.42.0.0/16 off vni 1 port 8472 mtu None gbp false learning false", 0),
        ("canal-pre-2019.json", "192.168.0.0/16 off vni 1 port 8472 mtu None gbp false learning false", 0),
        ("talos.json", "10.244.0.0/16 off vni 1 port 4789 mtu None gbp false learning false", 0),
        ("windows.json", "10.244.0.0/16 off vni 4096 port 4789 mtu None gbp false learning false", 2),
        ("etcd-leftovers.json", "10.0.0.0/8 off vni 100 port 8472 mtu Some(9000) gbp true learning true", 3),
        ("helm-dual-stack.json", "10.244.0.0/16 fd00:10:244::/48 vni 1 port 8472 mtu None gbp false learning false", 1),
    ] {
        let conf = fixture(name);
        assert_eq!(summary(&conf.overlay), expected, "{name}");
        assert_eq!(conf.notices.len(), notices, "{name}: {:?}", conf.notices);
    }
}

#[test]
fn every_fixture_is_read_by_a_test() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/net-conf");
    let here = include_str!("net_conf.rs");
    for file in std::fs::read_dir(dir).expect("the fixtures") {
        let name = file.expect("an entry").file_name().into_string().expect("UTF-8");
        assert!(here.contains(&format!("\"{name}\"")), "{name} is not tested");
    }
}

#[test]
fn keys_match_whatever_their_case_and_the_last_one_wins() {
    let conf = parse(
        r#"{"network": "10.1.0.0/16", "NETWORK": "10.2.0.0/16", "bac\u212aend": {"TYPE": "host-gw"},
            "BACKEND": {"tYPE": "VxLan", "vni": 7, "VNI": null, "GBP": true, "gbp": false}}"#,
    )
    .expect("understood");
    assert_eq!(summary(&conf.overlay), "10.2.0.0/16 off vni 7 port 8472 mtu None gbp false learning false");
    assert_eq!(
        conf.notices,
        [
            "Network is given 2 times; the last one counts",
            "Backend is given 2 times; the last one counts",
            "Backend.GBP is given 2 times; the last one counts",
        ]
    );
}

#[test]
fn host_gw_has_no_settings_but_the_vni_of_the_device_of_before() {
    let conf = parse(
        r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "Host-GW", "VNI": 4096, "Port": "any", "MTU": 9000,
            "DirectRouting": true}}"#,
    )
    .expect("understood");
    assert_eq!(
        summary(&conf.overlay),
        "10.244.0.0/16 off host-gw vni 4096 port 8472 mtu None gbp false learning false"
    );
    let ignored = ["Port", "MTU", "DirectRouting"]
        .map(|key| format!("Backend.{key} is not a setting of the host-gw backend; it is ignored"));
    assert_eq!(conf.notices, ignored);
}

#[test]
fn what_is_ignored_is_said() {
    let conf = parse(
        r#"{"Network": "10.244.0.0/16", "SubnetLen": 24, "EnableNFTables": true, "Colour": "red",
            "Backend": {"Type": "vxlan", "PSK": "x", "MacPrefix": "0E-2A"}}"#,
    )
    .expect("understood");
    assert_eq!(
        conf.notices,
        [
            "SubnetLen has no effect: a node's pod CIDR comes from its Node object",
            "EnableNFTables has no effect: weft's packet rules are always of nftables, and --ip-masq turns them on",
            "Colour is not a setting that weft knows; it is ignored",
            "Backend.MacPrefix is for Windows nodes; it is ignored here",
            "Backend.PSK is not a setting of the vxlan backend; it is ignored",
        ]
    );
    let conf = parse(r#"{"Network": "10.244.0.0/16"}"#).expect("understood");
    assert_eq!(conf.notices, [r#"Backend is missing; weft takes it as {"Type": "vxlan"} (flannel would use udp)"#]);
}

#[test]
fn a_mistake_is_named_with_its_value_and_what_is_allowed() {
    let backend = |members: &str| format!(r#"{{"Network": "10.244.0.0/16", "Backend": {{"Type": "vxlan"{members}}}}}"#);
    let cidr = "allowed is an IPv4 CIDR such as \"10.244.0.0/16\", of unicast addresses";
    let vni = "allowed is a whole number from 0 to 16777215";
    for (text, expected) in [
        (String::new(), "line 1, column 0: EOF while parsing a value".to_owned()),
        ("{\n  \"Network\": \"10.244.0.0/16\",\n}".to_owned(), "line 3, column 1: trailing comma".to_owned()),
        ("{}{}".to_owned(), "line 1, column 3: trailing characters".to_owned()),
        ("[1]".to_owned(), "the file holds [1]; an object with \"Network\" and \"Backend\" is expected".to_owned()),
        ("{}".to_owned(), "Network is missing: it is the IPv4 pod network, and EnableIPv4 is true unless set to false".to_owned()),
        (r#"{"Network": ""}"#.to_owned(), "Network is missing: it is the IPv4 pod network, and EnableIPv4 is true unless set to false".to_owned()),
        (r#"{"Network": "10.244.0.0"}"#.to_owned(), format!("Network is \"10.244.0.0\"; {cidr}")),
        (r#"{"Network": "fd00::/56"}"#.to_owned(), format!("Network is \"fd00::/56\"; {cidr}")),
        (r#"{"Network": "0.0.0.0/0"}"#.to_owned(), format!("Network is \"0.0.0.0/0\"; {cidr}")),
        (r#"{"Network": "224.0.0.0/8"}"#.to_owned(), format!("Network is \"224.0.0.0/8\"; {cidr}")),
        (r#"{"Network": 10}"#.to_owned(), format!("Network is 10; {cidr}")),
        (r#"{"Network": {}}"#.to_owned(), format!("Network is an object; {cidr}")),
        (
            r#"{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "10.0.0.0/8"}"#.to_owned(),
            "IPv6Network is \"10.0.0.0/8\"; allowed is an IPv6 CIDR such as \"fd00:10:244::/56\", of unicast addresses".to_owned(),
        ),
        (
            r#"{"Network": "10.244.0.0/16", "EnableIPv6": true}"#.to_owned(),
            "IPv6Network is missing: it is the IPv6 pod network, and EnableIPv6 is true".to_owned(),
        ),
        (r#"{"EnableIPv4": false}"#.to_owned(), "EnableIPv4 and EnableIPv6 are both false; at least one must be true".to_owned()),
        (r#"{"EnableIPv4": "true"}"#.to_owned(), "EnableIPv4 is \"true\"; allowed is true or false, without quotes".to_owned()),
        (r#"{"Network": "10.244.0.0/16", "EnableNFTables": 1}"#.to_owned(), "EnableNFTables is 1; allowed is true or false, without quotes".to_owned()),
        (
            r#"{"Network": "10.244.0.0/16", "Backend": "vxlan"}"#.to_owned(),
            "Backend is \"vxlan\"; allowed is an object such as {\"Type\": \"vxlan\"}".to_owned(),
        ),
        (
            r#"{"Network": "10.244.0.0/16", "Backend": {"VNI": 1}}"#.to_owned(),
            "Backend.Type is missing: a Backend must say what it is; weft knows \"vxlan\" and \"host-gw\"".to_owned(),
        ),
        (r#"{"Network": "10.244.0.0/16", "Backend": {"Type": 1}}"#.to_owned(), "Backend.Type is 1; allowed is \"vxlan\" or \"host-gw\"".to_owned()),
        (
            r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "wireguard"}}"#.to_owned(),
            "Backend.Type is \"wireguard\"; weft has \"vxlan\" and \"host-gw\": a cluster on another backend stays with flannel".to_owned(),
        ),
        (backend(r#", "VNI": 16777216"#), format!("Backend.VNI is 16777216; {vni}")),
        (backend(r#", "VNI": -1"#), format!("Backend.VNI is -1; {vni}")),
        (backend(r#", "VNI": 1.5"#), format!("Backend.VNI is 1.5; {vni}")),
        (backend(r#", "VNI": "1""#), format!("Backend.VNI is \"1\"; {vni}")),
        (backend(r#", "VNI": 1e400"#), "line 1, column 70: number out of range".to_owned()),
        (backend(r#", "Port": 65536"#), "Backend.Port is 65536; allowed is a whole number from 0 to 65535, 0 meaning 8472".to_owned()),
        (
            backend(r#", "MTU": 0"#),
            "Backend.MTU is 0; allowed is a whole number from 118 to 65535 (the underlay's MTU, before VXLAN's 50 bytes)".to_owned(),
        ),
        (backend(r#", "GBP": "yes""#), "Backend.GBP is \"yes\"; allowed is true or false, without quotes".to_owned()),
        (backend(r#", "Learning": 1"#), "Backend.Learning is 1; allowed is true or false, without quotes".to_owned()),
        (backend(r#", "DirectRouting": 1"#), "Backend.DirectRouting is 1; allowed is true or false, without quotes".to_owned()),
    ] {
        assert_eq!(parse(&text).map_err(|error| error.to_string()), Err(expected), "{text}");
    }
    let v6 = parse(
        r#"{"EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fd00::/56", "Backend": {"Type": "vxlan", "MTU": 1349}}"#,
    );
    let sentence =
        "Backend.MTU is 1349; allowed is a whole number from 1350 to 65535 (IPv6 needs 1280 after VXLAN's 70 bytes)";
    assert_eq!(v6.map_err(|error| error.to_string()), Err(sentence.to_owned()));
}

#[test]
fn a_long_wrong_value_is_shortened() {
    let long = format!(r#"{{"Network": "{}"}}"#, "é".repeat(500));
    match parse(&long) {
        Err(NetConfError::Value { value, .. }) => assert!(value.chars().count() <= 61, "{value}"),
        other => panic!("{other:?}"),
    }
}
