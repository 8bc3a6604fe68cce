//! One look at everything that weft decides from.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;

use nix::libc;

use super::dump::{dump, look_up};
use super::socket::Channel;
use super::wire::frame::Frame;
use super::wire::neighbour::NeighbourSeen;
use super::wire::route::RouteSeen;
use super::wire::{Malformed, Question, address, link};
use crate::kernel::ObserveError;
use crate::model::addr::{ByFamily, Family, IfIndex, Subnet};
use crate::model::host::{DefaultRoute, ForeignRoute, Host, Link, LinkKind, Scope, Way};
use crate::model::table::{Fdb, FdbKey, Neighbour, PROTOCOL_KERNEL, PROTOCOL_WEFT, Route, RouteKey, Tables};
use crate::model::traffic::NetlinkCounters;

/// Reads the interfaces with their addresses.
pub(super) fn links(channel: &mut Channel, counters: &mut NetlinkCounters) -> Result<Vec<Link>, ObserveError> {
    let mut links = dump(channel, counters, &Question::Links, |frame| only(frame, libc::RTM_NEWLINK, link::parse))?;
    let addresses = dump(channel, counters, &Question::Addresses, |frame| {
        only(frame, libc::RTM_NEWADDR, address::parse).map(Option::flatten)
    })?;
    let places: BTreeMap<IfIndex, usize> = links.iter().enumerate().map(|(at, link)| (link.index, at)).collect();
    for (index, address) in addresses {
        if let Some(link) = places.get(&index).and_then(|at| links.get_mut(*at)) {
            link.addresses.push(address);
        }
    }
    Ok(links)
}

/// The numbers of the devices in scope: those of the right name that are VXLAN devices.
pub(super) fn devices(scope: &Scope, links: &[Link]) -> ByFamily<Option<IfIndex>> {
    ByFamily::from_fn(|family| {
        let name = scope.devices.get(family).as_ref()?;
        let link = links.iter().find(|link| link.name == *name)?;
        matches!(link.kind, LinkKind::Vxlan(_)).then_some(link.index)
    })
}

/// Reads the rest: routes, and the tables of the devices.
pub(super) fn host(
    channel: &mut Channel,
    counters: &mut NetlinkCounters,
    scope: &Scope,
    links: Vec<Link>,
    devices: ByFamily<Option<IfIndex>>,
) -> Result<Host, ObserveError> {
    let mut host = Host { links, ..Host::default() };
    for family in Family::BOTH {
        let device = *devices.get(family);
        let network = *scope.networks.get(family);
        if scope.devices.get(family).is_none() && network.is_none() {
            continue;
        }
        let routes = main_table(channel, counters, family, Sieve { device, network, ways: scope.ways })?;
        host.defaults.extend(routes.defaults);
        host.foreign.extend(routes.foreign);
        host.ways.extend(routes.ways);
        if device.is_some() || network.is_some() {
            let tables = Tables {
                routes: routes.ours,
                surplus: routes.surplus,
                neighbours: match device {
                    Some(device) => neighbours(channel, counters, device, family)?,
                    None => BTreeMap::new(),
                },
                fdb: match device {
                    Some(device) => fdb(channel, counters, device)?,
                    None => BTreeMap::new(),
                },
            };
            *host.tables.get_mut(family) = Some(tables);
        }
    }
    host.reach = match scope.reach {
        Some(to) => reach(channel, to)?,
        None => None,
    };
    Ok(host)
}

/// What of the main table matters.
#[derive(Clone, Copy)]
struct Sieve {
    device: Option<IfIndex>,
    network: Option<Subnet>,
    ways: bool,
}

/// The main table, sorted by what it is to us.
#[derive(Default)]
struct Routes {
    ours: BTreeMap<RouteKey, Route>,
    surplus: Vec<(RouteKey, Route)>,
    defaults: Vec<DefaultRoute>,
    foreign: Vec<ForeignRoute>,
    ways: Vec<Way>,
}

/// One dump gives all three, so that a route cannot be missed between two.
fn main_table(
    channel: &mut Channel,
    counters: &mut NetlinkCounters,
    family: Family,
    sieve: Sieve,
) -> Result<Routes, ObserveError> {
    let seen = dump(channel, counters, &Question::Routes(family), |frame| {
        let seen = only(frame, libc::RTM_NEWROUTE, RouteSeen::parse)?.flatten();
        Ok(seen.filter(|seen| seen.key.dst.family() == family && seen.is_ordinary() && sieve.keeps(seen)))
    })?;
    let mut routes = Routes::default();
    for seen in seen {
        if seen.key.dst.is_default() && seen.unicast {
            routes.defaults.push(DefaultRoute { family, oif: seen.oif, metric: seen.key.metric });
        }
        if sieve.ways && !sieve.is_inside(&seen) {
            let RouteSeen { key: RouteKey { dst, metric }, oif, on_link, .. } = seen;
            routes.ways.push(Way { dst, metric, oif, on_link });
        }
        if let Some(route) = sieve.row(&seen) {
            if seen.route.protocol != PROTOCOL_KERNEL {
                match routes.ours.entry(seen.key) {
                    Entry::Vacant(place) => drop(place.insert(route)),
                    Entry::Occupied(_) => routes.surplus.push((seen.key, route)),
                }
            }
        } else if sieve.is_inside(&seen) {
            let RouteSeen { key: RouteKey { dst, metric }, oif, route, .. } = seen;
            routes.foreign.push(ForeignRoute { dst, metric, oif, protocol: route.protocol });
        }
    }
    Ok(routes)
}

impl Sieve {
    fn keeps(self, seen: &RouteSeen) -> bool {
        self.ways || seen.key.dst.is_default() || self.is_ours(seen) || self.is_inside(seen)
    }

    /// The route as a row of our tables, if it belongs there.
    fn row(self, seen: &RouteSeen) -> Option<Route> {
        if self.is_ours(seen) {
            return Some(seen.route);
        }
        // With our number it is ours whatever became of it: IPv6 adds what is appended under our key to our
        // route as another hop, over whichever device.
        let marked = seen.route.protocol == PROTOCOL_WEFT;
        let may_be_ours = self.is_inside(seen) && seen.route.may_be_ours() && (marked || seen.oif.is_some());
        let other = || seen.mixed?.into_iter().find(|hop| Some(*hop) != self.device);
        may_be_ours.then(|| Route { dev: seen.oif.or_else(other), ..seen.route })
    }

    fn is_ours(self, seen: &RouteSeen) -> bool {
        self.device.is_some() && seen.oif == self.device
    }

    fn is_inside(self, seen: &RouteSeen) -> bool {
        self.network.is_some_and(|network| network.contains_subnet(seen.key.dst))
    }
}

fn neighbours(
    channel: &mut Channel,
    counters: &mut NetlinkCounters,
    device: IfIndex,
    family: Family,
) -> Result<BTreeMap<IpAddr, Neighbour>, ObserveError> {
    let question = Question::Neighbours(device, family);
    let rows =
        dump(channel, counters, &question, |frame| match only(frame, libc::RTM_NEWNEIGH, NeighbourSeen::parse)? {
            Some(seen) if seen.device == device => seen.permanent(family),
            _ => Ok(None),
        })?;
    Ok(rows.into_iter().collect())
}

fn fdb(
    channel: &mut Channel,
    counters: &mut NetlinkCounters,
    device: IfIndex,
) -> Result<BTreeMap<FdbKey, Fdb>, ObserveError> {
    let rows = dump(channel, counters, &Question::Fdb(device), |frame| {
        match only(frame, libc::RTM_NEWNEIGH, NeighbourSeen::parse)? {
            Some(seen) if seen.device == device => seen.fdb(),
            _ => Ok(None),
        }
    })?;
    Ok(rows.into_iter().collect())
}

fn reach(channel: &mut Channel, to: IpAddr) -> Result<Option<(IfIndex, IpAddr)>, ObserveError> {
    let found = look_up(channel, &Question::RouteTo(to), |frame| {
        let seen = only(frame, libc::RTM_NEWROUTE, RouteSeen::parse)?.flatten();
        Ok(seen.and_then(|seen| Some((seen.oif?, seen.source?))))
    })?;
    // Where no route leads there, the kernel refuses.
    Ok(found.unwrap_or(None))
}

/// Decodes messages of one type and passes over the others.
fn only<'a, T>(
    frame: &Frame<'a>,
    kind: u16,
    parse: impl Fn(&'a [u8]) -> Result<T, Malformed>,
) -> Result<Option<T>, Malformed> {
    if frame.kind == kind { parse(frame.body).map(Some) } else { Ok(None) }
}
