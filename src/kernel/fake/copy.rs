//! A copy of a real network namespace, as far as it was observed: a dry run works on it.

use std::collections::BTreeMap;

use super::net::{Interface, MainRoute, Net};
use crate::model::addr::{Family, IfIndex};
use crate::model::host::Host;
use crate::model::table::{Route, RouteKey, Tables};

impl Net {
    /// Everything of `host` that an operation could meet. `device_of` says which interface a family's
    /// tables hang on.
    pub fn copy_of(host: &Host, device_of: impl Fn(Family) -> Option<IfIndex>) -> Self {
        let mut net = Self::new();
        net.interfaces.clear();
        net.had_address = host.links.iter().any(|link| !link.addresses.is_empty());
        for link in &host.links {
            net.number_in_use(link.index);
            net.interfaces.push(Interface { link: link.clone(), neighbours: BTreeMap::new(), fdb: BTreeMap::new() });
        }
        for foreign in &host.foreign {
            let route = Route { via: None, onlink: false, protocol: foreign.protocol, plain: true };
            net.put_route(RouteKey { dst: foreign.dst, metric: foreign.metric }, foreign.oif, route);
        }
        for (family, tables) in host.tables.iter() {
            if let (Some(tables), Some(index)) = (tables, device_of(family)) {
                net.fill(index, tables);
            }
        }
        net
    }

    fn fill(&mut self, index: IfIndex, tables: &Tables) {
        let surplus = tables.surplus.iter().map(|(key, route)| (key, route));
        for (key, route) in tables.routes.iter().chain(surplus) {
            self.routes.entry(*key).or_default().push(MainRoute { oif: Some(index), route: *route });
        }
        let Some(interface) = self.interface_mut(index) else { return };
        interface.neighbours.extend(tables.neighbours.iter().map(|(ip, neighbour)| (*ip, Some(*neighbour))));
        interface.fdb.extend(tables.fdb.iter().map(|(key, fdb)| (*key, (*fdb, false))));
    }
}
