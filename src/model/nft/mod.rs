//! nf_tables as values: what a table holds, and the changes that one transaction can make.
//!
//! What weft wants and what the kernel shows have the same types, so that they can be compared expression
//! by expression: a rule that somebody edited is another rule, whatever its comment still says. Each change
//! prints as the `nft` command that would do the same.

mod expression;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

pub use expression::{Comparison, Expression, Header, Verdict};

use super::addr::Family;

/// The name of weft's tables, one in `ip` and one in `ip6`. The name makes a table weft's.
pub const OUR_TABLE: &str = "weft";
/// The chains that weft makes in it.
pub const OUR_CHAINS: [&str; 3] = ["postrouting", "unknown_vtep", "input"];
/// The sets that weft makes in it: the known VTEPs, and the strangers that were heard lately.
pub const OUR_SETS: [&str; 2] = ["vteps", "strangers"];

/// The family of a table (`nfgen_family`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TableFamily {
    /// Packets of both IP families.
    Inet,
    /// IPv4 packets.
    Ip,
    /// IPv6 packets.
    Ip6,
}

impl TableFamily {
    /// The kernel's number (NFPROTO_…).
    pub const fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ip => 2,
            Self::Ip6 => 10,
        }
    }

    /// nft's word.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
        }
    }
}

impl From<Family> for TableFamily {
    fn from(family: Family) -> Self {
        match family {
            Family::V4 => Self::Ip,
            Family::V6 => Self::Ip6,
        }
    }
}

/// Which table.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    /// Its family.
    pub family: TableFamily,
    /// Its name within the family.
    pub name: String,
}

impl TableName {
    /// A table by family and name.
    pub fn new(family: impl Into<TableFamily>, name: impl Into<String>) -> Self {
        Self { family: family.into(), name: name.into() }
    }
}

/// Where packets enter a chain by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// `filter`, `nat` or `route`.
    pub kind: String,
    /// The hook's number (`NF_INET_…`).
    pub hook: u32,
    /// Chains of one hook run in this order, the smallest first.
    pub priority: i32,
    /// Whether the packet is dropped when no rule of the chain decides.
    pub drop: bool,
}

/// NF_INET_LOCAL_IN.
pub const HOOK_INPUT: u32 = 1;
/// NF_INET_FORWARD.
pub const HOOK_FORWARD: u32 = 2;
/// NF_INET_POST_ROUTING.
pub const HOOK_POSTROUTING: u32 = 4;

/// A chain without its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name within the table.
    pub name: String,
    /// `None` for a chain that is only jumped to.
    pub base: Option<Base>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it does, in order.
    pub expressions: Vec<Expression>,
    /// The comment that `nft list` shows; at most 127 bytes.
    pub comment: Option<String>,
}

/// A rule that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedRule {
    /// The kernel's number for it, unique while its table exists.
    pub handle: u64,
    /// The rule.
    pub rule: Rule,
    /// Packets and bytes of its counter, if it has one.
    pub counted: Option<(u64, u64)>,
}

/// A set of addresses, without its elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Its name within the table.
    pub name: String,
    /// What its elements are.
    pub family: Family,
    /// For a set that rules add to: how many elements at most, and after how many milliseconds one goes.
    pub grows: Option<(u32, u64)>,
}

/// A table with everything in it: as wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Its sets with their elements.
    pub sets: Vec<(Set, BTreeSet<IpAddr>)>,
    /// Its chains with their rules; one that is jumped to comes before the one that jumps.
    pub chains: Vec<(Chain, Vec<Rule>)>,
}

impl Table {
    /// Rules in all chains.
    pub fn rules(&self) -> usize {
        self.chains.iter().map(|(_, rules)| rules.len()).sum()
    }
}

/// A table with everything in it: as seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenTable {
    /// Whether it is dormant: none of its chains is in force.
    pub dormant: bool,
    /// How many chains, sets and other objects it has.
    pub objects: u32,
    /// The chains that were looked for and found, with their rules.
    pub chains: BTreeMap<String, (Chain, Vec<ListedRule>)>,
    /// The sets that were looked for and found; `None` for a set of another make, or with an
    /// element of one.
    pub sets: BTreeMap<String, (Option<Set>, BTreeSet<IpAddr>)>,
}

/// One change. Several make a transaction: all of them happen at once or none does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NftChange {
    /// Make the table if it is not there.
    AddTable(TableName),
    /// Remove it with everything in it.
    DeleteTable(TableName),
    /// Make a chain.
    AddChain(TableName, Chain),
    /// Remove every rule of a chain.
    FlushChain(TableName, String),
    /// Remove a chain that has no rules and that none jumps to.
    DeleteChain(TableName, String),
    /// Append a rule to a chain.
    AddRule(TableName, String, Rule),
    /// Remove a rule of a chain by its handle.
    DeleteRule(TableName, String, u64),
    /// Make a set.
    AddSet(TableName, Set),
    /// Put elements into a set; those that are in it already stay.
    AddElements(TableName, String, Vec<IpAddr>),
    /// Take elements out of a set. One that is not in it makes the transaction fail.
    DeleteElements(TableName, String, Vec<IpAddr>),
}

impl NftChange {
    /// The table that it is about.
    pub const fn table(&self) -> &TableName {
        match self {
            Self::AddTable(table)
            | Self::DeleteTable(table)
            | Self::AddChain(table, _)
            | Self::FlushChain(table, _)
            | Self::DeleteChain(table, _)
            | Self::AddRule(table, ..)
            | Self::DeleteRule(table, ..)
            | Self::AddSet(table, _)
            | Self::AddElements(table, ..)
            | Self::DeleteElements(table, ..) => table,
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family.label(), self.name)
    }
}
