//! One machine, in a network namespace of its own: its kernel, and passes over it with a watch in hand.

use std::time::Duration;

use weft::kernel::netlink::Netlink;
use weft::kernel::{Kernel, ObserveError};
use weft::model::addr::Family;
use weft::model::host::{Host, Scope};
use weft::model::node::Snapshot;
use weft::model::op::{Ack, Dev, LinkOp, Op};
use weft::model::table::{Entry, Tables};
use weft::plan::bridge::Leases;
use weft::reconcile::{Input, Memory, Report, Verdict, pass};

use crate::cluster::{Cluster, UNDERLAY};
use crate::raw::{Batches, Raw, messages};
use crate::samples::{Took, Watch};
use crate::sandbox;

/// The kernel goes on for a moment after a device has come or gone.
const SETTLE: Duration = Duration::from_millis(20);

/// The kernel under the code that is measured, with the time spent in it.
pub(crate) struct Watched {
    /// Opened when it is used.
    inner: Option<Netlink>,
    watch: Watch,
    observing: Took,
    applying: Took,
    written: Took,
}

impl Kernel for Watched {
    fn observe(&mut self, scope: &Scope) -> Result<Host, ObserveError> {
        let watch = Watch::start();
        let host = self.netlink().observe(scope);
        self.observing += watch.took();
        host
    }

    fn apply(&mut self, ops: &[Op]) -> Vec<Ack> {
        let watch = Watch::start();
        let acks = self.netlink().apply(ops);
        self.applying += watch.took();
        self.written = self.watch.took();
        acks
    }
}

impl Watched {
    pub(crate) fn netlink(&mut self) -> &mut Netlink {
        self.inner.get_or_insert_with(|| Netlink::open().expect("netlink sockets"))
    }

    /// Nobody of ours hears what the kernel announces until the next look: what others do, or a floor, does not
    /// pay for our ears.
    pub(crate) fn close(&mut self) {
        self.inner = None;
    }
}

/// How long a pass took, and where.
pub(crate) struct Passed {
    /// All of it: until a look at the kernel found nothing left to do.
    pub(crate) total: Took,
    /// Until the last change was acknowledged.
    pub(crate) written: Took,
    pub(crate) observing: Took,
    pub(crate) applying: Took,
    pub(crate) report: Report,
}

impl Passed {
    /// What was spent neither in looking nor in changing.
    pub(crate) fn deciding(&self) -> Duration {
        self.total.wall.saturating_sub(self.observing.wall + self.applying.wall)
    }
}

/// The machine. Lives on the thread whose namespace it is in.
pub(crate) struct Machine<'a> {
    pub(crate) kernel: Watched,
    pub(crate) cluster: &'a Cluster,
}

impl<'a> Machine<'a> {
    /// An underlay, and nothing of ours.
    pub(crate) fn new(cluster: &'a Cluster) -> Self {
        sandbox::underlay("eth0", &UNDERLAY);
        let (watch, none) = (Watch::start(), Took::default());
        let kernel = Watched { inner: None, watch, observing: none, applying: none, written: none };
        Self { kernel, cluster }
    }

    /// One pass, which has to end with everything in place.
    pub(crate) fn pass(&mut self, snapshot: &Snapshot, memory: &mut Memory) -> Passed {
        let none = Took::default();
        (self.kernel.observing, self.kernel.applying, self.kernel.written) = (none, none, none);
        let input = Input { settings: &self.cluster.settings, snapshot, leases: &Leases::Unknown };
        self.kernel.watch = Watch::start();
        let report = pass(&mut self.kernel, &input, memory, Duration::from_secs(1));
        let total = self.kernel.watch.took();
        assert_eq!(report.verdict, Verdict::Converged, "{:?}", report.families);
        let refused = report.changes.iter().find(|change| change.ack != Ack::Done);
        assert!(refused.is_none(), "{refused:?}");
        Passed {
            total,
            written: self.kernel.written,
            observing: self.kernel.observing,
            applying: self.kernel.applying,
            report,
        }
    }

    /// The devices up and addressed, without any peer.
    pub(crate) fn with_devices(&mut self) {
        self.pass(&self.cluster.empty, &mut Memory::default());
        std::thread::sleep(SETTLE);
    }

    /// No device, and everything done that the kernel had to do for those of before: freeing thousands of rows
    /// goes on behind a device's end, at the cost of whoever runs then. The number of the last device.
    pub(crate) fn afresh(&mut self) -> u32 {
        self.with_devices();
        let last = self.devices().into_iter().map(|(_, dev)| dev.index.0).max().expect("a device");
        self.clear();
        last
    }

    /// Everything in place.
    pub(crate) fn with_peers(&mut self) -> Memory {
        let mut memory = Memory::default();
        self.pass(&self.cluster.full, &mut memory);
        memory
    }

    /// Takes the devices away, and lets the kernel tidy up behind them.
    pub(crate) fn clear(&mut self) {
        for (_, dev) in self.devices() {
            assert_eq!(self.kernel.apply(&[Op::Link(LinkOp::Delete(dev))]), [Ack::Done]);
        }
        std::thread::sleep(SETTLE);
    }

    pub(crate) fn observe(&mut self) -> Host {
        self.kernel.observe(&self.cluster.settings.scope()).expect("a look")
    }

    /// The devices that are there.
    pub(crate) fn devices(&mut self) -> Vec<(Family, Dev)> {
        let host = self.observe();
        let overlay = &self.cluster.settings.overlay;
        let device = |family| {
            let link = host.link(&overlay.device(family))?;
            Some((family, Dev { index: link.index, name: link.name.clone() }))
        };
        overlay.families().filter_map(device).collect()
    }

    /// Changes that put rows on the device of their family. Routes are to replace what has their key only
    /// if `replace` says so.
    pub(crate) fn sets(&mut self, entries: impl IntoIterator<Item = Entry>, replace: bool) -> Vec<Op> {
        let devices = self.devices();
        let family = |entry: &Entry| match entry {
            Entry::Route(key, _) => key.dst.family(),
            Entry::Neighbour(ip, _) => Family::of(*ip),
            Entry::Fdb(_, fdb) => Family::of(fdb.dst),
        };
        let set = |entry| {
            let (_, dev) = devices.iter().find(|(of, _)| *of == family(&entry)).expect("its device");
            Op::Set { dev: dev.clone(), entry, replace }
        };
        entries.into_iter().map(set).collect()
    }

    /// What the tables hold.
    pub(crate) fn tables(&mut self) -> Vec<(Family, Tables)> {
        let host = self.observe();
        Family::BOTH.into_iter().filter_map(|family| Some((family, host.tables.get(family).clone()?))).collect()
    }

    /// The rows among the changes of an earlier pass, on the devices that are there now.
    pub(crate) fn rows_again(&mut self, recorded: &[Op]) -> Vec<Op> {
        let devices = self.devices();
        let now = |dev: &Dev| devices.iter().find(|(_, now)| now.name == dev.name).map_or(dev, |(_, now)| now).clone();
        let row = |op: &Op| match op {
            Op::Set { dev, .. } | Op::Del { dev, .. } => Some(on(op, &now(dev))),
            Op::Link(_) | Op::Filter(_) => None,
        };
        recorded.iter().filter_map(row).collect()
    }

    /// The same changes in the best batches, encoded beforehand; what the kernel takes for them.
    pub(crate) fn floor(&mut self, ops: &[Op]) -> Took {
        let batches = Batches::new(&messages(ops));
        let mut raw = Raw::open();
        self.kernel.close();
        let watch = Watch::start();
        raw.send_batches(&batches);
        let took = watch.took();
        // The same end state: a pass over it has nothing to do.
        let after = self.pass(&self.cluster.full, &mut Memory::default());
        assert_eq!(after.report.changes.len(), 0, "{:?}", after.report.changes.first());
        took
    }
}

/// The same change on the device as it is now.
pub(crate) fn on(op: &Op, dev: &Dev) -> Op {
    let dev = dev.clone();
    match op.clone() {
        Op::Set { entry, replace, .. } => Op::Set { dev, entry, replace },
        Op::Del { entry, .. } => Op::Del { dev, entry },
        filter @ Op::Filter(_) => filter,
        Op::Link(op) => Op::Link(match op {
            LinkOp::AddrGenNone(_) => LinkOp::AddrGenNone(dev),
            LinkOp::Up(_) => LinkOp::Up(dev),
            LinkOp::AddAddress(_, ip, len) => LinkOp::AddAddress(dev, ip, len),
            LinkOp::EnableIpv6(_) => LinkOp::EnableIpv6(dev),
            other => other,
        }),
    }
}
