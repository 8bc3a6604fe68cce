//! nf_tables: what we write is what the real `nft` reads, and what we read is what we wrote.

use std::collections::BTreeSet;
use std::net::IpAddr;

use weft::kernel::nft::{Names, Nft};
use weft::model::addr::Family;
use weft::model::nft::{
    Base, Chain, Expression, HOOK_INPUT, HOOK_POSTROUTING, NftChange, Rule, Set, Table, TableFamily, TableName, Verdict,
};
use weft::model::op::Ack;

use crate::sandbox::{sh, try_sh};
use crate::support::subnet;

crate::tests![
    every_expression_reads_back_as_it_was_written_and_as_nft_writes_it,
    nft_understands_what_a_change_prints,
    a_transaction_happens_whole_or_not_at_all,
    a_transaction_that_was_overtaken_is_refused,
    five_thousand_elements_go_in_and_out,
    a_rule_that_was_edited_is_another_rule_though_its_comment_stays,
    rules_of_iptables_are_listed_and_deleted_by_handle,
    a_table_that_is_not_there_is_none,
];

const NAMES: Names<'_> = Names { chains: &["out", "in", "far"], sets: &["known", "seen"] };

fn networks(family: Family) -> [&'static str; 3] {
    match family {
        Family::V4 => ["10.244.0.0/16", "10.244.3.0/25", "224.0.0.0/4"],
        Family::V6 => ["fd00:10:244::/48", "fd00:10:244:3::/65", "ff00::/8"],
    }
}

fn addresses(family: Family, count: u32) -> BTreeSet<IpAddr> {
    let one = |number: u32| match family {
        Family::V4 => IpAddr::from((0xac10_0000 + number).to_be_bytes()),
        Family::V6 => IpAddr::from((0xfd00_0174_u128 << 96 | u128::from(number)).to_be_bytes()),
    };
    (1..=count).map(one).collect()
}

fn rule(parts: &[Vec<Expression>], comment: Option<&str>) -> Rule {
    Rule { expressions: parts.concat(), comment: comment.map(str::to_owned) }
}

/// One of everything.
fn everything(family: Family) -> Table {
    let [cluster, pods, multicast] = networks(family).map(subnet);
    let end = |verdict| vec![Expression::Verdict(verdict)];
    let base = |kind: &str, hook, priority| Some(Base { kind: kind.to_owned(), hook, priority, drop: false });
    let out = vec![
        rule(&[Expression::marked(0x4000), end(Verdict::Return)], Some("a comment")),
        rule(&[Expression::source(pods, true), Expression::destination(cluster, true), end(Verdict::Return)], None),
        rule(
            &[
                Expression::source(cluster, true),
                Expression::destination(multicast, false),
                vec![Expression::Counter, Expression::Masquerade { fully_random: true }],
            ],
            Some("another"),
        ),
        rule(
            &[Expression::source(cluster, false), vec![Expression::Masquerade { fully_random: false }]],
            Some(&"x".repeat(127)),
        ),
    ];
    let far = vec![
        rule(&[Expression::remember_source(family, "seen")], None),
        rule(&[vec![Expression::Counter], end(Verdict::Drop)], None),
    ];
    let mut inward = vec![rule(
        &[
            Expression::udp_to(8472),
            Expression::vni(0x0012_3456),
            Expression::source_in(family, "known", false),
            end(Verdict::Jump("far".to_owned())),
        ],
        None,
    )];
    if family == Family::V6 {
        inward.push(rule(&[Expression::ipv6_fragment(), Expression::udp_to(8472), end(Verdict::Accept)], None));
    }
    let chain = |name: &str, base| Chain { name: name.to_owned(), base };
    Table {
        sets: vec![
            (Set { name: "known".to_owned(), family, grows: None }, addresses(family, 3)),
            (Set { name: "seen".to_owned(), family, grows: Some((64, 3_600_000)) }, BTreeSet::new()),
        ],
        chains: vec![
            (chain("out", base("nat", HOOK_POSTROUTING, 101)), out),
            (chain("far", None), far),
            (chain("in", base("filter", HOOK_INPUT, -300)), inward),
        ],
    }
}

fn name(family: Family) -> TableName {
    TableName::new(family, "weft")
}

/// What is there, as what was wanted.
fn seen(nft: &mut Nft, family: Family) -> Table {
    let seen = nft.look(&name(family), NAMES).expect("a look").expect("a table");
    assert!(!seen.dormant);
    assert_eq!(seen.objects as usize, seen.chains.len() + seen.sets.len());
    let set = |name: &str| {
        let (set, elements) = seen.sets[name].clone();
        (set.expect("a set of our make"), elements)
    };
    let chain = |name: &str| {
        let (chain, rules) = seen.chains[name].clone();
        (chain, rules.into_iter().map(|listed| listed.rule).collect())
    };
    Table { sets: ["known", "seen"].map(set).to_vec(), chains: ["out", "far", "in"].map(chain).to_vec() }
}

fn lay(nft: &mut Nft, family: Family) {
    assert_eq!(nft.commit(&everything(family).to_changes(&name(family)), None), Ack::Done);
}

fn every_expression_reads_back_as_it_was_written_and_as_nft_writes_it() {
    let mut nft = Nft::open().expect("a socket");
    for family in Family::BOTH {
        lay(&mut nft, family);
        assert_eq!(seen(&mut nft, family), everything(family));
    }
    let text = try_sh("nft list ruleset").expect("nft");
    for line in [
        "type nat hook postrouting priority srcnat + 1; policy accept;",
        "meta mark & 0x00004000 == 0x00004000 return comment \"a comment\"",
        "ip saddr 10.244.3.0/25 ip daddr 10.244.0.0/16 return",
        "ip saddr 10.244.0.0/16 ip daddr != 224.0.0.0/4 counter packets 0 bytes 0 masquerade fully-random comment \"another\"",
        "type filter hook input priority raw; policy accept;",
        "udp dport 8472 @th,96,24 0x123456 ip saddr != @known jump far",
        "update @seen { ip saddr }",
        "counter packets 0 bytes 0 drop",
        "ip6 saddr fd00:10:244:3::/65 ip6 daddr fd00:10:244::/48 return",
        "exthdr frag exists udp dport 8472 accept",
        "elements = { fd00:174::1,",
        "timeout 1h",
    ] {
        assert!(text.contains(line), "{line}\n---\n{text}");
    }
}

fn nft_understands_what_a_change_prints() {
    let mut nft = Nft::open().expect("a socket");
    for family in Family::BOTH {
        let changes = everything(family).to_changes(&name(family));
        let script: String = changes.iter().map(|change| format!("{change}\n")).collect();
        let file = format!("{}/weft-{}-{}.nft", std::env::temp_dir().display(), std::process::id(), family.label());
        std::fs::write(&file, script).expect("to write a file");
        let ran = try_sh(&format!("nft -f {file}"));
        std::fs::remove_file(&file).expect("to remove it");
        ran.expect("nft");
        let ours = seen(&mut nft, family);
        // The very same: a plan that was pasted leaves nothing to do.
        assert_eq!(ours, everything(family));
    }
}

fn a_transaction_happens_whole_or_not_at_all() {
    let mut nft = Nft::open().expect("a socket");
    let table = name(Family::V4);
    let bad = [NftChange::AddTable(table.clone()), NftChange::DeleteChain(table.clone(), "nobody".to_owned())];
    match nft.commit(&bad, None) {
        Ack::Refused(refusal) => assert_eq!(refusal.errno, nix::libc::ENOENT),
        other => panic!("{other:?}"),
    }
    assert_eq!(nft.look(&table, NAMES).expect("a look"), None);
    // And the socket is as good as before.
    lay(&mut nft, Family::V4);
    // A whole replacement, over what is there.
    let whole = [
        vec![NftChange::AddTable(table.clone()), NftChange::DeleteTable(table.clone())],
        everything(Family::V4).to_changes(&table),
    ];
    assert_eq!(nft.commit(&whole.concat(), None), Ack::Done);
    assert_eq!(seen(&mut nft, Family::V4), everything(Family::V4));
}

fn a_transaction_that_was_overtaken_is_refused() {
    let mut nft = Nft::open().expect("a socket");
    let before = nft.generation().expect("a number");
    sh("nft add table ip somebody");
    let changes = [NftChange::AddTable(name(Family::V4))];
    match nft.commit(&changes, Some(before)) {
        Ack::Refused(refusal) => assert_eq!(refusal.errno, nix::libc::ERESTART),
        other => panic!("{other:?}"),
    }
    let now = nft.generation().expect("a number");
    assert_eq!(nft.commit(&changes, Some(now)), Ack::Done);
}

fn five_thousand_elements_go_in_and_out() {
    let mut nft = Nft::open().expect("a socket");
    for family in Family::BOTH {
        let mut table = everything(family);
        table.sets[0].1 = addresses(family, 5000);
        assert_eq!(nft.commit(&table.to_changes(&name(family)), None), Ack::Done);
        assert_eq!(seen(&mut nft, family), table);
        let gone: Vec<IpAddr> = addresses(family, 4900).into_iter().collect();
        let changes = [NftChange::DeleteElements(name(family), "known".to_owned(), gone)];
        assert_eq!(nft.commit(&changes, None), Ack::Done);
        assert_eq!(seen(&mut nft, family).sets[0].1.len(), 100);
    }
}

fn a_rule_that_was_edited_is_another_rule_though_its_comment_stays() {
    let mut nft = Nft::open().expect("a socket");
    lay(&mut nft, Family::V4);
    let (_, rules) = &nft.look(&name(Family::V4), NAMES).expect("a look").expect("a table").chains["out"];
    let before = rules.clone();
    let file = format!("{}/weft-{}-edit.nft", std::env::temp_dir().display(), std::process::id());
    for edited in [
        "meta mark & 0x00004000 == 0x00008000 return comment \"a comment\"",
        "meta mark & 0x00004000 == 0x00004000 accept comment \"a comment\"",
        "meta mark & 0x00004000 == 0x00004000 counter return comment \"a comment\"",
        "meta mark 0x00004000 return comment \"a comment\"",
        "ct mark 7 return comment \"a comment\"",
    ] {
        std::fs::write(&file, format!("replace rule ip weft out handle {} {edited}\n", before[0].handle))
            .expect("a file");
        sh(&format!("nft -f {file}"));
        let (_, rules) = &nft.look(&name(Family::V4), NAMES).expect("a look").expect("a table").chains["out"];
        assert_eq!(rules[0].rule.comment.as_deref(), Some("a comment"), "{edited}");
        assert_ne!(rules[0].rule, before[0].rule, "{edited}");
        assert_eq!(rules[1..], before[1..], "{edited}");
        sh("nft flush table ip weft");
        sh("nft delete table ip weft");
        lay(&mut nft, Family::V4);
        let (_, rules) = &nft.look(&name(Family::V4), NAMES).expect("a look").expect("a table").chains["out"];
        assert_eq!(rules[0].handle, before[0].handle);
    }
    std::fs::remove_file(&file).expect("to remove it");
}

fn rules_of_iptables_are_listed_and_deleted_by_handle() {
    let mut nft = Nft::open().expect("a socket");
    sh("iptables -t nat -N FLANNEL-POSTRTG
        iptables -t nat -A POSTROUTING -m comment --comment flanneld -j FLANNEL-POSTRTG
        iptables -t nat -A POSTROUTING -s 192.0.2.0/24 -j RETURN
        iptables -t nat -A FLANNEL-POSTRTG -s 10.244.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE
        iptables -P FORWARD DROP");
    let nat = TableName::new(TableFamily::Ip, "nat");
    assert!(nft.tables(TableFamily::Ip).expect("tables").contains(&nat));
    let chains = nft.chains(TableFamily::Ip).expect("chains");
    assert!(
        chains.iter().any(|(table, chain)| *table == nat && chain.name == "FLANNEL-POSTRTG" && chain.base.is_none())
    );
    let forward = nft.chain(&TableName::new(TableFamily::Ip, "filter"), "FORWARD").expect("a look").expect("a chain");
    assert!(forward.base.expect("a base chain").drop);
    let rules = nft.rules(&nat, Some("POSTROUTING")).expect("rules");
    let jump = Expression::Verdict(Verdict::Jump("FLANNEL-POSTRTG".to_owned()));
    let jumps: Vec<u64> = rules
        .iter()
        .filter(|(_, listed)| listed.rule.expressions.contains(&jump))
        .map(|(_, listed)| listed.handle)
        .collect();
    assert_eq!((rules.len(), jumps.len()), (2, 1));
    let changes = [
        NftChange::DeleteRule(nat.clone(), "POSTROUTING".to_owned(), jumps[0]),
        NftChange::FlushChain(nat.clone(), "FLANNEL-POSTRTG".to_owned()),
        NftChange::DeleteChain(nat.clone(), "FLANNEL-POSTRTG".to_owned()),
    ];
    let generation = nft.generation().expect("a number");
    assert_eq!(nft.commit(&changes, Some(generation)), Ack::Done);
    let saved = try_sh("iptables-save -t nat").expect("iptables");
    assert!(!saved.contains("FLANNEL") && saved.contains("192.0.2.0/24"), "{saved}");
}

fn a_table_that_is_not_there_is_none() {
    let mut nft = Nft::open().expect("a socket");
    for family in Family::BOTH {
        assert_eq!(nft.look(&name(family), NAMES).expect("a look"), None);
    }
}
