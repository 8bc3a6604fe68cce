//! The VXLAN device as weft wants it.

use std::net::IpAddr;

use super::addr::{Family, IfIndex, IfName, Mac, Subnet, Vni};

/// Everything that makes a device ours. Units: MTU in bytes, port as a UDP port number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSpec {
    /// `flannel.<VNI>` or `flannel-v6.<VNI>`.
    pub name: IfName,
    /// Which family's tables hang on it; also the family of the outer packets.
    pub family: Family,
    /// Network identifier.
    pub vni: Vni,
    /// UDP destination port; Linux's default is 8472, not IANA's 4789.
    pub port: u16,
    /// Group-based-policy extension; cannot be changed in place.
    pub gbp: bool,
    /// Whether the kernel learns FDB entries from received packets.
    pub learning: bool,
    /// Whether a device that is made now gets an outer UDP checksum. Cannot be changed in place, and one
    /// that is there keeps what it has: see docs/decisions/0011.
    pub udp_checksum: bool,
    /// The interface that outer packets leave by.
    pub underlay: IfIndex,
    /// Its name, for messages.
    pub underlay_name: IfName,
    /// Outer source address; always one that the host has.
    pub local: IpAddr,
    /// Bytes of an inner IP packet.
    pub mtu: u32,
    /// The VTEP's MAC, announced to every peer.
    pub mac: Mac,
    /// The VTEP's own address: the base of our pod CIDR, as /32 or /128.
    pub address: IpAddr,
    /// The cluster's pod network: addresses of it that are not ours do not belong on the device.
    pub network: Subnet,
}

/// The name that flannel gives the device of a family.
pub fn device_name(family: Family, vni: Vni) -> IfName {
    IfName::new(&match family {
        Family::V4 => format!("flannel.{vni}"),
        Family::V6 => format!("flannel-v6.{vni}"),
    })
}
