//! Which notices become Events on our Node, and in which words: few, whatever the size of the cluster.

use std::collections::BTreeMap;

use super::{Notice, Subject, Teller};
use crate::model::addr::Family;
use crate::model::hash;

/// So many agents tell of something that all of them see.
const FEW: usize = 3;
/// From more than this of one reason at a time one Event is made.
const SEVERAL: usize = 5;
/// A longer text is cut (bytes). The API takes 1,024 characters in an Event of its newer kind.
const LONGEST: usize = 1000;

/// The reasons of our Events, the most urgent first. `docs/operating.md` says what to do about each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// This node cannot receive.
    OverlayNotReady,
    /// A Node claims what is this node's, or what no Node may have.
    PeerConflict,
    /// Somebody else's route wins over one of ours.
    ForeignRoute,
    /// Somebody keeps undoing what weft does.
    ChangedByOthers,
    /// Our table of packet rules is not in place.
    PacketRulesMissing,
    /// The pods' bridge has an address of an earlier pod CIDR.
    StaleBridgeAddress,
    /// The host lacks something that pods need.
    HostProblem,
    /// An annotation of our Node asks for what cannot be done.
    BadAnnotation,
    /// A Node cannot be used as a peer.
    PeerUnusable,
    /// Entries of nodes that are gone are kept for now.
    RemovalsWithheld,
}

impl Reason {
    /// Every one.
    pub const ALL: [Self; 10] = [
        Self::OverlayNotReady,
        Self::PeerConflict,
        Self::ForeignRoute,
        Self::ChangedByOthers,
        Self::PacketRulesMissing,
        Self::StaleBridgeAddress,
        Self::HostProblem,
        Self::BadAnnotation,
        Self::PeerUnusable,
        Self::RemovalsWithheld,
    ];

    /// The Event's `reason`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::OverlayNotReady => "OverlayNotReady",
            Self::PeerConflict => "PeerConflict",
            Self::ForeignRoute => "ForeignRoute",
            Self::ChangedByOthers => "ChangedByOthers",
            Self::PacketRulesMissing => "PacketRulesMissing",
            Self::StaleBridgeAddress => "StaleBridgeAddress",
            Self::HostProblem => "HostProblem",
            Self::BadAnnotation => "BadAnnotation",
            Self::PeerUnusable => "PeerUnusable",
            Self::RemovalsWithheld => "RemovalsWithheld",
        }
    }

    /// The `reason` and the text of the Event that says that it is over, where one is worth it.
    pub const fn end(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::OverlayNotReady => Some(("OverlayReady", "this node's device can receive again")),
            _ => None,
        }
    }

    const fn of(subject: &Subject) -> Self {
        match subject {
            Subject::Pass | Subject::Unlisted | Subject::Device(_) | Subject::Underlay(_) => Self::OverlayNotReady,
            Subject::Own(_) => Self::BadAnnotation,
            Subject::Bridge(..) => Self::StaleBridgeAddress,
            Subject::Withheld(_) => Self::RemovalsWithheld,
            Subject::Filter(_) => Self::PacketRulesMissing,
            Subject::Rejected(..) => Self::PeerConflict,
            Subject::Unusable(..) => Self::PeerUnusable,
            Subject::Route(..) => Self::ForeignRoute,
            Subject::Fight(..) => Self::ChangedByOthers,
            Subject::Host(_) | Subject::LeftOver(_) | Subject::Master(_) => Self::HostProblem,
        }
    }
}

/// What an Event is about: as long as this stays, it is the same Event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Its reason.
    pub reason: Reason,
    /// A node, a row, or nothing.
    pub about: String,
}

/// The texts of one key, each with the families that it is true of.
type Texts<'a> = BTreeMap<&'a str, Vec<Family>>;

/// What this agent has to tell: `own` among the `agents` of the cluster, whose names may be in any order.
pub fn stories(notices: &[Notice], own: &str, agents: &[&str]) -> BTreeMap<Key, String> {
    let others: Vec<u64> = agents.iter().filter(|agent| **agent != own).map(|agent| number(agent)).collect();
    let mut by_reason: BTreeMap<Reason, BTreeMap<String, Texts<'_>>> = BTreeMap::new();
    for notice in notices {
        let (about, family) = parts(&notice.subject);
        let ours = match notice.teller {
            Teller::Us => true,
            Teller::Few => is_ours(&about, own, &others),
            Teller::Nobody => false,
        };
        if ours {
            let texts = by_reason.entry(Reason::of(&notice.subject)).or_default().entry(about).or_default();
            texts.entry(&notice.text).or_default().extend(family);
        }
    }
    by_reason.into_iter().flat_map(|(reason, abouts)| of_reason(reason, &abouts)).collect()
}

fn of_reason(reason: Reason, abouts: &BTreeMap<String, Texts<'_>>) -> Vec<(Key, String)> {
    let told = |(about, texts): (&String, &Texts<'_>)| {
        let name = if matches!(reason, Reason::PeerConflict | Reason::PeerUnusable) { about.as_str() } else { "" };
        (Key { reason, about: about.clone() }, sentence(name, texts))
    };
    if abouts.len() <= SEVERAL {
        return abouts.iter().map(told).map(|(key, text)| (key, cut(text))).collect();
    }
    // Without the number, which changes while a person reads.
    let first = abouts.iter().next().map(told).map(|(_, text)| text).unwrap_or_default();
    let text = format!("more than {SEVERAL} at once, all of them in this agent's /state; one is: {first}");
    vec![(Key { reason, about: String::new() }, cut(text))]
}

/// The name of what it is about, and the family.
fn parts(subject: &Subject) -> (String, Option<Family>) {
    match subject {
        Subject::Pass | Subject::Unlisted => (String::new(), None),
        Subject::Own(at) | Subject::LeftOver(at) => (at.to_string(), None),
        Subject::Device(family)
        | Subject::Master(family)
        | Subject::Underlay(family)
        | Subject::Withheld(family)
        | Subject::Filter(family)
        | Subject::Bridge(family, _) => (String::new(), Some(*family)),
        Subject::Rejected(family, name) | Subject::Unusable(family, name) | Subject::Route(family, name) => {
            (name.to_string(), Some(*family))
        }
        Subject::Fight(family, op) => (op.clone(), Some(*family)),
        Subject::Host(label) => ((*label).to_owned(), None),
    }
}

/// `node-7: ipv4 and ipv6: cannot be used: …`
fn sentence(name: &str, texts: &Texts<'_>) -> String {
    let one = |(text, families): (&&str, &Vec<Family>)| {
        let families: Vec<&str> = families.iter().map(|family| family.label()).collect();
        if families.is_empty() { (*text).to_owned() } else { format!("{}: {text}", families.join(" and ")) }
    };
    let told = texts.iter().map(one).collect::<Vec<_>>().join("; ");
    if name.is_empty() { told } else { format!("{name}: {told}") }
}

fn cut(mut text: String) -> String {
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

// === Who tells ===

fn number(text: &str) -> u64 {
    hash::spread(hash::of(text.bytes()))
}

/// Whether we are among the few that tell of this: those whose hash with it is highest (rendezvous). Every agent comes
/// to the same answer, as far as it knows the same agents, without a word between them.
fn is_ours(about: &str, own: &str, others: &[u64]) -> bool {
    let about = number(about);
    let rank = |agent: u64| hash::spread(agent ^ about);
    let ours = rank(number(own));
    others.iter().filter(|agent| rank(**agent) > ours).take(FEW).count() < FEW
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(subject: Subject, teller: Teller, text: &str) -> Notice {
        Notice { subject, teller, text: text.to_owned() }
    }

    fn unusable(name: &str) -> Notice {
        notice(Subject::Unusable(Family::V4, name.into()), Teller::Few, "cannot be used")
    }

    #[test]
    fn of_five_thousand_agents_three_tell_of_a_bad_peer_and_the_work_is_shared() {
        let names: Vec<String> = (0..5000).map(|n| format!("node-{n}")).collect();
        let agents: Vec<&str> = names.iter().map(String::as_str).collect();
        let others: Vec<u64> = agents.iter().map(|agent| number(agent)).collect();
        let mut told: BTreeMap<&str, usize> = BTreeMap::new();
        for peer in ["bad-1", "bad-2", "node-7", ""] {
            let telling: Vec<&&str> = agents.iter().filter(|own| is_ours(peer, own, &others)).collect();
            assert_eq!(telling.len(), FEW, "{peer}: {telling:?}");
            telling.iter().for_each(|own| *told.entry(own).or_default() += 1);
        }
        assert!(told.len() > 8, "{told:?}");
        assert!(is_ours("bad", "alone", &[]));
    }

    #[test]
    fn an_agent_tells_of_its_own_and_not_of_what_others_tell() {
        let name = || "node-7".into();
        let all = [
            notice(Subject::Rejected(Family::V4, name()), Teller::Us, "gets no entries"),
            notice(Subject::Rejected(Family::V6, "node-8".into()), Teller::Nobody, "gets no entries"),
        ];
        let agents: Vec<String> = (0..100).map(|n| format!("agent-{n}")).collect();
        let agents: Vec<&str> = agents.iter().map(String::as_str).collect();
        let told = stories(&all, "own", &agents);
        let key = Key { reason: Reason::PeerConflict, about: "node-7".to_owned() };
        assert_eq!(told, [(key, "node-7: ipv4: gets no entries".to_owned())].into());
    }

    #[test]
    fn what_is_the_same_in_both_families_is_one_story() {
        let of = |family| notice(Subject::Unusable(family, "n".into()), Teller::Few, "no MAC");
        let told = stories(&[of(Family::V4), of(Family::V6)], "own", &[]);
        assert_eq!(told.into_values().collect::<Vec<_>>(), ["n: ipv4 and ipv6: no MAC"]);
        let device = |family, text| notice(Subject::Device(family), Teller::Us, text);
        let told = stories(&[device(Family::V4, "a"), device(Family::V6, "b")], "own", &[]);
        assert_eq!(told.into_values().collect::<Vec<_>>(), ["ipv4: a; ipv6: b"]);
    }

    #[test]
    fn many_of_one_kind_are_one_story_whose_text_stands_still() {
        let some = |n: usize| (0..n).map(|n| unusable(&format!("n-{n:04}"))).collect::<Vec<_>>();
        let told = |n| stories(&some(n), "own", &[]);
        assert_eq!(told(SEVERAL).len(), SEVERAL);
        assert_eq!(told(SEVERAL + 1).len(), 1);
        assert_eq!(told(SEVERAL + 1), told(4999));
        let text = told(4999).into_values().next().expect("a story");
        assert!(text.ends_with("one is: n-0000: ipv4: cannot be used"), "{text}");
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        let long = "é".repeat(LONGEST);
        let told = stories(&[notice(Subject::Own(0), Teller::Us, &long)], "own", &[]);
        let text = told.into_values().next().expect("a story");
        assert!(text.len() <= LONGEST + '…'.len_utf8() && text.ends_with("é…"));
    }
}
