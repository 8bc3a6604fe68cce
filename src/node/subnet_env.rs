//! `subnet.env`: what the flannel CNI plugin reads at every pod's start.
//!
//! Byte for byte flannel's (`WriteSubnetFile` in `pkg/subnet/subnet.go`), with one difference that is
//! meant: where IPv6 is on, the MTU is right for it too. VXLAN takes 50 bytes over IPv4 and 70 over
//! IPv6; flannel always takes 50 off, so that a full-sized IPv6 packet of a pod does not fit its
//! device (flannel issue 1781). One pod interface serves both families, so the smaller MTU counts.

use std::fmt;
use std::net::IpAddr;

use crate::model::addr::{ByFamily, Family, Subnet};
use crate::model::settings::Overlay;

/// The file's content. Displays as the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubnetEnv {
    /// For each enabled family the cluster's pod network and this node's pod CIDR.
    pub networks: ByFamily<Option<(Subnet, Subnet)>>,
    /// Bytes of a pod's packet.
    pub mtu: u32,
    /// Whether we masquerade; if not, the CNI bridge does.
    pub ip_masq: bool,
}

impl SubnetEnv {
    /// The file of a node. `None` while an enabled family has no pod CIDR or its device no MTU: a pod
    /// started then would stay without that family for life. `ip_masq` says whether weft's own
    /// rules stand in every enabled family.
    pub fn of_node(
        overlay: &Overlay,
        pod_cidrs: ByFamily<Option<Subnet>>,
        device_mtus: ByFamily<Option<u32>>,
        ip_masq: bool,
    ) -> Option<Self> {
        let mut networks = ByFamily::default();
        let mut mtu = u32::MAX;
        for family in overlay.families() {
            let pods = (*pod_cidrs.get(family))?;
            *networks.get_mut(family) = overlay.networks.get(family).map(|network| (network, pods));
            mtu = mtu.min((*device_mtus.get(family))?);
        }
        Some(Self { networks, mtu, ip_masq })
    }
}

const KEYS: ByFamily<(&str, &str)> =
    ByFamily { v4: ("FLANNEL_NETWORK", "FLANNEL_SUBNET"), v6: ("FLANNEL_IPV6_NETWORK", "FLANNEL_IPV6_SUBNET") };

impl fmt::Display for SubnetEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (family, (network_key, subnet_key)) in KEYS.iter() {
            if let Some((network, pods)) = self.networks.get(family) {
                // The bridge's own address; a one-address CIDR has no other than its base.
                let bridge = pods.first_host().unwrap_or(pods.base());
                writeln!(f, "{network_key}={network}\n{subnet_key}={bridge}/{}", pods.len())?;
            }
        }
        writeln!(f, "FLANNEL_MTU={}\nFLANNEL_IPMASQ={}", self.mtu, self.ip_masq)
    }
}

/// Why a text is not a `subnet.env`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSubnetEnv {
    /// A line has no `=`.
    #[error("line {0} is not KEY=value")]
    Line(usize),
    /// A value is not what its key needs.
    #[error("{key} is {value:?}")]
    Value {
        /// The key.
        key: &'static str,
        /// Its value, shortened.
        value: String,
    },
    /// A key is not there.
    #[error("{0} is missing")]
    Missing(&'static str),
}

/// Reads a file that weft or flannel wrote. As the CNI plugin does, it splits at the first `=`, takes
/// the last of several values and ignores keys that it does not know; of a comma list of networks
/// (flannel's multi-CIDR mode, long gone) it takes the first.
///
/// # Errors
/// If a line, a value or the whole does not describe at least one family.
pub fn parse(text: &str) -> Result<SubnetEnv, NotSubnetEnv> {
    let value = |key: &'static str| {
        text.lines()
            .rev()
            .filter_map(|line| line.split_once('='))
            .find(|(name, _)| *name == key)
            .map(|(_, value)| value)
    };
    if let Some(at) = text.lines().position(|line| !line.is_empty() && !line.starts_with('#') && !line.contains('=')) {
        return Err(NotSubnetEnv::Line(at + 1));
    }
    let mut networks = ByFamily::default();
    for (family, (network_key, subnet_key)) in KEYS.iter() {
        let Some(network) = value(network_key) else { continue };
        let pods = value(subnet_key).ok_or(NotSubnetEnv::Missing(subnet_key))?;
        let network = network.split(',').next().unwrap_or_default();
        *networks.get_mut(family) = Some((subnet(network_key, network, family)?, subnet(subnet_key, pods, family)?));
    }
    if networks == ByFamily::default() {
        return Err(NotSubnetEnv::Missing(KEYS.v4.0));
    }
    let number = value("FLANNEL_MTU").ok_or(NotSubnetEnv::Missing("FLANNEL_MTU"))?;
    let mtu = number.parse().map_err(|_| wrong("FLANNEL_MTU", number))?;
    let ip_masq = match value("FLANNEL_IPMASQ").ok_or(NotSubnetEnv::Missing("FLANNEL_IPMASQ"))? {
        "true" => true,
        "false" => false,
        other => return Err(wrong("FLANNEL_IPMASQ", other)),
    };
    Ok(SubnetEnv { networks, mtu, ip_masq })
}

fn subnet(key: &'static str, text: &str, family: Family) -> Result<Subnet, NotSubnetEnv> {
    text.parse().ok().filter(|subnet: &Subnet| subnet.family() == family).ok_or_else(|| wrong(key, text))
}

fn wrong(key: &'static str, value: &str) -> NotSubnetEnv {
    NotSubnetEnv::Value { key, value: value.chars().take(60).collect() }
}

/// The pod bridge's address in a file, for checks: the address part of `FLANNEL_SUBNET`.
pub fn bridge_address(env: &SubnetEnv, family: Family) -> Option<IpAddr> {
    env.networks.get(family).and_then(|(_, pods)| pods.first_host())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::addr::Vni;
    use crate::model::settings::{Backend, DEFAULT_PORT};

    const V4: &str =
        "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n";
    const DUAL: &str = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\n\
        FLANNEL_IPV6_NETWORK=fd00:10:244::/56\nFLANNEL_IPV6_SUBNET=fd00:10:244:1::1/64\nFLANNEL_MTU=1430\nFLANNEL_IPMASQ=false\n";
    const V6: &str = "FLANNEL_IPV6_NETWORK=fd00:10:244::/56\nFLANNEL_IPV6_SUBNET=fd00:10:244:1::1/64\nFLANNEL_MTU=1430\nFLANNEL_IPMASQ=false\n";

    fn subnet(text: &str) -> Subnet {
        text.parse().expect("a subnet")
    }

    fn overlay(v4: bool, v6: bool) -> Overlay {
        let networks = ByFamily { v4: v4.then(|| subnet("10.244.0.0/16")), v6: v6.then(|| subnet("fd00:10:244::/56")) };
        let vni = Vni::new(1).expect("a VNI");
        Overlay {
            networks,
            backend: Backend::Vxlan,
            vni,
            port: DEFAULT_PORT,
            mtu: None,
            gbp: false,
            learning: false,
            direct_routing: false,
        }
    }

    fn env(v4: bool, v6: bool) -> Option<SubnetEnv> {
        let pods = ByFamily { v4: Some(subnet("10.244.1.0/24")), v6: Some(subnet("fd00:10:244:1::/64")) };
        SubnetEnv::of_node(&overlay(v4, v6), pods, ByFamily { v4: Some(1450), v6: Some(1430) }, false)
    }

    #[test]
    fn it_is_flannels_to_the_byte_with_the_smaller_mtu() {
        for (v4, v6, text) in [(true, false, V4), (true, true, DUAL), (false, true, V6)] {
            assert_eq!(env(v4, v6).map(|env| env.to_string()).as_deref(), Some(text));
        }
    }

    #[test]
    fn it_waits_for_every_enabled_family() {
        let overlay = overlay(true, true);
        let v4_only = ByFamily { v4: Some(subnet("10.244.1.0/24")), v6: None };
        assert_eq!(SubnetEnv::of_node(&overlay, v4_only, ByFamily { v4: Some(1450), v6: Some(1430) }, false), None);
        let both = ByFamily { v4: Some(subnet("10.244.1.0/24")), v6: Some(subnet("fd00:0:0:1::/64")) };
        assert_eq!(SubnetEnv::of_node(&overlay, both, ByFamily { v4: Some(1450), v6: None }, false), None);
    }

    #[test]
    fn what_is_written_reads_back() {
        for text in [V4, DUAL, V6] {
            assert_eq!(parse(text).map(|env| env.to_string()).as_deref(), Ok(text));
        }
        let flannels = parse(
            "# x\nFLANNEL_NETWORK=10.42.0.0/16,10.43.0.0/16\nFLANNEL_SUBNET=10.42.3.1/24\nFLANNEL_MTU=8950\nFLANNEL_IPMASQ=true\nOTHER=a=b\n",
        );
        let flannels = flannels.expect("flannel's file");
        assert_eq!(bridge_address(&flannels, Family::V4), Some([10, 42, 3, 1].into()));
        assert_eq!(bridge_address(&flannels, Family::V6), None);
        assert!(flannels.ip_masq);
    }

    #[test]
    fn a_broken_file_is_an_error_that_names_the_place() {
        for (text, error) in [
            ("", "FLANNEL_NETWORK is missing"),
            ("FLANNEL_NETWORK", "line 1 is not KEY=value"),
            ("FLANNEL_NETWORK=10.0.0.0/8\n", "FLANNEL_SUBNET is missing"),
            ("FLANNEL_NETWORK=fd00::/8\nFLANNEL_SUBNET=10.0.0.1/24", "FLANNEL_NETWORK is \"fd00::/8\""),
            ("FLANNEL_NETWORK=10.0.0.0/8\nFLANNEL_SUBNET=10.0.0.1/24", "FLANNEL_MTU is missing"),
            ("FLANNEL_NETWORK=10.0.0.0/8\nFLANNEL_SUBNET=10.0.0.1/24\nFLANNEL_MTU=-50", "FLANNEL_MTU is \"-50\""),
            (
                "FLANNEL_NETWORK=10.0.0.0/8\nFLANNEL_SUBNET=10.0.0.1/24\nFLANNEL_MTU=9\nFLANNEL_IPMASQ=yes",
                "FLANNEL_IPMASQ is \"yes\"",
            ),
        ] {
            assert_eq!(parse(text).map_err(|error| error.to_string()), Err(error.to_owned()), "{text:?}");
        }
    }
}
