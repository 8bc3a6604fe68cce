//! Keeps something that our Node should say as it should be: writes it, again when somebody edits it,
//! and ever more rarely when the API server fails or somebody disagrees.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::{info, warn};

use super::clock::Clock;
use super::heartbeat::Heartbeat;
use crate::cluster::annotations::Keys;
use crate::cluster::announce::send;
use crate::cluster::client::Connection;
use crate::cluster::problem::Class;
use crate::cluster::trouble::{LastProblem, Streak};
use crate::model::backoff::{Backoff, Dice, doubled};
use crate::model::node::{OwnNode, Snapshot};
use crate::reconcile::Report;

/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The first wait after a failure; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// What was written takes a moment to come back through the watch; until then the API server's answer counts,
/// so long at first. Longer each time that nothing came: a patch that says what the Node says already is no
/// write, but it is a request.
const BELIEF: Duration = Duration::from_secs(30);
/// The longest that it counts.
const LONGEST_BELIEF: Duration = Duration::from_secs(480);
/// The wait when our Node does not say what was written although the patch was taken; it doubles.
const FIRST_TRUCE: Duration = Duration::from_secs(2);
/// The same patch is sent so often as soon as our Node, as the watch shows it, says something else again. Beyond
/// that somebody disagrees, most likely another agent under our name, and every agent of the cluster hears of each
/// round: the wait doubles.
const PEACEFUL: u32 = 5;
/// What was sent longer ago is forgotten.
const SETTLED: Duration = Duration::from_secs(120);
/// Longer than a request that hangs (`PATIENCE` for the answer, six times that for its end) and a wait of three minutes after it,
/// the longest that a server can ask for.
pub const LIMIT: Duration = Duration::from_secs(300);
/// How often is looked although nothing has come: for what has no signal, and to show that the loop lives.
const BEAT: Duration = Duration::from_secs(1);

/// What such a loop did.
#[derive(Debug, Default)]
pub struct UpkeepCounters {
    /// Patches that the API server took.
    pub sent: AtomicU64,
    /// Patches that failed.
    pub failed: AtomicU64,
    /// The last failure, over or not.
    pub last_problem: LastProblem,
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
    pub connection: Connection,
    /// The annotations' names.
    pub keys: Keys,
    /// Our Node, as the watch sees it.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// The device, as the reconciler sees it.
    pub reports: watch::Receiver<Option<Arc<Report>>>,
    /// For metrics.
    pub counters: Arc<UpkeepCounters>,
    /// Shows that the loop goes round.
    pub heartbeat: Arc<Heartbeat>,
    /// Since the agent started.
    pub clock: Clock,
    /// What our Node should say.
    pub wish: W,
}

impl<W: Wish> Upkeep<W> {
    /// Runs until either source is gone.
    pub async fn run(mut self) {
        let (mut waits, mut answer) = (Waits::new(), None);
        loop {
            self.heartbeat.beat(self.clock.now());
            let Some((own, wanted)) = self.wanted(answer.as_ref()) else {
                tokio::select! {
                    changed = self.snapshots.changed() => if changed.is_err() { return },
                    changed = self.reports.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(BEAT) => {}
                }
                continue;
            };
            if let Some(pause) = self.write(own, wanted, &mut waits, &mut answer).await {
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// Sends a patch. Returns how long to wait before the next, if at all.
    async fn write(
        &self,
        own: Arc<OwnNode>,
        wanted: Wanted,
        waits: &mut Waits,
        answer: &mut Option<Answer>,
    ) -> Option<Duration> {
        let (Wanted { body, text }, node) = (wanted, &*own.name);
        // What the API server has already, as far as it said, and the watch has not shown in all that time.
        let unseen = answer.as_ref().filter(|last| last.is_unseen(&own) && !last.counts());
        let unseen = unseen.map_or(0, |last| last.unseen + 1);
        let stored = match send(&self.connection, &self.keys, &own.name, body, PATIENCE).await {
            Ok(stored) => stored,
            Err(problem) => {
                self.counters.failed.fetch_add(1, Ordering::Relaxed);
                let class = problem.class();
                self.counters.last_problem.set(class, problem.to_string(), self.clock.now());
                let (wait, times) = waits.failed(class, problem.retry_after());
                if Streak::is_news(times) {
                    let ((cannot, meanwhile), seconds) = (W::FAILED, wait.as_secs_f32());
                    let class = class.label();
                    warn!(node, class, times, "{cannot}: {problem}; {meanwhile}, next try in {seconds:.1} s");
                }
                return Some(wait);
            }
        };
        self.counters.sent.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let taken = self.satisfies(&stored);
        let until = now + doubled(BELIEF, unseen, LONGEST_BELIEF);
        *answer = Some(Answer { before: own.clone(), after: Arc::new(stored), until, unseen });
        if unseen > 0 && taken {
            info!(node, "{} {text} once more: the API server has it, and the watch has not shown it yet", W::DONE);
            return None;
        }
        let wait = waits.sent(&text, now);
        if wait > FIRST_TRUCE {
            let (done, rival, seconds) = (W::DONE, W::RIVAL, wait.as_secs());
            warn!(
                node,
                "{done} {text}; somebody keeps writing something else there ({rival}), next in {seconds} s at the \
                 soonest"
            );
            return Some(wait);
        }
        info!(node, "{} {text}", W::DONE);
        // Somebody changed it on its way in: an admission webhook, or a rival at the same moment.
        (!taken).then_some(wait)
    }

    /// Whether a Node says all that it should, by the device as it is now.
    fn satisfies(&self, own: &OwnNode) -> bool {
        let report = self.reports.borrow().clone();
        report.is_none_or(|report| self.wish.wanted(&report, own).is_none())
    }

    /// What has to be written, if anything, and our Node as the watch sees it.
    fn wanted(&mut self, answer: Option<&Answer>) -> Option<(Arc<OwnNode>, Wanted)> {
        let snapshot = self.snapshots.borrow_and_update().clone();
        let own = snapshot.own.as_ref()?;
        let report = self.reports.borrow_and_update().clone()?;
        let newer = answer.filter(|answer| answer.is_unseen(own) && answer.counts());
        let wanted = self.wish.wanted(&report, newer.map_or(own, |answer| &answer.after))?;
        Some((own.clone(), wanted))
    }
}

/// Our Node, as the API server gave it back when it took a patch.
struct Answer {
    /// As the watch saw it before.
    before: Arc<OwnNode>,
    after: Arc<OwnNode>,
    /// So long it counts, if the watch shows nothing newer.
    until: Instant,
    /// How often the patch was repeated because the watch did not show it.
    unseen: u32,
}

impl Answer {
    /// Whether it still counts, for want of something newer.
    fn counts(&self) -> bool {
        Instant::now() < self.until
    }

    /// Whether the watch, which sees our Node so, has shown nothing of it since.
    fn is_unseen(&self, own: &Arc<OwnNode>) -> bool {
        Arc::ptr_eq(&self.before, own)
    }
}

/// How long to wait between patches.
#[derive(Debug)]
struct Waits {
    backoff: Backoff,
    trouble: Streak,
    sent: Vec<(Instant, String)>,
}

impl Waits {
    fn new() -> Self {
        let backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT, Dice::new());
        Self { backoff, trouble: Streak::default(), sent: Vec::new() }
    }

    /// A patch was taken that wrote this.
    fn sent(&mut self, written: &str, now: Instant) -> Duration {
        self.backoff.reset();
        self.trouble.end();
        // One that differs in its spelling alone says the same.
        let written = written.replace(' ', "");
        self.sent.retain(|(at, _)| now.duration_since(*at) < SETTLED);
        let before = self.sent.iter().filter(|(_, sent)| *sent == written).count();
        self.sent.push((now, written));
        doubled(FIRST_TRUCE, u32::try_from(before + 1).unwrap_or(u32::MAX).saturating_sub(PEACEFUL), LONGEST_WAIT)
    }

    /// A patch was not taken; `asked` is how long the server wants to be left alone. Returns how long to wait, and
    /// how many failures of this kind there were in a row.
    fn failed(&mut self, class: Class, asked: Option<Duration>) -> (Duration, u64) {
        (self.backoff.next(asked), self.trouble.add(class))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_api_server_is_asked_less_and_less_often_until_it_takes_something() {
        let mut waits = Waits::new();
        let all: Vec<(Duration, u64)> = (0..9).map(|_| waits.failed(Class::Server, None)).collect();
        assert!(all[0].0 <= FIRST_WAIT && all[8].0 >= LONGEST_WAIT / 2 && all[8].0 <= LONGEST_WAIT, "{all:?}");
        assert_eq!(all[8].1, 9);
        waits.sent("a=b", Instant::now());
        let (wait, times) = waits.failed(Class::Server, None);
        assert!(wait <= FIRST_WAIT && times == 1);
    }

    #[test]
    fn a_fight_over_our_annotations_slows_down_and_is_forgotten_when_they_have_stood() {
        let (mut waits, start) = (Waits::new(), Instant::now());
        let spellings = ["a=1 b=2", "a=1  b=2"].into_iter().cycle();
        let all: Vec<u64> = spellings.take(10).map(|text| waits.sent(text, start).as_secs()).collect();
        assert_eq!(all, [2, 2, 2, 2, 2, 4, 8, 16, 30, 30]);
        assert_eq!(waits.sent("a=1 b=2", start + SETTLED), FIRST_TRUCE);
    }

    #[test]
    fn news_of_ourselves_is_no_fight() {
        let (mut waits, start) = (Waits::new(), Instant::now());
        assert!((0..50).all(|n| waits.sent(&format!("a={n}"), start) == FIRST_TRUCE));
    }
}
