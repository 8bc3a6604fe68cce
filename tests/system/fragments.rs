//! A stranger's VXLAN in pieces, cut so that no piece holds both the port and the VNI: made by hand, as no kernel cuts so.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use weft::lab::netns::Namespace;

use crate::cluster::public_ips;
use crate::filter::{delivered_of, forged, mac_of, other_end, start};
use crate::sandbox::try_sh;
use crate::world::{DEVICES, within};

crate::tests![
    a_strangers_pieces_are_put_together_where_the_filter_is_off,
    a_strangers_pieces_are_counted_in_audit,
    a_strangers_pieces_are_dropped_in_enforce,
    a_strangers_pieces_are_dropped_where_connections_are_tracked,
];

/// Packets of each kind.
const SENT: u16 = 5;
const UDP: u8 = 17;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
/// Six bytes of padding; the byte before them names the next header.
const OPTIONS: [u8; 7] = [0, 1, 4, 0, 0, 0, 0];

/// How a packet is cut.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// The first piece ends with the UDP header.
    BeforeVxlan,
    /// The same, and the second piece comes first.
    BackToFront,
    /// One piece, that says it is a fragment (RFC 6946).
    Atomic,
    /// The whole packet, with an extension header before UDP.
    Extended,
    /// The first piece ends before the UDP header, which RFC 8200 (section 4.5) does not allow.
    BeforeUdp,
}

const CUTS_V4: [Cut; 2] = [Cut::BeforeVxlan, Cut::BackToFront];
const CUTS_V6: [Cut; 5] = [Cut::BeforeVxlan, Cut::BackToFront, Cut::Atomic, Cut::Extended, Cut::BeforeUdp];

fn a_strangers_pieces_are_put_together_where_the_filter_is_off() {
    pieces(&["--vtep-filter=off"], true, false);
}

fn a_strangers_pieces_are_counted_in_audit() {
    pieces(&["--vtep-filter=audit"], true, true);
}

fn a_strangers_pieces_are_dropped_in_enforce() {
    pieces(&["--vtep-filter=enforce"], false, true);
}

/// There, IPv6 packets too are put together before the filter.
fn a_strangers_pieces_are_dropped_where_connections_are_tracked() {
    pieces(&["--vtep-filter=enforce", "--ip-masq"], false, true);
}

fn pieces(arguments: &[&str], heard: bool, counted: bool) {
    let _world = start(arguments);
    let peer = public_ips(1);
    let strangers: [IpAddr; 2] = ["172.16.250.9", "fd00:174::bad"].map(|ip| ip.parse().expect("an address"));
    let outside = other_end([peer[0], strangers[0]], [peer[1], strangers[1]]);
    for (family, cuts) in [&CUTS_V4[..], &CUTS_V6[..]].into_iter().enumerate() {
        for cut in cuts {
            // Linux itself throws these away.
            let whole = !matches!(cut, Cut::BeforeUdp);
            let send = |from| delivered_of(DEVICES[family], || send(&outside, *cut, from, public_ips(0)[family]));
            // The first packets may wait for a neighbour.
            within(Duration::from_secs(20), &format!("{arguments:?}: a peer's packets, {cut:?}"), || {
                let wanted = if whole { u64::from(SENT) } else { 0 };
                match send(peer[family]) {
                    got if got == wanted => Ok(()),
                    got => Err(got),
                }
            });
            let before = strangers_packets(family);
            let got = send(strangers[family]);
            assert_eq!(got, if heard && whole { u64::from(SENT) } else { 0 }, "{arguments:?}: a stranger's, {cut:?}");
            let counts = if counted && whole { u64::from(SENT) } else { 0 };
            assert_eq!(strangers_packets(family) - before, counts, "{arguments:?}: counted, {cut:?}");
        }
    }
}

/// What the rule for strangers has counted; 0 without one.
fn strangers_packets(family: usize) -> u64 {
    let family = ["ip", "ip6"][family];
    let text = try_sh(&format!("nft list chain {family} weft unknown_vtep")).unwrap_or_default();
    let after = text.split("counter packets ").nth(1).unwrap_or("0 ");
    after.split(' ').next().and_then(|count| count.parse().ok()).expect("a count")
}

/// Sends some packets, from an address of the other end.
fn send(outside: &Namespace, cut: Cut, from: IpAddr, to: IpAddr) {
    let frame = forged(&mac_of(DEVICES[usize::from(from.is_ipv6())]), 46);
    outside
        .run(|| {
            let raw = Some(Protocol::from(nix::libc::IPPROTO_RAW));
            let socket = Socket::new(Domain::for_address((to, 0).into()), Type::RAW, raw).expect("a raw socket");
            for number in 0..SENT {
                for packet in packets(cut, number, from, to, &frame) {
                    socket.send_to(&packet, &SocketAddr::new(to, 0).into()).expect("to send");
                }
            }
        })
        .expect("the namespace");
}

/// A frame as packets.
fn packets(cut: Cut, number: u16, from: IpAddr, to: IpAddr, frame: &[u8]) -> Vec<Vec<u8>> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => packets_v4(cut, number, from, to, frame),
        (IpAddr::V6(from), IpAddr::V6(to)) => packets_v6(cut, number, from, to, frame),
        _ => panic!("two families"),
    }
}

fn packets_v4(cut: Cut, number: u16, from: Ipv4Addr, to: Ipv4Addr, frame: &[u8]) -> Vec<Vec<u8>> {
    let datagram = udp(&[&from.octets()[..], &to.octets()].concat(), frame);
    let piece = |at: usize, until: usize| {
        let more = if until < datagram.len() { 0x2000 } else { 0 };
        let offset = u16::try_from(at / 8).expect("a short packet") | more;
        // Linux fills in length and checksum.
        let mut packet = vec![0x45, 0, 0, 0];
        packet.extend((0x7000 + number).to_be_bytes());
        packet.extend(offset.to_be_bytes());
        packet.extend([64, UDP, 0, 0]);
        packet.extend([from.octets(), to.octets()].concat());
        packet.extend(&datagram[at..until]);
        packet
    };
    let pieces = vec![piece(0, 8), piece(8, datagram.len())];
    if matches!(cut, Cut::BackToFront) { pieces.into_iter().rev().collect() } else { pieces }
}

fn packets_v6(cut: Cut, number: u16, from: Ipv6Addr, to: Ipv6Addr, frame: &[u8]) -> Vec<Vec<u8>> {
    let datagram = udp(&[&from.octets()[..], &to.octets()].concat(), frame);
    let extended = matches!(cut, Cut::Extended | Cut::BeforeUdp);
    let options = if extended { [&[UDP][..], &OPTIONS].concat() } else { Vec::new() };
    let content = [options, datagram].concat();
    let first = if extended { DESTINATION_OPTIONS } else { UDP };
    let packet = |next: u8, content: &[u8]| {
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend(u16::try_from(content.len()).expect("a short packet").to_be_bytes());
        packet.extend([next, 64]);
        packet.extend([from.octets(), to.octets()].concat());
        packet.extend(content);
        packet
    };
    let piece = |at: usize, until: usize| {
        let offset = u16::try_from(at).expect("a short packet") | u16::from(until < content.len());
        let mut fragment = vec![first, 0];
        fragment.extend(offset.to_be_bytes());
        fragment.extend((0x7000_0000 + u32::from(number)).to_be_bytes());
        fragment.extend(&content[at..until]);
        packet(FRAGMENT, &fragment)
    };
    match cut {
        Cut::BeforeVxlan | Cut::BeforeUdp => vec![piece(0, 8), piece(8, content.len())],
        Cut::BackToFront => vec![piece(8, content.len()), piece(0, 8)],
        Cut::Atomic => vec![piece(0, content.len())],
        Cut::Extended => vec![packet(first, &content)],
    }
}

/// With the checksum that IPv6 asks for.
fn udp(addresses: &[u8], content: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + content.len()).expect("a short packet");
    let mut datagram = [40_000_u16, 8472, len, 0].map(u16::to_be_bytes).concat();
    datagram.extend(content);
    let pseudo = [addresses, &[0, UDP], &len.to_be_bytes(), &datagram].concat();
    let words = pseudo.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !u16::try_from(sum).expect("folded");
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    datagram
}
