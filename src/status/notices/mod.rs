//! What is in the way and worth a person's attention, as values: the log says each once ([`log`]), and Events
//! on our Node say what a person has to act on ([`stories`], [`herald`]).

pub mod herald;
pub mod log;
pub mod stories;

use super::health::unready;
use crate::model::addr::Family;
use crate::model::node::NodeName;
use crate::plan::desired::Without;
use crate::reconcile::report::{FamilyReport, Report, Verdict};

/// What a notice is about. The order is that of the lines in the log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The pass as a whole.
    Pass,
    /// That our own Node is gone.
    Unlisted,
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
    /// A node that claims what is not its own.
    Rejected(Family, NodeName),
    /// A node whose words make no sense.
    Unusable(Family, NodeName),
    /// A route of somebody else that wins over a peer's.
    Route(Family, NodeName),
    /// Something of ours that somebody keeps changing, as the command that puts it right.
    Fight(Family, String),
    /// Something that the host lacks, by its label.
    Host(&'static str),
}

/// Which agents of the cluster make an Event of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Teller {
    /// Every one that sees it: it is about its own node.
    Us,
    /// Every agent sees the same; a few tell it.
    Few,
    /// None: the nodes that it is about do, or there is no Node yet to tell it of, or the log is enough.
    Nobody,
}

/// One thing that is in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// What it is about: as long as this stays, it is the same notice.
    pub subject: Subject,
    /// Who makes an Event of it.
    pub teller: Teller,
    /// What it is and what to do. No counts and times: as long as nothing changes, the text stays.
    pub text: String,
}

/// Knows what stands although a pass could not look.
#[derive(Debug, Default)]
pub struct Lookout {
    seen: Vec<Notice>,
}

impl Lookout {
    /// Everything that is in the way after a pass. `complaints` are sentences about annotations of our own Node.
    pub fn after(&mut self, report: &Report, complaints: Vec<String>) -> Vec<Notice> {
        let mut now = current(report, complaints);
        if report.desired.is_none() {
            now.extend(self.seen.iter().cloned());
        } else {
            let lasts = |notice: &&Notice| !matches!(notice.subject, Subject::Pass | Subject::Own(_));
            self.seen = now.iter().filter(lasts).cloned().collect();
        }
        now
    }
}

fn current(report: &Report, complaints: Vec<String>) -> Vec<Notice> {
    let mut all = Vec::new();
    let mut say = |teller, subject, text| all.push(Notice { subject, teller, text });
    let families = || report.families.iter().filter_map(|(family, of)| Some((family, of.as_ref()?)));
    for (at, text) in complaints.into_iter().enumerate() {
        say(Teller::Us, Subject::Own(at), text);
    }
    match &report.verdict {
        Verdict::Blind(why) => say(Teller::Us, Subject::Pass, why.clone()),
        // With families, each says what it waits for. Without, our own Node is not known.
        Verdict::Waiting(why) if families().next().is_none() => say(Teller::Nobody, Subject::Pass, why.clone()),
        Verdict::Waiting(_) | Verdict::Converged | Verdict::Incomplete => {}
    }
    if let Some(why) = report.unlisted {
        say(Teller::Nobody, Subject::Unlisted, why.to_owned());
    }
    for (at, text) in report.left_over.iter().enumerate() {
        say(Teller::Nobody, Subject::LeftOver(at), text.clone());
    }
    for (family, of) in families() {
        on_this_node(report, family, of, &mut say);
        let wanted = report.desired.as_ref().and_then(|desired| desired.families.get(family).as_ref());
        for (name, without) in wanted.into_iter().flat_map(|wanted| &wanted.without) {
            match without {
                Without::Absent(_) => {}
                Without::Unusable(_, why) => {
                    let text = format!("cannot be used: {why}; its entries, if any, are kept");
                    say(Teller::Few, Subject::Unusable(family, name.clone()), text);
                }
                Without::Rejected(label, why) => {
                    let text = format!("gets no entries: {why}");
                    say(teller_of_conflict(label), Subject::Rejected(family, name.clone()), text);
                }
            }
        }
    }
    all
}

/// What is wrong on this node in one family.
fn on_this_node(report: &Report, family: Family, of: &FamilyReport, say: &mut impl FnMut(Teller, Subject, String)) {
    if !of.ready && (of.waiting.is_some() || !of.pending.is_empty()) {
        say(Teller::Us, Subject::Device(family), of.waiting.clone().unwrap_or_else(|| unready(of)));
    }
    if let Some(why) = &of.enslaved {
        say(Teller::Us, Subject::Master(family), why.clone());
    }
    if let Some(why) = &of.moving {
        say(Teller::Nobody, Subject::Underlay(family), why.clone());
    }
    for (at, why) in of.stale_bridge.iter().enumerate() {
        say(Teller::Us, Subject::Bridge(family, at), why.clone());
    }
    if let Some(why) = &of.withheld {
        say(Teller::Few, Subject::Withheld(family), why.clone());
    }
    if let Some(why) = &report.filter.get(family).problem {
        say(Teller::Us, Subject::Filter(family), format!("the packet filter is not as it should be: {why}"));
    }
    for shadow in &of.shadows {
        say(Teller::Us, Subject::Route(family, shadow.peer.clone()), shadow.problem.clone());
    }
    for pending in of.pending.iter().filter(|pending| pending.label == "fight") {
        let op = pending.op.to_string();
        let text = format!("{op}: {}", pending.problem);
        say(Teller::Us, Subject::Fight(family, op), text);
    }
}

/// A conflict is told by the nodes that are part of it: the one that somebody else claims something of, which for the
/// other is itself. What anybody can see of a single node is told by a few.
fn teller_of_conflict(label: &str) -> Teller {
    match label {
        "overlaps_own" | "our_address" | "our_mac" => Teller::Us,
        "duplicate_pod_cidr" | "duplicate_mac" | "duplicate_public_ip" => Teller::Nobody,
        _ => Teller::Few,
    }
}
