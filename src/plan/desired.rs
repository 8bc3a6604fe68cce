//! What the kernel should hold, worked out from the whole snapshot at once.

use std::collections::BTreeMap;

use crate::model::addr::{ByFamily, Subnet};
use crate::model::node::{NodeName, Peer};
use crate::model::table::Tables;

/// Everything wanted of the tables, and every node that gets none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Each enabled family.
    pub families: ByFamily<Option<Wanted>>,
}

/// One family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The rows.
    pub tables: Tables,
    /// Who they are for, by pod CIDR.
    pub peers: BTreeMap<Subnet, (NodeName, Peer)>,
    /// Pod CIDRs of nodes that cannot be used now: rows that are there stay as they are.
    pub held: BTreeMap<Subnet, NodeName>,
    /// Nodes that get nothing in this family: absent, unusable or rejected, and why.
    pub without: BTreeMap<NodeName, Without>,
}

/// Why a node gets nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Without {
    /// It takes no part.
    Absent(String),
    /// It cannot be used; the label is for metrics.
    Unusable(&'static str, String),
    /// It claims what it may not have; the label is for metrics.
    Rejected(&'static str, String),
}
