//! Tells on our Node, as Events, what a person has to act on. What and when is decided in [`crate::status::notices`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tracing::{debug, warn};

use super::clock::{Clock, timestamp};
use super::heartbeat::Heartbeat;
use super::host_watch::Shown;
use crate::cluster::client::Connection;
use crate::cluster::events::{NodeEvent, tell};
use crate::cluster::node::complaints;
use crate::model::backoff::Dice;
use crate::model::node::{OwnNode, Snapshot};
use crate::node::host::Problem;
use crate::reconcile::Report;
use crate::status::notices::herald::{Herald, Telling};
use crate::status::notices::stories::{Key, stories};
use crate::status::notices::{Lookout, Notice, Subject, Teller};

/// How often it looks.
const PERIOD: Duration = Duration::from_secs(1);
/// How long the API server may take. Nothing waits for it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longer than two requests that hang (`PATIENCE` for the answer, six times that for its end).
pub const LIMIT: Duration = Duration::from_secs(240);

/// What the loop did.
#[derive(Debug, Default)]
pub struct EventCounters {
    /// Events that the API server took, repetitions too.
    pub sent: AtomicU64,
    /// Those that it did not.
    pub failed: AtomicU64,
}

/// The loop.
pub struct Events {
    /// To the API server.
    pub connection: Connection,
    /// Our Node, as the watch sees it.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// What the reconciler says.
    pub reports: watch::Receiver<Option<Arc<Report>>>,
    /// What the host lacks.
    pub host: Shown,
    /// For metrics.
    pub counters: Arc<EventCounters>,
    /// Shows that the loop goes round.
    pub heartbeat: Arc<Heartbeat>,
    /// Since the agent started.
    pub clock: Clock,
}

impl Events {
    /// Runs until the reconciler is gone. That it fails disturbs nobody.
    pub async fn run(mut self) {
        let (mut herald, mut lookout) = (Herald::default(), Lookout::default());
        let mut known: Option<Known> = None;
        while let Ok(new) = self.reports.has_changed() {
            self.heartbeat.beat(self.clock.now());
            let own = self.snapshots.borrow().own.clone();
            let host = self.host.lock().clone();
            if let Some(own) = own {
                let stands = !new && known.as_ref().is_some_and(|known| known.own == own && known.host == host);
                // By itself, as the reconciler waits for whoever still looks at a report.
                let report = if stands { None } else { self.reports.borrow_and_update().clone() };
                if let Some(report) = report {
                    known = Some(Known::of(own.clone(), host, &report, &mut lookout));
                }
                if let Some(known) = &known {
                    herald.observe(&known.stories, self.clock.now());
                }
                while let Some(telling) = herald.next() {
                    self.heartbeat.beat(self.clock.now());
                    self.tell(&own.name, &telling, &mut herald).await;
                }
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    async fn tell(&self, node: &str, telling: &Telling, herald: &mut Herald) {
        let Telling { reason, text, identity, .. } = telling;
        let now = timestamp();
        let event = NodeEvent { node, reason, kind: telling.kind(), message: text, identity, now: &now };
        match tell(&self.connection, &event, telling.count, PATIENCE).await {
            Ok(count) => {
                self.counters.sent.fetch_add(1, Ordering::Relaxed);
                debug!(reason, count, "told as an Event: {text}");
                herald.told(telling, count);
            }
            Err(problem) => {
                self.counters.failed.fetch_add(1, Ordering::Relaxed);
                // The agents of a cluster are asked the same.
                let asked = problem.retry_after().map(|asked| asked.mul_f64(1.0 + Dice::new().roll() / 2.0));
                let wait = herald.failed(self.clock.now(), asked);
                let (times, seconds) = (herald.failures(), wait.as_secs());
                if times.is_power_of_two() {
                    warn!(
                        reason,
                        times,
                        "cannot make an Event about our Node: {problem}; nothing else depends on it, next try in \
                         {seconds} s"
                    );
                }
            }
        }
    }
}

/// How things stand, until something of it changes: among 5,000 nodes it is too much work for each second.
struct Known {
    own: Arc<OwnNode>,
    host: Vec<Problem>,
    stories: BTreeMap<Key, String>,
}

impl Known {
    fn of(own: Arc<OwnNode>, host: Vec<Problem>, report: &Report, lookout: &mut Lookout) -> Self {
        let mut notices = lookout.after(report, complaints(&own));
        for problem in &host {
            let (subject, text) = (Subject::Host(problem.label), problem.text.clone());
            notices.push(Notice { subject, teller: Teller::Us, text });
        }
        let shared = notices.iter().any(|notice| notice.teller == Teller::Few);
        let agents = if shared { agents(report) } else { Vec::new() };
        let stories = stories(&notices, &own.name, &agents);
        Self { own, host, stories }
    }
}

/// The agents that there are, as far as we know: who can be a peer has one.
fn agents(report: &Report) -> Vec<&str> {
    let families = report.desired.iter().flat_map(|desired| desired.families.iter());
    let wanted = families.filter_map(|(_, wanted)| wanted.as_ref());
    let mut agents: Vec<&str> = wanted.flat_map(|wanted| wanted.peers.values()).map(|(name, _)| &**name).collect();
    agents.sort_unstable();
    agents.dedup();
    agents
}
