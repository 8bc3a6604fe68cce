//! When to try again: failing entries with growing delay, each on its own; and entries that somebody
//! keeps changing, so that two programs do not fight as fast as they can.
//!
//! Times are durations since the agent started; the caller has the clock.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::model::addr::{Family, IfName, Subnet};
use crate::model::backoff::doubled;
use crate::model::op::{LinkOp, Op};
use crate::model::table::{Entry, FdbKey, RouteKey};

/// The first delay after a failure; it doubles.
const FIRST_DELAY: Duration = Duration::from_millis(100);
/// The longest delay.
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// What one repair adds to an entry's debt; time pays it off. So one repair in this time can go on
/// for ever.
const PRICE: Duration = Duration::from_secs(1);
/// The debt from which on it is a fight: thirty repairs at once are none.
const CREDIT: Duration = Duration::from_secs(30);
/// The first pause in a fight; it doubles with every repair, until the debt is paid.
const FIRST_TRUCE: Duration = Duration::from_secs(1);

/// What is being tried: a key of a table, or a kind of change to a device; of its addresses, each one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    /// The main table has one key for all interfaces.
    Route(RouteKey),
    Neighbour(IfName, IpAddr),
    Fdb(IfName, FdbKey),
    Link(IfName, std::mem::Discriminant<LinkOp>, Option<(IpAddr, u8)>),
    Filter(Family),
}

/// What a look was about.
#[derive(Clone, Copy, Debug)]
pub enum Look<'a> {
    /// The settings of a device.
    Settings(&'a IfName),
    /// The rows of a device and the routes of its family.
    Rows(&'a IfName, Family),
    /// The packet filter of a family.
    Filter(Family),
}

impl Look<'_> {
    fn is_about(self, subject: &Subject) -> bool {
        match (self, subject) {
            (Self::Settings(device), Subject::Link(of, ..))
            | (Self::Rows(device, _), Subject::Neighbour(of, _) | Subject::Fdb(of, _)) => of == device,
            (Self::Rows(_, family), Subject::Route(key)) => key.dst.family() == family,
            (Self::Filter(family), Subject::Filter(of)) => *of == family,
            (Self::Settings(_) | Self::Filter(_), _) | (Self::Rows(..), Subject::Link(..) | Subject::Filter(_)) => {
                false
            }
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Record {
    failures: u32,
    repairs: u32,
    truces: u32,
    debt: Duration,
    last: Duration,
    not_before: Duration,
    /// Routes of others that the last look found in the way of a route.
    in_the_way: Vec<RouteKey>,
    problem: String,
}

/// The records of everything that failed or was repaired lately.
#[derive(Debug, Default)]
pub struct Attempts {
    records: HashMap<Subject, Record>,
}

/// Why something is not tried now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutOff {
    /// When it will be.
    pub until: Duration,
    /// Whether somebody keeps undoing it, rather than the kernel refusing it.
    pub fight: bool,
    /// What happened the last time.
    pub problem: String,
    /// How often in a row.
    pub times: u32,
}

impl Attempts {
    /// Whether nothing failed or was repaired lately: then nothing has to wait.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Whether the change has to wait.
    pub fn put_off(&self, op: &Op, now: Duration) -> Option<PutOff> {
        let record = self.record(op)?;
        let (fight, times) = if record.failures > 0 { (false, record.failures) } else { (true, record.repairs) };
        (now < record.not_before).then(|| PutOff {
            until: record.not_before,
            fight,
            problem: record.problem.clone(),
            times,
        })
    }

    /// Whether the last attempt at this failed.
    pub fn has_failed(&self, op: &Op) -> bool {
        self.record(op).is_some_and(|record| record.failures > 0)
    }

    /// Most of the time nothing has failed lately, and thousands of changes ask.
    fn record(&self, op: &Op) -> Option<&Record> {
        if self.records.is_empty() { None } else { self.records.get(&key(op)) }
    }

    /// Takes note of a failure.
    pub fn failed(&mut self, op: &Op, problem: String, now: Duration) {
        let record = self.records.entry(key(op)).or_default();
        record.not_before = now + doubled(FIRST_DELAY, record.failures, LONGEST_DELAY);
        record.failures = record.failures.saturating_add(1);
        record.problem = problem;
    }

    /// Takes note that the kernel said it had done this, a moment ago, and has not: a failure, unless it
    /// has to wait already.
    pub fn doubted(&mut self, op: &Op, now: Duration) {
        if self.put_off(op, now).is_none() {
            self.failed(op, "the kernel acknowledged it but does not have it so".to_owned(), now);
        }
    }

    /// Takes note of a success; `drift` if it undid what somebody else had done. The failures before it
    /// count until a look shows that it is one ([`Attempts::looked`]).
    pub fn succeeded(&mut self, op: &Op, drift: bool, now: Duration) {
        if !drift && self.records.is_empty() {
            return;
        }
        let key = key(op);
        if !drift {
            match self.records.get_mut(&key) {
                Some(record) if record.failures > 0 => record.not_before = now,
                _ => drop(self.records.remove(&key)),
            }
            return;
        }
        let record = self.records.entry(key).or_default();
        record.pay_off(now);
        record.debt += PRICE;
        record.repairs = record.repairs.saturating_add(1);
        if record.debt > CREDIT {
            record.not_before = now + doubled(FIRST_TRUCE, record.truces, LONGEST_DELAY);
            // A truce that we keep alone pays nothing off.
            record.last = record.not_before;
            record.truces = record.truces.saturating_add(1);
            "something else keeps changing it".clone_into(&mut record.problem);
        }
    }

    /// After a look: what nothing is left to do about has not failed, whether it is right now or nobody
    /// wants it any more. `left` is all that is to be done about what was looked at.
    pub fn looked<'a>(&mut self, look: Look<'_>, left: impl IntoIterator<Item = &'a Op>) {
        if !self.records.values().any(|record| record.failures > 0) {
            return;
        }
        let left: HashSet<_> = left.into_iter().map(key).collect();
        for (key, record) in &mut self.records {
            if look.is_about(key) && record.failures > 0 && !left.contains(key) {
                record.failures = 0;
                if record.truces == 0 {
                    record.not_before = Duration::ZERO;
                }
            }
        }
    }

    /// After a look at the routes of others in a family: a route of ours that failed while one of those had its
    /// key, or led to its gateway (which is all that IPv6 minds), need not wait once that one has gone.
    pub fn saw_others(&mut self, family: Family, others: impl Iterator<Item = RouteKey>) {
        let mut failed: Vec<(Subnet, &mut Record)> = Vec::new();
        for (subject, record) in &mut self.records {
            if let Subject::Route(key) = subject
                && record.failures > 0
                && key.dst.family() == family
            {
                failed.push((key.dst, record));
            }
        }
        if failed.is_empty() {
            return;
        }
        let others: Vec<RouteKey> = others.collect();
        for (dst, record) in failed {
            let leads_there = |other: &&RouteKey| other.dst.contains(dst.base());
            let now: Vec<RouteKey> = others.iter().filter(leads_there).copied().collect();
            let before = std::mem::replace(&mut record.in_the_way, now);
            if before.iter().any(|other| !record.in_the_way.contains(other)) {
                record.not_before = Duration::ZERO;
            }
        }
    }

    /// Forgets what is long over. Call once a pass.
    pub fn forgive(&mut self, now: Duration) {
        self.records.retain(|_, record| {
            record.pay_off(now);
            now < record.not_before || !record.debt.is_zero() || record.failures > 0
        });
    }

    /// The earliest moment at which something put off may be tried.
    pub fn next_try(&self, now: Duration) -> Option<Duration> {
        self.records.values().map(|record| record.not_before).filter(|at| *at > now).min()
    }
}

impl Record {
    fn pay_off(&mut self, now: Duration) {
        self.debt = self.debt.saturating_sub(now.saturating_sub(self.last));
        self.last = self.last.max(now);
        if self.debt.is_zero() {
            (self.repairs, self.truces) = (0, 0);
        }
    }
}

fn key(op: &Op) -> Subject {
    match op {
        Op::Filter(op) => Subject::Filter(op.family),
        Op::Link(link) => Subject::Link(link.device().clone(), std::mem::discriminant(link), link.address()),
        Op::Set { dev, entry, .. } | Op::Del { dev, entry } => match entry {
            Entry::Route(key, _) => Subject::Route(*key),
            Entry::Neighbour(ip, _) => Subject::Neighbour(dev.name.clone(), *ip),
            Entry::Fdb(key, _) => Subject::Fdb(dev.name.clone(), *key),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::addr::IfIndex;
    use crate::model::op::Dev;

    fn device() -> IfName {
        IfName::new("flannel.1")
    }

    fn up() -> Op {
        Op::Link(LinkOp::Up(Dev { index: IfIndex(3), name: device() }))
    }

    #[test]
    fn failures_wait_longer_and_longer_up_to_a_minute() {
        let (mut attempts, mut now, mut waits) = (Attempts::default(), Duration::ZERO, Vec::new());
        for _ in 0..12 {
            attempts.failed(&up(), "no".into(), now);
            let until = attempts.put_off(&up(), now).expect("put off").until;
            waits.push(until.saturating_sub(now).as_millis());
            now = until;
            assert!(attempts.put_off(&up(), now).is_none());
        }
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000]);
        attempts.succeeded(&up(), false, now);
        assert!(attempts.put_off(&up(), now).is_none());
        assert!(attempts.has_failed(&up()), "an acknowledgement is no proof");
        attempts.looked(Look::Settings(&device()), &[]);
        assert!(!attempts.has_failed(&up()));
        attempts.forgive(now);
        assert!(attempts.records.is_empty());
    }

    #[test]
    fn what_is_right_by_itself_is_not_waited_for_when_it_breaks_again() {
        let mut attempts = Attempts::default();
        (0..12).for_each(|_| attempts.failed(&up(), "no".into(), Duration::ZERO));
        attempts.looked(Look::Rows(&device(), Family::V4), &[]);
        assert!(attempts.put_off(&up(), Duration::ZERO).is_some(), "that look was at the rows");
        attempts.looked(Look::Settings(&device()), &[up()]);
        assert!(attempts.put_off(&up(), Duration::ZERO).is_some(), "it is still to be done");
        attempts.looked(Look::Settings(&device()), &[]);
        assert_eq!(attempts.put_off(&up(), Duration::ZERO), None);
    }

    #[test]
    fn what_was_done_about_one_address_says_nothing_of_another() {
        let dev = Dev { index: IfIndex(3), name: device() };
        let [first, second] = ["10.244.0.0", "10.244.1.0"].map(|text| text.parse().expect("an address"));
        let del = |ip: IpAddr, len| Op::Link(LinkOp::DelAddress(dev.clone(), ip, len));
        let mut attempts = Attempts::default();
        attempts.failed(&del(first, 32), "no".into(), Duration::ZERO);
        assert!(attempts.has_failed(&del(first, 32)));
        assert_eq!(attempts.put_off(&del(second, 32), Duration::ZERO), None);
        assert_eq!(attempts.put_off(&del(first, 24), Duration::ZERO), None);
        assert_eq!(attempts.put_off(&Op::Link(LinkOp::AddAddress(dev, first, 32)), Duration::ZERO), None);
    }

    #[test]
    fn thirty_repairs_at_once_are_no_fight_and_one_a_second_never_is() {
        let mut attempts = Attempts::default();
        for second in 0..1000 {
            attempts.succeeded(&up(), true, Duration::from_secs(second));
            assert_eq!(attempts.put_off(&up(), Duration::from_secs(second)), None);
        }
        let mut attempts = Attempts::default();
        (0..30).for_each(|_| attempts.succeeded(&up(), true, Duration::ZERO));
        assert_eq!(attempts.put_off(&up(), Duration::ZERO), None);
    }

    #[test]
    fn a_fight_is_damped_and_forgotten_when_it_is_over() {
        let (mut attempts, mut now, mut repairs) = (Attempts::default(), Duration::ZERO, 0);
        while now < Duration::from_secs(300) {
            match attempts.put_off(&up(), now) {
                Some(put_off) => {
                    assert!(put_off.fight);
                    now = put_off.until;
                }
                None => {
                    attempts.succeeded(&up(), true, now);
                    repairs += 1;
                    now += Duration::from_millis(20);
                }
            }
        }
        assert!((31..60).contains(&repairs), "{repairs} repairs in five minutes");
        now += Duration::from_secs(120);
        attempts.forgive(now);
        assert!(attempts.records.is_empty());
    }
}
