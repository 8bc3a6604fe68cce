//! Interfaces: what is observed of them, and the changes to our device.

use nix::libc;
use weft::kernel::Kernel;
use weft::model::addr::{Family, IfName, Mac};
use weft::model::host::{DefaultRoute, LinkKind, Scope, VxlanAttributes};
use weft::model::op::{Dev, LinkOp, Op};
use weft::model::table::Tables;

use crate::sandbox::{json, sh, underlay};
use crate::support::{Node, ip, mac, scope, subnet, vni};

crate::tests![
    every_interface_is_observed_with_its_attributes,
    a_device_is_observed_with_its_attributes,
    a_device_of_another_kind_is_told_apart,
    the_flags_of_addresses_are_observed,
    default_routes_are_observed,
    foreign_routes_inside_the_cluster_network_are_observed,
    the_way_to_an_address_is_observed,
    a_device_without_ipv6_is_told_apart_from_one_with_ipv6_disabled,
    each_change_changes_what_it_says,
    a_deleted_device_is_gone,
    a_change_to_a_device_that_is_gone_is_refused_with_enodev,
    the_kernels_own_words_come_with_a_refusal,
    the_sockets_stay_in_the_namespace_they_were_opened_in,
];

fn every_interface_is_observed_with_its_attributes() {
    let mut node = Node::with_devices();
    sh("ip link add br0 address 0a:00:00:00:00:55 type bridge\n ip link set br0 mtu 1300");
    let host = node.observe();
    let shown = json("ip -j -d link show");
    assert_eq!(host.links.len(), shown.len());
    for (link, shown) in host.links.iter().zip(shown) {
        assert_eq!(link.name.as_str(), shown["ifname"]);
        assert_eq!(u64::from(link.index.0), shown["ifindex"].as_u64().unwrap());
        assert_eq!(u64::from(link.mtu), shown["mtu"].as_u64().unwrap());
        assert_eq!(link.mac.unwrap().to_string(), shown["address"].as_str().unwrap());
        let has = |flag: &str| shown["flags"].as_array().unwrap().contains(&flag.into());
        assert_eq!((link.up, link.loopback), (has("UP"), has("LOOPBACK")));
        assert_eq!(link.addrgen_none, shown["inet6_addr_gen_mode"] == "none");
        assert_eq!(link.ipv6_disabled, Some(false));
        let kind = shown["linkinfo"]["info_kind"].as_str().unwrap_or("");
        match &link.kind {
            LinkKind::Other(word) => assert_eq!(word, kind),
            LinkKind::Vxlan(_) => assert_eq!(kind, "vxlan"),
        }
    }
    assert_eq!(host.link(&IfName::new("br0")).unwrap().mac, Some(Mac([0x0a, 0, 0, 0, 0, 0x55])));
}

fn a_device_is_observed_with_its_attributes() {
    let mut node = Node::with_devices();
    for family in Family::BOTH {
        let spec = node.spec(family);
        let link = node.link(spec.name.as_str());
        let wanted = VxlanAttributes {
            vni: spec.vni,
            port: spec.port,
            underlay: Some(spec.underlay),
            local: Some(spec.local),
            learning: false,
            gbp: false,
            udp_checksum: family == Family::V6,
            ttl: 0,
            special: false,
            alien: false,
        };
        assert_eq!(link.kind, LinkKind::Vxlan(wanted));
        assert_eq!((link.mac, link.mtu, link.up, link.addrgen_none), (Some(spec.mac), spec.mtu, true, true));
        let addresses: Vec<_> = link.addresses.iter().map(|address| (address.ip, address.len)).collect();
        assert_eq!(addresses, [(spec.address, family.bits())]);
    }
}

fn a_device_of_another_kind_is_told_apart() {
    let mut node = Node::new();
    let mut look = |make: &str| {
        sh(make);
        let host = node.observe();
        let kind = host.link(&IfName::new("flannel.1")).unwrap().kind.clone();
        sh("ip link del flannel.1");
        kind
    };
    assert_eq!(look("ip link add flannel.1 type bridge"), LinkKind::Other("bridge".into()));
    for options in
        ["external dstport 4789", "id 1 remote 192.0.2.1 dstport 4789", "id 1 group 239.1.1.1 dev eth0 dstport 4789"]
    {
        let kind = look(&format!("ip link add flannel.1 type vxlan {options}"));
        assert!(matches!(kind, LinkKind::Vxlan(VxlanAttributes { alien: true, .. })), "{options}: {kind:?}");
    }
    let kind = look("ip link add flannel.1 type vxlan id 7 dstport 4789 gbp");
    let wanted = VxlanAttributes {
        vni: weft::model::addr::Vni::new(7).unwrap(),
        port: 4789,
        underlay: None,
        local: None,
        learning: true,
        gbp: true,
        udp_checksum: true,
        ttl: 0,
        special: false,
        alien: false,
    };
    assert_eq!(kind, LinkKind::Vxlan(wanted));
    let kind = look("ip link add flannel.1 type vxlan id 7 dstport 4789 ttl 9");
    assert!(matches!(kind, LinkKind::Vxlan(VxlanAttributes { ttl: 9, special: false, .. })), "{kind:?}");
    for options in ["maxaddress 4", "l2miss", "l3miss", "proxy", "rsc", "gpe external", "remcsumtx", "ttl inherit"] {
        let id = if options.contains("external") { "" } else { "id 7" };
        let kind = look(&format!("ip link add flannel.1 type vxlan {id} dstport 4789 {options}"));
        assert!(matches!(kind, LinkKind::Vxlan(VxlanAttributes { special: true, .. })), "{options}: {kind:?}");
    }
}

fn the_flags_of_addresses_are_observed() {
    let mut node = Node::new();
    sh("ip address flush dev eth0
        ip address add 192.0.2.1/24 dev eth0
        ip address add 192.0.2.2/24 dev eth0
        ip address add 192.0.2.3/32 dev eth0 scope link
        ip address add 192.0.2.4 peer 192.0.2.5/32 dev eth0
        ip address add 2001:db8::1/64 dev eth0 nodad
        ip address add 2001:db8::2/64 dev eth0 nodad valid_lft 1000 preferred_lft 0");
    let link = node.link("eth0");
    let flags = |text: &str| {
        let address = link.addresses.iter().find(|address| address.ip == ip(text)).expect("the address");
        (address.len, address.global, address.permanent, address.deprecated, address.temporary)
    };
    assert_eq!(flags("192.0.2.1"), (24, true, true, false, false));
    assert_eq!(flags("192.0.2.2"), (24, true, true, false, true));
    assert_eq!(flags("192.0.2.3"), (32, false, true, false, false));
    assert_eq!(flags("192.0.2.4"), (32, true, true, false, false));
    assert_eq!(flags("2001:db8::1"), (64, true, true, false, false));
    assert_eq!(flags("2001:db8::2"), (64, true, false, true, false));
}

fn default_routes_are_observed() {
    let mut node = Node::new();
    sh("ip route add default via 192.168.174.9 dev eth0 metric 5
        ip route add default metric 7 nexthop via 192.168.174.9 dev eth0 nexthop via 192.168.174.8 dev eth0
        ip route add unreachable default metric 9
        ip route add default via 192.168.174.9 dev eth0 table 99
        ip -6 route add default via fd00:174::9 dev eth0");
    let eth0 = Some(node.link("eth0").index);
    let defaults = node.observe().defaults;
    let wanted = [(Family::V4, 5), (Family::V4, 7), (Family::V6, 1024)];
    assert_eq!(defaults, wanted.map(|(family, metric)| DefaultRoute { family, oif: eth0, metric }));
}

fn foreign_routes_inside_the_cluster_network_are_observed() {
    let mut node = Node::with_devices();
    sh("ip link add cni0 type bridge
        ip link set cni0 up
        ip address add 10.244.0.1/24 dev cni0
        ip route add 10.244.3.0/24 via 192.168.174.9 dev eth0 proto static metric 4
        ip route add blackhole 10.244.4.0/24
        ip route add 10.245.0.0/24 via 192.168.174.9 dev eth0
        ip route add 10.0.0.0/8 via 192.168.174.9 dev eth0
        ip route add 10.244.5.0/24 via 192.168.174.9 dev eth0 tos 0x10
        ip route add 10.244.6.0/24 via 192.168.174.9 dev eth0 table 99
        ip -6 route add fd00:10:244:3::/64 via fd00:174::9 dev eth0 proto static");
    let host = node.observe();
    let name = |oif: Option<_>| oif.map(|oif| host.link_at(oif).unwrap().name.to_string());
    let mut foreign: Vec<_> = host
        .foreign
        .iter()
        .map(|route| (route.dst, route.metric, name(route.oif), route.protocol))
        .filter(|(dst, ..)| dst.len() != 128)
        .collect();
    foreign.sort();
    let eth0 = || Some("eth0".to_owned());
    assert_eq!(
        foreign,
        [
            (subnet("10.244.0.0/24"), 0, Some("cni0".to_owned()), 2),
            (subnet("10.244.3.0/24"), 4, eth0(), 4),
            (subnet("10.244.4.0/24"), 0, None, 3),
            (subnet("fd00:10:244:3::/64"), 1024, eth0(), 4),
        ]
    );
}

fn the_way_to_an_address_is_observed() {
    let mut node = Node::new();
    let eth0 = node.link("eth0").index;
    sh("ip route add 198.51.100.0/24 via 192.168.174.9 dev eth0\n ip route add unreachable 203.0.113.0/24");
    let mut reach = |to: &str| node.kernel.observe(&Scope { reach: Some(ip(to)), ..scope() }).expect("a look").reach;
    assert_eq!(reach("198.51.100.7"), Some((eth0, ip("192.168.174.1"))));
    assert_eq!(reach("fd00:174::77"), Some((eth0, ip("fd00:174::1"))));
    assert_eq!(reach("203.0.113.7"), None);
    assert_eq!(reach("2001:db8::1"), None);
}

fn a_device_without_ipv6_is_told_apart_from_one_with_ipv6_disabled() {
    let mut node = Node::with_devices();
    let dev = node.dev(Family::V6);
    std::fs::write("/proc/sys/net/ipv6/conf/flannel-v6.1/disable_ipv6", "1").unwrap();
    assert_eq!(node.link("flannel-v6.1").ipv6_disabled, Some(true));
    node.done(&[Op::Link(LinkOp::EnableIpv6(dev.clone()))]);
    assert_eq!(node.link("flannel-v6.1").ipv6_disabled, Some(false));
    sh("ip link set flannel-v6.1 mtu 1279");
    assert_eq!(node.link("flannel-v6.1").ipv6_disabled, None);
    // Then there is no sysctl.
    assert_eq!(node.refused(&Op::Link(LinkOp::EnableIpv6(dev))).errno, libc::ENOENT);
}

fn each_change_changes_what_it_says() {
    let mut node = Node::with_devices();
    underlay("eth1", &["192.168.175.1/24"]);
    let dev = node.dev(Family::V4);
    let to = Dev { index: node.link("eth1").index, name: IfName::new("eth1") };
    node.done(&[
        Op::Link(LinkOp::SetMac(dev.clone(), mac(99))),
        Op::Link(LinkOp::SetMtu(dev.clone(), 1234)),
        Op::Link(LinkOp::SetLocal(dev.clone(), ip("192.168.175.1"))),
        Op::Link(LinkOp::SetUnderlay(dev.clone(), to.clone())),
        Op::Link(LinkOp::SetLearning(dev.clone(), true)),
        Op::Link(LinkOp::SetTtl(dev.clone(), 9)),
        Op::Link(LinkOp::AddAddress(dev.clone(), ip("10.244.9.9"), 24)),
        Op::Link(LinkOp::AddAddress(dev.clone(), ip("10.244.9.9"), 32)),
        Op::Link(LinkOp::DelAddress(dev.clone(), ip("10.244.9.9"), 24)),
        Op::Link(LinkOp::DelAddress(dev.clone(), ip("10.244.0.0"), 32)),
    ]);
    let link = node.link("flannel.1");
    assert_eq!((link.mac, link.mtu), (Some(mac(99)), 1234));
    let addresses: Vec<_> = link.addresses.iter().map(|address| (address.ip, address.len)).collect();
    assert_eq!(addresses, [(ip("10.244.9.9"), 32)]);
    let LinkKind::Vxlan(vxlan) = link.kind else { panic!("a VXLAN device") };
    assert_eq!((vxlan.local, vxlan.underlay, vxlan.learning), (Some(ip("192.168.175.1")), Some(to.index), true));
    assert_eq!(vxlan.ttl, 9);
    assert_eq!(vxlan.vni, vni());
}

fn a_deleted_device_is_gone() {
    let mut node = Node::with_devices();
    let dev = node.dev(Family::V4);
    node.done(&[Op::Link(LinkOp::Delete(dev))]);
    let host = node.observe();
    assert_eq!(host.link(&IfName::new("flannel.1")), None);
    // What may be ours on other interfaces is looked at all the same: there is nothing.
    assert_eq!((host.tables.v4, host.tables.v6.is_some()), (Some(Tables::default()), true));
}

fn a_change_to_a_device_that_is_gone_is_refused_with_enodev() {
    let mut node = Node::with_devices();
    let dev = node.dev(Family::V4);
    sh("ip link del flannel.1");
    for op in [LinkOp::Up(dev.clone()), LinkOp::SetMtu(dev.clone(), 1400), LinkOp::Delete(dev.clone())] {
        assert_eq!(node.refused(&Op::Link(op)).errno, libc::ENODEV);
    }
    assert_eq!(node.refused(&Op::Link(LinkOp::EnableIpv6(dev))).errno, libc::ENOENT);
}

fn the_kernels_own_words_come_with_a_refusal() {
    let mut node = Node::with_devices();
    let mut spec = node.spec(Family::V4);
    spec.name = IfName::new("flannel.2");
    let refusal = node.refused(&Op::Link(LinkOp::Create(spec)));
    assert_eq!(refusal.errno, libc::EEXIST);
    assert!(refusal.text.is_some_and(|text| text.contains("already exists")));
}

fn the_sockets_stay_in_the_namespace_they_were_opened_in() {
    let mut node = Node::with_devices();
    let here = node.observe();
    // The kernel may be used from a thread elsewhere; only sysctls follow the thread.
    let there = crate::sandbox::untouched(|| node.observe()).unwrap();
    assert_eq!(here, there);
}
