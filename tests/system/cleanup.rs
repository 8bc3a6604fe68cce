//! `weft cleanup`: everything that weft made goes, and nothing else; without `--yes` nothing does.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use weft::lab::netns::prepare;

use crate::agent::binary;
use crate::flannel;
use crate::sandbox::{eventually, sh, try_sh};
use crate::stage::SOON;
use crate::world::{World, within};

crate::tests![
    a_node_is_afterwards_as_it_was_before_weft,
    what_is_printed_can_be_pasted,
    files_of_others_stay,
    flannels_rules_go_only_when_asked_for,
    as_a_pod_it_waits_when_it_is_done,
];

/// `weft cleanup` with the files of this world.
pub(crate) fn cleanup(world: &World, flags: &[&str]) -> Output {
    command(world, flags).output().expect("weft cleanup")
}

fn command(world: &World, flags: &[&str]) -> Command {
    let file = |name: &str| world.directory.join(name).display().to_string();
    let files = [("--net-config-path", "net-conf.json"), ("--subnet-file", "subnet.env"), ("--cni-conf-dir", "cni")];
    let mut command = Command::new(binary());
    command.arg("cleanup").args(flags).env_clear();
    for (flag, name) in files {
        command.args([flag, &file(name)]);
    }
    command
}

pub(crate) fn text(output: &Output) -> String {
    assert!(matches!(output.status.code(), Some(0 | 2)), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("text")
}

/// A node with all that weft may make: the CNI configuration too.
fn world() -> World {
    prepare().expect("sysctls");
    let mut world = World::with_peers(20);
    let cni = world.directory.join("cni");
    std::fs::create_dir(&cni).expect("a directory");
    let cni_flags = ["--ip-masq", "--cni-conf", "standard", "--cni-conf-dir"].map(str::to_owned);
    world.arguments.extend(cni_flags.into_iter().chain([cni.display().to_string()]));
    others(&cni);
    world
}

/// Things of others of every kind that weft makes, as near to weft's as they can be.
fn others(cni: &Path) {
    sh("ip link add dummy0 type veth peer name dummy1
        ip link set dummy0 addrgenmode none
        ip link set dummy1 addrgenmode none
        ip link set dummy1 up
        ip link set dummy0 up
        ip address add 10.1.2.3/24 dev dummy0
        ip route add 10.245.0.0/16 via 172.16.255.253 proto boot
        ip route add 10.246.0.0/16 via 172.16.255.253 proto 120 metric 1028
        ip neigh add 172.16.9.9 lladdr 0a:00:00:00:00:09 dev eth0 nud permanent
        bridge fdb append 0a:00:00:00:00:08 dev eth0 self permanent
        ip link add vxlan9 type vxlan id 9 dstport 4789 dev eth0
        ip link set vxlan9 addrgenmode none
        ip link set vxlan9 up
        bridge fdb append 0a:00:00:00:00:07 dev vxlan9 dst 172.16.9.9 self permanent
        iptables-nft -t nat -N KUBE-POSTROUTING
        iptables-nft -t nat -A POSTROUTING -j KUBE-POSTROUTING
        ip6tables-nft -A FORWARD -m comment --comment weft -j ACCEPT
        nft add table inet weft
        nft add table ip weft-of-mine");
    std::fs::write(cni.join("99-loopback.conf"), "{}").expect("to write");
}

/// Everything in the namespace and the folders, but for counters and what changes by itself.
fn everything(world: &World) -> Vec<String> {
    let mut all: Vec<String> = [
        "ip -d -j link show",
        "ip -j address show",
        "ip -j -4 route show table all",
        "ip -j -6 route show table all",
        "ip -j neigh show nud permanent",
        "ip -j rule show",
        "bridge -j fdb show",
        "nft -s -j list ruleset",
        "iptables-nft-save",
        "ip6tables-nft-save",
    ]
    .into_iter()
    .map(|line| {
        let text = try_sh(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        format!("{line}: {}", lines.collect::<Vec<_>>().join("\n"))
    })
    .collect();
    for tables in ["ip", "ip6"] {
        let names = std::fs::read_to_string(format!("/proc/thread-self/net/{tables}_tables_names"));
        all.push(format!("{tables}tables-legacy: {}", names.unwrap_or_default()));
    }
    files(&world.directory, &mut all);
    all
}

/// The same, once the kernel has no more to say about what was made: carriers come late, and so does what follows from an
/// address.
fn settled(world: &World) -> Vec<String> {
    eventually("the carriers and what follows from addresses", || {
        let [links, local] = ["ip link show", "ip -6 route show table local"].map(|line| try_sh(line).expect(line));
        let carried = !links.contains("NO-CARRIER") && !links.contains("LOWERLAYERDOWN");
        carried && local.contains("local fd00:174::1 ") && local.contains("anycast fd00:174:: ")
    });
    everything(world)
}

/// Fails with what differs, and only that.
fn same(world: &World, before: &[String], what: &str) {
    let after = everything(world);
    let beyond = |some: &[String], others: &[String]| -> Vec<String> {
        some.iter().filter(|one| !others.contains(one)).cloned().collect()
    };
    let (new, gone) = (beyond(&after, before), beyond(before, &after));
    assert!(new.is_empty() && gone.is_empty(), "{what}: is {new:#?}, was {gone:#?}");
}

fn files(directory: &Path, all: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).expect("a directory").map_while(Result::ok) {
        let path = entry.path();
        if path.is_dir() {
            files(&path, all);
        } else {
            all.push(format!("{}: {:?}", path.display(), std::fs::read(&path).expect("a file")));
        }
    }
    all.sort();
}

fn a_node_is_afterwards_as_it_was_before_weft() {
    let mut world = world();
    let before = settled(&world);
    assert_eq!(text(&cleanup(&world, &[])), "", "nothing to do before weft");
    world.start();
    world.take_agent().terminate();
    let with_weft = everything(&world);
    assert_ne!(with_weft, before);
    let dry = cleanup(&world, &[]);
    assert_eq!(dry.status.code(), Some(2), "{dry:?}");
    same(&world, &with_weft, "without --yes nothing changes");
    let done = cleanup(&world, &["--yes"]);
    assert_eq!((done.status.code(), text(&done)), (Some(0), text(&dry)));
    same(&world, &before, "left as it was");
    assert_eq!(cleanup(&world, &["--yes"]).status.code(), Some(0), "once more does nothing");
}

fn what_is_printed_can_be_pasted() {
    let mut world = world();
    let before = settled(&world);
    world.start();
    world.take_agent().terminate();
    sh(&text(&cleanup(&world, &[])));
    same(&world, &before, "left as it was");
    let again = cleanup(&world, &[]);
    assert_eq!((again.status.code(), text(&again).as_str()), (Some(0), ""));
}

fn files_of_others_stay() {
    let world = world();
    let theirs = world.directory.join("cni/10-weft.conflist");
    std::fs::write(&theirs, r#"{"name":"mine","plugins":[]}"#).expect("to write");
    let before = settled(&world);
    assert_eq!(text(&cleanup(&world, &["--yes"])), "");
    same(&world, &before, "left as it was");
}

/// As the overlays of `manifests/` have it: the pod is ready once a look finds nothing left.
fn as_a_pod_it_waits_when_it_is_done() {
    let mut world = world();
    world.start();
    world.take_agent().terminate();
    let ready = |flags: &[&str]| cleanup(&world, flags).status.code() == Some(0);
    for flags in [&["--hand-over"][..], &[]] {
        assert!(!ready(flags), "{flags:?}");
        let mut pod = command(&world, flags);
        let mut pod = pod.args(["--yes", "--then-wait"]).stdout(Stdio::null()).spawn().expect("weft cleanup");
        within(SOON, "a clean node", || ready(flags).then_some(()).ok_or("not yet"));
        assert!(pod.try_wait().expect("its state").is_none(), "{flags:?}: it has ended");
        kill(Pid::from_raw(pod.id().cast_signed()), Signal::SIGTERM).expect("to end it");
        assert_eq!(pod.wait().expect("its end").code(), Some(0), "{flags:?}");
    }
    // One that could not do it ends, and is started again.
    std::fs::remove_file(world.directory.join("subnet.env")).ok();
    std::fs::create_dir_all(world.directory.join("subnet.env/x")).expect("a folder in the place of the file");
    let failed = cleanup(&world, &["--yes", "--then-wait"]);
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
}

fn flannels_rules_go_only_when_asked_for() {
    for form in ["iptables-nft", "nft", "iptables-legacy"] {
        crate::sandbox::isolated(|| {
            let mut world = world();
            let before = settled(&world);
            std::fs::write(flannel::lock(), "").expect("the lock");
            flannel::rules(form);
            world.start();
            world.take_agent().terminate();
            let done = text(&cleanup(&world, &["--yes"]));
            assert!(!done.contains("FLANNEL") && !done.contains("flannel-ipv"), "{form}: {done}");
            let done = text(&cleanup(&world, &["--yes", "--flannel-rules"]));
            let named = if form == "nft" { "nft delete table ip flannel-ipv4" } else { "-D POSTROUTING" };
            assert!(done.contains(named), "{form}: {done}");
            // The tables of iptables stay, empty, as after `iptables -X`.
            for line in ["nft list ruleset", "iptables-legacy-save", "ip6tables-legacy-save"] {
                let left = try_sh(line).expect(line);
                assert!(!left.contains("FLANNEL-") && !left.contains("table ip flannel-ipv4"), "{form}: {left}");
            }
            if form == "nft" {
                same(&world, &before, "left as it was");
            }
            assert_eq!(text(&cleanup(&world, &["--flannel-rules"])), "", "{form}");
        })
        .expect("a thread that does not panic");
    }
}
