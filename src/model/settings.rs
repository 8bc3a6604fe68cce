//! The configuration, parsed: what the decisions need of it.

use std::net::IpAddr;

use regex_lite::Regex;

use super::addr::{ByFamily, Family, IfName, Subnet, Vni};
use super::device::device_name;
use super::filter::FilterRules;
use super::host::Scope;

/// The VXLAN destination port that Linux takes when flannel names none.
pub const DEFAULT_PORT: u16 = 8472;

/// How packets for pods get from node to node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// In VXLAN.
    Vxlan,
    /// As they are, routed to the node's public IP: every node has to be on one network.
    HostGw,
}

impl Backend {
    /// flannel's word for it, in `net-conf.json` and in the annotation `backend-type`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::HostGw => "host-gw",
        }
    }
}

/// The overlay, as `net-conf.json` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// The pod network of each enabled family; `None` is a family that is off.
    pub networks: ByFamily<Option<Subnet>>,
    /// How packets get from node to node. What follows is of VXLAN; with another backend the VNI says which
    /// device of before is to go.
    pub backend: Backend,
    /// Network identifier; 1 unless set.
    pub vni: Vni,
    /// UDP destination port; [`DEFAULT_PORT`] unless set.
    pub port: u16,
    /// The outer MTU in bytes (`Backend.MTU`); the underlay's unless set.
    pub mtu: Option<u32>,
    /// Group-based policy.
    pub gbp: bool,
    /// Learning.
    pub learning: bool,
    /// Whether peers on the same network are reached without encapsulation.
    pub direct_routing: bool,
}

impl Overlay {
    /// The enabled families.
    pub fn families(&self) -> impl Iterator<Item = Family> + '_ {
        self.networks.iter().filter(|(_, network)| network.is_some()).map(|(family, _)| family)
    }

    /// What a look at the kernel has to cover; `reach` is `--iface-can-reach`.
    pub fn scope(&self, reach: Option<IpAddr>) -> Scope {
        let device = |family| self.networks.get(family).map(|_| self.device(family));
        let ways = self.direct_routing || self.backend == Backend::HostGw;
        Scope { devices: ByFamily::from_fn(device), networks: self.networks, reach, ways }
    }

    /// Our VNI, if packets are encapsulated.
    pub const fn tunnel(&self) -> Option<Vni> {
        match self.backend {
            Backend::Vxlan => Some(self.vni),
            Backend::HostGw => None,
        }
    }

    /// What weft may have made here with another configuration too: the device of a family that is off now.
    pub fn scope_of_all(&self) -> Scope {
        Scope { devices: ByFamily::from_fn(|family| Some(self.device(family))), ..self.scope(None) }
    }

    /// The device's name in a family.
    pub fn device(&self, family: Family) -> IfName {
        device_name(family, self.vni)
    }
}

/// How to choose the underlay interface and the address to advertise.
#[derive(Clone, Debug, Default)]
pub struct UnderlayRules {
    /// `--iface`: names or addresses, tried in order.
    pub iface: Vec<String>,
    /// `--iface-regex`: matched with addresses, then with names; tried after `iface`.
    pub iface_regex: Vec<Regex>,
    /// `--iface-can-reach`: the interface of the route to this address; tried last.
    pub can_reach: Option<IpAddr>,
    /// `--public-ip`, `--public-ipv6`: the address to advertise.
    pub public_ip: ByFamily<Option<IpAddr>>,
    /// `--udp-checksum`: whether an IPv4 device that is made gets an outer UDP checksum.
    pub udp_checksum: bool,
}

/// What the CNI network configuration consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CniForm {
    /// The plugins of the CNI project.
    Standard,
    /// flannel's plugin, which calls them.
    Flannel,
}

impl CniForm {
    /// Its word on the command line.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Flannel => "flannel",
        }
    }
}

/// Everything that a pass is configured with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The overlay.
    pub overlay: Overlay,
    /// The underlay.
    pub underlay: UnderlayRules,
    /// The packet filter.
    pub filter: FilterRules,
}

impl Settings {
    /// What a pass has to look at.
    pub fn scope(&self) -> Scope {
        self.overlay.scope(self.underlay.can_reach)
    }
}
