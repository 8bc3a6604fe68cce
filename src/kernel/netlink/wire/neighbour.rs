//! Neighbours and FDB entries: Linux carries both in the same message (`struct ndmsg`); the FDB's
//! family is AF_BRIDGE.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourHeader, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::RouteType;
use nix::libc;

use super::frame::{attributes, ip, u8_at, u16_at, u32_at};
use super::{Malformed, address_family};
use crate::model::addr::{Family, IfIndex, Mac};
use crate::model::table::{Fdb, FdbKey, Neighbour};

/// `struct ndmsg`.
const HEADER: usize = 12;
/// NDA_NH_ID, which libc does not have.
const NDA_NH_ID: u16 = 13;

/// A row of the neighbour table or of an FDB, with what decides whether it is one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourSeen<'a> {
    /// AF_INET, AF_INET6 or AF_BRIDGE.
    pub family: u8,
    /// The device.
    pub device: IfIndex,
    /// NUD_* bits.
    pub state: u16,
    /// NTF_* bits.
    pub flags: u8,
    /// NDA_DST: the neighbour's address, or the FDB entry's outer destination.
    pub dst: Option<&'a [u8]>,
    /// NDA_LLADDR.
    pub lladdr: Option<&'a [u8]>,
    /// Whether the FDB entry has a port, VNI, interface or nexthop group of its own.
    pub special: bool,
}

impl<'a> NeighbourSeen<'a> {
    /// Reads the body of RTM_NEWNEIGH.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let header = || {
            let device = IfIndex(u32_at(body, 4)?);
            Some((u8_at(body, 0)?, device, u16_at(body, 8)?, u8_at(body, 10)?, body.get(HEADER..)?))
        };
        let (family, device, state, flags, rest) = header().ok_or(Malformed("neighbour"))?;
        let mut seen = Self { family, device, state, flags, dst: None, lladdr: None, special: false };
        for attribute in attributes(rest) {
            match attribute? {
                (libc::NDA_DST, value) => seen.dst = Some(value),
                (libc::NDA_LLADDR, value) => seen.lladdr = Some(value),
                (libc::NDA_PORT | libc::NDA_VNI | libc::NDA_IFINDEX | NDA_NH_ID, _) => seen.special = true,
                _ => {}
            }
        }
        Ok(seen)
    }

    /// The row if it is a permanent neighbour of the family. A proxy entry is none, nor is one that the
    /// kernel resolved.
    pub fn permanent(&self, of: Family) -> Result<Option<(IpAddr, Neighbour)>, Malformed> {
        let wanted = self.family == u8::from(address_family(of))
            && self.state & libc::NUD_PERMANENT != 0
            && self.flags & libc::NTF_PROXY == 0;
        let (true, Some(dst), Some(mac)) = (wanted, self.dst, self.mac()) else { return Ok(None) };
        Ok(Some((ip(dst)?, Neighbour { mac })))
    }

    /// The row if it is a static FDB entry of a VXLAN device. One that the device learned is none; nor
    /// is one that a bridge keeps for it (`master`).
    pub fn fdb(&self) -> Result<Option<(FdbKey, Fdb)>, Malformed> {
        let wanted = libc::c_int::from(self.family) == libc::AF_BRIDGE
            && self.state & (libc::NUD_PERMANENT | libc::NUD_NOARP) != 0
            && self.flags & libc::NTF_SELF != 0;
        let (true, Some(mac)) = (wanted, self.mac()) else { return Ok(None) };
        let permanent = self.state & libc::NUD_PERMANENT != 0 && self.flags == libc::NTF_SELF;
        let plain = permanent && !self.special && self.dst.is_some();
        // An entry of a nexthop group has no address; it holds the MAC all the same.
        let dst = self.dst.map_or(Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), ip)?;
        Ok(Some((FdbKey::new(mac, dst), Fdb { dst, plain })))
    }

    fn mac(&self) -> Option<Mac> {
        self.lladdr.and_then(|bytes| bytes.try_into().ok()).map(Mac)
    }
}

/// The neighbour as flannel makes it: permanent, type unicast, no flags.
pub(super) fn permanent(device: IfIndex, ip: IpAddr, to: Neighbour) -> NeighbourMessage {
    let mut message = key(device, ip);
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(to.mac.0.to_vec()));
    message
}

/// What is needed to delete a neighbour.
pub(super) fn key(device: IfIndex, ip: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header = NeighbourHeader {
        family: address_family(Family::of(ip)),
        ifindex: device.0,
        kind: RouteType::Unicast,
        ..NeighbourHeader::default()
    };
    message.attributes.push(destination(ip));
    message
}

/// The FDB entry as flannel makes it: `self permanent`, nothing but a MAC and a destination.
pub(super) fn fdb(device: IfIndex, key: &FdbKey, to: &Fdb) -> NeighbourMessage {
    let mut message = bridge(device);
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(key.mac.0.to_vec()));
    message.attributes.push(destination(to.dst));
    message
}

/// What is needed to delete an FDB entry. The kernel takes a destination that it does not find for a
/// success and removes nothing (`fdb_delete_with_a_wrong_destination_succeeds_and_removes_nothing`); with
/// a port or VNI of its own the entry is not found by its address. So the destination is named only for a
/// plain entry: for any other, all destinations of the MAC go.
pub(super) fn fdb_key(device: IfIndex, key: &FdbKey, seen: &Fdb) -> NeighbourMessage {
    let mut message = bridge(device);
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(key.mac.0.to_vec()));
    if seen.plain {
        message.attributes.push(destination(seen.dst));
    }
    message
}

fn bridge(device: IfIndex) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header = NeighbourHeader {
        family: AddressFamily::Bridge,
        ifindex: device.0,
        flags: NeighbourFlags::Own,
        ..NeighbourHeader::default()
    };
    message
}

fn destination(ip: IpAddr) -> NeighbourAttribute {
    NeighbourAttribute::Destination(match ip {
        IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
        IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
    })
}

/// A dump request for the permanent and other neighbours of one device. The device is an attribute:
/// in the header it is refused under strict checking.
pub(in super::super) fn dump_neighbours(device: IfIndex, family: Family) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = address_family(family);
    message.attributes.push(NeighbourAttribute::IfIndex(device.0));
    message
}

/// A dump request for the FDB of one device.
pub(in super::super) fn dump_fdb(device: IfIndex) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = device.0;
    message
}
