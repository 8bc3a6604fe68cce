//! A line when something comes up, one when it is over.

use std::collections::BTreeMap;

use super::{Lookout, Notice, Subject};
use crate::reconcile::report::Report;

/// Lines of one kind in one pass; what is beyond is only counted (`/state` has all of it).
const LINES: usize = 50;

/// What has been said and is not over.
#[derive(Debug, Default)]
pub struct Notices {
    lookout: Lookout,
    said: BTreeMap<Subject, String>,
}

/// One notice as a line.
macro_rules! line {
    ($level:ident, $before:literal, $subject:expr, $text:expr) => {{
        let text = $text;
        match $subject {
            Subject::Rejected(family, name) | Subject::Unusable(family, name) => {
                tracing::$level!(node = &**name, concat!("{}: ", $before, "{}"), family, text);
            }
            Subject::Route(family, name) => {
                tracing::$level!(peer = &**name, concat!("{}: ", $before, "{}"), family, text);
            }
            Subject::Device(family)
            | Subject::Master(family)
            | Subject::Underlay(family)
            | Subject::Bridge(family, _)
            | Subject::Withheld(family)
            | Subject::Filter(family)
            | Subject::Fight(family, _) => tracing::$level!(concat!("{}: ", $before, "{}"), family, text),
            Subject::Pass | Subject::Unlisted | Subject::Own(_) | Subject::LeftOver(_) | Subject::Host(_) => {
                tracing::$level!(concat!($before, "{}"), text)
            }
        }
    }};
}

impl Notices {
    /// Logs what is new since the last pass, and what is over. `complaints` are sentences about
    /// annotations of our own Node.
    pub fn tell(&mut self, report: &Report, complaints: Vec<String>) {
        let now = self.lookout.after(report, complaints).into_iter();
        let now: BTreeMap<Subject, String> = now.map(|Notice { subject, text, .. }| (subject, text)).collect();
        let new = now.iter().filter(|(subject, text)| self.said.get(*subject) != Some(*text));
        let beyond = new.clone().count().saturating_sub(LINES);
        for (subject, text) in new.take(LINES) {
            line!(warn, "", subject, text);
        }
        if beyond > 0 {
            tracing::warn!("and {beyond} notices more: /state has all of them");
        }
        let over = self.said.iter().filter(|(subject, _)| !now.contains_key(*subject));
        for (subject, text) in over.take(LINES) {
            line!(info, "no longer so: ", subject, text);
        }
        self.said = now;
    }
}
