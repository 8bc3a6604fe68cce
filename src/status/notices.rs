//! What is in the way, said once: a line when something comes up, one when it is over.

use std::collections::BTreeMap;

use crate::model::addr::Family;
use crate::model::node::NodeName;
use crate::plan::desired::Without;
use crate::reconcile::report::{Report, Verdict};

/// Lines of one kind in one pass; what is beyond is only counted (`/state` has all of it).
const LINES: usize = 50;

/// What a notice is about. The order is that of the lines.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    /// The pass as a whole.
    Pass,
    /// An annotation of our own Node.
    Own(usize),
    /// A device of a family that is off.
    LeftOver(usize),
    /// A family's device.
    Device(Family),
    /// Who a family's device is a port of.
    Master(Family),
    /// A family's underlay.
    Underlay(Family),
    /// The pods' bridge, by a family's addresses.
    Bridge(Family, usize),
    /// A family's removals.
    Withheld(Family),
    /// A family's table of the packet filter.
    Filter(Family),
    /// Another node, in a family.
    Node(Family, NodeName),
    /// A route of somebody else that wins over a peer's.
    Route(Family, NodeName),
}

/// What has been said and is not over.
#[derive(Debug, Default)]
pub struct Notices {
    said: BTreeMap<Subject, String>,
}

impl Notices {
    /// Logs what is new since the last pass, and what is over. `complaints` are sentences about
    /// annotations of our own Node.
    pub fn tell(&mut self, report: &Report, complaints: Vec<String>) {
        let mut now = current(report);
        now.extend(complaints.into_iter().enumerate().map(|(at, text)| (Subject::Own(at), text)));
        if report.desired.is_none() {
            // Nobody looked: what was in the way still is.
            let kept = self.said.iter().filter(|(subject, _)| !matches!(subject, Subject::Pass | Subject::Own(_)));
            now.extend(kept.map(|(subject, text)| (subject.clone(), text.clone())));
        }
        let new = now.iter().filter(|(subject, text)| self.said.get(*subject) != Some(*text));
        let beyond = new.clone().count().saturating_sub(LINES);
        for (subject, text) in new.take(LINES) {
            match subject {
                Subject::Node(family, name) => tracing::warn!(node = &**name, "{family}: {text}"),
                Subject::Device(family)
                | Subject::Master(family)
                | Subject::Underlay(family)
                | Subject::Bridge(family, _)
                | Subject::Withheld(family)
                | Subject::Filter(family) => {
                    tracing::warn!("{family}: {text}");
                }
                Subject::Route(family, name) => tracing::warn!(peer = &**name, "{family}: {text}"),
                Subject::Pass | Subject::Own(_) | Subject::LeftOver(_) => tracing::warn!("{text}"),
            }
        }
        if beyond > 0 {
            tracing::warn!("and {beyond} notices more: /state has all of them");
        }
        let over = self.said.iter().filter(|(subject, _)| !now.contains_key(*subject));
        for (subject, text) in over.take(LINES) {
            match subject {
                Subject::Node(family, name) | Subject::Route(family, name) => {
                    tracing::info!(node = &**name, "{family}: no longer so: {text}");
                }
                Subject::Device(family)
                | Subject::Master(family)
                | Subject::Underlay(family)
                | Subject::Bridge(family, _)
                | Subject::Withheld(family)
                | Subject::Filter(family) => {
                    tracing::info!("{family}: no longer so: {text}");
                }
                Subject::Pass | Subject::Own(_) | Subject::LeftOver(_) => tracing::info!("no longer so: {text}"),
            }
        }
        self.said = now;
    }
}

fn current(report: &Report) -> BTreeMap<Subject, String> {
    let mut now = BTreeMap::new();
    let families = || report.families.iter().filter_map(|(family, of)| Some((family, of.as_ref()?)));
    match &report.verdict {
        Verdict::Blind(why) => drop(now.insert(Subject::Pass, why.clone())),
        // With families, each says what it waits for.
        Verdict::Waiting(why) if families().next().is_none() => drop(now.insert(Subject::Pass, why.clone())),
        Verdict::Waiting(_) | Verdict::Converged | Verdict::Incomplete => {}
    }
    let left_over = report.left_over.iter().enumerate();
    now.extend(left_over.map(|(at, text)| (Subject::LeftOver(at), text.clone())));
    for (family, of) in families() {
        now.extend(of.waiting.iter().map(|why| (Subject::Device(family), why.clone())));
        now.extend(of.enslaved.iter().map(|why| (Subject::Master(family), why.clone())));
        now.extend(of.moving.iter().map(|why| (Subject::Underlay(family), why.clone())));
        let stale = of.stale_bridge.iter().enumerate();
        now.extend(stale.map(|(at, why)| (Subject::Bridge(family, at), why.clone())));
        now.extend(of.withheld.iter().map(|why| (Subject::Withheld(family), why.clone())));
        let filter = report.filter.get(family).problem.iter();
        now.extend(
            filter.map(|why| (Subject::Filter(family), format!("the packet filter is not as it should be: {why}"))),
        );
        let shadows = of.shadows.iter();
        now.extend(shadows.map(|shadow| (Subject::Route(family, shadow.peer.clone()), shadow.problem.clone())));
        let wanted = report.desired.as_ref().and_then(|desired| desired.families.get(family).as_ref());
        for (name, without) in wanted.into_iter().flat_map(|wanted| &wanted.without) {
            let text = match without {
                Without::Absent(_) => continue,
                Without::Unusable(_, why) => format!("cannot be used: {why}; its entries, if any, are kept"),
                Without::Rejected(_, why) => format!("gets no entries: {why}"),
            };
            now.insert(Subject::Node(family, name.clone()), text);
        }
    }
    now
}
