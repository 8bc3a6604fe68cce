//! Reads the chains of others that drop what is forwarded by their policy, in both of the kernel's packet filters. Only
//! reads, and asks for nothing that no program has made.

use super::ObserveError;
use super::flannel::Trouble;
use super::legacy;
use super::netlink::wire::frame::{attributes, string};
use super::nft::{Names, Nft};
use crate::model::addr::Family;
use crate::model::forward::{Condition, DropChain, End, Passage, Place};
use crate::model::nft::{Comparison, Expression, HOOK_FORWARD, ListedRule, TableFamily, TableName, Verdict};

/// kube-proxy's mark for what it masquerades.
const KUBE_PROXY: u32 = 0x4000;
/// NFT_META_MARK, NFT_META_IIFNAME, NFT_META_OIFNAME.
const META: [u32; 3] = [3, 6, 7];
/// Expressions that may end a rule in a way that is not seen here: maps of verdicts, queues, redirects.
const ENDS: [&str; 6] = ["lookup", "queue", "fwd", "tproxy", "synproxy", "flow_offload"];
/// Targets of the old kind that never accept a packet.
const REFRAINING: [&str; 14] = [
    "LOG", "NFLOG", "REJECT", "MARK", "CONNMARK", "TCPMSS", "TRACE", "CT", "AUDIT", "SET", "DSCP", "TOS", "CLASSIFY",
    "SECMARK",
];

/// Those that a family's packets pass.
///
/// # Errors
/// If the kernel cannot be read.
pub fn find(family: Family) -> Result<Vec<DropChain>, Trouble> {
    let mut nft = Nft::open().map_err(Trouble::Socket)?;
    let mut found = Vec::new();
    for of in [TableFamily::from(family), TableFamily::Inet] {
        let chains = nft.chains(of)?.into_iter().filter(|(_, chain)| {
            chain.base.as_ref().is_some_and(|base| base.drop && base.hook == HOOK_FORWARD && base.kind == "filter")
        });
        for (table, chain) in chains.collect::<Vec<_>>() {
            found.extend(in_table(&mut nft, &table, &chain.name)?);
        }
    }
    found.extend(legacy::forward(family)?);
    Ok(found)
}

fn in_table(nft: &mut Nft, table: &TableName, name: &str) -> Result<Option<DropChain>, ObserveError> {
    if nft.look(table, Names { chains: &[], sets: &[] })?.is_none_or(|seen| seen.dormant) {
        return Ok(None);
    }
    let mut found =
        DropChain { place: Place::Nft(table.clone(), name.to_owned()), rules: Vec::new(), chains: [].into() };
    for (_, chain) in nft.chains(table.family)?.into_iter().filter(|(of, _)| of == table) {
        found.chains.insert(chain.name, Vec::new());
    }
    for (of, rule) in nft.rules(table, None)? {
        found.chains.entry(of).or_default().push(passage(&rule));
    }
    found.rules = found.chains.get(name).cloned().unwrap_or_default();
    Ok(Some(found))
}

/// What a rule of nftables asks and does.
pub fn passage(rule: &ListedRule) -> Passage {
    let mut passage = Passage { conditions: Vec::new(), end: End::Refrains };
    let (mut loaded, mut mask) = (Loaded::Other, None);
    for expression in &rule.rule.expressions {
        match expression {
            Expression::Meta(key) => (loaded, mask) = (Loaded::of_meta(*key), None),
            Expression::Mask(bits) => mask = Some(number(bits)),
            Expression::Compare(how, value) => {
                passage.conditions.push(loaded.compared(*how, value, mask));
                loaded = Loaded::Other;
            }
            Expression::Verdict(verdict) => passage.end = end(verdict),
            Expression::Counter | Expression::Remember(_) | Expression::Masquerade { .. } => {}
            // Whether a set has it, is not looked up.
            Expression::Lookup { .. } => passage.conditions.push(Condition::Other),
            Expression::Payload { .. } | Expression::Ipv6Header(_) => loaded = Loaded::Other,
            Expression::Other(name, raw) => match name.as_str() {
                "ct" => (loaded, mask) = (Loaded::of_connection(raw), None),
                "match" => passage.conditions.extend(old_match(raw)),
                "target" => passage.end = target(&text(raw, 1)),
                "limit" | "quota" | "connlimit" | "range" => passage.conditions.push(Condition::Other),
                name if ENDS.contains(&name) => passage.end = End::Unknown,
                _ => loaded = Loaded::Other,
            },
        }
    }
    // A verdict that is not known here.
    if matches!(rule.rule.expressions.last(), Some(Expression::Other(name, _)) if name == "immediate") {
        passage.end = End::Unknown;
    }
    passage
}

fn end(verdict: &Verdict) -> End {
    match verdict {
        Verdict::Accept => End::Accepts,
        Verdict::Drop | Verdict::Return => End::Refrains,
        Verdict::Jump(to) | Verdict::Goto(to) => End::Goes(to.clone()),
    }
}

/// What the register holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Loaded {
    Mark,
    In,
    Out,
    State,
    Other,
}

impl Loaded {
    fn of_meta(key: u32) -> Self {
        let [mark, input, output] = META;
        match key {
            key if key == mark => Self::Mark,
            key if key == input => Self::In,
            key if key == output => Self::Out,
            _ => Self::Other,
        }
    }

    /// NFTA_CT_KEY is 2, NFT_CT_STATE 0.
    fn of_connection(raw: &[u8]) -> Self {
        if value(raw, 2) == [0; 4] { Self::State } else { Self::Other }
    }

    fn compared(self, how: Comparison, with: &[u8], mask: Option<u32>) -> Condition {
        match (self, how) {
            (Self::In, Comparison::Equal) => interface(with).map_or(Condition::Other, Condition::In),
            (Self::Out, Comparison::Equal) => interface(with).map_or(Condition::Other, Condition::Out),
            (Self::Mark, Comparison::Equal) if number(with) == KUBE_PROXY => Condition::MarkedByKubeProxy,
            (Self::State, Comparison::NotEqual) if number(with) == 0 && mask.is_some_and(not_new) => Condition::NotNew,
            _ => Condition::Other,
        }
    }
}

/// The name of an interface; `None` for the beginning of one, which has no zero at its end.
fn interface(value: &[u8]) -> Option<String> {
    value.contains(&0).then(|| string(value))
}

/// Bits of states (`NF_CT_STATE_BIT`): invalid 1, established 2, related 4, new 8, untracked 64. Of the old match also 64 and 128
/// for translated addresses, and 256 for untracked: whatever is not of a known connection counts as new.
const fn not_new(states: u32) -> bool {
    states != 0 && states & !0b111 == 0
}

fn number(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_ne_bytes)
}

fn value(raw: &[u8], kind: u16) -> &[u8] {
    attributes(raw).filter_map(Result::ok).find(|(of, _)| *of == kind).map_or(&[], |(_, value)| value)
}

fn text(raw: &[u8], kind: u16) -> String {
    string(value(raw, kind))
}

/// A match of the old kind in nftables: NFTA_MATCH_NAME 1, NFTA_MATCH_INFO 3.
fn old_match(raw: &[u8]) -> Option<Condition> {
    condition(&text(raw, 1), value(raw, 3))
}

/// What a match of the old kind asks; `None` if nothing.
pub(super) fn condition(name: &str, info: &[u8]) -> Option<Condition> {
    let u16_at = |at: usize| info.get(at..at + 2).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let condition = match name {
        "comment" => return None,
        // struct xt_conntrack_mtinfo2 and 3: eight addresses, times, protocol, ports; flags, inverted flags, states.
        // Flag 1 is the state, flag 0x2000 that it was written as `-m state`.
        "conntrack" => match (u16_at(146).map(|flags| flags & !0x2000), u16_at(148), u16_at(150)) {
            (Some(1), Some(0), Some(states)) if not_new(u32::from(states)) => Condition::NotNew,
            _ => Condition::Other,
        },
        // struct xt_mark_mtinfo1: mark, mask, inverted.
        "mark" if info.get(8) == Some(&0) && info.get(..4).map(number) == Some(KUBE_PROXY) => {
            Condition::MarkedByKubeProxy
        }
        _ => Condition::Other,
    };
    Some(condition)
}

/// What a target of the old kind does.
pub(super) fn target(name: &str) -> End {
    if REFRAINING.contains(&name) { End::Refrains } else { End::Unknown }
}
