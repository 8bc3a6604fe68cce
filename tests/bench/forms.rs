//! Three ways to write a peer's IPv4 route, from the making to the leaving: decision 1.
//!
//! Flannel's form (metric 0, a gateway), the same with the metric spread over 4,096 values, and one
//! nexthop object for each peer with a route that names it.

use std::time::{Duration, Instant};

use weft::model::addr::{Family, IfIndex};
use weft::model::node::Peer;
use weft::model::op::{Ack, Op};
use weft::model::table::{Entry, Route, RouteKey, peer_metric};
use weft::reconcile::{Leave, Memory, leave};

use crate::Run;
use crate::cluster::{self, Cluster, Stack, peer_v4};
use crate::machine::Machine;
use crate::nexthop;
use crate::raw::{Batches, Each, Raw, messages};
use crate::samples::Samples;
use crate::sandbox;
use crate::table::Table;
use crate::witness::Witness;

/// How a peer's route is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Flannel,
    Spread,
    Objects,
}

impl Form {
    pub(crate) const ALL: [Self; 3] = [Self::Flannel, Self::Spread, Self::Objects];

    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Flannel => "flannel's, metric 0",
            Self::Spread => "metric spread over 4,096",
            Self::Objects => "nexthop objects",
        }
    }
}

/// One form at one size.
pub(crate) struct Formed {
    pub(crate) form: Form,
    pub(crate) size: u32,
    pub(crate) insert: Samples,
    pub(crate) dump: Samples,
    pub(crate) down: Samples,
    pub(crate) delete: Samples,
    /// From flannel's form to this one, nothing ever without a route.
    pub(crate) adopt: Samples,
    /// flanneld starts on this form: its requests, one at a time; then what is left of ours is removed.
    pub(crate) rollback: Samples,
    pub(crate) sweep: Samples,
    /// This form is given flannel's before flanneld starts.
    pub(crate) hand_over: Samples,
}

/// Measures every form at every size.
pub(crate) fn run(run: &Run) -> Vec<Formed> {
    let mut all = Vec::new();
    for size in &run.form_sizes {
        // Flannel's form takes ten seconds for each load of 20,000.
        let runs = if *size > 10_000 { run.runs.min(3) } else { run.runs };
        run.progress(&format!("forms of {size} routes"));
        let cluster = Cluster::new(*size, Stack::V4);
        all.extend(sandbox::isolated(|| formed(&cluster, runs)).expect("a benchmark that ends well"));
    }
    all
}

fn formed(cluster: &Cluster, runs: usize) -> Vec<Formed> {
    let mut bench = Bench { machine: Machine::new(cluster), peers: (1..=cluster.size).map(peer_v4).collect() };
    bench.check();
    let mut all = Form::ALL.map(|form| Formed::nothing(form, cluster.size));
    for round in 0..runs {
        for at in 0..all.len() {
            let of = &mut all[(at + round) % Form::ALL.len()];
            bench.life(of);
            bench.adoption(of);
            bench.leaving(of);
        }
    }
    all.into_iter().collect()
}

struct Bench<'a> {
    machine: Machine<'a>,
    peers: Vec<Peer>,
}

impl Bench<'_> {
    /// Made, read, down; made again, deleted.
    fn life(&mut self, of: &mut Formed) {
        let device = self.without_routes();
        let routes = self.routes(of.form, device);
        of.insert.add(self.send(&routes));
        of.dump.add(self.dump(of.form, device));
        of.down.add(self.send(&[nexthop::set_up(device, false)]));
        self.send(&[nexthop::set_up(device, true)]);
        let rest = self.neighbours_and_fdb();
        self.send(&rest);
        self.send(&routes);
        for (_, dev) in self.machine.devices() {
            let delete = messages(&[Op::Link(weft::model::op::LinkOp::Delete(dev))]);
            let began = Instant::now();
            Raw::open().send_batches(&Batches::new(&delete));
            of.delete.add(began.elapsed());
        }
        self.machine.clear();
    }

    /// What flannel had made becomes this form.
    fn adoption(&mut self, of: &mut Formed) {
        let device = self.without_routes();
        let flannels = self.routes(Form::Flannel, device);
        self.send(&flannels);
        match of.form {
            Form::Flannel => {}
            Form::Spread => {
                let passed = self.machine.pass(&self.machine.cluster.full, &mut Memory::default());
                assert_eq!(passed.report.changes.len(), 2 * self.peers.len(), "routes in, routes out, nothing else");
                of.adopt.add(passed.written.wall);
            }
            Form::Objects => {
                let routes = self.routes(Form::Objects, device);
                of.adopt.add(self.send(&routes));
            }
        }
        self.machine.clear();
    }

    /// flanneld comes back.
    fn leaving(&mut self, of: &mut Formed) {
        let device = self.without_routes();
        let routes = self.routes(of.form, device);
        self.send(&routes);
        let flannels = Each::new(messages(&self.machine.sets(self.machine.cluster.flannels(), true)));
        let mut raw = Raw::open();
        let began = Instant::now();
        raw.send_each(&flannels);
        of.rollback.add(began.elapsed());
        match of.form {
            Form::Flannel => {}
            Form::Spread => of.sweep.add(self.leave()),
            Form::Objects => of.sweep.add(self.send(&nexthop::removals(self.peers.len()))),
        }
        assert_eq!(raw.dump(&nexthop::dump_routes(device)), self.peers.len(), "one route a peer, flannel's");
        self.machine.clear();
        if of.form == Form::Spread {
            let device = self.without_routes();
            let routes = self.routes(of.form, device);
            self.send(&routes);
            of.hand_over.add(self.leave());
            self.machine.clear();
        }
    }

    /// `weft cleanup --hand-over`.
    fn leave(&mut self) -> Duration {
        let scope = self.machine.cluster.settings.scope();
        let began = Instant::now();
        let tried = leave(&mut self.machine.kernel, &scope, Leave::HandOver).expect("a look");
        let took = began.elapsed();
        assert!(tried.iter().all(|(_, ack)| *ack == Ack::Done), "{:?}", tried.first());
        took
    }

    /// Adoption and hand-over, heard by a witness: no pod CIDR is ever without a route.
    fn check(&mut self) {
        let device = self.without_routes();
        let flannels = self.routes(Form::Flannel, device);
        let mut witness = Witness::start();
        self.send(&flannels);
        self.machine.pass(&self.machine.cluster.full, &mut Memory::default());
        self.leave();
        if witness.listen() {
            assert_eq!(witness.most_routes(), 2 * self.peers.len(), "make before break");
            assert_eq!(witness.ever_without(), 0, "pod CIDRs that were without a route");
        } else {
            eprintln!("the witness missed something: whether a route was ever missing was not checked (run as root)");
        }
        self.machine.clear();
    }

    /// A device with every neighbour and FDB entry.
    fn without_routes(&mut self) -> IfIndex {
        self.machine.with_devices();
        let rest = self.neighbours_and_fdb();
        self.send(&rest);
        self.device()
    }

    fn neighbours_and_fdb(&mut self) -> Vec<Vec<u8>> {
        let rows = self.peers.iter().flat_map(|peer| [cluster::fdb(peer), cluster::neighbour(peer)]);
        messages(&self.machine.sets(rows.collect::<Vec<_>>(), true))
    }

    fn device(&mut self) -> IfIndex {
        let devices = self.machine.devices();
        devices.iter().find(|(family, _)| *family == Family::V4).map(|(_, dev)| dev.index).expect("the device")
    }

    fn routes(&mut self, form: Form, device: IfIndex) -> Vec<Vec<u8>> {
        match form {
            Form::Flannel => {
                let rows: Vec<Entry> = self.peers.iter().map(cluster::flannel_route).collect();
                messages(&self.machine.sets(rows, true))
            }
            Form::Spread => {
                let key = |peer: &Peer| RouteKey { dst: peer.subnet, metric: peer_metric(peer.subnet) };
                let row = |peer: &Peer| Entry::Route(key(peer), Route::through(peer.subnet.base()));
                let rows: Vec<Entry> = self.peers.iter().map(row).collect();
                messages(&self.machine.sets(rows, true))
            }
            Form::Objects => [nexthop::objects(device, &self.peers), nexthop::routes(&self.peers)].concat(),
        }
    }

    #[expect(clippy::unused_self, reason = "the socket is of the namespace that it stands for")]
    fn send(&mut self, messages: &[Vec<u8>]) -> Duration {
        let batches = Batches::new(messages);
        let mut raw = Raw::open();
        let began = Instant::now();
        raw.send_batches(&batches);
        began.elapsed()
    }

    /// What a look at the routes has to read.
    fn dump(&mut self, form: Form, device: IfIndex) -> Duration {
        let mut raw = Raw::open();
        let (routes, objects) = (nexthop::dump_routes(device), nexthop::dump_objects());
        let began = Instant::now();
        assert_eq!(raw.dump(&routes), self.peers.len());
        if form == Form::Objects {
            assert_eq!(raw.dump(&objects), self.peers.len());
        }
        began.elapsed()
    }
}

impl Formed {
    fn nothing(form: Form, size: u32) -> Self {
        let none = Samples::default;
        Self {
            form,
            size,
            insert: none(),
            dump: none(),
            down: none(),
            delete: none(),
            adopt: none(),
            rollback: none(),
            sweep: none(),
            hand_over: none(),
        }
    }
}

pub(crate) fn table(all: &[Formed]) -> Table {
    let mut table = Table::new(
        "Three forms of a peer's route, in milliseconds",
        "IPv4, neighbours and FDB entries in place. `insert`, `read`, `down` and `delete` are raw requests in the \
         best batches. `adopt`: what flannel had made becomes this form (a whole pass for the spread metric, the bare \
         messages for nexthop objects). `flanneld comes back`: its requests, one at a time, on top of this form; \
         `then swept`: what is left of this form is removed. `hand over`: this form is given flannel's before flanneld \
         starts. No pod CIDR is ever without a route; an independent listener checks that.",
        &[
            "peers",
            "form",
            "insert",
            "read",
            "link down",
            "device delete",
            "adopt",
            "flanneld comes back",
            "then swept",
            "hand over",
        ],
    );
    for it in all {
        table.row(vec![
            (it.size as usize).into(),
            it.form.label().into(),
            (&it.insert).into(),
            (&it.dump).into(),
            (&it.down).into(),
            (&it.delete).into(),
            (&it.adopt).into(),
            (&it.rollback).into(),
            (&it.sweep).into(),
            (&it.hand_over).into(),
        ]);
    }
    table
}
