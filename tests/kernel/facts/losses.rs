//! What is lost with what, and which losses Linux announces.

use super::{ALL, Count, DEVICES, count, devices_with_a_peer};
use crate::sandbox::{Event, Listener, sh};

crate::tests![
    link_down_drops_routes_and_neighbours_and_keeps_the_fdb,
    link_up_brings_nothing_back,
    the_loss_of_ipv4_routes_by_link_down_is_not_announced,
    the_loss_of_ipv4_routes_by_a_deleted_device_is_not_announced,
    a_new_mac_drops_the_neighbours_alone,
    the_same_mac_again_drops_the_neighbours_too,
    the_last_ipv4_address_takes_routes_and_neighbours_along_without_a_word,
    an_address_that_is_not_the_last_takes_nothing_along,
    an_ipv6_address_takes_nothing_along,
    a_new_mtu_loses_nothing,
    an_underlay_that_goes_down_and_up_loses_nothing,
    an_underlay_without_its_address_loses_nothing,
    disabling_ipv6_drops_everything_of_ipv6,
    a_rename_loses_nothing,
    a_flush_of_neighbours_says_failed_before_it_says_deleted,
];

/// How many notifications of this kind there are, about what starts so.
fn about(heard: &[Event], kind: &str, start: &str) -> usize {
    heard.iter().filter(|Event(is, of)| *is == kind && of.starts_with(start)).count()
}

const ROUTE_V4: &str = "10.244.1.0/24";
const ROUTE_V6: &str = "fd00:10:244:1::/64";

fn link_down_drops_routes_and_neighbours_and_keeps_the_fdb() {
    devices_with_a_peer();
    assert_eq!(DEVICES.map(count), [ALL, ALL]);
    sh("ip link set flannel.1 down\n ip link set flannel-v6.1 down");
    assert_eq!(count("flannel.1"), Count { routes: 0, neighbours: 0, ..ALL });
    // IPv6 loses its address as well.
    assert_eq!(count("flannel-v6.1"), Count { routes: 0, neighbours: 0, addresses: 0, ..ALL });
}

fn link_up_brings_nothing_back() {
    devices_with_a_peer();
    for device in DEVICES {
        sh(&format!("ip link set {device} down\n ip link set {device} up"));
    }
    assert_eq!(count("flannel.1"), Count { routes: 0, neighbours: 0, ..ALL });
    assert_eq!(count("flannel-v6.1"), Count { routes: 0, neighbours: 0, addresses: 0, ..ALL });
}

fn the_loss_of_ipv4_routes_by_link_down_is_not_announced() {
    devices_with_a_peer();
    let listener = Listener::start();
    sh("ip link set flannel.1 down");
    let heard = listener.heard();
    assert_eq!(about(&heard, "del route", ROUTE_V4), 0, "{heard:?}");
    assert_eq!(about(&heard, "del neighbour", "10.244.1.0"), 1, "{heard:?}");
    assert!(about(&heard, "new link", "flannel.1") > 0, "{heard:?}");
    // IPv6 is more talkative.
    sh("ip link set flannel-v6.1 down");
    assert_eq!(about(&listener.heard(), "del route", ROUTE_V6), 1);
}

fn the_loss_of_ipv4_routes_by_a_deleted_device_is_not_announced() {
    devices_with_a_peer();
    let listener = Listener::start();
    sh("ip link del flannel.1\n ip link del flannel-v6.1");
    let heard = listener.heard();
    assert_eq!(about(&heard, "del route", ROUTE_V4), 0, "{heard:?}");
    assert_eq!(about(&heard, "del route", ROUTE_V6), 1, "{heard:?}");
    assert_eq!(about(&heard, "del link", "flannel.1"), 1, "{heard:?}");
}

fn a_new_mac_drops_the_neighbours_alone() {
    devices_with_a_peer();
    for device in DEVICES {
        sh(&format!("ip link set {device} address 0a:00:00:00:00:77"));
        assert_eq!(count(device), Count { neighbours: 0, ..ALL });
    }
}

fn the_same_mac_again_drops_the_neighbours_too() {
    devices_with_a_peer();
    let mac = super::link("flannel.1")["address"].as_str().unwrap().to_owned();
    sh(&format!("ip link set flannel.1 address {mac}"));
    assert_eq!(count("flannel.1"), Count { neighbours: 0, ..ALL });
}

fn the_last_ipv4_address_takes_routes_and_neighbours_along_without_a_word() {
    devices_with_a_peer();
    let listener = Listener::start();
    sh("ip address del 10.244.0.0/32 dev flannel.1");
    assert_eq!(count("flannel.1"), Count { routes: 0, neighbours: 0, fdb: 1, addresses: 0 });
    let heard = listener.heard();
    assert_eq!(about(&heard, "new link", "") + about(&heard, "del link", ""), 0, "{heard:?}");
    assert_eq!(about(&heard, "del address", "10.244.0.0"), 1, "{heard:?}");
    assert_eq!(about(&heard, "del route", ROUTE_V4), 0, "{heard:?}");
}

fn an_address_that_is_not_the_last_takes_nothing_along() {
    devices_with_a_peer();
    sh("ip address add 10.244.0.7/32 dev flannel.1\n ip address del 10.244.0.0/32 dev flannel.1");
    assert_eq!(count("flannel.1"), ALL);
}

fn an_ipv6_address_takes_nothing_along() {
    devices_with_a_peer();
    sh("ip address del fd00:10:244::/128 dev flannel-v6.1");
    assert_eq!(count("flannel-v6.1"), Count { addresses: 0, ..ALL });
}

fn a_new_mtu_loses_nothing() {
    devices_with_a_peer();
    for device in DEVICES {
        sh(&format!("ip link set {device} mtu 1400"));
        assert_eq!(count(device), ALL);
    }
}

fn an_underlay_that_goes_down_and_up_loses_nothing() {
    devices_with_a_peer();
    let listener = Listener::start();
    sh("ip link set eth0 down");
    assert_eq!(DEVICES.map(count), [ALL, ALL]);
    let heard = listener.heard();
    assert_eq!(about(&heard, "new link", "flannel"), 0, "{heard:?}");
    sh("ip link set eth0 up");
    assert_eq!(DEVICES.map(count), [ALL, ALL]);
}

fn an_underlay_without_its_address_loses_nothing() {
    devices_with_a_peer();
    sh("ip address flush dev eth0");
    assert_eq!(DEVICES.map(count), [ALL, ALL]);
}

fn disabling_ipv6_drops_everything_of_ipv6() {
    devices_with_a_peer();
    let sysctl = "/proc/sys/net/ipv6/conf/flannel-v6.1/disable_ipv6";
    std::fs::write(sysctl, "1").unwrap();
    assert_eq!(count("flannel-v6.1"), Count { routes: 0, neighbours: 0, fdb: 1, addresses: 0 });
    std::fs::write(sysctl, "0").unwrap();
    assert_eq!(count("flannel-v6.1"), Count { routes: 0, neighbours: 0, fdb: 1, addresses: 0 });
}

fn a_rename_loses_nothing() {
    devices_with_a_peer();
    for device in DEVICES {
        sh(&format!("ip link set {device} name elsewhere\n ip link set elsewhere name {device}"));
    }
    assert_eq!(DEVICES.map(count), [ALL, ALL]);
}

fn a_flush_of_neighbours_says_failed_before_it_says_deleted() {
    devices_with_a_peer();
    let listener = Listener::start();
    sh("ip neigh flush dev flannel.1 nud permanent");
    let heard = listener.heard();
    let kinds = heard.iter().map(|Event(kind, of)| (*kind, of.as_str())).collect::<Vec<_>>();
    assert_eq!(kinds, [("new neighbour", "10.244.1.0"), ("del neighbour", "10.244.1.0")]);
}
