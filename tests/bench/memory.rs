//! What a whole agent needs: the release binary, an API server with thousands of real Nodes, a network
//! namespace.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::time::{clock_getcpuclockid, clock_gettime};
use serde_json::json;
use weft::lab::apiserver::{Action, ApiServer, Verb};

use crate::Run;
use crate::cluster::{Stack, UNDERLAY};
use crate::samples::Samples;
use crate::table::Table;
use crate::{http, kubelet, sandbox};

/// How long an agent may take to have everything in place.
const PATIENCE: Duration = Duration::from_secs(120);
const PROGRAM: &str = env!("CARGO_BIN_EXE_weft");

/// One agent's life.
pub(crate) struct Weighed {
    pub(crate) stack: Stack,
    pub(crate) streaming: bool,
    size: u32,
    node_bytes: usize,
    ready: Samples,
    /// In KiB: after everything was in place, after every Node had changed once more, and the peak.
    resident: u64,
    later: u64,
    pub(crate) peak: u64,
    /// CPU time of the agent in each second while nothing happened.
    pub(crate) at_rest: Duration,
    /// CPU time of the agent for each Node whose kubelet reported that it is alive.
    heartbeat: Duration,
}

impl Weighed {
    pub(crate) const fn size(&self) -> u32 {
        self.size
    }
}

/// Bytes of the program.
pub(crate) fn program_size() -> u64 {
    fs::metadata(PROGRAM).expect("the program").len()
}

/// Weighs an agent for each family and way of listing.
pub(crate) fn run(run: &Run) -> Vec<Weighed> {
    let mut all = Vec::new();
    for stack in [Stack::V4, Stack::Dual] {
        run.progress(&format!("an agent among {} Nodes, {}", run.nodes, stack.label()));
        let of_stack = sandbox::isolated(|| {
            sandbox::underlay("eth0", &UNDERLAY);
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let server = ApiServer::start(listener).expect("an API server");
            let nodes: Vec<_> = (0..=run.nodes).map(|number| kubelet::node(number, stack)).collect();
            let bytes = nodes.last().map_or(0, |node| node.to_string().len());
            let names: Vec<String> = nodes.into_iter().map(|node| name_of(&server.put_node(node))).collect();
            [true, false].map(|streaming| weighed(&server, &names, run, bytes, stack, streaming))
        });
        all.extend(of_stack.expect("a benchmark that ends well"));
    }
    all
}

fn name_of(node: &serde_json::Value) -> String {
    node["metadata"]["name"].as_str().expect("a name").to_owned()
}

fn weighed(
    server: &ApiServer,
    names: &[String],
    run: &Run,
    node_bytes: usize,
    stack: Stack,
    streaming: bool,
) -> Weighed {
    server.clear_faults();
    if !streaming {
        server.inject(&[Verb::StreamingList], Action::RefuseStreaming, None);
    }
    let began = Instant::now();
    let agent = Agent::start(server, &names[0], stack);
    agent.wait_until_ready();
    let mut ready = Samples::default();
    ready.add(began.elapsed());
    std::thread::sleep(run.rest);
    let resident = agent.kib("VmRSS");
    let (at_rest, before) = (agent.cpu_in(run.idle), agent.cpu());
    for (name, beat) in names.iter().zip(1..) {
        server.patch_node(name, kubelet::heartbeat(beat));
    }
    std::thread::sleep(run.rest);
    let heartbeat = agent.cpu().saturating_sub(before) / u32::try_from(names.len()).expect("a number of Nodes");
    agent.wait_until_ready();
    let (later, peak) = (agent.kib("VmRSS"), agent.kib("VmHWM"));
    drop(agent);
    sandbox::sh("ip link del flannel.1");
    if stack.six() {
        sandbox::sh("ip link del flannel-v6.1");
    }
    Weighed { stack, streaming, size: run.nodes, node_bytes, ready, resident, later, peak, at_rest, heartbeat }
}

/// The program as a DaemonSet would run it. Dropping it kills it.
struct Agent {
    child: Child,
    http: SocketAddr,
    wanted: usize,
    directory: tempfile::TempDir,
}

impl Agent {
    fn start(server: &ApiServer, name: &str, stack: Stack) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let conf = json!({
            "Network": "10.0.0.0/8", "EnableIPv6": stack.six(), "IPv6Network": "fd10::/48",
            "Backend": { "Type": "vxlan" },
        });
        let net_conf = directory.path().join("net-conf.json");
        fs::write(&net_conf, conf.to_string()).expect("to write net-conf.json");
        let http = SocketAddr::from(([127, 0, 0, 1], 8090));
        let child = Command::new(PROGRAM)
            .args(["run", "--node-name", name, "--kube-api-url", &server.url(), "--iface", "eth0"])
            .arg("--net-config-path")
            .arg(net_conf)
            .arg("--subnet-file")
            .arg(directory.path().join("subnet.env"))
            .args(["--healthz-ip", "127.0.0.1", "--healthz-port", "8090"])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(directory.path().join("log")).expect("a log"))
            .spawn()
            .expect("to start weft");
        let families = if stack.six() { 2 } else { 1 };
        Self { child, http, wanted: families * (server.nodes().len() - 1), directory }
    }

    /// Until it says that it is ready, and has a route to every peer.
    fn wait_until_ready(&self) {
        let began = Instant::now();
        while !(self.says_ready() && routes() == self.wanted) {
            let log = || fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            assert!(began.elapsed() < PATIENCE, "the agent is not ready: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn says_ready(&self) -> bool {
        std::net::TcpStream::connect(self.http).is_ok() && http::get(self.http, "/readyz").status == 200
    }

    /// Its CPU time so far.
    fn cpu(&self) -> Duration {
        let pid = nix::unistd::Pid::from_raw(self.child.id().try_into().expect("a process"));
        clock_getcpuclockid(pid).and_then(clock_gettime).expect("its clock").into()
    }

    /// CPU time in each second, over a while in which nothing is asked of it.
    fn cpu_in(&self, idle: Duration) -> Duration {
        let (began, before) = (Instant::now(), self.cpu());
        std::thread::sleep(idle);
        self.cpu().saturating_sub(before).div_f64(began.elapsed().as_secs_f64())
    }

    fn kib(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).expect("the field");
        line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn table(all: &[Weighed]) -> Table {
    let mut table = Table::new(
        "A whole agent: memory in MiB, and CPU time",
        "The release binary, beside an API server with realistic Nodes (images, conditions, managedFields). \
         Resident: two seconds after every peer was in place; and after every Node had changed once more. The peak \
         is the kernel's (VmHWM). At rest: CPU time in each second while nothing happens. A heartbeat: CPU time for each \
         Node whose kubelet reports that it is alive, which it does every five minutes.",
        &[
            "Nodes",
            "bytes each",
            "families",
            "list",
            "start to ready, ms",
            "resident",
            "… later",
            "peak",
            "at rest, ms",
            "a heartbeat, µs",
        ],
    );
    for it in all {
        #[allow(clippy::cast_precision_loss)]
        let mib = |kib: u64| format!("{:.1}", kib as f64 / 1024.0);
        table.row(vec![
            (it.size as usize).into(),
            it.node_bytes.into(),
            it.stack.label().into(),
            if it.streaming { "streaming" } else { "in pages" }.into(),
            (&it.ready).into(),
            mib(it.resident).into(),
            mib(it.later).into(),
            mib(it.peak).into(),
            format!("{:.2}", it.at_rest.as_secs_f64() * 1e3).into(),
            format!("{:.0}", it.heartbeat.as_secs_f64() * 1e6).into(),
        ]);
    }
    table
}

/// weft's routes in this namespace.
fn routes() -> usize {
    let count = |line: &str| sandbox::try_sh(line).map_or(0, |text| text.lines().count());
    count("ip -4 route show proto 119") + count("ip -6 route show proto 119")
}
