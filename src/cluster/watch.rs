//! The loop that keeps a [`Snapshot`] of all Nodes: list, watch, and again, for as long as the agent runs.
//!
//! What is known stays in force whatever happens to a connection; only a whole list or a DELETED event
//! takes a node away. Every request that fails, and every watch that the server closes at once, is
//! followed by a wait that doubles. Nothing here ends the loop.

use std::convert::Infallible;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::model::backoff::{Backoff, Dice};
use crate::model::node::Snapshot;

use super::annotations::Keys;
use super::api::NodesApi;
use super::client::Connection;
use super::counters::WatchCounters;
use super::peers::{Peers, Viewpoint};
use super::problem::{Class, Problem};
use super::timing::Timing;
use super::trouble::Streak;

/// The time since the agent started. The loop has no clock of its own.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// A watch that came to nothing so often in a row is not tried again before a list.
const STUCK: u64 = 3;

/// The loop. Made by [`Watcher::new`], driven by [`Watcher::run`].
pub struct Watcher {
    pub(super) api: NodesApi,
    pub(super) keys: Keys,
    pub(super) view: Viewpoint,
    pub(super) timing: Timing,
    pub(super) clock: Clock,
    pub(super) peers: Peers,
    pub(super) publish: watch::Sender<Arc<Snapshot>>,
    pub(super) counters: Arc<WatchCounters>,
    pub(super) relist: Arc<Notify>,
    pub(super) backoff: Backoff,
    pub(super) dice: Dice,
    /// Whether the server streams lists.
    pub(super) streams: Streams,
    /// Where the next watch goes on; `None` if a list is needed.
    pub(super) resume: Option<String>,
    /// A list was asked for, although a watch could go on.
    pub(super) wanted: bool,
    /// When the last list began.
    pub(super) listed: Option<Duration>,
    /// What has gone wrong in a row.
    pub(super) trouble: Streak,
    /// Changes that the last published snapshot does not have.
    pub(super) unpublished: u32,
}

/// Whether the server streams lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Streams {
    /// It does, or nothing is known yet.
    Yes,
    /// It did not the last time: the next list comes in pages. If it comes, streaming was the problem
    /// and is not tried again; if not, it was not.
    Doubted,
    /// It does not.
    No,
}

/// What others hold of the loop.
#[derive(Clone, Debug)]
pub struct Handle {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    counters: Arc<WatchCounters>,
    relist: Arc<Notify>,
}

impl Handle {
    /// The nodes, now and at every change that matters. `lists` growing is such a change too, although
    /// `generation` does not grow for it.
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    /// What the loop did.
    pub fn counters(&self) -> &WatchCounters {
        &self.counters
    }

    /// Asks for a consistent list now, whatever the watch says; `Snapshot::lists` grows when it is in.
    /// Several requests before it begins are one.
    pub fn request_list(&self) {
        self.relist.notify_one();
    }
}

/// How a connection ended.
pub(super) enum End {
    /// The server closed a watch, as it does in the normal course of life.
    Closed {
        /// Whether anything at all came on it.
        heard: bool,
    },
    /// Somebody asked for a list.
    Asked,
    /// The server does not stream lists.
    NoStream(Problem),
    /// Anything else.
    Failed(Problem),
}

impl From<Problem> for End {
    fn from(problem: Problem) -> Self {
        Self::Failed(problem)
    }
}

impl Watcher {
    /// A loop that has not begun, and the handle to it.
    pub fn new(connection: Connection, keys: Keys, view: Viewpoint, timing: Timing, clock: Clock) -> (Self, Handle) {
        let peers = Peers::default();
        let (publish, snapshots) = watch::channel(Arc::new(peers.snapshot().clone()));
        let counters = Arc::new(WatchCounters::default());
        let relist = Arc::new(Notify::new());
        let handle = Handle { snapshots, counters: counters.clone(), relist: relist.clone() };
        let backoff = Backoff::new(timing.backoff_least, timing.backoff_most, Dice::new());
        let watcher = Self {
            api: NodesApi::new(connection, timing.answer),
            keys,
            view,
            timing,
            clock,
            peers,
            publish,
            counters,
            relist,
            backoff,
            dice: Dice::new(),
            streams: Streams::Yes,
            resume: None,
            wanted: false,
            listed: None,
            trouble: Streak::default(),
            unpublished: 0,
        };
        (watcher, handle)
    }

    /// Runs until it is dropped.
    pub async fn run(mut self) -> Infallible {
        loop {
            let began = (self.clock)();
            self.counters.step(began);
            let end = self.round().await;
            self.peers.abandon();
            self.publish();
            let ended = (self.clock)();
            self.counters.step(ended);
            let lived = ended.saturating_sub(began);
            let wait = self.settle(end, lived);
            sleep(wait.max(self.timing.pause)).await;
        }
    }

    /// Draws the conclusions from how a connection ended. Returns how long to wait.
    fn settle(&mut self, end: End, lived: Duration) -> Duration {
        if lived >= self.timing.healthy {
            self.backoff.reset();
        }
        let pause = self.timing.pause;
        match end {
            End::Asked => {
                self.wanted = true;
                pause
            }
            End::Closed { heard } if lived < self.timing.brief => {
                let wait = self.backoff.next(None);
                self.troubled(Class::Closed, &"the API server closed a watch as soon as it was open", wait);
                self.resume.take_if(|_| !heard && self.trouble.now().is_some_and(stuck));
                wait
            }
            End::Closed { heard } => {
                // A watch from a resourceVersion that the server does not have (etcd restored from a
                // backup) is open, silent, and never says why. A list costs little and finds out.
                self.resume.take_if(|_| !heard);
                pause
            }
            End::NoStream(problem) => {
                self.streams = Streams::Doubted;
                let asked = problem.retry_after();
                let wait = if problem.passes() || asked.is_some() { self.backoff.next(asked) } else { pause };
                let class = problem.class();
                self.counters.failed(class, (self.clock)());
                info!(class = class.label(), "no streaming list ({problem}); the next list comes in pages");
                wait
            }
            End::Failed(problem) => {
                // A server that was away and now says 410 is back: what it waits for is a list.
                let back = self.trouble.now().is_some_and(|(class, _)| class != Class::Gone);
                if back && problem.class() == Class::Gone {
                    self.backoff.reset();
                }
                let mut wait = self.backoff.next(problem.retry_after());
                if problem.needs_list() {
                    wait += self.dice.up_to(self.timing.spread);
                }
                self.troubled(problem.class(), &problem, wait);
                self.resume.take_if(|_| problem.needs_list() || self.trouble.now().is_some_and(stuck));
                wait
            }
        }
    }

    /// Counts a problem; logs it if it is new, and then ever more rarely.
    fn troubled(&mut self, class: Class, problem: &dyn Display, wait: Duration) {
        self.counters.failed(class, (self.clock)());
        let times = self.trouble.add(class);
        if class == Class::Gone {
            info!("{problem}; the nodes are listed anew in {:.1} s, what is known stays in force", wait.as_secs_f32());
            return;
        }
        self.counters.keep(class, problem.to_string(), (self.clock)());
        if Streak::is_news(times) {
            let wait = wait.as_secs_f32();
            warn!(
                class = class.label(),
                times, "{problem}; what is known of the nodes stays in force, next try in {wait:.1} s"
            );
        }
    }

    /// Something came from the server, and it made sense.
    pub(super) fn recovered(&mut self) {
        if self.trouble.end().is_some_and(|class| class != Class::Gone) {
            info!("the API server answers again");
        }
    }

    /// Lets everybody see what is known now.
    pub(super) fn publish(&mut self) {
        if std::mem::take(&mut self.unpublished) > 0 {
            self.publish.send_replace(Arc::new(self.peers.snapshot().clone()));
        }
    }
}

/// Whether a server that cannot go on with a watch may still be able to list.
const fn stuck((class, times): (Class, u64)) -> bool {
    times >= STUCK && matches!(class, Class::Server | Class::Cut | Class::Timeout | Class::Closed)
}
