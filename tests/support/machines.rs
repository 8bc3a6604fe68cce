//! The lab's machines as nodes of a cluster that tests take from flannel to weft and back.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use weft::lab::addressing::{Addressing, Stack, name};
use weft::lab::stage::Stage;

use crate::agent::Agent;
use crate::cluster::backend_data;
use crate::flannel;
use crate::stage::key;

/// Both families, one network.
pub(crate) const ADDRESSING: Addressing = Addressing { stack: Stack::Dual, segments: 1 };
/// Where each machine's agent serves HTTP.
const HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8081);

/// The MACs of flannel's devices on a machine.
fn macs(number: u8) -> [String; 2] {
    [format!("0a:58:04:00:00:{number:02x}"), format!("0a:58:06:00:00:{number:02x}")]
}

/// Runs something in a machine's namespace.
pub(crate) fn run<T: Send>(stage: &Stage, number: u8, work: impl FnOnce() -> T + Send) -> T {
    stage.members[&number].machine.network.run(work).expect("the machine's namespace")
}

/// The machine's Node as flanneld has announced it.
pub(crate) fn announce(stage: &Stage, number: u8) {
    let mut node = ADDRESSING.node(number);
    let addresses = ADDRESSING.machine(number);
    for (value, annotation) in [
        ("true".to_owned(), "kube-subnet-manager"),
        ("vxlan".to_owned(), "backend-type"),
        (backend_data(1, &macs(number)[0]), "backend-data"),
        (backend_data(1, &macs(number)[1]), "backend-v6-data"),
        (addresses[0].0.to_string(), "public-ip"),
        (addresses[1].0.to_string(), "public-ipv6"),
    ] {
        node["metadata"]["annotations"][key(annotation)] = value.into();
    }
    stage.server.put_node(node);
}

/// What flanneld makes on a machine, in the calling thread's namespace; its peers are the machines from 1 to `nodes`.
pub(crate) fn lay(nodes: u8, number: u8, more: &str) {
    let [net4, net6] = [ADDRESSING.networks().v4, ADDRESSING.networks().v6].map(|net| net.expect("both families"));
    let text = |(ip, len): &(IpAddr, u8)| format!("{ip}/{len}");
    let (cidrs, ips, [mac4, mac6]) = (ADDRESSING.pod_cidrs(number), ADDRESSING.machine(number), macs(number));
    let options = format!(
        "--iface eth0 --network {net4} --subnet {} --public-ip {} --mac {mac4} --network6 {net6} --subnet6 {} \
         --public-ip6 {} --mac6 {mac6} {more}",
        text(&cidrs[0]),
        ips[0].0,
        text(&cidrs[1]),
        ips[1].0
    );
    let others = (1..=nodes).filter(|other| *other != number);
    let rows = others.flat_map(|other| {
        let of = ADDRESSING.pod_cidrs(other).into_iter().zip(macs(other)).zip(ADDRESSING.machine(other));
        of.map(|((cidr, mac), (ip, _))| format!("{} {mac} {ip}\n", text(&cidr))).collect::<Vec<_>>()
    });
    flannel::state(&options, &rows.collect::<String>());
}

/// Starts a machine's agent, and waits until it is ready. `directory` is the stage's.
pub(crate) fn start(stage: &Stage, directory: &Path, number: u8, more: &[String]) -> Agent {
    let subnet_file = directory.join(name(number)).join("run/flannel/subnet.env");
    let arguments = [
        ("--node-name", name(number)),
        ("--kube-api-url", stage.server.url()),
        ("--net-config-path", directory.join("net-conf.json").display().to_string()),
        ("--subnet-file", subnet_file.display().to_string()),
        ("--healthz-ip", HTTP.ip().to_string()),
        ("--healthz-port", HTTP.port().to_string()),
    ];
    let mut words: Vec<String> = arguments.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect();
    words.extend_from_slice(more);
    run(stage, number, || {
        let mut agent = Agent::start(HTTP, &words);
        agent.until_ready();
        agent
    })
}
