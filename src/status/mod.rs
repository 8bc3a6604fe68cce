//! What an operator sees: one line for each change, metrics, health, `/state`.
//!
//! Everything is rendered from one value, [`View`], by pure functions; [`http`] only carries the
//! texts. Times are since the agent started: who makes the view has the clock.

pub mod changes;
pub mod counters;
pub mod health;
pub mod http;
pub mod metrics;
pub mod notices;
mod openmetrics;
pub mod process;
pub mod state;
pub mod totals;
mod words;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::model::node::OwnNode;
use crate::model::settings::Settings;
use crate::model::traffic::NetlinkCounters;
use crate::reconcile::report::Report;

pub use counters::{Announcements, Api, ApiProblem, Beat, Cni, CniState, FlannelRules};
pub use process::Process;
pub use totals::Totals;

/// What does not change while the agent runs.
#[derive(Clone, Debug)]
pub struct Identity {
    /// weft's version.
    pub version: &'static str,
    /// Our Node's name.
    pub node_name: String,
    /// What stands before every annotation's name.
    pub annotation_prefix: String,
    /// The configuration of a pass.
    pub settings: Settings,
    /// Where `subnet.env` goes.
    pub subnet_file: PathBuf,
    /// The period of the slow timer.
    pub resync: Duration,
    /// What was ignored in the configuration.
    pub notices: Vec<String>,
}

/// Everything that can be seen of the agent at one moment.
#[derive(Clone, Debug)]
pub struct View {
    /// Who this is.
    pub identity: Arc<Identity>,
    /// The moment, since the agent started.
    pub now: Duration,
    /// The last pass.
    pub report: Option<Arc<Report>>,
    /// Our own Node, as last seen.
    pub own: Option<Arc<OwnNode>>,
    /// What a person asked for with an annotation on it that cannot be done, in sentences.
    pub complaints: Vec<String>,
    /// Sums over all passes.
    pub totals: Totals,
    /// Traffic with the API server.
    pub api: Api,
    /// The last problem with it of each kind of request that had one.
    pub api_problems: Vec<ApiProblem>,
    /// Traffic with the kernel.
    pub netlink: NetlinkCounters,
    /// Our annotations.
    pub announcements: Announcements,
    /// Packet rules that flannel left.
    pub flannel_rules: FlannelRules,
    /// What the host lacks: a metric label and a sentence for the operator each.
    pub host_problems: Vec<(&'static str, String)>,
    /// What of the host cannot be seen here, in sentences.
    pub host_unseen: Vec<String>,
    /// The labels that there are.
    pub host_labels: &'static [&'static str],
    /// The CNI network configuration; `None` if weft keeps none.
    pub cni: Option<Cni>,
    /// When each loop last went round.
    pub beats: Vec<Beat>,
    /// What else keeps this node from being ready, in sentences: `subnet.env` not written, our
    /// annotations not accepted.
    pub unready: Vec<String>,
    /// The process.
    pub process: Process,
}
