//! What Linux does, shown with iproute2 and bare sockets: weft's engine has no part in it.
//! `docs/kernel-facts.md` says what follows from each.

mod device;
mod losses;
mod netlink;
mod rows;

use serde_json::Value;

use crate::sandbox::{Test, json, sh, underlay};

/// Every fact.
pub(crate) fn all() -> Vec<Test> {
    [device::all(), losses::all(), netlink::all(), rows::all()].concat()
}

/// The device of IPv4 and the one of IPv6.
const DEVICES: [&str; 2] = ["flannel.1", "flannel-v6.1"];

const CREATE_V4: &str =
    "ip link add flannel.1 txqueuelen 0 type vxlan id 1 dev eth0 local 192.168.174.1 dstport 8472 nolearning";
const CREATE_V6: &str =
    "ip link add flannel-v6.1 txqueuelen 0 type vxlan id 1 dev eth0 local fd00:174::1 dstport 8472 nolearning";

/// The underlay alone.
fn host() {
    underlay("eth0", &["192.168.174.1/24", "fd00:174::1/64"]);
}

/// Both devices, up, with their addresses.
fn devices() {
    host();
    sh(CREATE_V4);
    sh(CREATE_V6);
    sh("ip address add 10.244.0.0/32 dev flannel.1
        ip address add fd00:10:244::/128 dev flannel-v6.1 nodad
        ip link set flannel.1 addrgenmode none
        ip link set flannel-v6.1 addrgenmode none
        ip link set flannel.1 up
        ip link set flannel-v6.1 up");
}

/// Both devices with one peer on each.
fn devices_with_a_peer() {
    devices();
    sh("ip route add 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink
        ip neigh add 10.244.1.0 lladdr 0a:00:00:00:00:01 dev flannel.1 nud permanent
        bridge fdb add 0a:00:00:00:00:01 dev flannel.1 dst 192.168.174.2 self permanent
        ip -6 route add fd00:10:244:1::/64 via fd00:10:244:1:: dev flannel-v6.1 onlink
        ip neigh add fd00:10:244:1:: lladdr 0a:00:00:00:00:02 dev flannel-v6.1 nud permanent
        bridge fdb add 0a:00:00:00:00:02 dev flannel-v6.1 dst fd00:174::2 self permanent");
}

/// Routes inside the cluster networks, permanent neighbours, FDB entries and cluster addresses of a device.
#[derive(Debug, PartialEq, Eq)]
struct Count {
    routes: usize,
    neighbours: usize,
    fdb: usize,
    addresses: usize,
}

/// What is there when nothing is lost.
const ALL: Count = Count { routes: 1, neighbours: 1, fdb: 1, addresses: 1 };

fn count(device: &str) -> Count {
    let family = if device == DEVICES[0] { "-4" } else { "-6" };
    let starts = |row: &Value, key: &str, with: &[&str]| {
        row[key].as_str().is_some_and(|text| with.iter().any(|with| text.starts_with(with)))
    };
    let cluster = ["10.244.", "fd00:10:244:"];
    let routes = json(&format!("ip -j {family} route show dev {device}"));
    let neighbours = json(&format!("ip -j {family} neigh show dev {device} nud permanent"));
    let addresses = json(&format!("ip -j {family} address show dev {device}"));
    let addresses = addresses.iter().filter_map(|link| link["addr_info"].as_array()).flatten();
    Count {
        // The kernel's own route to the device's IPv6 address is not meant.
        routes: routes.iter().filter(|row| starts(row, "dst", &cluster) && row["protocol"] != "kernel").count(),
        neighbours: neighbours.len(),
        fdb: json(&format!("bridge -j fdb show dev {device}")).len(),
        addresses: addresses.filter(|row| starts(row, "local", &cluster)).count(),
    }
}

/// What `ip -j -d link show` says of a device.
fn link(device: &str) -> Value {
    json(&format!("ip -j -d link show dev {device}")).remove(0)
}

/// Asserts that a command is refused, with these words.
fn refused(line: &str, words: &str) {
    match crate::sandbox::try_sh(line) {
        Err(error) => assert!(error.contains(words), "`{line}` was refused with {error:?}, not with {words:?}"),
        Ok(_) => panic!("`{line}` was not refused"),
    }
}
