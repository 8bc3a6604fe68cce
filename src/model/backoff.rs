//! How long to wait after a failure: doubling, and where many machines do the same, left to chance in part.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The longest wait that a server can ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(120);

/// A wait that doubles with each time, up to the longest.
pub fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(longest)
}

/// Waits that double from `least` to `most`, each cut by up to half at random, so that the agents of a
/// cluster do not come back in step.
#[derive(Clone, Debug)]
pub struct Backoff {
    least: Duration,
    most: Duration,
    failures: u32,
    dice: Dice,
}

impl Backoff {
    /// No failure yet.
    pub fn new(least: Duration, most: Duration, dice: Dice) -> Self {
        Self { least, most, failures: 0, dice }
    }

    /// One more failure: how long to wait. A server that asked to be left alone is, for that long and up to half as
    /// long again: it says the same to every agent of the cluster.
    pub fn next(&mut self, asked: Option<Duration>) -> Duration {
        let whole = doubled(self.least, self.failures, self.most);
        self.failures = self.failures.saturating_add(1);
        let wait = whole.mul_f64(1.0 - self.dice.roll() / 2.0);
        let asked = asked.unwrap_or_default().min(LONGEST_ASKED);
        wait.max(asked.mul_f64(1.0 + self.dice.roll() / 2.0))
    }

    /// All is well again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Random numbers that need be no better than different on different machines (xorshift64*).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Default for Dice {
    fn default() -> Self {
        Self::new()
    }
}

impl Dice {
    /// Seeded by the randomness that the standard library takes for its hash maps.
    pub fn new() -> Self {
        Self::seeded(RandomState::new().hash_one(0_u8))
    }

    /// The same numbers for the same seed.
    pub fn seeded(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// From 0 to 1.
    pub fn roll(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let top = u32::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32).unwrap_or(u32::MAX);
        f64::from(top) / f64::from(u32::MAX)
    }

    /// From nothing to this.
    pub fn up_to(&mut self, most: Duration) -> Duration {
        most.mul_f64(self.roll())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn waits_double_up_to_the_most_and_start_over_after_a_reset() {
        let mut backoff = Backoff::new(SECOND / 2, SECOND * 30, Dice::seeded(7));
        let mut whole = SECOND / 2;
        for _ in 0..100 {
            let wait = backoff.next(None);
            assert!(wait <= whole && wait >= whole / 2, "{wait:?} of {whole:?}");
            whole = (whole * 2).min(SECOND * 30);
        }
        backoff.reset();
        assert!(backoff.next(None) <= SECOND / 2);
    }

    #[test]
    fn two_agents_do_not_wait_alike_nor_when_they_are_told_to() {
        for asked in [None, Some(SECOND * 77)] {
            let mut waits =
                [Dice::new(), Dice::new()].map(|dice| Backoff::new(SECOND, SECOND, dice).next(asked).as_nanos());
            waits.sort_unstable();
            assert_ne!(waits[0], waits[1]);
        }
    }

    #[test]
    fn a_server_that_asks_to_be_left_alone_is_within_reason() {
        let mut backoff = Backoff::new(SECOND, SECOND * 30, Dice::seeded(7));
        let mut within = |asked: u32, least: u32, most: u32| {
            let wait = backoff.next(Some(SECOND * asked));
            assert!(wait >= SECOND * least && wait <= SECOND * most, "{wait:?} for {asked}");
        };
        within(77, 77, 116);
        within(3600, 120, 180);
    }
}
