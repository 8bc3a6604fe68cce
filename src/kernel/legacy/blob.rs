//! A table of the old packet filter, as the kernel hands it out: one run of bytes, entry after entry, with
//! jumps that are byte offsets. Read, searched for what is flannel's, and written again without it. Safe
//! code, no kernel: what it says about bytes is tried by tests and by the fuzzer.
//!
//! A chain of a user begins with an entry whose target is `ERROR` and carries its name; a built-in chain
//! reaches from its hook's entry to its `underflow`, which is its policy (`libiptc` and
//! `net/ipv4/netfilter/ip_tables.c`).

mod forward;

use std::collections::BTreeMap;

use crate::model::addr::Family;
use crate::model::leftover::{Chain, Filter, Leftover, Seen};

/// NF_INET_NUMHOOKS.
pub const HOOKS: usize = 5;
const FORWARD: usize = 2;
const POSTROUTING: usize = 4;

/// The header of every match and target: size, name, revision.
const PART: usize = 32;
/// `struct xt_comment_info`.
const COMMENT: usize = 256;
/// The standard target's verdict for NF_ACCEPT: minus that number, minus one.
const ACCEPT: i32 = -2;

/// Why bytes are not a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed table of the old packet filter: {0}")]
pub struct Malformed(&'static str);

/// Where the hooks lead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// A bit for each hook that the table is on.
    pub valid: u32,
    /// The first entry of each, as an offset.
    pub entry: [u32; HOOKS],
    /// The policy of each, as an offset.
    pub underflow: [u32; HOOKS],
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    family: Family,
    /// Where the hooks lead.
    pub hooks: Hooks,
    entries: Vec<Entry>,
}

/// One rule, chain head or policy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    offset: u32,
    bytes: Vec<u8>,
    /// Where its target begins in `bytes`.
    target: usize,
    does: Target,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    /// ACCEPT, DROP, RETURN, QUEUE, or a jump to an offset if not negative.
    Verdict(i32),
    /// The beginning of a chain.
    Head(String),
    Other,
}

/// A table without some of its entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// Where the hooks lead now.
    pub hooks: Hooks,
    /// The entries.
    pub bytes: Vec<u8>,
    /// For each entry of the old table whether it is still there.
    pub kept: Vec<bool>,
}

/// Where things stand in `struct ipt_entry` and `struct ip6t_entry`.
struct Layout {
    /// `struct ipt_ip` or `struct ip6t_ip6`: addresses, interfaces, protocol, flags.
    header: usize,
    target_offset: usize,
    next_offset: usize,
    size: usize,
}

const fn layout(family: Family) -> Layout {
    match family {
        Family::V4 => Layout { header: 84, target_offset: 88, next_offset: 90, size: 112 },
        Family::V6 => Layout { header: 136, target_offset: 140, next_offset: 142, size: 168 },
    }
}

impl Table {
    /// Reads what IPT_SO_GET_ENTRIES returned.
    ///
    /// # Errors
    /// If the lengths in it do not add up.
    pub fn parse(family: Family, hooks: Hooks, bytes: &[u8]) -> Result<Self, Malformed> {
        let layout = layout(family);
        let (mut entries, mut rest, mut offset) = (Vec::new(), bytes, 0_u32);
        while !rest.is_empty() {
            let length = u16_at(rest, layout.next_offset).map(usize::from).ok_or(Malformed("an entry is cut off"))?;
            let target = u16_at(rest, layout.target_offset).map(usize::from).unwrap_or_default();
            let (entry, after) = rest.split_at_checked(length).ok_or(Malformed("an entry is cut off"))?;
            if target < layout.size || !target.is_multiple_of(8) || length % 8 != 0 {
                return Err(Malformed("a target inside its entry's head"));
            }
            let part = entry.get(target..).filter(|part| part.len() >= PART).ok_or(Malformed("no target"))?;
            entries.push(Entry { offset, bytes: entry.to_vec(), target, does: read_target(part)? });
            offset =
                u32::try_from(length).ok().and_then(|length| offset.checked_add(length)).ok_or(Malformed("size"))?;
            rest = after;
        }
        Ok(Self { family, hooks, entries })
    }

    /// Number of entries.
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none; a table of the kernel always has some.
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Flannel's chain as it stands here; `None` if it is not here.
    pub fn find(&self, chain: Chain) -> Option<Seen> {
        let body = self.body(chain.name())?;
        let mut seen = Seen {
            what: Leftover::Chain(Filter::Legacy, self.family, chain),
            jumps: 0,
            users: Vec::new(),
            guards: chain == Chain::Forward && !self.accepts_by_policy(chain),
        };
        for (at, entry) in self.entries.iter().enumerate().filter(|(at, _)| !body.contains(at)) {
            if !self.leads_into(entry, &body) {
                continue;
            }
            if self.is_flannels_jump(entry, chain) {
                seen.jumps += 1;
                seen.guards |= chain == Chain::Forward && self.is_followed(at, chain, &body);
            } else {
                seen.users.push(self.chain_of(entry));
            }
        }
        Some(seen)
    }

    /// The table without flannel's chain and flannel's jumps to it. While somebody else's rule jumps to the
    /// chain, only flannel's jumps go. `None` if there is nothing to take out.
    ///
    /// # Errors
    /// If a jump leads to no entry.
    pub fn without(&self, chain: Chain) -> Result<Option<Rewritten>, Malformed> {
        let Some(body) = self.body(chain.name()) else { return Ok(None) };
        let used = self.find(chain).is_some_and(|seen| !seen.users.is_empty());
        let goes = |(at, entry): (usize, &Entry)| {
            let jump = self.leads_into(entry, &body) && self.is_flannels_jump(entry, chain);
            if body.contains(&at) { !used } else { jump }
        };
        let kept: Vec<bool> = self.entries.iter().enumerate().map(|of| !goes(of)).collect();
        if kept.iter().all(|kept| *kept) {
            return Ok(None);
        }
        self.rewrite(kept).map(Some)
    }

    fn rewrite(&self, kept: Vec<bool>) -> Result<Rewritten, Malformed> {
        // For each old offset the new one of that entry or, if it went, of the next that is there.
        let (mut moved, mut at) = (BTreeMap::new(), 0_u32);
        for (entry, kept) in self.entries.iter().zip(&kept) {
            moved.insert(entry.offset, at);
            if *kept {
                at += u32::try_from(entry.bytes.len()).map_err(|_| Malformed("size"))?;
            }
        }
        let to = |offset: u32| moved.get(&offset).copied().ok_or(Malformed("a jump to no entry"));
        let mut bytes = Vec::new();
        for (entry, _) in self.entries.iter().zip(&kept).filter(|(_, kept)| **kept) {
            let start = bytes.len();
            bytes.extend_from_slice(&entry.bytes);
            if let Target::Verdict(verdict @ 0..) = entry.does {
                let verdict = to(verdict.cast_unsigned())?;
                let place = start + entry.target + PART;
                let place = bytes.get_mut(place..place + 4).ok_or(Malformed("no verdict"))?;
                place.copy_from_slice(&verdict.to_ne_bytes());
            }
        }
        let mut hooks = self.hooks;
        for hook in (0..HOOKS).filter(|hook| self.hooks.valid & (1 << hook) != 0) {
            hooks.entry[hook] = to(hooks.entry[hook])?;
            hooks.underflow[hook] = to(hooks.underflow[hook])?;
        }
        Ok(Rewritten { hooks, bytes, kept })
    }

    /// The entries of a user's chain, its head included.
    fn body(&self, name: &str) -> Option<std::ops::Range<usize>> {
        let is_head = |entry: &Entry| matches!(entry.does, Target::Head(_));
        let start = self.entries.iter().position(|entry| matches!(&entry.does, Target::Head(head) if head == name))?;
        let length = self.entries.iter().skip(start + 1).position(is_head)?;
        Some(start..start + 1 + length)
    }

    fn leads_into(&self, entry: &Entry, body: &std::ops::Range<usize>) -> bool {
        let Target::Verdict(to @ 0..) = entry.does else { return false };
        self.entries.get(body.clone()).is_some_and(|body| body.iter().any(|of| of.offset == to.cast_unsigned()))
    }

    /// `-A HOOK -m comment --comment "…" -j CHAIN`, and no condition besides.
    fn is_flannels_jump(&self, entry: &Entry, chain: Chain) -> bool {
        let layout = layout(self.family);
        let any_packet = entry.bytes.iter().take(layout.header).all(|byte| *byte == 0);
        let matches = entry.bytes.get(layout.size..entry.target).unwrap_or_default();
        let text = matches.get(PART..).map(string);
        any_packet
            && self.is_on_hook(entry, chain)
            && matches.len() == PART + COMMENT
            && u16_at(matches, 0).map(usize::from) == Some(matches.len())
            && matches.get(2..PART - 1).map(string).as_deref() == Some("comment")
            && text.as_deref() == Some(chain.comment())
    }

    /// Where the policy of flannel's built-in chain is.
    fn policy(&self, chain: Chain) -> Option<u32> {
        let hook = hook(chain);
        (self.hooks.valid & (1 << hook) != 0).then(|| self.hooks.underflow[hook])
    }

    fn is_on_hook(&self, entry: &Entry, chain: Chain) -> bool {
        let first = self.hooks.entry[hook(chain)];
        self.policy(chain).is_some_and(|policy| (first..policy).contains(&entry.offset))
    }

    fn accepts_by_policy(&self, chain: Chain) -> bool {
        let policy = self.policy(chain);
        self.entries.iter().any(|entry| Some(entry.offset) == policy && entry.does == Target::Verdict(ACCEPT))
    }

    /// Whether a rule of somebody else stands behind the jump in its built-in chain.
    fn is_followed(&self, at: usize, chain: Chain, body: &std::ops::Range<usize>) -> bool {
        let rules = self.entries.iter().skip(at + 1).take_while(|entry| self.is_on_hook(entry, chain));
        rules.into_iter().any(|entry| !(self.leads_into(entry, body) && self.is_flannels_jump(entry, chain)))
    }

    /// The name of the chain that a rule is in.
    fn chain_of(&self, rule: &Entry) -> String {
        const NAMES: [&str; HOOKS] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
        let on = |hook: &usize| {
            let within = self.hooks.entry[*hook]..=self.hooks.underflow[*hook];
            self.hooks.valid & (1 << hook) != 0 && within.contains(&rule.offset)
        };
        if let Some(hook) = (0..HOOKS).find(on) {
            return NAMES[hook].to_owned();
        }
        let before = self.entries.iter().take_while(|entry| entry.offset < rule.offset);
        let heads = before.filter_map(|entry| if let Target::Head(name) = &entry.does { Some(name) } else { None });
        heads.last().cloned().unwrap_or_default()
    }
}

const fn hook(chain: Chain) -> usize {
    match chain {
        Chain::Masquerade => POSTROUTING,
        Chain::Forward => FORWARD,
    }
}

fn read_target(part: &[u8]) -> Result<Target, Malformed> {
    let value = part.get(PART..).unwrap_or_default();
    match part.get(2..PART - 1).map(string).as_deref() {
        Some("") => {
            let verdict = value.get(..4).and_then(|bytes| bytes.try_into().ok());
            verdict.map(|bytes| Target::Verdict(i32::from_ne_bytes(bytes))).ok_or(Malformed("no verdict"))
        }
        Some("ERROR") => Ok(Target::Head(string(value))),
        _ => Ok(Target::Other),
    }
}

fn string(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or(bytes)).into_owned()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}
