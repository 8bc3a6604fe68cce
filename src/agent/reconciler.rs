//! The reconciler: waits for something to happen, makes a pass, publishes its report.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::clock::Clock;
use super::heartbeat::Heartbeat;
use crate::kernel::{Heard, Listen};
use crate::model::backoff::Dice;
use crate::model::node::Snapshot;
use crate::model::settings::Settings;
use crate::plan::bridge::Leases;
use crate::plan::pace::Pace;
use crate::reconcile::{Input, Memory, Report, pass};

/// The longest wait, so that the heartbeat goes on.
const BEAT: Duration = Duration::from_secs(5);

/// Its longest wait is `BEAT`, a system call gives up after ten seconds, a pass over 5,000 peers takes less than one.
pub const LIMIT: Duration = Duration::from_secs(60);

/// What the reconciler works with.
pub struct Reconciler {
    /// The configuration.
    pub settings: Settings,
    /// The period of the slow timer.
    pub resync: Duration,
    /// What the API server says; latest wins.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Where reports go.
    pub reports: watch::Sender<Option<Arc<Report>>>,
    /// Who may be using the pods' bridge, read before each pass.
    pub leases: Box<dyn FnMut() -> Leases + Send>,
    /// Called with every report, on this thread.
    pub on_report: Box<dyn FnMut(&Report) + Send>,
    /// Since the agent started.
    pub clock: Clock,
    /// Shows that the loop goes round.
    pub heartbeat: Arc<Heartbeat>,
    /// Set, and the kernel's wait woken, to end it. Nothing is torn down.
    pub stop: Arc<AtomicBool>,
}

impl Reconciler {
    /// Goes round until told to stop.
    pub fn run(mut self, kernel: &mut dyn Listen) {
        let mut memory = Memory::default();
        let (mut pace, mut dice) = (Pace::new(self.resync), Dice::new());
        while !self.stop.load(Ordering::Relaxed) {
            let now = self.clock.now();
            self.heartbeat.beat(now);
            let wait = pace.wait(now);
            if wait.is_zero() {
                self.pass(kernel, &mut memory, &mut pace, dice.roll());
                continue;
            }
            match kernel.wait(wait.min(BEAT)) {
                Heard::Nothing => {}
                Heard::Woken | Heard::Changed => pace.hurry(self.clock.now()),
            }
        }
    }

    fn pass(&mut self, kernel: &mut dyn Listen, memory: &mut Memory, pace: &mut Pace, jitter: f64) {
        let began = self.clock.now();
        let snapshot = self.snapshots.borrow_and_update().clone();
        let leases = (self.leases)();
        let input = Input { settings: &self.settings, snapshot: &snapshot, leases: &leases };
        let mut report = pass(kernel, &input, memory, began);
        let ended = self.clock.now();
        report.took = ended.saturating_sub(began);
        pace.ended(ended, report.took, report.ended(), report.next_try, jitter);
        (self.on_report)(&report);
        self.reports.send_replace(Some(Arc::new(report)));
    }
}
