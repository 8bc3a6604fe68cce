//! Netlink messages as values: what is sent and what comes back. Pure, so that it can be fuzzed and
//! so that a benchmark can send the very same bytes through a socket of its own.
//!
//! The few messages about links and addresses are built from the types of `netlink-packet-route`. Rows are
//! written by our own `writer`, and everything is read by our own walk over the attributes: a pass reads
//! three tables of thousands of rows of which a few attributes matter, and an attribute that a newer kernel
//! adds must never make a table unreadable.

pub mod address;
pub mod frame;
pub mod link;
pub mod neighbour;
mod question;
pub mod route;
pub(in crate::kernel) mod writer;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use nix::libc::{RTM_DELNEIGH, RTM_DELROUTE, RTM_NEWNEIGH, RTM_NEWROUTE};

use self::writer::Writer;
use crate::model::addr::{Family, IfIndex};
use crate::model::op::Op;
use crate::model::table::Entry;

pub(super) use question::Question;

/// A message that makes no sense: shorter than its own lengths say, or with a value of the wrong size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {0}")]
pub struct Malformed(pub &'static str);

/// Appends the message for a change, with this sequence number, and says whether there is one: a sysctl
/// ([`crate::model::op::LinkOp::EnableIpv6`]) is not written over netlink. No acknowledgement is asked for:
/// errors come without; [`request_ack`] asks for one.
pub fn encode(op: &Op, seq: u32, out: &mut Vec<u8>) -> bool {
    match op {
        Op::Link(op) => {
            let Some((message, flags)) = link::change(op) else { return false };
            append(message, flags, seq, out);
        }
        // nf_tables has a socket of its own.
        Op::Filter(_) => return false,
        Op::Set { dev, entry, replace } => set(dev.index, entry, *replace, seq, out),
        Op::Del { dev, entry } => delete(dev.index, entry, seq, out),
    }
    true
}

/// On our device every neighbour and FDB entry gives way: what holds such a key without being one of our
/// rows is an entry that the kernel made itself while ours was missing, and it would be in the way for ever
/// (`a_neighbour_that_the_kernel_is_resolving_holds_the_key`).
fn set(device: IfIndex, entry: &Entry, replace: bool, seq: u32, out: &mut Vec<u8>) {
    let exclusive = matches!(entry, Entry::Route(..)) && !replace;
    let flags = NLM_F_REQUEST | NLM_F_CREATE | if exclusive { NLM_F_EXCL } else { NLM_F_REPLACE };
    match entry {
        Entry::Fdb(key, to) => neighbour::set_fdb(Writer::begin(out, RTM_NEWNEIGH, flags, seq), device, key, to),
        Entry::Neighbour(ip, to) => neighbour::set(Writer::begin(out, RTM_NEWNEIGH, flags, seq), device, *ip, *to),
        Entry::Route(key, to) => route::set(Writer::begin(out, RTM_NEWROUTE, flags, seq), device, key, to),
    }
}

fn delete(device: IfIndex, entry: &Entry, seq: u32, out: &mut Vec<u8>) {
    match entry {
        Entry::Fdb(key, seen) => {
            neighbour::delete_fdb(Writer::begin(out, RTM_DELNEIGH, NLM_F_REQUEST, seq), device, key, seen);
        }
        Entry::Neighbour(ip, _) => {
            neighbour::delete(Writer::begin(out, RTM_DELNEIGH, NLM_F_REQUEST, seq), device, *ip);
        }
        Entry::Route(key, seen) => {
            route::delete(Writer::begin(out, RTM_DELROUTE, NLM_F_REQUEST, seq), device, key, seen);
        }
    }
}

/// Appends a message of the library's types.
fn append(message: RouteNetlinkMessage, flags: u16, seq: u32, out: &mut Vec<u8>) {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = seq;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let start = out.len();
    out.resize(start + message.buffer_len().next_multiple_of(4), 0);
    if let Some(room) = out.get_mut(start..start + message.buffer_len()) {
        message.serialize(room);
    }
}

/// Makes the encoded message one that the kernel acknowledges also when it succeeds.
pub fn request_ack(message: &mut [u8]) {
    if let Some(flags) = message.get_mut(6..8) {
        let asked = u16::from_ne_bytes([flags[0], flags[1]]) | NLM_F_ACK;
        flags.copy_from_slice(&asked.to_ne_bytes());
    }
}

/// AF_INET or AF_INET6.
pub(super) const fn address_family(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}
