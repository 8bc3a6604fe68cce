//! Shows that a loop goes round. `/healthz` compares how long ago it last did with how long that may be.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::status::Beat;

/// When a loop last went round.
#[derive(Debug)]
pub struct Heartbeat {
    name: &'static str,
    limit: Duration,
    /// Milliseconds since the agent started.
    last: AtomicU64,
}

impl Heartbeat {
    /// The loop is alive now.
    pub fn beat(&self, now: Duration) {
        self.last.store(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How it looks from outside.
    pub fn seen(&self, now: Duration) -> Beat {
        let age = now.saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed)));
        Beat { name: self.name, age, limit: self.limit }
    }
}

/// Those of all loops.
#[derive(Debug, Default)]
pub struct Heartbeats(Mutex<Vec<Arc<Heartbeat>>>);

impl Heartbeats {
    /// That of a loop which begins now. `limit` is longer than the longest wait that it may rightly have: what has not come by
    /// then will not come.
    pub fn of(&self, name: &'static str, limit: Duration) -> Arc<Heartbeat> {
        let heartbeat = Arc::new(Heartbeat { name, limit, last: AtomicU64::new(0) });
        self.0.lock().push(heartbeat.clone());
        heartbeat
    }

    /// How they look from outside.
    pub fn seen(&self, now: Duration) -> Vec<Beat> {
        self.0.lock().iter().map(|heartbeat| heartbeat.seen(now)).collect()
    }
}
