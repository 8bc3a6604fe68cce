//! Netlink messages as values: what is sent and what comes back. Pure, so that it can be fuzzed and
//! so that a benchmark can send the very same bytes through a socket of its own.
//!
//! Encoding uses the message types of `netlink-packet-route`. Decoding walks the attributes itself:
//! three tables of thousands of rows are read in every pass, only a few attributes of each matter, and
//! an attribute that a newer kernel adds must never make a table unreadable.

pub mod address;
pub mod frame;
pub mod link;
pub mod neighbour;
pub mod route;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::model::addr::Family;
use crate::model::op::Op;
use crate::model::table::Entry;

/// A message that makes no sense: shorter than its own lengths say, or with a value of the wrong size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {0}")]
pub struct Malformed(pub &'static str);

/// The message for a change, with this sequence number. No acknowledgement is asked for: errors come
/// without; [`request_ack`] asks for one. `None` for the changes that are not made over netlink
/// ([`crate::model::op::LinkOp::EnableIpv6`] is a sysctl).
pub fn encode(op: &Op, seq: u32) -> Option<Vec<u8>> {
    let (message, flags) = match op {
        Op::Link(op) => link::change(op)?,
        Op::Set { dev, entry, replace } => {
            // On our device every neighbour and FDB entry gives way: what holds such a key without being one
            // of our rows is an entry that the kernel made itself while ours was missing, and it would be
            // in the way for ever (`a_neighbour_that_the_kernel_is_resolving_holds_the_key`).
            let exclusive = matches!(entry, Entry::Route(..)) && !replace;
            let flags = NLM_F_CREATE | if exclusive { NLM_F_EXCL } else { NLM_F_REPLACE };
            let message = match entry {
                Entry::Fdb(key, fdb) => RouteNetlinkMessage::NewNeighbour(neighbour::fdb(dev.index, key, fdb)),
                Entry::Neighbour(ip, to) => {
                    RouteNetlinkMessage::NewNeighbour(neighbour::permanent(dev.index, *ip, *to))
                }
                Entry::Route(key, to) => RouteNetlinkMessage::NewRoute(route::wanted(dev.index, key, to)),
            };
            (message, flags)
        }
        Op::Del { dev, entry } => {
            let message = match entry {
                Entry::Fdb(key, fdb) => RouteNetlinkMessage::DelNeighbour(neighbour::fdb_key(dev.index, key, fdb)),
                Entry::Neighbour(ip, _) => RouteNetlinkMessage::DelNeighbour(neighbour::key(dev.index, *ip)),
                Entry::Route(key, seen) => RouteNetlinkMessage::DelRoute(route::seen(dev.index, key, seen)),
            };
            (message, 0)
        }
    };
    Some(request(message, flags, seq))
}

/// The bytes of a request.
pub(super) fn request(message: RouteNetlinkMessage, flags: u16, seq: u32) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = seq;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// Makes the encoded message one that the kernel acknowledges also when it succeeds.
pub fn request_ack(message: &mut [u8]) {
    if let Some(flags) = message.get_mut(6..8) {
        let asked = u16::from_ne_bytes([flags[0], flags[1]]) | NLM_F_ACK;
        flags.copy_from_slice(&asked.to_ne_bytes());
    }
}

pub(super) const fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}
