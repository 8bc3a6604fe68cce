//! What the host looks like around the tables: links, addresses, default routes.

use std::net::IpAddr;

use super::addr::{ByFamily, Family, IfIndex, IfName, Mac, Subnet, Vni};
use super::nft::SeenTable;
use super::table::Tables;

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number.
    pub index: IfIndex,
    /// Its name.
    pub name: IfName,
    /// Hardware address; `None` for interfaces without a six-byte one.
    pub mac: Option<Mac>,
    /// Bytes.
    pub mtu: u32,
    /// IFF_UP: an administrator set it up.
    pub up: bool,
    /// IFF_RUNNING: it is up and has a carrier.
    pub running: bool,
    /// IFF_LOOPBACK.
    pub loopback: bool,
    /// What it is.
    pub kind: LinkKind,
    /// The bridge (or bond) that it is a port of.
    pub master: Option<IfIndex>,
    /// `addrgenmode none`: the kernel makes no link-local address on it.
    pub addrgen_none: bool,
    /// `disable_ipv6`; `None` where the kernel has no IPv6 for it.
    pub ipv6_disabled: Option<bool>,
    /// Its addresses, in the kernel's order.
    pub addresses: Vec<Address>,
}

/// What kind of interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// A VXLAN device.
    Vxlan(VxlanAttributes),
    /// Anything else, by the kernel's word for it (`bridge`, `veth`; empty for a plain NIC).
    Other(String),
}

/// The attributes of a VXLAN device that weft compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VxlanAttributes {
    /// Network identifier.
    pub vni: Vni,
    /// UDP destination port.
    pub port: u16,
    /// Underlay interface; `None` if the device is bound to none.
    pub underlay: Option<IfIndex>,
    /// Outer source address.
    pub local: Option<IpAddr>,
    /// Whether it learns.
    pub learning: bool,
    /// Group-based policy.
    pub gbp: bool,
    /// Whether outer packets over IPv4 get a UDP checksum; IPv6 is not asked.
    pub udp_checksum: bool,
    /// TTL of the outer packets; 0 is the host's default.
    pub ttl: u8,
    /// It has what no device of flannel's has and what cannot be taken off in place: a limit of FDB entries
    /// (`maxaddress`), `l2miss`, `l3miss`, `proxy`, `rsc`, `gpe`, `remcsum`, `ttl inherit`.
    pub special: bool,
    /// Flow-based (`external`), or with a group or remote: not a device of flannel's kind.
    pub alien: bool,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Its prefix length in bits.
    pub len: u8,
    /// Global scope (not link, not host).
    pub global: bool,
    /// IFA_F_DEPRECATED: not to be used as a source any more.
    pub deprecated: bool,
    /// IFA_F_PERMANENT: no lifetime (not DHCP, not SLAAC).
    pub permanent: bool,
    /// IFA_F_TEMPORARY: an IPv6 privacy address. For IPv4 the same bit means secondary.
    pub temporary: bool,
    /// Duplicate address detection failed: the address cannot be used.
    pub failed: bool,
}

impl Address {
    /// The network it is in.
    pub fn subnet(&self) -> Subnet {
        Subnet::new(self.ip, self.len).unwrap_or(Subnet::host(self.ip))
    }
}

/// A default route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    /// Its family.
    pub family: Family,
    /// Its interface; `None` for a multipath route.
    pub oif: Option<IfIndex>,
    /// Its metric.
    pub metric: u32,
}

/// A route of the main table that is not on a device of ours, for a destination inside the cluster
/// network: the kernel may prefer it to ours, or it may hold a key that we need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignRoute {
    /// Destination.
    pub dst: Subnet,
    /// Metric.
    pub metric: u32,
    /// Its interface, if it has one.
    pub oif: Option<IfIndex>,
    /// Who made it.
    pub protocol: u8,
}

/// A route of the main table to somewhere outside the cluster network, as far as it says whether a peer
/// is on the same network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Destination.
    pub dst: Subnet,
    /// Metric.
    pub metric: u32,
    /// Its interface, if it has one.
    pub oif: Option<IfIndex>,
    /// Whether what it leads to is on the interface's own network: unicast, no gateway, one next hop.
    pub on_link: bool,
}

/// One consistent look at everything that weft decides from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Every interface, in the kernel's order.
    pub links: Vec<Link>,
    /// Default routes, in the kernel's order.
    pub defaults: Vec<DefaultRoute>,
    /// Routes of others inside the cluster networks.
    pub foreign: Vec<ForeignRoute>,
    /// The way to everywhere else, if it was asked for.
    pub ways: Vec<Way>,
    /// The interface and source address towards [`Scope::reach`], if one was asked for.
    pub reach: Option<(IfIndex, IpAddr)>,
    /// What each device of ours holds, and what may be ours of its family's cluster network on other
    /// interfaces: there too while the device itself is not.
    pub tables: ByFamily<Option<Tables>>,
    /// Our packet filter in each family, if it is there.
    pub filter: ByFamily<Option<SeenTable>>,
    /// Why the packet filter of a family could not be read.
    pub filter_problem: ByFamily<Option<String>>,
}

impl Host {
    /// The interface of this name.
    pub fn link(&self, name: &IfName) -> Option<&Link> {
        self.links.iter().find(|link| link.name == *name)
    }

    /// The interface of this number.
    pub fn link_at(&self, index: IfIndex) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }
}

/// What to look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The device of each enabled family.
    pub devices: ByFamily<Option<IfName>>,
    /// The cluster network of each enabled family.
    pub networks: ByFamily<Option<Subnet>>,
    /// `--iface-can-reach`: the address whose route chooses the underlay.
    pub reach: Option<IpAddr>,
    /// Whether the routes outside the cluster networks matter: they say who is on the same network.
    pub ways: bool,
}
