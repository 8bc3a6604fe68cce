//! Nexthop objects (`struct nhmsg`), which no library of ours knows: one for each peer, and the route
//! that names it.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST};
use nix::libc;
use weft::model::addr::IfIndex;
use weft::model::node::Peer;

/// RTM_NEWNEXTHOP, RTM_DELNEXTHOP, RTM_GETNEXTHOP.
const NEW: u16 = 104;
const DEL: u16 = 105;
const GET: u16 = 106;
/// NHA_ID, NHA_OIF, NHA_GATEWAY, RTA_NH_ID.
const ID: u16 = 1;
const OIF: u16 = 5;
const GATEWAY: u16 = 6;
const ROUTE_ID: u16 = 30;
/// RTNH_F_ONLINK.
const ONLINK: u32 = 4;

/// A nexthop object for each peer, numbered from 1.
pub(crate) fn objects(device: IfIndex, peers: &[Peer]) -> Vec<Vec<u8>> {
    let object = |(peer, id): (&Peer, u32)| {
        let mut message = Message::new(NEW, NLM_F_CREATE | NLM_F_REPLACE, id);
        message.header(&head(ONLINK));
        message.attribute(ID, &id.to_ne_bytes());
        message.attribute(OIF, &device.0.to_ne_bytes());
        message.attribute(GATEWAY, &base(peer));
        message.end()
    };
    peers.iter().zip(1..).map(object).collect()
}

/// Takes the objects away again, and with each the route that names it.
pub(crate) fn removals(count: usize) -> Vec<Vec<u8>> {
    let removal = |id: u32| {
        let mut message = Message::new(DEL, 0, id);
        message.header(&[0; 8]);
        message.attribute(ID, &id.to_ne_bytes());
        message.end()
    };
    (1..).take(count).map(removal).collect()
}

/// The routes through the objects, metric 0, in place of any that has the key.
pub(crate) fn routes(peers: &[Peer]) -> Vec<Vec<u8>> {
    let route = |(peer, id): (&Peer, u32)| {
        let mut message = Message::new(libc::RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, id);
        message.header(&route_head(peer.subnet.len(), 119, libc::RT_SCOPE_UNIVERSE, libc::RTN_UNICAST));
        message.attribute(libc::RTA_DST, &base(peer));
        message.attribute(ROUTE_ID, &id.to_ne_bytes());
        message.end()
    };
    peers.iter().zip(1..).map(route).collect()
}

/// Asks for every nexthop object.
pub(crate) fn dump_objects() -> Vec<u8> {
    let mut message = Message::new(GET, NLM_F_DUMP, 1);
    message.header(&[0; 8]);
    message.end()
}

/// Asks for every IPv4 route of the main table over a device.
pub(crate) fn dump_routes(device: IfIndex) -> Vec<u8> {
    let mut message = Message::new(libc::RTM_GETROUTE, NLM_F_DUMP, 1);
    message.header(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    message.attribute(libc::RTA_TABLE, &u32::from(libc::RT_TABLE_MAIN).to_ne_bytes());
    message.attribute(libc::RTA_OIF, &device.0.to_ne_bytes());
    message.end()
}

/// Sets a device up or down.
pub(crate) fn set_up(device: IfIndex, up: bool) -> Vec<u8> {
    let mut message = Message::new(libc::RTM_NEWLINK, 0, 1);
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&device.0.to_ne_bytes());
    header[8] = u8::from(up);
    header[12] = 1;
    message.header(&header);
    message.end()
}

fn head(flags: u32) -> [u8; 8] {
    let [a, b, c, d] = flags.to_ne_bytes();
    [2, 0, 119, 0, a, b, c, d]
}

const fn route_head(len: u8, protocol: u8, scope: u8, kind: u8) -> [u8; 12] {
    [2, len, 0, 0, libc::RT_TABLE_MAIN, protocol, scope, kind, 0, 0, 0, 0]
}

fn base(peer: &Peer) -> [u8; 4] {
    match peer.subnet.base() {
        std::net::IpAddr::V4(ip) => ip.octets(),
        std::net::IpAddr::V6(_) => panic!("IPv4 only"),
    }
}

/// A message while it is being written.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16, seq: u32) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        bytes.extend(seq.to_ne_bytes());
        bytes.extend([0; 4]);
        Self(bytes)
    }

    fn header(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).expect("a short value");
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn end(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).expect("a short message");
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}
