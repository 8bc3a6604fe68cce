//! Looks for packet rules that flannel left, and removes them once weft's own stand in their place.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::{info, warn};

use super::clock::Clock;
use super::heartbeat::Heartbeat;
use crate::kernel::{flannel, legacy};
use crate::model::addr::ByFamily;
use crate::model::leftover::{Leftover, Seen};
use crate::plan::leftovers::{Ground, Leftovers, grounds};
use crate::plan::looks::{Looks, PERIOD};
use crate::reconcile::{Report, Verdict};
use crate::status::FlannelRules as Shown;

/// It looks every `PERIOD`, and waits for the first pass before it begins: for that it beats too.
pub const LIMIT: Duration = Duration::from_secs(120);

/// The keeper.
pub struct FlannelRules {
    /// The families that are on, as the reconciler sees them.
    pub reports: watch::Receiver<Option<Arc<Report>>>,
    /// Since the agent started.
    pub clock: Clock,
    /// For `/state` and metrics.
    pub shown: Arc<Mutex<Shown>>,
    /// Shows that the loop goes round.
    pub heartbeat: Arc<Heartbeat>,
}

impl FlannelRules {
    /// Runs until the reconciler is gone.
    pub async fn run(mut self) {
        let (mut leftovers, mut looks) = (Leftovers::default(), Looks::default());
        // The first pass puts in weft's own.
        loop {
            self.heartbeat.beat(self.clock.now());
            match tokio::time::timeout(PERIOD, self.reports.wait_for(Option::is_some)).await {
                Ok(Ok(_)) => break,
                Ok(Err(_)) => return,
                Err(_) => {}
            }
        }
        loop {
            let now = self.clock.now();
            self.heartbeat.beat(now);
            // Before the look: what it sees is then no older.
            if let Some(report) = self.reports.borrow().as_ref().filter(|report| report.desired.is_some()) {
                looks.pass(report.verdict == Verdict::Converged, now);
            }
            let (something, stays) = self.look(&mut leftovers);
            looks.news(&stays).iter().for_each(|text| warn!("{text}"));
            tokio::time::sleep(looks.pause(something)).await;
            if self.reports.has_changed().is_err() {
                return;
            }
        }
    }

    /// Looks, and removes what may go. Whether there was any, and why what is there stays.
    fn look(&self, leftovers: &mut Leftovers) -> (bool, Vec<String>) {
        let (seen, unread) = flannel::find_all();
        let unread = unread.into_iter().map(|(_, trouble)| format!("cannot look for rules of flannel: {trouble}"));
        let grounds = if seen.is_empty() { ByFamily::default() } else { self.grounds() };
        let decision = leftovers.decide(&seen, grounds, self.clock.now());
        let mut removed = 0;
        for what in &decision.remove {
            match flannel::remove(*what, Path::new(legacy::LOCK)) {
                Ok(true) => {
                    removed += 1;
                    leftovers.removed(*what, self.clock.now());
                    info!("removed what flannel left: {what}");
                }
                Ok(false) => {}
                Err(trouble) => leftovers.failed(*what, trouble.to_string(), self.clock.now()),
            }
        }
        let stays = self.stays(leftovers, &decision.remove, decision.stays, &seen, grounds);
        let stays: Vec<String> = unread.chain(stays).collect();
        let mut shown = self.shown.lock();
        shown.removed += removed;
        shown.stays.clone_from(&stays);
        (!decision.remove.is_empty(), stays)
    }

    /// Why each of those that are still there is, those included that could not be removed just now.
    fn stays(
        &self,
        leftovers: &mut Leftovers,
        tried: &[Leftover],
        mut stays: BTreeMap<Leftover, String>,
        seen: &[Seen],
        grounds: ByFamily<Ground>,
    ) -> Vec<String> {
        let failed: Vec<Seen> = seen.iter().filter(|found| tried.contains(&found.what)).cloned().collect();
        let again = leftovers.decide(&failed, grounds, self.clock.now());
        stays.extend(again.stays);
        stays.into_values().collect()
    }

    /// What stands in the place of flannel's rules.
    fn grounds(&self) -> ByFamily<Ground> {
        let report = self.reports.borrow().clone();
        grounds(ByFamily::from_fn(|family| {
            let report = report.as_ref().filter(|report| report.families.get(family).is_some())?;
            Some(report.filter.get(family).stands_in())
        }))
    }
}
