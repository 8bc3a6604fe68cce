//! What the kernel should hold, worked out from the whole snapshot at once.

use std::collections::BTreeMap;

use super::claims::{Claims, Ground};
use super::contested::{Claimants, claimants};
use super::direct::{OnLink, Routing};
use crate::model::addr::{ByFamily, Family, IfIndex, Subnet};
use crate::model::node::{NodeName, NodeRecord, Peer, Snapshot, Standing, Unusable};
use crate::model::table::{FALLBACK, Fdb, FdbKey, Neighbour, Route, RouteKey, Tables, peer_metric};

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

    /// The peer whose pod CIDR holds a destination; pod CIDRs are disjoint.
    pub fn peer_of(&self, dst: Subnet) -> Option<(&Subnet, &(NodeName, Peer))> {
        // Subnets sort by address, then by prefix length: the holder is the last one at or before.
        let upper = Subnet::host(dst.base());
        self.peers.range(..=upper).next_back().filter(|(subnet, _)| subnet.contains_subnet(dst))
    }

    /// The metric of the route that is to carry a peer's packets.
    pub fn metric(&self, subnet: Subnet) -> Option<u32> {
        self.routes_to(subnet).next().map(|(key, _)| key.metric)
    }

    /// Whether a peer's packets are to go without encapsulation.
    pub fn is_direct(&self, subnet: Subnet) -> bool {
        self.routes_to(subnet).next().is_some_and(|(_, route)| route.dev.is_some())
    }

    /// The interface that a peer is reached over, if it is never encapsulated.
    pub fn only_over(&self, dst: Subnet) -> Option<IfIndex> {
        let mut routes = self.routes_to(dst).map(|(_, route)| route.dev);
        routes.next().flatten().filter(|_| routes.next().is_none())
    }

    /// The routes to a peer; the kernel takes the first.
    pub fn routes_to(&self, dst: Subnet) -> impl Iterator<Item = (&RouteKey, &Route)> {
        self.tables.routes.range(RouteKey { dst, metric: 0 }..=RouteKey { dst, metric: u32::MAX })
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
    let nodes: Vec<&NodeRecord> = snapshot.nodes.values().map(AsRef::as_ref).collect();
    let family = |family| ground.get(family).as_ref().map(|ground| wanted(family, &nodes, ground));
    Desired { families: ByFamily::from_fn(family) }
}

fn wanted<'a>(family: Family, nodes: &[&'a NodeRecord], ground: &'a Ground) -> Wanted {
    let (mut wanted, mut peers) = (Wanted::default(), Vec::with_capacity(nodes.len()));
    let mut claims = Claims::new(ground);
    let Claimants { alone, contested } = claimants(family, ground.network, nodes);
    let of_all = alone.into_iter().map(|node| (node, false)).chain(contested.into_iter().map(|node| (node, true)));
    for (node, contested) in of_all {
        let name = &node.name;
        let without = match node.standing.get(family) {
            Standing::Absent(reason) => Without::Absent(reason.to_string()),
            Standing::Unusable { subnet, reason } => {
                if let Some(subnet) = subnet.filter(|subnet| claims.reserve(name, *subnet, contested)) {
                    wanted.held.insert(subnet, name.clone());
                }
                Without::Unusable(reason.label(), reason.to_string())
            }
            Standing::Usable(peer) => {
                // Who is on which network is this host's affair: it comes after what all agree on.
                let out_of_reach = || out_of_reach(peer, &ground.routing);
                match claims.grant(name, peer, contested).map(|()| out_of_reach()) {
                    Ok(None) => {
                        peers.push((peer.subnet, (name.clone(), *peer)));
                        continue;
                    }
                    Ok(Some(reason)) => {
                        wanted.held.insert(peer.subnet, name.clone());
                        Without::Unusable(reason.label(), reason.to_string())
                    }
                    Err(refused) => Without::Rejected(refused.label(), refused.to_string()),
                }
            }
        };
        wanted.without.insert(name.clone(), without);
    }
    wanted.peers = peers.into_iter().collect();
    wanted.tables = tables(&wanted.peers, &ground.routing);
    wanted
}

/// Why no route can be made to a peer that has to have a direct one.
fn out_of_reach(peer: &Peer, routing: &Routing) -> Option<Unusable> {
    let Routing::Direct { on_link, underlay } = routing else { return None };
    let (ip, underlay) = (peer.public_ip, underlay.clone());
    on_link.interface_of(ip).is_none().then_some(Unusable::NotOnLink { ip, underlay })
}

/// The three rows of every peer; with direct routing also the route to each that is on the same network, and
/// with host-gw nothing but that.
fn tables(peers: &BTreeMap<Subnet, (NodeName, Peer)>, routing: &Routing) -> Tables {
    let peers = || peers.values().map(|(_, peer)| peer);
    let vteps = || peers().filter_map(|peer| Some((peer, peer.mac?)));
    // Sorted here, it costs less than where the rows themselves are moved.
    let mut by_mac: Vec<_> = vteps().map(|(peer, mac)| (mac.bits(), mac, peer.public_ip)).collect();
    by_mac.sort_unstable_by_key(|(bits, ..)| *bits);
    Tables {
        routes: match routing {
            Routing::Encapsulated => peers().map(|peer| encapsulated(peer, 0)).collect(),
            Routing::Either(on_link) => peers().flat_map(|peer| either_way(peer, on_link)).collect(),
            Routing::Direct { on_link, .. } => peers().filter_map(|peer| direct(peer, on_link)).collect(),
        },
        neighbours: vteps().map(|(peer, mac)| (peer.subnet.base(), Neighbour { mac })).collect(),
        fdb: by_mac.into_iter().map(|(_, mac, ip)| (FdbKey::new(mac, ip), Fdb::to(ip))).collect(),
        ..Tables::default()
    }
}

/// The metric is spread as that of the encapsulated ones: each has a gateway of its own, too.
fn direct(peer: &Peer, on_link: &OnLink) -> Option<(RouteKey, Route)> {
    let dev = on_link.interface_of(peer.public_ip)?;
    Some((RouteKey { dst: peer.subnet, metric: peer_metric(peer.subnet) }, Route::direct(peer.public_ip, dev)))
}

fn encapsulated(peer: &Peer, extra: u32) -> (RouteKey, Route) {
    let metric = peer_metric(peer.subnet) + extra;
    (RouteKey { dst: peer.subnet, metric }, Route::through(peer.subnet.base()))
}

/// The encapsulated route always, and the direct one before it where there is one: the change from one to
/// the other is a single row, and if the kernel drops the direct one, it falls back by itself.
///
/// IPv6 takes no gateway as onlink that another route leads to through another interface, as the direct
/// one does. So there each VTEP address has a route of its own over the device
/// (`an_ipv6_onlink_gateway_may_have_a_route_of_its_own`).
fn either_way(peer: &Peer, on_link: &OnLink) -> impl Iterator<Item = (RouteKey, Route)> + use<> {
    let base = peer.subnet.base();
    let gateway = (Family::of(base) == Family::V6).then(|| {
        let dst = Subnet::host(base);
        (RouteKey { dst, metric: peer_metric(dst) }, Route::over_the_device())
    });
    [Some(encapsulated(peer, FALLBACK)), direct(peer, on_link), gateway].into_iter().flatten()
}
