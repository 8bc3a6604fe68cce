//! The host around the tables: what weft sets, what it says, and the pods' bridge after a pod CIDR has changed.

use std::time::Duration;

use serde_json::Value;

use crate::cluster::{self, pod_cidrs};
use crate::sandbox::{json, sh};
use crate::world::{World, within};

crate::tests![
    forwarding_is_turned_on_and_kept_on,
    an_address_of_an_earlier_pod_cidr_goes_when_no_pod_uses_it,
    an_address_on_a_bridge_that_is_not_ours_is_only_said,
    an_adopted_device_keeps_its_checksum,
    a_forward_chain_that_drops_is_said_until_it_accepts,
];

const SOON: Duration = Duration::from_secs(20);
const SWITCHES: [&str; 2] = ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"];
const LEASES: &str = "/var/lib/cni/networks/cbr0";

fn forwarding_is_turned_on_and_kept_on() {
    let mut world = World::with_peers(1);
    let on = || {
        within(SOON, "the host forwards", || {
            let held = SWITCHES.map(|path| std::fs::read_to_string(path).expect("a sysctl"));
            if held.iter().all(|value| value.trim() == "1") { Ok(()) } else { Err(held) }
        });
    };
    SWITCHES.iter().for_each(|path| std::fs::write(path, "0").expect("a sysctl"));
    world.start();
    on();
    SWITCHES.iter().for_each(|path| std::fs::write(path, "0").expect("a sysctl"));
    on();
    let state = world.agent().state();
    assert_eq!(state["host_problems"].to_string(), "[]");
    let log = world.agent().log();
    let unseen: Vec<&str> = state["host_unseen"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    let said = log.iter().filter(|line| line.contains("manages weft's devices is not known"));
    assert_eq!(said.clone().count(), unseen.len(), "what is logged is in /state too: {unseen:?}, {log:#?}");
    assert!(said.zip(&unseen).all(|(line, text)| line.ends_with(text)), "{unseen:?}, {log:#?}");
    assert!(log.iter().any(|line| line.contains("turned on net.ipv4.ip_forward")), "{log:#?}");
    assert!(
        !log.iter().any(|line| line.contains("does not forward")),
        "what is cured is no problem any more: {log:#?}"
    );
}

/// A bridge as the plugin leaves it, with the address of node 77's pod CIDR; a pod is on it.
fn old_bridge() {
    let [v4, v6] = cluster::gateways(77).map(|ip| ip.to_string());
    let v4 = v4.strip_suffix(".0").expect("a base");
    sh(&format!(
        "ip link add cni0 type bridge
         ip link set cni0 up
         ip address add {v4}.1/24 dev cni0
         ip address add {v6}1/64 dev cni0 nodad
         ip link add vethpod type veth peer name pod
         ip link set vethpod master cni0"
    ));
}

fn on_bridge() -> Vec<String> {
    let addresses = json("ip -j address show dev cni0")[0]["addr_info"].clone();
    let global = addresses.as_array().expect("a list").iter().filter(|address| address["scope"] == "global");
    global.map(|address| address["local"].as_str().expect("an address").to_owned()).collect()
}

fn until_said(world: &mut World, what: &str) {
    within(SOON, what, || {
        let state = world.agent().state();
        let said = ["ipv4", "ipv6"].map(|family| state["families"][family]["stale_bridge_addresses"][0].clone());
        let is = |text: &Value| text.as_str().is_some_and(|text| text.contains(what));
        if said.iter().all(is) { Ok(()) } else { Err(said) }
    });
}

fn an_address_of_an_earlier_pod_cidr_goes_when_no_pod_uses_it() {
    let mut world = World::with_peers(3);
    let dir = world.directory.join("net.d").display().to_string();
    let flags = ["--cni-conf", "standard", "--cni-conf-dir", &dir, "--resync-period", "1s"];
    world.arguments.extend(flags.map(str::to_owned));
    old_bridge();
    std::fs::create_dir_all(LEASES).expect("a directory");
    let lease = pod_cidrs(77)[0].replace(".0/24", ".5");
    let leases = [lease, format!("{}5", cluster::gateways(77)[1])].map(|ip| format!("{LEASES}/{ip}"));
    leases.iter().for_each(|lease| std::fs::write(lease, "pod").expect("a lease"));
    world.start();
    until_said(&mut world, "1 pods are on the bridge");
    assert_eq!(on_bridge().len(), 2);
    assert_eq!(world.agent().metrics().count("weft_host_problems", &[("problem", "stale_bridge")]), 2);
    sh("ip link del vethpod");
    until_said(&mut world, "says that a pod uses it");
    assert_eq!(on_bridge().len(), 2);
    leases.iter().for_each(|lease| std::fs::remove_file(lease).expect("the end of a lease"));
    within(SOON, "the old addresses are gone", || if on_bridge().is_empty() { Ok(()) } else { Err(on_bridge()) });
    within(SOON, "nothing is said any more", || {
        let count = world.agent().metrics().count("weft_host_problems", &[("problem", "stale_bridge")]);
        if count == 0 { Ok(()) } else { Err(count) }
    });
    let log = world.agent().log();
    assert!(log.iter().any(|line| line.contains("ip addr del 10.240.77.1/24 dev cni0")), "{log:#?}");
}

fn an_address_on_a_bridge_that_is_not_ours_is_only_said() {
    let mut world = World::with_peers(1);
    old_bridge();
    sh("ip link del vethpod");
    world.start();
    until_said(&mut world, "weft does not touch the bridge");
    assert_eq!(on_bridge().len(), 2);
}

fn an_adopted_device_keeps_its_checksum() {
    let mut world = World::with_peers(1);
    world.api.put_node(cluster::peer(0));
    crate::flannel::lay(0, &cluster::macs(0), &(1..=1));
    let number = |name: &str| json(&format!("ip -j link show {name}"))[0]["ifindex"].clone();
    let before = number("flannel.1");
    world.start();
    assert_eq!(number("flannel.1"), before, "the same device");
    let device = &world.agent().state()["families"]["ipv4"]["device"];
    assert_eq!(device["udp_checksum"], true);
    assert!(device["udp_checksum_note"].as_str().expect("a note").contains("`ip link del flannel.1`"), "{device}");
    sh("ip link del flannel.1");
    within(SOON, "a device without it", || {
        let device = &world.agent().state()["families"]["ipv4"]["device"];
        if device["udp_checksum"] == false && device["udp_checksum_note"].is_null() {
            Ok(())
        } else {
            Err(device.clone())
        }
    });
    assert_eq!(json("ip -j -d link show flannel.1")[0]["linkinfo"]["info_data"]["udp_csum"], false);
}

fn a_forward_chain_that_drops_is_said_until_it_accepts() {
    let mut world = World::with_peers(1);
    sh("iptables-nft -P FORWARD DROP
        iptables-nft -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        iptables-nft -A FORWARD -i docker0 -j ACCEPT");
    world.start();
    let said = |world: &mut World| world.agent().state()["host_problems"].clone();
    let count = |world: &mut World| world.agent().metrics().count("weft_host_problems", &[("problem", "forward_drop")]);
    within(SOON, "it is said", || if count(&mut world) == 1 { Ok(()) } else { Err(said(&mut world)) });
    let text = said(&mut world)[0]["because"].as_str().expect("a sentence").to_owned();
    let command = "iptables -I FORWARD -s 10.240.0.0/12 -j ACCEPT; iptables -I FORWARD -d 10.240.0.0/12 -j ACCEPT";
    assert!(text.contains(&format!("`{command}`")), "{text}");
    within(SOON, "an Event tells it", || {
        let events = world.api.events();
        let told = events.iter().any(|event| event["reason"] == "HostProblem" && event["message"] == text.as_str());
        if told { Ok(()) } else { Err(events) }
    });
    // As it says.
    sh(&command.replace("; ", "\n").replace("iptables", "iptables-nft"));
    within(4 * SOON, "it is over", || if count(&mut world) == 0 { Ok(()) } else { Err(said(&mut world)) });
}
