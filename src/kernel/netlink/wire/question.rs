//! What the kernel is asked.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use nix::libc::{RTM_GETNEIGH, RTM_GETROUTE};

use super::writer::Writer;
use super::{append, link, neighbour, route};
use crate::model::addr::{Family, IfIndex};

/// A question. Filters are part of it, and part of the answer's reader too: Linux before 4.20 knows none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Question {
    /// Every interface.
    Links,
    /// Every address.
    Addresses,
    /// The main table of a family.
    Routes(Family),
    /// The neighbours of a device.
    Neighbours(IfIndex, Family),
    /// The FDB of a device.
    Fdb(IfIndex),
    /// The route that a packet to this address would take.
    RouteTo(IpAddr),
}

impl Question {
    /// What is asked for, in an error message.
    pub(in super::super) const fn what(&self) -> &'static str {
        match self {
            Self::Links => "links",
            Self::Addresses => "addresses",
            Self::Routes(_) => "routes",
            Self::Neighbours(..) => "neighbours",
            Self::Fdb(_) => "FDB",
            Self::RouteTo(_) => "the route to an address",
        }
    }

    /// The message.
    pub(in super::super) fn encode(&self, seq: u32) -> Vec<u8> {
        let flags = NLM_F_REQUEST | NLM_F_DUMP;
        let mut out = Vec::new();
        let to = &mut out;
        match *self {
            Self::Links => append(RouteNetlinkMessage::GetLink(link::dump()), flags, seq, to),
            Self::Addresses => append(RouteNetlinkMessage::GetAddress(AddressMessage::default()), flags, seq, to),
            Self::Routes(family) => route::dump(Writer::begin(to, RTM_GETROUTE, flags, seq), family),
            Self::Neighbours(of, family) => neighbour::dump(Writer::begin(to, RTM_GETNEIGH, flags, seq), of, family),
            Self::Fdb(of) => neighbour::dump_fdb(Writer::begin(to, RTM_GETNEIGH, flags, seq), of),
            Self::RouteTo(ip) => route::look_up(Writer::begin(to, RTM_GETROUTE, NLM_F_REQUEST, seq), ip),
        }
        out
    }
}
