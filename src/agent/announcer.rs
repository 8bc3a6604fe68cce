//! Our own annotations: written once the device can receive, and again when somebody edits them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kube::Client;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::cluster::annotations::Keys;
use crate::cluster::announce::{Patch, Vtep, decide, send};
use crate::model::addr::ByFamily;
use crate::model::node::Snapshot;
use crate::reconcile::Report;

/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The first wait after a failure; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// What was written takes a moment to come back through the watch; until then our Node still looks
/// as if nothing had been. Also keeps two programs that disagree about an annotation from fighting
/// faster than this.
const ECHO: Duration = Duration::from_secs(2);

/// What the announcer did.
#[derive(Debug, Default)]
pub struct AnnounceCounters {
    /// Patches that the API server took.
    pub sent: AtomicU64,
    /// Patches that failed.
    pub failed: AtomicU64,
}

/// Keeps our annotations as they should be.
pub struct Announcer {
    /// To the API server.
    pub client: Client,
    /// The annotations' names.
    pub keys: Keys,
    /// Our Node, as the watch sees it.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// The device, as the reconciler sees it.
    pub reports: watch::Receiver<Option<Arc<Report>>>,
    /// For metrics.
    pub counters: Arc<AnnounceCounters>,
}

impl Announcer {
    /// Runs until either source is gone.
    pub async fn run(mut self) {
        let mut wait = FIRST_WAIT;
        loop {
            let pause = match self.decide() {
                None => Duration::ZERO,
                Some((node, patch)) => match send(&self.client, &node, &patch, PATIENCE).await {
                    Ok(()) => {
                        self.counters.sent.fetch_add(1, Ordering::Relaxed);
                        let written: Vec<String> = patch.iter().map(|(key, value)| format!("{key}={value}")).collect();
                        info!(node, "announced {}", written.join(" "));
                        wait = FIRST_WAIT;
                        ECHO
                    }
                    Err(problem) => {
                        self.counters.failed.fetch_add(1, Ordering::Relaxed);
                        warn!(
                            node,
                            "cannot write our annotations: {problem}; peers keep what they know of us, next try in {:.1} s",
                            wait.as_secs_f32()
                        );
                        let now = wait;
                        wait = (wait * 2).min(LONGEST_WAIT);
                        now
                    }
                },
            };
            if pause.is_zero() {
                tokio::select! {
                    changed = self.snapshots.changed() => if changed.is_err() { return },
                    changed = self.reports.changed() => if changed.is_err() { return },
                }
            } else {
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// What has to be written, if anything.
    fn decide(&mut self) -> Option<(String, Patch)> {
        let snapshot = self.snapshots.borrow_and_update().clone();
        let own = snapshot.own.as_ref()?;
        let report = self.reports.borrow_and_update().clone()?;
        let vteps = vteps(&report);
        let patch = decide(&self.keys, &vteps, own)?;
        Some((own.name.to_string(), patch))
    }
}

/// The families that can receive. Every enabled one must, so that a flanneld peer never sees half of
/// us: it drops a node that lacks a family.
fn vteps(report: &Report) -> ByFamily<Option<Vtep>> {
    let families = || report.families.iter().filter_map(|(_, family)| family.as_ref());
    if !families().all(|family| family.ready) {
        return ByFamily::default();
    }
    ByFamily::from_fn(|family| {
        let family = report.families.get(family).as_ref()?;
        let device = family.device.as_ref()?;
        Some(Vtep { vni: device.vni, mac: device.mac, public_ip: family.public_ip? })
    })
}
