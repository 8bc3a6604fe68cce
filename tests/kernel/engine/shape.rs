//! What we write is what flannel writes, and what our operations print does what they do.

use serde_json::Value;
use weft::model::addr::Family;
use weft::model::op::{LinkOp, Op};
use weft::model::table::{Entry, PROTOCOL_BOOT, PROTOCOL_WEFT, Route, RouteKey};

use crate::sandbox::{isolated, json, sh, try_sh};
use crate::support::{Node, del, ip, mac, rows, set};

crate::tests![
    a_device_has_flannels_shape,
    the_rows_of_a_peer_have_flannels_shape,
    rows_that_flannel_or_iproute2_made_are_observed_as_plain,
    every_operation_prints_as_the_command_that_does_the_same,
    a_gbp_or_learning_device_is_made_as_told,
];

/// What iproute2 shows of both devices, without what differs between any two namespaces.
fn shown() -> Vec<String> {
    let mut shown = Vec::new();
    for (device, family) in [("flannel.1", "-4"), ("flannel-v6.1", "-6")] {
        if try_sh(&format!("ip link show {device}")).is_err() {
            continue;
        }
        shown.extend(json(&format!("ip -j -d address show dev {device}")));
        shown.extend(json(&format!("ip -j -d {family} route show dev {device}")));
        shown.extend(json(&format!("ip -j -d {family} neigh show dev {device}")));
        shown.extend(json(&format!("bridge -j -d fdb show dev {device}")));
    }
    shown.iter_mut().for_each(forget_numbers);
    let mut lines: Vec<_> = shown.iter().map(ToString::to_string).collect();
    lines.sort();
    lines
}

fn forget_numbers(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for field in ["ifindex", "link_index", "preferred_life_time", "valid_life_time", "num_tx_queues"] {
                fields.remove(field);
            }
            fields.values_mut().for_each(forget_numbers);
        }
        Value::Array(values) => values.iter_mut().for_each(forget_numbers),
        _ => {}
    }
}

fn a_device_has_flannels_shape() {
    let ours = isolated(|| {
        Node::with_devices();
        shown()
    });
    let flannels = isolated(|| {
        Node::new();
        // flannel's netlink messages as commands; addrgenmode none and noudpcsum are our additions.
        sh("ip link add flannel.1 mtu 1450 txqueuelen 0 address 0a:00:00:00:00:20 type vxlan id 1 dev eth0 local 192.168.174.1 ttl 0 tos 0 dstport 8472 nolearning noproxy norsc nol2miss nol3miss noudp6zerocsumtx noudp6zerocsumrx noudpcsum
            ip link add flannel-v6.1 mtu 1430 txqueuelen 0 address 0a:00:00:00:00:80 type vxlan id 1 dev eth0 local fd00:174::1 ttl 0 tos 0 dstport 8472 nolearning noproxy norsc nol2miss nol3miss noudp6zerocsumtx noudp6zerocsumrx
            ip link set flannel.1 addrgenmode none
            ip link set flannel-v6.1 addrgenmode none
            ip link set flannel.1 up
            ip link set flannel-v6.1 up
            ip address add 10.244.0.0/32 dev flannel.1
            ip address add fd00:10:244::/128 dev flannel-v6.1 nodad");
        shown()
    });
    assert_eq!(ours.unwrap(), flannels.unwrap());
}

fn the_rows_of_a_peer_have_flannels_shape() {
    let ours = isolated(|| {
        let mut node = Node::with_devices();
        for family in Family::BOTH {
            let dev = node.dev(family);
            for row in rows(family, 1) {
                node.done(&[set(&dev, flannels(row), false)]);
            }
        }
        shown()
    });
    let flannels = isolated(|| {
        Node::with_devices();
        sh("ip neigh replace 10.244.1.0 lladdr 0a:00:01:00:00:01 dev flannel.1 nud permanent
            bridge fdb replace 0a:00:01:00:00:01 dev flannel.1 dst 172.16.0.1 self permanent
            ip route replace 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink
            ip neigh replace fd00:10:244:1:: lladdr 0a:00:01:00:00:01 dev flannel-v6.1 nud permanent
            bridge fdb replace 0a:00:01:00:00:01 dev flannel-v6.1 dst fd00:174::1 self permanent
            ip -6 route replace fd00:10:244:1::/64 via fd00:10:244:1:: dev flannel-v6.1 onlink");
        shown()
    });
    let ours = ours.unwrap();
    assert_eq!(ours.iter().filter(|row| row.contains("\"mac\":\"0a:00:01:00:00:01\"")).count(), 2);
    assert_eq!(ours, flannels.unwrap());
}

/// A route as flannel makes it: protocol boot, and the metric not named.
fn flannels(row: Entry) -> Entry {
    match row {
        Entry::Route(key, route) => {
            Entry::Route(RouteKey { metric: 0, ..key }, Route { protocol: PROTOCOL_BOOT, ..route })
        }
        other => other,
    }
}

fn rows_that_flannel_or_iproute2_made_are_observed_as_plain() {
    let mut node = Node::with_devices();
    sh("ip neigh add 10.244.1.0 lladdr 0a:00:01:00:00:01 dev flannel.1 nud permanent
        bridge fdb add 0a:00:01:00:00:01 dev flannel.1 dst 172.16.0.1 self permanent
        ip route add 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink
        ip neigh add fd00:10:244:1:: lladdr 0a:00:01:00:00:01 dev flannel-v6.1 nud permanent
        bridge fdb add 0a:00:01:00:00:01 dev flannel-v6.1 dst fd00:174::1 self permanent
        ip -6 route add fd00:10:244:1::/64 via fd00:10:244:1:: dev flannel-v6.1 onlink");
    for (family, metric) in [(Family::V4, 0), (Family::V6, 1024)] {
        let seen: Vec<_> = node.tables(family).entries().collect();
        let wanted = rows(family, 1).map(|row| match flannels(row) {
            Entry::Route(key, route) => Entry::Route(RouteKey { metric, ..key }, route),
            other => other,
        });
        assert_eq!(seen, wanted);
    }
}

fn every_operation_prints_as_the_command_that_does_the_same() {
    let story = |run: fn(&mut Node, &[Op])| {
        isolated(move || {
            let mut node = Node::new();
            for family in Family::BOTH {
                let spec = node.spec(family);
                let address = spec.address;
                run(&mut node, &[Op::Link(LinkOp::Create(spec))]);
                let dev = node.dev(family);
                // addrgenmode has a command of its own after the device is made: both as two lines.
                run(
                    &mut node,
                    &[
                        Op::Link(LinkOp::AddrGenNone(dev.clone())),
                        Op::Link(LinkOp::SetMac(dev.clone(), mac(77))),
                        Op::Link(LinkOp::SetMtu(dev.clone(), 1400)),
                        Op::Link(LinkOp::SetLearning(dev.clone(), true)),
                        Op::Link(LinkOp::SetTtl(dev.clone(), if family == Family::V4 { 9 } else { 0 })),
                        Op::Link(LinkOp::EnableIpv6(dev.clone())),
                        Op::Link(LinkOp::Up(dev.clone())),
                        Op::Link(LinkOp::AddAddress(dev.clone(), address, family.bits())),
                    ],
                );
                for number in 1..4 {
                    let ops = rows(family, number).map(|row| set(&dev, row, false));
                    run(&mut node, &ops);
                }
                run(&mut node, &rows(family, 2).map(|row| set(&dev, row, true)));
                let [fdb, neighbour, route] = rows(family, 3);
                run(&mut node, &[del(&dev, route), del(&dev, neighbour), del(&dev, fdb)]);
            }
            let dev = node.dev(Family::V4);
            let local = ip("192.168.174.9");
            run(&mut node, &[Op::Link(LinkOp::SetLocal(dev.clone(), local))]);
            run(&mut node, &[Op::Link(LinkOp::AddAddress(dev.clone(), local, 32))]);
            run(&mut node, &[Op::Link(LinkOp::DelAddress(dev, local, 32))]);
            shown()
        })
    };
    let done = story(Node::done);
    let printed = story(|_, ops| {
        for op in ops {
            match op {
                Op::Link(LinkOp::EnableIpv6(dev)) => {
                    assert_eq!(
                        op.to_string(),
                        format!("sysctl net.ipv6.conf.{}.disable_ipv6=0", dev.name.as_str().replace('.', "/"))
                    );
                }
                _ => sh(&op.to_string()),
            }
        }
    });
    let done = done.unwrap();
    let ours = format!("\"protocol\":\"{PROTOCOL_WEFT}\"");
    assert!(done.iter().any(|row| row.contains(&ours)), "{done:#?}");
    assert_eq!(done, printed.unwrap());
}

fn a_gbp_or_learning_device_is_made_as_told() {
    let mut node = Node::new();
    let mut spec = node.spec(Family::V4);
    (spec.gbp, spec.learning, spec.port) = (true, true, 4789);
    node.done(&[Op::Link(LinkOp::Create(spec))]);
    let link = json("ip -j -d link show flannel.1").remove(0);
    let data = &link["linkinfo"]["info_data"];
    assert_eq!((&data["gbp"], &data["learning"], &data["port"]), (&true.into(), &true.into(), &4789.into()));
    assert_eq!(link["flags"].as_array().map(|flags| flags.contains(&"UP".into())), Some(false));
}
