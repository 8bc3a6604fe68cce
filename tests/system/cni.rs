//! The CNI configuration: its file's life, and pods that the real plugins start with it.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use weft::lab::addressing::{Addressing, Stack};
use weft::lab::apiserver::ApiServer;
use weft::lab::netns::Namespace;
use weft::lab::topology::{Machine, Underlay};

use crate::agent::Agent;
use crate::cluster::{self, OWN, pod_cidrs};
use crate::cni_runtime::{Runtime, plugins};
use crate::sandbox::{DIRECTORY, sh, try_sh};
use crate::world::{UNDERLAY, World, within};

crate::tests![
    the_file_comes_when_the_node_is_ready_and_is_kept,
    somebody_elses_file_is_left_alone,
    pods_of_two_nodes_meet_through_the_real_plugins,
    pods_of_flannels_file_and_ours_share_bridge_and_leases,
];

const SOON: Duration = Duration::from_secs(20);
const FILE: &str = "10-weft.conflist";

fn conf_dir(world: &mut World) -> PathBuf {
    let dir = world.directory.join("net.d");
    let arguments = ["--cni-conf", "standard", "--cni-conf-dir", &dir.display().to_string()];
    world.arguments.extend(arguments.map(str::to_owned));
    dir
}

fn read(path: &Path) -> Result<Value, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    serde_json::from_str(&text).map_err(|error| error.to_string())
}

fn until(path: &Path, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    within(SOON, what, || read(path).and_then(|conf| if is(&conf) { Ok(conf) } else { Err(conf.to_string()) }))
}

fn the_file_comes_when_the_node_is_ready_and_is_kept() {
    let mut world = World::with_peers(3);
    let dir = conf_dir(&mut world);
    let path = dir.join(FILE);
    // Without a pod CIDR there is no device and nothing to write; then weft finds the CIDR.
    world.api.patch_node(OWN, json!({ "spec": { "podCIDR": null, "podCIDRs": null } }));
    world.spawn();
    within(SOON, "weft waits", || {
        let agent = world.agent();
        if agent.readyz() == Some(503) && agent.log().iter().any(|line| line.contains("no ipv4 pod CIDR")) {
            Ok(())
        } else {
            Err(agent.log())
        }
    });
    assert!(!path.exists());
    let [v4, v6] = pod_cidrs(0);
    world.api.patch_node(OWN, json!({ "spec": { "podCIDR": v4, "podCIDRs": [v4, v6] } }));
    world.agent().until_ready();
    let conf = read(&path).expect("ready means that it is there");
    let bridge = &conf["plugins"][0];
    assert_eq!(bridge["ipam"]["ranges"], json!([[{ "subnet": v4 }], [{ "subnet": v6 }]]));
    let routes: Vec<Value> = cluster::NETWORKS.iter().map(|network| json!({ "dst": network })).collect();
    assert_eq!((&bridge["ipam"]["routes"], &bridge["mtu"]), (&json!(routes), &json!(1430)));
    std::fs::remove_file(&path).expect("to remove");
    until(&path, "a deleted file is put back", |now| *now == conf);
    std::fs::write(&path, conf.to_string().replace("1430", "9000")).expect("to write");
    until(&path, "an edited file is put right", |now| *now == conf);
    sh(&format!("ip link set {UNDERLAY} mtu 1400"));
    until(&path, "another MTU", |now| now["plugins"][0]["mtu"] == 1330);
    sh(&format!("ip link set {UNDERLAY} mtu 1500"));
    until(&path, "the MTU of before", |now| *now == conf);
    let other = pod_cidrs(50);
    world.api.patch_node(OWN, json!({ "spec": { "podCIDR": other[0], "podCIDRs": other } }));
    until(&path, "another pod CIDR", |now| now["plugins"][0]["ipam"]["ranges"][0][0]["subnet"] == other[0]);
    let state = world.agent().state();
    assert_eq!(state["cni_conf"]["state"], "in_place", "{state}");
    let metrics = world.agent().metrics();
    assert_eq!(metrics.count("weft_cni_conf_in_place", &[]), 1);
    assert!(metrics.count("weft_cni_conf_writes_total", &[]) >= 6, "{metrics:?}");
}

fn somebody_elses_file_is_left_alone() {
    let mut world = World::with_peers(1);
    let dir = conf_dir(&mut world);
    let path = dir.join(FILE);
    std::fs::create_dir(&dir).expect("a directory");
    let foreign = r#"{"name":"weft","cniVersion":"1.0.0","plugins":[]}"#;
    std::fs::write(&path, foreign).expect("to write");
    world.spawn();
    within(SOON, "it is said", || {
        let state = match world.agent().readyz() {
            Some(503) => world.agent().state(),
            _ => Value::Null,
        };
        let because = state["cni_conf"]["because"].as_str().unwrap_or_default().to_owned();
        let unready = state["not_ready_because"].to_string();
        if because.contains("is somebody else's") && unready.contains(FILE) { Ok(()) } else { Err(state) }
    });
    assert_eq!(std::fs::read_to_string(&path).expect("to read"), foreign);
    assert_eq!(world.agent().metrics().count("weft_cni_conf_in_place", &[]), 0);
    let said = || |line: &&String| line.contains("is somebody else's");
    std::fs::write(dir.join("10-flannel.conflist"), foreign).expect("to write");
    within(SOON, "the file that is used is named", || {
        let state = world.agent().state();
        if state["cni_conf"]["used_instead"] == "10-flannel.conflist" { Ok(()) } else { Err(state) }
    });
    assert_eq!(world.agent().log().iter().filter(said()).count(), 1, "once, not every second");
    std::fs::remove_file(&path).expect("to remove");
    world.agent().until_ready();
    assert_eq!(read(&path).expect("ours")["name"], "cbr0");
}

/// Two machines of a cluster that run weft, for container runtimes.
struct Pair {
    machines: [Machine; 2],
    agents: [Agent; 2],
    directory: PathBuf,
    underlay: Underlay,
    _api: ApiServer,
}

const HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8081);

impl Pair {
    fn new(name: &str, stack: Stack) -> Self {
        let directory = PathBuf::from(DIRECTORY).join(name);
        std::fs::create_dir(&directory).expect("a directory");
        let addressing = Addressing { stack, segments: 1 };
        let underlay = Underlay::build(addressing).expect("an underlay");
        let api = ApiServer::start(TcpListener::bind((underlay.address(), 6443)).expect("a port")).expect("an API");
        std::fs::write(directory.join("net-conf.json"), addressing.net_conf().to_string()).expect("to write");
        let machines = [1, 2].map(|number| {
            let machine = underlay.add(number).expect("a machine");
            // The lab's pod is not wanted: the bridge is for the plugins to make.
            machine.network.run(|| sh("ip link del cni0")).expect("a thread");
            api.put_node(addressing.node(number));
            machine
        });
        let url = format!("http://{}", SocketAddr::new(underlay.address(), 6443));
        let agents = [0, 1].map(|at: usize| start(&machines[at], &directory, &url));
        Self { machines, agents, directory, underlay, _api: api }
    }

    fn runtime(&self, at: usize, plugins: &Path) -> Runtime<'_> {
        let directory = self.directory.join(&self.machines[at].name);
        let var_lib = directory.join("var-lib");
        std::fs::create_dir_all(&var_lib).expect("a directory");
        Runtime {
            network: &self.machines[at].network,
            conf_dir: directory.join("net.d"),
            var_lib,
            plugins: plugins.to_owned(),
        }
    }
}

fn start(machine: &Machine, directory: &Path, url: &str) -> Agent {
    let own = directory.join(&machine.name);
    let file = |path: PathBuf| path.display().to_string();
    let arguments: Vec<String> = [
        ("--node-name", machine.name.clone()),
        ("--kube-api-url", url.to_owned()),
        ("--net-config-path", file(directory.join("net-conf.json"))),
        ("--subnet-file", file(own.join("subnet.env"))),
        ("--cni-conf", "standard".to_owned()),
        ("--cni-conf-dir", file(own.join("net.d"))),
        ("--healthz-ip", HTTP.ip().to_string()),
        ("--healthz-port", HTTP.port().to_string()),
    ]
    .into_iter()
    .flat_map(|(flag, value)| [flag.to_owned(), value])
    .collect();
    let started = machine.network.run(|| {
        let mut agent = Agent::start(HTTP, &arguments);
        agent.until_ready();
        agent
    });
    started.expect("a thread")
}

/// The pod's addresses, from a plugin's result.
fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result["ips"].as_array().expect("a list").iter();
    let address =
        |ip: &Value| ip["address"].as_str().expect("an address").split_once('/').expect("a length").0.to_owned();
    ips.map(|ip| address(ip).parse().expect("an address")).collect()
}

/// `ping` with this payload, never fragmented.
fn ping(from: &Namespace, to: IpAddr, bytes: u32) -> Result<String, String> {
    from.run(|| try_sh(&format!("ping -n -q -M do -c 1 -W 5 -s {bytes} {to}"))).expect("a thread")
}

fn pods_of_two_nodes_meet_through_the_real_plugins() {
    let Some(plugins) = plugins() else { return };
    for (stack, largest) in [(Stack::V4, &[1422][..]), (Stack::V6, &[1382]), (Stack::Dual, &[1402, 1382])] {
        Namespace::new().expect("a namespace").run(|| two_pods(&plugins, stack, largest)).expect("a thread");
    }
}

/// `largest`: of the pings that fit, in each family.
fn two_pods(plugins: &Path, stack: Stack, largest: &[u32]) {
    let pair = Pair::new(&format!("cni-{stack:?}"), stack);
    let runtimes = [0, 1].map(|at| pair.runtime(at, plugins));
    let pods = [0, 1].map(|_| Namespace::new().expect("a pod"));
    let ports = json!([{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }]);
    let results = [0, 1].map(|at| runtimes[at].add("pod", &pods[at], &ports).expect("a pod"));
    let there = addresses(&results[1]);
    assert_eq!(there.len(), largest.len(), "{results:?}");
    for (to, len) in there.iter().zip(largest.iter().copied()) {
        within(SOON, "an answer from the other node's pod", || ping(&pods[0], *to, 56));
        ping(&pods[0], *to, len).expect("the largest packet");
        let refused = ping(&pods[0], *to, len + 1).expect_err("one byte more");
        assert!(refused.to_lowercase().contains("too long") || refused.is_empty(), "{refused}");
    }
    assert_eq!(runtimes[1].leases(), sorted(&there));
    serves_on_host_port(&pair, &pods[1]);
    for (runtime, pod) in runtimes.iter().zip(&pods) {
        runtime.del("pod", pod, &ports).expect("the pod's end");
        assert!(runtime.leases().is_empty());
        let links = runtime.network.run(|| try_sh("ip -o link show master cni0")).expect("a thread");
        assert_eq!(links.as_deref(), Ok(""), "nothing is left on the bridge");
    }
    drop(pair.agents);
}

fn sorted(addresses: &[IpAddr]) -> Vec<String> {
    let mut texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    texts.sort();
    texts
}

/// A server in the second machine's pod is reached from the first machine by the second's address.
fn serves_on_host_port(pair: &Pair, pod: &Namespace) {
    let (node, _) = pair.underlay.addressing().machine(2)[0];
    let any = if node.is_ipv4() { "0.0.0.0:80" } else { "[::]:80" };
    let listener = pod.run(|| TcpListener::bind(any).expect("a port")).expect("a thread");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.write_all(b"pod").expect("to answer");
    });
    let read = || {
        let to = SocketAddr::new(node, 8080);
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5)).expect("a connection");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        text
    };
    assert_eq!(pair.machines[0].network.run(read).expect("a thread"), "pod");
    server.join().expect("the server");
}

/// What flannel's plugin calls `bridge` with, under flannel's file: with weft's beside it, it is in force.
fn pods_of_flannels_file_and_ours_share_bridge_and_leases() {
    let Some(plugins) = plugins() else { return };
    let inside = || {
        let pair = Pair::new("cni-shared", Stack::V4);
        let runtime = pair.runtime(0, &plugins);
        let flannels = runtime.conf_dir.join("10-flannel.conflist");
        let delegate = json!({
            "cniVersion": "0.3.1", "name": "cbr0",
            "plugins": [{
                "type": "bridge", "mtu": 1450, "hairpinMode": true, "isDefaultGateway": true, "isGateway": true, "ipMasq": true,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{ "subnet": "10.244.1.0/24" }]],
                    "routes": [{ "dst": "10.244.0.0/16" }],
                },
            }, { "type": "portmap", "capabilities": { "portMappings": true } }],
        });
        std::fs::write(&flannels, delegate.to_string()).expect("to write");
        let [old, new] = [0, 1].map(|_| Namespace::new().expect("a pod"));
        let first = addresses(&runtime.add("old", &old, &Value::Null).expect("a pod of flannel's file"));
        std::fs::remove_file(&flannels).expect("to remove");
        let second = addresses(&runtime.add("new", &new, &Value::Null).expect("a pod of ours"));
        assert_ne!(first, second);
        assert_eq!(runtime.leases(), sorted(&[first.clone(), second.clone()].concat()));
        ping(&new, first[0], 1422).expect("both on one bridge");
        runtime.del("old", &old, &Value::Null).expect("the old pod ends under our file");
        assert_eq!(runtime.leases(), sorted(&second));
        // And back: what ours started ends under the same plugins called by flannel's.
        std::fs::write(&flannels, delegate.to_string()).expect("to write");
        runtime.del("new", &new, &Value::Null).expect("the new pod ends");
        assert!(runtime.leases().is_empty());
    };
    Namespace::new().expect("a namespace").run(inside).expect("a thread");
}
