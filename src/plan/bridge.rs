//! The pods' bridge after a pod CIDR has changed: the address of the old one stays on it, and the bridge
//! plugin then starts no pod at all (`"cni0" already has an IP address different from …`).

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::model::addr::{Family, IfName, Subnet};
use crate::model::host::{Host, Link};
use crate::model::op::{Dev, LinkOp};

/// The bridge that flannel's CNI configuration and weft's name.
pub const BRIDGE: &str = "cni0";

/// An address on the bridge that is of no use any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stale {
    /// What it is and what to do, for the operator.
    pub problem: String,
    /// Its removal, if no pod can be using it.
    pub remove: Option<LinkOp>,
}

/// Who can still be using an address of the bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leases {
    /// The bridge is somebody else's business: nothing is removed from it.
    NotOurs,
    /// The leases cannot be read: nothing is removed.
    Unknown,
    /// host-local's.
    Known(BTreeSet<IpAddr>),
}

/// Every address on the bridge that is inside the cluster network and outside our own pod CIDR.
pub fn stale(host: &Host, network: Subnet, own: Subnet, leases: &Leases) -> Vec<Stale> {
    let Some(bridge) = host.link(&IfName::new(BRIDGE)) else { return Vec::new() };
    let family = own.family();
    let of_family = bridge.addresses.iter().filter(|address| Family::of(address.ip) == family);
    let old = of_family.filter(|address| network.contains(address.ip) && !own.contains(address.ip));
    old.map(|address| {
        let user = user(host, bridge, address.subnet(), leases);
        let remove = format!("ip addr del {}/{} dev {BRIDGE}", address.ip, address.len);
        let what = match &user {
            Some(user) => format!("{user}; drain this node, then `{remove}` (or reboot)"),
            None => "no pod uses it, so weft removes it".to_owned(),
        };
        let dev = Dev { index: bridge.index, name: bridge.name.clone() };
        Stale {
            problem: format!(
                "{BRIDGE} has {}/{} of an earlier pod CIDR, ours is {own}: the bridge plugin starts no pod like that; {what}",
                address.ip, address.len
            ),
            remove: user.is_none().then_some(LinkOp::DelAddress(dev, address.ip, address.len)),
        }
    })
    .collect()
}

/// Why an address of this range cannot be taken away.
fn user(host: &Host, bridge: &Link, range: Subnet, leases: &Leases) -> Option<String> {
    let ports = host.links.iter().filter(|link| link.master == Some(bridge.index)).count();
    if ports > 0 {
        return Some(format!("{ports} pods are on the bridge"));
    }
    match leases {
        Leases::NotOurs => {
            Some("weft does not touch the bridge, because it does not keep the CNI configuration".to_owned())
        }
        Leases::Unknown => {
            Some("weft cannot read host-local's leases, so it cannot tell whether pods use it".to_owned())
        }
        Leases::Known(leases) => {
            let held = leases.iter().find(|lease| range.contains(**lease))?;
            Some(format!("the lease of {held} in /var/lib/cni/networks/cbr0 says that a pod uses it"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::addr::{IfIndex, Mac};
    use crate::model::host::{Address, LinkKind};

    fn subnet(text: &str) -> Subnet {
        text.parse().expect("a subnet")
    }

    fn link(index: u32, name: &str, master: Option<u32>, addresses: &[&str]) -> Link {
        let address = |text: &&str| {
            let (ip, len) = text.split_once('/').expect("a length");
            Address {
                ip: ip.parse().expect("an address"),
                len: len.parse().expect("a length"),
                global: true,
                deprecated: false,
                permanent: true,
                temporary: false,
                failed: false,
            }
        };
        Link {
            index: IfIndex(index),
            name: IfName::new(name),
            mac: Some(Mac([2, 0, 0, 0, 0, 1])),
            mtu: 1450,
            up: true,
            running: true,
            loopback: false,
            kind: LinkKind::Other("bridge".into()),
            master: master.map(IfIndex),
            addrgen_none: false,
            ipv6_disabled: Some(false),
            addresses: addresses.iter().map(address).collect(),
        }
    }

    fn found(links: Vec<Link>, leases: &Leases) -> Vec<Stale> {
        let host = Host { links, ..Host::default() };
        stale(&host, subnet("10.244.0.0/16"), subnet("10.244.7.0/24"), leases)
    }

    const OLD: [&str; 3] = ["10.244.1.1/24", "192.168.9.1/24", "fe80::1/64"];

    #[test]
    fn only_an_address_of_another_pod_cidr_is_stale() {
        let free = Leases::Known(BTreeSet::new());
        assert_eq!(found(vec![link(1, "cni0", None, &["10.244.7.1/24", "192.168.9.1/24"])], &free), []);
        assert_eq!(found(vec![link(1, "br0", None, &OLD)], &free), []);
        let all = found(vec![link(1, "cni0", None, &OLD)], &free);
        let [stale] = &all[..] else { panic!("{all:?}") };
        assert!(stale.problem.starts_with("cni0 has 10.244.1.1/24 of an earlier pod CIDR, ours is 10.244.7.0/24"));
        assert_eq!(
            stale.remove.as_ref().map(ToString::to_string).as_deref(),
            Some("ip addr del 10.244.1.1/24 dev cni0")
        );
    }

    #[test]
    fn it_stays_while_a_pod_may_use_it() {
        let lease = |text: &str| Leases::Known([text.parse().expect("an address")].into());
        let alone = || vec![link(1, "cni0", None, &OLD)];
        let with_pod = vec![link(1, "cni0", None, &OLD), link(2, "veth1", Some(1), &[])];
        let with_other = vec![link(1, "cni0", None, &OLD), link(2, "veth1", Some(9), &[])];
        for (links, leases, says) in [
            (
                with_pod,
                lease("10.244.7.9"),
                Some("1 pods are on the bridge; drain this node, then `ip addr del 10.244.1.1/24 dev cni0`"),
            ),
            (with_other, lease("10.244.7.9"), None),
            (alone(), lease("10.244.1.9"), Some("the lease of 10.244.1.9")),
            (alone(), Leases::Unknown, Some("weft cannot read host-local's leases")),
            (alone(), Leases::NotOurs, Some("weft does not touch the bridge")),
        ] {
            let stale = found(links, &leases);
            assert_eq!(stale[0].remove.is_none(), says.is_some(), "{stale:?}");
            assert!(says.is_none_or(|says| stale[0].problem.contains(says)), "{stale:?}");
        }
    }
}
