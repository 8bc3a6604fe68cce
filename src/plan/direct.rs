//! Who is on the same network, so that packets for its pods need no encapsulation.
//!
//! A peer is if the best route to its public IP leads straight to it: no gateway, one interface, one
//! that has neighbours. Longest prefix first, then the smallest metric, as the kernel chooses. Only the
//! main table is looked at: policy rules are not. With the host-gw backend only the routes over the underlay
//! count: the kernel looks for a gateway on the interface that it is given (`fib_check_nh_v4_gw`,
//! `ip6_route_check_nh`).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;

use crate::model::addr::{Family, IfIndex, IfName, Subnet};
use crate::model::host::{Host, Link, Way};

/// Which way packets go to peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Routing {
    /// To all of them through the device.
    Encapsulated,
    /// Through the device, and straight to those on the same network (`DirectRouting`).
    Either(OnLink),
    /// Straight to all of them (host-gw).
    Direct {
        /// Who can be reached so.
        on_link: OnLink,
        /// The interface.
        underlay: IfName,
    },
}

/// The networks that the host is on, and the ways to all others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnLink {
    /// By destination: the interface, or `None` for what is behind a gateway or in doubt.
    ways: BTreeMap<Subnet, Option<IfIndex>>,
    /// The prefix lengths among them, the longest first.
    lengths: Vec<u8>,
}

impl OnLink {
    /// As it was seen. `ours` are the names of our own devices: what is behind those is not near.
    pub fn new(host: &Host, family: Family, ours: &[IfName]) -> Self {
        let has_neighbours =
            |link: &&Link| link.running && !link.loopback && link.mac.is_some() && !ours.contains(&link.name);
        let near: Vec<IfIndex> = host.links.iter().filter(has_neighbours).map(|link| link.index).collect();
        Self::over(host.ways.iter().filter(|way| way.dst.family() == family), &near)
    }

    /// The networks that one interface is on, whatever other interfaces lead to. A carrier is not asked for:
    /// there is no other way, so that a cable pulled out takes no route away.
    pub fn of(host: &Host, family: Family, underlay: IfIndex) -> Self {
        let on_it = |way: &&Way| way.dst.family() == family && way.oif == Some(underlay);
        Self::over(host.ways.iter().filter(on_it), &[underlay])
    }

    fn over<'a>(ways: impl Iterator<Item = &'a Way>, near: &[IfIndex]) -> Self {
        let mut best: BTreeMap<Subnet, (u32, Option<IfIndex>)> = BTreeMap::new();
        for Way { dst, metric, oif, on_link } in ways {
            let to = oif.filter(|oif| *on_link && near.contains(oif));
            match best.entry(*dst) {
                Entry::Vacant(place) => drop(place.insert((*metric, to))),
                Entry::Occupied(mut held) if *metric < held.get().0 => drop(held.insert((*metric, to))),
                // Two routes that are equally good: who knows which is taken.
                Entry::Occupied(mut held) if *metric == held.get().0 && held.get().1 != to => held.get_mut().1 = None,
                Entry::Occupied(_) => {}
            }
        }
        let mut lengths: Vec<u8> = best.keys().map(|dst| dst.len()).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.dedup();
        Self { ways: best.into_iter().map(|(dst, (_, to))| (dst, to)).collect(), lengths }
    }

    /// The interface on whose network an address is.
    pub fn interface_of(&self, ip: IpAddr) -> Option<IfIndex> {
        let at = |length: &u8| self.ways.get(&Subnet::new(ip, *length)?);
        self.lengths.iter().find_map(at).copied().flatten()
    }
}
