//! Interfaces (`struct ifinfomsg`) and the changes to our device.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkExtentMask, LinkFlags,
    LinkInfo, LinkMessage,
};
use nix::libc;

use super::frame::{attributes, ip, string, u8_at, u32_at, u32_value};
use super::{Malformed, address};
use crate::model::addr::{IfIndex, IfName, Mac, Vni};
use crate::model::device::DeviceSpec;
use crate::model::host::{Link, LinkKind, VxlanAttributes};
use crate::model::op::LinkOp;

/// `struct ifinfomsg`.
const HEADER: usize = 16;

/// Attribute numbers of include/uapi/linux/if_link.h and ipv6.h that libc does not have.
mod number {
    pub(super) const VXLAN_ID: u16 = 1;
    pub(super) const VXLAN_GROUP: u16 = 2;
    pub(super) const VXLAN_LINK: u16 = 3;
    pub(super) const VXLAN_LOCAL: u16 = 4;
    pub(super) const VXLAN_TTL: u16 = 5;
    pub(super) const VXLAN_LEARNING: u16 = 7;
    pub(super) const VXLAN_LIMIT: u16 = 9;
    pub(super) const VXLAN_PROXY: u16 = 11;
    pub(super) const VXLAN_RSC: u16 = 12;
    pub(super) const VXLAN_L2MISS: u16 = 13;
    pub(super) const VXLAN_L3MISS: u16 = 14;
    pub(super) const VXLAN_PORT: u16 = 15;
    pub(super) const VXLAN_GROUP6: u16 = 16;
    pub(super) const VXLAN_LOCAL6: u16 = 17;
    pub(super) const VXLAN_UDP_CSUM: u16 = 18;
    pub(super) const VXLAN_REMCSUM_TX: u16 = 21;
    pub(super) const VXLAN_REMCSUM_RX: u16 = 22;
    pub(super) const VXLAN_GBP: u16 = 23;
    pub(super) const VXLAN_COLLECT_METADATA: u16 = 25;
    pub(super) const VXLAN_GPE: u16 = 27;
    pub(super) const VXLAN_TTL_INHERIT: u16 = 28;
    /// AF_INET6, as the type of an attribute inside IFLA_AF_SPEC.
    pub(super) const SPEC_INET6: u16 = 10;
    pub(super) const INET6_CONF: u16 = 2;
    pub(super) const INET6_ADDR_GEN_MODE: u16 = 8;
    /// IN6_ADDR_GEN_MODE_NONE.
    pub(super) const GEN_NONE: u8 = 1;
    /// DEVCONF_DISABLE_IPV6: the place in the array of IFLA_INET6_CONF.
    pub(super) const CONF_DISABLE_IPV6: usize = 26;
}

/// Reads the body of RTM_NEWLINK; the addresses are elsewhere.
pub fn parse(body: &[u8]) -> Result<Link, Malformed> {
    let header = || Some((u32_at(body, 4)?, u32_at(body, 8)?, body.get(HEADER..)?));
    let (index, flags, rest) = header().ok_or(Malformed("link"))?;
    let has = |bit: libc::c_int| flags & bit.cast_unsigned() != 0;
    let mut link = Link {
        index: IfIndex(index),
        name: IfName::new(""),
        mac: None,
        mtu: 0,
        up: has(libc::IFF_UP),
        running: has(libc::IFF_RUNNING),
        loopback: has(libc::IFF_LOOPBACK),
        kind: LinkKind::Other(String::new()),
        master: None,
        addrgen_none: false,
        ipv6_disabled: None,
        addresses: Vec::new(),
    };
    for attribute in attributes(rest) {
        match attribute? {
            (libc::IFLA_IFNAME, value) => link.name = IfName::new(&string(value)),
            (libc::IFLA_ADDRESS, value) => link.mac = value.try_into().ok().map(Mac),
            (libc::IFLA_MTU, value) => link.mtu = u32_value(value)?,
            (libc::IFLA_MASTER, value) => link.master = Some(u32_value(value)?).filter(|of| *of != 0).map(IfIndex),
            (libc::IFLA_LINKINFO, value) => link.kind = kind(value)?,
            (libc::IFLA_AF_SPEC, value) => read_inet6(value, &mut link)?,
            _ => {}
        }
    }
    Ok(link)
}

fn kind(info: &[u8]) -> Result<LinkKind, Malformed> {
    let (mut word, mut data) = (String::new(), &[][..]);
    for attribute in attributes(info) {
        match attribute? {
            (libc::IFLA_INFO_KIND, value) => word = string(value),
            (libc::IFLA_INFO_DATA, value) => data = value,
            _ => {}
        }
    }
    if word == "vxlan" { vxlan(data).map(LinkKind::Vxlan) } else { Ok(LinkKind::Other(word)) }
}

fn vxlan(data: &[u8]) -> Result<VxlanAttributes, Malformed> {
    let mut vni = None;
    let mut port = [0; 2];
    let (mut underlay, mut local) = (None, None);
    let (mut learning, mut gbp, mut udp_checksum) = (false, false, false);
    let (mut ttl, mut special, mut alien) = (0, false, false);
    for attribute in attributes(data) {
        match attribute? {
            (number::VXLAN_ID, value) => vni = Vni::new(u32_value(value)?),
            (number::VXLAN_LINK, value) => underlay = Some(u32_value(value)?).filter(|index| *index != 0).map(IfIndex),
            (number::VXLAN_LOCAL | number::VXLAN_LOCAL6, value) => local = Some(ip(value)?),
            (number::VXLAN_LEARNING, value) => learning = is_set(value),
            (number::VXLAN_PORT, value) => port = value.try_into().map_err(|_| Malformed("port"))?,
            (number::VXLAN_UDP_CSUM, value) => udp_checksum = is_set(value),
            (number::VXLAN_TTL, value) => ttl = u8_at(value, 0).ok_or(Malformed("TTL"))?,
            (number::VXLAN_LIMIT, value) => special |= u32_value(value)? != 0,
            (
                number::VXLAN_PROXY
                | number::VXLAN_RSC
                | number::VXLAN_L2MISS
                | number::VXLAN_L3MISS
                | number::VXLAN_REMCSUM_TX
                | number::VXLAN_REMCSUM_RX
                | number::VXLAN_TTL_INHERIT,
                value,
            ) => special |= is_set(value),
            (number::VXLAN_GPE, _) => special = true,
            // A flag: there or not, without a value.
            (number::VXLAN_GBP, _) => gbp = true,
            (number::VXLAN_GROUP | number::VXLAN_GROUP6, _) => alien = true,
            (number::VXLAN_COLLECT_METADATA, value) => alien |= is_set(value),
            _ => {}
        }
    }
    let vni = vni.ok_or(Malformed("VXLAN device"))?;
    let local = local.filter(|ip: &IpAddr| !ip.is_unspecified());
    let port = u16::from_be_bytes(port);
    Ok(VxlanAttributes { vni, port, underlay, local, learning, gbp, udp_checksum, ttl, special, alien })
}

fn is_set(value: &[u8]) -> bool {
    u8_at(value, 0).is_some_and(|byte| byte != 0)
}

/// IFLA_AF_SPEC holds a nest for each family; a device for which the kernel has no IPv6 has none for it.
fn read_inet6(spec: &[u8], link: &mut Link) -> Result<(), Malformed> {
    for family in attributes(spec) {
        let (number::SPEC_INET6, inet6) = family? else { continue };
        for attribute in attributes(inet6) {
            match attribute? {
                (number::INET6_ADDR_GEN_MODE, value) => link.addrgen_none = value == [number::GEN_NONE],
                (number::INET6_CONF, value) => {
                    link.ipv6_disabled = u32_at(value, number::CONF_DISABLE_IPV6 * 4).map(|value| value != 0);
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// The message and flags of a change; `None` for the one that is a sysctl.
pub(super) fn change(op: &LinkOp) -> Option<(RouteNetlinkMessage, u16)> {
    let new = NLM_F_CREATE | NLM_F_EXCL;
    Some(match op {
        LinkOp::Create(spec) => (RouteNetlinkMessage::NewLink(created(spec)), new),
        LinkOp::Delete(dev) => (RouteNetlinkMessage::DelLink(at(dev.index)), 0),
        LinkOp::AddAddress(dev, ip, len) => {
            (RouteNetlinkMessage::NewAddress(address::added(dev.index, *ip, *len)), new)
        }
        LinkOp::DelAddress(dev, ip, len) => {
            (RouteNetlinkMessage::DelAddress(address::message(dev.index, *ip, *len)), 0)
        }
        LinkOp::AddrGenNone(dev) => {
            let inet6 = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
            set(dev.index, LinkAttribute::AfSpecUnspec(vec![inet6]))
        }
        LinkOp::SetMac(dev, mac) => set(dev.index, LinkAttribute::Address(mac.0.to_vec())),
        LinkOp::SetMtu(dev, mtu) => set(dev.index, LinkAttribute::Mtu(*mtu)),
        LinkOp::SetLocal(dev, ip) => set(dev.index, info(vec![local(*ip)])),
        LinkOp::SetUnderlay(dev, to) => set(dev.index, info(vec![InfoVxlan::Link(to.index.0)])),
        LinkOp::SetLearning(dev, on) => set(dev.index, info(vec![InfoVxlan::Learning(*on)])),
        LinkOp::SetTtl(dev, ttl) => set(dev.index, info(vec![InfoVxlan::Ttl(*ttl)])),
        LinkOp::Up(dev) => {
            let mut message = at(dev.index);
            message.header.flags = LinkFlags::Up;
            message.header.change_mask = LinkFlags::Up;
            (RouteNetlinkMessage::NewLink(message), 0)
        }
        LinkOp::EnableIpv6(_) => return None,
    })
}

/// RTM_NEWLINK without NLM_F_CREATE: what is not named stays.
fn set(index: IfIndex, attribute: LinkAttribute) -> (RouteNetlinkMessage, u16) {
    let mut message = at(index);
    message.attributes.push(attribute);
    (RouteNetlinkMessage::NewLink(message), 0)
}

fn at(index: IfIndex) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index.0;
    message
}

/// The device with flannel's attributes, but down. The outer checksum is named only where it is not to be: Linux
/// turns it on by itself.
fn created(spec: &DeviceSpec) -> LinkMessage {
    let mut data = vec![
        InfoVxlan::Id(spec.vni.get()),
        InfoVxlan::Link(spec.underlay.0),
        local(spec.local),
        InfoVxlan::Ttl(0),
        InfoVxlan::Tos(0),
        InfoVxlan::Learning(spec.learning),
        InfoVxlan::Proxy(false),
        InfoVxlan::Rsc(false),
        InfoVxlan::L2Miss(false),
        InfoVxlan::L3Miss(false),
        InfoVxlan::UDPZeroCsumTX(false),
        InfoVxlan::UDPZeroCsumRX(false),
        InfoVxlan::Port(spec.port),
    ];
    if !spec.udp_checksum {
        data.push(InfoVxlan::UDPCsum(false));
    }
    if spec.gbp {
        data.push(InfoVxlan::Gbp);
    }
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(spec.name.as_str().to_owned()),
        LinkAttribute::Mtu(spec.mtu),
        LinkAttribute::TxQueueLen(0),
        LinkAttribute::Address(spec.mac.0.to_vec()),
        info(data),
    ];
    message
}

fn info(data: Vec<InfoVxlan>) -> LinkAttribute {
    LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vxlan), LinkInfo::Data(InfoData::Vxlan(data))])
}

const fn local(ip: IpAddr) -> InfoVxlan {
    match ip {
        IpAddr::V4(ip) => InfoVxlan::Local(ip),
        IpAddr::V6(ip) => InfoVxlan::Local6(ip),
    }
}

/// A dump request for every interface, without the statistics.
pub(super) fn dump() -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    message
}
