//! Netlink: what the kernel sends, and what it would if it were not the kernel.

use std::net::IpAddr;

use weft::kernel::netlink::wire::frame::{attributes, frames};
use weft::kernel::netlink::wire::neighbour::NeighbourSeen;
use weft::kernel::netlink::wire::route::RouteSeen;
use weft::kernel::netlink::wire::{address, encode, link};
use weft::model::DeviceSpec;
use weft::model::addr::{Family, IfIndex, IfName, Mac, Vni};
use weft::model::op::{Dev, LinkOp, Op};
use weft::model::table::{Entry, Fdb, FdbKey, Neighbour, Route, RouteKey};

use crate::fuzz;

/// Requests have the form of notifications: the same headers, the same attributes.
fn seeds() -> Vec<Vec<u8>> {
    let dev = || Dev { index: IfIndex(7), name: IfName::new("flannel.1") };
    let mac = Mac([0x3a, 0x1f, 0, 0, 0, 1]);
    let mut ops = Vec::new();
    for (ip, subnet, family) in [("192.0.2.1", "10.244.1.0/24", Family::V4), ("2001:db8::1", "fd00:1::/64", Family::V6)]
    {
        let ip: IpAddr = ip.parse().expect("an address");
        let dst = subnet.parse().expect("a subnet");
        let spec = DeviceSpec {
            name: IfName::new("flannel.1"),
            family,
            vni: Vni::new(1).expect("a VNI"),
            port: 8472,
            gbp: true,
            learning: false,
            udp_checksum: false,
            underlay: IfIndex(2),
            underlay_name: IfName::new("eth0"),
            local: ip,
            mtu: 1450,
            mac,
            address: ip,
            network: dst,
        };
        ops.push(Op::Link(LinkOp::Create(spec)));
        ops.push(Op::Link(LinkOp::AddAddress(dev(), ip, 24)));
        for entry in [
            Entry::Fdb(FdbKey::new(mac, ip), Fdb::to(ip)),
            Entry::Neighbour(ip, Neighbour { mac }),
            Entry::Route(RouteKey { dst, metric: 1024 }, Route::through(ip)),
        ] {
            ops.push(Op::Set { dev: dev(), entry, replace: true });
        }
    }
    let mut seeds: Vec<Vec<u8>> = ops
        .iter()
        .zip(1..)
        .filter_map(|(op, seq)| {
            let mut message = Vec::new();
            encode(op, seq, &mut message).then_some(message)
        })
        .collect();
    seeds.push(seeds.concat());
    // A refusal with the kernel's words, and the end of a dump.
    let refusal = b"\x34\0\0\0\x02\0\0\x02\x01\0\0\0\0\0\0\0\xea\xff\xff\xff\x10\0\0\0\x10\0\x05\0\x01\0\0\0\0\0\0\0\x0e\0\x01\0no gateway\0\0";
    seeds.push(refusal.to_vec());
    seeds.push(b"\x14\0\0\0\x03\0\x02\0\x01\0\0\0\0\0\0\0\0\0\0\0".to_vec());
    seeds
}

#[test]
fn datagrams() {
    let seeds = seeds();
    let seeds: Vec<&[u8]> = seeds.iter().map(Vec::as_slice).collect();
    fuzz(&seeds, &["\u{4}\0\u{1}\0", "\0\0\0\0", "\u{8}\0\u{3}\0\u{1}\0\0\0"], |bytes| {
        let mut read = 0;
        for frame in frames(bytes).map_while(Result::ok) {
            read += frame.body.len();
            let _ = (frame.answer(), frame.interrupted());
            let _ = (address::parse(frame.body), link::parse(frame.body));
            if let Ok(Some(route)) = RouteSeen::parse(frame.body) {
                assert!(route.key.dst.len() <= route.key.dst.family().bits());
            }
            if let Ok(row) = NeighbourSeen::parse(frame.body) {
                let _ = (row.permanent(Family::V4), row.permanent(Family::V6), row.fdb());
            }
        }
        assert!(read <= bytes.len(), "frames overlap");
        let values: usize = attributes(bytes).map_while(Result::ok).map(|(_, value)| value.len()).sum();
        assert!(values <= bytes.len(), "attributes overlap");
    });
}
