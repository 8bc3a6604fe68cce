//! The difference, and the order in which it is worked off. Two rules instead of phases:
//!
//! * an entry may appear once everything it points at is in its final place;
//! * an entry may disappear once nothing of ours points at it, and what replaces it is there.
//!
//! A route points at a neighbour, a neighbour at an FDB entry; a direct route points at nothing of ours.
//! Equal keys are replaced in place.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;

use super::beside::rows_beside;
use super::desired::Wanted;
use super::leaving::{Leaving, surplus};
use super::ownership::is_ours;
use crate::model::addr::{Family, IfName, Mac, Subnet, bits};
use crate::model::host::Link;
use crate::model::op::{Dev, Op};
use crate::model::table::{Entry, FdbKey, Kind, Route, RouteKey, Tables, peer_metric};

/// What is left to do in one family, and what of it may be done already.
#[derive(Debug)]
pub struct Program<'a> {
    wanted: &'a Wanted,
    seen: Cow<'a, Tables>,
    /// By [`stage`].
    pending: [Vec<Op>; 6],
    unsettled: Unsettled,
    /// `None` if no row goes: most of the time, and then nobody need count.
    leaving: Option<Leaving>,
}

impl<'a> Program<'a> {
    /// Compares what is wanted with what was seen. `dev` is the device whose tables they are, `links` are
    /// the host's other interfaces.
    pub fn new(dev: &Dev, wanted: &'a Wanted, seen: &'a Tables, links: &[Link]) -> Self {
        let seen = prefer_wanted(seen, &wanted.tables);
        let (mut pending, mut unwanted) = (<[Vec<Op>; 6]>::default(), Vec::new());
        let mut unsettled = Unsettled::default();
        // From empty to thousands of rows is when it matters.
        for (pending, missing) in pending.iter_mut().zip(missing(&wanted.tables, &seen)) {
            pending.reserve(missing);
        }
        let on = |entry: &Entry| place(entry, dev, links);
        let mut put = |op: Op| pending[stage(&op)].push(op);
        for (entry, there) in rows_beside(&wanted.tables, &seen) {
            if entry == there {
                continue;
            }
            let Some(entry) = entry else {
                // Routes that nobody wants lead nobody on.
                there.filter(|there| there.kind() != Kind::Route).inspect(|row| unsettled.add(row));
                unwanted.extend(there);
                continue;
            };
            if let Some(stuck) = there.filter(|there| matches!(there, Entry::Fdb(_, fdb) if fdb.is_grouped())) {
                // No replace changes it (`an_fdb_entry_of_a_group_is_not_replaced`): it goes, and the next look
                // finds nothing in its place.
                unsettled.add(&entry);
                unwanted.push(stuck);
                continue;
            }
            let there = there.filter(|there| is_ours(there, wanted));
            let way = there.and_then(|there| own_way(&there, &entry, &seen));
            for (entry, replace) in way.map(|way| (way, false)).into_iter().chain([(entry, there.is_some())]) {
                if entry.kind() == Kind::Route {
                    unsettled.add(&entry);
                }
                put(Op::Set { dev: on(&entry), entry, replace });
            }
        }
        unwanted.extend(surplus(&seen));
        let held = Held::new(wanted, &seen);
        unwanted.retain(|entry| !held.holds(entry, wanted) && is_ours(entry, wanted));
        let leaving = (!unwanted.is_empty()).then(|| Leaving::new(&seen, wanted));
        for entry in unwanted {
            put(Op::Del { dev: on(&entry), entry });
        }
        Self { wanted, seen, pending, unsettled, leaving }
    }

    /// Whether nothing is left.
    pub fn is_done(&self) -> bool {
        self.pending.iter().all(Vec::is_empty)
    }

    /// Everything that is left, in no order that could be carried out.
    pub fn pending(&self) -> impl Iterator<Item = &Op> {
        self.pending.iter().flatten()
    }

    /// Puts off what `refuse` says yes to: it stays out of every batch.
    pub fn put_off(&mut self, mut refuse: impl FnMut(&Op) -> bool) -> Vec<Op> {
        let mut off = Vec::new();
        for pending in &mut self.pending {
            off.extend(pending.extract_if(.., |op| refuse(op)));
        }
        off.iter().for_each(|op| self.unsettled.leave_out(op));
        off
    }

    /// What may be done now, of one table. Empty when nothing is left, or nothing left may be done. Say of
    /// each whether it is [`Self::done`] or has [`Self::failed`] before you ask for the next.
    pub fn next_batch(&mut self) -> Vec<Op> {
        for at in 0..self.pending.len() {
            let mut pending = std::mem::take(&mut self.pending[at]);
            // All of thousands, from empty.
            if !pending.is_empty() && pending.iter().all(|op| self.is_allowed(op)) {
                return pending;
            }
            let batch: Vec<Op> = pending.extract_if(.., |op| self.is_allowed(op)).collect();
            self.pending[at] = pending;
            if !batch.is_empty() {
                return batch;
            }
        }
        Vec::new()
    }

    /// Takes note that an operation of a batch was tried in vain.
    pub fn failed(&mut self, op: &Op) {
        self.unsettled.leave_out(op);
    }

    /// Takes note that an operation is done.
    pub fn done(&mut self, op: &Op) {
        let Some(entry) = op.entry() else { return };
        let makes_room =
            matches!((op, entry), (Op::Del { .. }, Entry::Fdb(key, _)) if self.wanted.tables.fdb.contains_key(key));
        if !makes_room {
            self.unsettled.settle(entry);
        }
        let Some(leaving) = &mut self.leaving else { return };
        match op {
            Op::Set { .. } => leaving.set(entry, self.seen.at(entry), self.wanted),
            Op::Del { .. } => leaving.remove(entry, self.wanted),
            Op::Link(_) | Op::Filter(_) => {}
        }
    }

    fn is_allowed(&self, op: &Op) -> bool {
        match op {
            Op::Set { entry, .. } => self.stands(entry),
            Op::Del { entry, .. } => {
                self.leaving.as_ref().is_none_or(|leaving| leaving.is_free(entry, self.wanted))
                    && self.is_relieved(entry)
            }
            Op::Link(_) | Op::Filter(_) => true,
        }
    }

    /// Whether what the packets of a direct route take instead leads all the way. Over the device they are
    /// as well off with the one as with the other.
    fn is_relieved(&self, entry: &Entry) -> bool {
        let Entry::Route(key, Route { dev: Some(_), .. }) = entry else { return true };
        self.wanted.routes_to(key.dst).all(|(key, route)| self.stands(&Entry::Route(*key, *route)))
    }

    /// Whether everything that the entry leads to is in its final place.
    fn stands(&self, entry: &Entry) -> bool {
        match entry {
            Entry::Fdb(..) | Entry::Route(_, Route { via: None, .. } | Route { dev: Some(_), .. }) => true,
            Entry::Neighbour(_, neighbour) => !self.unsettled.macs.contains(&neighbour.mac),
            Entry::Route(_, Route { via: Some(via), .. }) => {
                let leads_on = || self.wanted.tables.neighbours.get(via);
                !self.unsettled.gateways.contains(&bits(*via))
                    && !self.unsettled.ways.contains(&bits(*via))
                    && (self.unsettled.macs.is_empty()
                        || leads_on().is_none_or(|neighbour| self.stands(&Entry::Neighbour(*via, *neighbour))))
            }
        }
    }

    /// How many rows of a table are removed for good, of those that `counts` says yes to, and how many
    /// of ours were there: rows of peers that are no longer wanted, not old forms of rows that are.
    pub fn removals(&self, kind: Kind, counts: impl Fn(&Op) -> bool) -> (usize, usize) {
        let removed = |op: &&Op| match op {
            Op::Del { entry: Entry::Route(key, _), .. } => {
                kind == Kind::Route && self.wanted.peer_of(key.dst).is_none()
            }
            Op::Del { entry, .. } => entry.kind() == kind,
            Op::Set { .. } | Op::Link(_) | Op::Filter(_) => false,
        };
        let there = self.seen.entries().filter(|entry| entry.kind() == kind && is_ours(entry, self.wanted));
        (self.pending().filter(removed).filter(|op| counts(op)).count(), there.count())
    }
}

/// The order in which operations are looked at: first what is put in, each table before those that point at it;
/// then what goes, the other way round. Whether one may be done depends on more than that
/// ([`Program::is_allowed`]).
const fn stage(op: &Op) -> usize {
    match op {
        Op::Set { entry: Entry::Fdb(..), .. } | Op::Link(_) | Op::Filter(_) => 0,
        Op::Set { entry: Entry::Neighbour(..), .. } => 1,
        Op::Set { entry: Entry::Route(..), .. } => 2,
        Op::Del { entry: Entry::Route(..), .. } => 3,
        Op::Del { entry: Entry::Neighbour(..), .. } => 4,
        Op::Del { entry: Entry::Fdb(..), .. } => 5,
    }
}

/// How many rows more each table gets, at least; in the order of [`stage`].
fn missing(wanted: &Tables, seen: &Tables) -> [usize; 3] {
    [
        wanted.fdb.len().saturating_sub(seen.fdb.len()),
        wanted.neighbours.len().saturating_sub(seen.neighbours.len()),
        wanted.routes.len().saturating_sub(seen.routes.len()),
    ]
}

/// The interface that a row is on.
fn place(entry: &Entry, dev: &Dev, links: &[Link]) -> Dev {
    let Entry::Route(_, Route { dev: Some(index), .. }) = entry else { return dev.clone() };
    let name = links.iter().find(|link| link.index == *index).map(|link| link.name.clone());
    Dev { index: *index, name: name.unwrap_or_else(|| IfName::new(&format!("if{}", index.0))) }
}

/// What has to be there before a route over the device can take the place of one over another interface.
/// IPv4 needs nothing. IPv6 takes no gateway as onlink that it would reach through another interface, and
/// that is where the route in place leads; so the gateway gets a route of its own meanwhile, which the next
/// look finds and nobody wants.
fn own_way(there: &Entry, entry: &Entry, seen: &Tables) -> Option<Entry> {
    let (Entry::Route(_, Route { dev: Some(_), .. }), Entry::Route(key, route)) = (there, entry) else { return None };
    let base = route.via.filter(|_| route.dev.is_none() && key.dst.family() == Family::V6)?;
    let dst = Subnet::host(base);
    let way = RouteKey { dst, metric: peer_metric(dst) };
    (!seen.routes.contains_key(&way)).then(|| Entry::Route(way, Route::over_the_device()))
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
            Entry::Route(key, _) => {
                let base = key.dst.base();
                wanted.held.contains_key(&key.dst) || (key.dst == Subnet::host(base) && self.bases.contains(&base))
            }
            Entry::Neighbour(ip, _) => self.bases.contains(ip),
            Entry::Fdb(key, _) => self.macs.contains(&key.mac),
        }
    }
}

/// Rows that others point at and that are not what is wanted: there for another, refused, or put off. Seldom any:
/// tables are worked off one after the other, each before those that point at it. Only a route that leads to
/// gateways is among those that wait for it, and is here from the start.
#[derive(Debug, Default)]
struct Unsettled {
    macs: HashSet<Mac>,
    /// By [`bits`].
    gateways: HashSet<u128>,
    /// Gateways that have a route of their own, by [`bits`].
    ways: HashSet<u128>,
}

impl Unsettled {
    /// Takes note that a row is not put in, if the operation would.
    fn leave_out(&mut self, op: &Op) {
        if let Op::Set { entry, .. } = op {
            self.add(entry);
        }
    }

    fn add(&mut self, row: &Entry) {
        match row {
            Entry::Fdb(FdbKey { mac, remote: None }, _) => drop(self.macs.insert(*mac)),
            Entry::Neighbour(ip, _) => drop(self.gateways.insert(bits(*ip))),
            Entry::Route(key, Route { via: None, .. }) => drop(self.ways.insert(bits(key.dst.base()))),
            Entry::Fdb(..) | Entry::Route(..) => {}
        }
    }

    fn is_empty(&self) -> bool {
        self.macs.is_empty() && self.gateways.is_empty() && self.ways.is_empty()
    }

    fn settle(&mut self, row: &Entry) {
        if self.is_empty() {
            return;
        }
        match row {
            Entry::Fdb(FdbKey { mac, remote: None }, _) => drop(self.macs.remove(mac)),
            Entry::Neighbour(ip, _) => drop(self.gateways.remove(&bits(*ip))),
            Entry::Route(key, Route { via: None, .. }) => drop(self.ways.remove(&bits(key.dst.base()))),
            Entry::Fdb(..) | Entry::Route(..) => {}
        }
    }
}
