//! Setting and deleting rows, as Linux does it.

use std::net::IpAddr;

use super::net::{Interface, MainRoute, Net};
use crate::model::addr::{Family, IfIndex};
use crate::model::host::{Link, LinkKind};
use crate::model::op::Refusal;
use crate::model::table::{Entry, Fdb, FdbKey, Neighbour, Route, RouteKey};

/// The error numbers that the fake answers with, as Linux numbers them on the architectures that
/// weft runs on.
pub(super) mod errno {
    pub(in super::super) const ENOENT: i32 = 2;
    pub(in super::super) const ESRCH: i32 = 3;
    pub(in super::super) const ENXIO: i32 = 6;
    pub(in super::super) const EACCES: i32 = 13;
    pub(in super::super) const EEXIST: i32 = 17;
    pub(in super::super) const ENODEV: i32 = 19;
    pub(in super::super) const EINVAL: i32 = 22;
    pub(in super::super) const EOPNOTSUPP: i32 = 95;
    pub(in super::super) const EAFNOSUPPORT: i32 = 97;
    pub(in super::super) const EADDRINUSE: i32 = 98;
    pub(in super::super) const EADDRNOTAVAIL: i32 = 99;
    pub(in super::super) const ENETDOWN: i32 = 100;
    pub(in super::super) const ENETUNREACH: i32 = 101;
    pub(in super::super) const EHOSTUNREACH: i32 = 113;
}

use errno::{
    EACCES, EAFNOSUPPORT, EEXIST, EHOSTUNREACH, EINVAL, ENETDOWN, ENETUNREACH, ENODEV, ENOENT, EOPNOTSUPP, ESRCH,
};

pub(super) fn refuse<T>(errno: i32, text: &str) -> Result<T, Refusal> {
    let text = if text.is_empty() { None } else { Some(text.to_owned()) };
    Err(Refusal { errno, text })
}

impl Net {
    pub(super) fn set_row(&mut self, dev: IfIndex, entry: &Entry, replace: bool) -> Result<(), Refusal> {
        match entry {
            Entry::Route(key, route) => self.set_route(dev, *key, *route, replace),
            Entry::Neighbour(ip, neighbour) => self.device(dev)?.set_neighbour(*ip, *neighbour),
            Entry::Fdb(key, fdb) => self.device(dev)?.set_fdb(*key, *fdb),
        }
    }

    /// A route goes by its whole value (ESRCH if anything differs), a neighbour by its key alone, and
    /// an FDB entry whose destination differs is left in place with a success.
    pub(super) fn del_row(&mut self, dev: IfIndex, entry: &Entry) -> Result<(), Refusal> {
        match entry {
            Entry::Route(key, route) => self.del_route(dev, *key, *route),
            Entry::Neighbour(ip, _) => match self.device(dev)?.neighbours.remove(ip) {
                Some(_) => Ok(()),
                None => refuse(ENOENT, ""),
            },
            Entry::Fdb(key, fdb) => self.device(dev)?.unset_fdb(key, fdb),
        }
    }

    pub(super) fn device(&mut self, index: IfIndex) -> Result<&mut Interface, Refusal> {
        self.interface_mut(index).map_or_else(|| refuse(ENODEV, ""), Ok)
    }

    /// Without `replace` a held key is refused. With it, whoever holds the key loses it without a
    /// word, on whichever device; unless the very same route stands further down under the key.
    fn set_route(&mut self, dev: IfIndex, key: RouteKey, route: Route, replace: bool) -> Result<(), Refusal> {
        self.check_nexthop(dev, key.dst.family(), route)?;
        let new = MainRoute { oif: Some(dev), route: Route { dev: None, ..route } };
        let key = linux_key(key);
        let held = self.routes.entry(key).or_default();
        match held.split_first_mut() {
            None => held.push(new),
            Some((first, others)) if replace && !others.contains(&new) => *first = new,
            Some(_) => return refuse(EEXIST, ""),
        }
        Ok(())
    }

    fn check_nexthop(&self, dev: IfIndex, family: Family, route: Route) -> Result<(), Refusal> {
        // IPv4 looks for the gateway before it looks at the interface.
        if family == Family::V4 && !route.onlink && route.via.is_some_and(|via| !self.is_near(via, dev)) {
            return refuse(ENETUNREACH, "Nexthop has invalid gateway");
        }
        let Some(interface) = self.interface(dev) else { return refuse(ENODEV, "") };
        if family == Family::V6 && interface.link.ipv6_disabled.is_none() {
            return refuse(ENODEV, "");
        }
        if !interface.link.up && (route.onlink || family == Family::V4) {
            return refuse(ENETDOWN, "Nexthop device is not up");
        }
        match route.via {
            Some(via) if !self.is_gateway(via) => {
                return refuse(EINVAL, "Nexthop has invalid gateway");
            }
            Some(via) if route.onlink && self.leads_elsewhere(via, dev) => {
                return refuse(EINVAL, "Nexthop has invalid gateway or device mismatch");
            }
            Some(via) if !route.onlink && !self.is_near(via, dev) => return refuse(EHOSTUNREACH, ""),
            None if route.onlink && family == Family::V4 => return refuse(EINVAL, ""),
            _ => {}
        }
        if family == Family::V6 && interface.link.ipv6_disabled == Some(true) {
            return refuse(EACCES, "IPv6 is disabled on nexthop device");
        }
        if !interface.link.up {
            return refuse(ENETDOWN, "");
        }
        Ok(())
    }

    /// No address of this host, on any link, up or not; no broadcast address; and for IPv4 nothing at
    /// all before the first address was configured.
    fn is_gateway(&self, via: IpAddr) -> bool {
        let taken = |link: &Link| {
            let mine = |address: &crate::model::Address| {
                let broadcast = via.is_ipv4() && address.len < 31 && address.subnet().last() == via;
                address.ip == via || (link.up && broadcast)
            };
            link.addresses.iter().any(mine)
        };
        (via.is_ipv6() || self.had_address) && !self.links().any(taken)
    }

    /// Without `onlink` a gateway has to be on the network of the interface: among the routes over it, the
    /// best to the gateway leads straight there. IPv4 passes over those that do not
    /// (`fib_check_nh_v4_gw`), IPv6 does not (`ip6_route_check_nh`).
    fn is_near(&self, via: IpAddr, dev: IfIndex) -> bool {
        let on_link = |(key, it): &(RouteKey, &MainRoute)| {
            key.dst.contains(via) && it.oif == Some(dev) && (via.is_ipv6() || it.is_on_link())
        };
        let best = self.routes().filter(on_link).max_by_key(|(key, _)| (key.dst.len(), std::cmp::Reverse(key.metric)));
        best.is_some_and(|(_, it)| it.is_on_link())
    }

    /// IPv6 takes no gateway as onlink that it would reach through another device, a default route left
    /// aside (`ip6_route_check_nh_onlink` in `net/ipv6/route.c`).
    fn leads_elsewhere(&self, via: IpAddr, dev: IfIndex) -> bool {
        let leads = |(key, _): &(RouteKey, &MainRoute)| !key.dst.is_default() && key.dst.contains(via);
        let best = self.routes().filter(leads).max_by_key(|(key, _)| (key.dst.len(), std::cmp::Reverse(key.metric)));
        via.is_ipv6() && best.is_some_and(|(_, route)| route.oif != Some(dev))
    }

    /// A metric of 0 in a delete request means "any": the first that fits goes
    /// (`fib_nh_match` in `net/ipv4/fib_semantics.c`).
    fn del_route(&mut self, dev: IfIndex, key: RouteKey, route: Route) -> Result<(), Refusal> {
        let fits = |held: &MainRoute| {
            let gateway = route.via.is_none() || held.route.via == route.via;
            held.oif == Some(dev) && held.route.protocol == route.protocol && gateway
        };
        let last = if key.metric == 0 { u32::MAX } else { key.metric };
        let range = key..=RouteKey { dst: key.dst, metric: last };
        let found = self.routes.range(range).find_map(|(key, held)| Some((*key, held.iter().position(fits)?)));
        let Some((key, position)) = found else { return refuse(ESRCH, "") };
        if let Some(held) = self.routes.get_mut(&key) {
            held.remove(position);
            if held.is_empty() {
                self.routes.remove(&key);
            }
        }
        Ok(())
    }
}

impl Interface {
    fn set_neighbour(&mut self, ip: IpAddr, neighbour: Neighbour) -> Result<(), Refusal> {
        if ip.is_ipv6() && self.link.ipv6_disabled != Some(false) {
            return refuse(EINVAL, "IPv6 is disabled on this device");
        }
        self.neighbours.insert(ip, Some(neighbour));
        Ok(())
    }

    /// One destination for a unicast MAC, which a replace changes; any other MAC has a list, which a
    /// replace does not touch.
    fn set_fdb(&mut self, key: FdbKey, fdb: Fdb) -> Result<(), Refusal> {
        let LinkKind::Vxlan(vxlan) = &self.link.kind else { return refuse(EOPNOTSUPP, "") };
        let family = vxlan.local.map_or(Family::V4, Family::of);
        if Family::of(fdb.dst) != family {
            return refuse(EAFNOSUPPORT, "");
        }
        if !key.mac.is_vtep() {
            return refuse(EOPNOTSUPP, "Cannot replace non-unicast fdb entries");
        }
        // An entry of a nexthop group stays as it is, and the kernel says that it was replaced.
        let grouped = self.fdb.get(&key).is_some_and(|(held, _)| held.is_grouped());
        if !grouped {
            self.fdb.insert(key, (fdb, false));
        }
        Ok(())
    }

    fn unset_fdb(&mut self, key: &FdbKey, fdb: &Fdb) -> Result<(), Refusal> {
        if !self.fdb.keys().any(|held| held.mac == key.mac) {
            return refuse(ENOENT, "");
        }
        // Whoever names no destination takes them all.
        self.fdb.retain(|held, (value, _)| held.mac != key.mac || (fdb.plain && value.dst != fdb.dst));
        Ok(())
    }
}

/// IPv6 takes metric 0 for 1024.
fn linux_key(key: RouteKey) -> RouteKey {
    match key.dst.family() {
        Family::V6 if key.metric == 0 => RouteKey { metric: 1024, ..key },
        _ => key,
    }
}
