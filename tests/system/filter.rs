//! The packet filter: flannel's masquerading in a table of weft's own, and who may send VXLAN.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use weft::lab::netns::Namespace;

use crate::cluster::{NETWORKS, pod_cidrs, public_ips};
use crate::sandbox::{eventually, json, sh, try_sh};
use crate::world::{UNDERLAY, World, within};

crate::tests![
    the_table_is_flannels_rules_and_subnet_env_follows,
    a_restart_writes_nothing_into_the_filter,
    whatever_becomes_of_the_table_it_heals,
    tables_of_others_stay,
    without_masquerading_there_is_no_table,
    a_stranger_is_delivered_where_the_filter_is_off,
    a_stranger_is_counted_in_audit,
    a_stranger_is_dropped_in_enforce,
    an_element_for_everybody_goes_and_nothing_is_counted_twice,
];

/// A node with three peers and an agent with these arguments.
pub(crate) fn start(arguments: &[&str]) -> World {
    let mut world = World::with_peers(3);
    world.arguments.extend(arguments.iter().map(ToString::to_string));
    world.start();
    world
}

fn list(family: &str) -> Option<String> {
    try_sh(&format!("nft -s list table {family} weft")).ok()
}

fn both() -> [Option<String>; 2] {
    [list("ip"), list("ip6")]
}

fn the_table_is_flannels_rules_and_subnet_env_follows() {
    let world = start(&["--ip-masq", "--ip-masq-exclude=192.0.2.0/24"]);
    let pods = pod_cidrs(0);
    let [v4, v6] = both().map(|table| table.expect("a table"));
    let [net4, net6] = NETWORKS;
    let rules = |text: &str| -> Vec<String> {
        let rules = text.lines().map(str::trim).filter(|line| line.contains("comment"));
        rules.map(|line| line.split(" comment").next().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(
        rules(&v4),
        [
            "meta mark & 0x00004000 == 0x00004000 return".to_owned(),
            format!("ip saddr {} ip daddr {net4} return", pods[0]),
            format!("ip saddr {net4} ip daddr {} return", pods[0]),
            format!("ip saddr != {net4} ip daddr {} return", pods[0]),
            format!("ip saddr {net4} ip daddr 192.0.2.0/24 return"),
            format!("ip saddr {net4} ip daddr != 224.0.0.0/4 masquerade fully-random"),
            format!("ip saddr != {net4} ip daddr {net4} masquerade fully-random"),
        ],
        "{v4}"
    );
    assert!(v4.contains("type nat hook postrouting priority srcnat + 1"), "{v4}");
    assert_eq!(rules(&v6).len(), 6, "{v6}");
    assert!(rules(&v6).contains(&format!("ip6 saddr {net6} ip6 daddr != ff00::/8 masquerade fully-random")), "{v6}");
    eventually("subnet.env says that weft masquerades", || {
        let file = std::fs::read_to_string(world.directory.join("subnet.env"));
        file.is_ok_and(|text| text.contains("FLANNEL_IPMASQ=true"))
    });
}

/// Both tables with the numbers that the kernel gave: whatever is made anew has another.
fn numbered() -> String {
    ["ip", "ip6"].map(|family| try_sh(&format!("nft -a list table {family} weft")).expect("a table")).concat()
}

fn a_restart_writes_nothing_into_the_filter() {
    let mut world = start(&["--ip-masq", "--vtep-filter=audit"]);
    let before = numbered();
    world.take_agent().terminate();
    world.start();
    assert_eq!(numbered(), before);
    let metrics = world.agent().metrics();
    assert_eq!(metrics.sum("weft_changes_total", &[("table", "filter")]), 0.0);
    assert_eq!(metrics.sum("weft_filter_in_place", &[]), 2.0);
}

fn whatever_becomes_of_the_table_it_heals() {
    let mut world = start(&["--ip-masq", "--vtep-filter=enforce"]);
    let right = both();
    let handle = |chain: &str, needle: &str| {
        let text = try_sh("nft -a list table ip weft").expect("a table");
        let chain = text.split(&format!("chain {chain} {{")).nth(1).expect("a chain").to_owned();
        let line = chain.lines().find(|line| line.contains(needle)).expect("a rule").to_owned();
        line.rsplit("handle ").next().expect("a handle").trim().to_owned()
    };
    let edit = || {
        let edited = "meta mark and 0x8000 == 0x8000 return comment \"weft: kube-proxy will masquerade it\"";
        format!("nft replace rule ip weft postrouting handle {} {edited}", handle("postrouting", "mark"))
    };
    let disturbances = [
        ("the ruleset flushed", "nft flush ruleset"),
        ("the table deleted", "nft delete table ip weft"),
        ("the other family's table deleted", "nft delete table ip6 weft"),
        ("a chain flushed", "nft flush chain ip weft postrouting"),
        ("a rule added", "nft add rule ip weft postrouting counter"),
        ("a rule put first", "nft insert rule ip weft postrouting accept"),
        ("a rule edited under its comment", ""),
        ("the set emptied", "nft flush set ip weft vteps"),
        ("an element added", "nft add element ip weft vteps { 203.0.113.7 }"),
        ("an element for every address", "nft add element ip weft vteps { * }"),
        ("an element for every stranger", "nft add element ip6 weft strangers { * }"),
        ("a chain added", "nft add chain ip weft more"),
        ("the table put to sleep", "nft add table ip weft { flags dormant ; }"),
    ];
    for (what, command) in disturbances {
        // A handle is another after each repair.
        let command = if command.is_empty() { edit() } else { command.to_owned() };
        let before = world.agent().metrics();
        sh(&command);
        let began = Instant::now();
        within(Duration::from_secs(20), what, || if both() == right { Ok(()) } else { Err(both()) });
        println!("filter, {what}: right again after {} ms", began.elapsed().as_millis());
        within(Duration::from_secs(20), "it is counted", || {
            let since = world.agent().metrics().since(&before);
            let counted = since.iter().any(|(key, more)| {
                key.starts_with("weft_repairs_total") && key.contains("table=\"filter\"") && *more > 0.0
            });
            if counted { Ok(()) } else { Err(since) }
        });
    }
    assert!(world.agent().runs());
}

fn tables_of_others_stay() {
    sh("nft add table ip admin
        nft add chain ip admin mine
        nft add rule ip admin mine counter
        nft add table inet weft
        nft add chain inet weft not_ours");
    let admin = || {
        try_sh("nft -a list table ip admin").expect("a table")
            + &try_sh("nft -a list table inet weft").expect("a table")
    };
    let before = admin();
    let mut world = start(&["--ip-masq"]);
    sh("nft delete table ip weft");
    within(Duration::from_secs(20), "the table is back", || list("ip").map(drop).ok_or("none"));
    assert_eq!(admin(), before);
    assert!(world.agent().runs());
}

fn without_masquerading_there_is_no_table() {
    let mut world = start(&["--ip-masq"]);
    assert!(list("ip").is_some());
    world.take_agent().terminate();
    assert!(list("ip").is_some(), "stopping takes nothing down");
    world.arguments.clear();
    world.start();
    within(Duration::from_secs(20), "the tables go", || if both() == [None, None] { Ok(()) } else { Err(both()) });
    let env = || std::fs::read_to_string(world.directory.join("subnet.env")).unwrap_or_default();
    within(Duration::from_secs(20), "subnet.env says so", || {
        if env().contains("FLANNEL_IPMASQ=false") { Ok(()) } else { Err(env()) }
    });
}

/// Bytes inside a frame: fits the underlay, or goes in two fragments.
const WHOLE: usize = 46;
const IN_FRAGMENTS: usize = 2000;

/// A VXLAN packet of our VNI, from whoever sends it: a broadcast frame that any device takes.
pub(crate) fn forged(dst_mac: &str, padding: usize) -> Vec<u8> {
    let mac: Vec<u8> = dst_mac.split(':').map(|byte| u8::from_str_radix(byte, 16).expect("hex")).collect();
    let mut packet = vec![0x08, 0, 0, 0, 0, 0, 1, 0];
    packet.extend(&mac);
    packet.extend([0x02, 0, 0, 0, 0, 0x99, 0x88, 0xb5]);
    packet.resize(packet.len() + padding, 0);
    packet
}

/// Sends from an address of the underlay's other end, and returns how many frames the device has got.
fn delivered(outside: &Namespace, from: IpAddr, dev: &str, mac: &str, padding: usize) -> u64 {
    let to = public_ips(0)[usize::from(from.is_ipv6())];
    let packet = forged(mac, padding);
    let send = || {
        let socket = UdpSocket::bind(SocketAddr::new(from, 0)).expect("a socket");
        for _ in 0..10 {
            socket.send_to(&packet, SocketAddr::new(to, 8472)).expect("to send");
        }
    };
    delivered_of(dev, || outside.run(send).expect("the namespace"))
}

/// How many frames a device gets while something is sent.
pub(crate) fn delivered_of(dev: &str, send: impl FnOnce()) -> u64 {
    let count = || {
        let link = json(&format!("ip -s -j link show {dev}"));
        link[0]["stats64"]["rx"]["packets"].as_u64().expect("a count")
    };
    let before = count();
    send();
    // A veth hands packets over in softirqs, which may still be under way.
    let mut last = count();
    eventually("no more come", || std::mem::replace(&mut last, count()) == last);
    last - before
}

fn a_stranger_is_delivered_where_the_filter_is_off() {
    a_stranger("off", 10, 0);
}

fn a_stranger_is_counted_in_audit() {
    a_stranger("audit", 10, 20);
}

fn a_stranger_is_dropped_in_enforce() {
    a_stranger("enforce", 0, 20);
}

fn a_stranger(mode: &str, delivered_of_ten: u64, counted: u64) {
    let mut world = start(&[&format!("--vtep-filter={mode}")]);
    let peer = public_ips(1);
    let strangers: [IpAddr; 2] = ["172.16.250.9", "fd00:174::bad"].map(|ip| ip.parse().expect("an address"));
    let outside = other_end([peer[0], strangers[0]], [peer[1], strangers[1]]);
    for (family, (dev, label)) in [("flannel.1", "ipv4"), ("flannel-v6.1", "ipv6")].into_iter().enumerate() {
        let mac = mac_of(dev);
        for (what, padding) in [("whole packets", WHOLE), ("packets in fragments", IN_FRAGMENTS)] {
            // Known VTEPs are heard in every mode; the first packets may wait for a neighbour.
            within(
                Duration::from_secs(20),
                &format!("{mode}: a peer is heard over {label}, {what}"),
                || match delivered(&outside, peer[family], dev, &mac, padding) {
                    10 => Ok(()),
                    other => Err(other),
                },
            );
            let got = delivered(&outside, strangers[family], dev, &mac, padding);
            assert_eq!(got, delivered_of_ten, "{mode}, {label}, {what}");
        }
        // A pass reads the counter.
        sh(&format!("ip link set dev {dev} mtu 1300"));
        within(Duration::from_secs(20), &format!("{mode}: counted over {label}"), || {
            match world.agent().metrics().count("weft_unknown_vtep_packets_total", &[("family", label)]) {
                count if count == counted => Ok(()),
                count => Err(count),
            }
        });
        let heard = world.agent().state()["families"][label]["packet_filter"]["strangers"].clone();
        assert_eq!(heard.as_array().expect("a list").len(), usize::from(counted > 0), "{heard}");
    }
}

fn an_element_for_everybody_goes_and_nothing_is_counted_twice() {
    let mut world = start(&["--ip-masq", "--vtep-filter=enforce"]);
    let (right, peer) = (both(), public_ips(1));
    let stranger: IpAddr = "172.16.250.9".parse().expect("an address");
    let outside = other_end([peer[0], stranger], [peer[1], "fd00:174::bad".parse().expect("an address")]);
    let mac = mac_of("flannel.1");
    let hear_a_peer = || match delivered(&outside, peer[0], "flannel.1", &mac, WHOLE) {
        10 => Ok(()),
        other => Err(other),
    };
    within(Duration::from_secs(20), "a peer is heard", hear_a_peer);
    let mut counted = |packets: u64| {
        assert_eq!(delivered(&outside, stranger, "flannel.1", &mac, WHOLE), 0);
        // A pass reads the counter.
        sh("ip link set dev flannel.1 mtu 1300");
        within(Duration::from_secs(20), "it is counted", || {
            match world.agent().metrics().count("weft_unknown_vtep_packets_total", &[("family", "ipv4")]) {
                count if count == packets => Ok(()),
                count => Err(count),
            }
        });
    };
    counted(10);
    sh("nft add element ip weft vteps { * }");
    within(Duration::from_secs(20), "the table is right again", || if both() == right { Ok(()) } else { Err(both()) });
    counted(20);
    let file = std::fs::read_to_string(world.directory.join("subnet.env")).expect("subnet.env");
    assert!(file.contains("FLANNEL_IPMASQ=true"), "{file}");
}

/// A device's MAC.
pub(crate) fn mac_of(dev: &str) -> String {
    json(&format!("ip -j link show {dev}"))[0]["address"].as_str().expect("a MAC").to_owned()
}

/// The other end of the underlay in a namespace of its own, with these addresses.
pub(crate) fn other_end(v4: [IpAddr; 2], v6: [IpAddr; 2]) -> Namespace {
    let outside = Namespace::new().expect("a namespace");
    let far = format!("{UNDERLAY}-far");
    // iproute2 wants a process that is in the namespace.
    let mut inside = outside.run(|| Command::new("sleep").arg("60").spawn()).expect("a thread").expect("sleep");
    sh(&format!("ip link set {far} netns {}", inside.id()));
    inside.kill().and_then(|()| inside.wait()).expect("to end it");
    outside
        .run(|| {
            sh(&format!("ip link set {far} up"));
            v4.iter().for_each(|ip| sh(&format!("ip address add {ip}/16 dev {far}")));
            v6.iter().for_each(|ip| sh(&format!("ip address add {ip}/64 dev {far} nodad")));
        })
        .expect("the namespace");
    eventually("the carrier", || json(&format!("ip -j link show {UNDERLAY}"))[0]["operstate"] == "UP");
    outside
}
