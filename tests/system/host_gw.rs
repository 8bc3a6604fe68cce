//! The host-gw backend on a real kernel: routes over the underlay and nothing else; from flannel's and back to
//! it, from VXLAN and back to it. And direct routes with VXLAN: from flannel's and back.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use weft::lab::netns::{Namespace, prepare};
use weft::lab::ping::{Stream, once};
use weft::model::table::peer_metric;

use crate::agent::binary;
use crate::cleanup::{cleanup, text};
use crate::cluster::{self, NETWORKS, OWN, macs, pod_cidrs, public_ips};
use crate::flannel;
use crate::sandbox::{json, sh, try_sh, underlay};
use crate::stage::annotate;
use crate::world::{DEVICES, UNDERLAY, World, add_default_routes, within};

crate::tests![
    a_node_has_a_route_to_each_peer_and_no_device,
    routes_heal_and_follow_the_underlay,
    flannels_host_gw_is_taken_over_and_given_back_without_losing_a_packet,
    flannels_direct_routes_are_taken_over_and_given_back_without_losing_a_packet,
    from_vxlan_to_host_gw_and_back_without_losing_a_packet,
    nothing_of_it_is_left,
];

const PEERS: u32 = 50;
const SOON: Duration = Duration::from_secs(20);
/// By when the routes are back, counted from the moment at which the NIC has its addresses and routes again.
const FLAP: Duration = Duration::from_secs(1);

/// A node of a cluster with this backend.
fn world(backend: &serde_json::Value) -> World {
    prepare().expect("sysctls");
    let world = World::with_peers(PEERS);
    world.configure(&net_conf(backend));
    publish(&world, backend["Type"] == "host-gw");
    world
}

fn net_conf(backend: &serde_json::Value) -> serde_json::Value {
    json!({ "Network": NETWORKS[0], "EnableIPv6": true, "IPv6Network": NETWORKS[1], "Backend": backend })
}

fn host_gw() -> World {
    world(&json!({ "Type": "host-gw" }))
}

/// Every peer says that it has this backend.
fn publish(world: &World, host_gw: bool) {
    let node = |number| if host_gw { cluster::host_gw(number) } else { cluster::peer(number) };
    (1..=PEERS).for_each(|number| drop(world.api.put_node(node(number))));
}

fn start(world: &mut World) {
    world.spawn().until_ready();
    within(SOON, "the Node announces us", || {
        world.own_annotation("public-ip").is_some().then_some(()).ok_or_else(|| world.api.node(OWN))
    });
}

/// Every route to pods but those of our own, a line each.
fn routes() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for (flag, network) in ["-4", "-6"].into_iter().zip(NETWORKS) {
        for route in json(&format!("ip -j {flag} route show root {network}")) {
            let word = |key: &str| route[key].as_str().unwrap_or_default().to_owned();
            if word("protocol") == "kernel" {
                continue;
            }
            let flags: Vec<&str> =
                route["flags"].as_array().into_iter().flatten().filter_map(|it| it.as_str()).collect();
            let metric = route["metric"].as_u64().unwrap_or_default();
            let (dst, via, dev, mut proto) = (word("dst"), word("gateway"), word("dev"), word("protocol"));
            // iproute2 passes over it.
            if proto.is_empty() {
                proto.push_str("boot");
            }
            all.insert(format!("{dst} via {via} dev {dev} proto {proto} metric {metric} {}", flags.join(" ")));
        }
    }
    all
}

/// The host-gw routes to these peers: weft's, or flannel's.
fn wanted(peers: impl IntoIterator<Item = u32>, weft: bool) -> BTreeSet<String> {
    let both = |peer: u32| pod_cidrs(peer).into_iter().zip(public_ips(peer));
    let row = |(cidr, ip): (String, IpAddr)| {
        let (spread, flannels) = (peer_metric(cidr.parse().expect("a CIDR")), if ip.is_ipv4() { 0 } else { 1024 });
        let (proto, metric) = if weft { ("119", spread) } else { ("boot", flannels) };
        format!("{cidr} via {ip} dev {UNDERLAY} proto {proto} metric {metric} ")
    };
    peers.into_iter().flat_map(both).map(row).collect()
}

fn until(what: &str, wanted: &BTreeSet<String>) -> Duration {
    let begun = Instant::now();
    within(SOON, what, || {
        let is = routes();
        if is == *wanted {
            return Ok(());
        }
        let differ: Vec<&String> = is.symmetric_difference(wanted).take(6).collect();
        Err(format!("{differ:#?}"))
    });
    begun.elapsed()
}

/// After a NIC went down and up. If it took too long, what the agent did meanwhile tells whose fault it was.
fn back_in_time(backend: &str, world: &mut World, took: Duration) {
    println!("{backend}, NIC down and up: {} ms", took.as_millis());
    assert!(took <= FLAP, "{backend}: the routes were back {took:?} after the NIC\n{}", world.agent().tail());
}

fn no_devices() {
    for device in DEVICES {
        assert!(try_sh(&format!("ip link show {device}")).is_err(), "{device} is there");
    }
}

fn plan(world: &World) -> (Option<i32>, String) {
    let nodes = world.directory.join("nodes.json");
    std::fs::write(&nodes, json!({ "kind": "List", "items": world.api.nodes() }).to_string()).expect("to write");
    let mut command = Command::new(binary());
    command.env_clear().args(["plan", "--node-name", OWN, "--nodes"]).arg(&nodes);
    let output =
        command.arg("--net-config-path").arg(world.directory.join("net-conf.json")).output().expect("weft plan");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn a_node_has_a_route_to_each_peer_and_no_device() {
    let mut world = host_gw();
    world.arguments.extend(["--vtep-filter", "enforce"].map(str::to_owned));
    // One peer has another backend, one is behind a router.
    world.api.put_node(cluster::peer(7));
    world.api.patch_node(&cluster::name(8), annotate("public-ip", "198.51.100.8"));
    let (code, printed) = plan(&world);
    assert_eq!(code, Some(2), "{printed}");
    start(&mut world);
    let mut should = wanted((1..=PEERS).filter(|peer| *peer != 7), true);
    should.retain(|row| !row.starts_with(&pod_cidrs(8)[0]));
    until("a route to each", &should);
    no_devices();
    for (key, value) in [
        ("backend-type", "host-gw".to_owned()),
        ("backend-data", "null".to_owned()),
        ("backend-v6-data", "null".to_owned()),
        ("kube-subnet-manager", "true".to_owned()),
        ("public-ip", public_ips(0)[0].to_string()),
        ("public-ipv6", public_ips(0)[1].to_string()),
    ] {
        assert_eq!(world.own_annotation(key), Some(value), "{key}");
    }
    let env = std::fs::read_to_string(world.directory.join("subnet.env")).expect("subnet.env");
    assert!(env.contains("FLANNEL_MTU=1500\n"), "{env}");
    within(SOON, "NetworkUnavailable is False", || {
        let condition = world.api.node(OWN).as_ref().and_then(cluster::network_unavailable);
        condition.filter(|it| it["status"] == "False").map(drop).ok_or("not yet")
    });
    let state = world.agent().state();
    let said = |peer: u32| state["families"]["ipv4"]["peers"][cluster::name(peer)].clone();
    assert_eq!((&said(1)["state"], &said(1)["direct"]), (&"installed".into(), &true.into()), "{}", said(1));
    assert_eq!(said(7)["because"], "backend-type is \"vxlan\", ours is \"host-gw\"");
    let because = said(8)["because"].as_str().unwrap_or_default().to_owned();
    assert!(because.starts_with("public IP 198.51.100.8 is not on the network of eth0"), "{because}");
    assert_eq!(state["families"]["ipv6"]["peers"][cluster::name(8)]["state"], "installed");
    assert!(state["config"]["notices"].to_string().contains("--vtep-filter has no effect"), "{}", state["config"]);
    assert_eq!(world.agent().metrics().count("weft_peers_unusable", &[("reason", "not_on_link")]), 1);
    // What it would have done is what it did.
    let (code, printed) = plan(&world);
    assert!(code == Some(0) && printed.lines().all(|line| line.starts_with('#')), "{printed}");
    // Nodes come and go.
    world.api.delete_node(&cluster::name(3));
    world.api.put_node(cluster::host_gw(PEERS + 1));
    should.retain(|row| !pod_cidrs(3).iter().any(|cidr| row.starts_with(&format!("{cidr} "))));
    should.extend(wanted([PEERS + 1], true));
    until("one left and one joined", &should);
}

fn routes_heal_and_follow_the_underlay() {
    let mut world = host_gw();
    start(&mut world);
    let should = wanted(1..=PEERS, true);
    until("a route to each", &should);
    let [v4, v6] = pod_cidrs(9);
    let [_, own] = public_ips(0);
    for (what, lines) in [
        ("deleted", format!("ip route del {v4}\n ip -6 route del {v6}")),
        (
            "changed",
            format!("ip route replace {v4} via 172.16.9.9 metric {} proto 119", peer_metric(v4.parse().unwrap())),
        ),
        ("one by hand that would win", format!("ip route add {v4} via 172.16.9.9 dev {UNDERLAY}")),
        ("all flushed", "ip route flush proto 119\n ip -6 route flush proto 119".to_owned()),
    ] {
        sh(&lines);
        let took = until(what, &should);
        println!("host-gw, {what}: {} ms", took.as_millis());
    }
    // The NIC flaps: the kernel takes every route along, and the IPv6 address.
    sh(&format!(
        "ip link set {UNDERLAY} down
         ip link set {UNDERLAY} up
         ip address add {own}/64 dev {UNDERLAY} nodad"
    ));
    add_default_routes();
    let took = until("the NIC has flapped", &should);
    back_in_time("host-gw", &mut world, took);
    // Another address: announced, and the routes stay.
    sh(&format!(
        "ip address del {}/16 dev {UNDERLAY}\n ip address add 172.16.0.99/16 dev {UNDERLAY}",
        public_ips(0)[0]
    ));
    add_default_routes();
    within(SOON, "the other address is announced", || {
        let said = world.own_annotation("public-ip");
        if said.as_deref() == Some("172.16.0.99") { Ok(()) } else { Err(said) }
    });
    sh(&format!("ip link set {UNDERLAY} mtu 9000"));
    within(SOON, "subnet.env follows the MTU", || {
        let env = std::fs::read_to_string(world.directory.join("subnet.env")).expect("subnet.env");
        if env.contains("FLANNEL_MTU=9000\n") { Ok(()) } else { Err(env) }
    });
}

/// As a real NIC has one: without it Linux asks for no IPv6 neighbour on behalf of a forwarded packet (`ndisc_solicit`).
const LINK_LOCAL: &str = "ip address add fe80::1/64 dev eth0 nodad scope link";

/// Node 1 at the other end of the underlay, with a pod; and a pod here. Both ways without encapsulation, unless
/// there is a device.
fn both_ends() -> (Namespace, Namespace) {
    let remote = Namespace::new().expect("a namespace");
    let process = std::fs::read_link("/proc/self").expect("/proc");
    let hand = |link: &str, to: &Namespace, name: &str| {
        sh(&format!("ip link set {link} netns /proc/{}/fd/{} name {name}", process.display(), to.raw()));
    };
    hand(&format!("{UNDERLAY}-far"), &remote, UNDERLAY);
    let ([there4, there6], [here4, here6], [ours4, ours6]) = (public_ips(1), public_ips(0), pod_cidrs(0));
    sh(LINK_LOCAL);
    remote
        .run(|| {
            sh(&format!(
                "ip address add {there4}/16 dev {UNDERLAY}
                 ip address add {there6}/64 dev {UNDERLAY} nodad
                 ip link set {UNDERLAY} up
                 ip address add fe80::2/64 dev {UNDERLAY} nodad scope link
                 ip route add {ours4} via {here4} dev {UNDERLAY} metric 9999
                 ip -6 route add {ours6} via {here6} dev {UNDERLAY} metric 9999"
            ));
            underlay("cni0", &[]);
            for (pod, cidr) in pods(1).iter().zip(pod_cidrs(1)) {
                sh(&format!("ip address add {pod}/{} dev cni0", cidr.split_once('/').expect("a CIDR").1));
            }
        })
        .expect("a thread");
    let pod = Namespace::new().expect("a namespace");
    sh("ip link add cni0 type veth peer name pod0");
    hand("pod0", &pod, UNDERLAY);
    let [gateway4, gateway6] = cluster::gateways(0).map(next);
    sh(&format!(
        "ip link set cni0 up
         ip address add {gateway4}/24 dev cni0
         ip address add {gateway6}/64 dev cni0 nodad"
    ));
    let [pod4, pod6] = pods(0);
    pod.run(|| {
        sh(&format!(
            "ip link set {UNDERLAY} up
             ip address add {pod4}/24 dev {UNDERLAY}
             ip address add {pod6}/64 dev {UNDERLAY} nodad
             ip route add default via {gateway4}
             ip -6 route add default via {gateway6}"
        ));
    })
    .expect("a thread");
    (remote, pod)
}

fn next(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => std::net::Ipv4Addr::from(u32::from(ip) + 1).into(),
        IpAddr::V6(ip) => std::net::Ipv6Addr::from(u128::from(ip) + 1).into(),
    }
}

/// The addresses of a node's pod.
fn pods(number: u32) -> [IpAddr; 2] {
    cluster::gateways(number).map(|ip| next(next(ip)))
}

/// Pings node 1's pod from the pod here, a thousand times a second in each family, while something happens.
fn nothing_lost(pod: &Namespace, what: &str, body: impl FnOnce()) {
    let streams = pods(1).map(|to| {
        within(SOON, "the remote pod answers", || {
            let answer = pod.run(|| once(to, Duration::from_millis(300))).expect("a thread");
            if answer.is_ok_and(|time| time.is_some()) { Ok(()) } else { Err(to) }
        });
        Stream::start(pod, to, Duration::from_millis(1)).expect("pings")
    });
    std::thread::sleep(Duration::from_millis(100));
    body();
    std::thread::sleep(Duration::from_millis(100));
    for stream in streams {
        let tally = stream.stop();
        println!("{what}: {} pings, {} lost", tally.sent, tally.lost);
        assert!(tally.sent > 100 && tally.lost == 0, "{what}: {tally:?}");
    }
}

fn flannels_host_gw_is_taken_over_and_given_back_without_losing_a_packet() {
    let mut world = host_gw();
    world.api.put_node(cluster::host_gw(0));
    let (_remote, pod) = both_ends();
    flannel::lay_as("host-gw", 0, &macs(0), &(1..=PEERS));
    // As flanneld leaves it when a node got another address while it was not running.
    sh(&format!("ip route replace {} via 172.16.9.9 dev {UNDERLAY} proto boot", pod_cidrs(5)[0]));
    nothing_lost(&pod, "flannel's host-gw taken over", || {
        start(&mut world);
        until("flannel's routes have become ours", &wanted(1..=PEERS, true));
    });
    world.take_agent().terminate();
    let dry = cleanup(&world, &["--hand-over"]);
    assert_eq!(dry.status.code(), Some(2), "{dry:?}");
    until("a dry run changes nothing", &wanted(1..=PEERS, true));
    nothing_lost(&pod, "handed over to flannel's host-gw", || {
        assert_eq!(text(&cleanup(&world, &["--hand-over", "--yes"])), text(&dry));
    });
    until("ours have become flannel's", &wanted(1..=PEERS, false));
    no_devices();
    nothing_lost(&pod, "and taken over again", || {
        start(&mut world);
        until("flannel's routes have become ours", &wanted(1..=PEERS, true));
    });
}

fn flannels_direct_routes_are_taken_over_and_given_back_without_losing_a_packet() {
    let mut world = world(&json!({ "Type": "vxlan", "DirectRouting": true }));
    world.api.put_node(cluster::peer(0));
    let (_remote, pod) = both_ends();
    flannel::lay_as("direct", 0, &macs(0), &(1..=PEERS));
    assert_eq!(routes(), wanted(1..=PEERS, false));
    let direct = || routes().into_iter().filter(|row| row.contains(" dev eth0 ")).collect::<BTreeSet<_>>();
    nothing_lost(&pod, "flannel's direct routes taken over", || {
        start(&mut world);
        within(SOON, "flannel's routes have become ours", || {
            let is = direct();
            if is == wanted(1..=PEERS, true) { Ok(()) } else { Err(is) }
        });
    });
    // The NIC flaps; the kernel takes its routes along, and the IPv6 address.
    let [_, own] = public_ips(0);
    sh(&format!(
        "ip link set {UNDERLAY} down
         ip link set {UNDERLAY} up
         ip address add {own}/64 dev {UNDERLAY} nodad
         {LINK_LOCAL}"
    ));
    add_default_routes();
    let begun = Instant::now();
    within(SOON, "the direct routes are back", || {
        let is = direct();
        if is == wanted(1..=PEERS, true) { Ok(()) } else { Err(is.len()) }
    });
    let took = begun.elapsed();
    back_in_time("direct routing", &mut world, took);
    world.take_agent().terminate();
    nothing_lost(&pod, "handed over to flannel with direct routing", || {
        text(&cleanup(&world, &["--hand-over", "--yes"]));
    });
    assert_eq!(routes(), wanted(1..=PEERS, false));
}

fn from_vxlan_to_host_gw_and_back_without_losing_a_packet() {
    let mut world = world(&json!({ "Type": "vxlan" }));
    let (remote, pod) = both_ends();
    world.start();
    remote.run(|| flannel::lay(1, &macs(1), &std::iter::empty())).expect("a thread");
    let devices = || DEVICES.map(|device| try_sh(&format!("ip link show {device}")).is_ok());
    for to in ["host-gw", "vxlan", "host-gw"] {
        world.take_agent().terminate();
        // The remote end takes packets in either form; it answers without encapsulation.
        world.configure(&net_conf(&json!({ "Type": to })));
        publish(&world, to == "host-gw");
        nothing_lost(&pod, &format!("the backend becomes {to}"), || {
            start(&mut world);
            within(SOON, "the other backend is announced", || {
                let said = world.own_annotation("backend-type");
                if said.as_deref() == Some(to) { Ok(()) } else { Err(said) }
            });
            if to == "host-gw" {
                until("a route to each", &wanted(1..=PEERS, true));
            } else {
                within(SOON, "all by the devices", || {
                    let is = routes();
                    let rest: Vec<&String> = is.iter().filter(|row| row.contains(" dev eth0 ")).collect();
                    if rest.is_empty() && is.len() == 2 * PEERS as usize { Ok(()) } else { Err(is.len()) }
                });
            }
            within(SOON, "the devices", || if devices() == [to == "vxlan"; 2] { Ok(()) } else { Err(devices()) });
        });
        let (code, printed) = plan(&world);
        assert_eq!(code, Some(0), "{printed}");
    }
}

fn nothing_of_it_is_left() {
    let mut world = host_gw();
    let everything = || {
        ["ip route show table all", "ip -6 route show table all", "ip -d link show", "ip address show"]
            .map(|line| try_sh(line).expect(line))
    };
    let before = everything();
    start(&mut world);
    world.take_agent().terminate();
    let dry = cleanup(&world, &[]);
    assert_eq!(dry.status.code(), Some(2), "{dry:?}");
    assert_eq!(routes(), wanted(1..=PEERS, true));
    assert_eq!(text(&cleanup(&world, &["--yes"])), text(&dry));
    assert_eq!(everything(), before);
    assert_eq!(text(&cleanup(&world, &[])), "", "nothing to do");
}
