//! Where packets go straight to the node (direct routing, and host-gw): from empty to done and with nothing to do, beside
//! the least that the kernel can be asked for the same, and beside flannel's way.

use std::sync::Arc;

use weft::model::addr::IfName;
use weft::model::node::{Peer, Snapshot, Standing};
use weft::model::op::{Dev, Op};
use weft::model::settings::Backend;
use weft::model::table::{Entry, PROTOCOL_BOOT, Route, RouteKey, flannel_metric};
use weft::reconcile::{Leave, Memory, leave};

use crate::Run;
use crate::cluster::{Cluster, Stack, peer_v4, peer_v6};
use crate::machine::Machine;
use crate::raw::{Each, Raw, messages};
use crate::samples::{Timed, Watch};
use crate::sandbox;
use crate::table::Table;

/// All peers near, one way of reaching them, one size of cluster.
pub(crate) struct Direct {
    way: &'static str,
    pub(crate) stack: Stack,
    pub(crate) size: u32,
    /// Rows that weft makes.
    rows: usize,
    written: Timed,
    floor: Timed,
    quiet: Timed,
    /// Flannel's rows, one request at a time.
    flannel: Timed,
}

/// Measures direct routing and host-gw, at each size up to 5,000.
pub(crate) fn run(run: &Run) -> Vec<Direct> {
    let mut all = Vec::new();
    for (way, backend) in [("direct routing", Backend::Vxlan), ("host-gw", Backend::HostGw)] {
        for stack in [Stack::V4, Stack::Dual] {
            for size in run.sizes.iter().filter(|size| **size <= 5000) {
                run.progress(&format!("{way} to {size} peers, {}", stack.label()));
                let mut cluster = Cluster::new(*size, stack);
                cluster.settings.overlay.backend = backend;
                cluster.settings.overlay.direct_routing = backend == Backend::Vxlan;
                if backend == Backend::HostGw {
                    cluster.full = without_vteps(&cluster);
                }
                let direct = sandbox::isolated(|| Bench::new(&cluster, way).run(run.runs));
                all.push(direct.expect("a benchmark that ends well"));
            }
        }
    }
    all
}

/// With host-gw no node has one.
fn without_vteps(cluster: &Cluster) -> Snapshot {
    cluster.with(cluster.full.generation, |nodes| {
        for node in nodes.values_mut() {
            let standing = &mut Arc::make_mut(node).standing;
            for standing in [&mut standing.v4, &mut standing.v6] {
                if let Standing::Usable(peer) = standing {
                    peer.mac = None;
                }
            }
        }
    })
}

struct Bench<'a> {
    machine: Machine<'a>,
    recorded: Vec<Op>,
    seen: Direct,
}

impl<'a> Bench<'a> {
    fn new(cluster: &'a Cluster, way: &'static str) -> Self {
        let mut machine = Machine::new(cluster);
        let recorded = machine.pass(&cluster.full, &mut Memory::default()).report;
        let recorded: Vec<Op> = recorded.changes.into_iter().map(|change| change.op).collect();
        let rows = recorded.iter().filter(|op| op.entry().is_some()).count();
        let mut bench = Self { machine, recorded, seen: Direct::nothing(cluster, way, rows) };
        bench.clear();
        bench
    }

    fn run(mut self, runs: usize) -> Direct {
        // The first round warms up what can be warmed up, and is forgotten.
        for round in 0..=runs {
            if round == 1 {
                self.seen = Direct::nothing(self.machine.cluster, self.seen.way, self.seen.rows);
            }
            for at in 0..3 {
                match (at + round) % 3 {
                    0 => self.ours(),
                    1 => self.floor(),
                    _ => self.flannel(),
                }
                self.clear();
            }
        }
        self.seen
    }

    fn ours(&mut self) {
        self.machine.with_devices();
        let mut memory = Memory::default();
        self.seen.written.add(self.machine.pass(&self.machine.cluster.full, &mut memory).written);
        let quiet = self.machine.pass(&self.machine.cluster.full, &mut memory);
        assert_eq!(quiet.report.changes.len(), 0, "{:?}", quiet.report.changes.first());
        self.seen.quiet.add(quiet.total);
    }

    fn floor(&mut self) {
        self.machine.with_devices();
        let ops = self.machine.rows_again(&self.recorded);
        let took = self.machine.floor(&ops);
        self.seen.floor.add(took);
    }

    /// Both of flannel's ways lay down one route for a peer that is near, and nothing else.
    fn flannel(&mut self) {
        self.machine.with_devices();
        let host = self.machine.observe();
        let underlay = host.link(&IfName::new("eth0")).expect("the underlay");
        let dev = Dev { index: underlay.index, name: underlay.name.clone() };
        let route = |peer: Peer| {
            let key = RouteKey { dst: peer.subnet, metric: flannel_metric(peer.subnet.family()) };
            let route = Route { protocol: PROTOCOL_BOOT, ..Route::direct(peer.public_ip, dev.index) };
            Op::Set { dev: dev.clone(), entry: Entry::Route(key, route), replace: true }
        };
        let Cluster { size, stack, .. } = self.machine.cluster;
        let peers = (1..=*size).flat_map(|n| [Some(peer_v4(n)), stack.six().then(|| peer_v6(n))]).flatten();
        let requests = Each::new(messages(&peers.map(route).collect::<Vec<_>>()));
        let mut raw = Raw::open();
        self.machine.kernel.close();
        let watch = Watch::start();
        raw.send_each(&requests);
        self.seen.flannel.add(watch.took());
        for family in ["-4", "-6"] {
            sandbox::sh(&format!("ip {family} route flush proto boot"));
        }
    }

    /// Takes everything away.
    fn clear(&mut self) {
        let scope = self.machine.cluster.settings.scope();
        leave(&mut self.machine.kernel, &scope, Leave::Remove).expect("a look");
        self.machine.clear();
    }
}

impl Direct {
    fn nothing(cluster: &Cluster, way: &'static str, rows: usize) -> Self {
        let none = Timed::default;
        let (stack, size) = (cluster.stack, cluster.size);
        Self { way, stack, size, rows, written: none(), floor: none(), quiet: none(), flannel: none() }
    }

    /// CPU time until the last write, over the floor's.
    pub(crate) fn over_floor(&self) -> f64 {
        self.written.cpu.over(&self.floor.cpu).median()
    }

    /// Milliseconds of a pass with nothing to do, by the clock on the wall.
    pub(crate) fn at_rest(&self) -> f64 {
        self.quiet.wall.median()
    }

    pub(crate) fn label(&self) -> String {
        format!("{}, {}", self.way, self.stack.label())
    }
}

pub(crate) fn table(all: &[Direct]) -> Table {
    let mut table = Table::new(
        "Straight to the node, in milliseconds",
        "All peers on one network. `rows`: what weft writes; with direct routing that is the encapsulated way too, which \
         flannel does not keep. Floor: the same messages, encoded beforehand, in the biggest useful batches. Flannel's way: \
         one route for each peer, one request at a time; at least, as with host-gw flanneld reads the routes as well, before \
         and after each. The ratio is of CPU times.",
        &["way", "peers", "families", "rows", "floor", "written", "written ÷ floor", "flannel's way", "nothing to do"],
    );
    for it in all {
        table.row(vec![
            it.way.into(),
            (it.size as usize).into(),
            it.stack.label().into(),
            it.rows.into(),
            (&it.floor.wall).into(),
            (&it.written.wall).into(),
            it.written.cpu.over(&it.floor.cpu).into(),
            (&it.flannel.wall).into(),
            (&it.quiet.wall).into(),
        ]);
    }
    table
}
