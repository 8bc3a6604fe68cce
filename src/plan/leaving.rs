//! When a row may go.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use super::desired::Wanted;
use super::ownership::is_ours;
use crate::model::addr::{Mac, Subnet};
use crate::model::table::{Entry, Route, RouteKey, Tables};

/// Routes under a key that another route has already.
pub(super) fn surplus(seen: &Tables) -> impl Iterator<Item = Entry> + '_ {
    seen.surplus.iter().map(|(key, route)| Entry::Route(*key, *route))
}

/// What decides whether a row may go: what points at it, and the routes as they are believed to be
/// meanwhile.
#[derive(Debug)]
pub(super) struct Leaving {
    routes: BTreeMap<RouteKey, Route>,
    surplus: Vec<(RouteKey, Route)>,
    uses: Uses,
}

impl Leaving {
    pub(super) fn new(seen: &Tables, wanted: &Wanted) -> Self {
        Self { routes: seen.routes.clone(), surplus: seen.surplus.clone(), uses: Uses::count(seen, wanted) }
    }

    /// Takes note of a row that was put in over an old one.
    pub(super) fn set(&mut self, entry: &Entry, old: Option<Entry>, wanted: &Wanted) {
        old.inspect(|old| self.uses.remove(old, wanted));
        self.uses.add(entry, wanted);
        if let Entry::Route(key, route) = entry {
            self.routes.insert(*key, *route);
        }
    }

    /// Takes note of a row that was taken out.
    pub(super) fn remove(&mut self, entry: &Entry, wanted: &Wanted) {
        self.uses.remove(entry, wanted);
        // Another route may stand under its key.
        let Entry::Route(key, route) = entry else { return };
        if self.routes.get(key) == Some(route) {
            self.routes.remove(key);
        } else {
            self.surplus.retain(|other| other != &(*key, *route));
        }
    }

    /// Whether nothing points at the entry, and what takes its place is there.
    pub(super) fn is_free(&self, entry: &Entry, wanted: &Wanted) -> bool {
        match entry {
            // Who points at a group that is in the way is led wrong already.
            Entry::Fdb(key, fdb) => {
                let in_the_way = fdb.is_grouped() && wanted.tables.fdb.contains_key(key);
                in_the_way || !self.uses.macs.contains_key(&key.mac)
            }
            Entry::Neighbour(ip, _) => !self.uses.gateways.contains_key(ip),
            Entry::Route(key, route) => self.is_superseded(key, route, wanted) && self.leads_nobody(key, wanted),
        }
    }

    /// Whether what takes the place of a route that goes is there, and is what the kernel falls back to:
    /// of several routes to a peer that go, the one with the smallest metric goes last.
    fn is_superseded(&self, key: &RouteKey, route: &Route, wanted: &Wanted) -> bool {
        // One of several under a key: the kernel falls back to the one that stays.
        let stays = wanted.tables.routes.get(key);
        if stays.is_some() && stays == self.routes.get(key) && stays != Some(route) {
            return true;
        }
        let (low, high) = (RouteKey { metric: 0, ..*key }, RouteKey { metric: u32::MAX, ..*key });
        let mut instead = wanted.tables.routes.range(low..=high).peekable();
        if instead.peek().is_none() {
            return true;
        }
        let next = self.routes.range(key..=&high).nth(1);
        let next_stays = next.is_none_or(|(key, route)| {
            wanted.tables.routes.contains_key(key) || !is_ours(&Entry::Route(*key, *route), wanted)
        });
        // Another route under the new one's key may stand before it and win.
        let alone = self.surplus.iter().all(|(other, route)| {
            let in_front = other != key && other.dst == key.dst && wanted.tables.routes.contains_key(other);
            !in_front || !is_ours(&Entry::Route(*other, *route), wanted)
        });
        next_stays && alone && instead.all(|(key, route)| self.routes.get(key) == Some(route))
    }

    /// Whether no route that is yet to come needs this one to its gateway.
    fn leads_nobody(&self, key: &RouteKey, wanted: &Wanted) -> bool {
        let base = key.dst.base();
        if key.dst != Subnet::host(base) {
            return true;
        }
        // A pod CIDR sorts right before its own base.
        let mut routes = wanted.tables.routes.range(..=key).rev().take_while(|(key, _)| key.dst.base() == base);
        routes.all(|(key, route)| route.via != Some(base) || self.routes.get(key) == Some(route))
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
            Entry::Route(_, Route { via: Some(via), dev: None, .. }) if is_ours(entry, wanted) => {
                *self.gateways.entry(*via).or_default() += 1;
            }
            Entry::Neighbour(_, neighbour) => *self.macs.entry(neighbour.mac).or_default() += 1,
            Entry::Route(..) | Entry::Fdb(..) => {}
        }
    }

    fn remove(&mut self, entry: &Entry, wanted: &Wanted) {
        match entry {
            Entry::Route(_, Route { via: Some(via), dev: None, .. }) if is_ours(entry, wanted) => {
                release(&mut self.gateways, via);
            }
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
