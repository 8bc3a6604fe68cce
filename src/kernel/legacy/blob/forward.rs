//! FORWARD of a table, if its policy is to drop, as far as it matters to the pods' packets.

use std::collections::BTreeMap;

use super::{ACCEPT, Entry, FORWARD, PART, Table, Target, layout, string, u16_at};
use crate::kernel::forward::{condition, target};
use crate::model::addr::Family;
use crate::model::forward::{Condition, DropChain, End, Passage, Place};

/// The standard target's verdict for NF_DROP.
const DROP: i32 = -1;
/// XT_RETURN.
const RETURN: i32 = -5;
/// Bytes of an interface's name.
const NAME: usize = 16;

impl Table {
    /// FORWARD with the chains of the table; `None` if its policy is another.
    pub fn forward(&self) -> Option<DropChain> {
        let on = self.hooks.valid & (1 << FORWARD) != 0;
        let (first, policy) = (self.hooks.entry[FORWARD], self.hooks.underflow[FORWARD]);
        let drops = |entry: &Entry| entry.offset == policy && entry.does == Target::Verdict(DROP);
        if !on || !self.entries.iter().any(drops) {
            return None;
        }
        let rules = self.entries.iter().filter(|entry| (first..policy).contains(&entry.offset));
        let rules = rules.map(|entry| self.passage(entry)).collect();
        let (mut chains, mut current) = (BTreeMap::<String, Vec<Passage>>::new(), None);
        for entry in &self.entries {
            if let Target::Head(name) = &entry.does {
                current = Some(name);
                chains.entry(name.clone()).or_default();
            } else if let Some(name) = current {
                chains.entry(name.clone()).or_default().push(self.passage(entry));
            }
        }
        Some(DropChain { place: Place::Legacy(self.family), rules, chains })
    }

    fn passage(&self, entry: &Entry) -> Passage {
        let end = match &entry.does {
            Target::Verdict(ACCEPT) => End::Accepts,
            Target::Verdict(DROP | RETURN) | Target::Head(_) => End::Refrains,
            // The offset is that of the first rule, which stands behind the head.
            Target::Verdict(to @ 0..) => End::Goes(self.chain_at(to.cast_unsigned())),
            Target::Verdict(_) => End::Unknown,
            Target::Other => {
                let name = entry.bytes.get(entry.target + 2..entry.target + PART - 1).unwrap_or_default();
                target(&string(name))
            }
        };
        let mut conditions = self.of_header(&entry.bytes);
        let matches = entry.bytes.get(layout(self.family).size..entry.target).unwrap_or_default();
        conditions.extend(of_matches(matches));
        Passage { conditions, end }
    }

    /// The name of the chain whose first rule is there; none has an empty one.
    fn chain_at(&self, offset: u32) -> String {
        let before = self.entries.iter().take_while(|entry| entry.offset < offset);
        match before.last().map(|entry| &entry.does) {
            Some(Target::Head(name)) => name.clone(),
            _ => String::new(),
        }
    }

    /// `struct ipt_ip` and `struct ip6t_ip6`: two addresses and their masks, two interfaces and their masks, then
    /// protocol, flags, and what of all that is inverted.
    fn of_header(&self, entry: &[u8]) -> Vec<Condition> {
        /// IPT_INV_VIA_IN, IPT_INV_VIA_OUT.
        const INVERTED: [u8; 2] = [1, 2];
        let (address, inverted) = if self.family == Family::V4 { (4, 83) } else { (16, 132) };
        let (names, rest) = (4 * address, 4 * address + 4 * NAME);
        let part = |from: usize, to: usize| entry.get(from..to).unwrap_or_default();
        let zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
        let flags = entry.get(inverted).copied().unwrap_or_default();
        let mut conditions = Vec::new();
        if !zero(part(0, names)) || !zero(part(rest, inverted)) || flags & !(INVERTED[0] | INVERTED[1]) != 0 {
            conditions.push(Condition::Other);
        }
        for (at, make) in [(0, Condition::In as fn(String) -> Condition), (1, Condition::Out)] {
            let (name, mask) = (names + at * NAME, names + (at + 2) * NAME);
            let (name, mask) = (string(part(name, name + NAME)), part(mask, mask + NAME));
            match mask.get(name.len()) {
                _ if zero(mask) => {}
                // The mask covers the zero at the end: the whole name, not the beginning of one.
                Some(0xff) if flags & INVERTED[at] == 0 => conditions.push(make(name)),
                _ => conditions.push(Condition::Other),
            }
        }
        conditions
    }
}

fn of_matches(mut rest: &[u8]) -> Vec<Condition> {
    let mut conditions = Vec::new();
    while !rest.is_empty() {
        let length = u16_at(rest, 0).map_or(0, usize::from);
        let Some((one, after)) = rest.split_at_checked(length).filter(|_| length >= PART) else {
            conditions.push(Condition::Other);
            break;
        };
        conditions
            .extend(condition(&string(one.get(2..PART - 1).unwrap_or_default()), one.get(PART..).unwrap_or_default()));
        rest = after;
    }
    conditions
}
