//! What the connections and the handle share: the store, the faults, the log, and two bells.

use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch as signal;

use super::fault::{Action, Faults};
use super::route::Verb;
use super::store::Store;

/// How many writes of each resource are remembered, unless told otherwise.
const HISTORY: usize = 4096;

/// How often a quiet watch gets a bookmark, unless told otherwise (a real server: about a minute).
const BOOKMARK_EVERY: Duration = Duration::from_secs(10);

/// How many requests the log keeps.
const LOGGED: usize = 100_000;

/// One request as it was seen.
#[derive(Clone, Debug)]
pub struct Logged {
    /// When it came, since the server was made.
    pub at: Duration,
    /// Its kind.
    pub verb: Verb,
    /// Its HTTP method.
    pub method: String,
    /// Its path.
    pub path: String,
    /// Its query as sent.
    pub query: String,
    /// The fault it met.
    pub fault: Option<Action>,
}

/// Everything that outlives a connection.
#[derive(Debug)]
pub(super) struct Shared {
    born: Instant,
    store: Mutex<Store>,
    /// The faults that wait.
    pub(super) faults: Mutex<Faults>,
    /// The requests so far.
    pub(super) log: Mutex<Vec<Logged>>,
    /// How often watches that begin now get a bookmark.
    pub(super) bookmark_every: Mutex<Duration>,
    /// Rings at every write.
    pub(super) written: signal::Sender<u64>,
    /// Rings when open watches have to end.
    pub(super) closed: signal::Sender<u64>,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            born: Instant::now(),
            store: Mutex::new(Store::new(HISTORY)),
            faults: Mutex::default(),
            log: Mutex::default(),
            bookmark_every: Mutex::new(BOOKMARK_EVERY),
            written: signal::Sender::new(0),
            closed: signal::Sender::new(0),
        }
    }

    pub(super) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock()
    }

    /// Runs something that may write, and wakes the watches.
    pub(super) fn write<T>(&self, change: impl FnOnce(&mut Store) -> T) -> T {
        let mut store = self.store();
        let result = change(&mut store);
        let revision = store.revision();
        drop(store);
        self.written.send_replace(revision);
        result
    }

    /// Logs a request and says which fault it meets.
    pub(super) fn note(&self, verb: Verb, method: &http::Method, uri: &http::Uri) -> Option<Action> {
        let fault = self.faults.lock().take(verb);
        let mut log = self.log.lock();
        if log.len() < LOGGED {
            log.push(Logged {
                at: self.born.elapsed(),
                verb,
                method: method.to_string(),
                path: uri.path().to_owned(),
                query: uri.query().unwrap_or_default().to_owned(),
                fault: fault.clone(),
            });
        }
        fault
    }
}
