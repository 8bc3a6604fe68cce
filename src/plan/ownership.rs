//! Which rows are ours. The device is, with every permanent neighbour and static FDB entry on it; a
//! route needs more than being on it, since an operator may route something else that way. On another
//! interface it needs our number, or flannel's form for a peer that there is.

use super::desired::Wanted;
use crate::model::node::Peer;
use crate::model::table::{Entry, PROTOCOL_BOOT, PROTOCOL_WEFT, Route, RouteKey, flannel_metric};

/// Whether a row that was seen may be changed or removed by us.
pub fn is_ours(entry: &Entry, wanted: &Wanted) -> bool {
    match entry {
        Entry::Fdb(..) | Entry::Neighbour(..) => true,
        Entry::Route(key, route) => {
            route.protocol == PROTOCOL_WEFT
                || is_flannels(key, route)
                || is_flannels_direct(key, route, wanted)
                || contradicts(key, route, wanted)
        }
    }
}

/// Flannel's exact shape: its protocol says nothing (boot is also what `ip route add` writes), so
/// every other attribute must fit. Source: flannel's vxlan backend, one route for each lease.
pub fn is_flannels(key: &RouteKey, route: &Route) -> bool {
    let flannels = Route { protocol: PROTOCOL_BOOT, ..Route::through(key.dst.base()) };
    *route == flannels && key.metric == flannel_metric(key.dst.family())
}

/// The route that flannel makes to a peer on the same network, with `DirectRouting` or `host-gw`. Nothing
/// in it is flannel's alone, so that of a node that is gone might be anybody's and stays.
///
/// With host-gw one to an earlier address of the peer counts as well, over the interface that we would use: it
/// would win over ours and cut the peer off, and flannel's own host-gw removes it too.
fn is_flannels_direct(key: &RouteKey, route: &Route, wanted: &Wanted) -> bool {
    let of_peer = || {
        let to_it = |(_, peer): &(_, Peer)| route.via == Some(peer.public_ip) || wanted.only_over(key.dst) == route.dev;
        wanted.peers.get(&key.dst).is_some_and(to_it)
    };
    let formed = route.dev.is_some() && route.plain && !route.onlink && route.protocol == PROTOCOL_BOOT;
    formed && key.metric == flannel_metric(key.dst.family()) && of_peer()
}

/// A route for exactly a peer's pod CIDR on our device with another gateway, made by hand: its
/// smaller metric would win over ours and cut the peer off.
fn contradicts(key: &RouteKey, route: &Route, wanted: &Wanted) -> bool {
    route.dev.is_none() && route.protocol == PROTOCOL_BOOT && wanted.peers.contains_key(&key.dst)
}
