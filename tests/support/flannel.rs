//! What flanneld lays down, laid down by iproute2: its VXLAN backend's messages, one command each.

use std::fmt::Write;

use crate::cluster::{gateways, macs, pod_cidrs, public_ips};
use crate::sandbox::{batch, sh};
use crate::world::{DEVICES, UNDERLAY};

/// The MTU that flannel asks for on both devices: the underlay's less 50. Linux gives the IPv6 one 20 less.
const MTU: u32 = 1450;

/// Makes both devices of node `own`, with the MACs that it announces, their addresses and routes to `peers`.
pub(crate) fn lay(own: u32, own_macs: &[String; 2], peers: &(impl Iterator<Item = u32> + Clone)) {
    for family in [0, 1] {
        device(own, own_macs, family);
        rows(family, peers.clone());
    }
}

fn device(own: u32, own_macs: &[String; 2], family: usize) {
    let (dev, mac, full) = (DEVICES[family], &own_macs[family], ["32", "128"][family]);
    let (local, address) = (public_ips(own)[family], gateways(own)[family]);
    // No `dstport`: iproute2 then says that Linux will choose, 8472, which is what flannel relies on.
    sh(&format!(
        "ip link add {dev} mtu {MTU} txqueuelen 0 address {mac} type vxlan id 1 dev {UNDERLAY} local {local} \
         ttl 0 nolearning noproxy norsc nol2miss nol3miss noudp6zerocsumtx noudp6zerocsumrx
         ip address add {address}/{full} dev {dev}
         ip link set {dev} up"
    ));
    std::fs::write(format!("/proc/sys/net/ipv6/conf/{dev}/accept_ra"), "0").expect("to write a sysctl");
}

/// The three rows of each peer, in flannel's order.
fn rows(family: usize, peers: impl Iterator<Item = u32>) {
    let (dev, four_or_six) = (DEVICES[family], ["-4", "-6"][family]);
    let (mut ip, mut bridge) = (String::new(), String::new());
    for peer in peers {
        let (gateway, mac, public_ip) = (gateways(peer)[family], &macs(peer)[family], public_ips(peer)[family]);
        writeln!(ip, "neigh replace {gateway} lladdr {mac} dev {dev} nud permanent").expect("room");
        writeln!(bridge, "fdb replace {mac} dev {dev} dst {public_ip} self permanent").expect("room");
        writeln!(ip, "route replace {} via {gateway} dev {dev} proto boot onlink", pod_cidrs(peer)[family])
            .expect("room");
    }
    batch("bridge", &bridge);
    batch(&format!("ip {four_or_six}"), &ip);
}
