//! Neighbours and FDB entries: Linux carries both in the same message (`struct ndmsg`); the FDB's
//! family is AF_BRIDGE.

use std::net::IpAddr;

use nix::libc;

use super::frame::{attributes, ip, u8_at, u16_at, u32_at};
use super::writer::Writer;
use super::{Malformed, address_family};
use crate::model::addr::{Family, IfIndex, Mac};
use crate::model::table::{Fdb, FdbKey, Neighbour};

/// `struct ndmsg`.
const HEADER: usize = 12;
/// NDA_NH_ID, which libc does not have.
const NDA_NH_ID: u16 = 13;
/// `libc::AF_BRIDGE`, in the size of the header's field.
const AF_BRIDGE: u8 = 7;

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
        let wanted = self.family == address_family(of)
            && self.state & libc::NUD_PERMANENT != 0
            && self.flags & libc::NTF_PROXY == 0;
        let (true, Some(dst), Some(mac)) = (wanted, self.dst, self.mac()) else { return Ok(None) };
        Ok(Some((ip(dst)?, Neighbour { mac })))
    }

    /// The row if it is a static FDB entry of a VXLAN device. One that the device learned is none; nor
    /// is one that a bridge keeps for it (`master`).
    pub fn fdb(&self) -> Result<Option<(FdbKey, Fdb)>, Malformed> {
        let wanted = self.family == AF_BRIDGE
            && self.state & (libc::NUD_PERMANENT | libc::NUD_NOARP) != 0
            && self.flags & libc::NTF_SELF != 0;
        let (true, Some(mac)) = (wanted, self.mac()) else { return Ok(None) };
        let permanent = self.state & libc::NUD_PERMANENT != 0 && self.flags == libc::NTF_SELF;
        let plain = permanent && !self.special && self.dst.is_some();
        // Without an address it holds the MAC all the same.
        let fdb = self.dst.map_or(Ok(Fdb::of_a_group()), |dst| ip(dst).map(|dst| Fdb { dst, plain }))?;
        Ok(Some((FdbKey::new(mac, fdb.dst), fdb)))
    }

    fn mac(&self) -> Option<Mac> {
        self.lladdr.and_then(|bytes| bytes.try_into().ok()).map(Mac)
    }
}

/// Appends the neighbour as flannel makes it: permanent, type unicast, no flags.
pub(super) fn set(message: Writer<'_>, device: IfIndex, ip: IpAddr, to: Neighbour) {
    named(message, device, ip, libc::NUD_PERMANENT).attribute(libc::NDA_LLADDR, &to.mac.0).end();
}

/// Appends what is needed to delete a neighbour.
pub(super) fn delete(message: Writer<'_>, device: IfIndex, ip: IpAddr) {
    named(message, device, ip, 0).end();
}

fn named(message: Writer<'_>, device: IfIndex, ip: IpAddr, state: u16) -> Writer<'_> {
    let family = address_family(Family::of(ip));
    message.fixed(&header(family, device, state, 0, libc::RTN_UNICAST)).address(libc::NDA_DST, ip)
}

/// Appends the FDB entry as flannel makes it: `self permanent`, nothing but a MAC and a destination.
pub(super) fn set_fdb(message: Writer<'_>, device: IfIndex, key: &FdbKey, to: &Fdb) {
    bridge(message, device, key, libc::NUD_PERMANENT).address(libc::NDA_DST, to.dst).end();
}

/// Appends what is needed to delete an FDB entry. The kernel takes a destination that it does not find for
/// a success and removes nothing (`an_fdb_delete_with_a_wrong_destination_succeeds_and_removes_nothing`);
/// with a port or VNI of its own the entry is not found by its address. So the destination is named only
/// for a plain entry: for any other, all destinations of the MAC go.
pub(super) fn delete_fdb(message: Writer<'_>, device: IfIndex, key: &FdbKey, seen: &Fdb) {
    let message = bridge(message, device, key, 0);
    if seen.plain { message.address(libc::NDA_DST, seen.dst).end() } else { message.end() }
}

fn bridge<'a>(message: Writer<'a>, device: IfIndex, key: &FdbKey, state: u16) -> Writer<'a> {
    message.fixed(&header(AF_BRIDGE, device, state, libc::NTF_SELF, 0)).attribute(libc::NDA_LLADDR, &key.mac.0)
}

/// Appends a dump request for the neighbours of one device. The device is an attribute: in the header it
/// is refused under strict checking.
pub(super) fn dump(message: Writer<'_>, device: IfIndex, family: Family) {
    let header = header(address_family(family), IfIndex(0), 0, 0, 0);
    message.fixed(&header).number(libc::NDA_IFINDEX, device.0).end();
}

/// Appends a dump request for the FDB of one device.
pub(super) fn dump_fdb(message: Writer<'_>, device: IfIndex) {
    message.fixed(&header(AF_BRIDGE, device, 0, 0, 0)).end();
}

fn header(family: u8, device: IfIndex, state: u16, flags: u8, kind: u8) -> [u8; HEADER] {
    let [d0, d1, d2, d3] = device.0.to_ne_bytes();
    let [s0, s1] = state.to_ne_bytes();
    [family, 0, 0, 0, d0, d1, d2, d3, s0, s1, flags, kind]
}
