//! When a story is told: not before it has stood for a while, again while it lasts, and never many at once.
//!
//! Times are since the agent started; the caller has the clock and does the telling.

use std::collections::BTreeMap;
use std::time::Duration;

use super::stories::Key;
use crate::model::backoff::doubled;

/// A story that is over sooner is not told: a blip says nothing. A gap that is shorter is none.
const HOLD: Duration = Duration::from_secs(10);
/// A story that lasts is told again this often: the API server forgets Events after an hour.
const AGAIN: Duration = Duration::from_secs(30 * 60);
/// What one telling costs; time pays it off.
const PRICE: Duration = Duration::from_secs(120);
/// The debt up to which is told: ten at once, then one in two minutes.
const CREDIT: Duration = PRICE.saturating_mul(10);
/// How long a story that is over is remembered, so that its count goes on.
const MEMORY: Duration = Duration::from_secs(3600);
/// The first wait after a failure; it doubles.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// What an Event is to say now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telling {
    key: Key,
    /// It is the end of the story.
    ends: bool,
    /// The Event's `reason`.
    pub reason: &'static str,
    /// Its `message`.
    pub text: String,
    /// What tells it from every other Event of this node.
    pub identity: String,
    /// Its `count` as it stands, if we made it or have seen it.
    pub count: Option<u64>,
}

impl Telling {
    /// The Event's `type`.
    pub const fn kind(&self) -> &'static str {
        if self.ends { "Normal" } else { "Warning" }
    }
}

/// One story.
#[derive(Clone, Debug, Default)]
struct Record {
    /// Since when it is so, gaps left out; `None` once it is over.
    since: Option<Duration>,
    /// When it last was.
    seen: Duration,
    text: String,
    told: Option<Told>,
    /// It was told, came to its end, and that has not been told.
    end_due: bool,
    /// The count of the Event that told its end.
    ends: Option<u64>,
}

/// The last telling.
#[derive(Clone, Debug)]
struct Told {
    at: Duration,
    text: String,
    count: u64,
    /// It was over since: what comes is told anew.
    over: bool,
}

/// Knows what was told.
#[derive(Debug, Default)]
pub struct Herald {
    records: BTreeMap<Key, Record>,
    now: Duration,
    debt: Duration,
    failures: u32,
    not_before: Duration,
}

impl Herald {
    /// Takes in how things stand.
    pub fn observe(&mut self, stories: &BTreeMap<Key, String>, now: Duration) {
        self.debt = self.debt.saturating_sub(now.saturating_sub(self.now));
        self.now = now;
        for (key, text) in stories {
            let record = self.records.entry(key.clone()).or_default();
            record.since.get_or_insert(now);
            record.seen = now;
            record.text.clone_from(text);
        }
        for (key, record) in &mut self.records {
            if record.since.is_some() && now.saturating_sub(record.seen) > HOLD {
                record.since = None;
                let news = record.told.as_ref().is_some_and(|told| !told.over);
                record.end_due |= news && key.reason.end().is_some();
                record.told.iter_mut().for_each(|told| told.over = true);
            }
            // Back before its end was told: it has none.
            record.end_due &= record.since.is_none();
        }
        let remembered = |told: &Told| now.saturating_sub(told.at) < MEMORY;
        self.records.retain(|_, record| record.since.is_some() || record.told.as_ref().is_some_and(remembered));
    }

    /// What is to be told first, if anything is due.
    pub fn next(&self) -> Option<Telling> {
        if self.now < self.not_before || self.debt + PRICE > CREDIT {
            return None;
        }
        let news =
            || self.records.iter().filter(|(_, record)| self.is_news(record)).map(|(key, record)| tell(key, record));
        let ends =
            || self.records.iter().filter(|(_, record)| record.end_due).filter_map(|(key, it)| tell_end(key, it));
        let lasting = self.records.iter().filter(|(_, record)| self.lasts(record));
        let oldest = lasting.min_by_key(|(_, record)| record.told.as_ref().map(|told| told.at));
        news().next().or_else(|| ends().next()).or_else(|| oldest.map(|(key, record)| tell(key, record)))
    }

    fn stands(&self, record: &Record) -> bool {
        record.seen == self.now && record.since.is_some_and(|since| self.now.saturating_sub(since) >= HOLD)
    }

    fn is_news(&self, record: &Record) -> bool {
        let news = match &record.told {
            None => true,
            Some(told) => told.over || (told.text != record.text && self.now.saturating_sub(told.at) >= HOLD),
        };
        news && self.stands(record)
    }

    fn lasts(&self, record: &Record) -> bool {
        self.stands(record) && record.told.as_ref().is_some_and(|told| self.now.saturating_sub(told.at) >= AGAIN)
    }

    /// It was told; the Event's `count` is this now.
    pub fn told(&mut self, telling: &Telling, count: u64) {
        (self.failures, self.debt) = (0, self.debt + PRICE);
        let Some(record) = self.records.get_mut(&telling.key) else { return };
        if telling.ends {
            (record.end_due, record.ends) = (false, Some(count));
        } else {
            record.told = Some(Told { at: self.now, text: telling.text.clone(), count, over: false });
        }
    }

    /// It could not be told, at this moment; `asked` is how long the server wants to be left alone. How long it is.
    pub fn failed(&mut self, now: Duration, asked: Option<Duration>) -> Duration {
        let wait = doubled(FIRST_WAIT, self.failures, LONGEST_WAIT).max(asked.unwrap_or_default().min(LONGEST_WAIT));
        self.failures = self.failures.saturating_add(1);
        self.not_before = now + wait;
        wait
    }

    /// Failures in a row.
    pub const fn failures(&self) -> u32 {
        self.failures
    }
}

fn tell(key: &Key, record: &Record) -> Telling {
    let (reason, count) = (key.reason.word(), record.told.as_ref().map(|told| told.count));
    let identity = format!("{reason} {}", key.about);
    Telling { key: key.clone(), ends: false, reason, text: record.text.clone(), identity, count }
}

fn tell_end(key: &Key, record: &Record) -> Option<Telling> {
    let (reason, text) = key.reason.end()?;
    let identity = format!("{reason} {}", key.about);
    Some(Telling { key: key.clone(), ends: true, reason, text: text.to_owned(), identity, count: record.ends })
}

#[cfg(test)]
mod tests {
    use super::super::stories::Reason;
    use super::*;

    fn key(n: usize) -> Key {
        Key { reason: Reason::PeerConflict, about: format!("node-{n}") }
    }

    fn overlay() -> Key {
        Key { reason: Reason::OverlayNotReady, about: String::new() }
    }

    fn second(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Looks every second from one moment to another and tells what is due: the moments and the texts.
    fn run(
        herald: &mut Herald,
        from: u64,
        to: u64,
        is: impl Fn(u64) -> Vec<(Key, &'static str)>,
    ) -> Vec<(u64, String)> {
        let mut said = Vec::new();
        for now in from..to {
            let stories = is(now).into_iter().map(|(key, text)| (key, text.to_owned())).collect();
            herald.observe(&stories, second(now));
            while let Some(telling) = herald.next() {
                let count = telling.count.unwrap_or(0) + 1;
                said.push((now, format!("{} {} {count}", telling.kind(), telling.text)));
                herald.told(&telling, count);
            }
        }
        said
    }

    fn texts(said: &[(u64, String)]) -> Vec<(u64, &str)> {
        said.iter().map(|(at, text)| (*at, text.as_str())).collect()
    }

    #[test]
    fn a_blip_says_nothing_and_what_stands_is_told_once() {
        let mut herald = Herald::default();
        assert!(run(&mut herald, 0, 60, |now| if now % 25 < 9 { vec![(key(1), "bad")] } else { vec![] }).is_empty());
        assert!(run(&mut herald, 60, 80, |_| vec![]).is_empty());
        let said = run(&mut herald, 80, 1000, |_| vec![(key(1), "bad")]);
        assert_eq!(texts(&said), [(90, "Warning bad 1")]);
    }

    #[test]
    fn short_gaps_are_none() {
        let mut herald = Herald::default();
        let said = run(&mut herald, 0, 300, |now| if now % 7 == 0 { vec![] } else { vec![(key(1), "a fight")] });
        assert_eq!(texts(&said), [(11, "Warning a fight 1")]);
    }

    #[test]
    fn what_lasts_is_told_again_and_counted() {
        let mut herald = Herald::default();
        let said = run(&mut herald, 0, 4000, |_| vec![(key(1), "bad")]);
        assert_eq!(texts(&said), [(10, "Warning bad 1"), (1810, "Warning bad 2"), (3610, "Warning bad 3")]);
    }

    #[test]
    fn what_comes_back_is_told_anew_and_its_count_goes_on() {
        let mut herald = Herald::default();
        let said =
            run(&mut herald, 0, 200, |now| if (50..100).contains(&now) { vec![] } else { vec![(key(1), "bad")] });
        assert_eq!(texts(&said), [(10, "Warning bad 1"), (110, "Warning bad 2")]);
    }

    #[test]
    fn another_text_is_told_soon() {
        let mut herald = Herald::default();
        let said = run(&mut herald, 0, 100, |now| vec![(key(1), if now < 12 { "a" } else { "b" })]);
        assert_eq!(texts(&said), [(10, "Warning a 1"), (20, "Warning b 2")]);
    }

    #[test]
    fn an_end_is_told_if_the_beginning_was() {
        let mut herald = Herald::default();
        let said = run(&mut herald, 0, 100, |now| if now < 5 { vec![(overlay(), "no CIDR")] } else { vec![] });
        assert_eq!(texts(&said), []);
        let said = run(&mut herald, 100, 300, |now| if now < 150 { vec![(overlay(), "no CIDR")] } else { vec![] });
        let end = "Normal this node's device can receive again 1";
        assert_eq!(texts(&said), [(110, "Warning no CIDR 1"), (160, end)]);
    }

    #[test]
    fn ten_are_told_at_once_and_then_one_in_two_minutes_the_urgent_first() {
        let mut herald = Herald::default();
        let many = |_| {
            let mut all: Vec<(Key, &'static str)> = (0..20).map(|n| (key(n), "bad")).collect();
            all.push((overlay(), "urgent"));
            all
        };
        let said = run(&mut herald, 0, 600, many);
        assert_eq!(said.iter().filter(|(at, _)| *at == 10).count(), 10);
        assert_eq!(said.first().map(|(_, text)| text.as_str()), Some("Warning urgent 1"));
        let later: Vec<u64> = said.iter().map(|(at, _)| *at).filter(|at| *at > 10).collect();
        assert_eq!(later, [130, 250, 370, 490]);
    }

    #[test]
    fn a_server_that_does_not_take_it_is_asked_ever_more_rarely_and_nothing_is_lost() {
        let (mut herald, mut tries) = (Herald::default(), Vec::new());
        for now in 0..2000 {
            herald.observe(&[(key(1), "bad".to_owned())].into(), second(now));
            if herald.next().is_some() {
                tries.push(now);
                herald.failed(second(now), (now == 10).then_some(second(30)));
            }
        }
        assert_eq!(tries, [10, 40, 42, 46, 54, 70, 102, 166, 294, 550, 850, 1150, 1450, 1750]);
        assert_eq!(texts(&run(&mut herald, 2050, 2060, |_| vec![(key(1), "bad")])), [(2060 - 10, "Warning bad 1")]);
    }
}
