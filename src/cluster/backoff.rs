//! How long to wait after a failure: doubling, with jitter, pure.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Waits that double from `least` to `most`, each cut by up to half at random, so that the agents of a
/// cluster do not come back in step.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    least: Duration,
    most: Duration,
    failures: u32,
    dice: Dice,
}

impl Backoff {
    /// No failure yet.
    pub(super) fn new(least: Duration, most: Duration, dice: Dice) -> Self {
        Self { least, most, failures: 0, dice }
    }

    /// One more failure: how long to wait.
    pub(super) fn next(&mut self) -> Duration {
        let doubled = self.least.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1).min(31);
        let whole = doubled.min(self.most);
        whole.mul_f64(1.0 - self.dice.roll() / 2.0)
    }

    /// All is well again.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Random numbers that need be no better than different on different machines (xorshift64*).
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    /// Seeded by the randomness that the standard library takes for its hash maps.
    pub(super) fn new() -> Self {
        Self::seeded(RandomState::new().hash_one(0_u8))
    }

    /// The same numbers for the same seed.
    pub(super) fn seeded(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// From 0 to 1.
    pub(super) fn roll(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let top = u32::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32).unwrap_or(u32::MAX);
        f64::from(top) / f64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_most_and_start_over_after_a_reset() {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30), Dice::seeded(7));
        let mut whole = Duration::from_millis(500);
        for _ in 0..100 {
            let wait = backoff.next();
            assert!(wait <= whole && wait >= whole / 2, "{wait:?} of {whole:?}");
            whole = (whole * 2).min(Duration::from_secs(30));
        }
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(500));
    }

    #[test]
    fn two_agents_do_not_wait_alike() {
        let mut waits = [Dice::new(), Dice::new()]
            .map(|dice| Backoff::new(Duration::from_secs(1), Duration::from_secs(1), dice).next());
        waits.sort();
        assert_ne!(waits[0], waits[1]);
    }
}
