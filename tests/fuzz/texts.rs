//! Texts: files, flags, annotations, Node objects.

use clap::{CommandFactory, Parser};
use weft::cluster::annotations::{Keys, parse_backend_data, parse_public_ip};
use weft::cluster::event::Event;
use weft::cluster::peers::{Peers, Seen, Viewpoint};
use weft::cluster::wire::{Page, SlimNode};
use weft::config::argv::normalise;
use weft::config::flags::Argv;
use weft::config::netconf;
use weft::config::values;
use weft::model::addr::{Family, Mac, Subnet, Vni};
use weft::model::node::Standing;
use weft::node::subnet_env;

use crate::fuzz;

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn net_conf() {
    let seeds: [&[u8]; 5] = [
        include_bytes!("../fixtures/net-conf/etcd-leftovers.json"),
        include_bytes!("../fixtures/net-conf/helm-dual-stack.json"),
        include_bytes!("../fixtures/net-conf/k3s-ipv6-only.json"),
        include_bytes!("../fixtures/net-conf/windows.json"),
        br#"{"Network": null, "Backend": [[[[[[[[[[]]]]]]]]]]}"#,
    ];
    let words = [
        "true",
        "false",
        "null",
        "\"vxlan\"",
        "\"Backend\":",
        "\"EnableIPv6\":true,",
        "\"10.0.0.0/8\"",
        "fd00::/8",
        "[",
        "{",
    ];
    fuzz(&seeds, &words, |bytes| match netconf::parse(&lossy(bytes)) {
        Ok(conf) => {
            let overlay = conf.overlay;
            assert!(overlay.families().next().is_some() && overlay.port != 0, "{overlay:?}");
            for (family, network) in overlay.networks.iter() {
                assert!(network.is_none_or(|network| network.family() == family && !network.is_default()));
            }
        }
        Err(error) => assert!((5..600).contains(&error.to_string().len()), "{error}"),
    });
}

#[test]
fn subnet_env() {
    let seeds: [&[u8]; 2] = [
        b"FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n",
        b"FLANNEL_NETWORK=10.42.0.0/16,10.43.0.0/16\nFLANNEL_SUBNET=10.42.0.1/24\nFLANNEL_IPV6_NETWORK=fd00:42::/56\n\
          FLANNEL_IPV6_SUBNET=fd00:42::1/64\nFLANNEL_MTU=1430\nFLANNEL_IPMASQ=false\n",
    ];
    let words = ["FLANNEL_MTU=", "FLANNEL_IPMASQ=", "true", "false", "::", "/32", "/128", "\n"];
    fuzz(&seeds, &words, |bytes| {
        if let Ok(env) = subnet_env::parse(&lossy(bytes)) {
            let again = subnet_env::parse(&env.to_string());
            assert_eq!(again.as_ref(), Ok(&env));
        }
    });
}

#[test]
fn command_line() {
    let seeds: [&[u8]; 4] = [
        b"run\n--node-name=a\n--iface\neth0\n--iface-regex=^10\\.\n--healthz-port=8081\n--resync-period=2m",
        b"--ip-masq\n--kube-subnet-mgr\n-iface=eth0\n-v\n4\n--public-ip=192.0.2.1\n--public-ipv6=fd00::1",
        b"plan\n--nodes\n-\n--node-name=a\n--kube-annotation-prefix=a.b/c",
        b"lab\n--nodes=4\n--dual-stack\n--hold",
    ];
    let words = ["\n", "--", "-", "=", "--help", "--log-format=json", "--kube-api-url=https://[::1]:6443"];
    let cli = Argv::command();
    let no_env = std::collections::BTreeMap::new();
    fuzz(&seeds, &words, |bytes| {
        let args: Vec<String> = lossy(bytes).split('\n').map(str::to_owned).collect();
        if let Ok(normal) = normalise(&args, &no_env, &cli) {
            let _ = Argv::try_parse_from(std::iter::once("weft".to_owned()).chain(normal.args));
        }
    });
}

#[test]
fn flag_values() {
    let seeds: [&[u8]; 7] = [
        b"a-1.example",
        b"https://[fd00::1]:6443/x",
        b"flannel.alpha.coreos.com/x",
        b"eth0.100",
        b"(^a|b+)$",
        b"90m",
        b"fd00::1",
    ];
    fuzz(&seeds, &["::", ".", "/", "-", "h", "(", "*"], |bytes| {
        let text = lossy(bytes);
        let _ = (values::node_name(&text), values::api_url(&text), values::interface(&text), values::regex(&text));
        let _ = (values::address(&text), values::period(&text));
        if let Ok(prefix) = values::annotation_prefix(&text) {
            assert_eq!(values::annotation_prefix(&prefix).as_ref(), Ok(&prefix), "completing it twice changes it");
        }
    });
}

#[test]
fn addresses_and_annotations() {
    let seeds: [&[u8]; 7] = [
        br#"{"VNI":1,"VtepMAC":"3a:1f:00:00:00:01"}"#,
        br#"{"VtepMAC":"3a-1f-00-00-00-01"}"#,
        b"192.0.2.1",
        b"2001:db8::1",
        b"10.244.1.0/24",
        b"fd00:10:244:1::/64",
        b"3a:1f:00:00:00:01",
    ];
    fuzz(&seeds, &["VtepMAC", "vni", "::ffff:", "/0", "/128", "00:", "%eth0"], |bytes| {
        let text = lossy(bytes);
        if let Ok(data) = parse_backend_data(&text) {
            assert!(data.mac.is_vtep(), "{data:?}");
        }
        for family in Family::BOTH {
            assert!(parse_public_ip(family, &text).map_or(true, |ip| Family::of(ip) == family));
        }
        if let Ok(subnet) = text.parse::<Subnet>() {
            assert_eq!(subnet.to_string().parse(), Ok(subnet));
            assert!(subnet.contains(subnet.base()) && subnet.contains(subnet.last()));
        }
        if let Ok(mac) = text.parse::<Mac>() {
            assert_eq!(mac.to_string().parse(), Ok(mac));
        }
    });
}

const NODE: &str = r#"{"kind":"Node","metadata":{"name":"b","uid":"u","resourceVersion":"7",
    "creationTimestamp":"2024-01-02T03:04:05Z","annotations":{"flannel.alpha.coreos.com/kube-subnet-manager":"true",
    "flannel.alpha.coreos.com/backend-type":"vxlan","flannel.alpha.coreos.com/public-ip":"192.0.2.2",
    "flannel.alpha.coreos.com/backend-data":"{\"VNI\":1,\"VtepMAC\":\"3a:1f:00:00:00:02\"}"}},
    "spec":{"podCIDR":"10.244.2.0/24","podCIDRs":["10.244.2.0/24","fd00:2::/64"]}}"#;
const NODE_WORDS: [&str; 10] = [
    "null",
    "[]",
    "{}",
    "\"\"",
    "\"podCIDRs\":",
    "\"name\":",
    "\"annotations\":",
    "true",
    "\\u0000",
    "\"kind\":\"List\",",
];

fn view() -> Viewpoint {
    Viewpoint { own: "a".into(), vni: Vni::new(1) }
}

/// What a record promises.
fn check(seen: &Seen) {
    let Seen::Other(node) = seen else { return };
    for (family, standing) in node.standing.iter() {
        if let Standing::Usable(peer) = standing {
            assert!(
                peer.mac.is_some_and(Mac::is_vtep)
                    && peer.subnet.family() == family
                    && Family::of(peer.public_ip) == family
            );
        }
    }
}

#[test]
fn node() {
    let keys = Keys::new("flannel.alpha.coreos.com").expect("a prefix");
    let own = NODE.replace("\"b\"", "\"a\"");
    fuzz(&[NODE.as_bytes(), own.as_bytes()], &NODE_WORDS, |bytes| {
        if let Ok(node) = SlimNode::read(&keys, bytes) {
            check(&view().see(&node));
        }
    });
}

#[test]
fn node_list() {
    let keys = Keys::new("flannel.alpha.coreos.com").expect("a prefix");
    let list =
        format!(r#"{{"kind":"NodeList","metadata":{{"resourceVersion":"9","continue":"x"}},"items":[{NODE},{NODE}]}}"#);
    fuzz(&[list.as_bytes(), br#"{"kind":"List","items":null}"#], &NODE_WORDS, |bytes| {
        let _ = Page::read(&keys, bytes);
        let Ok(page) = Page::read_file(&keys, bytes) else { return };
        let mut peers = Peers::default();
        peers.begin();
        for node in &page.items.nodes {
            let seen = view().see(node);
            check(&seen);
            peers.apply(seen);
        }
        let _nameless = peers.swap();
        assert!(peers.snapshot().nodes.len() <= page.items.nodes.len());
    });
}

#[test]
fn watch_event() {
    let keys = Keys::new("flannel.alpha.coreos.com").expect("a prefix");
    let added = format!(r#"{{"type":"ADDED","object":{NODE}}}"#);
    let seeds: [&[u8]; 3] = [
        added.as_bytes(),
        br#"{"type":"BOOKMARK","object":{"kind":"Node","metadata":{"resourceVersion":"12"}}}"#,
        br#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}}"#,
    ];
    fuzz(&seeds, &NODE_WORDS, |bytes| {
        let _ = Event::read(&keys, bytes);
    });
}
