//! The old packet filter: flannel's chains go, and nothing else, byte for byte.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use weft::kernel::legacy::{Trouble, find, remove};
use weft::model::addr::Family;
use weft::model::leftover::{Chain, Filter, Leftover, Seen};

use crate::sandbox::sh;

crate::tests![
    flannels_chains_go_and_every_other_rule_and_counter_stays,
    a_namespace_without_tables_gets_none_from_a_look,
    a_rule_of_somebody_else_keeps_the_chain,
    what_the_jump_shields_from_is_seen,
    without_the_lock_nothing_is_changed,
    a_table_that_others_change_meanwhile_loses_none_of_their_rules,
];

/// The old filter of a namespace, changed by the real programs.
struct Old {
    directory: TempDir,
}

impl Old {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let old = Self { directory };
        std::fs::write(old.lock(), "").expect("a lock");
        old
    }

    fn lock(&self) -> PathBuf {
        self.directory.path().join("xtables.lock")
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command.env("XTABLES_LOCKFILE", self.lock());
        command
    }

    fn restore(&self, six: &str, rules: &str) {
        let file = self.directory.path().join("rules");
        std::fs::write(&file, rules).expect("to write");
        let status =
            self.program(&format!("ip{six}tables-legacy-restore")).args(["-c", "--noflush"]).arg(&file).status();
        assert!(status.expect("iptables-legacy").success(), "{rules}");
    }

    /// All rules with their counters, without the comments that carry the time.
    fn save(&self, six: &str) -> String {
        let output = self.program(&format!("ip{six}tables-legacy-save")).arg("-c").output().expect("iptables-legacy");
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).expect("text");
        text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n")
    }
}

/// Rules as kube-proxy, Docker and an admin have them, of all kinds of matches and targets, with counters; `#`
/// stands where flannel's lines go. Its jumps are among them, for the offsets to matter.
fn rules(flannel: bool, net: &str, any: &str) -> String {
    let text = format!(
        r#"*nat
:PREROUTING ACCEPT [11:12]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [13:14]
:POSTROUTING ACCEPT [15:16]
:DOCKER - [0:0]
#:FLANNEL-POSTRTG - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-X - [0:0]
[1:60] -A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
[2:61] -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
[3:62] -A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
#[4:63] -A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
[5:64] -A POSTROUTING -s {net} ! -o docker0 -j MASQUERADE
[6:65] -A DOCKER -i docker0 -j RETURN
#[7:66] -A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN
#[8:67] -A FLANNEL-POSTRTG -s {net} ! -d {any} -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
[9:68] -A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
[10:69] -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
[11:70] -A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
[12:71] -A KUBE-SERVICES -p tcp -m comment --comment "flanneld masq" -m tcp --dport 443 -g KUBE-SVC-X
[13:72] -A KUBE-SVC-X -m statistic --mode random --probability 0.5 -j KUBE-MARK-MASQ
COMMIT
*filter
:INPUT ACCEPT [21:22]
:FORWARD ACCEPT [23:24]
:OUTPUT ACCEPT [25:26]
:DOCKER-USER - [0:0]
#:FLANNEL-FWD - [0:0]
:KUBE-FORWARD - [0:0]
[31:80] -A FORWARD -m conntrack --ctstate INVALID -m limit --limit 3/min -j LOG --log-prefix "odd: " --log-level 7
[32:81] -A FORWARD -j KUBE-FORWARD
[33:82] -A FORWARD -m comment --comment "flanneld forward" -j DOCKER-USER
#[34:83] -A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
[35:84] -A OUTPUT -m owner --uid-owner 0 -j ACCEPT
[36:85] -A DOCKER-USER -j RETURN
#[37:86] -A FLANNEL-FWD -s {net} -m comment --comment "flanneld forward" -j ACCEPT
#[38:87] -A FLANNEL-FWD -d {net} -m comment --comment "flanneld forward" -j ACCEPT
[39:88] -A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
COMMIT
"#
    );
    let lines = text.lines().filter_map(|line| match line.strip_prefix('#') {
        Some(flannels) => flannel.then_some(flannels),
        None => Some(line),
    });
    lines.map(|line| format!("{line}\n")).collect()
}

const NETS: [(&str, &str, &str, Family); 2] =
    [("", "10.244.0.0/16", "224.0.0.0/4", Family::V4), ("6", "fd00:10:244::/48", "ff00::/8", Family::V6)];

fn seen(family: Family, chain: Chain) -> Seen {
    Seen { what: Leftover::Chain(Filter::Legacy, family, chain), jumps: 1, users: Vec::new(), guards: false }
}

fn flannels_chains_go_and_every_other_rule_and_counter_stays() {
    let old = Old::new();
    for (six, net, any, family) in NETS {
        old.restore(six, &rules(false, net, any));
        let clean = old.save(six);
        let tables = ["nat", "filter"].map(|table| format!("ip{six}tables-legacy -t {table}"));
        for table in &tables {
            for verb in ["-F", "-X"] {
                let mut words = table.split(' ');
                let done = old.program(words.next().expect("a word")).args(words).arg(verb).status();
                assert!(done.expect("iptables-legacy").success());
            }
        }
        old.restore(six, &rules(true, net, any));
        assert_ne!(old.save(six), clean);
        assert_eq!(
            find(family).expect("a look"),
            [seen(family, Chain::Masquerade), seen(family, Chain::Forward)],
            "{family}"
        );
        for chain in Chain::BOTH {
            assert!(remove(family, chain, &old.lock()).expect("removed"), "{family} {chain:?}");
            assert!(!remove(family, chain, &old.lock()).expect("nothing left"), "{family} {chain:?}");
        }
        assert_eq!(old.save(six), clean, "{family}");
        assert_eq!(find(family).expect("a look"), []);
    }
}

fn a_namespace_without_tables_gets_none_from_a_look() {
    for family in Family::BOTH {
        assert_eq!(find(family).expect("a look"), []);
        assert!(!remove(family, Chain::Forward, Path::new("/nowhere")).expect("nothing to do"));
    }
    let names = std::fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default();
    assert_eq!(names, "", "a look made tables");
}

fn a_rule_of_somebody_else_keeps_the_chain() {
    let old = Old::new();
    let text = rules(true, "10.244.0.0/16", "224.0.0.0/4");
    let text = text.replace(
        "[35:84]",
        "[7:7] -A DOCKER-USER -m comment --comment \"flanneld forward\" -j FLANNEL-FWD\n\
         [7:7] -A FORWARD -s 10.0.0.0/8 -m comment --comment \"flanneld forward\" -j FLANNEL-FWD\n[35:84]",
    );
    old.restore("", &text);
    let found = find(Family::V4).expect("a look");
    assert_eq!((found[1].jumps, &found[1].users), (1, &vec!["FORWARD".to_owned(), "DOCKER-USER".to_owned()]));
    let before = old.save("");
    assert!(remove(Family::V4, Chain::Forward, &old.lock()).expect("the jump goes"));
    let jump = "[34:83] -A FORWARD -m comment --comment \"flanneld forward\" -j FLANNEL-FWD\n";
    assert!(before.contains(jump));
    assert_eq!(old.save(""), before.replace(jump, ""));
    assert!(!remove(Family::V4, Chain::Forward, &old.lock()).expect("the rest stays"));
}

fn what_the_jump_shields_from_is_seen() {
    let old = Old::new();
    let text = rules(true, "10.244.0.0/16", "224.0.0.0/4");
    old.restore("", &text);
    let guards = || find(Family::V4).expect("a look")[1].guards;
    let change = |line: &str| {
        let status = old.program("iptables-legacy").args(line.split_whitespace()).status();
        assert!(status.expect("iptables-legacy").success(), "{line}");
    };
    assert!(!guards());
    change("-P FORWARD DROP");
    assert!(guards(), "a policy");
    change("-P FORWARD ACCEPT");
    change("-A FORWARD -j REJECT");
    assert!(guards(), "a rule behind it");
    change("-D FORWARD -j REJECT");
    assert!(!guards());
}

fn without_the_lock_nothing_is_changed() {
    let old = Old::new();
    old.restore("", &rules(true, "10.244.0.0/16", "224.0.0.0/4"));
    let before = old.save("");
    let lock = old.lock();
    let held = std::fs::File::open(&lock).expect("the lock");
    held.lock().expect("to hold it");
    let refused = |path: &Path| remove(Family::V4, Chain::Forward, path).expect_err("a refusal");
    assert!(matches!(refused(&lock), Trouble::Locked(_)));
    assert!(matches!(refused(Path::new("/nowhere/xtables.lock")), Trouble::NoLock(_)));
    assert_eq!(old.save(""), before);
    held.unlock().expect("to let it go");
    assert!(remove(Family::V4, Chain::Forward, &lock).expect("removed"));
}

/// A neighbour that adds and removes rules as fast as it can, with the lock and the real programs.
fn a_table_that_others_change_meanwhile_loses_none_of_their_rules() {
    let old = Old::new();
    let here = weft::lab::netns::Namespace::current().expect("a namespace");
    std::thread::scope(|scope| {
        let neighbour = scope.spawn(|| {
            here.enter().expect("the namespace");
            for number in 0..60 {
                let rule = format!("-w -A INPUT -s 192.0.2.{number} -j ACCEPT");
                let status = old.program("iptables-legacy").args(rule.split_whitespace()).status();
                assert!(status.expect("iptables-legacy").success(), "{rule}");
            }
        });
        let (mut removed, jump) = (
            0,
            "*filter\n:FLANNEL-FWD - [0:0]\n-A FORWARD -m comment --comment \"flanneld forward\" -j FLANNEL-FWD\n-A FLANNEL-FWD -j ACCEPT\nCOMMIT\n",
        );
        while !neighbour.is_finished() {
            let file = old.directory.path().join("flannel");
            std::fs::write(&file, jump).expect("to write");
            let status = old.program("iptables-legacy-restore").args(["-w", "--noflush"]).arg(&file).status();
            assert!(status.expect("iptables-legacy").success());
            loop {
                match remove(Family::V4, Chain::Forward, &old.lock()) {
                    Ok(done) => break removed += usize::from(done),
                    Err(Trouble::Locked(_)) => std::thread::yield_now(),
                    Err(trouble) => panic!("{trouble}"),
                }
            }
        }
        assert!(removed > 0);
    });
    let left = old.save("");
    for number in 0..60 {
        assert!(left.contains(&format!("-A INPUT -s 192.0.2.{number}/32 -j ACCEPT")), "{number} is lost:\n{left}");
    }
    assert!(!left.contains("FLANNEL"));
    sh("true");
}
