//! When the next pass is due. Times are durations since the agent started; the caller has the clock.

use std::time::Duration;

use crate::model::backoff::doubled;

/// A pass never begins sooner than this after the end of the one before.
const SHORTEST_GAP: Duration = Duration::from_millis(20);
/// However long passes take, a change is looked at within this.
const LONGEST_GAP: Duration = Duration::from_millis(500);
/// The next look when a pass had to stop half-way because the ground moved; it doubles too, up to `WAITING`: something
/// may be missing as well.
const UNFINISHED: Duration = Duration::from_millis(100);
/// The first delay after the kernel could not be read; it doubles.
const BLIND: Duration = Duration::from_millis(200);
/// The longest such delay.
const BLIND_AT_MOST: Duration = Duration::from_secs(10);
/// How often to look while something is missing that sends no notification.
const WAITING: Duration = Duration::from_secs(5);

/// How a pass ended, as far as the next one is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nothing is left to do, or what is left is put off.
    Done,
    /// It stopped half-way.
    Unfinished,
    /// Something is missing.
    Waiting,
    /// The kernel could not be read.
    Blind,
}

/// Paces the passes: notifications and changed Nodes bring one soon, failures when they are due,
/// and the slow timer sees to everything that announces itself to nobody.
#[derive(Debug)]
pub struct Pace {
    resync: Duration,
    due: Duration,
    not_before: Duration,
    /// Passes in a row that ended so.
    streak: (Ended, u32),
}

impl Pace {
    /// The first pass is due at once. `resync` is the period of the slow timer.
    pub const fn new(resync: Duration) -> Self {
        Self { resync, due: Duration::ZERO, not_before: Duration::ZERO, streak: (Ended::Done, 0) }
    }

    /// How long to wait for something to happen; zero if a pass is due.
    pub const fn wait(&self, now: Duration) -> Duration {
        self.due.saturating_sub(now)
    }

    /// Something happened: look soon.
    pub fn hurry(&mut self, now: Duration) {
        self.due = self.due.min(now.max(self.not_before));
    }

    /// A pass ended at `now` after `took`. `jitter` in 0..=1 spreads the slow timer over the last
    /// quarter of its period, so that the nodes of a cluster do not march in step.
    pub fn ended(&mut self, now: Duration, took: Duration, ended: Ended, next_try: Option<Duration>, jitter: f64) {
        // At most a third of the time is spent looking, however busy the host.
        self.not_before = now + (took * 2).clamp(SHORTEST_GAP, LONGEST_GAP);
        self.streak = if self.streak.0 == ended { (ended, self.streak.1.saturating_add(1)) } else { (ended, 0) };
        let slow = self.resync.mul_f64(1.0 - 0.25 * jitter.clamp(0.0, 1.0));
        let delay = match ended {
            Ended::Done => slow,
            Ended::Unfinished => doubled(UNFINISHED, self.streak.1, WAITING).min(slow),
            Ended::Waiting => WAITING.min(slow),
            Ended::Blind => doubled(BLIND, self.streak.1, BLIND_AT_MOST),
        };
        self.due = next_try.map_or(now + delay, |at| at.min(now + delay)).max(self.not_before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn the_first_pass_is_due_at_once_and_the_next_on_the_slow_timer() {
        let mut pace = Pace::new(MINUTE);
        assert_eq!(pace.wait(5 * MS), Duration::ZERO);
        pace.ended(10 * MS, 5 * MS, Ended::Done, None, 0.0);
        assert_eq!(pace.wait(10 * MS), MINUTE);
        pace.ended(10 * MS, 5 * MS, Ended::Done, None, 1.0);
        assert_eq!(pace.wait(10 * MS), MINUTE * 3 / 4);
    }

    #[test]
    fn a_storm_of_notifications_cannot_take_more_than_a_third_of_the_time() {
        let mut pace = Pace::new(MINUTE);
        pace.ended(100 * MS, 30 * MS, Ended::Done, None, 0.0);
        pace.hurry(101 * MS);
        assert_eq!(pace.wait(101 * MS), 59 * MS);
        pace.ended(100 * MS, 10_000 * MS, Ended::Done, None, 0.0);
        pace.hurry(101 * MS);
        assert_eq!(pace.wait(101 * MS), 499 * MS);
    }

    #[test]
    fn what_was_put_off_is_looked_at_when_it_is_due() {
        let mut pace = Pace::new(MINUTE);
        pace.ended(100 * MS, MS, Ended::Done, Some(400 * MS), 0.0);
        assert_eq!(pace.wait(100 * MS), 300 * MS);
    }

    #[test]
    fn what_stopped_half_way_is_looked_at_no_less_often_than_what_is_missing() {
        let mut pace = Pace::new(MINUTE);
        let mut waits = Vec::new();
        for _ in 0..8 {
            pace.ended(Duration::ZERO, MS, Ended::Unfinished, Some(MINUTE), 0.0);
            waits.push(pace.wait(Duration::ZERO).as_millis());
        }
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        let mut pace = Pace::new(2000 * MS);
        for _ in 0..8 {
            pace.ended(Duration::ZERO, MS, Ended::Unfinished, None, 0.0);
        }
        assert_eq!(pace.wait(Duration::ZERO), 2000 * MS, "the slow timer goes on");
    }

    #[test]
    fn a_kernel_that_cannot_be_read_is_asked_less_and_less_often() {
        let mut pace = Pace::new(MINUTE);
        let mut waits = Vec::new();
        for _ in 0..8 {
            pace.ended(Duration::ZERO, MS, Ended::Blind, None, 0.0);
            waits.push(pace.wait(Duration::ZERO).as_millis());
        }
        assert_eq!(waits, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        pace.ended(Duration::ZERO, MS, Ended::Done, None, 0.0);
        pace.ended(Duration::ZERO, MS, Ended::Blind, None, 0.0);
        assert_eq!(pace.wait(Duration::ZERO), 200 * MS);
    }
}
