//! What the kernel's tables hold for one VXLAN device, and for peers that are reached without it:
//! routes, neighbours and FDB entries, keyed as the kernel keys them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use super::addr::{Family, IfIndex, Mac, Subnet};

/// The protocol number of the routes that weft makes (`ip route show proto 119`). Free in
/// iproute2's `rt_protos`.
pub const PROTOCOL_WEFT: u8 = 119;
/// RTPROT_KERNEL: made by the kernel itself.
pub const PROTOCOL_KERNEL: u8 = 2;
/// RTPROT_BOOT: what flannel's routes carry, and those an operator makes with a plain `ip route add`.
pub const PROTOCOL_BOOT: u8 = 3;

/// How the kernel tells two routes of the main table apart (TOS is always 0 here; anything else is
/// not in this table).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteKey {
    /// The destination.
    pub dst: Subnet,
    /// The priority: smaller wins. IPv4's default is 0, IPv6's 1024.
    pub metric: u32,
}

/// The rest of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route {
    /// The gateway; `None` if there is none, or several (multipath).
    pub via: Option<IpAddr>,
    /// RTNH_F_ONLINK: the gateway is taken to be reachable without a route to it.
    pub onlink: bool,
    /// Who made it: [`PROTOCOL_WEFT`], [`PROTOCOL_BOOT`] and so on.
    pub protocol: u8,
    /// Whether nothing else is set: unicast, scope global, one next hop, no preferred source, no
    /// metrics, no encapsulation, no nexthop object.
    pub plain: bool,
    /// The interface, if it is not the device whose tables these are.
    pub dev: Option<IfIndex>,
}

impl Route {
    /// The route that weft makes: through the peer's VTEP address.
    pub const fn through(via: IpAddr) -> Self {
        Self { via: Some(via), onlink: true, protocol: PROTOCOL_WEFT, plain: true, dev: None }
    }

    /// The route to a peer on the same network: through its public IP, without encapsulation.
    pub const fn direct(via: IpAddr, dev: IfIndex) -> Self {
        Self { via: Some(via), onlink: false, protocol: PROTOCOL_WEFT, plain: true, dev: Some(dev) }
    }

    /// Whether a route over an interface that is not our device may be ours to change: it carries our
    /// number, or the form that flannel gives direct routes.
    pub fn may_be_ours(&self) -> bool {
        let flannels = self.protocol == PROTOCOL_BOOT && self.plain && !self.onlink && self.via.is_some();
        self.protocol == PROTOCOL_WEFT || flannels
    }

    /// The route to a VTEP address itself, over the device.
    pub const fn over_the_device() -> Self {
        Self { via: None, onlink: false, protocol: PROTOCOL_WEFT, plain: true, dev: None }
    }
}

/// A permanent neighbour's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Neighbour {
    /// The VTEP's MAC.
    pub mac: Mac,
}

/// How the kernel tells two FDB entries apart. A unicast MAC has one destination; the all-zero MAC
/// and multicast MACs have a list, so there the destination belongs to the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FdbKey {
    /// The inner destination MAC.
    pub mac: Mac,
    /// The destination, if the MAC is not unicast.
    pub remote: Option<IpAddr>,
}

impl FdbKey {
    /// The key of an entry as the kernel would file it.
    pub const fn new(mac: Mac, dst: IpAddr) -> Self {
        Self { mac, remote: if mac.is_vtep() { None } else { Some(dst) } }
    }
}

/// An FDB entry's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fdb {
    /// The outer destination address.
    pub dst: IpAddr,
    /// Whether nothing else is set: `self permanent`, no port, VNI or interface of its own.
    pub plain: bool,
}

impl Fdb {
    /// The entry that weft makes.
    pub const fn to(dst: IpAddr) -> Self {
        Self { dst, plain: true }
    }

    /// The entry of a nexthop group (`bridge fdb add ... nhid`), which has no destination of its own.
    pub const fn of_a_group() -> Self {
        Self { dst: IpAddr::V4(Ipv4Addr::UNSPECIFIED), plain: false }
    }

    /// Whether it is [`Self::of_a_group`].
    pub fn is_grouped(&self) -> bool {
        !self.plain && self.dst.is_unspecified()
    }
}

/// One table row: key and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Entry {
    /// In the FDB of the device (`bridge fdb`).
    Fdb(FdbKey, Fdb),
    /// In the neighbour table of the device (`ip neigh`).
    Neighbour(IpAddr, Neighbour),
    /// In the main routing table (`ip route`).
    Route(RouteKey, Route),
}

/// Which table a row is in; the order is the one in which rows of a peer appear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Bridge FDB.
    Fdb,
    /// Neighbours.
    Neighbour,
    /// Routes.
    Route,
}

impl Kind {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Fdb, Self::Neighbour, Self::Route];

    /// The word used in logs, metrics and `/state`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Fdb => "fdb",
            Self::Neighbour => "neighbour",
            Self::Route => "route",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl Entry {
    /// The table it is in.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Fdb(..) => Kind::Fdb,
            Self::Neighbour(..) => Kind::Neighbour,
            Self::Route(..) => Kind::Route,
        }
    }
}

/// The rows of one device. What weft wants, and what it saw, have the same type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Routes of the main table over the device, the kernel's own (`proto kernel`) left out; and those over
    /// other interfaces to destinations in the cluster network that may be ours to change.
    pub routes: BTreeMap<RouteKey, Route>,
    /// Further IPv4 routes under a key of `routes`, which `ip route append` and `prepend` can make, in
    /// the kernel's order: the one in `routes` comes first and is in use. Nothing wanted is among them.
    pub surplus: Vec<(RouteKey, Route)>,
    /// Permanent neighbours on the device.
    pub neighbours: BTreeMap<IpAddr, Neighbour>,
    /// Static FDB entries of the device.
    pub fdb: BTreeMap<FdbKey, Fdb>,
}

impl Tables {
    /// Rows in all three tables.
    pub fn len(&self) -> usize {
        self.routes.len() + self.neighbours.len() + self.fdb.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every row.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        let fdb = self.fdb.iter().map(|(k, v)| Entry::Fdb(*k, *v));
        let neighbours = self.neighbours.iter().map(|(k, v)| Entry::Neighbour(*k, *v));
        let routes = self.routes.iter().map(|(k, v)| Entry::Route(*k, *v));
        fdb.chain(neighbours).chain(routes)
    }

    /// The row that has this row's key.
    pub fn at(&self, entry: &Entry) -> Option<Entry> {
        match entry {
            Entry::Fdb(key, _) => self.fdb.get(key).map(|v| Entry::Fdb(*key, *v)),
            Entry::Neighbour(key, _) => self.neighbours.get(key).map(|v| Entry::Neighbour(*key, *v)),
            Entry::Route(key, _) => self.routes.get(key).map(|v| Entry::Route(*key, *v)),
        }
    }

    /// Puts a row in, over whatever has its key.
    pub fn set(&mut self, entry: Entry) {
        match entry {
            Entry::Fdb(key, value) => drop(self.fdb.insert(key, value)),
            Entry::Neighbour(key, value) => drop(self.neighbours.insert(key, value)),
            Entry::Route(key, value) => drop(self.routes.insert(key, value)),
        }
    }

    /// Takes the row with this row's key out.
    pub fn remove(&mut self, entry: &Entry) {
        match entry {
            Entry::Fdb(key, _) => drop(self.fdb.remove(key)),
            Entry::Neighbour(key, _) => drop(self.neighbours.remove(key)),
            Entry::Route(key, _) => drop(self.routes.remove(key)),
        }
    }
}

/// The metric of a peer's route.
///
/// Linux finds the shared next-hop record of an IPv4 route in a hash that leaves the gateway out
/// (`fib_info_hashfn` in net/ipv4/fib_semantics.c), so N routes with one gateway each and one metric
/// cost O(N) per insert. The metric is in the hash: spread over 4,096 values, inserts are flat.
/// Neighbouring pod CIDRs get neighbouring metrics, so a cluster of up to 4,096 nodes has one route
/// for each. IPv6 has no such chain and keeps its default, 1024, which flanneld also replaces.
pub fn peer_metric(dst: Subnet) -> u32 {
    match dst.base() {
        IpAddr::V4(ip) if dst.len() > 0 => 1 + ((u32::from(ip) >> (32 - u32::from(dst.len()))) & 0xfff),
        IpAddr::V4(_) => 1,
        IpAddr::V6(_) => 1024,
    }
}

/// What an encapsulated route's metric has more while direct routing is on: it stays in place under the
/// direct one, so that a peer goes from one to the other by a single change and is never without a route.
pub const FALLBACK: u32 = 4096;

/// The metric that flannel's routes have, as the kernel reports it.
pub const fn flannel_metric(family: Family) -> u32 {
    match family {
        Family::V4 => 0,
        Family::V6 => 1024,
    }
}
