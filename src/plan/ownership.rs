//! Which rows are ours. The device is, with every permanent neighbour and static FDB entry on it; a
//! route needs more than being on it, since an operator may route something else that way.

use super::desired::Wanted;
use crate::model::table::{Entry, PROTOCOL_BOOT, PROTOCOL_WEFT, Route, RouteKey, flannel_metric};

/// Whether a row seen on our device may be changed or removed by us.
pub fn is_ours(entry: &Entry, wanted: &Wanted) -> bool {
    match entry {
        Entry::Fdb(..) | Entry::Neighbour(..) => true,
        Entry::Route(key, route) => {
            route.protocol == PROTOCOL_WEFT || is_flannels(key, route) || contradicts(key, route, wanted)
        }
    }
}

/// Flannel's exact shape: its protocol says nothing (boot is also what `ip route add` writes), so
/// every other attribute must fit. Source: flannel's vxlan backend, one route for each lease.
pub fn is_flannels(key: &RouteKey, route: &Route) -> bool {
    let flannels = Route { protocol: PROTOCOL_BOOT, ..Route::through(key.dst.base()) };
    *route == flannels && key.metric == flannel_metric(key.dst.family())
}

/// A route for exactly a peer's pod CIDR on our device with another gateway, made by hand: its
/// smaller metric would win over ours and cut the peer off.
fn contradicts(key: &RouteKey, route: &Route, wanted: &Wanted) -> bool {
    route.protocol == PROTOCOL_BOOT && wanted.peers.contains_key(&key.dst)
}
