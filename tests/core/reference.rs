//! Who gets what, worked out a second time: slowly, in the order of the rules, with nothing clever.

use weft::model::addr::{Family, Subnet};
use weft::model::node::{NodeName, NodeRecord, Peer, Snapshot, Standing};

use crate::world::{cidr, ip, network, pod_cidr, public_ip, vtep_mac};

/// Every peer that is granted its claims, oldest first.
pub(crate) fn granted(snapshot: &Snapshot, family: Family) -> Vec<(NodeName, Peer)> {
    claims(snapshot, family).0
}

/// Pod CIDRs that are kept for nodes that cannot be used now.
pub(crate) fn held(snapshot: &Snapshot, family: Family) -> Vec<Subnet> {
    claims(snapshot, family).1
}

fn claims(snapshot: &Snapshot, family: Family) -> (Vec<(NodeName, Peer)>, Vec<Subnet>) {
    let mut nodes: Vec<&NodeRecord> = snapshot.nodes.values().map(AsRef::as_ref).collect();
    nodes.sort_by(|a, b| a.created.cmp(&b.created).then(a.name.cmp(&b.name)).then(a.uid.cmp(&b.uid)));
    let mut granted: Vec<(NodeName, Peer)> = Vec::new();
    let mut reserved: Vec<Subnet> = Vec::new();
    for node in nodes {
        match node.standing.get(family) {
            Standing::Usable(peer) => {
                if subnet_is_free(family, peer.subnet, &granted, &reserved)
                    && rest_is_free(family, peer, &granted, &reserved)
                {
                    granted.push((node.name.clone(), *peer));
                }
            }
            Standing::Unusable { subnet: Some(subnet), .. } => {
                if subnet_is_free(family, *subnet, &granted, &reserved) {
                    reserved.push(*subnet);
                }
            }
            Standing::Unusable { subnet: None, .. } | Standing::Absent(_) => {}
        }
    }
    (granted, reserved)
}

fn underlays(family: Family) -> [Subnet; 2] {
    match family {
        // A pod CIDR may lie in a wider network.
        Family::V4 => [cidr("192.168.174.1/32"), cidr("10.244.200.1/32")],
        // There Linux would refuse its gateway.
        Family::V6 => [cidr("fd01::/64"), cidr("fd00:244:0:c8::/64")],
    }
}

fn subnet_is_free(family: Family, subnet: Subnet, granted: &[(NodeName, Peer)], reserved: &[Subnet]) -> bool {
    network(family).contains_subnet(subnet)
        && !subnet.overlaps(pod_cidr(family, 0))
        && !underlays(family).iter().any(|underlay| underlay.overlaps(subnet))
        && !granted.iter().any(|(_, other)| other.subnet.overlaps(subnet))
        && !reserved.iter().any(|other| other.overlaps(subnet))
        && !granted.iter().any(|(_, other)| subnet.contains(other.public_ip))
}

fn rest_is_free(family: Family, peer: &Peer, granted: &[(NodeName, Peer)], reserved: &[Subnet]) -> bool {
    let host = match family {
        Family::V4 => ["192.168.174.1", "10.244.200.1", "172.17.0.1", "127.0.0.1"],
        Family::V6 => ["fd01::1", "fd00:244:0:c8::1", "fd17::1", "::1"],
    };
    let to = peer.public_ip;
    peer.mac != Some(vtep_mac(family, 0))
        && !granted.iter().any(|(_, other)| other.mac == peer.mac)
        && to != public_ip(family, 1)
        && !host.iter().any(|text| ip(text) == to)
        && !granted.iter().any(|(_, other)| other.public_ip == to || other.subnet.contains(to))
        && !reserved.iter().any(|subnet| subnet.contains(to))
        && !pod_cidr(family, 0).contains(to)
        && !peer.subnet.contains(to)
}
