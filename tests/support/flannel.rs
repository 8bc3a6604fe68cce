//! What flannel leaves on a node, laid down by `tests/cluster/flannel-state` in the calling thread's namespace.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::cluster::{NETWORKS, macs, pod_cidrs, public_ips};
use crate::sandbox::DIRECTORY;
use crate::world::UNDERLAY;

/// In the binary: a user without rights may not be able to read the source's folder.
const SCRIPT: &str = include_str!("../cluster/flannel-state");

/// Makes both devices of node `own`, with the MACs that it announces, their addresses and routes to `peers`.
pub(crate) fn lay(own: u32, own_macs: &[String; 2], peers: &(impl Iterator<Item = u32> + Clone)) {
    lay_as("vxlan", own, own_macs, peers);
}

/// The same in another form: `direct`, or `host-gw` without any device.
pub(crate) fn lay_as(backend: &str, own: u32, own_macs: &[String; 2], peers: &(impl Iterator<Item = u32> + Clone)) {
    let ([net4, net6], [pods4, pods6], [ip4, ip6], [mac4, mac6]) =
        (NETWORKS, pod_cidrs(own), public_ips(own), own_macs);
    let line = format!(
        "--backend {backend} --iface {UNDERLAY} --network {net4} --subnet {pods4} --public-ip {ip4} --mac {mac4} \
         --network6 {net6} --subnet6 {pods6} --public-ip6 {ip6} --mac6 {mac6}"
    );
    let mut lines = String::new();
    for peer in peers.clone() {
        for ((cidr, mac), ip) in pod_cidrs(peer).iter().zip(macs(peer)).zip(public_ips(peer)) {
            writeln!(lines, "{cidr} {mac} {ip}").expect("room");
        }
    }
    state(&line, &lines);
}

/// Makes flannel's packet rules alone, in one of their forms.
pub(crate) fn rules(form: &str) {
    let ([net4, net6], [pods4, pods6]) = (NETWORKS, pod_cidrs(0));
    let nets = format!("--network {net4} --subnet {pods4} --network6 {net6} --subnet6 {pods6}");
    state(&format!("--no-devices {nets} --rules {form}"), "");
}

/// Runs the script with these options and peers.
pub(crate) fn state(options: &str, peers: &str) {
    let mut script = Command::new("bash")
        .args(["-c", SCRIPT, "flannel-state"])
        .args(options.split_whitespace())
        .env("XTABLES_LOCKFILE", lock())
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("to start bash");
    script.stdin.take().expect("a pipe").write_all(peers.as_bytes()).expect("to write the peers");
    let output = script.wait_with_output().expect("an end");
    assert!(output.status.success(), "flannel-state {options}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The lock of iptables-legacy: in the tests' own directory.
pub(crate) fn lock() -> String {
    format!("{DIRECTORY}/xtables.lock")
}
