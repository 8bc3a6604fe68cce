//! Addresses of interfaces (`struct ifaddrmsg`).

use std::net::IpAddr;

use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use nix::libc;

use super::frame::{attributes, ip, u8_at, u32_at, u32_value};
use super::{Malformed, address_family};
use crate::model::addr::{Family, IfIndex};
use crate::model::host::Address;

/// `struct ifaddrmsg`.
const HEADER: usize = 8;

/// Reads the body of RTM_NEWADDR. `None` if it names no address, or one of neither IPv4 nor IPv6 (MCTP and
/// Phonet answer the same request, with addresses of one byte).
pub fn parse(body: &[u8]) -> Result<Option<(IfIndex, Address)>, Malformed> {
    let header = || Some((u8_at(body, 1)?, u8_at(body, 2)?, u8_at(body, 3)?, u32_at(body, 4)?, body.get(HEADER..)?));
    let (len, short_flags, scope, index, rest) = header().ok_or(Malformed("address"))?;
    if ![libc::AF_INET, libc::AF_INET6].contains(&u8_at(body, 0).unwrap_or_default().into()) {
        return Ok(None);
    }
    let (mut local, mut address, mut flags) = (None, None, u32::from(short_flags));
    for attribute in attributes(rest) {
        match attribute? {
            // The same for most; on a point-to-point interface IFA_ADDRESS is the other end.
            (libc::IFA_LOCAL, value) => local = Some(ip(value)?),
            (libc::IFA_ADDRESS, value) => address = Some(ip(value)?),
            (libc::IFA_FLAGS, value) => flags = u32_value(value)?,
            _ => {}
        }
    }
    let has = |bit| flags & bit != 0;
    Ok(local.or(address).map(|ip| {
        let address = Address {
            ip,
            len,
            global: scope == libc::RT_SCOPE_UNIVERSE,
            deprecated: has(libc::IFA_F_DEPRECATED),
            permanent: has(libc::IFA_F_PERMANENT),
            temporary: has(libc::IFA_F_TEMPORARY),
            failed: has(libc::IFA_F_DADFAILED),
        };
        (IfIndex(index), address)
    }))
}

/// The address to add or remove. Both IFA_LOCAL and IFA_ADDRESS are named: IPv4 compares the prefix length
/// only if the second is there.
pub(super) fn message(device: IfIndex, ip: IpAddr, len: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = address_family(Family::of(ip)).into();
    message.header.prefix_len = len;
    message.header.index = device.0;
    message.attributes.push(AddressAttribute::Address(ip));
    message.attributes.push(AddressAttribute::Local(ip));
    message
}

/// The address to add. IPv6 duplicate detection is off: a VXLAN device without a flood entry drops its
/// probes, so that it could find nothing and would only keep the address unusable for a second or two.
pub(super) fn added(device: IfIndex, ip: IpAddr, len: u8) -> AddressMessage {
    let mut message = message(device, ip, len);
    if ip.is_ipv6() {
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    message
}
