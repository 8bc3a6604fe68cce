//! Gathers what the status server shows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::clock::Clock;
use super::events::EventCounters;
use super::heartbeat::Heartbeats;
use super::host_watch::Shown;
use super::subnet_file::SubnetFileCounters;
use super::upkeep::UpkeepCounters;
use crate::cluster::node::complaints;
use crate::cluster::problem::Class;
use crate::cluster::trouble::Last;
use crate::cluster::watch::Handle;
use crate::model::traffic::NetlinkCounters;
use crate::reconcile::Report;
use crate::status::{
    Announcements, Api, ApiProblem, Beat, Cni, CniState, FlannelRules, Identity, Process, Totals, View,
};

/// What the watch's loop gets beyond its longest wait.
const GRACE: Duration = Duration::from_secs(60);

/// Sums that the reconciler's thread writes and the server reads.
#[derive(Debug, Default)]
pub struct Sums {
    /// Over all passes.
    pub totals: Totals,
    /// Of the netlink sockets.
    pub netlink: NetlinkCounters,
}

/// Everything that a view is made from.
pub struct Sources {
    /// What does not change.
    pub identity: Arc<Identity>,
    /// Since the agent started.
    pub clock: Clock,
    /// The last pass.
    pub reports: watch::Receiver<Option<Arc<Report>>>,
    /// The list-watch loop.
    pub watcher: Handle,
    /// Sums over all passes.
    pub sums: Arc<Mutex<Sums>>,
    /// The longest that the list-watch loop waits.
    pub longest_watch: Duration,
    /// Every other loop.
    pub heartbeats: Heartbeats,
    /// The announcer's.
    pub announced: Arc<UpkeepCounters>,
    /// Whether our Node, as last seen, has our annotations.
    pub announcement_in_place: Arc<AtomicBool>,
    /// The condition's keeper's, if there is one.
    pub condition: Option<Arc<UpkeepCounters>>,
    /// The Events' teller's.
    pub events: Arc<EventCounters>,
    /// What the host lacks.
    pub host: Shown,
    /// Of what nothing can be told.
    pub host_unseen: Arc<Mutex<Vec<String>>>,
    /// The CNI configuration's keeper's, if there is one.
    pub cni: Option<Arc<Mutex<Cni>>>,
    /// What became of flannel's packet rules.
    pub flannel_rules: Arc<Mutex<FlannelRules>>,
    /// The file keeper's.
    pub subnet_file: Arc<SubnetFileCounters>,
}

impl Sources {
    /// The view at this moment.
    pub fn view(&self) -> View {
        let now = self.clock.now();
        let (totals, netlink) = {
            let sums = self.sums.lock();
            (sums.totals.clone(), sums.netlink)
        };
        let condition = |counter: fn(&UpkeepCounters) -> &AtomicU64| {
            self.condition.as_deref().map_or(0, |counters| counter(counters).load(Ordering::Relaxed))
        };
        let own = self.watcher.snapshots().borrow().own.clone();
        View {
            identity: self.identity.clone(),
            now,
            report: self.reports.borrow().clone(),
            complaints: own.as_deref().map(complaints).unwrap_or_default(),
            own,
            totals,
            api: self.api(),
            api_problems: self.api_problems(),
            netlink,
            announcements: Announcements {
                conditions_sent: condition(|of| &of.sent),
                conditions_failed: condition(|of| &of.failed),
                sent: self.announced.sent.load(Ordering::Relaxed),
                failed: self.announced.failed.load(Ordering::Relaxed),
                events_sent: self.events.sent.load(Ordering::Relaxed),
                events_failed: self.events.failed.load(Ordering::Relaxed),
                subnet_env_written: self.subnet_file.written.load(Ordering::Relaxed),
                subnet_env_failed: self.subnet_file.failed.load(Ordering::Relaxed),
            },
            flannel_rules: self.flannel_rules.lock().clone(),
            host_problems: {
                let problems = self.host.lock();
                problems.iter().map(|problem| (problem.label, problem.text.clone())).collect()
            },
            host_unseen: self.host_unseen.lock().clone(),
            host_labels: &crate::node::host::LABELS,
            cni: self.cni(),
            beats: self.beats(now),
            unready: self.unready(),
            process: Process::read(),
        }
    }

    /// The server's own loop needs none: that it answers is its beat.
    fn beats(&self, now: Duration) -> Vec<Beat> {
        let age = now.saturating_sub(self.watcher.counters().stepped());
        let watch = Beat { name: "watch", age, limit: self.longest_watch + GRACE };
        self.heartbeats.seen(now).into_iter().chain([watch]).collect()
    }

    /// What else keeps this node from being ready.
    fn unready(&self) -> Vec<String> {
        let path = self.identity.subnet_file.display();
        let missing = !self.subnet_file.in_place.load(Ordering::Relaxed);
        let subnet_file = missing.then(|| format!("{path} is not in place; without it no pod starts here"));
        let cni = self.cni().and_then(|cni| match cni.state {
            CniState::InPlace => None,
            CniState::NotYet => Some(format!("{} is not written yet; without it no pod starts here", cni.file)),
            CniState::Failed(problem) => Some(problem),
        });
        let unsaid = !self.announcement_in_place.load(Ordering::Relaxed);
        let announcement = unsaid.then(|| {
            let because = self.announced.last_problem.get().map(|last| format!(": {}", last.text));
            format!("our annotations are not on our Node yet; peers do not send to us{}", because.unwrap_or_default())
        });
        subnet_file.into_iter().chain(cni).chain(announcement).collect()
    }

    fn api_problems(&self) -> Vec<ApiProblem> {
        let last = [
            ("watch", self.watcher.counters().last_problem()),
            ("announcement", self.announced.last_problem.get()),
            ("condition", self.condition.as_deref().and_then(|counters| counters.last_problem.get())),
        ];
        let shown = |(request, last): (_, Option<Last>)| {
            let Last { class, text, at } = last?;
            Some(ApiProblem { request, class: class.label(), text, at })
        };
        last.into_iter().filter_map(shown).collect()
    }

    fn cni(&self) -> Option<Cni> {
        self.cni.as_ref().map(|cni| cni.lock().clone())
    }

    fn api(&self) -> Api {
        let counters = self.watcher.counters();
        Api {
            lists: counters.lists(),
            pages: counters.pages(),
            watches: counters.watches(),
            events: counters.events(),
            bookmarks: counters.bookmarks(),
            errors: Class::ALL.iter().map(|class| (class.label(), counters.problems(*class))).collect(),
            last_heard: counters.last_heard(),
            failing_since: counters.failing_since(),
        }
    }
}
