//! In nft's words.

use std::fmt;
use std::net::IpAddr;

use super::expression::{META_L4PROTO, META_MARK, UDP, prefix_of};
use super::{Base, Chain, Comparison, Expression, Header, NftChange, Rule, Set, Table, TableName, Verdict};
use super::{HOOK_FORWARD, HOOK_INPUT, HOOK_POSTROUTING};
use crate::model::addr::Family;

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        let (mut left, mut mask) = (String::new(), None);
        for expression in &self.expressions {
            match expression {
                Expression::Payload { .. } | Expression::Meta(_) | Expression::Ipv6Header(_) => {
                    (left, mask) = (selector(expression), None);
                }
                Expression::Mask(bits) => mask = Some(bits.clone()),
                Expression::Compare(how, value) => words.push(comparison(&left, mask.take(), *how, value)),
                Expression::Lookup { set, inverted } => {
                    words.push(format!("{left} {}@{set}", if *inverted { "!= " } else { "" }));
                }
                Expression::Remember(set) => words.push(format!("update @{set} {{ {left} }}")),
                Expression::Counter => words.push("counter".to_owned()),
                Expression::Verdict(verdict) => words.push(verdict.to_string()),
                Expression::Masquerade { fully_random: true } => words.push("masquerade fully-random".to_owned()),
                Expression::Masquerade { fully_random: false } => words.push("masquerade".to_owned()),
                Expression::Other(name, _) => words.push(format!("[{name}]")),
            }
        }
        f.write_str(&words.join(" "))?;
        match &self.comment {
            Some(comment) => write!(f, " comment \"{comment}\""),
            None => Ok(()),
        }
    }
}

fn selector(expression: &Expression) -> String {
    match expression {
        // The first bytes of an address are its prefix.
        Expression::Payload { header: Header::Network, offset: 12, len: 1..=4 } => "ip saddr".to_owned(),
        Expression::Payload { header: Header::Network, offset: 16, len: 1..=4 } => "ip daddr".to_owned(),
        Expression::Payload { header: Header::Network, offset: 8, len: 3..=16 } => "ip6 saddr".to_owned(),
        Expression::Payload { header: Header::Network, offset: 24, len: 1..=16 } => "ip6 daddr".to_owned(),
        Expression::Payload { header: Header::Transport, offset: 2, len: 2 } => "th dport".to_owned(),
        Expression::Payload { header, offset, len } => {
            let header = match header {
                Header::Link => "ll",
                Header::Network => "nh",
                Header::Transport => "th",
            };
            format!("@{header},{},{}", offset * 8, len * 8)
        }
        Expression::Meta(META_MARK) => "meta mark".to_owned(),
        Expression::Meta(META_L4PROTO) => "meta l4proto".to_owned(),
        Expression::Meta(key) => format!("meta {key}"),
        Expression::Ipv6Header(44) => "exthdr frag".to_owned(),
        Expression::Ipv6Header(number) => format!("exthdr {number}"),
        _ => String::new(),
    }
}

fn comparison(left: &str, mask: Option<Vec<u8>>, how: Comparison, value: &[u8]) -> String {
    let not = if how == Comparison::Equal { "" } else { "!= " };
    let equals = if how == Comparison::Equal { "==" } else { "!=" };
    match (left, mask, address(left, value)) {
        (_, None, Some((ip, whole))) if whole == value.len() => format!("{left} {not}{ip}"),
        (_, None, Some((ip, _))) => format!("{left} {not}{ip}/{}", value.len() * 8),
        (_, Some(mask), Some((ip, _))) if prefix_of(&mask).is_some() => {
            format!("{left} {not}{ip}/{}", prefix_of(&mask).unwrap_or_default())
        }
        ("meta mark", Some(mask), _) => {
            let number = |bytes: &[u8]| bytes.try_into().map(u32::from_ne_bytes).unwrap_or_default();
            format!("meta mark & {:#x} {equals} {:#x}", number(&mask), number(value))
        }
        ("meta l4proto", None, _) if value == [UDP] => format!("meta l4proto {not}udp"),
        ("th dport", None, _) => {
            format!("th dport {not}{}", value.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
        }
        ("exthdr frag", None, _) => {
            let exists = (value == [1]) == (how == Comparison::Equal);
            format!("exthdr frag {}", if exists { "exists" } else { "missing" })
        }
        (left, None, _) => format!("{left} {not}{}", hex(value)),
        (left, Some(mask), _) => format!("{left} & {} {equals} {}", hex(&mask), hex(value)),
    }
}

fn hex(bytes: &[u8]) -> String {
    format!("0x{}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// The address that these are the first bytes of, if it is one, and how many it has.
fn address(left: &str, bytes: &[u8]) -> Option<(IpAddr, usize)> {
    let (mut v4, mut v6) = ([0; 4], [0; 16]);
    match left {
        "ip saddr" | "ip daddr" => {
            v4.get_mut(..bytes.len())?.copy_from_slice(bytes);
            Some((v4.into(), v4.len()))
        }
        "ip6 saddr" | "ip6 daddr" => {
            v6.get_mut(..bytes.len())?.copy_from_slice(bytes);
            Some((v6.into(), v6.len()))
        }
        _ => None,
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Return => f.write_str("return"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hook = match self.hook {
            0 => "prerouting",
            HOOK_INPUT => "input",
            HOOK_FORWARD => "forward",
            3 => "output",
            HOOK_POSTROUTING => "postrouting",
            _ => "ingress",
        };
        let policy = if self.drop { "drop" } else { "accept" };
        write!(f, "type {} hook {hook} priority {}; policy {policy};", self.kind, self.priority)
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.family {
            Family::V4 => "ipv4_addr",
            Family::V6 => "ipv6_addr",
        };
        write!(f, "type {kind};")?;
        match self.grows {
            Some((size, milliseconds)) => {
                write!(f, " size {size}; flags dynamic,timeout; timeout {}s;", milliseconds / 1000)
            }
            None => Ok(()),
        }
    }
}

fn braced(f: &mut fmt::Formatter<'_>, elements: impl IntoIterator<Item = IpAddr>) -> fmt::Result {
    f.write_str("{ ")?;
    for (at, element) in elements.into_iter().enumerate() {
        if at > 0 {
            f.write_str(", ")?;
        }
        write!(f, "{element}")?;
    }
    f.write_str(" }")
}

impl fmt::Display for NftChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddTable(table) => write!(f, "add table {table}"),
            Self::DeleteTable(table) => write!(f, "delete table {table}"),
            Self::AddChain(table, Chain { name, base: Some(base) }) => {
                write!(f, "add chain {table} {name} {{ {base} }}")
            }
            Self::AddChain(table, Chain { name, base: None }) => write!(f, "add chain {table} {name}"),
            Self::FlushChain(table, chain) => write!(f, "flush chain {table} {chain}"),
            Self::DeleteChain(table, chain) => write!(f, "delete chain {table} {chain}"),
            Self::AddRule(table, chain, rule) => write!(f, "add rule {table} {chain} {rule}"),
            Self::DeleteRule(table, chain, handle) => write!(f, "delete rule {table} {chain} handle {handle}"),
            Self::AddSet(table, set) => write!(f, "add set {table} {} {{ {set} }}", set.name),
            Self::AddElements(table, set, elements) => {
                write!(f, "add element {table} {set} ")?;
                braced(f, elements.iter().copied())
            }
            Self::DeleteElements(table, set, elements) => {
                write!(f, "delete element {table} {set} ")?;
                braced(f, elements.iter().copied())
            }
        }
    }
}

impl Table {
    /// The changes that make it where nothing of that name is.
    pub fn to_changes(&self, name: &TableName) -> Vec<NftChange> {
        let mut all = vec![NftChange::AddTable(name.clone())];
        for (set, elements) in &self.sets {
            all.push(NftChange::AddSet(name.clone(), set.clone()));
            if !elements.is_empty() {
                all.push(NftChange::AddElements(name.clone(), set.name.clone(), elements.iter().copied().collect()));
            }
        }
        for (chain, rules) in &self.chains {
            all.push(NftChange::AddChain(name.clone(), chain.clone()));
            let rules = rules.iter().cloned();
            all.extend(rules.map(|rule| NftChange::AddRule(name.clone(), chain.name.clone(), rule)));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_read_as_nft_writes_them() {
        let net = |text: &str| text.parse().expect("a subnet");
        let text = |parts: Vec<Vec<Expression>>| Rule { expressions: parts.concat(), comment: None }.to_string();
        assert_eq!(
            text(vec![
                Expression::source(net("10.244.0.0/16"), true),
                Expression::destination(net("224.0.0.0/4"), false),
                vec![Expression::Masquerade { fully_random: true }],
            ]),
            "ip saddr 10.244.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random"
        );
        assert_eq!(
            text(vec![Expression::marked(0x4000), vec![Expression::Verdict(Verdict::Return)]]),
            "meta mark & 0x4000 == 0x4000 return"
        );
        assert_eq!(
            text(vec![
                Expression::udp_to(8472),
                Expression::vni(1),
                Expression::source_in(Family::V6, "vteps", false),
                vec![Expression::Counter, Expression::Verdict(Verdict::Jump("x".to_owned()))],
            ]),
            "meta l4proto udp th dport 8472 @th,96,24 0x000001 ip6 saddr != @vteps counter jump x"
        );
        assert_eq!(
            text(vec![Expression::source(net("fd00::7/128"), true), vec![Expression::Verdict(Verdict::Accept)]]),
            "ip6 saddr fd00::7 accept"
        );
    }
}
