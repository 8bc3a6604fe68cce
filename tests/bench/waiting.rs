//! How long somebody else waits: a CNI plugin, in the namespace of its pod, while weft fills the tables.
//! RTNL is one lock for the whole machine.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage};
use weft::model::addr::{IfIndex, IfName};
use weft::model::op::{Dev, LinkOp, Op};
use weft::reconcile::Memory;

use crate::Run;
use crate::cluster::{Cluster, Stack};
use crate::machine::Machine;
use crate::raw::{Batches, Each, Raw, messages};
use crate::samples::Samples;
use crate::sandbox;
use crate::table::Table;

/// Between two requests of the plugin, so that it does not fill the queue for the lock by itself.
const PAUSE: Duration = Duration::from_micros(200);

/// What the machine is busy with while the plugin asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    Nothing,
    Weft,
    Batches,
    FlannelBatches,
    FlannelEach,
}

impl Load {
    const ALL: [Self; 5] = [Self::Nothing, Self::Weft, Self::Batches, Self::FlannelBatches, Self::FlannelEach];

    fn label(self, size: u32) -> String {
        match self {
            Self::Nothing => "nothing".to_owned(),
            Self::Weft => format!("weft programs {size} peers"),
            Self::Batches => "the same messages in batches of 1,000".to_owned(),
            Self::FlannelBatches => "flannel's rows in batches of 1,000".to_owned(),
            Self::FlannelEach => "flannel's rows one request at a time".to_owned(),
        }
    }
}

/// What a plugin asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// An address added and removed: each is one request.
    Address,
    /// A veth pair made.
    Veth,
}

/// How long one kind of request took beside one kind of load.
pub(crate) struct Waited {
    ask: Ask,
    load: Load,
    size: u32,
    took: Samples,
    load_took: Samples,
}

/// Measures every request beside every load.
pub(crate) fn run(run: &Run) -> Vec<Waited> {
    let size = run.wait_size;
    let cluster = Cluster::new(size, Stack::V4);
    let mut all = Vec::new();
    for ask in [Ask::Address, Ask::Veth] {
        for load in Load::ALL {
            run.progress(&format!("waiting for RTNL: {ask:?} beside {load:?}"));
            let waited = sandbox::isolated(|| waited(&cluster, ask, load, run.runs));
            all.push(waited.expect("a benchmark that ends well"));
        }
    }
    all
}

fn waited(cluster: &Cluster, ask: Ask, load: Load, runs: usize) -> Waited {
    let mut machine = Machine::new(cluster);
    let mut waited = Waited { ask, load, size: cluster.size, took: Samples::default(), load_took: Samples::default() };
    for _ in 0..runs {
        machine.with_devices();
        let work = prepare(&mut machine, load);
        let (ready, done) = (AtomicBool::new(false), AtomicBool::new(false));
        let asked = std::thread::scope(|scope| {
            let plugin = scope.spawn(|| sandbox::isolated(|| plugin(ask, &ready, &done)).expect("a plugin"));
            while !ready.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            let began = Instant::now();
            work(&mut machine);
            waited.load_took.add(began.elapsed());
            done.store(true, Ordering::Release);
            plugin.join().expect("a plugin that ends well")
        });
        asked.into_iter().for_each(|took| waited.took.add(took));
        machine.clear();
    }
    waited
}

/// The load, ready to go.
fn prepare<'a>(machine: &mut Machine<'_>, load: Load) -> Box<dyn FnOnce(&mut Machine<'_>) + 'a> {
    let flannels = |machine: &mut Machine<'_>| {
        let rows = machine.cluster.flannels().collect::<Vec<_>>();
        messages(&machine.sets(rows, true))
    };
    match load {
        Load::Nothing => Box::new(|_| std::thread::sleep(Duration::from_millis(300))),
        Load::Weft => Box::new(|machine| {
            machine.pass(&machine.cluster.full, &mut Memory::default());
        }),
        Load::Batches => {
            machine.pass(&machine.cluster.full, &mut Memory::default());
            let rows: Vec<_> =
                machine.tables().into_iter().flat_map(|(_, tables)| tables.entries().collect::<Vec<_>>()).collect();
            machine.clear();
            machine.with_devices();
            let batches = Batches::new(&messages(&machine.sets(rows, false)));
            Box::new(move |_| Raw::open().send_batches(&batches))
        }
        Load::FlannelBatches => {
            let batches = Batches::new(&flannels(machine));
            Box::new(move |_| Raw::open().send_batches(&batches))
        }
        Load::FlannelEach => {
            let each = Each::new(flannels(machine));
            Box::new(move |_| Raw::open().send_each(&each))
        }
    }
}

/// Asks until the load is done; how long each request took.
fn plugin(ask: Ask, ready: &AtomicBool, done: &AtomicBool) -> Vec<Duration> {
    let mut raw = Raw::open();
    let mut took = Vec::new();
    let (make, unmake) = requests(ask);
    ready.store(true, Ordering::Release);
    while !done.load(Ordering::Acquire) {
        let began = Instant::now();
        raw.send_each(&make);
        took.push(began.elapsed());
        std::thread::sleep(PAUSE);
        let began = Instant::now();
        raw.send_each(&unmake);
        // Removing a link waits for the end of an RCU period, which is no matter of locks.
        if ask == Ask::Address {
            took.push(began.elapsed());
        }
        std::thread::sleep(PAUSE);
    }
    took
}

fn requests(ask: Ask) -> (Each, Each) {
    let lo = Dev { index: IfIndex(1), name: IfName::new("lo") };
    let ip = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
    let ops = |op: LinkOp| Each::new(messages(&[Op::Link(op)]));
    match ask {
        Ask::Address => (ops(LinkOp::AddAddress(lo.clone(), ip, 32)), ops(LinkOp::DelAddress(lo, ip, 32))),
        Ask::Veth => (
            Each::new(vec![encoded(RouteNetlinkMessage::NewLink(veth()), NLM_F_CREATE | NLM_F_EXCL)]),
            Each::new(vec![encoded(RouteNetlinkMessage::DelLink(named("pod0")), 0)]),
        ),
    }
}

fn veth() -> LinkMessage {
    let mut message = named("pod0");
    let peer = InfoData::Veth(InfoVeth::Peer(named("pod1")));
    message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(peer)]));
    message
}

fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}

fn encoded(message: RouteNetlinkMessage, flags: u16) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = 1;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

pub(crate) fn table(all: &[Waited]) -> Table {
    let mut table = Table::new(
        "How long a CNI plugin waits for RTNL, in milliseconds",
        "Requests from another network namespace, 0.2 ms apart, while this one is busy with the load.",
        &["request", "beside", "requests", "median", "99 % within", "longest", "the load took"],
    );
    for it in all {
        let ask = match it.ask {
            Ask::Address => "address added or removed",
            Ask::Veth => "veth pair made",
        };
        let ms = |value: f64| format!("{value:.3}");
        table.row(vec![
            ask.into(),
            it.load.label(it.size).into(),
            it.took.count().into(),
            ms(it.took.median()).into(),
            ms(it.took.quantile(0.99)).into(),
            ms(it.took.max()).into(),
            (&it.load_took).into(),
        ]);
    }
    table
}
