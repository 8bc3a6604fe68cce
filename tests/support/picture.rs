//! What iproute2 says of an interface: every fact a line, so that two moments can be compared.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use crate::sandbox::json;

/// Facts, each in the words of `ip -j` or `bridge -j`.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Picture(pub(crate) BTreeSet<String>);

impl Picture {
    /// A device: its link, addresses, routes of all tables, neighbours and FDB. What differs between two devices
    /// that are alike is left out: interface numbers.
    pub(crate) fn of_device(dev: &str) -> Self {
        let mut facts = BTreeSet::new();
        let Some(link) = json_of(&format!("ip -j -d link show dev {dev}")).pop() else { return Self::default() };
        add(&mut facts, "link", link, &["ifindex"]);
        for link in json_of(&format!("ip -j -d addr show dev {dev}")) {
            for address in link["addr_info"].as_array().into_iter().flatten() {
                add(&mut facts, "address", address.clone(), &[]);
            }
        }
        for family in ["-4", "-6"] {
            for route in json_of(&format!("ip -j -d {family} route show table all dev {dev}")) {
                add(&mut facts, &format!("route {family}"), route, &[]);
            }
        }
        for neighbour in json_of(&format!("ip -j -d neigh show dev {dev}")) {
            add(&mut facts, "neighbour", neighbour, &[]);
        }
        for entry in json_of(&format!("bridge -j -d fdb show dev {dev}")) {
            add(&mut facts, "fdb", entry, &[]);
        }
        Self(facts)
    }

    /// Everything that is on no interface whose name begins with `flannel`.
    pub(crate) fn of_the_rest() -> Self {
        let mut facts = BTreeSet::new();
        let foreign = |name: &Value| !name.as_str().unwrap_or_default().starts_with("flannel");
        for link in json("ip -j addr show").into_iter().filter(|link| foreign(&link["ifname"])) {
            add(&mut facts, "link", link, &["ifindex", "link_index"]);
        }
        for family in ["-4", "-6"] {
            for route in
                json(&format!("ip -j {family} route show table all")).into_iter().filter(|it| foreign(&it["dev"]))
            {
                add(&mut facts, &format!("route {family}"), route, &[]);
            }
            for rule in json(&format!("ip -j {family} rule show")) {
                add(&mut facts, &format!("rule {family}"), rule, &[]);
            }
        }
        for neighbour in json("ip -j neigh show nud permanent").into_iter().filter(|it| foreign(&it["dev"])) {
            add(&mut facts, "neighbour", neighbour, &[]);
        }
        for entry in json("bridge -j fdb show").into_iter().filter(|it| foreign(&it["ifname"])) {
            add(&mut facts, "fdb", entry, &[]);
        }
        Self(facts)
    }

    /// Each fact: its kind (`link`, `address`, `route`, `neighbour`, `fdb`) and its fields.
    pub(crate) fn facts(&self) -> impl Iterator<Item = (&str, Value)> {
        self.0.iter().map(|fact| {
            let (kind, fields) = fact.split_once(" {").expect("a kind");
            let kind = kind.split(' ').next().unwrap_or(kind);
            (kind, serde_json::from_str(&format!("{{{fields}")).expect("JSON"))
        })
    }

    /// The facts of a kind: `link`, `address`, `route`, `neighbour`, `fdb`.
    pub(crate) fn count(&self, kind: &str) -> usize {
        self.0.iter().filter(|fact| fact.starts_with(kind)).count()
    }

    /// What the other has more or less, for a person.
    pub(crate) fn difference(&self, now: &Self) -> String {
        let lines = |sign: &str, facts: Vec<&String>| -> String {
            let more = facts.len().saturating_sub(12);
            let mut text: String = facts.iter().take(12).map(|fact| format!("  {sign} {fact}\n")).collect();
            if more > 0 {
                text += &format!("  {sign} and {more} more\n");
            }
            text
        };
        lines("-", self.0.difference(&now.0).collect()) + &lines("+", now.0.difference(&self.0).collect())
    }
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|fact| writeln!(f, "{fact}"))
    }
}

/// Like [`json`], for a device that may not be there.
fn json_of(line: &str) -> Vec<Value> {
    let Ok(text) = crate::sandbox::try_sh(line) else { return Vec::new() };
    if text.trim().is_empty() { Vec::new() } else { serde_json::from_str(&text).expect("JSON") }
}

fn add(facts: &mut BTreeSet<String>, kind: &str, mut value: Value, without: &[&str]) {
    if let Some(fields) = value.as_object_mut() {
        without.iter().for_each(|key| drop(fields.remove(*key)));
    }
    facts.insert(format!("{kind} {value}"));
}
