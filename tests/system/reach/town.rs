//! Two machines with two pods on the first and one on the second, a host beside them, and one beyond the router:
//! all of them listen, all of them ask.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use weft::lab::addressing::Prefixed;
use weft::lab::link::Links;
use weft::lab::netns::{Namespace, sysctl};
use weft::lab::stage::Stage;

use super::kube_proxy::{self, Mode, Service};
use crate::agent::{Agent, binary};
use crate::machines::{self, ADDRESSING, announce};
use crate::sandbox::{DIRECTORY, eventually, sh, try_sh};
use crate::takeover;
use crate::world::within;

/// Where everybody listens.
const PORT: u16 = 7000;
/// Of the pods, of the Services.
const NETWORKS: [&str; 2] = ["10.244.0.0/16", "fd00:10:244::/48"];
const SERVICE_NETWORKS: [&str; 2] = ["10.96.0.0/16", "fd00:10:96::/112"];
/// The host beside the machines is one more machine by its address.
const BESIDE: u8 = 90;
/// The host beyond, and the router's address there.
const BEYOND: [[&str; 2]; 2] = [["203.0.113.9", "2001:db8::9"], ["203.0.113.1", "2001:db8::1"]];
/// Where Services do.
const SERVICE_PORT: u16 = 80;
const MACHINES: u8 = 2;
/// An answer that is on its way on a busy machine; a lost SYN is sent again after one and after three seconds.
const PATIENCE: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(8)];

/// Who asks: where it is, and the address that it takes if not the one the kernel chooses.
pub(super) const SENDERS: [(&str, &str, Option<&str>); 7] = [
    ("pod 1", "pod 1", None),
    ("pod 2", "pod 2", None),
    ("node 1", "node 1", None),
    ("node 1 by its address", "node 1", Some("node 1")),
    ("node 2", "node 2", None),
    ("host beside", "host beside", None),
    ("host beyond", "host beyond", None),
];

/// A Service's endpoint and its chains' tag.
const SERVICES: [(&str, &str); 4] =
    [("pod 1", "PODONE01"), ("pod 1b", "PODONEB2"), ("pod 2", "PODTWO03"), ("node 2", "NODETWO4")];
/// Those who are asked by their own address.
const DIRECT: [&str; 7] = ["pod 1", "pod 1b", "pod 2", "node 1", "node 2", "host beside", "host beyond"];

/// What is asked for: how it is called, where, and who should answer.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) label: String,
    pub(super) address: SocketAddr,
    answers: &'static str,
}

/// The whole of it.
pub(super) struct Town {
    stage: Stage,
    directory: PathBuf,
    /// Namespaces beside the stage's.
    more: BTreeMap<&'static str, Namespace>,
    /// Which address is whose, in each family.
    addresses: [BTreeMap<&'static str, IpAddr>; 2],
    listeners: Listeners,
    agents: Vec<Agent>,
}

impl Town {
    /// The machines in flannel's hands, with kube-proxy's rules; everybody listens.
    pub(super) fn with_flannel(name: &str, form: &str, proxy: Mode) -> Self {
        let mut town = Self::build(name);
        town.on_nodes(|number| {
            let root = town.directory.join(weft::lab::addressing::name(number));
            machines::lay(MACHINES, number, &format!("--rules {form} --root {}", root.display()));
            for (family, pods) in NETWORKS.iter().enumerate() {
                kube_proxy::lay(proxy, pods, &town.services(family));
            }
            // Nothing leaves from an address that may be somebody else's yet.
            eventually("no address is tentative", || {
                try_sh("ip -6 address show tentative").expect("addresses").is_empty()
            });
        });
        town.listen();
        town
    }

    fn build(name: &str) -> Self {
        let directory = PathBuf::from(DIRECTORY).join(format!("reach-{name}"));
        let mut stage = Stage::build(ADDRESSING, &binary(), &directory, false).expect("a stage");
        for number in 1..=MACHINES {
            stage.add_machine(number).expect("a machine");
            announce(&stage, number);
        }
        let mut town = Self {
            stage,
            directory,
            more: BTreeMap::new(),
            addresses: Default::default(),
            listeners: Listeners::default(),
            agents: Vec::new(),
        };
        town.more_hosts();
        town.name_addresses();
        for number in 1..=MACHINES {
            // As the bridge plugin does with hairpinMode: a pod may be its own Service's endpoint.
            machines::run(&town.stage, number, || sh("bridge link set dev pod hairpin on"));
        }
        town
    }

    /// A second pod on the first machine, a host on its network and one behind the router, both with routes to pods and
    /// Services by way of the first machine.
    fn more_hosts(&mut self) {
        let pod = Namespace::new().expect("a namespace");
        machines::run(&self.stage, 1, || {
            wire("podb", &pod, "cni0");
            sh("bridge link set dev podb hairpin on");
        });
        settle_in(&pod, &ADDRESSING.inside(1, 3), &ADDRESSING.inside(1, 1));
        let beside = Namespace::new().expect("a namespace");
        wire("to-beside", &beside, "lab0");
        settle_in(&beside, &ADDRESSING.machine(BESIDE), &ADDRESSING.gateway(1));
        let beyond = Namespace::new().expect("a namespace");
        Links::open().expect("netlink").veth("to-beyond", "eth0", &beyond).expect("a wire");
        let [own, router] = BEYOND.map(beyond_prefixed);
        let mut links = Links::open().expect("netlink");
        links.up("to-beyond").expect("a link");
        router.iter().for_each(|(ip, len)| links.address("to-beyond", *ip, *len).expect("an address"));
        settle_in(&beyond, &own, &router);
        for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            sysctl(&format!("net/{switch}"), "1").expect("a sysctl");
        }
        let routes = || {
            for nets in [NETWORKS, SERVICE_NETWORKS] {
                nets.iter()
                    .zip(ADDRESSING.machine(1))
                    .for_each(|(net, (node, _))| sh(&format!("ip route add {net} via {node}")));
            }
        };
        routes();
        beside.run(routes).expect("a namespace");
        self.more.extend([("pod 1b", pod), ("host beside", beside), ("host beyond", beyond)]);
    }

    fn name_addresses(&mut self) {
        let all = [
            ("VTEP 1", ADDRESSING.inside(1, 0)),
            ("bridge 1", ADDRESSING.inside(1, 1)),
            ("pod 1", ADDRESSING.inside(1, 2)),
            ("pod 1b", ADDRESSING.inside(1, 3)),
            ("VTEP 2", ADDRESSING.inside(2, 0)),
            ("bridge 2", ADDRESSING.inside(2, 1)),
            ("pod 2", ADDRESSING.inside(2, 2)),
            ("node 1", ADDRESSING.machine(1)),
            ("node 2", ADDRESSING.machine(2)),
            ("host beside", ADDRESSING.machine(BESIDE)),
            ("host beyond", beyond_prefixed(BEYOND[0])),
        ];
        for (name, both) in all {
            for (family, (ip, _)) in both.into_iter().enumerate() {
                self.addresses[family].insert(name, ip);
            }
        }
    }

    fn services(&self, family: usize) -> Vec<Service> {
        let service = |(at, (endpoint, tag)): (u16, &(&'static str, &'static str))| {
            let cluster: IpAddr = match family {
                0 => [10, 96, 0, 10 + u8::try_from(at).expect("few")].into(),
                _ => [0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0x10 + at].into(),
            };
            Service {
                tag,
                cluster: SocketAddr::new(cluster, SERVICE_PORT),
                node_port: 30_000 + at,
                endpoint: SocketAddr::new(self.addresses[family][endpoint], PORT),
            }
        };
        (0..).zip(&SERVICES).map(service).collect()
    }

    pub(super) fn targets(&self, family: usize) -> Vec<Target> {
        let direct = DIRECT.map(|name| Target {
            label: name.to_owned(),
            address: SocketAddr::new(self.addresses[family][name], PORT),
            answers: name,
        });
        let mut all = direct.to_vec();
        for (service, (answers, _)) in self.services(family).into_iter().zip(SERVICES) {
            all.push(Target { label: format!("ClusterIP of {answers}"), address: service.cluster, answers });
            let node = SocketAddr::new(self.addresses[family]["node 1"], service.node_port);
            all.push(Target { label: format!("node 1's port of {answers}"), address: node, answers });
        }
        all
    }

    /// The policy of FORWARD on both machines, in both families.
    pub(super) fn policy(&self, policy: &str) {
        self.on_nodes(|_| {
            sh(&format!("iptables-nft -P FORWARD {policy}\n ip6tables-nft -P FORWARD {policy}"));
        });
    }

    /// What docs/operating.md says for a FORWARD that drops.
    pub(super) fn forward_by_hand(&self) {
        self.on_nodes(|_| {
            for (program, net) in ["iptables-nft", "ip6tables-nft"].iter().zip(NETWORKS) {
                sh(&format!("{program} -I FORWARD -s {net} -j ACCEPT\n {program} -I FORWARD -d {net} -j ACCEPT"));
            }
        });
    }

    fn on_nodes(&self, work: impl Fn(u8) + Sync) {
        (1..=MACHINES).for_each(|number| machines::run(&self.stage, number, || work(number)));
    }

    /// The host beside now has a route to each machine's pods by way of that machine.
    pub(super) fn route_straight(&self) {
        let straight = || {
            for number in 1..=MACHINES {
                let pods = ADDRESSING.pod_cidrs(number).into_iter().zip(ADDRESSING.machine(number));
                pods.for_each(|((net, len), (node, _))| sh(&format!("ip route add {net}/{len} via {node}")));
            }
        };
        self.namespace("host beside").run(straight).expect("a namespace");
    }

    /// The address of the host beside, for `--ip-masq-exclude`.
    pub(super) fn beside(&self) -> [String; 2] {
        [0, 1]
            .map(|family| format!("--ip-masq-exclude={}/{}", self.addresses[family]["host beside"], [32, 128][family]))
    }

    /// weft takes both nodes over, with these arguments more. `stay` is what stays of flannel's packet rules.
    pub(super) fn over(&mut self, more: &[String], stay: &str) {
        let words = [&["--ip-masq".to_owned()], more].concat();
        for number in 1..=MACHINES {
            let agent = machines::start(&self.stage, &self.directory, number, &words);
            self.agents.push(agent);
        }
        self.on_nodes(|_| {
            within(Duration::from_secs(20), "flannel's rules go", || {
                let mut left = takeover::flannels_rules();
                left.retain(|line| stay.is_empty() || !line.contains(stay));
                if left.is_empty() { Ok(()) } else { Err(left) }
            });
        });
    }

    fn namespace(&self, name: &str) -> &Namespace {
        match name {
            "pod 1" => &self.stage.members[&1].machine.pod.network,
            "pod 2" => &self.stage.members[&2].machine.pod.network,
            "node 1" => &self.stage.members[&1].machine.network,
            "node 2" => &self.stage.members[&2].machine.network,
            other => &self.more[other],
        }
    }

    fn listen(&mut self) {
        for name in DIRECT {
            let listener = self.namespace(name).run(|| TcpListener::bind(("::", PORT))).expect("a thread");
            self.listeners.add(name, listener.expect("a listener"));
        }
    }

    /// Whose address the target saw; `None` if nobody answered.
    pub(super) fn ask(&self, family: usize, sender: usize, target: &Target) -> Option<String> {
        let (_, at, bound) = SENDERS[sender];
        let from = bound.map(|name| SocketAddr::new(self.addresses[family][name], 0));
        let ask = |patience| self.namespace(at).run(|| ask(from, target.address, patience)).expect("a thread");
        let answer = PATIENCE.into_iter().find_map(ask)?;
        let (who, seen) = answer.split_once(' ').expect("a name and an address");
        assert_eq!(who.replace('-', " "), target.answers, "{} of {:?}", target.label, SENDERS[sender]);
        let seen: IpAddr = seen.parse().expect("an address");
        let name = self.addresses[family].iter().find(|(_, ip)| **ip == seen).map(|(name, _)| (*name).to_owned());
        Some(name.unwrap_or_else(|| seen.to_string()))
    }
}

fn beyond_prefixed(all: [&str; 2]) -> Vec<Prefixed> {
    all.into_iter().zip([24, 64]).map(|(ip, len)| (ip.parse().expect("an address"), len)).collect()
}

/// A wire from here to a namespace, the near end on a bridge.
fn wire(name: &str, to: &Namespace, bridge: &str) {
    let mut links = Links::open().expect("netlink");
    links.veth(name, "eth0", to).expect("a wire");
    links.enslave(name, bridge).expect("a bridge");
}

fn settle_in(network: &Namespace, own: &[Prefixed], gateways: &[Prefixed]) {
    network
        .run(|| {
            let mut links = Links::open().expect("netlink");
            links.up("eth0").expect("a link");
            own.iter().for_each(|(ip, len)| links.address("eth0", *ip, *len).expect("an address"));
            gateways.iter().for_each(|(ip, _)| links.default_route(*ip, 1024).expect("a route"));
        })
        .expect("a namespace");
}

/// From the calling thread's namespace.
fn ask(from: Option<SocketAddr>, to: SocketAddr, patience: Duration) -> Option<String> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
    if let Some(from) = from {
        socket.bind(&from.into()).expect("an own address");
    }
    socket.connect_timeout(&to.into(), patience).ok()?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(patience)).expect("a time");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok().filter(|length| *length > 0)?;
    Some(answer)
}

/// Threads that say to everybody who they are and whom they see.
#[derive(Default)]
struct Listeners {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Listeners {
    fn add(&mut self, name: &'static str, listener: TcpListener) {
        listener.set_nonblocking(true).expect("a listener");
        let over = Arc::clone(&self.over);
        self.threads.push(std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                match listener.accept() {
                    // Who went away meanwhile asks again.
                    Ok((mut stream, from)) => {
                        drop(write!(stream, "{} {}", name.replace(' ', "-"), from.ip().to_canonical()));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(1)),
                }
            }
        }));
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}
