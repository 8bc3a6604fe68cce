//! Whether flannel's packet rules go now, and why not if they stay.
//!
//! Only where weft's own rules stand in their place: a moment without either would let packets of pods leave
//! with addresses that nobody answers to. Somebody who makes them again is a flanneld that still runs: it does
//! that every five seconds (`--iptables-resync`), and so weft waits longer and longer.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::addr::{ByFamily, Family};
use crate::model::backoff::doubled;
use crate::model::leftover::{Leftover, Seen};

/// The first pause after a failure, and after the second removal of the same; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// From this many removals of the same on, somebody is fighting.
const FIGHT: u32 = 3;
/// A leftover that stayed away for so long is forgotten.
const FORGET: Duration = Duration::from_secs(900);

/// What stands in the place of flannel's rules, in one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ground {
    /// Nothing: `--ip-masq` is off, or our rules are not there yet.
    #[default]
    Nothing,
    /// Our own rules, as the last look saw them.
    Ours,
}

/// What stands in their place in each family; of the families that are on (`Some`), whether our rules stand. In the
/// place of a family that is off there is nothing to stand: its rules go with the other's.
pub fn grounds(stands: ByFamily<Option<bool>>) -> ByFamily<Ground> {
    ByFamily::from_fn(|family| {
        let other = if family == Family::V4 { Family::V6 } else { Family::V4 };
        match stands.get(family).or(*stands.get(other)) {
            Some(true) => Ground::Ours,
            Some(false) | None => Ground::Nothing,
        }
    })
}

/// What to do about what was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// What goes now.
    pub remove: Vec<Leftover>,
    /// What stays, and why, for the operator.
    pub stays: BTreeMap<Leftover, String>,
}

/// What happened to each leftover so far.
#[derive(Debug, Default)]
pub struct Leftovers(BTreeMap<Leftover, Record>);

#[derive(Debug, Default)]
struct Record {
    removed: u32,
    failed: u32,
    problem: String,
    last: Duration,
    not_before: Duration,
}

impl Leftovers {
    /// Decides. `now` is the time since the agent started.
    pub fn decide(&mut self, seen: &[Seen], grounds: ByFamily<Ground>, now: Duration) -> Decision {
        self.0.retain(|_, record| now.saturating_sub(record.last) < FORGET);
        let mut decision = Decision::default();
        for found in seen {
            let why = match grounds.get(found.what.family()) {
                Ground::Nothing => Some(
                    "weft has no rules of its own in their place (--ip-masq is off, or they are not there yet), so it \
                     leaves them alone"
                        .to_owned(),
                ),
                Ground::Ours => self.obstacle(found, now),
            };
            match why {
                None => decision.remove.push(found.what),
                Some(why) => {
                    let text = format!("rules of flannel stay: {why}; to remove them by hand: {}", found.what);
                    decision.stays.insert(found.what, text);
                }
            }
        }
        decision
    }

    fn obstacle(&self, found: &Seen, now: Duration) -> Option<String> {
        if found.guards {
            // The jump stands where it has an effect that a rule of ours cannot have: an accept in one table
            // does not keep another from dropping.
            return Some(
                "behind them packets that are forwarded would be dropped or rejected, by the policy of FORWARD or by \
                 a rule there, and that cannot be overruled from a table of weft's"
                    .to_owned(),
            );
        }
        if found.jumps == 0 && !found.users.is_empty() {
            return Some(format!("a rule that is not flannel's jumps there from {}", found.users.join(", ")));
        }
        let record = self.0.get(&found.what).filter(|record| now < record.not_before)?;
        if record.failed > 0 {
            return Some(format!("{} (tried {} times); weft tries again", record.problem, record.failed));
        }
        Some(format!(
            "removed {} times, and made again each time, so weft waits longer and longer: flanneld still runs on this \
             node; stop it",
            record.removed
        ))
    }

    /// Takes note that one was removed.
    pub fn removed(&mut self, what: Leftover, now: Duration) {
        let record = self.0.entry(what).or_default();
        record.removed = record.removed.saturating_add(1);
        record.failed = 0;
        record.last = now;
        record.not_before = now + record.removed.checked_sub(FIGHT).map_or(Duration::ZERO, pause);
    }

    /// Takes note that one could not be removed.
    pub fn failed(&mut self, what: Leftover, problem: String, now: Duration) {
        let record = self.0.entry(what).or_default();
        record.not_before = now + pause(record.failed);
        record.failed = record.failed.saturating_add(1);
        record.problem = problem;
        record.last = now;
    }
}

fn pause(times: u32) -> Duration {
    doubled(FIRST_PAUSE, times, LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::leftover::{Chain, Filter};

    const CHAIN: Leftover = Leftover::Chain(Filter::Legacy, Family::V4, Chain::Forward);

    fn seen() -> Seen {
        Seen { what: CHAIN, jumps: 1, users: Vec::new(), guards: false }
    }

    fn ours() -> ByFamily<Ground> {
        ByFamily::from_fn(|_| Ground::Ours)
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn they_go_only_where_ours_stand() {
        for (ground, goes, word) in [(Ground::Nothing, false, "--ip-masq is off"), (Ground::Ours, true, "")] {
            let grounds = ByFamily { v4: ground, v6: Ground::Nothing };
            let decision = Leftovers::default().decide(&[seen()], grounds, at(0));
            assert_eq!(decision.remove, if goes { vec![CHAIN] } else { vec![] }, "{ground:?}");
            let why = decision.stays.get(&CHAIN).cloned().unwrap_or_default();
            assert!(why.contains(word) && (goes || why.contains("iptables-legacy -w -t filter -D FORWARD")), "{why}");
        }
    }

    #[test]
    fn the_rules_of_a_family_that_is_off_go_with_those_of_the_other() {
        use Ground::{Nothing, Ours};
        for (v4, v6, expected) in [
            (Some(true), None, [Ours, Ours]),
            (None, Some(true), [Ours, Ours]),
            (Some(false), None, [Nothing, Nothing]),
            (Some(true), Some(false), [Ours, Nothing]),
            (Some(false), Some(true), [Nothing, Ours]),
            (None, None, [Nothing, Nothing]),
        ] {
            let grounds = grounds(ByFamily { v4, v6 });
            assert_eq!([grounds.v4, grounds.v6], expected, "{v4:?} {v6:?}");
        }
    }

    #[test]
    fn what_shields_pods_or_is_used_by_others_stays() {
        let shield = Seen { guards: true, ..seen() };
        let used = Seen { jumps: 0, users: vec!["DOCKER-USER".to_owned()], ..seen() };
        for (found, word) in [(shield, "the policy of FORWARD"), (used, "from DOCKER-USER")] {
            let decision = Leftovers::default().decide(&[found], ours(), at(0));
            assert_eq!(decision.remove, []);
            assert!(decision.stays[&CHAIN].contains(word), "{decision:?}");
        }
    }

    #[test]
    fn a_flanneld_that_goes_on_is_no_hot_loop_and_is_named() {
        let mut leftovers = Leftovers::default();
        let mut removals: Vec<u64> = Vec::new();
        for second in 0..3600 {
            // It makes them again every five seconds.
            let there = removals.last().is_none_or(|last| second / 5 > last / 5);
            if there && !leftovers.decide(&[seen()], ours(), at(second)).remove.is_empty() {
                leftovers.removed(CHAIN, at(second));
                removals.push(second);
            }
        }
        assert_eq!(removals[..3], [0, 5, 10]);
        assert!((10..30).contains(&removals.len()), "{removals:?}");
        let decision = leftovers.decide(&[seen()], ours(), at(removals.last().expect("one") + 1));
        assert!(decision.stays[&CHAIN].contains("flanneld still runs on this node; stop it"), "{decision:?}");
        let later = removals.last().expect("one") + FORGET.as_secs();
        leftovers.decide(&[], ours(), at(later));
        assert!(leftovers.0.is_empty());
    }

    #[test]
    fn a_failure_is_tried_again_with_growing_pauses() {
        let mut leftovers = Leftovers::default();
        let mut tries: Vec<u64> = Vec::new();
        for second in 0..600 {
            if !leftovers.decide(&[seen()], ours(), at(second)).remove.is_empty() {
                leftovers.failed(CHAIN, "no lock".to_owned(), at(second));
                tries.push(second);
            }
        }
        assert_eq!(tries[..5], [0, 1, 3, 7, 15]);
        assert!(leftovers.decide(&[seen()], ours(), at(600)).stays[&CHAIN].contains("no lock (tried"));
        leftovers.removed(CHAIN, at(900));
        assert_eq!(leftovers.decide(&[seen()], ours(), at(900)).remove, [CHAIN]);
    }
}
