//! What `--vtep-filter` costs a packet: between two nodes, over VXLAN, with a set of 5,000 known VTEPs on both.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use weft::kernel::Kernel as _;
use weft::kernel::netlink::Netlink;
use weft::lab::addressing::{Addressing, Prefixed, Stack as Families};
use weft::lab::topology::{Machine, Underlay};
use weft::model::addr::{Family, Subnet};
use weft::model::filter::{FilterRules, Masquerade, VtepFilter};
use weft::model::nft::{NftChange, OUR_TABLE, TableName};
use weft::model::op::{Ack, FilterOp, Op};
use weft::model::settings::Overlay;
use weft::plan::filter::table as filter_table;

use crate::Run;
use crate::cluster::{Cluster, Stack, mac, peer_v4, peer_v6};
use crate::samples::Samples;
use crate::sandbox::{self, json, sh};
use crate::table::Table;

const ADDRESSING: Addressing = Addressing { stack: Families::Dual, segments: 1 };
/// Known VTEPs.
const KNOWN: u32 = 5000;
/// Pings, and packets in bursts, of one sample.
const PINGS: usize = 2000;
const BURSTS: usize = 400;
const BURST: u32 = 100;
/// Bytes of UDP in a packet: small ones cost most.
const BYTES: usize = 64;

/// In the order of a round; the second is there to show how far apart two of the same are.
const MODES: [(&str, VtepFilter); 4] = [
    ("off", VtepFilter::Off),
    ("off, once more", VtepFilter::Off),
    ("audit", VtepFilter::Audit),
    ("enforce", VtepFilter::Enforce),
];

/// One family: round trips and times per packet in microseconds, by mode.
pub(crate) struct Filtered {
    family: Family,
    masquerade: bool,
    round_trip: [Samples; 4],
    packet: [Samples; 4],
}

pub(crate) fn run(run: &Run) -> Vec<Filtered> {
    let cases = Family::BOTH.into_iter().flat_map(|family| [(family, false), (family, true)]);
    let measure = |(family, masquerade)| {
        run.progress(&format!("the filter for VTEPs, {family}, masquerading: {masquerade}"));
        sandbox::isolated(|| measure(family, masquerade, run.runs)).expect("a benchmark that ends well")
    };
    cases.map(measure).collect()
}

/// Two machines of the lab, each with a pod; packets go from the first one's to the second one's.
struct Nodes {
    family: Family,
    machines: [Machine; 2],
    kernels: [Netlink; 2],
    overlay: Overlay,
    known: BTreeSet<IpAddr>,
}

fn measure(family: Family, masquerade: bool, runs: usize) -> Filtered {
    let mut nodes = Nodes::new(family);
    let mut seen = Filtered { family, masquerade, round_trip: Default::default(), packet: Default::default() };
    for round in 0..runs {
        for place in 0..MODES.len() {
            let mode = (place + round) % MODES.len();
            nodes.filter(masquerade, MODES[mode].1);
            seen.round_trip[mode].add(nodes.round_trip());
            seen.packet[mode].add(nodes.packet());
        }
    }
    seen
}

/// The address of a family.
fn of(family: Family, all: Vec<Prefixed>) -> IpAddr {
    all.into_iter().map(|(ip, _)| ip).find(|ip| Family::of(*ip) == family).expect("both families")
}

impl Nodes {
    fn new(family: Family) -> Self {
        let underlay = Underlay::build(ADDRESSING).expect("an underlay");
        let machines = [1, 2].map(|number| underlay.add(number).expect("a machine"));
        let kernels = [0, 1].map(|at| {
            let open = || {
                device(family, machines[at].number, machines[1 - at].number);
                Netlink::open().expect("netlink sockets")
            };
            machines[at].network.run(open).expect("the namespace")
        });
        let overlay = Overlay { networks: ADDRESSING.networks(), ..Cluster::new(1, Stack::Dual).settings.overlay };
        let stranger = |number: u32| match family {
            Family::V4 => peer_v4(number).public_ip,
            Family::V6 => peer_v6(number).public_ip,
        };
        let own = [1, 2].map(|number| of(family, ADDRESSING.machine(number)));
        let known = (1..=KNOWN - 2).map(stranger).chain(own).collect();
        let nodes = Self { family, machines, kernels, overlay, known };
        let answers = || nodes.echo().ping().is_some();
        sandbox::eventually("the other node's pod answers", || nodes.in_pod(answers));
        nodes
    }

    fn in_pod<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.machines[0].pod.network.run(work).expect("the pod's namespace")
    }

    fn target(&self) -> IpAddr {
        of(self.family, ADDRESSING.inside(2, 2))
    }

    /// weft's own table on both nodes, or none.
    fn filter(&mut self, masquerade: bool, vteps: VtepFilter) {
        let rules = FilterRules { masquerade: masquerade.then(Masquerade::default), vteps };
        let name = TableName::new(self.family, OUR_TABLE);
        for (machine, kernel) in self.machines.iter().zip(&mut self.kernels) {
            let pods = ADDRESSING.pod_cidrs(machine.number);
            let pods = pods.into_iter().filter_map(|(ip, len)| Subnet::new(ip, len));
            let pods = pods.into_iter().find(|pods| pods.family() == self.family).expect("both families");
            let wanted = filter_table(&self.overlay, &rules, pods, || self.known.clone());
            // Deleting needs something that is there.
            let mut changes = vec![NftChange::AddTable(name.clone()), NftChange::DeleteTable(name.clone())];
            changes.extend(wanted.iter().flat_map(|table| table.to_changes(&name)));
            let op = Op::Filter(FilterOp { family: self.family, changes });
            assert_eq!(kernel.apply(&[op]), [Ack::Done]);
        }
    }

    fn echo(&self) -> Echo {
        Echo::open(self.target())
    }

    /// The median of many pings, each answered by the other kernel at once; in microseconds, told as milliseconds.
    fn round_trip(&self) -> Duration {
        let ping = || {
            let echo = self.echo();
            (0..PINGS).map(|_| echo.ping().expect("an answer")).collect()
        };
        median(self.in_pod(ping)) * 1000
    }

    /// The median over bursts of the time per packet, sent here and received there.
    fn packet(&self) -> Duration {
        let to = SocketAddr::new(self.target(), 9);
        let there = &self.machines[1].pod.network;
        // Nobody reads: what does not fit is dropped at the very end.
        let _receiver = there.run(|| UdpSocket::bind(to).expect("a socket")).expect("the namespace");
        let received = || {
            let link = there.run(|| json("ip -s -j link show eth0")).expect("the namespace");
            link[0]["stats64"]["rx"]["packets"].as_u64().expect("a count")
        };
        let before = received();
        let took = self.in_pod(|| bursts(to));
        let sent = BURSTS as u64 * u64::from(BURST);
        sandbox::eventually("every packet has come", || received() - before >= sent);
        median(took) * 1000
    }
}

/// From the calling thread's namespace: how long each burst took, by packet.
fn bursts(to: SocketAddr) -> Vec<Duration> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).expect("a socket");
    socket.connect(to).expect("an address");
    let packet = [0; BYTES];
    let burst = |_| {
        let began = Instant::now();
        for _ in 0..BURST {
            socket.send(&packet).expect("to send");
        }
        began.elapsed() / BURST
    };
    (0..BURSTS).map(burst).collect()
}

fn median(mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    took[took.len() / 2]
}

/// A machine's device, with the one peer that packets go to; the others are in the set alone.
fn device(family: Family, own: u8, peer: u8) {
    let [own_mac, peer_mac] = [own, peer].map(|number| mac(u64::from(number)));
    let [own_ip, peer_ip] = [own, peer].map(|number| of(family, ADDRESSING.machine(number)));
    let [vtep, gateway] = [own, peer].map(|number| of(family, ADDRESSING.inside(number, 0)));
    let (len, pods) = if own_ip.is_ipv4() { (32, 24) } else { (128, 64) };
    sh(&format!(
        "ip link add flannel.1 mtu 1430 address {own_mac} type vxlan id 1 dev eth0 local {own_ip} dstport 8472 nolearning
         ip address add {vtep}/{len} dev flannel.1
         ip link set flannel.1 up
         bridge fdb append {peer_mac} dev flannel.1 dst {peer_ip}
         ip neigh add {gateway} lladdr {peer_mac} dev flannel.1 nud permanent
         ip route add {gateway}/{pods} via {gateway} dev flannel.1 onlink"
    ));
}

/// A ping socket: its answers come from the other kernel, with no thread to wake.
struct Echo {
    socket: Socket,
    request: [u8; 12],
}

impl Echo {
    fn open(to: IpAddr) -> Self {
        let (protocol, kind) = if to.is_ipv4() { (Protocol::ICMPV4, 8) } else { (Protocol::ICMPV6, 128) };
        let socket =
            Socket::new(Domain::for_address((to, 0).into()), Type::DGRAM, Some(protocol)).expect("a ping socket");
        socket.connect(&SocketAddr::new(to, 0).into()).expect("a route");
        socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a time");
        let mut request = [0; 12];
        request[0] = kind;
        Self { socket, request }
    }

    fn ping(&self) -> Option<Duration> {
        let began = Instant::now();
        (&self.socket).write_all(&self.request).ok()?;
        let heard = (&self.socket).read(&mut [0; 64]).ok()?;
        (heard > 0).then(|| began.elapsed())
    }
}

impl Filtered {
    /// The round trip with the filter on, over the one without: run by run, the median.
    pub(crate) fn cost(&self) -> f64 {
        self.round_trip[3].over(&self.round_trip[0]).median()
    }

    pub(crate) fn label(&self) -> String {
        format!("{}{}", self.family, if self.masquerade { ", --ip-masq" } else { "" })
    }
}

pub(crate) fn table(all: &[Filtered]) -> Table {
    let mut table = Table::new(
        "What the filter for VTEPs costs a packet, in microseconds",
        "Between pods of two nodes of the lab, 5,000 known VTEPs on both. `round trip`: a ping. `packet`: from send() in one pod to a \
         full socket in the other. Both are medians within a run; the modes take turns within each run, and the ratios are of one \
         run each. With `--ip-masq` connections are tracked, as on any node with kube-proxy.",
        &["nodes", "filter", "round trip", "÷ off", "packet", "÷ off ", "packets/s"],
    );
    for it in all {
        for (at, (label, _)) in MODES.iter().enumerate() {
            let rate = 1e6 / it.packet[at].median();
            table.row(vec![
                it.label().into(),
                (*label).into(),
                (&it.round_trip[at]).into(),
                it.round_trip[at].over(&it.round_trip[0]).into(),
                (&it.packet[at]).into(),
                it.packet[at].over(&it.packet[0]).into(),
                format!("{rate:.0}").into(),
            ]);
        }
    }
    table
}
