//! What the kernel should hold, worked out from the whole snapshot at once.

use std::collections::BTreeMap;

use super::claims::{Claims, Ground};
use crate::model::addr::{ByFamily, Family, Subnet};
use crate::model::node::{NodeName, NodeRecord, Peer, Snapshot, Standing};
use crate::model::table::{Fdb, FdbKey, Neighbour, Route, RouteKey, Tables, peer_metric};

/// Everything wanted of the tables, and every node that gets none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Each enabled family whose device can be made.
    pub families: ByFamily<Option<Wanted>>,
}

/// One family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The rows.
    pub tables: Tables,
    /// Who they are for, by pod CIDR.
    pub peers: BTreeMap<Subnet, (NodeName, Peer)>,
    /// Pod CIDRs of nodes that cannot be used now: rows that are there stay as they are.
    pub held: BTreeMap<Subnet, NodeName>,
    /// Nodes that get nothing in this family: absent, unusable or refused, and why.
    pub without: BTreeMap<NodeName, Without>,
}

impl Wanted {
    /// This, and what another has that this has not.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        let mut both = self.clone();
        for entry in other.tables.entries().filter(|entry| self.tables.at(entry).is_none()) {
            both.tables.set(entry);
        }
        for (subnet, peer) in &other.peers {
            both.peers.entry(*subnet).or_insert_with(|| peer.clone());
        }
        for (subnet, name) in &other.held {
            both.held.entry(*subnet).or_insert_with(|| name.clone());
        }
        both
    }
}

/// Why a node gets nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Without {
    /// It takes no part.
    Absent(String),
    /// It cannot be used; the label is for metrics.
    Unusable(&'static str, String),
    /// It claims what it may not have; the label is for metrics.
    Rejected(&'static str, String),
}

/// Works out what every family should hold. `ground` is what the host takes up where it takes part.
pub fn desired(snapshot: &Snapshot, ground: &ByFamily<Option<Ground>>) -> Desired {
    let mut by_seniority: Vec<&NodeRecord> = snapshot.nodes.values().map(AsRef::as_ref).collect();
    by_seniority.sort_unstable_by(|a, b| (a.created, &a.name, &a.uid).cmp(&(b.created, &b.name, &b.uid)));
    let family = |family| ground.get(family).as_ref().map(|ground| wanted(family, &by_seniority, ground));
    Desired { families: ByFamily::from_fn(family) }
}

fn wanted<'a>(family: Family, by_seniority: &[&'a NodeRecord], ground: &'a Ground) -> Wanted {
    let (mut wanted, mut peers) = (Wanted::default(), Vec::new());
    let mut claims = Claims::new(ground);
    for node in by_seniority {
        let name = &node.name;
        let without = match node.standing.get(family) {
            Standing::Absent(reason) => Without::Absent(reason.to_string()),
            Standing::Unusable { subnet, reason } => {
                if let Some(subnet) = subnet.filter(|subnet| claims.reserve(name, *subnet)) {
                    wanted.held.insert(subnet, name.clone());
                }
                Without::Unusable(reason.label(), reason.to_string())
            }
            Standing::Usable(peer) => match claims.grant(name, peer) {
                Ok(()) => {
                    peers.push((peer.subnet, (name.clone(), *peer)));
                    continue;
                }
                Err(refused) => Without::Rejected(refused.label(), refused.to_string()),
            },
        };
        wanted.without.insert(name.clone(), without);
    }
    wanted.peers = peers.into_iter().collect();
    wanted.tables = tables(&wanted.peers);
    wanted
}

/// The three rows of every peer.
fn tables(peers: &BTreeMap<Subnet, (NodeName, Peer)>) -> Tables {
    let peers = || peers.values().map(|(_, peer)| peer);
    Tables {
        routes: peers().map(|peer| (route_key(peer.subnet), Route::through(peer.subnet.base()))).collect(),
        neighbours: peers().map(|peer| (peer.subnet.base(), Neighbour { mac: peer.mac })).collect(),
        fdb: peers().map(|peer| (FdbKey::new(peer.mac, peer.public_ip), Fdb::to(peer.public_ip))).collect(),
        ..Tables::default()
    }
}

fn route_key(dst: Subnet) -> RouteKey {
    RouteKey { dst, metric: peer_metric(dst) }
}
