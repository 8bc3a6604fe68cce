//! The packet filter: the one table that weft owns in each family, and what has to change for it to be so.
//!
//! The masquerading rules are flannel's of its iptables mode, in its order ([`OUR_TABLE`] in a base chain of
//! its own behind everybody else's source NAT, as flannel's jump is appended to POSTROUTING).

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::model::addr::{Family, Subnet};
use crate::model::filter::{FilterRules, VtepFilter};
use crate::model::nft::{
    Base, Chain, Expression, HOOK_INPUT, HOOK_POSTROUTING, NftChange, OUR_CHAINS, OUR_SETS, OUR_TABLE, Rule, SeenTable,
    Set, Table, TableName, Verdict,
};
use crate::model::settings::Overlay;

const POSTROUTING: &str = OUR_CHAINS[0];
const UNKNOWN: &str = OUR_CHAINS[1];
const INPUT: &str = OUR_CHAINS[2];
const VTEPS: &str = OUR_SETS[0];
const STRANGERS: &str = OUR_SETS[1];
/// Strangers remembered at most, and for how many milliseconds after the last packet.
const STRANGERS_KEPT: (u32, u64) = (64, 3_600_000);
/// The bit by which kube-proxy marks what it will masquerade itself.
const KUBE_PROXY_MARK: u32 = 0x4000;

/// The table of a family; `None` if nothing of it is wanted. `pods` is our own pod CIDR, `vteps` are the
/// underlay addresses of everybody who may send: asked for where there is a filter for them.
pub fn table(
    overlay: &Overlay,
    rules: &FilterRules,
    pods: Subnet,
    vteps: impl FnOnce() -> BTreeSet<IpAddr>,
) -> Option<Table> {
    let family = pods.family();
    let network = (*overlay.networks.get(family))?;
    let mut table = Table::default();
    if let Some(masquerade) = &rules.masquerade {
        let excluded = masquerade.exclude.iter().filter(|net| net.family() == family);
        let chain = base(POSTROUTING, "nat", HOOK_POSTROUTING, 101);
        table.chains.push((chain, masquerading(network, pods, excluded, masquerade.fully_random)));
    }
    if rules.vteps != VtepFilter::Off {
        table.sets.push((Set { name: VTEPS.to_owned(), family, grows: None }, vteps()));
        table.sets.push((Set { name: STRANGERS.to_owned(), family, grows: Some(STRANGERS_KEPT) }, BTreeSet::new()));
        let enforce = rules.vteps == VtepFilter::Enforce;
        table.chains.push((Chain { name: UNKNOWN.to_owned(), base: None }, unknown_vtep(family, enforce)));
        table.chains.push((base(INPUT, "filter", HOOK_INPUT, -300), guard(family, overlay)));
    }
    (!table.chains.is_empty()).then_some(table)
}

fn base(name: &str, kind: &str, hook: u32, priority: i32) -> Chain {
    Chain { name: name.to_owned(), base: Some(Base { kind: kind.to_owned(), hook, priority, drop: false }) }
}

fn rule(parts: &[Vec<Expression>], end: Expression, comment: &str) -> Rule {
    let mut expressions = parts.concat();
    expressions.push(end);
    Rule { expressions, comment: Some(format!("weft: {comment}")) }
}

/// flannel's rules 1 to 6, the excluded destinations before the fifth.
fn masquerading<'a>(
    network: Subnet,
    pods: Subnet,
    excluded: impl Iterator<Item = &'a Subnet>,
    fully_random: bool,
) -> Vec<Rule> {
    let leave = || Expression::Verdict(Verdict::Return);
    let masquerade = || Expression::Masquerade { fully_random };
    let (from, to) = (Expression::source, Expression::destination);
    let mut rules = vec![
        rule(&[Expression::marked(KUBE_PROXY_MARK)], leave(), "kube-proxy will masquerade it"),
        rule(&[from(pods, true), to(network, true)], leave(), "own pod to pod"),
        rule(&[from(network, true), to(pods, true)], leave(), "pod to own pod"),
        rule(&[from(network, false), to(pods, true)], leave(), "outside to own pod"),
    ];
    for net in excluded {
        rules.push(rule(&[from(network, true), to(*net, true)], leave(), "excluded"));
    }
    rules.push(rule(&[from(network, true), to(multicast(network.family()), false)], masquerade(), "pod to outside"));
    rules.push(rule(&[from(network, false), to(network, true)], masquerade(), "outside to pods of other nodes"));
    rules
}

fn multicast(family: Family) -> Subnet {
    let (base, len) = match family {
        Family::V4 => (IpAddr::from([224, 0, 0, 0]), 4),
        Family::V6 => (IpAddr::from([0xff00, 0, 0, 0, 0, 0, 0, 0]), 8),
    };
    Subnet::new(base, len).unwrap_or(Subnet::host(base))
}

/// The set of strangers may be full, and then its rule ends: the verdict has one of its own.
fn unknown_vtep(family: Family, enforce: bool) -> Vec<Rule> {
    let remember = Rule {
        expressions: Expression::remember_source(family, STRANGERS),
        comment: Some("weft: who it was".to_owned()),
    };
    // An accept ends this chain alone: nobody is counted twice, and other tables judge as they will.
    let (verdict, comment) = if enforce { (Verdict::Drop, "dropped") } else { (Verdict::Accept, "audit: let through") };
    vec![remember, rule(&[vec![Expression::Counter]], Expression::Verdict(verdict), comment)]
}

/// On the way in, and not before routing: what is only passing through is not ours to judge, and IPv4
/// packets are whole here. IPv6 fragments are not put together yet, and the VNI may be in a later one: the
/// first of a stranger's is judged by its port alone.
///
/// Who is known goes first, and no further: every packet between nodes pays for that rule (docs/performance.md), and
/// to take a VNI of three bytes is slow (`nft_payload_select_ops` in the kernel).
fn guard(family: Family, overlay: &Overlay) -> Vec<Rule> {
    let jump = || Expression::Verdict(Verdict::Jump(UNKNOWN.to_owned()));
    let ours = || Expression::udp_to(overlay.port);
    let known = [ours(), Expression::source_in(family, VTEPS, true)];
    let mut rules = vec![
        rule(&known, Expression::Verdict(Verdict::Accept), "VXLAN from a known VTEP"),
        rule(&[ours(), Expression::vni(overlay.vni.get())], jump(), "ours, from no known VTEP"),
    ];
    if family == Family::V6 {
        rules.push(rule(&[ours(), Expression::ipv6_fragment()], jump(), "its first fragment"));
    }
    rules
}

/// What is wrong with a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Nothing.
    None,
    /// It is not there.
    Missing,
    /// It is there and should not be, or not so.
    Wrong,
    /// Only elements of the set of known VTEPs.
    Elements,
}

/// The transaction that makes the table right, and what it is for. Replacing the whole is one transaction:
/// no packet sees half a table.
pub fn changes(family: Family, wanted: Option<&Table>, seen: Option<&SeenTable>) -> (Difference, Vec<NftChange>) {
    let name = TableName::new(family, OUR_TABLE);
    match (wanted, seen) {
        (None, None) => (Difference::None, Vec::new()),
        (None, Some(_)) => (Difference::Wrong, vec![NftChange::DeleteTable(name)]),
        (Some(wanted), None) => (Difference::Missing, wanted.to_changes(&name)),
        (Some(wanted), Some(seen)) if !same_but_elements(wanted, seen) => {
            let mut all = vec![NftChange::DeleteTable(name.clone())];
            all.extend(wanted.to_changes(&name));
            (Difference::Wrong, all)
        }
        (Some(wanted), Some(seen)) => {
            let all = elements(&name, wanted, seen);
            (if all.is_empty() { Difference::None } else { Difference::Elements }, all)
        }
    }
}

fn same_but_elements(wanted: &Table, seen: &SeenTable) -> bool {
    let chain = |(chain, rules): &(Chain, Vec<Rule>)| {
        seen.chains
            .get(&chain.name)
            .is_some_and(|(other, listed)| other == chain && rules.iter().eq(listed.iter().map(|listed| &listed.rule)))
    };
    let set = |(set, _): &(Set, BTreeSet<IpAddr>)| {
        seen.sets.get(&set.name).is_some_and(|(other, _)| other.as_ref() == Some(set))
    };
    !seen.dormant
        && usize::try_from(seen.objects).is_ok_and(|objects| objects == wanted.chains.len() + wanted.sets.len())
        && wanted.chains.iter().all(chain)
        && wanted.sets.iter().all(set)
}

fn elements(name: &TableName, wanted: &Table, seen: &SeenTable) -> Vec<NftChange> {
    let mut all = Vec::new();
    for (set, wanted) in wanted.sets.iter().filter(|(set, _)| set.grows.is_none()) {
        let Some((_, seen)) = seen.sets.get(&set.name) else { continue };
        let add: Vec<IpAddr> = wanted.difference(seen).copied().collect();
        let del: Vec<IpAddr> = seen.difference(wanted).copied().collect();
        if !add.is_empty() {
            all.push(NftChange::AddElements(name.clone(), set.name.clone(), add));
        }
        if !del.is_empty() {
            all.push(NftChange::DeleteElements(name.clone(), set.name.clone(), del));
        }
    }
    all
}

/// Packets and bytes that the rule for strangers has counted.
pub fn counted(seen: &SeenTable) -> Option<(u64, u64)> {
    seen.chains.get(UNKNOWN)?.1.iter().find_map(|listed| listed.counted)
}

/// Who was heard lately without being known.
pub fn strangers(seen: &SeenTable) -> Vec<IpAddr> {
    seen.sets.get(STRANGERS).into_iter().flat_map(|(_, elements)| elements).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::filter::Masquerade;

    fn overlay() -> Overlay {
        use crate::model::addr::{ByFamily, Vni};
        use crate::model::settings::Backend;
        let networks = ByFamily { v4: "10.244.0.0/16".parse().ok(), v6: None };
        let vni = Vni::new(1).expect("small");
        let (port, mtu, gbp, learning, direct_routing) = (8472, None, false, false, false);
        Overlay { networks, backend: Backend::Vxlan, vni, port, mtu, gbp, learning, direct_routing }
    }

    #[test]
    fn the_rules_are_flannels_in_its_order() {
        let exclude = vec!["192.0.2.0/24".parse().expect("a subnet"), "fd00::/8".parse().expect("a subnet")];
        let rules =
            FilterRules { masquerade: Some(Masquerade { exclude, fully_random: true }), vteps: VtepFilter::Off };
        let pods = "10.244.3.0/24".parse().expect("a subnet");
        let table = table(&overlay(), &rules, pods, BTreeSet::new).expect("a table");
        let text: Vec<String> = table.chains[0].1.iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            [
                "meta mark & 0x4000 == 0x4000 return comment \"weft: kube-proxy will masquerade it\"",
                "ip saddr 10.244.3.0/24 ip daddr 10.244.0.0/16 return comment \"weft: own pod to pod\"",
                "ip saddr 10.244.0.0/16 ip daddr 10.244.3.0/24 return comment \"weft: pod to own pod\"",
                "ip saddr != 10.244.0.0/16 ip daddr 10.244.3.0/24 return comment \"weft: outside to own pod\"",
                "ip saddr 10.244.0.0/16 ip daddr 192.0.2.0/24 return comment \"weft: excluded\"",
                "ip saddr 10.244.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random comment \"weft: pod to outside\"",
                "ip saddr != 10.244.0.0/16 ip daddr 10.244.0.0/16 masquerade fully-random comment \"weft: outside to pods of \
                 other nodes\"",
            ]
        );
    }
}
