//! Why a change is made, told from what was wanted before.

use std::collections::{HashMap, HashSet};

use super::desired::Wanted;
use crate::model::addr::{Mac, bits};
use crate::model::device::DeviceSpec;
use crate::model::node::NodeName;
use crate::model::op::LinkOp;
use crate::model::table::{Entry, Route, RouteKey, Tables};

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// The first pass of this process found the kernel so: an earlier life, flannel, or nothing.
    Start,
    /// A peer appeared.
    NodeJoined,
    /// A peer changed what it announces.
    NodeChanged,
    /// A peer is gone, opted out or lost a conflict.
    NodeLeft,
    /// Our own configuration, node or underlay changed.
    LocalChanged,
    /// It was right, and somebody or the kernel removed it.
    DriftDeleted,
    /// It was right, and somebody changed it.
    DriftChanged,
    /// It was not there, and somebody added it.
    DriftAdded,
    /// An earlier attempt had failed.
    Retry,
}

impl Cause {
    /// Every cause, for metrics that start at zero.
    pub const ALL: [Self; 9] = [
        Self::Start,
        Self::NodeJoined,
        Self::NodeChanged,
        Self::NodeLeft,
        Self::LocalChanged,
        Self::DriftDeleted,
        Self::DriftChanged,
        Self::DriftAdded,
        Self::Retry,
    ];

    /// A metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::NodeJoined => "node_joined",
            Self::NodeChanged => "node_changed",
            Self::NodeLeft => "node_left",
            Self::LocalChanged => "local_changed",
            Self::DriftDeleted => "drift_deleted",
            Self::DriftChanged => "drift_changed",
            Self::DriftAdded => "drift_added",
            Self::Retry => "retry",
        }
    }

    /// Whether somebody else had changed what was right.
    pub const fn is_drift(self) -> bool {
        matches!(self, Self::DriftDeleted | Self::DriftChanged | Self::DriftAdded)
    }
}

/// Why a missing or differing row is put in, given what was in place before (`None` until a first
/// pass is done).
pub fn of_set(entry: &Entry, replace: bool, now: &People<'_>, before: Option<&People<'_>>) -> Cause {
    let Some(before) = before else { return Cause::Start };
    let entry = &now.purpose(entry);
    if before.wanted.tables.at(entry).as_ref() == Some(entry) {
        return if replace { Cause::DriftChanged } else { Cause::DriftDeleted };
    }
    match now.owner(entry) {
        Some(_) if now.is_same(entry, before) => Cause::LocalChanged,
        Some(name) if before.names.contains(name) => Cause::NodeChanged,
        _ => Cause::NodeJoined,
    }
}

/// Why a row is taken out.
pub fn of_del(entry: &Entry, now: &People<'_>, before: Option<&People<'_>>) -> Cause {
    let Some(before) = before else { return Cause::Start };
    let Some(name) = before.owner(entry) else { return Cause::DriftAdded };
    let was_right = before.wanted.tables.at(entry).as_ref() == Some(entry) || before.is_held(name);
    // A node that takes no part any more, or may not, is still there.
    match (was_right, now.names.contains(name) || now.wanted.without.contains_key(name)) {
        (false, _) => Cause::DriftAdded,
        (true, true) if now.is_same(entry, before) => Cause::LocalChanged,
        (true, true) => Cause::NodeChanged,
        (true, false) => Cause::NodeLeft,
    }
}

/// Why a change to the device is made, given how it was wanted at the end of the pass before.
pub fn of_link(op: &LinkOp, spec: &DeviceSpec, before: Option<&DeviceSpec>) -> Cause {
    match before {
        None => Cause::Start,
        Some(before) if before != spec => Cause::LocalChanged,
        Some(_) => match op {
            LinkOp::Create(_) | LinkOp::AddAddress(..) => Cause::DriftDeleted,
            LinkOp::DelAddress(..) => Cause::DriftAdded,
            LinkOp::Delete(_)
            | LinkOp::AddrGenNone(_)
            | LinkOp::SetMac(..)
            | LinkOp::SetMtu(..)
            | LinkOp::SetLocal(..)
            | LinkOp::SetUnderlay(..)
            | LinkOp::SetLearning(..)
            | LinkOp::SetTtl(..)
            | LinkOp::EnableIpv6(_)
            | LinkOp::Up(_) => Cause::DriftChanged,
        },
    }
}

/// Which peer a row is for, in one family.
#[derive(Debug)]
pub struct People<'a> {
    wanted: &'a Wanted,
    /// By the [`bits`] of the pod CIDR's base.
    by_base: HashMap<u128, &'a NodeName>,
    by_mac: HashMap<Mac, &'a NodeName>,
    names: HashSet<&'a NodeName>,
    held: HashSet<&'a NodeName>,
}

impl<'a> People<'a> {
    /// What a row is set for: a way to a gateway, which nobody wants for itself, for the route through it.
    fn purpose(&self, entry: &Entry) -> Entry {
        let Entry::Route(RouteKey { dst, .. }, Route { via: None, .. }) = entry else { return *entry };
        let peer = self.wanted.peer_of(*dst).filter(|_| self.wanted.tables.at(entry) != Some(*entry));
        let mut routes = peer.into_iter().flat_map(|(subnet, _)| self.wanted.routes_to(*subnet));
        let through = routes.find(|(_, route)| route.via == Some(dst.base()));
        through.map_or(*entry, |(key, route)| Entry::Route(*key, *route))
    }

    /// Of what is wanted, now or before. What is held for a node that cannot be used is told from the rows that
    /// are there: its neighbour says which FDB entry is its.
    pub fn new(wanted: &'a Wanted, seen: &Tables) -> Self {
        let peers = || wanted.peers.values();
        let held = wanted.held.iter();
        let held_mac = held.filter_map(|(subnet, name)| Some((seen.neighbours.get(&subnet.base())?.mac, name)));
        let by_base = peers().map(|(name, peer)| (bits(peer.subnet.base()), name));
        let held_base = wanted.held.iter().map(|(subnet, name)| (bits(subnet.base()), name));
        Self {
            wanted,
            by_base: held_base.chain(by_base).collect(),
            by_mac: held_mac.chain(peers().filter_map(|(name, peer)| Some((peer.mac?, name)))).collect(),
            names: peers().map(|(name, _)| name).chain(wanted.held.values()).collect(),
            held: wanted.held.values().collect(),
        }
    }

    /// The peer, if the row is for one.
    pub fn owner(&self, entry: &Entry) -> Option<&'a NodeName> {
        match entry {
            Entry::Route(key, _) => self.by_base.get(&bits(key.dst.base())).copied(),
            Entry::Neighbour(ip, _) => self.by_base.get(&bits(*ip)).copied(),
            Entry::Fdb(key, _) => self.by_mac.get(&key.mac).copied(),
        }
    }

    /// Whether the peer that a route leads to says what it said before.
    fn is_same(&self, entry: &Entry, before: &Self) -> bool {
        let Entry::Route(key, _) = entry else { return false };
        let now = self.wanted.peer_of(key.dst);
        now.is_some() && now == before.wanted.peer_of(key.dst)
    }

    fn is_held(&self, name: &NodeName) -> bool {
        self.held.contains(name)
    }
}
