//! Every wait of the list-watch loop, in one place.

use std::time::Duration;

/// How patient the loop is. The default is for production; tests are less patient.
#[derive(Clone, Debug)]
pub struct Timing {
    /// The wait after the first failure; it doubles.
    pub backoff_least: Duration,
    /// The longest wait after a failure.
    pub backoff_most: Duration,
    /// A connection that lived this long ends a row of failures.
    pub healthy: Duration,
    /// A watch that the server closes sooner than this counts as a failure; between two watches that
    /// live longer there is [`Self::pause`].
    pub brief: Duration,
    /// At least this between two requests, whatever happens.
    pub pause: Duration,
    /// For a server to answer, and between two parts of an answer that is not a watch.
    pub answer: Duration,
    /// For a streaming list: without any event for so long, it is not going to end.
    pub initial_silence: Duration,
    /// For a streaming list as a whole.
    pub initial_total: Duration,
    /// `timeoutSeconds` of a watch is this and up to a quarter more.
    pub watch: Duration,
    /// A watch on which nothing at all comes for this long beyond its `timeoutSeconds` is dead.
    pub watch_grace: Duration,
    /// A server that sends bookmarks sends one about each minute: after the first, this much silence
    /// means a dead connection.
    pub bookmark_silence: Duration,
    /// At least this between two lists that were asked for.
    pub between_lists: Duration,
    /// A list that every agent of the cluster has reason for at the same moment begins within this, at random: one
    /// that was asked for (many Nodes are gone), or one without which a watch cannot go on (a lost history). 5,000
    /// Nodes are about 100 MB for each agent.
    pub spread: Duration,
    /// Nodes on one page of a list.
    pub page: u32,
}

impl Timing {
    /// The longest time between two steps of the loop: a watch that is opened slowly and then says nothing. (A page of a list may
    /// take seven times [`Self::answer`], a wait after a failure three minutes.)
    pub fn longest_wait(&self) -> Duration {
        let silent = self.answer + self.watch.mul_f64(1.25) + self.watch_grace;
        silent.max(self.answer * 7).max(self.backoff_most)
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            backoff_least: Duration::from_millis(500),
            backoff_most: Duration::from_secs(30),
            healthy: Duration::from_secs(60),
            brief: Duration::from_secs(5),
            pause: Duration::from_millis(100),
            answer: Duration::from_secs(30),
            initial_silence: Duration::from_secs(10),
            initial_total: Duration::from_secs(120),
            watch: Duration::from_secs(240),
            watch_grace: Duration::from_secs(10),
            bookmark_silence: Duration::from_secs(150),
            between_lists: Duration::from_secs(5),
            spread: Duration::from_secs(10),
            page: 50,
        }
    }
}
