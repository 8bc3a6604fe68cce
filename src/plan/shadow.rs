//! Routes of others that win over ours: they are not touched, but an operator should know.

use super::desired::Wanted;
use super::ownership::is_ours;
use crate::model::addr::{Family, IfIndex, IfName};
use crate::model::host::Host;
use crate::model::node::NodeName;
use crate::model::table::{Entry, PROTOCOL_KERNEL, RouteKey, Tables};

/// Something that is not ours to change and keeps a peer from being reached as intended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadow {
    /// The peer.
    pub peer: NodeName,
    /// What wins, and what to do.
    pub problem: String,
}

/// The keys of the routes that are not ours.
pub fn others(wanted: &Wanted, seen: &Tables, host: &Host, family: Family) -> impl Iterator<Item = RouteKey> {
    let among_ours = seen.routes.iter().chain(seen.surplus.iter().map(|(key, route)| (key, route)));
    let among_ours = among_ours.filter(|(key, route)| !is_ours(&Entry::Route(**key, **route), wanted));
    let elsewhere = host.foreign.iter().map(|route| RouteKey { dst: route.dst, metric: route.metric });
    among_ours.map(|(key, _)| *key).chain(elsewhere.filter(move |key| key.dst.family() == family))
}

/// Every foreign route that the kernel prefers to a peer's, or for which it refuses the peer's.
pub fn shadows(wanted: &Wanted, seen: &Tables, host: &Host, device: &IfName) -> Vec<Shadow> {
    let on_ours = seen.routes.iter().filter(|(key, route)| !is_ours(&Entry::Route(**key, **route), wanted));
    let name = |index: IfIndex| host.link_at(index).map_or("?", |link| link.name.as_str()).to_owned();
    let on_ours = on_ours.map(|(key, route)| {
        let oif = route.dev.map_or_else(|| device.to_string(), name);
        (*key, route.protocol, oif)
    });
    let elsewhere = host.foreign.iter().filter(|route| route.protocol != PROTOCOL_KERNEL).map(|route| {
        let oif = route.oif.map_or_else(|| "?".to_owned(), name);
        (RouteKey { dst: route.dst, metric: route.metric }, route.protocol, oif)
    });
    let shadow = |(key, protocol, oif): (RouteKey, u8, String)| {
        let (subnet, (name, _)) = wanted.peer_of(key.dst)?;
        let ours = wanted.metric(*subnet)?;
        // At the same metric it is either the first, or what ours is refused for.
        let wins = key.dst.len() > subnet.len() || key.metric <= ours;
        wins.then(|| Shadow {
            peer: name.clone(),
            problem: format!(
                "route {} dev {oif} proto {protocol} metric {} is not weft's and stands before the one for pod \
                 CIDR {subnet}; weft leaves it alone: remove it if it is not meant (`ip route show {}`)",
                key.dst, key.metric, key.dst
            ),
        })
    };
    on_ours.chain(elsewhere).filter_map(shadow).collect()
}
