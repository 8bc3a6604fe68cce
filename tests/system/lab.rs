//! `weft lab` itself: it heals everything, needs nothing, and leaves nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::sandbox::eventually;

crate::tests![
    the_lab_heals_everything,
    a_node_that_changes_its_network_loses_nothing,
    the_lab_without_a_tunnel_heals_everything,
    the_lab_without_ipv4_heals_everything,
    the_lab_needs_no_root_and_no_other_program,
    the_tour_is_told_to_people,
    the_smallest_lab_has_two_machines,
    killing_the_lab_leaves_nothing,
    killing_what_runs_inside_leaves_nothing,
    a_dead_agent_fails_the_lab,
    the_lab_says_what_forbids_it,
    what_hold_prints_works,
];

/// Nobody in particular.
const NOBODY: u32 = 65534;

fn weft(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    // No PATH: whatever else is installed cannot be found.
    command.args(args).env_clear().stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn outcome(output: &Output) -> Value {
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn the_lab_heals_everything() {
    let found = outcome(&weft(&["lab", "--json", "--dual-stack"]).output().unwrap());
    assert_eq!((&found["ok"], &found["problem"], found["nodes"].as_u64()), (&Value::Bool(true), &Value::Null, Some(3)));
    assert_eq!(found["pings"], 2 * 2 * 2 * 9, "two rounds, two families, from pods and machines, three by three");
    let scenes = found["scenes"].as_array().unwrap();
    let whats: Vec<&str> = scenes.iter().map(|scene| scene["what"].as_str().unwrap()).collect();
    for wound in ["route deleted", "neighbour deleted", "FDB entry deleted", "device set down", "device deleted"] {
        assert!(whats.contains(&wound) && whats.contains(&&*format!("{wound}, IPv6")), "{wound}: {whats:?}");
    }
    for word in ["node-4 joins", "node-2 is installed anew", "node-4 leaves", "no API server"] {
        assert!(whats.iter().any(|what| what.contains(word)), "{word}: {whats:?}");
    }
    assert_eq!(scenes.len(), 14);
    for scene in scenes {
        assert!(scene["healed_ms"].as_f64().unwrap() > 0.0 && scene["sent"].as_u64().unwrap() > 0, "{scene}");
    }
}

fn a_node_that_changes_its_network_loses_nothing() {
    let found = outcome(&weft(&["lab", "--json", "--dual-stack", "--segments", "2"]).output().unwrap());
    assert_eq!(found["ok"], true);
    let scenes = found["scenes"].as_array().unwrap();
    let moves: Vec<_> = scenes.iter().filter(|scene| scene["what"].as_str().unwrap().contains("moves")).collect();
    assert_eq!(moves.len(), 4, "there and back under pings of each family");
    for scene in moves {
        assert_eq!((&scene["lost"], &scene["beside_lost"]), (&0.into(), &0.into()), "{scene}");
        assert!(scene["sent"].as_u64().unwrap() > 50, "{scene}");
    }
}

fn the_lab_without_a_tunnel_heals_everything() {
    let host_gw = ["lab", "--backend", "host-gw", "--dual-stack"];
    let found = outcome(&weft(&host_gw).arg("--json").output().unwrap());
    assert_eq!((&found["ok"], found["pings"].as_u64()), (&Value::Bool(true), Some(72)));
    let scenes = found["scenes"].as_array().unwrap();
    let words =
        ["route deleted", "route deleted, IPv6", "node-4 joins", "node-2 is installed", "node-4 leaves", "no API"];
    assert_eq!(scenes.len(), words.len(), "{scenes:#?}");
    for (scene, word) in scenes.iter().zip(words) {
        assert!(scene["what"].as_str().unwrap().contains(word), "{word}: {scene}");
        assert!(scene["healed_ms"].as_f64().unwrap() > 0.0 && scene["sent"].as_u64().unwrap() > 0, "{scene}");
    }
    assert_eq!(scenes[4]["lost"], 0, "a node that leaves costs others nothing");
    let told = text(&weft(&host_gw).output().unwrap().stdout);
    for words in ["backend-type: host-gw", "route      10.244.2.0/24 via 192.168.174.12 ", "Everything healed."] {
        assert!(told.contains(words), "{words:?} in\n{told}");
    }
    assert!(!told.contains("flannel.1") && !told.contains("MAC"), "{told}");
    let refused = weft(&["lab", "--backend", "host-gw", "--segments", "2"]).output().unwrap();
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("--backend host-gw does not go with --segments 2") && said.lines().count() == 1, "{said}");
}

/// Nodes, pods and the API server have IPv6 addresses and no others.
fn the_lab_without_ipv4_heals_everything() {
    for (more, scenes) in [(&[][..], 9), (&["--segments", "2"], 11), (&["--backend", "host-gw"], 5)] {
        let found = outcome(&weft(&["lab", "--json", "--ipv6-only"]).args(more).output().unwrap());
        assert_eq!((&found["ok"], &found["families"]), (&true.into(), &serde_json::json!(["ipv6"])), "{more:?}");
        assert_eq!(found["pings"], 2 * 2 * 9, "two rounds, from pods and machines, three by three");
        assert_eq!(found["scenes"].as_array().unwrap().len(), scenes, "{more:?}: {found:#}");
    }
    let told = text(&weft(&["lab", "--ipv6-only"]).output().unwrap().stdout);
    for words in [
        "pod fd00:10:244:1::2 │",
        "flannel.alpha.coreos.com/public-ipv6: fd00:192:168:174::12",
        "# ip link del flannel-v6.1",
        "Everything healed.",
    ] {
        assert!(told.contains(words), "{words:?} in\n{told}");
    }
    assert!(!told.contains("10.244.") && !told.contains("192.168.174.") && !told.contains(", IPv6"), "{told}");
}

fn the_lab_needs_no_root_and_no_other_program() {
    // The target directory may be out of reach for others.
    let home = tempfile::tempdir().unwrap();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = home.path().join("weft");
    fs::copy(env!("CARGO_BIN_EXE_weft"), &copy).unwrap();
    let mut command = Command::new(&copy);
    command.args(["lab", "--json"]).env_clear().stdin(Stdio::null());
    if nix::unistd::geteuid().is_root() && !in_a_user_namespace() {
        command.uid(NOBODY).gid(NOBODY);
    }
    assert_eq!(outcome(&command.output().unwrap())["ok"], true);
}

/// Here, tests as an ordinary user are root in a namespace that knows no other user.
fn in_a_user_namespace() -> bool {
    fs::read_to_string("/proc/self/uid_map").unwrap().split_whitespace().ne(["0", "0", "4294967295"])
}

fn the_tour_is_told_to_people() {
    let output = weft(&["lab"]).output().unwrap();
    let told = text(&output.stdout);
    assert!(output.status.success(), "{told}\n{}", text(&output.stderr));
    for words in [
        "flannel.alpha.coreos.com/public-ip: 192.168.174.12",
        "route      10.244.2.0/24 via 10.244.2.0 onlink",
        "# ip link del flannel.1",
        "18 of 18 pings were answered",
        "what happened",
        "Everything healed.",
    ] {
        assert!(told.contains(words), "{words:?} in\n{told}");
    }
    assert!(told.lines().all(|line| line.chars().count() <= 130), "{told}");
    assert_eq!(text(&output.stderr), "");
}

fn the_smallest_lab_has_two_machines() {
    assert_eq!(outcome(&weft(&["lab", "--json", "--nodes", "2"]).output().unwrap())["ok"], true);
    let refused = weft(&["lab", "--nodes", "1"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("--nodes"), "{}", text(&refused.stderr));
}

// === processes ===

/// A process. These tests may run in a process namespace of their own, but `/proc` is the outer one's.
struct Process {
    /// Its number in `/proc`.
    pid: u32,
    /// Its number here; `None` for processes outside.
    here: Option<u32>,
    /// Its parent's number in `/proc`.
    parent: u32,
    dead: bool,
    command: String,
}

impl Process {
    fn read(pid: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let command = text(&fs::read(format!("/proc/{pid}/cmdline")).ok()?).replace('\0', " ");
        let here = field("NSpid:")?.split_whitespace().nth(depth()).and_then(|pid| pid.parse().ok());
        Some(Self {
            pid,
            here,
            parent: field("PPid:")?.parse().ok()?,
            dead: field("State:")?.starts_with('Z'),
            command,
        })
    }

    fn is_agent(&self) -> bool {
        self.command.contains(" run ")
    }

    fn send(&self, signal: Signal) {
        let pid = self.here.expect("a process of ours");
        kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
    }
}

/// How many process namespaces there are around this one that `/proc` knows of.
fn depth() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find_map(|line| line.strip_prefix("NSpid:")).map_or(0, |pids| pids.split_whitespace().count() - 1)
}

/// A process, by its number here, and all below it.
fn tree(root: u32) -> Vec<Process> {
    let numbers = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut rest: Vec<Process> = numbers.filter_map(Process::read).collect();
    let (mut found, mut more): (Vec<_>, Vec<_>) = rest.drain(..).partition(|process| process.here == Some(root));
    loop {
        let below = |process: &Process| found.iter().any(|above: &Process| above.pid == process.parent);
        let (next, others): (Vec<_>, Vec<_>) = more.drain(..).partition(below);
        if next.is_empty() {
            return found;
        }
        found.extend(next);
        more = others;
    }
}

fn is_alive(process: &Process) -> bool {
    Process::read(process.pid).is_some_and(|now| !now.dead)
}

/// A lab that stays up; it does not outlive its test.
struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Held {
    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the lab has ended", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

/// Starts one, and waits until its agents run; all its processes.
fn held() -> (Held, Vec<Process>) {
    // What a script starts with `&` ignores SIGINT, and so does all below it: these tests too, maybe.
    let mut command = Command::new("/usr/bin/env");
    command.args(["--default-signal=INT", env!("CARGO_BIN_EXE_weft"), "lab", "--hold", "--json"]);
    let child = Held(command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap());
    eventually("three agents run", || tree(child.pid()).iter().filter(|process| process.is_agent()).count() >= 3);
    let all = tree(child.pid());
    (child, all)
}

fn nothing_is_left_of(all: &[Process]) {
    eventually("every process of the lab has ended", || !all.iter().any(is_alive));
    assert!(!Path::new("/tmp/weft").exists(), "the lab's files were in memory");
    let links = crate::sandbox::json("ip -j link");
    assert_eq!(links.len(), 1, "only loopback is here: {links:?}");
}

fn killing_the_lab_leaves_nothing() {
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGINT] {
        let (mut lab, all) = held();
        assert!(all.len() >= 5, "the outer process, the inner one, three agents");
        all[0].send(signal);
        lab.ended();
        nothing_is_left_of(&all);
    }
}

fn killing_what_runs_inside_leaves_nothing() {
    let (mut lab, all) = held();
    all.iter().find(|process| process.parent == all[0].pid).unwrap().send(Signal::SIGKILL);
    assert_eq!(lab.ended().code(), Some(1), "the outer process says that it failed");
    nothing_is_left_of(&all);
}

fn a_dead_agent_fails_the_lab() {
    let lab = weft(&["lab", "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let agent = || tree(lab.id()).into_iter().find(Process::is_agent);
    eventually("an agent runs", || agent().is_some());
    agent().unwrap().send(Signal::SIGKILL);
    let output = lab.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON all the same");
    assert_eq!(found["ok"], false);
    let problem = found["problem"].as_str().unwrap();
    assert!(problem.contains("the agent of node-") && problem.contains("ended"), "{problem}");
    assert!(text(&output.stderr).contains("The lab failed"), "{}", text(&output.stderr));
}

fn the_lab_says_what_forbids_it() {
    // Root of a namespace that allows no further ones, and without any capability.
    let script =
        "echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all --inh-caps=-all \"$0\" lab";
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "sh", "-c", script, env!("CARGO_BIN_EXE_weft")])
        .output()
        .expect("util-linux");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("user.max_user_namespaces is 0: `sudo sysctl user.max_user_namespaces=15000`"), "{said}");
    assert!(said.contains("sudo weft lab"), "{said}");
}

fn what_hold_prints_works() {
    let told = tempfile::NamedTempFile::new().unwrap();
    let home = tempfile::tempdir().unwrap();
    let mut lab = Held(weft(&["lab", "--hold", "--dual-stack"]).stdout(told.reopen().unwrap()).spawn().unwrap());
    let read = || fs::read_to_string(told.path()).unwrap();
    eventually("it says how to look inside", || {
        assert!(lab.0.try_wait().unwrap().is_none(), "{}", read());
        read().contains("Break something")
    });
    let guide = read();
    let run = |find: &str| {
        let mut commands = guide.lines().filter_map(|line| line.find("nsenter").map(|at| &line[at..]));
        let command = commands.find(|command| command.contains(find)).unwrap_or_else(|| panic!("{find} in {guide}"));
        let output = Command::new("sh").args(["-c", command]).env("HOME", home.path()).output().unwrap();
        assert!(output.status.success(), "{command}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    assert!(run("ip route").contains("10.244.2.0/24 via 10.244.2.0 dev flannel.1"));
    assert!(run("ip -6 route").contains("via fd00:10:244:2:: dev flannel-v6.1"));
    assert!(run("bridge fdb").contains("dst 192.168.174.12 self permanent"));
    assert!(run("dev flannel-v6.1").contains("self permanent"));
    if installed("curl") {
        assert!(run("/state").contains("\"node\": \"node-1\""));
    }
    if installed("kubectl") {
        assert!(run("kubectl").contains("flannel.alpha.coreos.com/public-ip: 192.168.174.11"));
    }
    let all = tree(lab.pid());
    all[0].send(Signal::SIGKILL);
    lab.ended();
    nothing_is_left_of(&all);
}

fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|directory: PathBuf| directory.join(program).exists());
    if !found {
        eprintln!("SKIPPED in what_hold_prints_works: {program} is not installed");
        assert!(
            std::env::var("CI").is_ok_and(|ci| ci == "true").then_some(()).is_none(),
            "{program} must be there in CI"
        );
    }
    found
}
