//! When to look for rules that flannel left, and from when on to speak of those that stay.
//!
//! Nothing announces them: a flanneld that still runs makes them again, and that shows within seconds of a removal;
//! at any other time they are not expected. Times are durations since the agent started; the caller has the clock.

use std::collections::BTreeSet;
use std::time::Duration;

/// The pause between looks at the start, and after something was there to remove.
const SOON: Duration = Duration::from_secs(1);
/// How many such looks there are.
const LOOKS: u32 = 10;
/// The pause between looks otherwise.
pub const PERIOD: Duration = Duration::from_secs(30);

/// How long nothing is said while no pass that knew our Node has converged: what is to stand in the place of the
/// rules is on its way.
const GRACE: Duration = Duration::from_secs(30);

/// Paces the looks, and says each thing once.
#[derive(Debug)]
pub struct Looks {
    /// Looks that follow soon.
    soon: u32,
    /// When a pass first knew our Node.
    began: Option<Duration>,
    /// Nothing more is on its way.
    settled: bool,
    told: BTreeSet<String>,
}

impl Default for Looks {
    fn default() -> Self {
        Self { soon: LOOKS, began: None, settled: false, told: BTreeSet::new() }
    }
}

impl Looks {
    /// A pass that knew our Node has ended, `converged` or not; the last one there is when a look begins.
    pub fn pass(&mut self, converged: bool, now: Duration) {
        let since = now.saturating_sub(*self.began.get_or_insert(now));
        self.settled |= converged || since > GRACE;
    }

    /// After a look: what of all that `stays` is to be said now. What went and comes back is said again.
    pub fn news<'a>(&mut self, stays: &'a [String]) -> Vec<&'a String> {
        if !self.settled {
            return Vec::new();
        }
        let before = std::mem::replace(&mut self.told, stays.iter().cloned().collect());
        stays.iter().filter(|text| !before.contains(*text)).collect()
    }

    /// How long to wait for the next look, after one that found something to remove or not.
    pub const fn pause(&mut self, something: bool) -> Duration {
        self.soon = if something { LOOKS } else { self.soon.saturating_sub(1) };
        if self.soon > 0 { SOON } else { PERIOD }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn it_looks_often_at_first_and_after_a_find_and_seldom_otherwise() {
        let mut looks = Looks::default();
        let seldom = |looks: &mut Looks| (1..100).find(|_| looks.pause(false) == PERIOD);
        assert_eq!(seldom(&mut looks), Some(LOOKS));
        assert_eq!(looks.pause(true), SOON);
        assert_eq!(seldom(&mut looks), Some(LOOKS));
    }

    #[test]
    fn nothing_is_said_before_a_pass_has_converged_or_had_its_time() {
        let stays = ["a chain".to_owned()];
        for (converged, from) in [(true, 5), (false, 5 + GRACE.as_secs() + 1)] {
            let mut looks = Looks::default();
            assert_eq!(looks.news(&stays), [""; 0], "no pass has known our Node");
            for second in 4..from {
                looks.pass(false, at(second.max(5)));
                assert_eq!(looks.news(&stays), [""; 0], "{second} s");
            }
            looks.pass(converged, at(from));
            assert_eq!(looks.news(&stays), ["a chain"]);
        }
    }

    #[test]
    fn each_is_said_once_and_again_when_it_comes_back() {
        let mut looks = Looks::default();
        looks.pass(true, at(1));
        let both = ["one", "two"].map(str::to_owned);
        assert_eq!(looks.news(&both[..1]), ["one"]);
        assert_eq!(looks.news(&both), ["two"]);
        assert_eq!(looks.news(&both), [""; 0]);
        assert_eq!(looks.news(&both[1..]), [""; 0]);
        looks.pass(false, at(2));
        assert_eq!(looks.news(&both), ["one"], "and one pass that does not converge unsettles nothing");
    }
}
