//! Flannel's packet rules in nf_tables: found and removed in both forms, and nothing else is touched.

use std::path::Path;
use std::process::Command;

use weft::kernel::flannel::{find, remove};
use weft::model::addr::Family;
use weft::model::leftover::{Chain, Filter, Leftover, Seen};

use crate::sandbox::try_sh;

crate::tests![
    rules_of_iptables_nft_go_and_those_of_others_stay,
    tables_of_the_nftables_mode_go,
    a_rule_of_somebody_else_keeps_a_chain_of_iptables_nft,
    what_a_jump_of_iptables_nft_shields_from_is_seen,
    nothing_is_found_where_flannel_never_was,
];

const SCRIPT: &str = include_str!("../../cluster/flannel-state");

fn lay(form: &str) {
    let options = "--no-devices --network 10.244.0.0/16 --subnet 10.244.1.0/24 --network6 fd00:10:244::/48 --subnet6 \
                   fd00:10:244:1::/64 --rules";
    let mut script = Command::new("bash");
    script.args(["-c", SCRIPT, "flannel-state"]).args(options.split_whitespace()).arg(form);
    let status = script.status().expect("bash");
    assert!(status.success(), "{form}");
}

/// Rules of others, in nf_tables: those of iptables-nft, and a table of an admin's.
fn others() {
    for six in ["", "6"] {
        let program = format!("ip{six}tables-nft");
        for rule in [
            "-t nat -N KUBE-POSTROUTING",
            "-t nat -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
            "-t nat -A POSTROUTING -m comment --comment flanneld -j KUBE-POSTROUTING",
            "-t filter -N DOCKER-USER",
            "-t filter -A FORWARD -j DOCKER-USER",
            "-t filter -A DOCKER-USER -m conntrack --ctstate ESTABLISHED -j ACCEPT",
        ] {
            try_sh(&format!("{program} {rule}")).expect(rule);
        }
    }
    for line in ["add table inet flannel-ipv4", "add table ip flannel-ipv4-of-mine", "add table ip6 FLANNEL-FWD"] {
        try_sh(&format!("nft {line}")).expect(line);
    }
}

/// Everything that is there, in nft's words and in those of iptables, handles and counters included.
fn saved() -> [String; 3] {
    let text = |line: &str| {
        let text = try_sh(line).expect(line);
        text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n")
    };
    [text("nft list ruleset"), text("iptables-nft-save -c"), text("ip6tables-nft-save -c")]
}

fn removed(what: Leftover) -> bool {
    remove(what, Path::new("/nowhere")).expect("nf_tables does it")
}

fn found() -> Vec<Seen> {
    Family::BOTH.into_iter().flat_map(|family| find(family).expect("a look")).collect()
}

fn rules_of_iptables_nft_go_and_those_of_others_stay() {
    others();
    let clean = saved();
    lay("iptables-nft");
    let expected = Family::BOTH.into_iter().flat_map(|family| {
        Chain::BOTH.map(|chain| Seen {
            what: Leftover::Chain(Filter::Nft, family, chain),
            jumps: 1,
            users: Vec::new(),
            guards: false,
        })
    });
    assert_eq!(found(), expected.collect::<Vec<_>>());
    for seen in found() {
        assert!(removed(seen.what), "{seen:?}");
        assert!(!removed(seen.what), "{seen:?}: once is enough");
    }
    assert_eq!(saved(), clean);
}

fn tables_of_the_nftables_mode_go() {
    others();
    let clean = saved();
    lay("nft");
    let tables: Vec<Leftover> = found().into_iter().map(|seen| seen.what).collect();
    assert_eq!(tables, Family::BOTH.map(Leftover::Table));
    assert!(tables.into_iter().all(removed));
    assert_eq!(saved(), clean);
}

fn a_rule_of_somebody_else_keeps_a_chain_of_iptables_nft() {
    lay("iptables-nft");
    let line = "iptables-nft -t filter -I FORWARD -s 192.0.2.0/24 -m comment --comment x -j FLANNEL-FWD";
    try_sh(line).expect(line);
    let forward = Leftover::Chain(Filter::Nft, Family::V4, Chain::Forward);
    let seen = || found().into_iter().find(|seen| seen.what == forward).expect("the chain");
    assert_eq!((seen().jumps, seen().users), (1, vec!["FORWARD".to_owned()]));
    assert!(removed(forward), "flannel's jump goes");
    assert_eq!((seen().jumps, seen().users), (0, vec!["FORWARD".to_owned()]));
    assert!(!removed(forward), "the rest stays");
    assert!(saved()[1].contains("-A FLANNEL-FWD -d 10.244.0.0/16"), "{:?}", saved());
}

fn what_a_jump_of_iptables_nft_shields_from_is_seen() {
    lay("iptables-nft");
    let guards = || found().into_iter().any(|seen| seen.guards);
    assert!(!guards());
    for (change, expected) in [
        ("-P FORWARD DROP", true),
        ("-P FORWARD ACCEPT", false),
        ("-I FORWARD -j LOG", false),
        ("-A FORWARD -j REJECT", true),
        ("-D FORWARD -j REJECT", false),
    ] {
        try_sh(&format!("iptables-nft {change}")).expect(change);
        assert_eq!(guards(), expected, "{change}");
    }
}

fn nothing_is_found_where_flannel_never_was() {
    assert_eq!(found(), []);
    others();
    let clean = saved();
    assert_eq!(found(), []);
    assert!(!removed(Leftover::Chain(Filter::Nft, Family::V6, Chain::Masquerade)));
    remove(Leftover::Table(Family::V4), Path::new("/nowhere")).expect_err("no table");
    assert_eq!(saved(), clean);
}
