//! The difference, and the order in which it is worked off. Two rules instead of phases:
//!
//! * an entry may appear once everything it points at is in its final place;
//! * an entry may disappear once nothing of ours points at it, and what replaces it is there.
//!
//! A route points at a neighbour, a neighbour at an FDB entry. Equal keys are replaced in place.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use super::desired::Wanted;
use super::ownership::is_ours;
use crate::model::addr::{Family, IfIndex, Mac};
use crate::model::host::Host;
use crate::model::op::{Dev, Op};
use crate::model::table::{Entry, FdbKey, Kind, PROTOCOL_WEFT, Route, RouteKey, Tables};

/// What is left to do on one device, and what the kernel is believed to hold meanwhile.
#[derive(Debug)]
pub struct Program<'a> {
    dev: Dev,
    wanted: &'a Wanted,
    believed: Tables,
    pending: Vec<Op>,
    uses: Uses,
}

impl<'a> Program<'a> {
    /// Compares what is wanted with what was seen on the device.
    pub fn new(dev: &Dev, wanted: &'a Wanted, mut seen: Tables) -> Self {
        prefer_wanted(&mut seen, &wanted.tables);
        let mut pending = Vec::new();
        for entry in wanted.tables.entries() {
            let there = seen.at(&entry);
            if there != Some(entry) {
                let replace = there.is_some_and(|there| is_ours(&there, wanted));
                pending.push(Op::Set { dev: dev.clone(), entry, replace });
            }
        }
        let held = Held::new(wanted, &seen);
        let unwanted = seen.entries().filter(|entry| wanted.tables.at(entry).is_none());
        for entry in unwanted.chain(surplus(&seen)) {
            if !held.holds(&entry, wanted) && is_ours(&entry, wanted) {
                pending.push(Op::Del { dev: dev.clone(), entry });
            }
        }
        let uses = Uses::count(&seen, wanted);
        Self { dev: dev.clone(), wanted, believed: seen, pending, uses }
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
        let (off, rest) = std::mem::take(&mut self.pending).into_iter().partition(|op| refuse(op));
        self.pending = rest;
        off
    }

    /// Everything that may be done now. Empty when nothing is left, or nothing left may be done.
    pub fn next_batch(&mut self) -> Vec<Op> {
        let pending = std::mem::take(&mut self.pending);
        let (batch, rest) = pending.into_iter().partition(|op| self.is_allowed(op));
        self.pending = rest;
        batch
    }

    /// Takes note that an operation is done.
    pub fn done(&mut self, op: &Op) {
        match op {
            Op::Set { entry, .. } => {
                if let Some(old) = self.believed.at(entry) {
                    self.uses.remove(&old, self.wanted);
                }
                self.uses.add(entry, self.wanted);
                self.believed.set(*entry);
            }
            Op::Del { entry, .. } => {
                self.uses.remove(entry, self.wanted);
                // Another route may stand under its key.
                if self.believed.at(entry) == Some(*entry) {
                    self.believed.remove(entry);
                }
            }
            Op::Link(_) => {}
        }
    }

    fn is_allowed(&self, op: &Op) -> bool {
        match op {
            Op::Set { entry, .. } => self.stands(entry),
            Op::Del { dev, entry: Entry::Route(key, _) } if *dev != self.dev => {
                let instead = self.wanted.tables.routes.get(key);
                instead.is_none_or(|route| self.stands(&Entry::Route(*key, *route)))
            }
            Op::Del { entry, .. } => self.is_free(entry),
            Op::Link(_) => true,
        }
    }

    /// Whether everything that the entry leads to is in its final place.
    fn stands(&self, entry: &Entry) -> bool {
        match entry {
            Entry::Fdb(..) | Entry::Route(_, Route { via: None, .. }) => true,
            Entry::Neighbour(_, neighbour) => {
                let key = FdbKey { mac: neighbour.mac, remote: None };
                self.believed.fdb.get(&key) == self.wanted.tables.fdb.get(&key)
            }
            Entry::Route(_, Route { via: Some(via), .. }) => {
                let neighbour = self.wanted.tables.neighbours.get(via);
                self.believed.neighbours.get(via) == neighbour
                    && neighbour.is_none_or(|neighbour| self.stands(&Entry::Neighbour(*via, *neighbour)))
            }
        }
    }

    /// Whether nothing points at the entry, and what takes its place is there.
    fn is_free(&self, entry: &Entry) -> bool {
        match entry {
            Entry::Fdb(key, _) => !self.uses.macs.contains_key(&key.mac),
            Entry::Neighbour(ip, _) => !self.uses.gateways.contains_key(ip),
            Entry::Route(key, _) => self.is_superseded(key),
        }
    }

    /// Whether what takes the place of a route that goes is there, and is what the kernel falls back to:
    /// of several routes to a peer that go, the one with the smallest metric goes last.
    fn is_superseded(&self, key: &RouteKey) -> bool {
        let (low, high) = (RouteKey { metric: 0, ..*key }, RouteKey { metric: u32::MAX, ..*key });
        let mut instead = self.wanted.tables.routes.range(low..=high).peekable();
        if instead.peek().is_none() {
            return true;
        }
        let next = self.believed.routes.range(key..=&high).nth(1);
        let next_stays = next.is_none_or(|(key, route)| {
            self.wanted.tables.routes.contains_key(key) || !is_ours(&Entry::Route(*key, *route), self.wanted)
        });
        next_stays && instead.all(|(key, route)| self.believed.routes.get(key) == Some(route))
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
        let there = self.believed.entries().filter(|entry| entry.kind() == kind && is_ours(entry, self.wanted));
        (self.pending.iter().filter(removed).filter(|op| counts(op)).count(), there.count())
    }
}

/// Of several routes under one key, the one that is wanted counts as its row: the others are too many.
/// It need not be put in again, which the kernel would refuse, wherever it stands among them
/// (`a_route_put_before_ours_under_the_same_key_goes`).
fn prefer_wanted(seen: &mut Tables, wanted: &Tables) {
    let Tables { routes, surplus, .. } = seen;
    for (key, other) in surplus {
        if let Some(row) = routes.get_mut(key)
            && wanted.routes.get(key) == Some(other)
        {
            std::mem::swap(row, other);
        }
    }
}

fn surplus(seen: &Tables) -> impl Iterator<Item = Entry> + '_ {
    seen.surplus.iter().map(|(key, route)| Entry::Route(*key, *route))
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

/// How often each gateway and MAC is pointed at by rows of ours.
#[derive(Debug, Default)]
struct Uses {
    gateways: HashMap<IpAddr, usize>,
    macs: HashMap<Mac, usize>,
}

impl Uses {
    fn count(seen: &Tables, wanted: &Wanted) -> Self {
        let mut uses = Self::default();
        seen.entries().chain(surplus(seen)).for_each(|entry| uses.add(&entry, wanted));
        uses
    }

    fn add(&mut self, entry: &Entry, wanted: &Wanted) {
        match entry {
            Entry::Route(_, Route { via: Some(via), .. }) if is_ours(entry, wanted) => {
                *self.gateways.entry(*via).or_default() += 1;
            }
            Entry::Neighbour(_, neighbour) => *self.macs.entry(neighbour.mac).or_default() += 1,
            Entry::Route(..) | Entry::Fdb(..) => {}
        }
    }

    fn remove(&mut self, entry: &Entry, wanted: &Wanted) {
        match entry {
            Entry::Route(_, Route { via: Some(via), .. }) if is_ours(entry, wanted) => release(&mut self.gateways, via),
            Entry::Neighbour(_, neighbour) => release(&mut self.macs, &neighbour.mac),
            Entry::Route(..) | Entry::Fdb(..) => {}
        }
    }
}

fn release<K: std::hash::Hash + Eq>(uses: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = uses.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            uses.remove(key);
        }
    }
}
