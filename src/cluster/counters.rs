//! What the list-watch loop did, for metrics: written by the loop, read by anybody.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::problem::Class;
use super::trouble::{Last, LastProblem};

/// Counts since the start. Times are since the start too, by the clock that the loop was given.
#[derive(Debug, Default)]
pub struct WatchCounters {
    lists: AtomicU64,
    pages: AtomicU64,
    watches: AtomicU64,
    events: AtomicU64,
    bookmarks: AtomicU64,
    problems: [AtomicU64; Class::ALL.len()],
    last_heard: AtomicU64,
    stepped: AtomicU64,
    failing_since: AtomicU64,
    last_problem: LastProblem,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    List,
    Page,
    Watch,
    Event,
    Bookmark,
}

/// In the place of a moment: never.
const NEVER: u64 = 0;

impl WatchCounters {
    /// Lists that came in whole.
    pub fn lists(&self) -> u64 {
        self.lists.load(Ordering::Relaxed)
    }

    /// Requests for a page of a list.
    pub fn pages(&self) -> u64 {
        self.pages.load(Ordering::Relaxed)
    }

    /// Requests for a watch, streaming lists included.
    pub fn watches(&self) -> u64 {
        self.watches.load(Ordering::Relaxed)
    }

    /// Nodes added, changed and deleted, as the server reported them.
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Bookmarks.
    pub fn bookmarks(&self) -> u64 {
        self.bookmarks.load(Ordering::Relaxed)
    }

    /// Problems of one class.
    pub fn problems(&self, class: Class) -> u64 {
        self.slot(class).map_or(0, |slot| slot.load(Ordering::Relaxed))
    }

    /// When anything was last heard from the server: an event, a bookmark, a page.
    pub fn last_heard(&self) -> Option<Duration> {
        moment(&self.last_heard)
    }

    /// When the loop last made a step: it began or ended a round, or something came. Between two steps there is at most
    /// [`Timing::longest_wait`](super::timing::Timing::longest_wait), whatever the server does.
    pub fn stepped(&self) -> Duration {
        Duration::from_millis(self.stepped.load(Ordering::Relaxed))
    }

    /// Since when nothing has worked; `None` while all is well.
    pub fn failing_since(&self) -> Option<Duration> {
        moment(&self.failing_since)
    }

    /// The last problem that is not part of normal life, over or not.
    pub fn last_problem(&self) -> Option<Last> {
        self.last_problem.get()
    }

    /// Keeps a problem for whoever asks.
    pub(super) fn keep(&self, class: Class, text: String, now: Duration) {
        self.last_problem.set(class, text, now);
    }

    /// Counts one.
    pub(super) fn count(&self, what: Count) {
        let slot = match what {
            Count::List => &self.lists,
            Count::Page => &self.pages,
            Count::Watch => &self.watches,
            Count::Event => &self.events,
            Count::Bookmark => &self.bookmarks,
        };
        slot.fetch_add(1, Ordering::Relaxed);
    }

    /// The loop goes on.
    pub(super) fn step(&self, now: Duration) {
        self.stepped.store(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Something came from the server.
    pub(super) fn heard(&self, now: Duration) {
        self.step(now);
        self.last_heard.store(stamp(now), Ordering::Relaxed);
        self.failing_since.store(NEVER, Ordering::Relaxed);
    }

    /// Something went wrong.
    pub(super) fn failed(&self, class: Class, now: Duration) {
        if let Some(slot) = self.slot(class) {
            slot.fetch_add(1, Ordering::Relaxed);
        }
        let since = self.failing_since.load(Ordering::Relaxed);
        if since == NEVER {
            self.failing_since.store(stamp(now), Ordering::Relaxed);
        }
    }

    fn slot(&self, class: Class) -> Option<&AtomicU64> {
        Class::ALL.iter().position(|known| *known == class).and_then(|at| self.problems.get(at))
    }
}

/// Milliseconds, one later than they are, so that zero is free to say never.
fn stamp(now: Duration) -> u64 {
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX - 1) + 1
}

fn moment(slot: &AtomicU64) -> Option<Duration> {
    slot.load(Ordering::Relaxed).checked_sub(1).map(Duration::from_millis)
}
