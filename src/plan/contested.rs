//! Which claims meet another's: next to none, and only those need be weighed against each other
//! ([`super::claims`]). Sorting is what finds them among thousands at little cost.

use crate::model::addr::{Family, Subnet, bits};
use crate::model::node::{NodeRecord, Standing};

/// For each node, whether it and another claim the same in this family: overlapping pod CIDRs, one MAC, one
/// public IP. Where a public IP lies in the pod network, any pod CIDR may hold it: then it is said of all.
pub(super) fn contested(family: Family, network: Subnet, nodes: &[&NodeRecord]) -> Vec<bool> {
    let mut subnets: Vec<(u128, usize)> = Vec::with_capacity(nodes.len());
    let mut macs: Vec<(u64, usize)> = Vec::with_capacity(nodes.len());
    let mut public_ips: Vec<(u128, usize)> = Vec::with_capacity(nodes.len());
    for (at, node) in nodes.iter().enumerate() {
        if let Standing::Usable(peer) = node.standing.get(family) {
            if network.contains(peer.public_ip) {
                return vec![true; nodes.len()];
            }
            macs.extend(peer.mac.map(|mac| (mac.bits(), at)));
            public_ips.push((bits(peer.public_ip), at));
        }
        if let Some(subnet) = subnet(family, node) {
            subnets.push((bits(subnet.base()), at));
        }
    }
    let mut contested = vec![false; nodes.len()];
    let mut meet = |one: usize, other: usize| (contested[one], contested[other]) = (true, true);
    same(macs, &mut meet);
    same(public_ips, &mut meet);
    subnets.sort_unstable();
    // Of those that begin before, the one that ends last overlaps if any does.
    let mut before: Option<(u128, usize)> = None;
    for (base, at) in subnets {
        if let Some((last, other)) = before
            && base <= last
        {
            meet(at, other);
        }
        let last = subnet(family, nodes[at]).map_or(base, |subnet| bits(subnet.last()));
        before = before.filter(|(farthest, _)| *farthest >= last).or(Some((last, at)));
    }
    contested
}

/// The pod CIDR that a node has or is to keep.
fn subnet(family: Family, node: &NodeRecord) -> Option<Subnet> {
    match node.standing.get(family) {
        Standing::Usable(peer) => Some(peer.subnet),
        Standing::Unusable { subnet, .. } => *subnet,
        Standing::Absent(_) => None,
    }
}

fn same<T: Ord>(mut claims: Vec<(T, usize)>, meet: &mut impl FnMut(usize, usize)) {
    claims.sort_unstable();
    for pair in claims.windows(2) {
        if let [(claim, one), (same, other)] = pair
            && claim == same
        {
            meet(*one, *other);
        }
    }
}
