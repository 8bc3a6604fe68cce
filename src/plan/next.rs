//! The difference, and the order in which it is worked off. Two rules instead of phases:
//!
//! * an entry may appear once everything it points at is in its final place;
//! * an entry may disappear once nothing of ours points at it, and what replaces it is there.
//!
//! A route points at a neighbour, a neighbour at an FDB entry. Equal keys are replaced in place.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use super::beside::rows_beside;
use super::desired::Wanted;
use super::leaving::{Leaving, surplus};
use super::ownership::is_ours;
use crate::model::addr::{Family, IfIndex, Mac};
use crate::model::host::Host;
use crate::model::op::{Dev, Op};
use crate::model::table::{Entry, FdbKey, Kind, PROTOCOL_WEFT, Route, RouteKey, Tables};

/// What is left to do on one device, and what of it may be done already.
#[derive(Debug)]
pub struct Program<'a> {
    dev: Dev,
    wanted: &'a Wanted,
    seen: Cow<'a, Tables>,
    pending: Vec<Op>,
    unsettled: Unsettled,
    /// `None` if no row goes: most of the time, and then nobody need count.
    leaving: Option<Leaving>,
}

impl<'a> Program<'a> {
    /// Compares what is wanted with what was seen on the device.
    pub fn new(dev: &Dev, wanted: &'a Wanted, seen: &'a Tables) -> Self {
        let seen = prefer_wanted(seen, &wanted.tables);
        // From empty to thousands of rows is when it matters.
        let missing = wanted.tables.len().saturating_sub(seen.len());
        let (mut pending, mut unwanted) = (Vec::with_capacity(missing), Vec::new());
        let mut unsettled = Unsettled::with_capacity(missing / Kind::ALL.len());
        for (entry, there) in rows_beside(&wanted.tables, &seen) {
            if entry == there {
                continue;
            }
            entry.or(there).inspect(|row| unsettled.add(row));
            if let Some(entry) = entry {
                let replace = there.is_some_and(|there| is_ours(&there, wanted));
                pending.push(Op::Set { dev: dev.clone(), entry, replace });
            } else {
                unwanted.extend(there);
            }
        }
        unwanted.extend(surplus(&seen));
        let held = Held::new(wanted, &seen);
        unwanted.retain(|entry| !held.holds(entry, wanted) && is_ours(entry, wanted));
        let leaving = (!unwanted.is_empty()).then(|| Leaving::new(&seen, wanted));
        pending.extend(unwanted.into_iter().map(|entry| Op::Del { dev: dev.clone(), entry }));
        Self { dev: dev.clone(), wanted, seen, pending, unsettled, leaving }
    }

    /// A route of our own number on another device holds its key against us: it was made for this
    /// device before that one was renamed, or for the device of another VNI. IPv4 replaces it. IPv6
    /// takes no gateway that it would reach through another device, so there it has to go first.
    pub fn take_over(&mut self, host: &Host) {
        let ours = host.foreign.iter().filter(|route| route.protocol == PROTOCOL_WEFT);
        let ours = ours.filter_map(|route| Some((RouteKey { dst: route.dst, metric: route.metric }, route.oif?)));
        let ours: HashMap<RouteKey, IfIndex> = ours.collect();
        let mut first = Vec::new();
        for op in &mut self.pending {
            let Op::Set { entry: Entry::Route(key, _), replace, .. } = op else { continue };
            let Some(link) = ours.get(key).and_then(|index| host.link_at(*index)) else { continue };
            *replace = true;
            if key.dst.family() == Family::V6 {
                let any_gateway = Route { via: None, onlink: false, protocol: PROTOCOL_WEFT, plain: true };
                let dev = Dev { index: link.index, name: link.name.clone() };
                first.push(Op::Del { dev, entry: Entry::Route(*key, any_gateway) });
            }
        }
        self.pending.splice(..0, first);
    }

    /// Whether nothing is left.
    pub fn is_done(&self) -> bool {
        self.pending.is_empty()
    }

    /// Everything that is left, in no order that could be carried out.
    pub fn pending(&self) -> &[Op] {
        &self.pending
    }

    /// Puts off what `refuse` says yes to: it stays out of every batch.
    pub fn put_off(&mut self, mut refuse: impl FnMut(&Op) -> bool) -> Vec<Op> {
        self.pending.extract_if(.., |op| refuse(op)).collect()
    }

    /// Everything that may be done now. Empty when nothing is left, or nothing left may be done.
    pub fn next_batch(&mut self) -> Vec<Op> {
        let mut pending = std::mem::take(&mut self.pending);
        let batch = pending.extract_if(.., |op| self.is_allowed(op)).collect();
        self.pending = pending;
        batch
    }

    /// Takes note that an operation is done.
    pub fn done(&mut self, op: &Op) {
        let Some(entry) = op.entry() else { return };
        self.unsettled.settle(entry);
        let Some(leaving) = &mut self.leaving else { return };
        match op {
            Op::Set { .. } => leaving.set(entry, self.seen.at(entry), self.wanted),
            Op::Del { dev, .. } if *dev == self.dev => leaving.remove(entry, self.wanted),
            Op::Del { .. } | Op::Link(_) => {}
        }
    }

    fn is_allowed(&self, op: &Op) -> bool {
        match op {
            Op::Set { entry, .. } => self.stands(entry),
            Op::Del { dev, entry: Entry::Route(key, _) } if *dev != self.dev => {
                let instead = self.wanted.tables.routes.get(key);
                instead.is_none_or(|route| self.stands(&Entry::Route(*key, *route)))
            }
            Op::Del { entry, .. } => self.leaving.as_ref().is_none_or(|leaving| leaving.is_free(entry, self.wanted)),
            Op::Link(_) => true,
        }
    }

    /// Whether everything that the entry leads to is in its final place.
    fn stands(&self, entry: &Entry) -> bool {
        match entry {
            Entry::Fdb(..) | Entry::Route(_, Route { via: None, .. }) => true,
            Entry::Neighbour(_, neighbour) => !self.unsettled.macs.contains(&neighbour.mac),
            Entry::Route(_, Route { via: Some(via), .. }) => {
                let leads_on = || self.wanted.tables.neighbours.get(via);
                !self.unsettled.gateways.contains(via)
                    && leads_on().is_none_or(|neighbour| self.stands(&Entry::Neighbour(*via, *neighbour)))
            }
        }
    }

    /// How many rows of a table are removed for good, of those that `counts` says yes to, and how many
    /// of ours were there: rows of peers that are no longer wanted, not old forms of rows that are.
    pub fn removals(&self, kind: Kind, counts: impl Fn(&Op) -> bool) -> (usize, usize) {
        let removed = |op: &&Op| match op {
            Op::Del { entry: Entry::Route(key, _), .. } => {
                kind == Kind::Route && !self.wanted.peers.contains_key(&key.dst)
            }
            Op::Del { entry, .. } => entry.kind() == kind,
            Op::Set { .. } | Op::Link(_) => false,
        };
        let there = self.seen.entries().filter(|entry| entry.kind() == kind && is_ours(entry, self.wanted));
        (self.pending.iter().filter(removed).filter(|op| counts(op)).count(), there.count())
    }
}

/// Of several routes under one key, the one that is wanted counts as its row: the others are too many.
/// It need not be put in again, which the kernel would refuse, wherever it stands among them
/// (`a_route_put_before_ours_under_the_same_key_goes`).
fn prefer_wanted<'a>(seen: &'a Tables, wanted: &Tables) -> Cow<'a, Tables> {
    let mut seen = Cow::Borrowed(seen);
    if !seen.surplus.is_empty() {
        let Tables { routes, surplus, .. } = seen.to_mut();
        for (key, other) in surplus {
            if let Some(row) = routes.get_mut(key)
                && wanted.routes.get(key) == Some(other)
            {
                std::mem::swap(row, other);
            }
        }
    }
    seen
}

/// Rows for the pod CIDRs of nodes that cannot be used now: they stay as they are, each neighbour with
/// the FDB entry that it points at.
#[derive(Debug)]
struct Held {
    bases: BTreeSet<IpAddr>,
    macs: BTreeSet<Mac>,
}

impl Held {
    fn new(wanted: &Wanted, seen: &Tables) -> Self {
        let bases: BTreeSet<IpAddr> = wanted.held.keys().map(|subnet| subnet.base()).collect();
        let neighbours = bases.iter().filter_map(|base| seen.neighbours.get(base));
        let macs = neighbours.map(|neighbour| neighbour.mac).collect();
        Self { bases, macs }
    }

    fn holds(&self, entry: &Entry, wanted: &Wanted) -> bool {
        match entry {
            Entry::Route(key, _) => wanted.held.contains_key(&key.dst),
            Entry::Neighbour(ip, _) => self.bases.contains(ip),
            Entry::Fdb(key, _) => self.macs.contains(&key.mac),
        }
    }
}

/// The FDB entries and neighbours that others point at and that are not what is wanted: not yet there,
/// or there for another.
#[derive(Debug, Default)]
struct Unsettled {
    macs: HashSet<Mac>,
    gateways: HashSet<IpAddr>,
}

impl Unsettled {
    fn with_capacity(each: usize) -> Self {
        Self { macs: HashSet::with_capacity(each), gateways: HashSet::with_capacity(each) }
    }

    fn add(&mut self, row: &Entry) {
        match row {
            Entry::Fdb(FdbKey { mac, remote: None }, _) => drop(self.macs.insert(*mac)),
            Entry::Neighbour(ip, _) => drop(self.gateways.insert(*ip)),
            Entry::Fdb(..) | Entry::Route(..) => {}
        }
    }

    fn settle(&mut self, row: &Entry) {
        match row {
            Entry::Fdb(FdbKey { mac, remote: None }, _) => drop(self.macs.remove(mac)),
            Entry::Neighbour(ip, _) => drop(self.gateways.remove(ip)),
            Entry::Fdb(..) | Entry::Route(..) => {}
        }
    }
}
