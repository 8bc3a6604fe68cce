//! Hearing: what wakes the loop, and what does not.

use std::time::Duration;

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use weft::kernel::{Heard, Kernel as _, Listen as _};
use weft::model::addr::Family;

use crate::sandbox::{batch, eventually, json, sh};
use crate::support::{Node, rows, scope, set, sets};

crate::tests![
    a_change_to_a_row_is_heard,
    a_change_around_the_device_is_heard,
    what_an_observation_has_seen_is_not_heard,
    rows_of_others_are_not_heard,
    a_flood_of_others_does_not_lengthen_the_wait,
    a_flood_of_others_takes_no_room,
    before_the_first_look_everything_is_heard,
    a_waker_ends_the_wait_from_another_thread,
    the_wait_ends_when_the_time_is_up,
    an_overrun_is_a_change_and_is_counted,
    a_long_batch_of_ours_is_not_heard_and_nothing_after_it_is_missed,
    nf_tables_is_heard_as_soon_as_it_may_be,
];

/// Long enough for anything that is on its way.
const SOON: Duration = Duration::from_secs(60);
/// What comes from the kernel is there before the command that caused it is over.
const NOW: Duration = Duration::ZERO;

/// Waits until the kernel has said everything: carriers and the like are announced late.
fn quiet(node: &mut Node) {
    eventually("silence", || {
        node.observe();
        node.kernel.wait(Duration::from_millis(100)) == Heard::Nothing
    });
}

fn heard_after(node: &mut Node, lines: &str) -> Heard {
    quiet(node);
    sh(lines);
    node.kernel.wait(NOW)
}

fn node_with_a_peer() -> Node {
    let mut node = Node::with_devices();
    for family in Family::BOTH {
        let dev = node.dev(family);
        node.done(&sets(&dev, rows(family, 1)));
    }
    node
}

fn a_change_to_a_row_is_heard() {
    let mut node = node_with_a_peer();
    for line in [
        "ip route del 10.244.1.0/24 proto 119",
        "ip neigh del 10.244.1.0 dev flannel.1",
        "bridge fdb del 0a:00:01:00:00:01 dev flannel.1",
        "ip -6 route del fd00:10:244:1::/64 proto 119",
        "ip neigh del fd00:10:244:1:: dev flannel-v6.1",
        "bridge fdb replace 0a:00:01:00:00:01 dev flannel-v6.1 dst fd00:174::9 self permanent",
        "ip route add 10.244.9.0/24 via 10.244.9.0 dev flannel.1 onlink",
        "ip route add 192.0.2.0/24 via 10.244.9.0 dev flannel.1 onlink",
        "bridge fdb append 00:00:00:00:00:00 dev flannel.1 dst 192.0.2.1 self permanent",
    ] {
        assert_eq!(heard_after(&mut node, line), Heard::Changed, "{line}");
    }
}

fn a_change_around_the_device_is_heard() {
    let mut node = node_with_a_peer();
    for line in [
        "ip link set flannel.1 down",
        "ip link set flannel.1 up",
        "ip address del 10.244.0.0/32 dev flannel.1",
        "ip link set flannel-v6.1 address 0a:00:00:00:00:99",
        "ip address add 192.168.174.77/24 dev eth0",
        "ip route add default via 192.168.174.9 dev eth0",
        "ip -6 route add default via fd00:174::9 dev eth0",
        "ip route add 10.244.3.0/24 via 192.168.174.9 dev eth0",
        "ip route add blackhole 10.244.4.0/24",
        "ip link del flannel.1",
        "ip link add flannel.1 type bridge",
    ] {
        assert_eq!(heard_after(&mut node, line), Heard::Changed, "{line}");
    }
}

fn what_an_observation_has_seen_is_not_heard() {
    let mut node = node_with_a_peer();
    sh("ip link set flannel.1 down\n ip link set flannel.1 up");
    node.observe();
    assert_eq!(node.kernel.wait(NOW), Heard::Nothing);
}

/// A bridge like the one of the pods, with a port.
fn pod_bridge() {
    sh("ip link add cni0 type bridge
        ip link set cni0 addrgenmode none
        ip link set eth0-far master cni0
        ip link set cni0 up
        ip address add 10.9.0.1/24 dev cni0");
    eventually("the carrier", || json("ip -j link show cni0")[0]["operstate"] == "UP");
}

fn rows_of_others_are_not_heard() {
    let mut node = node_with_a_peer();
    pod_bridge();
    for line in [
        "ip neigh add 10.9.0.2 lladdr 0a:00:00:00:00:02 dev cni0 nud reachable",
        "ip neigh del 10.9.0.2 dev cni0",
        "ip route add 10.9.1.0/24 via 10.9.0.2 dev cni0",
        "ip route add 10.244.7.0/24 via 10.9.0.2 dev cni0 table 99",
        "bridge fdb add 0a:00:00:00:00:03 dev eth0-far master static",
    ] {
        assert_eq!(heard_after(&mut node, line), Heard::Nothing, "{line}");
    }
}

fn foreign_neighbours(count: u32) -> String {
    let line =
        |n: u32| format!("neigh replace 10.9.{}.{} lladdr 0a:00:00:00:00:02 dev cni0 nud permanent\n", n >> 8, n & 255);
    (0..count).map(line).collect()
}

fn a_flood_of_others_does_not_lengthen_the_wait() {
    let mut node = node_with_a_peer();
    pod_bridge();
    quiet(&mut node);
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| batch("ip", &foreign_neighbours(20_000)));
        let mut waits = 0;
        while !flood.is_finished() {
            assert_eq!(node.kernel.wait(Duration::from_millis(1)), Heard::Nothing);
            waits += 1;
        }
        assert!(waits > 1);
    });
    assert_eq!(node.kernel.counters().overruns, 0);
}

fn a_flood_of_others_takes_no_room() {
    let mut node = node_with_a_peer();
    pod_bridge();
    quiet(&mut node);
    // Five times what the receive buffer holds, and nobody reads meanwhile.
    batch("ip", &foreign_neighbours(50_000));
    sh("ip route del 10.244.1.0/24 proto 119");
    assert_eq!(node.kernel.wait(NOW), Heard::Changed);
    quiet(&mut node);
    assert_eq!(node.kernel.counters().overruns, 0);
}

fn before_the_first_look_everything_is_heard() {
    sh("ip link add cni0 type bridge");
    let mut kernel = weft::kernel::netlink::Netlink::open().unwrap();
    sh("ip neigh add 10.9.0.2 lladdr 0a:00:00:00:00:02 dev cni0 nud permanent");
    assert_eq!(kernel.wait(NOW), Heard::Changed);
}

fn a_waker_ends_the_wait_from_another_thread() {
    let mut node = Node::with_devices();
    quiet(&mut node);
    let waker = node.kernel.waker();
    std::thread::scope(|scope| {
        scope.spawn(|| waker.clone().wake());
        assert_eq!(node.kernel.wait(SOON), Heard::Woken);
    });
    // Two before one wait are one.
    waker.wake();
    waker.wake();
    assert_eq!(node.kernel.wait(SOON), Heard::Woken);
    assert_eq!(node.kernel.wait(NOW), Heard::Nothing);
    // A look does not swallow it.
    waker.wake();
    node.observe();
    assert_eq!(node.kernel.wait(SOON), Heard::Woken);
}

fn the_wait_ends_when_the_time_is_up() {
    let mut node = Node::new();
    quiet(&mut node);
    let start = std::time::Instant::now();
    assert_eq!(node.kernel.wait(Duration::from_millis(30)), Heard::Nothing);
    assert!(start.elapsed() >= Duration::from_millis(30));
}

fn an_overrun_is_a_change_and_is_counted() {
    let mut node = node_with_a_peer();
    node.observe();
    // More than any receive buffer holds, of a kind that no filter keeps out: our own device's.
    let line = |n: u32, mac: &str| {
        format!(
            "neigh replace 10.{}.{}.{} lladdr {mac} dev flannel.1 nud permanent\n",
            100 + (n >> 16),
            (n >> 8) & 255,
            n & 255
        )
    };
    let lines: String = (0..50_000).map(|n| line(n, "0a:00:00:00:00:02")).collect();
    batch("ip", &lines);
    while node.kernel.counters().overruns == 0 {
        assert_eq!(node.kernel.wait(NOW), Heard::Changed, "the queue ended without an overrun");
    }
    node.observe();
    assert_eq!(node.kernel.wait(NOW), Heard::Nothing);
    assert_eq!(node.tables(Family::V4).neighbours.len(), 50_001);
}

fn a_long_batch_of_ours_is_not_heard_and_nothing_after_it_is_missed() {
    let mut node = node_with_a_peer();
    quiet(&mut node);
    let dev = node.dev(Family::V4);
    let again = || (1..=200).map(|number| set(&dev, rows(Family::V4, number)[2], true));
    // More than the receive buffer holds: a replaced route is announced, whether it is another or not.
    node.done(&(0..250).flat_map(|_| again()).collect::<Vec<_>>());
    // What else happened meanwhile nobody knows: the wait after it is over at once, and so a look follows.
    assert_eq!(node.kernel.wait(SOON), Heard::Changed);
    quiet(&mut node);
    assert_eq!(node.kernel.counters().overruns, 0);
    for change in [
        "ip route del 10.244.1.0/24 proto 119",
        "ip -6 route del fd00:10:244:1::/64 proto 119",
        "ip neigh del 10.244.1.0 dev flannel.1",
        "bridge fdb del 0a:00:01:00:00:01 dev flannel-v6.1",
        "ip link set flannel-v6.1 down",
    ] {
        node.done(&again().collect::<Vec<_>>());
        node.observe();
        assert_eq!(node.kernel.wait(NOW), Heard::Nothing, "the look has seen it");
        node.done(&again().collect::<Vec<_>>());
        assert_eq!(node.kernel.wait(NOW), Heard::Changed, "nobody has looked");
        // Other people's are sorted out as before.
        sh("ip neigh replace 192.168.174.200 lladdr 0a:00:00:00:00:02 dev eth0 nud permanent");
        assert_eq!(node.kernel.wait(NOW), Heard::Nothing);
        sh(change);
        assert_eq!(node.kernel.wait(NOW), Heard::Changed, "{change}");
    }
}

fn nf_tables_is_heard_as_soon_as_it_may_be() {
    let all = capabilities(None).expect("to read them");
    let effective = all.effective - CapabilitySet::NET_ADMIN;
    set_capabilities(None, CapabilitySets { effective, ..all }).expect("to lay one down");
    let mut kernel = weft::kernel::netlink::Netlink::open().expect("sockets");
    // Joining the group took the capability.
    sh("nft add table ip weft");
    assert_eq!(kernel.wait(NOW), Heard::Nothing);
    set_capabilities(None, all).expect("to take it up again");
    kernel.observe(&scope()).expect("a look");
    sh("nft delete table ip weft");
    assert_eq!(kernel.wait(NOW), Heard::Changed);
}
