//! Keeps `subnet.env` as it should be: the flannel CNI plugin reads it at every pod's start.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tracing::{info, warn};

use super::clock::Clock;
use super::heartbeat::Heartbeat;
use crate::model::addr::ByFamily;
use crate::model::settings::Overlay;
use crate::node::file::ensure;
use crate::node::subnet_env::SubnetEnv;
use crate::reconcile::Report;

/// How often the file is looked at: somebody may delete it.
const PERIOD: Duration = Duration::from_secs(1);

/// It looks every `PERIOD`; a file system may be slow.
pub const LIMIT: Duration = Duration::from_secs(60);

/// As flannel's.
const MODE: u32 = 0o644;

/// What was written.
#[derive(Debug, Default)]
pub struct SubnetFileCounters {
    /// Times that the file was written.
    pub written: AtomicU64,
    /// Times that it could not be.
    pub failed: AtomicU64,
    /// Whether it was right when last looked at: without it no pod starts, so the node is not ready.
    pub in_place: AtomicBool,
}

/// The keeper.
pub struct SubnetFile {
    /// Where.
    pub path: PathBuf,
    /// The families that must be in it.
    pub overlay: Overlay,
    /// The devices, as the reconciler sees them.
    pub reports: watch::Receiver<Option<Arc<Report>>>,
    /// For metrics.
    pub counters: Arc<SubnetFileCounters>,
    /// Shows that the loop goes round.
    pub heartbeat: Arc<Heartbeat>,
    /// Since the agent started.
    pub clock: Clock,
}

impl SubnetFile {
    /// Runs until the reconciler is gone.
    pub async fn run(mut self) {
        let mut failing = false;
        loop {
            self.heartbeat.beat(self.clock.now());
            let report = self.reports.borrow_and_update().clone();
            let content = report.and_then(|report| env_of(&self.overlay, &report)).map(|env| env.to_string());
            if let Some(content) = content {
                let ensured = ensure(&self.path, &content, MODE);
                self.counters.in_place.store(ensured.is_ok(), Ordering::Relaxed);
                match ensured {
                    Ok(false) => failing = false,
                    Ok(true) => {
                        failing = false;
                        self.counters.written.fetch_add(1, Ordering::Relaxed);
                        info!("wrote {}: {}", self.path.display(), content.trim_end().replace('\n', " "));
                    }
                    Err(error) => {
                        self.counters.failed.fetch_add(1, Ordering::Relaxed);
                        if !failing {
                            warn!(
                                "cannot write {}: {error}; pods cannot start without it, weft tries again every second",
                                self.path.display()
                            );
                        }
                        failing = true;
                    }
                }
            }
            if let Ok(Err(_)) = tokio::time::timeout(PERIOD, self.reports.changed()).await {
                return;
            }
        }
    }
}

/// What a pass says of the node's networks; `None` while a device is not ready.
pub(super) fn env_of(overlay: &Overlay, report: &Report) -> Option<SubnetEnv> {
    let of = |family| report.families.get(family).as_ref().filter(|family| family.ready);
    let subnets = ByFamily::from_fn(|family| of(family)?.subnet);
    let mtus = ByFamily::from_fn(|family| of(family)?.mtu);
    // flannel writes what it was started with. We wait until it is true, and then it stays.
    let ip_masq = overlay.families().all(|family| report.filter.get(family).has_masqueraded);
    SubnetEnv::of_node(overlay, subnets, mtus, ip_masq)
}
