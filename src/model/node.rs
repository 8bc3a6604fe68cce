//! What the API server says of the cluster's nodes, parsed once.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::addr::{ByFamily, IfName, Mac, NotASubnet, Subnet};

/// A node of the cluster, by name.
pub type NodeName = Arc<str>;

/// One Node object, as much of it as matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRecord {
    /// `metadata.name`.
    pub name: NodeName,
    /// `metadata.uid`: a re-created node has another.
    pub uid: Box<str>,
    /// `metadata.creationTimestamp` in seconds since 1970; `i64::MAX` if it is missing or garbled, so
    /// that such a node is the newest.
    pub created: i64,
    /// What it says of itself in each family.
    pub standing: ByFamily<Standing>,
}

/// What a node is to us in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It takes no part: no flannel node (any more), another backend, or no data of this family.
    /// Entries for it go.
    Absent(Absence),
    /// It can be a peer.
    Usable(Peer),
    /// It means to be a peer, but what it says cannot be used. Entries that were installed for its
    /// pod CIDR stay as they are until it is usable, gone, or elsewhere.
    Unusable {
        /// Its pod CIDR of this family, if that at least can be read.
        subnet: Option<Subnet>,
        /// Why.
        reason: Unusable,
    },
}

/// A node that can be reached in one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its pod CIDR, from `spec.podCIDRs`.
    pub subnet: Subnet,
    /// Its VTEP's MAC, from `backend-data`. `None` with the host-gw backend, which has none.
    pub mac: Option<Mac>,
    /// Where to send its packets, from `public-ip`.
    pub public_ip: IpAddr,
}

/// Why a node takes no part.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Absence {
    /// `kube-subnet-manager` is not `true`: not a flannel node, or not yet.
    #[error("annotation kube-subnet-manager is not \"true\"")]
    NotFlannel,
    /// `backend-type` names another backend.
    #[error("backend-type is {theirs:?}, ours is {ours:?}")]
    OtherBackend {
        /// As it stands there.
        theirs: Box<str>,
        /// From our configuration.
        ours: &'static str,
    },
    /// It has no pod CIDR of this family.
    #[error("no pod CIDR of this family")]
    NoPodCidr,
    /// It has a pod CIDR but has announced nothing of this family: a single-family node.
    #[error("no VTEP announced for this family")]
    NoVtep,
}

/// Why a node cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// `spec.podCIDR(s)` does not parse.
    #[error("pod CIDR {value:?}: {reason}")]
    PodCidr {
        /// What stands there.
        value: Box<str>,
        /// What is wrong with it.
        reason: NotASubnet,
    },
    /// More pod CIDRs than one of each family.
    #[error("{0} pod CIDRs, at most one of each family is allowed")]
    TooManyPodCidrs(usize),
    /// An annotation that must be there is not.
    #[error("annotation {0} is missing")]
    Missing(&'static str),
    /// `backend-data` is not the JSON object that flannel writes.
    #[error("annotation {key} is {value:?}: {reason}")]
    Annotation {
        /// The key without its prefix.
        key: &'static str,
        /// What stands there, shortened.
        value: Box<str>,
        /// What is wrong with it.
        reason: Box<str>,
    },
    /// It announces a VNI other than ours: its packets and ours would not meet.
    #[error("its VNI is {theirs}, ours is {ours}")]
    OtherVni {
        /// From its `backend-data`.
        theirs: u64,
        /// From our configuration.
        ours: u32,
    },
    /// With the host-gw backend: a route straight to it cannot be made.
    #[error(
        "public IP {ip} is not on the network of {underlay}: the host-gw backend reaches nobody through a router; \
         routes to it, if there are any, stay as they are (`ip route get {ip} oif {underlay}`)"
    )]
    NotOnLink {
        /// Its public IP.
        ip: IpAddr,
        /// The interface that packets leave by.
        underlay: IfName,
    },
}

impl Unusable {
    /// Every label, for metrics that start at zero.
    pub const LABELS: [&'static str; 5] =
        ["pod_cidr", "missing_annotation", "bad_annotation", "vni_mismatch", "not_on_link"];

    /// A metric label: one of a handful.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::PodCidr { .. } | Self::TooManyPodCidrs(_) => "pod_cidr",
            Self::Missing(_) => "missing_annotation",
            Self::Annotation { .. } => "bad_annotation",
            Self::OtherVni { .. } => "vni_mismatch",
            Self::NotOnLink { .. } => "not_on_link",
        }
    }
}

/// A condition of our Node, as much of it as matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// `True`, `False` or `Unknown`.
    pub status: Box<str>,
    /// One word.
    pub reason: Box<str>,
    /// A sentence.
    pub message: Box<str>,
}

/// Our own Node, as much as the agent needs to take part and to announce itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnNode {
    /// `metadata.name`.
    pub name: NodeName,
    /// `metadata.uid`.
    pub uid: Box<str>,
    /// Our pod CIDR of each family, or why there is none.
    pub subnet: ByFamily<Result<Subnet, Box<str>>>,
    /// The MAC that `backend-data` says we have: kept, so that peers need not change anything.
    pub annotated_mac: ByFamily<Option<Mac>>,
    /// `public-ip-overwrite`: advertised instead of the underlay's address. Does not change `local`.
    pub overwrite: ByFamily<Option<IpAddr>>,
    /// `node-public-ip`: takes the place of `--public-ip`.
    pub node_public_ip: ByFamily<Option<IpAddr>>,
    /// The annotations under our prefix, without it, as they stand.
    pub annotations: BTreeMap<Box<str>, Box<str>>,
    /// Its condition `NetworkUnavailable`, if it has one.
    pub network_unavailable: Option<Condition>,
}

/// Every node that the API server has, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// All nodes but our own.
    pub nodes: Arc<BTreeMap<NodeName, Arc<NodeRecord>>>,
    /// Our own, once it is known.
    pub own: Option<Arc<OwnNode>>,
    /// Grows with every change.
    pub generation: u64,
    /// Whether the list has been seen whole: nothing is removed before.
    pub complete: bool,
    /// How many whole, consistent LISTs stand behind it. A mass removal waits for one more.
    pub lists: u64,
}
