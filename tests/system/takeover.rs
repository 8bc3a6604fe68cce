//! A cluster moves over from flannel and back, node by node: pods that talk notice nothing, whatever form
//! flannel's packet rules have.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use weft::lab::addressing::name;
use weft::lab::ping::{Stream, once};
use weft::lab::stage::Stage;

use crate::agent::{Agent, binary};
use crate::flannel;
use crate::machines::{self, ADDRESSING, lay};
use crate::sandbox::{DIRECTORY, sh, try_sh};
use crate::world::{World, within};

crate::tests![
    a_cluster_with_iptables_nft_moves_over_and_back,
    a_cluster_with_iptables_legacy_moves_over_and_back,
    a_cluster_with_nftables_mode_moves_over_and_back,
    a_flanneld_that_goes_on_is_named,
];

const NODES: u8 = 3;
/// A host outside of the cluster that knows no way to a pod.
const OUTSIDE: [&str; 2] = ["203.0.113.1", "2001:db8:ffff::1"];

fn a_cluster_with_iptables_nft_moves_over_and_back() {
    moves_over_and_back("iptables-nft");
}

fn a_cluster_with_iptables_legacy_moves_over_and_back() {
    moves_over_and_back("iptables-legacy");
}

fn a_cluster_with_nftables_mode_moves_over_and_back() {
    moves_over_and_back("nft");
}

struct Cluster {
    stage: Stage,
    directory: PathBuf,
    form: &'static str,
    agents: BTreeMap<u8, Agent>,
}

fn moves_over_and_back(form: &'static str) {
    let mut cluster = Cluster::new(form);
    let before: BTreeMap<u8, String> = (1..=NODES).map(|number| (number, cluster.others(number))).collect();
    let streams = cluster.streams();
    for number in 1..=NODES {
        cluster.over(number);
    }
    for number in 1..=NODES {
        cluster.back(number);
    }
    let mut sent = 0;
    for (what, stream) in streams {
        let tally = stream.stop();
        sent += tally.sent;
        assert!(tally.sent > 500 && tally.lost == 0, "{form}: {what}: {tally:?}");
    }
    println!("takeover, {form}: {NODES} nodes over and back, {sent} pings, none lost");
    for number in 1..=NODES {
        assert_eq!(cluster.others(number), before[&number], "{form}: rules of others on {}", name(number));
    }
}

impl Cluster {
    /// Three nodes as flannel leaves them.
    fn new(form: &'static str) -> Self {
        let directory = PathBuf::from(DIRECTORY).join(format!("takeover-{form}"));
        let stage = Stage::build(ADDRESSING, &binary(), &directory, false).expect("a stage");
        // As kube-proxy and the CNI plugins do, the programs of either kind share one lock.
        std::fs::write(flannel::lock(), "").expect("a lock");
        sh(&format!("ip address add {}/32 dev lo\nip address add {}/128 dev lo nodad", OUTSIDE[0], OUTSIDE[1]));
        let mut cluster = Self { stage, directory, form, agents: BTreeMap::new() };
        for number in 1..=NODES {
            cluster.stage.add_machine(number).expect("a machine");
            machines::announce(&cluster.stage, number);
        }
        for number in 1..=NODES {
            cluster.run(number, || {
                foreign_rules();
                lay(NODES, number, &format!("--rules {form} --root {}", cluster.root(number).display()));
            });
        }
        cluster
    }

    fn run<T: Send>(&self, number: u8, work: impl FnOnce() -> T + Send) -> T {
        machines::run(&self.stage, number, work)
    }

    fn root(&self, number: u8) -> PathBuf {
        self.directory.join(name(number))
    }

    /// Pings between all pods and to the outside, as fast as one a millisecond.
    fn streams(&self) -> Vec<(String, Stream)> {
        let mut streams = Vec::new();
        for number in 1..=NODES {
            let next = number % NODES + 1;
            let outside = OUTSIDE.map(|ip| ip.parse().expect("an address"));
            for target in ADDRESSING.inside(next, 2).into_iter().map(|(ip, _)| ip).chain(outside) {
                let from = &self.stage.members[&number].machine.pod.network;
                let what = format!("from the pod of {} to {target}", name(number));
                within(Duration::from_secs(20), &what, || {
                    let answer = from.run(|| once(target, Duration::from_millis(300))).expect("a thread");
                    if answer.is_ok_and(|time| time.is_some()) { Ok(()) } else { Err("no answer") }
                });
                streams.push((what, Stream::start(from, target, Duration::from_millis(1)).expect("pings")));
            }
        }
        streams
    }

    /// weft takes a node over: flanneld was stopped, weft is started.
    fn over(&mut self, number: u8) {
        let net_d = self.root(number).join("etc/cni/net.d").display().to_string();
        let more = ["--ip-masq", "--cni-conf=standard", "--cni-conf-dir", &net_d].map(str::to_owned);
        let mut agent = machines::start(&self.stage, &self.directory, number, &more);
        within(Duration::from_secs(20), "no route of flannel's is left", || {
            let left = self.run(number, || {
                ["-4", "-6"].map(|family| try_sh(&format!("ip {family} route show proto boot dev flannel.1")))
            });
            if left.iter().all(|routes| routes.as_deref().is_ok_and(str::is_empty)) { Ok(()) } else { Err(left) }
        });
        self.run(number, || {
            within(Duration::from_secs(20), "no rule of flannel's is left", || {
                let left = flannels_rules();
                if left.is_empty() { Ok(()) } else { Err((left, agent.state()["flannel_rules"].clone())) }
            });
            assert!(agent.runs());
        });
        let log = agent.log();
        assert!(!log.iter().any(|line| line.contains("rules of flannel stay")), "they went: {log:#?}");
        self.agents.insert(number, agent);
    }

    /// Flannel takes it back.
    fn back(&mut self, number: u8) {
        self.agents.remove(&number).expect("an agent").terminate();
        self.hand_over(number);
        // What a flanneld that starts does to what it finds: its own rules; the rest is there.
        let rules = format!("--no-devices --rules {} --root {}", self.form, self.root(number).display());
        self.run(number, || lay(NODES, number, &rules));
        self.hand_over(number);
        self.run(number, || {
            let left = try_sh("nft list tables").expect("nft");
            assert!(!left.contains("weft"), "{left}");
            for family in ["-4", "-6"] {
                assert_eq!(try_sh(&format!("ip {family} route show proto 119")).expect("routes"), "");
            }
        });
        let names = std::fs::read_dir(self.root(number).join("etc/cni/net.d")).expect("a directory");
        let names: Vec<_> = names.map_while(Result::ok).map(|entry| entry.file_name()).collect();
        assert_eq!(names, ["10-flannel.conflist"]);
    }

    fn hand_over(&self, number: u8) {
        let root = self.root(number);
        let mut command = Command::new(binary());
        command.args(["cleanup", "--hand-over", "--yes"]).env_clear();
        command.arg("--net-config-path").arg(self.directory.join("net-conf.json"));
        command.arg("--cni-conf-dir").arg(root.join("etc/cni/net.d"));
        command.arg("--subnet-file").arg(root.join("run/flannel/subnet.env"));
        let output = self.run(number, || command.output()).expect("weft cleanup");
        assert!(output.status.success(), "{output:?}");
    }

    /// Every rule that is not flannel's, in nft's words and those of both kinds of iptables.
    fn others(&self, number: u8) -> String {
        self.run(number, || {
            let mut all = String::new();
            for line in
                ["nft -s list table inet admin", "iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save"]
            {
                let text = try_sh(line).expect(line);
                let others = text.lines().filter(|line| !line.starts_with('#') && !line.contains("FLANNEL"));
                // Chains' counters of the old filter go on.
                all.extend(others.map(|line| line.split(" [").next().unwrap_or(line).to_owned() + "\n"));
            }
            all
        })
    }
}

/// Rules of kube-proxy, Docker and an admin: of all kinds, in both filters.
fn foreign_rules() {
    sh("nft add table inet admin
        nft add chain inet admin mine
        iptables-nft -t nat -N KUBE-POSTROUTING
        iptables-nft -t nat -I POSTROUTING -m comment --comment kubernetes -j KUBE-POSTROUTING
        iptables-nft -t nat -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
        iptables-nft -t filter -N DOCKER-USER
        iptables-nft -t filter -I FORWARD -j DOCKER-USER
        ip6tables-nft -t nat -N KUBE-SERVICES
        ip6tables-nft -t nat -A PREROUTING -j KUBE-SERVICES
        ip6tables-nft -t filter -A INPUT -s 2001:db8::/32 -j ACCEPT
        iptables-legacy -w -t nat -N KUBE-POSTROUTING
        iptables-legacy -w -t nat -I POSTROUTING -m comment --comment kubernetes -j KUBE-POSTROUTING
        iptables-legacy -w -t filter -I FORWARD -s 192.0.2.0/24 -j ACCEPT
        ip6tables-legacy -w -t filter -N DOCKER-USER");
}

/// What is left of flannel's packet rules here.
pub(crate) fn flannels_rules() -> Vec<String> {
    let programs = ["nft list ruleset", "iptables-legacy-save", "ip6tables-legacy-save"];
    let texts = programs.map(|line| try_sh(line).expect(line));
    let lines = texts.iter().flat_map(|text| text.lines());
    lines
        .filter(|line| {
            line.contains("FLANNEL-") || line.contains("table ip flannel-") || line.contains("table ip6 flannel-")
        })
        .map(str::to_owned)
        .collect()
}

/// Without rules of weft's flannel's stay; with them they go, and a flanneld that makes them again is named.
fn a_flanneld_that_goes_on_is_named() {
    let mut world = World::with_peers(2);
    world.start();
    flannel::rules("nft");
    let stays = |world: &mut World, what: &str, because: &str| {
        within(Duration::from_secs(20), what, || {
            let state = world.agent().state()["flannel_rules"].clone();
            if state["stay"].to_string().contains(because) { Ok(()) } else { Err(state) }
        });
    };
    stays(
        &mut world,
        "they are left alone",
        "leaves them alone; to remove them by hand: nft delete table ip flannel-ipv4",
    );
    within(Duration::from_secs(20), "the log says so too", || {
        let log = world.agent().log();
        log.iter().any(|line| line.contains("WARN rules of flannel stay")).then_some(()).ok_or(log)
    });
    world.take_agent().terminate();
    world.arguments.push("--ip-masq".to_owned());
    world.start();
    for _ in 0..5 {
        within(Duration::from_secs(20), "no rule of flannel's is left", || {
            let left = flannels_rules();
            if left.is_empty() { Ok(()) } else { Err(left) }
        });
        flannel::rules("nft");
    }
    stays(&mut world, "it is named", "flanneld still runs on this node; stop it");
    let removed = world.agent().metrics().count("weft_flannel_rules_removed_total", &[]);
    assert_eq!(removed, 10, "both tables, five times");
}
