//! Routes of others that win over ours: they are not touched, but an operator should know.

use std::collections::BTreeMap;

use super::desired::Wanted;
use super::ownership::is_ours;
use crate::model::addr::{IfName, Subnet};
use crate::model::host::Host;
use crate::model::node::{NodeName, Peer};
use crate::model::table::{Entry, PROTOCOL_KERNEL, RouteKey, Tables, peer_metric};

/// Something that is not ours to change and keeps a peer from being reached as intended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadow {
    /// The peer.
    pub peer: NodeName,
    /// What wins, and what to do.
    pub problem: String,
}

/// Every foreign route that the kernel prefers to a peer's.
pub fn shadows(wanted: &Wanted, seen: &Tables, host: &Host, device: &IfName) -> Vec<Shadow> {
    let on_ours = seen.routes.iter().filter(|(key, route)| !is_ours(&Entry::Route(**key, **route), wanted));
    // The first under its key, so that at the same metric it wins too.
    let on_ours = on_ours.map(|(key, route)| (*key, route.protocol, device.to_string(), true));
    let elsewhere = host.foreign.iter().filter(|route| route.protocol != PROTOCOL_KERNEL).map(|route| {
        let oif = route.oif.and_then(|index| host.link_at(index)).map_or("?", |link| link.name.as_str());
        (RouteKey { dst: route.dst, metric: route.metric }, route.protocol, oif.to_owned(), false)
    });
    let shadow = |(key, protocol, oif, first): (RouteKey, u8, String, bool)| {
        let (subnet, (name, _)) = holder(&wanted.peers, key.dst)?;
        let ours = peer_metric(*subnet);
        let wins = key.dst.len() > subnet.len() || key.metric < ours || (first && key.metric == ours);
        wins.then(|| Shadow {
            peer: name.clone(),
            problem: format!(
                "route {} dev {oif} proto {protocol} metric {} is not weft's and wins over the one for pod CIDR \
                 {subnet}; weft leaves it alone: remove it if it is not meant (`ip route show {}`)",
                key.dst, key.metric, key.dst
            ),
        })
    };
    on_ours.chain(elsewhere).filter_map(shadow).collect()
}

/// The peer whose pod CIDR holds a destination; pod CIDRs are disjoint.
fn holder(peers: &BTreeMap<Subnet, (NodeName, Peer)>, dst: Subnet) -> Option<(&Subnet, &(NodeName, Peer))> {
    // Subnets sort by address, then by prefix length: the holder is the last one at or before.
    let upper = Subnet::host(dst.base());
    peers.range(..=upper).next_back().filter(|(subnet, _)| subnet.contains_subnet(dst))
}
