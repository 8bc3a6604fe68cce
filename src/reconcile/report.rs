//! What a pass found and did: the one value that logs, metrics, health and `/state` are made from.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::model::addr::{ByFamily, Family, IfName, Subnet};
use crate::model::device::DeviceSpec;
use crate::model::node::NodeName;
use crate::model::op::{Ack, Op};
use crate::model::table::Kind;
pub use crate::plan::cause::Cause;
use crate::plan::desired::Desired;
use crate::plan::pace::Ended;
use crate::plan::shadow::Shadow;

/// One pass.
#[derive(Clone, Debug)]
pub struct Report {
    /// Counts passes from 1.
    pub pass: u64,
    /// When it began, since the agent started.
    pub at: Duration,
    /// How long it took.
    pub took: Duration,
    /// How it ended.
    pub verdict: Verdict,
    /// Each enabled family.
    pub families: ByFamily<Option<FamilyReport>>,
    /// The packet filter in each family.
    pub filter: ByFamily<FilterReport>,
    /// Devices of families that are off, in sentences.
    pub left_over: Vec<String>,
    /// What is wanted, shared with the pass that worked it out. `None` until our own node is known.
    pub desired: Option<Arc<Desired>>,
    /// Our own Node was in the list once and is not any more: what that means, for the operator.
    pub unlisted: Option<&'static str>,
    /// Nodes in the snapshot that the pass worked from, our own included if known.
    pub nodes: usize,
    /// Every change that was tried, in order.
    pub changes: Vec<Change>,
    /// A removal of most peers waits for one more whole LIST of the Nodes: ask for it.
    pub wants_list: bool,
    /// When something put off is due, since the agent started.
    pub next_try: Option<Duration>,
    /// It stopped before a look found nothing that could be done, or it could not read the packet filter: nothing
    /// else says when to look again.
    pub half_way: bool,
}

impl Report {
    /// How it ended, as far as the next pass is concerned.
    pub fn ended(&self) -> Ended {
        let families = || self.families.iter().filter_map(|(_, family)| family.as_ref());
        match self.verdict {
            Verdict::Blind(_) => Ended::Blind,
            Verdict::Waiting(_) => Ended::Waiting,
            Verdict::Converged => Ended::Done,
            Verdict::Incomplete if self.half_way => Ended::Unfinished,
            // One family waits for something, whatever the other does.
            Verdict::Incomplete if families().any(|family| family.waiting.is_some()) => Ended::Waiting,
            // What is put off says when it is due, what is withheld waits for the API server.
            Verdict::Incomplete if self.next_try.is_some() => Ended::Done,
            Verdict::Incomplete if families().any(|family| family.withheld.is_some()) => Ended::Done,
            Verdict::Incomplete => Ended::Unfinished,
        }
    }
}

/// How a pass ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The last look at the kernel found nothing to change (and nothing blocked).
    Converged,
    /// Something is left to do, with a reason in a family's `pending` or `waiting` or in the packet filter's
    /// `problem`; the next pass will try again.
    Incomplete,
    /// Nothing was done because something is missing first: a sentence for the operator.
    Waiting(String),
    /// The kernel could not be read; nothing was changed on partial knowledge.
    Blind(String),
}

/// The packet filter of one family in one pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterReport {
    /// Rules wanted.
    pub rules: usize,
    /// Known VTEPs wanted in their set; 0 where there is no filter for them.
    pub vteps: usize,
    /// Whether the last look found all of it as wanted.
    pub in_place: bool,
    /// Whether masquerading is wanted.
    pub masquerades: bool,
    /// Whether a look since the start has found our own rules masquerade. It does not end while a table is being
    /// repaired: what a pod is told at its start holds for its life.
    pub has_masqueraded: bool,
    /// Masquerading is wanted, and the last look found that our rules do not do it; or no look since the start has
    /// found that they do.
    pub lacks_masquerading: bool,
    /// Addresses that sent VXLAN of ours lately without being a known VTEP.
    pub strangers: Vec<IpAddr>,
    /// Packets and bytes that came from such since the agent started.
    pub from_strangers: (u64, u64),
    /// Why it is not as wanted, for the operator.
    pub problem: Option<String>,
}

impl FilterReport {
    /// Whether our own rules masquerade, as the last look saw them.
    pub const fn stands_in(&self) -> bool {
        self.masquerades && self.in_place
    }
}

/// One family in one pass.
#[derive(Clone, Debug, Default)]
pub struct FamilyReport {
    /// The device as wanted; `None` while something it needs is missing, and with the host-gw backend.
    pub device: Option<DeviceSpec>,
    /// The interface that packets to other nodes leave by.
    pub underlay: Option<IfName>,
    /// Bytes of a pod's IP packet.
    pub mtu: Option<u32>,
    /// Whether the device that is there has an outer UDP checksum.
    pub udp_checksum: Option<bool>,
    /// Addresses of an earlier pod CIDR on the pods' bridge, in sentences.
    pub stale_bridge: Vec<String>,
    /// Our own pod CIDR.
    pub subnet: Option<Subnet>,
    /// Whether the device stands as wanted, with its address, up: able to receive.
    pub ready: bool,
    /// Why there is no device yet, for the operator.
    pub waiting: Option<String>,
    /// What takes the device's packets away, for the operator.
    pub enslaved: Option<String>,
    /// Why the device is not over the interface that routes lead to, for the operator.
    pub moving: Option<String>,
    /// The address to announce: `public-ip`.
    pub public_ip: Option<IpAddr>,
    /// Rows wanted, by table.
    pub wanted: ByKind,
    /// Rows of those that were there at the last look.
    pub present: ByKind,
    /// Rows that are not right and why, by the subnet of the peer they belong to or the row itself.
    pub pending: Vec<Pending>,
    /// Routes of others that win over a peer's: not touched, only shown.
    pub shadows: Vec<Shadow>,
    /// Removals that are being held back, and why.
    pub withheld: Option<String>,
}

/// A count for each table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByKind {
    /// FDB entries.
    pub fdb: usize,
    /// Neighbours.
    pub neighbour: usize,
    /// Routes.
    pub route: usize,
}

impl ByKind {
    /// The count of one table.
    pub const fn get(&self, kind: Kind) -> usize {
        match kind {
            Kind::Fdb => self.fdb,
            Kind::Neighbour => self.neighbour,
            Kind::Route => self.route,
        }
    }

    /// The count of one table, to change.
    pub const fn get_mut(&mut self, kind: Kind) -> &mut usize {
        match kind {
            Kind::Fdb => &mut self.fdb,
            Kind::Neighbour => &mut self.neighbour,
            Kind::Route => &mut self.route,
        }
    }
}

/// A row or device setting that could not be put right in this pass.
#[derive(Clone, Debug)]
pub struct Pending {
    /// The change that is wanted.
    pub op: Op,
    /// The peer it is for, if it is for one.
    pub peer: Option<NodeName>,
    /// What is in the way, what happens next and what an operator can do. The same text as long as it is the same
    /// problem.
    pub problem: String,
    /// How often it was tried in a row, or repaired.
    pub times: u32,
    /// A metric label: `refused`, `fight` or `waiting`.
    pub label: &'static str,
}

/// One change that was tried.
#[derive(Clone, Debug)]
pub struct Change {
    /// The family of the device.
    pub family: Family,
    /// What.
    pub op: Op,
    /// Why.
    pub cause: Cause,
    /// For which peer, if for one.
    pub peer: Option<NodeName>,
    /// What the kernel said.
    pub ack: Ack,
}

/// What a peer is to us in one family, for `/state`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// All three rows are in the kernel.
    Installed,
    /// Wanted, but not all rows are in: why.
    Pending(String),
    /// It cannot be used, and its entries, if any, are kept: why.
    Unusable(String),
    /// It is refused: it lost a conflict, or claims what it may not.
    Rejected(String),
    /// It takes no part in this family: why.
    Absent(String),
}

/// The state of every peer of a family, worked out only when somebody asks.
pub type PeerStates = BTreeMap<NodeName, PeerState>;
