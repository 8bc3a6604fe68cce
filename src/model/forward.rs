//! Chains of others that drop what is forwarded unless a rule accepts it, as far as it matters to the pods' packets:
//! which rules accept, and under which conditions that can be told.

use std::collections::BTreeMap;

use super::addr::Family;
use super::nft::TableName;

/// A chain at the hook of forwarded packets whose policy is DROP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropChain {
    /// Which.
    pub place: Place,
    /// Its rules.
    pub rules: Vec<Passage>,
    /// The chains of its table, to which rules can jump.
    pub chains: BTreeMap<String, Vec<Passage>>,
}

/// Where a chain is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In nftables: table and chain.
    Nft(TableName, String),
    /// FORWARD of the old packet filter.
    Legacy(Family),
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    /// All of them must hold.
    pub conditions: Vec<Condition>,
    /// What it does then.
    pub end: End,
}

/// What a rule asks of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It came in by this interface.
    In(String),
    /// It goes out by this interface.
    Out(String),
    /// Its connection is known already.
    NotNew,
    /// kube-proxy has marked it to be masqueraded (0x4000), which it does with no packet from pod to pod.
    MarkedByKubeProxy,
    /// Anything else.
    Other,
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It accepts the packet.
    Accepts,
    /// It goes to another chain.
    Goes(String),
    /// It does not accept the packet: drops it, goes back, or only counts or logs.
    Refrains,
    /// It cannot be told.
    Unknown,
}
