//! Routes, neighbours and FDB entries: what is observed is what is there.

use nix::libc;
use weft::model::addr::Family;
use weft::model::op::Op;
use weft::model::table::{Entry, Route, RouteKey, Tables, peer_metric};

use crate::sandbox::{Listener, json, sh, try_sh};
use crate::support::{Node, del, ip, peers, rows, set, sets, subnet};

crate::tests![
    five_thousand_peers_are_applied_and_observed,
    what_is_observed_can_be_deleted,
    a_value_is_replaced_in_place,
    a_foreign_route_is_not_overwritten,
    a_row_in_place_of_which_the_kernel_made_an_entry_is_set_all_the_same,
    rows_that_the_kernel_made_itself_are_not_ours,
    rows_with_more_to_them_are_not_plain,
    rows_that_are_not_plain_can_be_deleted,
    rows_that_are_not_plain_are_deleted_by_what_is_printed_too,
    only_flannels_route_goes_when_flannels_route_is_deleted,
    routes_with_a_tos_or_in_other_tables_do_not_count,
    the_first_of_two_routes_with_one_key_counts,
    a_link_that_loses_its_carrier_leaves_the_rows_plain,
    what_is_deleted_twice_is_refused,
    an_identical_row_writes_nothing,
    a_gateway_of_the_other_family_stays_one,
];

const PEERS: u32 = 5000;

fn five_thousand_peers_are_applied_and_observed() {
    let mut node = Node::with_devices();
    for family in Family::BOTH {
        let dev = node.dev(family);
        let wanted = peers(family, PEERS);
        node.done(&sets(&dev, wanted.entries()));
        assert_eq!(node.tables(family), wanted);
        let device = dev.name.as_str();
        let option = if family == Family::V4 { "-4" } else { "-6" };
        let routes = json(&format!("ip -j {option} route show dev {device} proto 119"));
        let neighbours = json(&format!("ip -j {option} neigh show dev {device} nud permanent"));
        let fdb = json(&format!("bridge -j fdb show dev {device}"));
        assert_eq!([routes.len(), neighbours.len(), fdb.len()], [PEERS as usize; 3]);
    }
    assert_eq!(node.kernel.counters().answers_lost, 0);
}

fn what_is_observed_can_be_deleted() {
    let mut node = Node::with_devices();
    for family in Family::BOTH {
        let dev = node.dev(family);
        node.done(&sets(&dev, peers(family, 200).entries()));
        let seen = node.tables(family);
        let ops: Vec<Op> = seen.entries().map(|row| del(&dev, row)).collect();
        node.done(&ops);
        assert_eq!(node.tables(family), Tables::default());
    }
}

fn a_value_is_replaced_in_place() {
    let mut node = Node::with_devices();
    for family in Family::BOTH {
        let dev = node.dev(family);
        node.done(&sets(&dev, rows(family, 1)));
        let [Entry::Fdb(key, _), Entry::Neighbour(at, _), Entry::Route(to, _)] = rows(family, 1) else { panic!() };
        let [Entry::Fdb(_, fdb), Entry::Neighbour(other, neighbour), _] = rows(family, 2) else { panic!() };
        let new = [
            Entry::Fdb(key, fdb),
            Entry::Neighbour(at, neighbour),
            Entry::Route(to, Route { protocol: 99, ..Route::through(other) }),
        ];
        node.done(&new.map(|row| set(&dev, row, true)));
        assert_eq!(node.tables(family).entries().collect::<Vec<_>>(), new);
    }
}

fn a_foreign_route_is_not_overwritten() {
    let mut node = Node::with_devices();
    let dev = node.dev(Family::V4);
    let dst = subnet("10.244.1.0/24");
    let metric = peer_metric(dst);
    sh(&format!("ip route add {dst} via 192.168.174.9 dev eth0 metric {metric}"));
    let refusal = node.refused(&set(&dev, rows(Family::V4, 1)[2], false));
    assert_eq!(refusal.errno, libc::EEXIST);
    assert_eq!(json(&format!("ip -j route show {dst}"))[0]["dev"], "eth0");
}

fn a_row_in_place_of_which_the_kernel_made_an_entry_is_set_all_the_same() {
    let mut node = Node::with_devices();
    let dev = node.dev(Family::V4);
    let [fdb, neighbour, route] = rows(Family::V4, 1);
    node.done(&[set(&dev, route, false)]);
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.send_to(b"anybody?", "10.244.1.5:9").unwrap();
    assert_eq!(json("ip -j neigh show dev flannel.1").len(), 1);
    let Entry::Fdb(key, _) = fdb else { panic!() };
    sh(&format!("bridge fdb add {} dev flannel.1 dst 192.0.2.9 self dynamic", key.mac));
    assert_eq!(node.tables(Family::V4).len(), 1);
    node.done(&[set(&dev, fdb, false), set(&dev, neighbour, false)]);
    assert_eq!(node.tables(Family::V4).entries().collect::<Vec<_>>(), [fdb, neighbour, route]);
}

fn rows_that_the_kernel_made_itself_are_not_ours() {
    let mut node = Node::with_devices();
    sh("ip neigh add 10.244.1.0 lladdr 0a:00:00:00:00:01 dev flannel.1 nud reachable
        ip neigh add proxy 10.244.2.0 dev flannel.1
        bridge fdb add 0a:00:00:00:00:01 dev flannel.1 dst 192.0.2.9 self dynamic
        ip address add 10.244.7.1/24 dev flannel.1");
    assert_eq!(node.tables(Family::V4), Tables::default());
}

fn rows_with_more_to_them_are_not_plain() {
    let mut node = Node::with_devices();
    sh("ip route add 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink src 10.244.0.0
        ip route add 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink mtu 1400
        ip route add 10.244.3.0/24 dev flannel.1
        ip route add 10.244.4.0/24 nexthop via 10.244.4.0 dev flannel.1 onlink nexthop via 10.244.5.0 dev flannel.1 onlink
        ip nexthop add id 6 via 10.244.6.0 dev flannel.1 onlink
        ip route add 10.244.6.0/24 nhid 6
        bridge fdb add 0a:00:00:00:00:01 dev flannel.1 dst 192.0.2.1 port 4789 self permanent
        bridge fdb add 0a:00:00:00:00:02 dev flannel.1 dst 192.0.2.2 vni 9 self permanent
        bridge fdb add 0a:00:00:00:00:03 dev flannel.1 dst 192.0.2.3 via eth0 self permanent
        bridge fdb add 0a:00:00:00:00:04 dev flannel.1 dst 192.0.2.4 self static
        ip -6 route add fd00:10:244:1::/64 via fd00:10:244:1:: dev flannel-v6.1 onlink expires 1000
        ip -6 route add fd00:10:244:2::/64 via fd00:10:244:2:: dev flannel-v6.1 onlink pref high
        ip -6 route add fd00:10:244:3::/64 via fd00:10:244:3:: dev flannel-v6.1 onlink
        ip -6 route append fd00:10:244:3::/64 via fd00:10:244:4:: dev flannel-v6.1 onlink");
    let v4 = node.tables(Family::V4);
    assert_eq!(v4.routes.len(), 5);
    for (key, route) in &v4.routes {
        assert!(!route.plain, "{key:?} {route:?}");
    }
    assert_eq!(v4.fdb.len(), 4);
    for (key, fdb) in &v4.fdb {
        assert!(!fdb.plain, "{key:?} {fdb:?}");
    }
    let v6 = node.tables(Family::V6);
    assert_eq!(v6.routes.len(), 3);
    for (key, route) in &v6.routes {
        assert!(!route.plain, "{key:?} {route:?}");
    }
}

fn rows_that_are_not_plain_can_be_deleted() {
    delete_rows_with_more_to_them(Node::done);
}

fn rows_that_are_not_plain_are_deleted_by_what_is_printed_too() {
    // The two flood entries are one MAC's: the first command takes both.
    delete_rows_with_more_to_them(|_, ops| ops.iter().for_each(|op| drop(try_sh(&op.to_string()))));
}

fn delete_rows_with_more_to_them(delete: impl Fn(&mut Node, &[Op])) {
    let mut node = Node::with_devices();
    rows_with_more_to_them(&mut node);
    for family in Family::BOTH {
        let dev = node.dev(family);
        let ops: Vec<Op> = node.tables(family).entries().map(|row| del(&dev, row)).collect();
        assert!(!ops.is_empty());
        delete(&mut node, &ops);
        assert_eq!(node.tables(family), Tables::default(), "{ops:#?}");
    }
}

fn rows_with_more_to_them(_: &mut Node) {
    sh("ip route add 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink src 10.244.0.0
        ip route add 10.244.3.0/24 dev flannel.1 metric 3
        ip route add 10.244.4.0/24 nexthop via 10.244.4.0 dev flannel.1 onlink nexthop via 10.244.5.0 dev flannel.1 onlink
        ip nexthop add id 6 via 10.244.6.0 dev flannel.1 onlink
        ip route add 10.244.6.0/24 nhid 6
        bridge fdb add 0a:00:00:00:00:01 dev flannel.1 dst 192.0.2.1 port 4789 vni 7 self permanent
        bridge fdb add 0a:00:00:00:00:04 dev flannel.1 dst 192.0.2.4 self static
        bridge fdb append 00:00:00:00:00:00 dev flannel.1 dst 192.0.2.4 self permanent
        bridge fdb append 00:00:00:00:00:00 dev flannel.1 dst 192.0.2.5 self permanent
        ip -6 route add fd00:10:244:2::/64 via fd00:10:244:2:: dev flannel-v6.1 onlink pref high
        ip -6 route add fd00:10:244:3::/64 via fd00:10:244:3:: dev flannel-v6.1 onlink
        ip -6 route append fd00:10:244:3::/64 via fd00:10:244:4:: dev flannel-v6.1 onlink
        ip -6 route add fd00:10:244:5::/64 dev flannel-v6.1");
}

fn only_flannels_route_goes_when_flannels_route_is_deleted() {
    let mut node = Node::with_devices();
    let dev = node.dev(Family::V4);
    let ours = rows(Family::V4, 1)[2];
    node.done(&[set(&dev, ours, false)]);
    // Somebody was faster: the route to delete is gone, and ours fits its destination and gateway.
    let Entry::Route(RouteKey { dst, .. }, route) = ours else { panic!() };
    let flannels = Entry::Route(RouteKey { dst, metric: 0 }, Route { protocol: 3, ..route });
    assert_eq!(node.refused(&del(&dev, flannels)).errno, libc::ESRCH);
    assert_eq!(node.tables(Family::V4).entries().collect::<Vec<_>>(), [ours]);
}

fn routes_with_a_tos_or_in_other_tables_do_not_count() {
    let mut node = Node::with_devices();
    sh("ip route add 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink tos 0x10
        ip route add 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink table 99
        ip route add 10.244.3.0/24 via 10.244.3.0 dev flannel.1 onlink table 4000
        ip -6 route add fd00:10:244:2::/64 via fd00:10:244:2:: dev flannel-v6.1 onlink table 99");
    let host = node.observe();
    assert_eq!([host.tables.v4, host.tables.v6], [Some(Tables::default()), Some(Tables::default())]);
    assert!(host.foreign.iter().all(|route| route.dst.len() == 128), "{:?}", host.foreign);
}

fn the_first_of_two_routes_with_one_key_counts() {
    let mut node = Node::with_devices();
    sh("ip route add 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink metric 3 proto 119
        ip route append 10.244.1.0/24 via 10.244.9.0 dev flannel.1 onlink metric 3 proto 119");
    let tables = node.tables(Family::V4);
    let key = RouteKey { dst: subnet("10.244.1.0/24"), metric: 3 };
    assert_eq!(tables.routes.into_iter().collect::<Vec<_>>(), [(key, Route::through(ip("10.244.1.0")))]);
}

fn a_link_that_loses_its_carrier_leaves_the_rows_plain() {
    let mut node = Node::with_devices();
    for family in Family::BOTH {
        let dev = node.dev(family);
        node.done(&sets(&dev, rows(family, 1)));
        sh(&format!("ip link set {} protodown on", dev.name));
        let option = if family == Family::V4 { "-4" } else { "-6" };
        assert!(try_sh(&format!("ip {option} route show dev {}", dev.name)).unwrap().contains("linkdown"));
        assert_eq!(node.tables(family).entries().collect::<Vec<_>>(), rows(family, 1));
    }
}

fn what_is_deleted_twice_is_refused() {
    let mut node = Node::with_devices();
    for family in Family::BOTH {
        let dev = node.dev(family);
        let errnos = rows(family, 1).map(|row| node.refused(&del(&dev, row)).errno);
        assert_eq!(errnos, [libc::ENOENT, libc::ENOENT, libc::ESRCH]);
    }
}

fn an_identical_row_writes_nothing() {
    let mut node = Node::with_devices();
    let dev = node.dev(Family::V4);
    node.done(&sets(&dev, rows(Family::V4, 1)));
    let listener = Listener::start();
    node.done(&rows(Family::V4, 1).map(|row| set(&dev, row, true)));
    assert_eq!(listener.heard(), []);
}

fn a_gateway_of_the_other_family_stays_one() {
    let mut node = Node::with_devices();
    let dev = node.dev(Family::V4);
    let key = RouteKey { dst: subnet("10.244.1.0/24"), metric: 7 };
    node.done(&[set(&dev, Entry::Route(key, Route::through(ip("fd00:10:244:1::"))), false)]);
    let shown = json("ip -j route show 10.244.1.0/24").remove(0);
    assert_eq!(shown["via"]["host"], "fd00:10:244:1::");
    let seen = node.tables(Family::V4).routes[&key];
    assert_eq!((seen.via, seen.plain), (None, false));
}
