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
use crate::model::addr::{ByFamily, Family};
use crate::model::leftover::{Leftover, Seen};
use crate::plan::leftovers::{Ground, Leftovers};
use crate::reconcile::{Report, Verdict};
use crate::status::FlannelRules as Shown;

/// How often it looks at the start, and while there is something to remove or was a moment ago.
const SOON: Duration = Duration::from_secs(1);
/// How many such looks there are at the start, and after the last removal.
const FIRST: u32 = 10;
/// How often it looks otherwise.
const PERIOD: Duration = Duration::from_secs(30);

/// How long what stays is not warned of while no pass that knew our Node has converged: what is to stand in its place
/// is on its way.
const GRACE: Duration = Duration::from_secs(30);

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
        let mut leftovers = Leftovers::default();
        // The first pass puts in weft's own.
        loop {
            self.heartbeat.beat(self.clock.now());
            match tokio::time::timeout(PERIOD, self.reports.wait_for(Option::is_some)).await {
                Ok(Ok(_)) => break,
                Ok(Err(_)) => return,
                Err(_) => {}
            }
        }
        let (mut soon, mut settled, mut told) = (FIRST, false, Vec::new());
        let mut began = None;
        loop {
            self.heartbeat.beat(self.clock.now());
            // Before the look: what it sees is then no older.
            let report = self.reports.borrow().clone();
            if let Some(report) = report.filter(|report| !settled && report.desired.is_some()) {
                let now = self.clock.now();
                settled = report.verdict == Verdict::Converged || now.saturating_sub(*began.get_or_insert(now)) > GRACE;
            }
            let (removed, stays) = self.look(&mut leftovers);
            soon = if removed { FIRST } else { soon.saturating_sub(1) };
            if settled {
                stays.iter().filter(|text| !told.contains(*text)).for_each(|text| warn!("{text}"));
                told = stays;
            }
            tokio::time::sleep(if soon > 0 { SOON } else { PERIOD }).await;
            if self.reports.has_changed().is_err() {
                return;
            }
        }
    }

    /// Looks, and removes what may go. Whether there was any, and why what is there stays.
    fn look(&self, leftovers: &mut Leftovers) -> (bool, Vec<String>) {
        let (mut seen, mut problems) = (Vec::new(), BTreeMap::new());
        for family in Family::BOTH {
            match flannel::find(family) {
                Ok(found) => seen.extend(found),
                Err(trouble) => drop(problems.insert(family, format!("cannot look for rules of flannel: {trouble}"))),
            }
        }
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
        let stays: Vec<String> = problems.into_values().chain(stays).collect();
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

    /// What stands in the place of flannel's rules. For a family that is off there is nothing to stand in for: its
    /// rules go with the other's.
    fn grounds(&self) -> ByFamily<Ground> {
        let report = self.reports.borrow().clone();
        let is_on = |family| report.as_ref().is_some_and(|report| report.families.get(family).is_some());
        let stands_in = |family| report.as_ref().is_some_and(|report| report.filter.get(family).stands_in());
        let ours = ByFamily::from_fn(|family| is_on(family) && stands_in(family));
        ByFamily::from_fn(|family| {
            let other = if family == Family::V4 { Family::V6 } else { Family::V4 };
            let stand_in = if is_on(family) { family } else { other };
            if *ours.get(stand_in) { Ground::Ours } else { Ground::Nothing }
        })
    }
}
