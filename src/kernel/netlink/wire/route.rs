//! Routes of the main table (`struct rtmsg`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::libc;

use super::frame::{attributes, ip, u8_at, u16_at, u32_at, u32_value};
use super::writer::Writer;
use super::{Malformed, address_family};
use crate::model::addr::{Family, IfIndex, Subnet};
use crate::model::table::{Route, RouteKey};

/// `struct rtmsg`.
const HEADER: usize = 12;
/// `struct rtnexthop`.
const NEXT_HOP: usize = 8;
/// RTNH_F_ONLINK.
const ONLINK: u32 = 4;
// Attributes that libc does not have, or not for musl (linux/rtnetlink.h).
const RTA_VIA: u16 = 18;
const RTA_PREF: u16 = 20;
const RTA_ENCAP_TYPE: u16 = 21;
const RTA_ENCAP: u16 = 22;
const RTA_NH_ID: u16 = 30;

/// A route as the kernel reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteSeen {
    /// Its key.
    pub key: RouteKey,
    /// Its value, as a row.
    pub route: Route,
    /// The device; `None` without one, or if the hops of a multipath route differ in it.
    pub oif: Option<IfIndex>,
    /// Two of the devices, if the hops of a multipath route differ in it.
    pub mixed: Option<[IfIndex; 2]>,
    /// The table's number.
    pub table: u32,
    /// Whether the kernel matches more than the destination (TOS, source prefix): another kind of key.
    pub narrowed: bool,
    /// RTM_F_CLONED: a cache entry (a redirect, a learned MTU), not a route.
    pub cloned: bool,
    /// RTN_UNICAST: leads somewhere.
    pub unicast: bool,
    /// Whether it leads straight to its destination: no gateway, no encapsulation, one next hop.
    pub on_link: bool,
    /// RTA_PREFSRC: the source address that the route asks for, or that a lookup chose.
    pub source: Option<IpAddr>,
}

impl RouteSeen {
    /// Reads the body of RTM_NEWROUTE or RTM_DELROUTE. `None` for a family that is neither IPv4 nor IPv6.
    pub fn parse(body: &[u8]) -> Result<Option<Self>, Malformed> {
        let header = Header::parse(body).ok_or(Malformed("route"))?;
        let Some(family) = header.family() else { return Ok(None) };
        let mut found = Found { table: u32::from(header.table), ..Found::default() };
        for attribute in attributes(body.get(HEADER..).unwrap_or(&[])) {
            let (kind, value) = attribute?;
            found.take(kind, value)?;
        }
        let dst = found.dst.unwrap_or(unspecified(family));
        if Family::of(dst) != family {
            return Err(Malformed("route"));
        }
        let dst = Subnet::new(dst, header.dst_len).ok_or(Malformed("route"))?;
        let unicast = header.kind == libc::RTN_UNICAST;
        let route = Route {
            via: found.via,
            onlink: header.flags & ONLINK != 0 || found.onlink_hops,
            protocol: header.protocol,
            plain: unicast && header.scope == libc::RT_SCOPE_UNIVERSE && !found.special && found.source.is_none(),
            dev: None,
        };
        Ok(Some(Self {
            key: RouteKey { dst, metric: found.metric },
            route,
            oif: found.oif,
            mixed: found.mixed,
            table: found.table,
            narrowed: header.tos != 0 || header.src_len != 0,
            cloned: header.flags & libc::RTM_F_CLONED != 0,
            unicast,
            on_link: unicast && !found.onward && found.via.is_none(),
            source: found.source,
        }))
    }

    /// Whether it is a route of the main table that is known by destination and metric alone.
    pub fn is_ordinary(&self) -> bool {
        self.table == u32::from(libc::RT_TABLE_MAIN) && !self.narrowed && !self.cloned
    }
}

struct Header {
    family: u8,
    dst_len: u8,
    src_len: u8,
    tos: u8,
    table: u8,
    protocol: u8,
    scope: u8,
    kind: u8,
    flags: u32,
}

impl Header {
    fn parse(body: &[u8]) -> Option<Self> {
        let byte = |at| u8_at(body, at);
        Some(Self {
            family: byte(0)?,
            dst_len: byte(1)?,
            src_len: byte(2)?,
            tos: byte(3)?,
            table: byte(4)?,
            protocol: byte(5)?,
            scope: byte(6)?,
            kind: byte(7)?,
            flags: u32_at(body, 8)?,
        })
    }

    fn family(&self) -> Option<Family> {
        match libc::c_int::from(self.family) {
            libc::AF_INET => Some(Family::V4),
            libc::AF_INET6 => Some(Family::V6),
            _ => None,
        }
    }
}

/// What the attributes of a route say.
#[derive(Default)]
struct Found {
    dst: Option<IpAddr>,
    via: Option<IpAddr>,
    oif: Option<IfIndex>,
    mixed: Option<[IfIndex; 2]>,
    source: Option<IpAddr>,
    metric: u32,
    table: u32,
    onlink_hops: bool,
    special: bool,
    onward: bool,
}

impl Found {
    fn take(&mut self, kind: u16, value: &[u8]) -> Result<(), Malformed> {
        match kind {
            libc::RTA_DST => self.dst = Some(ip(value)?),
            libc::RTA_GATEWAY => self.via = Some(ip(value)?),
            libc::RTA_OIF => self.oif = Some(IfIndex(u32_value(value)?)),
            libc::RTA_PRIORITY => self.metric = u32_value(value)?,
            libc::RTA_TABLE => self.table = u32_value(value)?,
            libc::RTA_PREFSRC => self.source = Some(ip(value)?),
            libc::RTA_MULTIPATH => self.hops(value)?,
            libc::RTA_METRICS | libc::RTA_FLOW => self.special = true,
            RTA_ENCAP | RTA_ENCAP_TYPE | RTA_VIA | RTA_NH_ID => {
                self.special = true;
                self.onward = true;
            }
            // 0 is `pref medium`, what every IPv6 route has unless a router says otherwise.
            RTA_PREF => self.special |= value != [0],
            // IPv6 reports it always; only a lifetime (third number) makes the route other than plain.
            libc::RTA_CACHEINFO => self.special |= u32_at(value, 8).is_some_and(|expires| expires != 0),
            _ => {}
        }
        Ok(())
    }

    /// Several next hops: no gateway that could be named, and a device only if it is the same in all.
    fn hops(&mut self, mut hops: &[u8]) -> Result<(), Malformed> {
        self.special = true;
        self.onward = true;
        let mut devices = Vec::new();
        while !hops.is_empty() {
            let hop = || {
                let length = usize::from(u16_at(hops, 0)?);
                let flags = u8_at(hops, 2)?;
                let device = u32_at(hops, 4)?;
                (length >= NEXT_HOP).then_some((length, flags, device))
            };
            let (length, flags, device) = hop().ok_or(Malformed("next hops"))?;
            self.onlink_hops |= u32::from(flags) & ONLINK != 0;
            devices.push(device);
            hops = hops.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        }
        devices.dedup();
        match devices[..] {
            [device] => self.oif = Some(IfIndex(device)),
            [one, another, ..] => self.mixed = Some([IfIndex(one), IfIndex(another)]),
            [] => {}
        }
        Ok(())
    }
}

const fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// Appends the route to set: unicast, scope universe, main table, one next hop. The metric is named only if
/// it is not 0, as flannel leaves it out and IPv6 then takes its default, 1024.
pub(super) fn set(message: Writer<'_>, device: IfIndex, key: &RouteKey, to: &Route) {
    let flags = if to.onlink { ONLINK } else { 0 };
    let message = named(message, key, to, libc::RT_SCOPE_UNIVERSE, libc::RTN_UNICAST, flags);
    through(message, device, key, to).end();
}

/// Appends the route to delete, as it was seen. The kernel compares what is named and takes the first that
/// fits; IPv4 takes metric 0 for "any", so that only the protocol keeps a delete of flannel's route from
/// taking ours (`an_ipv4_delete_of_metric_0_takes_any_metric_but_not_another_protocol`). A route that is not
/// plain is named by key and protocol alone: IPv4 compares a device with the first hop only, and never
/// finds a nexthop object by it (`a_nexthop_object_hides_its_device_from_a_delete`).
pub(super) fn delete(message: Writer<'_>, device: IfIndex, key: &RouteKey, seen: &Route) {
    let message = named(message, key, seen, libc::RT_SCOPE_NOWHERE, libc::RTN_UNSPEC, 0);
    if seen.plain { through(message, device, key, seen).end() } else { message.end() }
}

fn named<'a>(message: Writer<'a>, key: &RouteKey, route: &Route, scope: u8, kind: u8, flags: u32) -> Writer<'a> {
    let family = address_family(key.dst.family());
    let header = header(family, key.dst.len(), [libc::RT_TABLE_MAIN, route.protocol, scope, kind], flags);
    let message = message.fixed(&header).address(libc::RTA_DST, key.dst.base());
    if key.metric == 0 { message } else { message.number(libc::RTA_PRIORITY, key.metric) }
}

fn through<'a>(message: Writer<'a>, device: IfIndex, key: &RouteKey, route: &Route) -> Writer<'a> {
    let message = match route.via {
        Some(via) if Family::of(via) == key.dst.family() => message.address(libc::RTA_GATEWAY, via),
        // IPv4 would take the first four bytes of an IPv6 gateway for one of its own.
        Some(via) => message.attribute(RTA_VIA, &gateway_of_other_family(via)),
        None => message,
    };
    message.number(libc::RTA_OIF, device.0)
}

/// `struct rtvia`.
fn gateway_of_other_family(via: IpAddr) -> Vec<u8> {
    let family = u16::from(address_family(Family::of(via))).to_ne_bytes();
    let address = match via {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    [&family, &address[..]].concat()
}

/// Appends a dump request for the main table. Nothing else is set: under strict checking every field of
/// the header is a filter.
pub(super) fn dump(message: Writer<'_>, family: Family) {
    let header = header(address_family(family), 0, [0; 4], 0);
    message.fixed(&header).number(libc::RTA_TABLE, u32::from(libc::RT_TABLE_MAIN)).end();
}

/// Appends a request for the route that a packet to this address would take.
pub(super) fn look_up(message: Writer<'_>, to: IpAddr) {
    let family = Family::of(to);
    message.fixed(&header(address_family(family), family.bits(), [0; 4], 0)).address(libc::RTA_DST, to).end();
}

fn header(family: u8, dst_len: u8, [table, protocol, scope, kind]: [u8; 4], flags: u32) -> [u8; HEADER] {
    let [f0, f1, f2, f3] = flags.to_ne_bytes();
    [family, dst_len, 0, 0, table, protocol, scope, kind, f0, f1, f2, f3]
}
