//! A node in a cluster: an underlay, an API server with Nodes, and the agent, all in the calling thread's
//! network namespace.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weft::lab::apiserver::ApiServer;

use crate::agent::Agent;
use crate::cluster::{self, OWN};
use crate::picture::Picture;
use crate::sandbox::{DIRECTORY, sh, underlay};

/// The underlay's name.
pub(crate) const UNDERLAY: &str = "eth0";
/// Our devices: IPv4, IPv6.
pub(crate) const DEVICES: [&str; 2] = ["flannel.1", "flannel-v6.1"];
/// Where the agent serves HTTP: each test has a loopback of its own.
const HTTP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8081);
/// Where the API server listens.
const API: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 6443);

/// A node that weft runs on, or can.
pub(crate) struct World {
    /// The cluster's memory.
    pub(crate) api: Arc<ApiServer>,
    /// `net-conf.json`, `subnet.env`.
    pub(crate) directory: PathBuf,
    /// More arguments for [`World::start`].
    pub(crate) arguments: Vec<String>,
    agent: Option<Agent>,
}

impl World {
    /// An underlay of both families with default routes, an API server that has our own Node, bare, and this
    /// many peers. No agent yet.
    pub(crate) fn with_peers(peers: u32) -> Self {
        static WORLDS: AtomicU32 = AtomicU32::new(0);
        let directory = PathBuf::from(DIRECTORY).join(format!("world-{}", WORLDS.fetch_add(1, Ordering::Relaxed)));
        std::fs::create_dir(&directory).expect("a directory");
        // As on any node of Kubernetes; turned on later it brings addresses and routes of the kernel's own.
        for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            weft::lab::netns::sysctl(&format!("net/{switch}"), "1").expect("a sysctl");
        }
        make_underlay(cluster::public_ips(0).map(|ip| ip.to_string()));
        let api = Arc::new(ApiServer::start(TcpListener::bind(API).expect("a port")).expect("an API server"));
        api.put_node(cluster::bare(0));
        (1..=peers).for_each(|number| drop(api.put_node(cluster::peer(number))));
        let world = Self { api, directory, arguments: Vec::new(), agent: None };
        world.configure(&json!({
            "Network": cluster::NETWORKS[0],
            "EnableIPv6": true,
            "IPv6Network": cluster::NETWORKS[1],
            "Backend": { "Type": "vxlan" },
        }));
        world
    }

    /// Writes `net-conf.json`; for agents started from now on.
    pub(crate) fn configure(&self, net_conf: &Value) {
        std::fs::write(self.directory.join("net-conf.json"), net_conf.to_string()).expect("to write");
    }

    /// Starts the agent, and does not wait for anything.
    pub(crate) fn spawn(&mut self) -> &mut Agent {
        assert!(self.agent.is_none(), "an agent runs already");
        let file = |name: &str| self.directory.join(name).display().to_string();
        let mut arguments: Vec<String> = [
            ("--node-name", OWN.to_owned()),
            ("--kube-api-url", format!("http://{API}")),
            ("--net-config-path", file("net-conf.json")),
            ("--subnet-file", file("subnet.env")),
            ("--healthz-ip", HTTP.ip().to_string()),
            ("--healthz-port", HTTP.port().to_string()),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect();
        arguments.extend(self.arguments.iter().cloned());
        self.agent.insert(Agent::start(HTTP, &arguments))
    }

    /// Starts the agent and waits until it is ready and its Node announces it.
    pub(crate) fn start(&mut self) {
        self.spawn().until_ready();
        within(Duration::from_secs(10), "the Node announces us", || {
            self.own_annotation("public-ip").is_some().then_some(()).ok_or_else(|| self.api.node(OWN))
        });
        // The last that is written there.
        within(Duration::from_secs(10), "the Node has its condition", || {
            let condition = self.api.node(OWN).as_ref().and_then(cluster::network_unavailable);
            condition.is_some().then_some(()).ok_or_else(|| self.api.node(OWN))
        });
        // The kernel takes its time over a new IPv6 address (`addrconf_dad_work`): it announces it, and makes its
        // local route, only then. A test that listens for what weft writes should not hear of that.
        within(Duration::from_secs(10), "our IPv6 address has its local route", || {
            let routes = crate::sandbox::json("ip -6 -j route show table local type local dev flannel-v6.1");
            if routes.is_empty() { Err("none") } else { Ok(()) }
        });
    }

    /// The agent that was started.
    pub(crate) fn agent(&mut self) -> &mut Agent {
        self.agent.as_mut().expect("an agent that was started")
    }

    /// Takes the agent out: to end it.
    pub(crate) fn take_agent(&mut self) -> Agent {
        self.agent.take().expect("an agent that was started")
    }

    /// What our Node announces.
    pub(crate) fn own_annotation(&self, key: &str) -> Option<String> {
        cluster::annotation(&self.api.node(OWN)?, key).map(str::to_owned)
    }
}

/// The underlay, with a default route of each family.
pub(crate) fn make_underlay([v4, v6]: [String; 2]) {
    underlay(UNDERLAY, &[&format!("{v4}/16"), &format!("{v6}/64")]);
    add_default_routes();
}

/// The default routes of the underlay, as a DHCP client and a router's advertisement leave them.
pub(crate) fn add_default_routes() {
    sh(&format!(
        "ip route replace default via 172.16.255.254 dev {UNDERLAY}\n\
         ip -6 route replace default via fd00:174::ffff dev {UNDERLAY}"
    ));
}

/// Both our devices, as iproute2 sees them.
pub(crate) fn pictures() -> [Picture; 2] {
    DEVICES.map(Picture::of_device)
}

/// Waits until something is there, and says how long that took; fails the test with what stands in the way
/// if it takes longer than `limit`.
pub(crate) fn within<T, P: std::fmt::Debug>(limit: Duration, what: &str, mut is: impl FnMut() -> Result<T, P>) -> T {
    let start = Instant::now();
    loop {
        match is() {
            Ok(value) => return value,
            Err(obstacle) if start.elapsed() > limit => panic!("not within {limit:?}: {what}: {obstacle:?}"),
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}
