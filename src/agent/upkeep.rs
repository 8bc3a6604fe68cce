//! Keeps something that our Node should say as it should be: writes it, again when somebody edits it,
//! and ever more rarely when the API server fails or somebody disagrees.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kube::Client;
use tokio::sync::watch;
use tracing::{info, warn};

use super::clock::{Clock, jitter};
use super::reconciler::Heartbeat;
use crate::cluster::announce::send;
use crate::model::node::{OwnNode, Snapshot};
use crate::plan::pace::doubled;
use crate::reconcile::Report;

/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The first wait after a failure; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// The longest wait that a server can ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(120);
/// What was written takes a moment to come back through the watch; until then our Node still looks
/// as if nothing had been. The longest wait for that.
const ECHO: Duration = Duration::from_secs(2);
/// The same patch is sent so often as soon as it is due. Beyond that somebody disagrees, most likely
/// another agent under our name, and every agent of the cluster hears of each round: the wait doubles.
const PEACEFUL: u32 = 5;
/// What was sent longer ago is forgotten.
const SETTLED: Duration = Duration::from_secs(120);
/// How often is looked although nothing has come: for what has no signal, and to show that the loop lives.
const BEAT: Duration = Duration::from_secs(1);

/// What such a loop did.
#[derive(Debug, Default)]
pub struct UpkeepCounters {
    /// Patches that the API server took.
    pub sent: AtomicU64,
    /// Patches that failed.
    pub failed: AtomicU64,
    /// When the loop last went round.
    pub heartbeat: Heartbeat,
}

/// A patch of our Node's status.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The patch.
    pub body: Vec<u8>,
    /// What it writes, for the log; the same text is the same wish.
    pub text: String,
}

/// Something that our Node should say.
pub trait Wish {
    /// What has to be written so that it does; `None` if it does, or if it is too early.
    fn wanted(&self, report: &Report, own: &OwnNode) -> Option<Wanted>;

    /// What was done, before [`Wanted::text`].
    const DONE: &str;
    /// Who the other may be if somebody keeps writing something else.
    const RIVAL: &str;
    /// What cannot be written and what that means: the sentence around the problem.
    const FAILED: (&str, &str);
}

/// The loop.
pub struct Upkeep<W> {
    /// To the API server.
    pub client: Client,
    /// Our Node, as the watch sees it.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// The device, as the reconciler sees it.
    pub reports: watch::Receiver<Option<Arc<Report>>>,
    /// For metrics.
    pub counters: Arc<UpkeepCounters>,
    /// Since the agent started.
    pub clock: Clock,
    /// What our Node should say.
    pub wish: W,
}

impl<W: Wish> Upkeep<W> {
    /// Runs until either source is gone.
    pub async fn run(mut self) {
        let mut waits = Waits::default();
        loop {
            self.counters.heartbeat.beat(self.clock.now());
            let Some((node, wanted)) = self.wanted() else {
                tokio::select! {
                    changed = self.snapshots.changed() => if changed.is_err() { return },
                    changed = self.reports.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(BEAT) => {}
                }
                continue;
            };
            match self.write(&node, wanted, &mut waits).await {
                // No echo in time is as good as one: the next decision is made from what is there.
                Next::Echo => match tokio::time::timeout(ECHO, self.echo()).await {
                    Ok(true) | Err(_) => {}
                    Ok(false) => return,
                },
                Next::Pause(pause) => tokio::time::sleep(pause).await,
            }
        }
    }

    /// Waits until our Node, as the watch sees it, says what was written. False if the watch is gone.
    async fn echo(&mut self) -> bool {
        let report = self.reports.borrow().clone();
        let says = |snapshot: &Arc<Snapshot>| match (&snapshot.own, &report) {
            (Some(own), Some(report)) => self.wish.wanted(report, own).is_none(),
            _ => false,
        };
        self.snapshots.wait_for(says).await.is_ok()
    }

    /// Sends a patch. Returns what to wait for before the next.
    async fn write(&self, node: &str, wanted: Wanted, waits: &mut Waits) -> Next {
        let Wanted { body, text } = wanted;
        match send(&self.client, node, body, PATIENCE).await {
            Ok(()) => {
                self.counters.sent.fetch_add(1, Ordering::Relaxed);
                let wait = waits.sent(&text, Instant::now());
                if wait > ECHO {
                    let (done, rival, seconds) = (W::DONE, W::RIVAL, wait.as_secs());
                    warn!(
                        node,
                        "{done} {text}; somebody keeps writing something else there ({rival}), next in {seconds} s at \
                         the soonest"
                    );
                    Next::Pause(wait)
                } else {
                    info!(node, "{} {text}", W::DONE);
                    Next::Echo
                }
            }
            Err(problem) => {
                self.counters.failed.fetch_add(1, Ordering::Relaxed);
                let wait = waits.failed(problem.retry_after());
                let ((cannot, meanwhile), seconds) = (W::FAILED, wait.as_secs_f32());
                warn!(node, "{cannot}: {problem}; {meanwhile}, next try in {seconds:.1} s");
                Next::Pause(wait)
            }
        }
    }

    /// What has to be written, if anything.
    fn wanted(&mut self) -> Option<(String, Wanted)> {
        let snapshot = self.snapshots.borrow_and_update().clone();
        let own = snapshot.own.as_ref()?;
        let report = self.reports.borrow_and_update().clone()?;
        let wanted = self.wish.wanted(&report, own)?;
        Some((own.name.to_string(), wanted))
    }
}

/// What comes before the next patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// What was written comes back through the watch.
    Echo,
    /// This long: the patch failed, or somebody else keeps writing.
    Pause(Duration),
}

/// How long to wait between patches.
#[derive(Debug, Default)]
struct Waits {
    failures: u32,
    sent: Vec<(Instant, String)>,
}

impl Waits {
    /// A patch was taken that wrote this.
    fn sent(&mut self, written: &str, now: Instant) -> Duration {
        self.failures = 0;
        // One that differs in its spelling alone says the same.
        let written = written.replace(' ', "");
        self.sent.retain(|(at, _)| now.duration_since(*at) < SETTLED);
        let before = self.sent.iter().filter(|(_, sent)| *sent == written).count();
        self.sent.push((now, written));
        doubled(ECHO, u32::try_from(before + 1).unwrap_or(u32::MAX).saturating_sub(PEACEFUL), LONGEST_WAIT)
    }

    /// A patch was not taken; `asked` is how long the server wants to be left alone.
    fn failed(&mut self, asked: Option<Duration>) -> Duration {
        let wait = doubled(FIRST_WAIT, self.failures, LONGEST_WAIT);
        self.failures = self.failures.saturating_add(1);
        // The agents of a cluster do not come back in step.
        wait.mul_f64(1.0 - jitter() / 2.0).max(asked.unwrap_or_default().min(LONGEST_ASKED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_api_server_is_asked_less_and_less_often_and_its_own_wish_is_met() {
        let mut waits = Waits::default();
        let all: Vec<Duration> = (0..9).map(|_| waits.failed(None)).collect();
        assert!(all[0] <= FIRST_WAIT && all[8] >= LONGEST_WAIT / 2 && all[8] <= LONGEST_WAIT, "{all:?}");
        assert_eq!(waits.failed(Some(Duration::from_secs(77))), Duration::from_secs(77));
        waits.sent("a=b", Instant::now());
        assert!(waits.failed(None) <= FIRST_WAIT);
    }

    #[test]
    fn a_fight_over_our_annotations_slows_down_and_is_forgotten_when_they_have_stood() {
        let (mut waits, start) = (Waits::default(), Instant::now());
        let spellings = ["a=1 b=2", "a=1  b=2"].into_iter().cycle();
        let all: Vec<u64> = spellings.take(10).map(|text| waits.sent(text, start).as_secs()).collect();
        assert_eq!(all, [2, 2, 2, 2, 2, 4, 8, 16, 30, 30]);
        assert_eq!(waits.sent("a=1 b=2", start + SETTLED), ECHO);
    }

    #[test]
    fn news_of_ourselves_is_no_fight() {
        let (mut waits, start) = (Waits::default(), Instant::now());
        assert!((0..50).all(|n| waits.sent(&format!("a={n}"), start) == ECHO));
    }
}
