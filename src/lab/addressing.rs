//! Who has which address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use crate::model::addr::{ByFamily, Family, Subnet};

/// Which families everything has addresses of: nodes, pods, the API server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stack {
    /// IPv4 alone.
    #[default]
    V4,
    /// IPv6 alone.
    V6,
    /// Both.
    Dual,
}

impl Stack {
    /// Whether this family is one of them.
    pub const fn has(self, family: Family) -> bool {
        !matches!((self, family), (Self::V4, Family::V6) | (Self::V6, Family::V4))
    }

    /// Those that are.
    pub fn families(self) -> impl Iterator<Item = Family> {
        Family::BOTH.into_iter().filter(move |family| self.has(*family))
    }
}

/// Which addresses things have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addressing {
    /// Of which families.
    pub stack: Stack,
    /// How many networks the machines are on: 1 or 2.
    pub segments: u8,
}

/// An address and its prefix length.
pub type Prefixed = (IpAddr, u8);

impl Addressing {
    /// The families in use.
    pub fn families(self) -> impl Iterator<Item = Family> {
        self.stack.families()
    }

    fn pick(self, v4: Ipv4Addr, v4_len: u8, v6: Ipv6Addr, v6_len: u8) -> Vec<Prefixed> {
        let both = [(IpAddr::V4(v4), v4_len), (IpAddr::V6(v6), v6_len)];
        both.into_iter().filter(|(ip, _)| self.stack.has(Family::of(*ip))).collect()
    }

    /// The segment, from 1, that the n-th machine is on at first.
    pub const fn home(self, number: u8) -> u8 {
        if self.segments > 1 && number.is_multiple_of(2) { 2 } else { 1 }
    }

    /// The lab's own addresses on a segment.
    pub fn gateway(self, segment: u8) -> Vec<Prefixed> {
        self.pick(Ipv4Addr::new(192, 168, 173 + segment, 1), 24, underlay_v6(segment, 1), 64)
    }

    /// The addresses of the n-th machine (from 1) on the underlay.
    pub fn machine(self, number: u8) -> Vec<Prefixed> {
        self.machine_on(number, self.home(number))
    }

    /// Those that it has on a segment.
    pub fn machine_on(self, number: u8, segment: u8) -> Vec<Prefixed> {
        let last = number.saturating_add(10);
        self.pick(Ipv4Addr::new(192, 168, 173 + segment, last), 24, underlay_v6(segment, digits(last)), 64)
    }

    /// The n-th machine's pod CIDRs.
    pub fn pod_cidrs(self, number: u8) -> Vec<Prefixed> {
        self.inside(number, 0)
    }

    /// An address in the n-th machine's pod CIDRs: 1 is its bridge, 2 its pod.
    pub fn inside(self, number: u8, host: u8) -> Vec<Prefixed> {
        let v6 = Ipv6Addr::new(0xfd00, 0x10, 0x244, digits(number), 0, 0, 0, digits(host));
        self.pick(Ipv4Addr::new(10, 244, number, host), 24, v6, 64)
    }

    /// The cluster's pod networks.
    pub fn networks(self) -> ByFamily<Option<Subnet>> {
        let v6 = Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 0);
        let all = self.pick(Ipv4Addr::new(10, 244, 0, 0), 16, v6, 48);
        let of = |family| all.iter().find(|(ip, _)| Family::of(*ip) == family);
        ByFamily::from_fn(|family| of(family).and_then(|(ip, len)| Subnet::new(*ip, *len)))
    }

    /// `net-conf.json`.
    pub fn net_conf(self) -> Value {
        let mut conf = json!({ "Backend": { "Type": "vxlan" } });
        if self.segments > 1 {
            conf["Backend"]["DirectRouting"] = true.into();
        }
        for (family, network) in self.networks().iter() {
            let (enable, key) = match family {
                Family::V4 => ("EnableIPv4", "Network"),
                Family::V6 => ("EnableIPv6", "IPv6Network"),
            };
            conf[enable] = network.is_some().into();
            if let Some(network) = network {
                conf[key] = network.to_string().into();
            }
        }
        conf
    }

    /// What a pod's packets may measure, in bytes: the underlay's 1500 less the encapsulation.
    pub fn pod_mtu(self) -> u32 {
        1500 - self.families().map(Family::vxlan_overhead).max().unwrap_or_default()
    }

    /// The Node object that kubelet and controller manager would make of the n-th machine.
    pub fn node(self, number: u8) -> Value {
        let cidr = |(ip, len): &Prefixed| format!("{ip}/{len}");
        let cidrs: Vec<String> = self.pod_cidrs(number).iter().map(cidr).collect();
        let address = |(ip, _): &Prefixed| json!({ "type": "InternalIP", "address": ip });
        let addresses: Vec<Value> = self.machine(number).iter().map(address).collect();
        json!({
            "metadata": { "name": name(number), "labels": { "kubernetes.io/os": "linux" } },
            "spec": { "podCIDR": cidrs.first(), "podCIDRs": cidrs },
            "status": {
                "addresses": addresses,
                "conditions": [{ "type": "Ready", "status": "True", "reason": "Lab" }],
                "nodeInfo": { "kubeletVersion": "none", "osImage": "weft lab" },
            },
        })
    }
}

/// The number whose hexadecimal digits read as this one's decimal ones, so that machine 12 is `::12`.
const fn digits(number: u8) -> u16 {
    let number = number as u16;
    ((number / 100) << 8) | ((number / 10 % 10) << 4) | (number % 10)
}

const fn underlay_v6(segment: u8, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x192, 0x168, 0x173 + segment as u16, 0, 0, 0, host)
}

/// The n-th machine's name.
pub fn name(number: u8) -> String {
    format!("node-{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_read_alike() {
        let addressing = Addressing { stack: Stack::Dual, segments: 1 };
        let texts = |all: Vec<Prefixed>| all.iter().map(|(ip, len)| format!("{ip}/{len}")).collect::<Vec<_>>();
        assert_eq!(texts(addressing.machine(2)), ["192.168.174.12/24", "fd00:192:168:174::12/64"]);
        assert_eq!(texts(addressing.pod_cidrs(11)), ["10.244.11.0/24", "fd00:10:244:11::/64"]);
        assert_eq!(texts(addressing.inside(11, 2)), ["10.244.11.2/24", "fd00:10:244:11::2/64"]);
        let two = Addressing { stack: Stack::V4, segments: 2 };
        assert_eq!(texts(two.machine(2)), ["192.168.175.12/24"]);
        assert_eq!(texts(two.machine_on(2, 1)), ["192.168.174.12/24"]);
        let six = Addressing { stack: Stack::V6, segments: 1 };
        assert_eq!(texts(six.machine(2)), ["fd00:192:168:174::12/64"]);
    }
}
