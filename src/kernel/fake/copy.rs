//! A copy of a real network namespace, as far as it was observed: a dry run works on it.

use std::collections::BTreeMap;

use super::net::{Interface, MainRoute, Net};
use crate::model::addr::{Family, IfIndex};
use crate::model::host::Host;
use crate::model::table::{PROTOCOL_KERNEL, Route, RouteKey, Tables};

impl Net {
    /// Everything of `host` that an operation could meet. `device_of` says which interface a family's
    /// tables hang on.
    pub fn copy_of(host: &Host, device_of: impl Fn(Family) -> Option<IfIndex>) -> Self {
        let mut net = Self::new();
        net.interfaces.clear();
        net.filter = host.filter.clone();
        net.had_address = host.links.iter().any(|link| !link.addresses.is_empty());
        for link in &host.links {
            net.number_in_use(link.index);
            net.interfaces.push(Interface { link: link.clone(), neighbours: BTreeMap::new(), fdb: BTreeMap::new() });
        }
        // What is on a network of the host's may be a gateway.
        for way in host.ways.iter().filter(|way| way.on_link) {
            let route = Route { via: None, onlink: false, protocol: PROTOCOL_KERNEL, plain: false, dev: None };
            net.put_route(RouteKey { dst: way.dst, metric: way.metric }, way.oif, route);
        }
        for foreign in &host.foreign {
            let route = Route { via: None, onlink: false, protocol: foreign.protocol, plain: true, dev: None };
            net.put_route(RouteKey { dst: foreign.dst, metric: foreign.metric }, foreign.oif, route);
        }
        for (family, tables) in host.tables.iter() {
            if let Some(tables) = tables {
                net.fill(device_of(family), tables);
            }
        }
        net
    }

    fn fill(&mut self, index: Option<IfIndex>, tables: &Tables) {
        let surplus = tables.surplus.iter().map(|(key, route)| (key, route));
        for (key, route) in tables.routes.iter().chain(surplus) {
            let route = MainRoute { oif: route.dev.or(index), route: Route { dev: None, ..*route } };
            self.routes.entry(*key).or_default().push(route);
        }
        let Some(interface) = index.and_then(|index| self.interface_mut(index)) else { return };
        interface.neighbours.extend(tables.neighbours.iter().map(|(ip, neighbour)| (*ip, Some(*neighbour))));
        interface.fdb.extend(tables.fdb.iter().map(|(key, fdb)| (*key, (*fdb, false))));
    }
}
