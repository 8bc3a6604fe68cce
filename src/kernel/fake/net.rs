//! The state, how it is looked at, and how a test or a meddler changes it directly.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::model::addr::{ByFamily, Family, IfIndex, IfName, Mac, Subnet};
use crate::model::host::{Address, DefaultRoute, ForeignRoute, Host, Link, LinkKind, Scope, Way};
use crate::model::nft::SeenTable;
use crate::model::op::{Ack, Op, Refusal};
use crate::model::table::{Fdb, FdbKey, Neighbour, PROTOCOL_KERNEL, PROTOCOL_WEFT, Route, RouteKey, Tables};

/// A network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Net {
    pub(super) interfaces: Vec<Interface>,
    /// The main table. A list for each key: the kernel itself puts equal keys of several devices in
    /// (`fe80::/64`), though it takes none from us.
    pub(super) routes: BTreeMap<RouteKey, Vec<MainRoute>>,
    last_index: u32,
    /// Whether any IPv4 address was ever configured. Before, there is no local table, and no gateway
    /// is taken for unicast.
    pub(super) had_address: bool,
    pub(super) filter: ByFamily<Option<SeenTable>>,
    pub(super) filter_problem: ByFamily<Option<String>>,
}

/// A link with what hangs on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// What an observation shows.
    pub link: Link,
    /// `None` is an entry that the kernel made itself (INCOMPLETE, STALE …): it does not show, but
    /// holds the key.
    pub(super) neighbours: BTreeMap<IpAddr, Option<Neighbour>>,
    /// The flag: learned from a packet, so that it does not show.
    pub(super) fdb: BTreeMap<FdbKey, (Fdb, bool)>,
}

/// A route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MainRoute {
    /// Its interface; `None` if it has none, or several.
    pub oif: Option<IfIndex>,
    /// The rest; its own interface is not used.
    pub route: Route,
}

impl MainRoute {
    /// Whether it is a row, over whatever interface, if it is inside a cluster network. With our number also
    /// without one (`unreachable`, or several next hops).
    fn may_be_ours(&self) -> bool {
        self.route.may_be_ours() && (self.oif.is_some() || self.route.protocol == PROTOCOL_WEFT)
    }

    /// Whether it leads straight to its destination.
    pub(super) fn is_on_link(&self) -> bool {
        self.oif.is_some() && self.route.via.is_none()
    }
}

impl Default for Net {
    fn default() -> Self {
        Self::new()
    }
}

impl Net {
    /// A fresh namespace: nothing but `lo`, down.
    pub fn new() -> Self {
        let mut net = Self {
            interfaces: Vec::new(),
            routes: BTreeMap::new(),
            last_index: 0,
            had_address: false,
            filter: ByFamily::default(),
            filter_problem: ByFamily::default(),
        };
        let lo = net.add_link("lo", "", Mac([0; 6]), 65536);
        if let Some(lo) = net.interface_mut(lo) {
            lo.link.loopback = true;
        }
        net
    }

    /// Adds a link of some other kind, down, and says its number, which no link ever had.
    pub fn add_link(&mut self, name: &str, kind: &str, mac: Mac, mtu: u32) -> IfIndex {
        self.push_link(IfName::new(name), LinkKind::Other(kind.into()), mac, mtu)
    }

    pub(super) fn push_link(&mut self, name: IfName, kind: LinkKind, mac: Mac, mtu: u32) -> IfIndex {
        self.last_index += 1;
        let index = IfIndex(self.last_index);
        let link = Link {
            index,
            name,
            mac: Some(mac),
            mtu,
            up: false,
            running: false,
            loopback: false,
            kind,
            master: None,
            addrgen_none: false,
            ipv6_disabled: Some(false),
            addresses: Vec::new(),
        };
        self.interfaces.push(Interface { link, neighbours: BTreeMap::new(), fdb: BTreeMap::new() });
        index
    }

    /// Takes note that a number was given out, so that it is not given again.
    pub(super) fn number_in_use(&mut self, index: IfIndex) {
        self.last_index = self.last_index.max(index.0);
    }

    /// Every link, in the order in which they were made.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.interfaces.iter().map(|interface| &interface.link)
    }

    /// Every link with what hangs on it.
    pub fn interfaces(&self) -> impl Iterator<Item = &Interface> {
        self.interfaces.iter()
    }

    /// The link of this name.
    pub fn link(&self, name: &IfName) -> Option<&Link> {
        self.links().find(|link| link.name == *name)
    }

    /// The number of the link of this name.
    pub fn index(&self, name: &IfName) -> Option<IfIndex> {
        self.link(name).map(|link| link.index)
    }

    pub(super) fn interface(&self, index: IfIndex) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.link.index == index)
    }

    pub(super) fn interface_mut(&mut self, index: IfIndex) -> Option<&mut Interface> {
        self.interfaces.iter_mut().find(|interface| interface.link.index == index)
    }

    /// Every route of the main table, the kernel's own included.
    pub fn routes(&self) -> impl Iterator<Item = (RouteKey, &MainRoute)> {
        self.routes.iter().flat_map(|(key, routes)| routes.iter().map(|route| (*key, route)))
    }

    /// Puts a route in beside whatever has its key (`ip route append`), unless it is there already.
    pub fn put_route(&mut self, key: RouteKey, oif: Option<IfIndex>, route: Route) {
        let held = self.routes.entry(key).or_default();
        let new = MainRoute { oif, route: Route { dev: None, ..route } };
        if !held.contains(&new) {
            held.push(new);
        }
    }

    /// Takes every route out that `which` picks.
    pub fn del_routes(&mut self, mut which: impl FnMut(RouteKey, &MainRoute) -> bool) {
        self.routes.retain(|key, routes| {
            routes.retain(|route| !which(*key, route));
            !routes.is_empty()
        });
    }

    /// Takes every route over a link out, the kernel's own included (`ip route flush dev`).
    pub fn flush_routes(&mut self, index: IfIndex) {
        self.del_routes(|_, route| route.oif == Some(index));
    }

    /// Puts a permanent neighbour in, over whatever has its key.
    pub fn put_neighbour(&mut self, index: IfIndex, ip: IpAddr, mac: Mac) {
        if let Some(interface) = self.interface_mut(index) {
            interface.neighbours.insert(ip, Some(Neighbour { mac }));
        }
    }

    /// A packet to an unknown neighbour leaves an INCOMPLETE entry behind, if none was there.
    pub fn resolve(&mut self, index: IfIndex, ip: IpAddr) {
        if let Some(interface) = self.interface_mut(index) {
            interface.neighbours.entry(ip).or_insert(None);
        }
    }

    /// Takes a neighbour out.
    pub fn del_neighbour(&mut self, index: IfIndex, ip: IpAddr) {
        if let Some(interface) = self.interface_mut(index) {
            interface.neighbours.remove(&ip);
        }
    }

    /// Takes every neighbour of a link out, permanent or not.
    pub fn flush_neighbours(&mut self, index: IfIndex) {
        if let Some(interface) = self.interface_mut(index) {
            interface.neighbours.clear();
        }
    }

    /// Puts a static FDB entry in, over whatever has its key.
    pub fn put_fdb(&mut self, index: IfIndex, mac: Mac, fdb: Fdb) {
        if let Some(interface) = self.interface_mut(index) {
            interface.fdb.insert(FdbKey::new(mac, fdb.dst), (fdb, false));
        }
    }

    /// Puts the FDB entry of a nexthop group in, if a unicast MAC is not there (`bridge fdb add ... nhid`).
    pub fn group_fdb(&mut self, index: IfIndex, mac: Mac) {
        if let Some(interface) = self.interface_mut(index)
            && matches!(interface.link.kind, LinkKind::Vxlan(_))
            && mac.is_vtep()
            && interface.fdb.keys().all(|held| held.mac != mac)
        {
            let fdb = Fdb::of_a_group();
            interface.fdb.insert(FdbKey::new(mac, fdb.dst), (fdb, false));
        }
    }

    /// A packet from an unknown MAC is learned, if the MAC is not there.
    pub fn learn(&mut self, index: IfIndex, mac: Mac, dst: IpAddr) {
        if let Some(interface) = self.interface_mut(index) {
            interface.fdb.entry(FdbKey::new(mac, dst)).or_insert((Fdb::to(dst), true));
        }
    }

    /// Takes the FDB entries of a MAC out.
    pub fn del_fdb(&mut self, index: IfIndex, mac: Mac) {
        if let Some(interface) = self.interface_mut(index) {
            interface.fdb.retain(|key, _| key.mac != mac);
        }
    }

    /// What a device's tables hold for weft: routes of its family without the kernel's own,
    /// permanent neighbours, static FDB entries.
    pub fn tables(&self, index: IfIndex, family: Family) -> Option<Tables> {
        let interface = self.interface(index)?;
        let mut tables = self.routes_of(Some(index), family, None);
        let permanent = interface.neighbours.iter().filter(|(ip, _)| Family::of(**ip) == family);
        tables.neighbours = permanent.filter_map(|(ip, neighbour)| neighbour.map(|it| (*ip, it))).collect();
        let fixed = interface.fdb.iter().filter(|(_, (_, learned))| !learned);
        tables.fdb = fixed.map(|(key, (fdb, _))| (*key, *fdb)).collect();
        Some(tables)
    }

    /// The routes over a device, and those inside a network over others that may be ours.
    fn routes_of(&self, device: Option<IfIndex>, family: Family, network: Option<Subnet>) -> Tables {
        let row = |key: RouteKey, it: &MainRoute| {
            if it.route.protocol == PROTOCOL_KERNEL {
                return None;
            }
            if it.oif.is_some() && it.oif == device {
                return Some((key, it.route));
            }
            let inside = network.is_some_and(|network| network.contains_subnet(key.dst));
            (inside && it.may_be_ours()).then_some((key, Route { dev: it.oif, ..it.route }))
        };
        let mut tables = Tables::default();
        for (key, routes) in self.routes.iter().filter(|(key, _)| key.dst.family() == family) {
            let mut found = routes.iter().filter_map(|it| row(*key, it));
            tables.routes.extend(found.next());
            tables.surplus.extend(found);
        }
        tables
    }

    /// One look at everything in `scope`.
    pub fn observe(&self, scope: &Scope) -> Host {
        let index = |family| scope.devices.get(family).as_ref().and_then(|name| self.index(name));
        let ours = ByFamily::from_fn(index);
        let tables = |family| {
            let device: Option<IfIndex> = *ours.get(family);
            let network = *scope.networks.get(family);
            let rest = device.and_then(|device| self.tables(device, family));
            (rest.is_some() || network.is_some()).then(|| {
                let Tables { routes, surplus, .. } = self.routes_of(device, family, network);
                Tables { routes, surplus, ..rest.unwrap_or_default() }
            })
        };
        Host {
            links: self.links().cloned().collect(),
            defaults: self.defaults(),
            foreign: self.foreign(scope, ours),
            ways: if scope.ways { self.ways(scope) } else { Vec::new() },
            reach: scope.reach.and_then(|ip| self.way_to(ip)),
            tables: ByFamily::from_fn(tables),
            filter: ByFamily::from_fn(|family| self.readable_filter(family)),
            filter_problem: self.filter_problem.clone(),
        }
    }

    fn ways(&self, scope: &Scope) -> Vec<Way> {
        let inside = |dst: Subnet| scope.networks.get(dst.family()).is_some_and(|net| net.contains_subnet(dst));
        let in_scope = |dst: Subnet| scope.networks.get(dst.family()).is_some() && !inside(dst);
        let way = |(RouteKey { dst, metric }, it): (RouteKey, &MainRoute)| Way {
            dst,
            metric,
            oif: it.oif,
            on_link: it.is_on_link(),
        };
        self.routes().filter(|(key, _)| in_scope(key.dst)).map(way).collect()
    }

    fn defaults(&self) -> Vec<DefaultRoute> {
        let all = self.routes().filter(|(key, _)| key.dst.is_default());
        all.map(|(key, it)| DefaultRoute { family: key.dst.family(), oif: it.oif, metric: key.metric }).collect()
    }

    fn foreign(&self, scope: &Scope, ours: ByFamily<Option<IfIndex>>) -> Vec<ForeignRoute> {
        let is_foreign = |key: RouteKey, route: &MainRoute| {
            let family = key.dst.family();
            let inside = scope.networks.get(family).is_some_and(|network| network.contains_subnet(key.dst));
            inside && !route.may_be_ours() && (route.oif.is_none() || route.oif != *ours.get(family))
        };
        let found = self.routes().filter(|(key, route)| is_foreign(*key, route));
        found
            .map(|(key, it)| ForeignRoute {
                dst: key.dst,
                metric: key.metric,
                oif: it.oif,
                protocol: it.route.protocol,
            })
            .collect()
    }

    /// The interface and source of the best route to an address.
    pub fn way_to(&self, ip: IpAddr) -> Option<(IfIndex, IpAddr)> {
        let fits = self.routes().filter(|(key, _)| key.dst.contains(ip));
        let (_, best) = fits.max_by_key(|(key, _)| (key.dst.len(), std::cmp::Reverse(key.metric)))?;
        let link = &self.interface(best.oif?)?.link;
        let same = |address: &&Address| Family::of(address.ip) == Family::of(ip) && address.global;
        link.addresses.iter().find(same).map(|address| (link.index, address.ip))
    }

    /// Does one operation and answers.
    pub fn ack(&mut self, op: &Op) -> Ack {
        match self.apply(op) {
            Ok(()) => Ack::Done,
            Err(refusal) => Ack::Refused(refusal),
        }
    }

    /// Does one operation.
    ///
    /// # Errors
    /// As Linux refuses it.
    pub fn apply(&mut self, op: &Op) -> Result<(), Refusal> {
        match op {
            Op::Link(op) => self.apply_link(op),
            Op::Set { dev, entry, replace } => self.set_row(dev.index, entry, *replace),
            Op::Del { dev, entry } => self.del_row(dev.index, entry),
            Op::Filter(op) => self.apply_filter(op),
        }
    }
}

/// A subnet's prefix route, as the kernel makes it for an address.
pub(super) fn connected(subnet: Subnet) -> Option<(RouteKey, Route)> {
    let metric = match subnet.family() {
        Family::V4 if subnet.len() == Family::V4.bits() => return None,
        Family::V4 => 0,
        Family::V6 => 256,
    };
    let route = Route { via: None, onlink: false, protocol: PROTOCOL_KERNEL, plain: true, dev: None };
    Some((RouteKey { dst: subnet, metric }, route))
}
