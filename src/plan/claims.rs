//! Who gets what, when two nodes claim the same.
//!
//! The rule: our own node first, then by creation time, name and UID; a claim that clashes with one
//! already granted is refused whole. It looks at the snapshot and at what the host itself takes up, never
//! at what was decided before: a restart decides the same, and so does every other agent of the cluster about
//! two nodes that are neither's own.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use super::direct::Routing;
use crate::model::addr::{Mac, Subnet, bits};
use crate::model::node::{NodeName, Peer};

/// What the host itself takes up in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ground {
    /// The cluster's pod network: every pod CIDR lies inside.
    pub network: Subnet,
    /// Our own pod CIDR.
    pub own: Subnet,
    /// Our own VTEP's MAC, if we have one.
    pub mac: Option<Mac>,
    /// The address that we announce.
    pub public_ip: IpAddr,
    /// What of the underlay interface no pod CIDR may overlap: its addresses over IPv4, its networks over IPv6.
    pub underlay: Vec<Subnet>,
    /// Every address of this host.
    pub addresses: BTreeSet<IpAddr>,
    /// Which way packets go to peers.
    pub routing: Routing,
}

/// Why a claim is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The pod CIDR is not part of the pod network.
    #[error("pod CIDR {subnet} is outside Network {network}")]
    OutsideNetwork {
        /// Theirs.
        subnet: Subnet,
        /// From net-conf.json.
        network: Subnet,
    },
    /// The pod CIDR would capture our own pods' traffic.
    #[error("pod CIDR {subnet} overlaps our own, {own}")]
    OverlapsOwn {
        /// Theirs.
        subnet: Subnet,
        /// Ours.
        own: Subnet,
    },
    /// The pod CIDR is the underlay's network or has it inside; over IPv6 also the other way round.
    #[error("pod CIDR {subnet} overlaps {underlay} of the underlay")]
    OverlapsUnderlay {
        /// Theirs.
        subnet: Subnet,
        /// The underlay's.
        underlay: Subnet,
    },
    /// The public IP is one of this host's: often a Node left over from an earlier name of it.
    #[error("public IP {0} is an address of this host")]
    OurAddress(IpAddr),
    /// The MAC is our own VTEP's.
    #[error("VTEP MAC {0} is our own")]
    OurMac(Mac),
    /// An older node has (part of) the same pod CIDR.
    #[error("pod CIDR {subnet} overlaps {other} of the older node {holder}")]
    Subnet {
        /// Theirs.
        subnet: Subnet,
        /// The other's.
        other: Subnet,
        /// Who has it.
        holder: NodeName,
    },
    /// An older node has the same MAC.
    #[error("VTEP MAC {mac} belongs to the older node {holder}")]
    Mac {
        /// The MAC.
        mac: Mac,
        /// Who has it.
        holder: NodeName,
    },
    /// An older node has the same public IP.
    #[error("public IP {ip} belongs to the older node {holder}")]
    PublicIp {
        /// The address.
        ip: IpAddr,
        /// Who has it.
        holder: NodeName,
    },
    /// Packets for one node's VTEP would be routed into another's pod CIDR.
    #[error("public IP {ip} lies inside pod CIDR {subnet}")]
    PublicIpInPodCidr {
        /// The address.
        ip: IpAddr,
        /// The pod CIDR.
        subnet: Subnet,
    },
}

impl Refused {
    /// Every label, for metrics that start at zero.
    pub const LABELS: [&'static str; 9] = [
        "outside_network",
        "overlaps_own",
        "overlaps_underlay",
        "our_address",
        "our_mac",
        "duplicate_pod_cidr",
        "duplicate_mac",
        "duplicate_public_ip",
        "public_ip_in_pod_cidr",
    ];

    /// A metric label.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::OutsideNetwork { .. } => "outside_network",
            Self::OverlapsOwn { .. } => "overlaps_own",
            Self::OverlapsUnderlay { .. } => "overlaps_underlay",
            Self::OurAddress(_) => "our_address",
            Self::OurMac(_) => "our_mac",
            Self::Subnet { .. } => "duplicate_pod_cidr",
            Self::Mac { .. } => "duplicate_mac",
            Self::PublicIp { .. } => "duplicate_public_ip",
            Self::PublicIpInPodCidr { .. } => "public_ip_in_pod_cidr",
        }
    }
}

/// The claims granted so far in one family that others may meet. Grant those that are contested in order of
/// seniority; the others at any time, as nothing of theirs is kept.
#[derive(Debug)]
pub struct Claims<'a> {
    ground: &'a Ground,
    /// By base. Disjoint, so the last one that begins at or before an address is the only one that can
    /// hold it.
    subnets: BTreeMap<u128, (Subnet, &'a NodeName)>,
    macs: HashMap<Mac, &'a NodeName>,
    /// By [`bits`].
    public_ips: HashMap<u128, &'a NodeName>,
    /// Those inside the pod network, in order: only these can lie in a pod CIDR. Seldom any.
    in_network: BTreeMap<u128, IpAddr>,
}

impl<'a> Claims<'a> {
    /// Nothing granted yet but what the host itself takes up.
    pub fn new(ground: &'a Ground) -> Self {
        let (subnets, in_network) = (BTreeMap::new(), BTreeMap::new());
        Self { ground, subnets, macs: HashMap::new(), public_ips: HashMap::new(), in_network }
    }

    /// Grants everything a peer claims, or nothing. Whom nobody contests, nobody need remember.
    ///
    /// # Errors
    /// The first thing that stands against it.
    pub fn grant(&mut self, name: &'a NodeName, peer: &Peer, contested: bool) -> Result<(), Refused> {
        self.subnet_is_free(peer.subnet)?;
        peer.mac.map_or(Ok(()), |mac| self.mac_is_free(mac))?;
        self.public_ip_is_free(peer)?;
        if !contested {
            return Ok(());
        }
        self.hold(name, peer.subnet);
        self.macs.extend(peer.mac.map(|mac| (mac, name)));
        self.public_ips.insert(bits(peer.public_ip), name);
        if self.ground.network.contains(peer.public_ip) {
            self.in_network.insert(bits(peer.public_ip), peer.public_ip);
        }
        Ok(())
    }

    /// Sets a pod CIDR aside for a node that cannot be used now, if nothing stands against it. Whether
    /// it was: a node that would lose a conflict if it were usable has nothing to be kept for.
    pub fn reserve(&mut self, name: &'a NodeName, subnet: Subnet, contested: bool) -> bool {
        let free = self.subnet_is_free(subnet).is_ok();
        if free && contested {
            self.hold(name, subnet);
        }
        free
    }

    fn hold(&mut self, name: &'a NodeName, subnet: Subnet) {
        self.subnets.insert(bits(subnet.base()), (subnet, name));
    }

    fn subnet_is_free(&self, subnet: Subnet) -> Result<(), Refused> {
        let ground = self.ground;
        if !ground.network.contains_subnet(subnet) {
            return Err(Refused::OutsideNetwork { subnet, network: ground.network });
        }
        if ground.own.overlaps(subnet) {
            return Err(Refused::OverlapsOwn { subnet, own: ground.own });
        }
        if let Some(underlay) = ground.underlay.iter().find(|underlay| underlay.overlaps(subnet)) {
            return Err(Refused::OverlapsUnderlay { subnet, underlay: *underlay });
        }
        if let Some((other, holder)) = self.overlapping(subnet) {
            return Err(Refused::Subnet { subnet, other: *other, holder: NodeName::clone(holder) });
        }
        match self.in_network.range(bits(subnet.base())..=bits(subnet.last())).next() {
            Some((_, ip)) => Err(Refused::PublicIpInPodCidr { ip: *ip, subnet }),
            None => Ok(()),
        }
    }

    fn overlapping(&self, subnet: Subnet) -> Option<&(Subnet, &'a NodeName)> {
        let (_, held) = self.subnets.range(..=bits(subnet.last())).next_back()?;
        held.0.overlaps(subnet).then_some(held)
    }

    fn mac_is_free(&self, mac: Mac) -> Result<(), Refused> {
        if self.ground.mac == Some(mac) {
            return Err(Refused::OurMac(mac));
        }
        match self.macs.get(&mac) {
            Some(holder) => Err(Refused::Mac { mac, holder: NodeName::clone(holder) }),
            None => Ok(()),
        }
    }

    fn public_ip_is_free(&self, peer: &Peer) -> Result<(), Refused> {
        let ip = peer.public_ip;
        if self.ground.public_ip == ip || self.ground.addresses.contains(&ip) {
            return Err(Refused::OurAddress(ip));
        }
        if let Some(holder) = self.public_ips.get(&bits(ip)) {
            return Err(Refused::PublicIp { ip, holder: NodeName::clone(holder) });
        }
        if !self.ground.network.contains(ip) {
            return Ok(());
        }
        let inside = [self.ground.own, peer.subnet].into_iter().find(|subnet| subnet.contains(ip));
        let inside = inside.or_else(|| self.overlapping(Subnet::host(ip)).map(|held| held.0));
        match inside {
            Some(subnet) => Err(Refused::PublicIpInPodCidr { ip, subnet }),
            None => Ok(()),
        }
    }
}
