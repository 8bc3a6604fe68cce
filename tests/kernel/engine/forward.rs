//! A FORWARD of somebody else that drops the pods' packets, in each of the kernel's packet filters, as the real programs
//! make it: seen where it is sure, and nowhere else.

use std::process::Command;

use weft::kernel::forward::find;
use weft::model::addr::Family;
use weft::plan::forward::stops;

use crate::sandbox::sh;

crate::tests![
    a_forward_that_drops_is_seen_in_both_filters_and_both_families,
    what_others_accept_is_no_cure_and_what_the_pods_may_be_accepted_by_is_no_alarm,
    a_ruleset_of_nftables_is_read_as_it_is_meant,
    the_old_filter_is_not_loaded_by_a_look,
];

/// What Docker and kube-proxy put there.
const OTHERS: &[&str] = &[
    "-N DOCKER",
    "-N DOCKER-USER",
    "-N KUBE-FORWARD",
    "-N KUBE-SERVICES",
    "-A DOCKER-USER -j RETURN",
    "-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp --dport 80 -j ACCEPT",
    "-A FORWARD -m comment --comment kubernetes -j KUBE-FORWARD",
    "-A FORWARD -m conntrack --ctstate NEW -m comment --comment portals -j KUBE-SERVICES",
    "-A KUBE-SERVICES -d 10.96.0.10/32 -p udp -j REJECT",
    "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP",
    "-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT",
    "-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-A FORWARD -j DOCKER-USER",
    "-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-A FORWARD -o docker0 -j DOCKER",
    "-A FORWARD -m state --state ESTABLISHED -j ACCEPT",
    "-A FORWARD -i docker0 ! -o docker0 -j ACCEPT",
    "-A FORWARD -i docker0 -o docker0 -j ACCEPT",
];

fn run(program: &str, rule: &str) {
    // In a namespace of its own nobody else waits for the lock.
    let lock = tempfile::NamedTempFile::new().expect("a lock");
    let mut command = Command::new(program);
    command.args(["-w", "-t", "filter"]).args(rule.split_whitespace()).env("XTABLES_LOCKFILE", lock.path());
    let output = command.output().expect("iptables");
    assert!(output.status.success(), "{program} {rule}: {}", String::from_utf8_lossy(&output.stderr));
}

/// How many chains surely stop the pods.
fn alarms(family: Family) -> usize {
    let chains = find(family).expect("to look");
    chains.iter().filter(|chain| stops(chain, &|name| matches!(name, "docker0" | "lan"))).count()
}

fn a_forward_that_drops_is_seen_in_both_filters_and_both_families() {
    for (at, (program, family)) in [
        ("iptables-nft", Family::V4),
        ("ip6tables-nft", Family::V6),
        ("iptables-legacy", Family::V4),
        ("ip6tables-legacy", Family::V6),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(alarms(family), at / 2, "{program}");
        run(program, "-P FORWARD DROP");
        assert_eq!(alarms(family), 1 + at / 2, "{program}");
        run(program, "-P FORWARD ACCEPT");
        assert_eq!(alarms(family), at / 2, "{program}");
        run(program, "-P FORWARD DROP");
    }
}

fn what_others_accept_is_no_cure_and_what_the_pods_may_be_accepted_by_is_no_alarm() {
    for program in ["iptables-nft", "iptables-legacy"] {
        run(program, "-P FORWARD DROP");
        OTHERS.iter().for_each(|rule| run(program, rule));
        assert_eq!(alarms(Family::V4), 1, "{program}: {:#?}", find(Family::V4));
        for rule in [
            "FORWARD -s 10.244.0.0/16 -j ACCEPT",
            "FORWARD -d 10.244.0.0/16 -j ACCEPT",
            "FORWARD -i cni0 -j ACCEPT",
            "FORWARD -o flannel.1 -j ACCEPT",
            "FORWARD -i docker+ -j ACCEPT",
            "FORWARD ! -i docker0 -j ACCEPT",
            "FORWARD -p tcp -j ACCEPT",
            "FORWARD -m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT",
            "FORWARD -m conntrack ! --ctstate ESTABLISHED -j ACCEPT",
            "FORWARD -m mark --mark 0x10000/0x10000 -j ACCEPT",
            "FORWARD -m mark ! --mark 0x4000/0x4000 -j ACCEPT",
            "FORWARD -j NFQUEUE --queue-num 1",
            "DOCKER-USER -s 10.244.0.0/16 -j ACCEPT",
        ] {
            run(program, &format!("-I {rule}"));
            assert_eq!(alarms(Family::V4), 0, "{program} {rule}: {:#?}", find(Family::V4));
            run(program, &format!("-D {rule}"));
            assert_eq!(alarms(Family::V4), 1, "{program} {rule}");
        }
        // As flannel does it.
        for rule in [
            "-N FLANNEL-FWD",
            "-A FLANNEL-FWD -s 10.244.0.0/16 -m comment --comment x -j ACCEPT",
            "-A FORWARD -m comment --comment x -j FLANNEL-FWD",
        ] {
            run(program, rule);
        }
        assert_eq!(alarms(Family::V4), 0, "{program}");
        run(program, "-P FORWARD ACCEPT");
    }
}

fn a_ruleset_of_nftables_is_read_as_it_is_meant() {
    for (rules, alarm) in [
        ("", true),
        ("ct state established,related accept", true),
        ("ct state invalid drop; iifname \"lan\" oifname \"wan\" accept", true),
        ("meta mark and 0x4000 == 0x4000 accept", true),
        ("tcp dport 22 log prefix \"x\"; counter reject", true),
        ("accept", false),
        ("ct state new accept", false),
        ("ct state vmap { established : accept, related : accept }", false),
        ("ip saddr 10.244.0.0/16 accept", false),
        ("iifname { \"lan\", \"cni0\" } accept", false),
        ("iifname \"flannel*\" accept", false),
        ("jump more", false),
    ] {
        for (family, both) in [("inet", true), ("ip", false)] {
            let lines = rules.replace("; ", "\n");
            sh(&format!(
                "nft add table {family} mine
                 nft add chain {family} mine more
                 nft add rule {family} mine more ip daddr 10.244.0.0/16 accept
                 nft add chain {family} mine pods {{ type filter hook forward priority 10 ; policy drop ; }}"
            ));
            for rule in lines.lines().filter(|rule| !rule.is_empty()) {
                let added =
                    Command::new("nft").arg(format!("add rule {family} mine pods {rule}")).output().expect("nft");
                assert!(added.status.success(), "{rule}: {}", String::from_utf8_lossy(&added.stderr));
            }
            let expected = [usize::from(alarm), usize::from(alarm && both)];
            assert_eq!([Family::V4, Family::V6].map(alarms), expected, "{family}: {rules}: {:#?}", find(Family::V4));
            sh(&format!("nft add table {family} mine {{ flags dormant ; }}"));
            assert_eq!(alarms(Family::V4), 0, "a dormant table stops nothing");
            sh(&format!("nft delete table {family} mine"));
        }
    }
    // Another hook, another policy.
    sh("nft add table inet mine
        nft add chain inet mine in { type filter hook input priority 0 ; policy drop ; }
        nft add chain inet mine pods { type filter hook forward priority 0 ; policy accept ; }");
    assert_eq!(alarms(Family::V4), 0);
}

fn the_old_filter_is_not_loaded_by_a_look() {
    let names = || std::fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default();
    assert_eq!(alarms(Family::V4), 0);
    assert_eq!(names(), "");
}
