//! From empty to done, beside the least that the kernel can be asked for the same, and beside flannel's
//! way.

use weft::model::op::{Dev, LinkOp, Op};
use weft::reconcile::Memory;

use crate::Run;
use crate::cluster::{Cluster, Stack};
use crate::machine::{Machine, on};
use crate::raw::{Each, Raw, messages};
use crate::samples::{Samples, Timed, Watch};
use crate::sandbox;
use crate::table::Table;

/// One size of cluster.
pub(crate) struct Programmed {
    pub(crate) stack: Stack,
    pub(crate) size: u32,
    /// A pass over devices that are up and empty: until the last write, and until it was proved.
    pub(crate) written: Timed,
    pub(crate) proved: Timed,
    /// Of `proved`: looking, changing, deciding.
    pub(crate) observing: Samples,
    pub(crate) applying: Samples,
    pub(crate) deciding: Samples,
    /// The same rows, encoded beforehand, in big batches.
    pub(crate) floor: Timed,
    /// A pass from no device at all, and its floor.
    pub(crate) whole: Timed,
    pub(crate) whole_written: Timed,
    pub(crate) whole_floor: Timed,
    /// Flannel's rows, one request at a time: over one socket, and over one socket each.
    pub(crate) flannel: Timed,
    pub(crate) flannel_sockets: Timed,
}

/// Measures every size.
pub(crate) fn run(run: &Run) -> Vec<Programmed> {
    let mut all = Vec::new();
    for stack in [Stack::V4, Stack::Dual] {
        for size in &run.sizes {
            run.progress(&format!("programming {size} peers, {}", stack.label()));
            let cluster = Cluster::new(*size, stack);
            all.push(sandbox::isolated(|| programmed(&cluster, run.runs)).expect("a benchmark that ends well"));
        }
    }
    all
}

fn programmed(cluster: &Cluster, runs: usize) -> Programmed {
    let mut bench = Bench::new(cluster);
    // The first round warms up what can be warmed up, and is forgotten.
    for round in 0..=runs {
        if round == 1 {
            bench.forget();
        }
        for at in 0..6 {
            match (at + round) % 6 {
                0 => bench.ours(),
                1 => bench.floor(),
                2 => bench.whole(),
                3 => bench.whole_floor(),
                4 => bench.flannel(),
                _ => bench.flannel_sockets(),
            }
            bench.machine.clear();
        }
    }
    bench.seen
}

struct Bench<'a> {
    machine: Machine<'a>,
    seen: Programmed,
    recorded: Vec<Op>,
}

impl<'a> Bench<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        let mut machine = Machine::new(cluster);
        let recorded = machine.pass(&cluster.full, &mut Memory::default()).report;
        machine.clear();
        Self {
            machine,
            seen: Programmed::nothing(cluster),
            recorded: recorded.changes.into_iter().map(|change| change.op).collect(),
        }
    }

    fn forget(&mut self) {
        self.seen = Programmed::nothing(self.machine.cluster);
    }

    fn ours(&mut self) {
        self.machine.with_devices();
        let passed = self.machine.pass(&self.machine.cluster.full, &mut Memory::default());
        self.seen.written.add(passed.written);
        self.seen.proved.add(passed.total);
        self.seen.observing.add(passed.observing.wall);
        self.seen.applying.add(passed.applying.wall);
        self.seen.deciding.add(passed.deciding());
    }

    fn whole(&mut self) {
        self.machine.afresh();
        let passed = self.machine.pass(&self.machine.cluster.full, &mut Memory::default());
        self.seen.whole.add(passed.total);
        self.seen.whole_written.add(passed.written);
    }

    /// The changes of a real pass, for the devices that are there now.
    fn floor(&mut self) {
        self.machine.with_devices();
        let ops = self.machine.rows_again(&self.recorded);
        let took = self.machine.floor(&ops);
        self.seen.floor.add(took);
    }

    /// The same with the making of the devices. They get the next numbers, one after the other.
    fn whole_floor(&mut self) {
        let last = self.machine.afresh();
        let made = self.recorded.iter().filter_map(|op| match op {
            Op::Link(LinkOp::Create(spec)) => Some(spec.name.clone()),
            _ => None,
        });
        let made = (last + 1..).zip(made).map(|(index, name)| Dev { index: weft::model::addr::IfIndex(index), name });
        let devices: Vec<Dev> = made.collect();
        let dev_of = |name: &_| devices.iter().find(|dev| dev.name == *name).expect("its device");
        let ops: Vec<Op> =
            self.recorded.iter().map(|op| on(op, dev_of(op.device().expect("no packet rules")))).collect();
        let took = self.machine.floor(&ops);
        self.seen.whole_floor.add(took);
    }

    fn flannel(&mut self) {
        let messages = self.flannels();
        let mut raw = Raw::open();
        let watch = Watch::start();
        raw.send_each(&messages);
        self.seen.flannel.add(watch.took());
    }

    fn flannel_sockets(&mut self) {
        let messages = self.flannels();
        let watch = Watch::start();
        Raw::send_each_anew(&messages);
        self.seen.flannel_sockets.add(watch.took());
    }

    fn flannels(&mut self) -> Each {
        self.machine.with_devices();
        let rows = self.machine.cluster.flannels();
        let messages = Each::new(messages(&self.machine.sets(rows, true)));
        self.machine.kernel.close();
        messages
    }
}

impl Programmed {
    fn nothing(cluster: &Cluster) -> Self {
        let (none, untimed) = (Timed::default, Samples::default);
        Self {
            stack: cluster.stack,
            size: cluster.size,
            written: none(),
            proved: none(),
            observing: untimed(),
            applying: untimed(),
            deciding: untimed(),
            floor: none(),
            whole: none(),
            whole_written: none(),
            whole_floor: none(),
            flannel: none(),
            flannel_sockets: none(),
        }
    }
}

pub(crate) fn tables(all: &[Programmed]) -> Vec<Table> {
    vec![
        ratios(
            all,
            "From empty to done, as ratios of time",
            "Each ratio is between two measurements of the same run: median (least–greatest). The floor is the same \
             messages encoded beforehand, in the biggest useful batches, on a plain socket. `written`: until the last \
             change is acknowledged. `proved`: until another look at the kernel has found everything in place. Devices \
             up and empty, but for `from no device`.",
            |timed| &timed.wall,
        ),
        ratios(
            all,
            "From empty to done, as ratios of CPU time",
            "The same runs, by the clock of the thread that does it all: what the first table would say on a machine \
             that does nothing else. Waiting for the CPU, and for a lock that somebody else holds, is left out.",
            |timed| &timed.cpu,
        ),
        milliseconds(all, "From empty to done, in milliseconds", "Of the same runs.", |timed| &timed.wall),
        milliseconds(
            all,
            "From empty to done, in milliseconds of CPU time",
            "Of the same runs, by the clock of the thread that does it all.",
            |timed| &timed.cpu,
        ),
        breakdown(all),
    ]
}

fn ratios(all: &[Programmed], title: &'static str, about: &'static str, by: fn(&Timed) -> &Samples) -> Table {
    let columns = [
        "peers",
        "families",
        "written ÷ floor",
        "proved ÷ floor",
        "from no device: written ÷ floor",
        "proved ÷ floor ",
        "flannel's requests, one socket ÷ written",
        "… a socket each ÷ written",
    ];
    let mut table = Table::new(title, about, &columns);
    for it in all {
        let over = |ours: &Timed, theirs: &Timed| by(ours).over(by(theirs)).into();
        table.row(vec![
            (it.size as usize).into(),
            it.stack.label().into(),
            over(&it.written, &it.floor),
            over(&it.proved, &it.floor),
            over(&it.whole_written, &it.whole_floor),
            over(&it.whole, &it.whole_floor),
            over(&it.flannel, &it.written),
            over(&it.flannel_sockets, &it.written),
        ]);
    }
    table
}

fn milliseconds(all: &[Programmed], title: &'static str, about: &'static str, by: fn(&Timed) -> &Samples) -> Table {
    let columns = [
        "peers",
        "families",
        "floor",
        "written",
        "proved",
        "from no device: floor",
        "written ",
        "proved ",
        "flannel's requests, one socket",
        "… a socket each",
    ];
    let mut table = Table::new(title, about, &columns);
    for it in all {
        table.row(vec![
            (it.size as usize).into(),
            it.stack.label().into(),
            by(&it.floor).into(),
            by(&it.written).into(),
            by(&it.proved).into(),
            by(&it.whole_floor).into(),
            by(&it.whole_written).into(),
            by(&it.whole).into(),
            by(&it.flannel).into(),
            by(&it.flannel_sockets).into(),
        ]);
    }
    table
}

fn breakdown(all: &[Programmed]) -> Table {
    let mut table = Table::new(
        "Where a pass that fills the tables spends its time, in milliseconds",
        "Devices up and empty. Looking: two looks, one at empty tables and one at full ones. Changing: encoding, \
         sending and reading the answers. Deciding: everything else.",
        &["peers", "families", "proved", "looking", "changing", "deciding", "changing ÷ floor"],
    );
    for it in all {
        table.row(vec![
            (it.size as usize).into(),
            it.stack.label().into(),
            (&it.proved.wall).into(),
            (&it.observing).into(),
            (&it.applying).into(),
            (&it.deciding).into(),
            it.applying.over(&it.floor.wall).into(),
        ]);
    }
    table
}
