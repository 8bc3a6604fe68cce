//! What other parts count, as plain numbers: this module knows none of them.

use std::time::Duration;

/// Traffic with the API server since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Api {
    /// Node lists that came in whole.
    pub lists: u64,
    /// Requests for a page of a list.
    pub pages: u64,
    /// Requests for a watch.
    pub watches: u64,
    /// Nodes added, changed and deleted, as the server reported them.
    pub events: u64,
    /// Bookmarks.
    pub bookmarks: u64,
    /// Problems by kind; every kind is there from the start.
    pub errors: Vec<(&'static str, u64)>,
    /// When anything was last heard, since the agent started.
    pub last_heard: Option<Duration>,
    /// Since when nothing has worked; `None` while all is well.
    pub failing_since: Option<Duration>,
}

/// The last problem with the API server that one kind of request had, over or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiProblem {
    /// What was asked: `watch`, `announcement`, `condition`.
    pub request: &'static str,
    /// Its kind, as in the metrics.
    pub class: &'static str,
    /// A sentence.
    pub text: String,
    /// When, since the agent started.
    pub at: Duration,
}

/// Our annotations and `subnet.env` since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Announcements {
    /// Patches that the API server accepted.
    pub sent: u64,
    /// Patches that failed.
    pub failed: u64,
    /// Patches of our Node's condition that the API server accepted.
    pub conditions_sent: u64,
    /// Patches of it that failed.
    pub conditions_failed: u64,
    /// Events about our Node that the API server took, repetitions too.
    pub events_sent: u64,
    /// Those that it did not.
    pub events_failed: u64,
    /// Times that `subnet.env` was written.
    pub subnet_env_written: u64,
    /// Times that it could not be written.
    pub subnet_env_failed: u64,
}

/// Packet rules that flannel left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlannelRules {
    /// How many of its tables and chains were removed.
    pub removed: u64,
    /// Why each that is there stays, in sentences.
    pub stays: Vec<String>,
}

/// The CNI network configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cni {
    /// The file.
    pub file: String,
    /// What it consists of: `standard` or `flannel`.
    pub form: &'static str,
    /// Whether it is there.
    pub state: CniState,
    /// The file that the container runtime takes instead, because it comes first.
    pub instead: Option<String>,
    /// Times that it was written.
    pub written: u64,
    /// Times that it could not be.
    pub failed: u64,
}

/// Whether the CNI network configuration is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CniState {
    /// The node cannot take pods yet.
    NotYet,
    /// As wanted.
    InPlace,
    /// Why not, in a sentence.
    Failed(String),
}

impl CniState {
    /// A word for `/state`.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::NotYet => "not_yet",
            Self::InPlace => "in_place",
            Self::Failed(_) => "failed",
        }
    }
}

/// A loop of the agent's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Which: `reconciler`, `watch` and so on.
    pub name: &'static str,
    /// How long ago it last went round.
    pub age: Duration,
    /// How long that may be before something is wrong with it.
    pub limit: Duration,
}
