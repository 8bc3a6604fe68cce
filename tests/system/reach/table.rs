//! Who was reached by whom, and whom he saw: measured, compared and told.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::town::{SENDERS, Town};

/// In the binary: a user without rights may not be able to read the source's folder.
const DOCUMENT: &str = include_str!("../../../docs/who-reaches-whom.md");

/// Every answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    /// Targets in their order.
    rows: Vec<String>,
    /// By target and sender: what was seen over IPv4 and IPv6.
    seen: BTreeMap<(usize, usize), [Option<String>; 2]>,
}

impl Reach {
    /// Everybody asks everybody.
    pub(super) fn measure(town: &Town) -> Self {
        let targets = [town.targets(0), town.targets(1)];
        let rows: Vec<String> = targets[0].iter().map(|target| target.label.clone()).collect();
        let cells = |row: usize| (0..SENDERS.len()).map(move |sender| (row, sender));
        let seen = std::thread::scope(|scope| {
            let asked: Vec<_> = (0..rows.len())
                .flat_map(cells)
                .map(|(row, sender)| {
                    let targets = &targets;
                    let ask = move |family: usize| town.ask(family, sender, &targets[family][row]);
                    (row, sender, [0, 1].map(|family| scope.spawn(move || ask(family))))
                })
                .collect();
            let cell = |(row, sender, both): (usize, usize, [std::thread::ScopedJoinHandle<'_, _>; 2])| {
                ((row, sender), both.map(|thread| thread.join().expect("an answer or none")))
            };
            asked.into_iter().map(cell).collect()
        });
        Self { rows, seen }
    }

    fn cell(&self, at: (usize, usize)) -> String {
        let [v4, v6] = self.seen[&at].clone().map(|seen| seen.unwrap_or_else(|| "–".to_owned()));
        if v4 == v6 { v4 } else { format!("{v4} / {v6}") }
    }

    /// In Markdown.
    pub(super) fn markdown(&self) -> String {
        let mut text = String::from("| reached |");
        SENDERS.iter().for_each(|(name, ..)| write!(text, " {name} |").expect("room"));
        text.push_str("\n|---|");
        SENDERS.iter().for_each(|_| text.push_str("---|"));
        text.push('\n');
        for (row, label) in self.rows.iter().enumerate() {
            write!(text, "| {label} |").expect("room");
            (0..SENDERS.len()).for_each(|sender| write!(text, " {} |", self.cell((row, sender))).expect("room"));
            text.push('\n');
        }
        text
    }

    /// Every cell that differs from the other's.
    pub(super) fn differences(&self, other: &Self) -> Vec<String> {
        let differs = self.seen.keys().filter(|at| self.seen[at] != other.seen[at]);
        differs
            .map(|at| {
                let (who, whom) = (SENDERS[at.1].0, &self.rows[at.0]);
                format!("{who} to {whom}: {}, not {}", self.cell(*at), other.cell(*at))
            })
            .collect()
    }

    /// Fails with every difference and both tables.
    pub(super) fn must_be(&self, other: &Self, what: &str) {
        let differences = self.differences(other);
        let tables = [self, other].map(Self::markdown);
        assert!(differences.is_empty(), "{what}:\n{}\n{}\n{}", differences.join("\n"), tables[0], tables[1]);
    }

    /// Fails if the section of the document has another table.
    pub(super) fn must_be_documented(&self, heading: &str) {
        if !std::fs::exists("/proc/sys/net/bridge/bridge-nf-call-iptables").expect("/proc") {
            println!("\n*** without br_netfilter: not compared with docs/who-reaches-whom.md ***\n");
            return;
        }
        let section = DOCUMENT.split("\n## ").find_map(|section| section.strip_prefix(heading)).expect(heading);
        let documented: String =
            section.lines().filter(|line| line.starts_with('|')).map(|line| line.to_owned() + "\n").collect();
        let measured = self.markdown();
        assert!(documented == measured, "{heading}: the document says\n{documented}and this was measured\n{measured}");
    }
}
