//! When little or nothing is to be done: a pass over a kernel that is right, the first pass after a
//! restart, and the change of one peer among many.

use std::sync::Arc;

use weft::model::node::{Snapshot, Standing};
use weft::reconcile::Memory;

use crate::Run;
use crate::cluster::{self, Cluster, Stack};
use crate::machine::{Machine, Passed};
use crate::samples::Samples;
use crate::sandbox::{self, Listener};
use crate::table::Table;

/// What one kind of pass took and did.
#[derive(Default)]
pub(crate) struct Quiet {
    pub(crate) total: Samples,
    written: Samples,
    observing: Samples,
    applying: Samples,
    deciding: Samples,
    /// Messages that weft says it sent, and notifications that another socket heard, in each pass.
    sent: Vec<u64>,
    heard: Vec<u64>,
}

/// One size of cluster.
pub(crate) struct Still {
    pub(crate) stack: Stack,
    pub(crate) size: u32,
    pub(crate) kinds: Vec<(&'static str, Quiet)>,
}

/// The kinds of passes, in the order in which each round makes them.
const KINDS: [&str; 5] =
    ["nothing to do", "restart, nothing to do", "one peer's MAC changed", "one peer left", "one peer joined"];

/// Measures every size.
pub(crate) fn run(run: &Run) -> Vec<Still> {
    let mut all = Vec::new();
    for stack in [Stack::V4, Stack::Dual] {
        for size in &run.sizes {
            run.progress(&format!("quiet passes over {size} peers, {}", stack.label()));
            let cluster = Cluster::new(*size, stack);
            all.push(sandbox::isolated(|| still(&cluster, run.runs)).expect("a benchmark that ends well"));
        }
    }
    all
}

fn still(cluster: &Cluster, runs: usize) -> Still {
    let mut machine = Machine::new(cluster);
    let mut memory = machine.with_peers();
    let listener = Listener::start();
    let mut kinds: Vec<(&'static str, Quiet)> = KINDS.into_iter().map(|kind| (kind, Quiet::default())).collect();
    let changed = other_mac(cluster);
    for _ in 0..runs {
        let unchanged = Snapshot { generation: 5, ..cluster.full.clone() };
        let without = cluster.with(4, |nodes| drop(nodes.pop_first()));
        let mut measure = |at: usize, snapshot: &Snapshot, memory: &mut Memory| {
            let before = machine.kernel.netlink().counters().messages;
            let passed = machine.pass(snapshot, memory);
            let sent = machine.kernel.netlink().counters().messages - before;
            kinds[at].1.take(&passed, sent, listener.heard().len() as u64);
        };
        measure(0, &cluster.full, &mut memory);
        measure(1, &cluster.full, &mut Memory::default());
        measure(2, &changed, &mut memory);
        measure(3, &without, &mut memory);
        measure(4, &unchanged, &mut memory);
        // Back to the generation that the first of these passes is to find unchanged.
        machine.pass(&cluster.full, &mut memory);
    }
    Still { stack: cluster.stack, size: cluster.size, kinds }
}

/// The cluster after the first node's VTEP got another MAC in every family.
fn other_mac(cluster: &Cluster) -> Snapshot {
    cluster.with(3, |nodes| {
        let mut node = cluster::node(1, cluster.stack);
        for (number, standing) in [(1 << 30, &mut node.standing.v4), (1 << 31, &mut node.standing.v6)] {
            if let Standing::Usable(peer) = standing {
                peer.mac = Some(cluster::mac(number));
            }
        }
        nodes.insert(node.name.clone(), Arc::new(node));
    })
}

impl Quiet {
    fn take(&mut self, passed: &Passed, sent: u64, heard: u64) {
        self.total.add(passed.total.wall);
        self.observing.add(passed.observing.wall);
        self.applying.add(passed.applying.wall);
        self.deciding.add(passed.deciding());
        if sent > 0 {
            self.written.add(passed.written.wall);
        }
        self.sent.push(sent);
        self.heard.push(heard);
    }
}

pub(crate) fn table(all: &[Still]) -> Table {
    let mut table = Table::new(
        "When little or nothing is to be done, in milliseconds",
        "`sent`: messages that change something, as weft counts them. `heard`: notifications of changes that an \
         independent socket received (the kernel may announce one change more than once). A pass that writes ends \
         with a second look.",
        &[
            "peers",
            "families",
            "pass",
            "all",
            "until the last write",
            "looking",
            "changing",
            "deciding",
            "sent",
            "heard",
        ],
    );
    for still in all {
        for (kind, quiet) in &still.kinds {
            table.row(vec![
                (still.size as usize).into(),
                still.stack.label().into(),
                (*kind).into(),
                (&quiet.total).into(),
                (&quiet.written).into(),
                (&quiet.observing).into(),
                (&quiet.applying).into(),
                (&quiet.deciding).into(),
                same(&quiet.sent).into(),
                same(&quiet.heard).into(),
            ]);
        }
    }
    table
}

/// `3`, or `3–4` if the runs differ.
fn same(counts: &[u64]) -> String {
    match (counts.iter().min(), counts.iter().max()) {
        (Some(least), Some(most)) if least == most => least.to_string(),
        (Some(least), Some(most)) => format!("{least}–{most}"),
        _ => "–".to_owned(),
    }
}
