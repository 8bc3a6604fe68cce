//! Which claims meet another's: next to none, and only those need be weighed against each other
//! ([`super::claims`]). Sorting is what finds them among thousands at little cost.

use crate::model::addr::{Family, Subnet, bits};
use crate::model::node::{NodeRecord, Standing};

/// The nodes of a cluster, in the order in which they get what they claim in one family.
#[derive(Debug, Default)]
pub(super) struct Claimants<'a> {
    /// Whose claims meet nobody else's, so that their order makes no difference: by pod CIDR, which is how
    /// what they get is kept.
    pub(super) alone: Vec<&'a NodeRecord>,
    /// The others, the most senior first: by creation time, name and UID.
    pub(super) contested: Vec<&'a NodeRecord>,
}

/// Who claims the same as another in this family: overlapping pod CIDRs, one MAC, one public IP. Where a public
/// IP lies in the pod network, any pod CIDR may hold it: then everybody does.
pub(super) fn claimants<'a>(family: Family, network: Subnet, nodes: &[&'a NodeRecord]) -> Claimants<'a> {
    let mut subnets: Vec<(u128, usize)> = Vec::with_capacity(nodes.len());
    let mut macs: Vec<(u64, usize)> = Vec::with_capacity(nodes.len());
    let mut public_ips: Vec<(u128, usize)> = Vec::with_capacity(nodes.len());
    let mut without = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        if let Standing::Usable(peer) = node.standing.get(family) {
            if network.contains(peer.public_ip) {
                return Claimants { alone: Vec::new(), contested: by_seniority(nodes.to_vec()) };
            }
            macs.extend(peer.mac.map(|mac| (mac.bits(), at)));
            public_ips.push((bits(peer.public_ip), at));
        }
        match subnet(family, node) {
            Some(subnet) => subnets.push((bits(subnet.base()), at)),
            None => without.push(at),
        }
    }
    subnets.sort_unstable();
    let mut contested = vec![false; nodes.len()];
    let mut meet = |one: usize, other: usize| (contested[one], contested[other]) = (true, true);
    same(macs, &mut meet);
    same(public_ips, &mut meet);
    overlapping(&subnets, |at| subnet(family, nodes[at]).map(|subnet| bits(subnet.last())), &mut meet);
    let by_subnet = subnets.into_iter().map(|(_, at)| at).chain(without);
    let (contested, alone): (Vec<usize>, Vec<usize>) = by_subnet.partition(|at| contested[*at]);
    let nodes = |places: Vec<usize>| places.into_iter().map(|at| nodes[at]).collect();
    Claimants { alone: nodes(alone), contested: by_seniority(nodes(contested)) }
}

fn by_seniority(mut nodes: Vec<&NodeRecord>) -> Vec<&NodeRecord> {
    nodes.sort_unstable_by(|a, b| (a.created, &a.name, &a.uid).cmp(&(b.created, &b.name, &b.uid)));
    nodes
}

/// Pod CIDRs by base. Of those that begin before one, the one that ends last overlaps it if any does.
fn overlapping(subnets: &[(u128, usize)], last: impl Fn(usize) -> Option<u128>, meet: &mut impl FnMut(usize, usize)) {
    let mut before: Option<(u128, usize)> = None;
    for (base, at) in subnets.iter().copied() {
        if let Some((last, other)) = before
            && base <= last
        {
            meet(at, other);
        }
        let last = last(at).unwrap_or(base);
        before = before.filter(|(farthest, _)| *farthest >= last).or(Some((last, at)));
    }
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
