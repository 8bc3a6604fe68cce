//! How rows are set and deleted.

use super::{ALL, count, devices, devices_with_a_peer, host, refused};
use crate::sandbox::{Listener, batch, json, sh, try_sh, untouched};

crate::tests![
    an_fdb_delete_with_a_wrong_destination_succeeds_and_removes_nothing,
    an_fdb_entry_with_a_port_of_its_own_is_not_found_by_its_destination,
    an_fdb_replace_moves_the_mac_without_a_word,
    an_fdb_append_to_a_unicast_mac_succeeds_and_changes_nothing,
    an_fdb_add_of_a_held_mac_is_refused,
    an_fdb_replace_of_a_zero_or_multicast_mac_is_refused,
    an_fdb_delete_without_a_destination_removes_every_destination,
    an_fdb_entry_keeps_no_protocol_and_a_neighbour_does,
    a_route_replace_takes_a_foreign_route_without_a_word,
    a_route_add_leaves_a_foreign_route_alone,
    a_route_with_another_metric_is_another_route,
    a_route_delete_compares_what_it_names,
    an_ipv4_delete_of_metric_0_takes_any_metric_but_not_another_protocol,
    an_ipv4_delete_of_metric_0_takes_metric_0_first,
    an_ipv6_metric_of_0_is_1024,
    an_appended_ipv4_route_comes_second,
    an_onlink_route_needs_an_ipv4_address_somewhere,
    a_gateway_that_is_our_own_address_is_refused,
    an_ipv6_onlink_gateway_must_not_be_reachable_through_another_device,
    an_ipv6_onlink_gateway_may_have_a_route_of_its_own,
    a_direct_route_and_an_encapsulated_one_take_turns_in_place_but_for_one_way_of_ipv6,
    direct_routes_go_with_the_link_and_the_fallback_stays,
    a_gateway_without_a_route_to_it_needs_onlink,
    a_device_that_is_down_takes_neighbours_and_fdb_entries_but_no_routes,
    a_neighbour_that_the_kernel_is_resolving_holds_the_key,
    permanent_neighbours_are_not_limited_by_gc_thresh3,
    an_identical_replace_is_not_announced,
    a_nexthop_object_hides_its_device_from_a_delete,
    an_fdb_entry_of_a_group_is_not_replaced,
    an_ipv6_append_makes_one_route_of_two,
];

const MAC: &str = "0a:00:00:00:00:01";

fn fdb(mac: &str) -> Vec<String> {
    let rows = json("bridge -j fdb show dev flannel.1");
    let rows = rows.into_iter().filter(|row| row["mac"] == mac);
    rows.map(|row| row["dst"].as_str().unwrap_or("none").to_owned()).collect()
}

fn routes(dst: &str) -> Vec<String> {
    let family = if dst.contains(':') { "-6" } else { "-4" };
    let rows = try_sh(&format!("ip {family} route show {dst}")).unwrap();
    rows.lines().map(|line| line.trim().to_owned()).collect()
}

fn an_fdb_delete_with_a_wrong_destination_succeeds_and_removes_nothing() {
    devices_with_a_peer();
    sh(&format!("bridge fdb del {MAC} dev flannel.1 dst 192.168.174.77 self"));
    assert_eq!(fdb(MAC), ["192.168.174.2"]);
    refused("bridge fdb del 0a:00:00:00:00:99 dev flannel.1 dst 192.168.174.77 self", "No such file");
}

fn an_fdb_entry_with_a_port_of_its_own_is_not_found_by_its_destination() {
    devices();
    sh(&format!("bridge fdb add {MAC} dev flannel.1 dst 192.168.174.2 port 4789 self permanent"));
    sh(&format!("bridge fdb del {MAC} dev flannel.1 dst 192.168.174.2 self"));
    assert_eq!(fdb(MAC), ["192.168.174.2"]);
}

fn an_fdb_replace_moves_the_mac_without_a_word() {
    devices_with_a_peer();
    sh(&format!("bridge fdb replace {MAC} dev flannel.1 dst 192.168.174.3 self permanent"));
    assert_eq!(fdb(MAC), ["192.168.174.3"]);
}

fn an_fdb_append_to_a_unicast_mac_succeeds_and_changes_nothing() {
    devices_with_a_peer();
    sh(&format!("bridge fdb append {MAC} dev flannel.1 dst 192.168.174.3 self permanent"));
    assert_eq!(fdb(MAC), ["192.168.174.2"]);
}

fn an_fdb_add_of_a_held_mac_is_refused() {
    devices_with_a_peer();
    refused(&format!("bridge fdb add {MAC} dev flannel.1 dst 192.168.174.3 self permanent"), "File exists");
}

fn an_fdb_replace_of_a_zero_or_multicast_mac_is_refused() {
    devices();
    for mac in ["00:00:00:00:00:00", "01:00:5e:00:00:01"] {
        refused(&format!("bridge fdb replace {mac} dev flannel.1 dst 192.168.174.3 self permanent"), "not supported");
    }
}

fn an_fdb_delete_without_a_destination_removes_every_destination() {
    devices();
    let zero = "00:00:00:00:00:00";
    sh(&format!(
        "bridge fdb append {zero} dev flannel.1 dst 192.168.174.2 self permanent
         bridge fdb append {zero} dev flannel.1 dst 192.168.174.3 self permanent"
    ));
    assert_eq!(fdb(zero).len(), 2);
    sh(&format!("bridge fdb del {zero} dev flannel.1 self"));
    assert_eq!(fdb(zero).len(), 0);
}

fn an_fdb_entry_keeps_no_protocol_and_a_neighbour_does() {
    devices();
    sh("ip neigh add 10.244.1.0 lladdr 0a:00:00:00:00:01 dev flannel.1 nud permanent protocol 119");
    assert!(try_sh("ip -d neigh show dev flannel.1").unwrap().contains("proto 119"));
    // iproute2 cannot even ask for one on an FDB entry; the kernel drops it (engine tests cover ours).
}

fn a_route_replace_takes_a_foreign_route_without_a_word() {
    devices();
    sh("ip route add 10.244.1.0/24 via 192.168.174.9 dev eth0 proto static
        ip route replace 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink proto 119");
    assert_eq!(routes("10.244.1.0/24"), ["10.244.1.0/24 via 10.244.1.0 dev flannel.1 proto 119 onlink"]);
}

fn a_route_add_leaves_a_foreign_route_alone() {
    devices();
    sh("ip route add 10.244.1.0/24 via 192.168.174.9 dev eth0 proto static");
    refused("ip route add 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink proto 119", "File exists");
    assert_eq!(routes("10.244.1.0/24"), ["10.244.1.0/24 via 192.168.174.9 dev eth0 proto static"]);
}

fn a_route_with_another_metric_is_another_route() {
    devices_with_a_peer();
    sh("ip route replace 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink metric 5");
    assert_eq!(routes("10.244.1.0/24").len(), 2);
}

fn a_route_delete_compares_what_it_names() {
    devices_with_a_peer();
    for (family, dst, device) in [("-4", "10.244.1.0", "flannel.1"), ("-6", "fd00:10:244:1::", "flannel-v6.1")] {
        let len = if family == "-4" { 24 } else { 64 };
        let wrong = if family == "-4" { "10.244.9.0" } else { "fd00:10:244:9::" };
        refused(&format!("ip {family} route del {dst}/{len} via {wrong} dev {device}"), "No such process");
        refused(&format!("ip {family} route del {dst}/{len} via {dst} dev {device} proto 119"), "No such process");
        refused(&format!("ip {family} route del {dst}/{len} via {dst} dev eth0"), "No such process");
        assert_eq!(count(device), ALL);
        sh(&format!("ip {family} route del {dst}/{len} via {dst} dev {device} proto boot"));
    }
    // A neighbour is deleted by its key alone.
    sh("ip neigh del 10.244.1.0 lladdr 0a:00:00:00:00:99 dev flannel.1");
}

fn an_ipv4_delete_of_metric_0_takes_any_metric_but_not_another_protocol() {
    devices();
    sh("ip route add 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink proto 119 metric 7");
    refused("ip route del 10.244.1.0/24 via 10.244.1.0 dev flannel.1 proto boot", "No such process");
    sh("ip route del 10.244.1.0/24 via 10.244.1.0 dev flannel.1 proto 119");
    assert!(routes("10.244.1.0/24").is_empty());
}

fn an_ipv4_delete_of_metric_0_takes_metric_0_first() {
    devices_with_a_peer();
    sh("ip route add 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink metric 7
        ip route del 10.244.1.0/24 via 10.244.1.0 dev flannel.1");
    assert_eq!(routes("10.244.1.0/24"), ["10.244.1.0/24 via 10.244.1.0 dev flannel.1 metric 7 onlink"]);
}

fn an_ipv6_metric_of_0_is_1024() {
    devices_with_a_peer();
    assert_eq!(json("ip -j -6 route show fd00:10:244:1::/64")[0]["metric"], 1024);
}

fn an_appended_ipv4_route_comes_second() {
    devices_with_a_peer();
    sh("ip route append 10.244.1.0/24 via 10.244.9.0 dev flannel.1 onlink");
    assert_eq!(routes("10.244.1.0/24")[0], "10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink");
    // The one in use is the first, and `replace` changes the first.
    sh("ip route replace 10.244.1.0/24 via 10.244.8.0 dev flannel.1 onlink");
    assert_eq!(routes("10.244.1.0/24")[0], "10.244.1.0/24 via 10.244.8.0 dev flannel.1 onlink");
    assert_eq!(routes("10.244.1.0/24").len(), 2);
}

fn an_onlink_route_needs_an_ipv4_address_somewhere() {
    let body = || {
        sh("ip link add eth0 type veth peer name eth0-far
            ip link set eth0 up
            ip link set eth0-far up
            ip link add flannel.1 type vxlan id 1 dev eth0 dstport 8472 nolearning
            ip link set flannel.1 up");
        let route = "ip route add 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink";
        refused(route, "invalid gateway");
        sh("ip address add 10.244.0.0/32 dev flannel.1");
        sh(route);
    };
    untouched(body).unwrap();
}

fn a_gateway_that_is_our_own_address_is_refused() {
    devices();
    sh("ip address add 10.244.1.0/24 dev eth0");
    refused("ip route add 10.244.1.0/25 via 10.244.1.0 dev flannel.1 onlink", "invalid gateway");
}

fn an_ipv6_onlink_gateway_must_not_be_reachable_through_another_device() {
    devices();
    sh("ip -6 route add fd00:10::/32 via fd00:174::9 dev eth0");
    refused("ip -6 route add fd00:10:244:1::/64 via fd00:10:244:1:: dev flannel-v6.1 onlink", "invalid gateway");
    // IPv4 does not look, and a default route does not count.
    sh("ip -6 route del fd00:10::/32
        ip -6 route add default via fd00:174::9 dev eth0
        ip -6 route add fd00:10:244:1::/64 via fd00:10:244:1:: dev flannel-v6.1 onlink
        ip route add 10.0.0.0/8 via 192.168.174.9 dev eth0
        ip route add 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink");
}

fn an_ipv6_onlink_gateway_may_have_a_route_of_its_own() {
    devices();
    let (direct, encapsulated) = (DIRECT[1], ENCAPSULATED[1]);
    sh(&format!("ip -6 route add {direct} metric 1024"));
    refused(&format!("ip -6 route add {encapsulated} metric 5120"), "invalid gateway");
    sh(&format!(
        "ip -6 route add fd00:10:244:1::/128 dev flannel-v6.1
         ip -6 route add {encapsulated} metric 5120"
    ));
    // What stands needs it no more.
    sh("ip -6 route del fd00:10:244:1::/128 dev flannel-v6.1");
    assert_eq!(routes("fd00:10:244:1::/64").len(), 2);
}

const DIRECT: [&str; 2] = ["10.244.1.0/24 via 192.168.174.2 dev eth0", "fd00:10:244:1::/64 via fd00:174::2 dev eth0"];
const ENCAPSULATED: [&str; 2] = [
    "10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink",
    "fd00:10:244:1::/64 via fd00:10:244:1:: dev flannel-v6.1 onlink",
];

fn a_direct_route_and_an_encapsulated_one_take_turns_in_place_but_for_one_way_of_ipv6() {
    devices();
    for (family, direct, encapsulated) in [("-4", DIRECT[0], ENCAPSULATED[0]), ("-6", DIRECT[1], ENCAPSULATED[1])] {
        sh(&format!("ip {family} route add {encapsulated} metric 1024"));
        sh(&format!("ip {family} route replace {direct} metric 1024"));
        let shown = routes(direct.split(' ').next().unwrap());
        assert!(shown.len() == 1 && shown[0].contains("dev eth0"), "{shown:?}");
        let back = format!("ip {family} route replace {encapsulated} metric 1024");
        if family == "-4" {
            sh(&back);
            assert!(routes("10.244.1.0/24")[0].contains("dev flannel.1"));
        } else {
            refused(&back, "invalid gateway");
        }
    }
}

fn direct_routes_go_with_the_link_and_the_fallback_stays() {
    devices();
    sh("ip -6 route add fd00:10:244:1::/128 dev flannel-v6.1");
    for (family, direct, encapsulated) in [("-4", DIRECT[0], ENCAPSULATED[0]), ("-6", DIRECT[1], ENCAPSULATED[1])] {
        sh(&format!("ip {family} route add {direct} metric 1024"));
        sh(&format!("ip {family} route add {encapsulated} metric 5120"));
    }
    sh("ip link set eth0 down
        ip link set eth0 up");
    for (dst, device) in [("10.244.1.0/24", "dev flannel.1 "), ("fd00:10:244:1::/64", "dev flannel-v6.1 ")] {
        let shown = routes(dst);
        assert!(shown.len() == 1 && shown[0].contains(device), "{shown:?}");
    }
}

fn a_gateway_without_a_route_to_it_needs_onlink() {
    devices();
    refused("ip route add 10.244.1.0/24 via 10.244.1.0 dev flannel.1", "invalid gateway");
    refused("ip -6 route add fd00:10:244:1::/64 via fd00:10:244:1:: dev flannel-v6.1", "No route to host");
}

fn a_device_that_is_down_takes_neighbours_and_fdb_entries_but_no_routes() {
    host();
    sh(super::CREATE_V4);
    sh("ip address add 10.244.0.0/32 dev flannel.1");
    sh("ip neigh add 10.244.1.0 lladdr 0a:00:00:00:00:01 dev flannel.1 nud permanent
        bridge fdb add 0a:00:00:00:00:01 dev flannel.1 dst 192.168.174.2 self permanent");
    refused("ip route add 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink", "not up");
    sh("ip link set flannel.1 up");
    // They survive the device's coming up.
    assert_eq!((count("flannel.1").neighbours, count("flannel.1").fdb), (1, 1));
}

fn a_neighbour_that_the_kernel_is_resolving_holds_the_key() {
    devices();
    sh("ip route add 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink");
    // One packet is enough; there is nobody to answer it.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.send_to(b"anybody?", "10.244.1.5:9").unwrap();
    assert_eq!(json("ip -j neigh show dev flannel.1").len(), 1);
    refused("ip neigh add 10.244.1.0 lladdr 0a:00:00:00:00:01 dev flannel.1 nud permanent", "File exists");
    sh("ip neigh replace 10.244.1.0 lladdr 0a:00:00:00:00:01 dev flannel.1 nud permanent");
}

fn permanent_neighbours_are_not_limited_by_gc_thresh3() {
    devices();
    let number = std::fs::read_to_string("/proc/sys/net/ipv4/neigh/default/gc_thresh3").unwrap_or("1024".into());
    let more: u32 = number.trim().parse::<u32>().unwrap() + 500;
    let lines: String = (0..more)
        .map(|n| {
            format!(
                "neigh add 10.{}.{}.{} lladdr {MAC} dev flannel.1 nud permanent\n",
                n >> 16,
                (n >> 8) & 255,
                n & 255
            )
        })
        .collect();
    batch("ip", &lines);
    assert_eq!(count("flannel.1").neighbours, more as usize);
}

fn an_identical_replace_is_not_announced() {
    devices_with_a_peer();
    let listener = Listener::start();
    sh("ip route replace 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink
        ip neigh replace 10.244.1.0 lladdr 0a:00:00:00:00:01 dev flannel.1 nud permanent
        bridge fdb replace 0a:00:00:00:00:01 dev flannel.1 dst 192.168.174.2 self permanent");
    assert_eq!(listener.heard(), []);
}

fn a_nexthop_object_hides_its_device_from_a_delete() {
    devices();
    sh("ip nexthop add id 9 via 10.244.1.0 dev flannel.1 onlink
        ip route add 10.244.1.0/24 nhid 9");
    refused("ip route del 10.244.1.0/24 via 10.244.1.0 dev flannel.1", "No such process");
    sh("ip route del 10.244.1.0/24");
}

fn an_fdb_entry_of_a_group_is_not_replaced() {
    devices();
    sh(&format!(
        "ip nexthop add id 1 via 192.168.174.9 fdb
         ip nexthop add id 10 group 1 fdb
         bridge fdb add {MAC} dev flannel.1 nhid 10
         bridge fdb replace {MAC} dev flannel.1 dst 192.168.174.2 self permanent"
    ));
    assert_eq!(fdb(MAC), ["none"]);
    sh(&format!("bridge fdb del {MAC} dev flannel.1 self"));
    assert_eq!(fdb(MAC), [""; 0]);
}

fn an_ipv6_append_makes_one_route_of_two() {
    devices_with_a_peer();
    sh("ip -6 route append fd00:10:244:1::/64 via fd00:174::2 dev eth0 proto 119 metric 1024");
    assert_eq!(json("ip -6 -j route show fd00:10:244:1::/64").len(), 1);
    sh("ip -6 route del fd00:10:244:1::/64 metric 1024");
    assert_eq!(json("ip -6 -j route show fd00:10:244:1::/64").len(), 0);
}
