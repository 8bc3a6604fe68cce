//! Leaving: what the tables should hold when weft goes, or when flanneld takes the node back.

use std::collections::BTreeMap;

use super::desired::Wanted;
use super::ownership::is_flannels;
use crate::model::table::{PROTOCOL_BOOT, PROTOCOL_WEFT, Route, RouteKey, Tables, flannel_metric};

/// The same tables with every route of ours in flannel's form, so that a flanneld that starts finds
/// what it would have made, and leaves no second route beside it: one for each peer, the direct one if
/// there is one. The device, the neighbours and the FDB have flannel's form already.
pub fn to_flannel(seen: &Tables) -> Wanted {
    let mut routes = BTreeMap::new();
    for (key, route) in &seen.routes {
        if route.protocol == PROTOCOL_WEFT || is_flannels(key, route) {
            let theirs = RouteKey { dst: key.dst, metric: flannel_metric(key.dst.family()) };
            if let (Some(via), Some(dev)) = (route.via, route.dev) {
                routes.insert(theirs, Route { protocol: PROTOCOL_BOOT, ..Route::direct(via, dev) });
            } else if route.via.is_some() {
                let form = Route { protocol: PROTOCOL_BOOT, ..Route::through(key.dst.base()) };
                routes.entry(theirs).or_insert(form);
            }
        } else {
            routes.insert(*key, *route);
        }
    }
    let tables = Tables { routes, neighbours: seen.neighbours.clone(), fdb: seen.fdb.clone(), ..Tables::default() };
    Wanted { tables, ..Wanted::default() }
}
