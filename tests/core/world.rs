//! A host, a cluster and weft's memory, and what must be true between any two operations.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use weft::kernel::fake::{FakeKernel, Net, Tried};
use weft::model::addr::{ByFamily, Family, IfIndex, IfName, Mac, Subnet, Vni};
use weft::model::device::DeviceSpec;
use weft::model::host::{LinkKind, Scope, VxlanAttributes};
use weft::model::node::{NodeRecord, OwnNode, Peer, Snapshot};
use weft::model::op::{Ack, Op};
use weft::model::settings::{Backend, DEFAULT_PORT, Overlay, Settings, UnderlayRules};
use weft::model::table::{
    Entry, Fdb, FdbKey, Neighbour, PROTOCOL_BOOT, PROTOCOL_WEFT, Route, RouteKey, Tables, flannel_metric, peer_metric,
};
use weft::plan::bridge::Leases;
use weft::reconcile::{Input, Memory, Report, Verdict, pass};

use crate::reference;

pub(crate) const MINUTE: Duration = Duration::from_secs(60);

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn cidr(text: &str) -> Subnet {
    text.parse().unwrap()
}

pub(crate) fn device(family: Family) -> IfName {
    IfName::new(match family {
        Family::V4 => "flannel.1",
        Family::V6 => "flannel-v6.1",
    })
}

pub(crate) fn network(family: Family) -> Subnet {
    cidr(match family {
        Family::V4 => "10.244.0.0/16",
        Family::V6 => "fd00:244::/48",
    })
}

/// The `n`th pod CIDR; ours is the 0th.
pub(crate) fn pod_cidr(family: Family, n: u8) -> Subnet {
    cidr(&match family {
        Family::V4 => format!("10.244.{n}.0/24"),
        Family::V6 => format!("fd00:244:0:{n:x}::/64"),
    })
}

pub(crate) fn public_ip(family: Family, n: u8) -> IpAddr {
    match family {
        Family::V4 => ip(&format!("192.168.174.{n}")),
        Family::V6 => ip(&format!("fd01::{n:x}")),
    }
}

pub(crate) fn vtep_mac(family: Family, n: u8) -> Mac {
    Mac([0x0e, 0, 0, 0, u8::from(family == Family::V6), n])
}

/// Ours is the 1st address, so peers begin at 2.
pub(crate) fn peer(family: Family, n: u8) -> Peer {
    Peer { subnet: pod_cidr(family, n), mac: Some(vtep_mac(family, n)), public_ip: public_ip(family, n + 1) }
}

pub(crate) fn rows(peer: &Peer) -> [Entry; 3] {
    let (dst, mac) = (peer.subnet, peer.mac.unwrap());
    [
        Entry::Fdb(FdbKey::new(mac, peer.public_ip), Fdb::to(peer.public_ip)),
        Entry::Neighbour(dst.base(), Neighbour { mac }),
        Entry::Route(RouteKey { dst, metric: peer_metric(dst) }, Route::through(dst.base())),
    ]
}

pub(crate) fn flannel_route(dst: Subnet) -> (RouteKey, Route) {
    let key = RouteKey { dst, metric: flannel_metric(dst.family()) };
    (key, Route { protocol: PROTOCOL_BOOT, ..Route::through(dst.base()) })
}

/// Makes the underlay, with what a node usually has.
pub(crate) fn add_underlay(net: &mut Net) -> IfIndex {
    let eth0 = net.add_link("eth0", "", Mac([2, 0, 0, 0, 0, 1]), 1500);
    net.set_up(eth0);
    for family in Family::BOTH {
        let len = if family == Family::V4 { 24 } else { 64 };
        net.add_address(eth0, public_ip(family, 1), len);
        let (any, via) = match family {
            Family::V4 => (cidr("0.0.0.0/0"), ip("192.168.174.254")),
            Family::V6 => (cidr("::/0"), ip("fd01::fe")),
        };
        let route = Route { via: Some(via), onlink: false, protocol: 4, plain: true, dev: None };
        net.put_route(RouteKey { dst: any, metric: 100 }, Some(eth0), route);
    }
    // A second network on the underlay that pod CIDRs must not overlap.
    net.add_address(eth0, ip("10.244.200.1"), 24);
    net.add_address(eth0, ip("fd00:244:0:c8::1"), 64);
    eth0
}

fn host() -> Net {
    let mut net = Net::new();
    net.set_up(IfIndex(1));
    add_underlay(&mut net);
    let docker = net.add_link("docker0", "bridge", Mac([2, 0, 0, 0, 0, 2]), 1500);
    net.set_up(docker);
    net.add_address(docker, ip("172.17.0.1"), 16);
    net.add_address(docker, ip("fd17::1"), 64);
    net.put_neighbour(docker, ip("172.17.0.9"), Mac([2, 0, 0, 0, 0, 3]));
    for (dst, via) in [("172.20.0.0/16", "172.17.0.9"), ("10.250.0.0/16", "172.17.0.9"), ("fd20::/16", "fd17::9")] {
        let route = Route { via: Some(ip(via)), onlink: false, protocol: 4, plain: true, dev: None };
        net.put_route(RouteKey { dst: cidr(dst), metric: 50 }, Some(docker), route);
    }
    net
}

pub(crate) fn own() -> OwnNode {
    OwnNode {
        name: "own".into(),
        uid: "u-own".into(),
        subnet: ByFamily::from_fn(|family| Ok(pod_cidr(family, 0))),
        annotated_mac: ByFamily::from_fn(|family| Some(vtep_mac(family, 0))),
        overwrite: ByFamily::default(),
        node_public_ip: ByFamily::default(),
        annotations: std::collections::BTreeMap::new(),
        network_unavailable: None,
    }
}

pub(crate) struct World {
    pub(crate) kernel: FakeKernel,
    pub(crate) settings: Settings,
    pub(crate) snapshot: Snapshot,
    pub(crate) memory: Memory,
    pub(crate) now: Duration,
    pub(crate) watch: Arc<Mutex<Watch>>,
}

impl World {
    /// A dual-stack host without peers.
    pub(crate) fn new() -> Self {
        let overlay = Overlay {
            networks: ByFamily::from_fn(|family| Some(network(family))),
            backend: Backend::Vxlan,
            vni: Vni::new(1).unwrap(),
            port: DEFAULT_PORT,
            mtu: None,
            gbp: false,
            learning: false,
            direct_routing: false,
        };
        let snapshot = Snapshot { own: Some(Arc::new(own())), complete: true, lists: 1, ..Snapshot::default() };
        let mut world = Self {
            kernel: FakeKernel::new(host()),
            settings: Settings {
                overlay,
                underlay: UnderlayRules::default(),
                filter: weft::model::filter::FilterRules::default(),
            },
            snapshot,
            memory: Memory::default(),
            now: Duration::ZERO,
            watch: Arc::default(),
        };
        let watch = Arc::clone(&world.watch);
        world.kernel.check(move |net, tried| lock(&watch).after(net, tried));
        world
    }

    /// The same with peers 1 to `count`.
    pub(crate) fn with_peers(count: u8) -> Self {
        let mut world = Self::new();
        world.put_all((1..=count).map(crate::cluster::plain));
        world
    }

    /// The same, and nobody looks between two operations but the test itself.
    pub(crate) fn unwatched(self) -> Self {
        lock(&self.watch).off = true;
        self
    }

    pub(crate) fn put(&mut self, node: NodeRecord) {
        self.put_all([node]);
    }

    pub(crate) fn put_all(&mut self, nodes: impl IntoIterator<Item = NodeRecord>) {
        let map = Arc::make_mut(&mut self.snapshot.nodes);
        map.extend(nodes.into_iter().map(|node| (node.name.clone(), Arc::new(node))));
        self.snapshot.generation += 1;
    }

    pub(crate) fn remove(&mut self, name: &str) {
        Arc::make_mut(&mut self.snapshot.nodes).remove(name);
        self.snapshot.generation += 1;
    }

    /// The process is replaced by a new one.
    pub(crate) fn restart(&mut self) {
        self.memory = Memory::default();
    }

    pub(crate) fn scope(&self) -> Scope {
        self.settings.scope()
    }

    pub(crate) fn wanted(&self, family: Family) -> Vec<Peer> {
        reference::granted(&self.snapshot, family).into_iter().map(|(_, peer)| peer).collect()
    }

    /// One pass, 10 ms after the one before.
    pub(crate) fn pass(&mut self) -> Report {
        self.now += Duration::from_millis(10);
        lock(&self.watch).begin(&self.kernel.net, ByFamily::from_fn(|family| self.wanted(family)));
        let input = Input { settings: &self.settings, snapshot: &self.snapshot, leases: &Leases::Unknown };
        let report = pass(&mut self.kernel, &input, &mut self.memory, self.now);
        if !lock(&self.watch).off {
            self.assert_honest(&report);
        }
        if report.wants_list {
            self.snapshot.lists += 1;
        }
        if self.kernel.is_dead() {
            self.restart();
        }
        report
    }

    /// A report says what is.
    fn assert_honest(&self, report: &Report) {
        if report.verdict == Verdict::Converged {
            self.assert_right();
        }
        for (family, said) in report.families.iter() {
            let Some(said) = said.as_ref().filter(|said| said.ready && report.verdict == Verdict::Converged) else {
                continue;
            };
            let peers = self.wanted(family).len();
            let all = weft::reconcile::report::ByKind { fdb: peers, neighbour: peers, route: peers };
            assert_eq!((said.wanted, said.present), (all, all), "{family}");
            self.assert_device(said.device.as_ref().expect("it is ready"));
        }
    }

    /// The device is what the report says that it should be.
    fn assert_device(&self, spec: &DeviceSpec) {
        let link = self.kernel.net.link(&spec.name).expect("the device exists");
        let vxlan = VxlanAttributes {
            vni: spec.vni,
            port: spec.port,
            underlay: Some(spec.underlay),
            local: Some(spec.local),
            learning: spec.learning,
            gbp: spec.gbp,
            udp_checksum: spec.udp_checksum,
            ttl: 0,
            special: false,
            alien: false,
        };
        assert_eq!(link.kind, LinkKind::Vxlan(vxlan));
        assert_eq!((link.mac, link.mtu, link.up), (Some(spec.mac), spec.mtu, true));
        assert!(link.addrgen_none || link.ipv6_disabled.is_none());
        let address = |held: &&weft::model::Address| {
            held.ip == spec.address && held.len == spec.family.bits() && held.global && !held.deprecated
        };
        assert!(link.addresses.iter().any(|held| address(&held)), "{:?}", link.addresses);
        let strange = link.addresses.iter().find(|held| spec.network.contains(held.ip) && !address(held));
        assert_eq!(strange, None);
    }

    /// Faults stop; after a bounded number of passes there is nothing left to do. The last report.
    pub(crate) fn settle(&mut self) -> Report {
        self.kernel.calm();
        for _ in 0..5 {
            self.now += 3 * MINUTE;
            let report = self.pass();
            if report.changes.is_empty() && !report.wants_list {
                return report;
            }
        }
        let report = self.pass();
        let told: Vec<_> = report.changes.iter().map(|change| format!("{} {:?}", change.op, change.ack)).collect();
        panic!("not settled: {:?}\n{}", report.verdict, told.join("\n"));
    }

    /// Three passes, long enough apart that nothing is put off; the last report.
    pub(crate) fn settle_with_problems(&mut self) -> Report {
        for _ in 0..2 {
            self.now += 3 * MINUTE;
            self.pass();
        }
        self.now += 3 * MINUTE;
        self.pass()
    }

    /// Settles, and checks that everything is as it should be.
    pub(crate) fn converge(&mut self) -> Report {
        let report = self.settle();
        assert_eq!(report.verdict, Verdict::Converged, "{report:#?}");
        self.assert_right();
        report
    }

    pub(crate) fn tables(&self, family: Family) -> Tables {
        let index = self.kernel.net.index(&device(family));
        index.and_then(|index| self.kernel.net.tables(index, family)).expect("the device exists")
    }

    /// The tables without routes of others.
    pub(crate) fn owned(&self, family: Family) -> Tables {
        let mut tables = self.tables(family);
        let peers = self.wanted(family);
        tables.routes.retain(|key, route| is_ours(key, route, &peers));
        tables
    }

    /// The tables of both devices hold every row of every peer that is granted, and nothing else of
    /// ours but rows for pod CIDRs of nodes that cannot be used now.
    pub(crate) fn assert_right(&self) {
        for family in Family::BOTH {
            let tables = self.tables(family);
            let peers = self.wanted(family);
            let mut expected = Tables::default();
            peers.iter().flat_map(rows).for_each(|row| expected.set(row));
            for row in expected.entries() {
                assert_eq!(tables.at(&row), Some(row), "{family}: missing or wrong");
            }
            let too_many = tables.surplus.iter().find(|(key, route)| is_ours(key, route, &peers));
            let held = reference::held(&self.snapshot, family);
            assert!(too_many.is_none_or(|(key, _)| held.contains(&key.dst)), "{family}: {too_many:?} should be gone");
            let at_base = |ip: IpAddr| held.iter().any(|subnet| subnet.base() == ip);
            for row in tables.entries().filter(|row| expected.at(row).is_none()) {
                let kept = match row {
                    Entry::Route(key, route) => held.contains(&key.dst) || !is_ours(&key, &route, &peers),
                    Entry::Neighbour(ip, _) => at_base(ip),
                    Entry::Fdb(key, _) => tables.neighbours.iter().any(|(ip, it)| it.mac == key.mac && at_base(*ip)),
                };
                assert!(kept, "{family}: {row:?} should be gone");
            }
        }
    }
}

/// Ours by protocol, by flannel's shape, or a hand-made route for just a peer's pod CIDR.
pub(crate) fn is_ours(key: &RouteKey, route: &Route, peers: &[Peer]) -> bool {
    let by_hand = route.protocol == PROTOCOL_BOOT && peers.iter().any(|peer| peer.subnet == key.dst);
    route.protocol == PROTOCOL_WEFT || (*key, *route) == flannel_route(key.dst) || by_hand
}

pub(crate) fn lock(watch: &Mutex<Watch>) -> std::sync::MutexGuard<'_, Watch> {
    watch.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks at every state between two operations. What it demands of an operation holds only if nobody
/// else acted since the kernel was looked at, and the kernel does not lie: switch it off otherwise.
#[derive(Default)]
pub(crate) struct Watch {
    pub(crate) off: bool,
    last: Option<Seen>,
    wanted: ByFamily<Vec<Peer>>,
}

/// A state, with the tables of both devices.
struct Seen {
    net: Net,
    tables: ByFamily<Option<Tables>>,
}

fn tables_in(net: &Net, family: Family) -> Option<Tables> {
    net.index(&device(family)).and_then(|index| net.tables(index, family))
}

impl Watch {
    fn begin(&mut self, net: &Net, wanted: ByFamily<Vec<Peer>>) {
        self.wanted = wanted;
        self.last =
            (!self.off).then(|| Seen { net: net.clone(), tables: ByFamily::from_fn(|family| tables_in(net, family)) });
    }

    fn after(&mut self, net: &Net, tried: &Tried) {
        let Some(last) = self.last.take().filter(|_| !self.off) else { return };
        // An interface that went away with the operation on it went by itself.
        let vanished = |name: &IfName| last.net.index(name).is_some() && net.index(name).is_none();
        let by_itself = matches!(tried.op, Op::Set { .. } | Op::Del { .. }) && tried.op.device().is_some_and(vanished);
        assert!(by_itself || same_foreign(&last.net, net), "{}: touched what is not ours", tried.op);
        let mut tables = last.tables;
        match tried.op.entry().map(family_of) {
            None => tables = ByFamily::from_fn(|family| tables_in(net, family)),
            Some(family) => {
                let before = std::mem::replace(tables.get_mut(family), tables_in(net, family));
                if let (Some(before), Some(after)) = (&before, tables.get(family)) {
                    self.compare(before, after, family, tried);
                    supported(after, tried);
                }
            }
        }
        self.last = Some(Seen { net: net.clone(), tables });
    }

    fn compare(&self, before: &Tables, after: &Tables, family: Family, tried: &Tried) {
        let peers = self.wanted.get(family);
        for (key, route) in &before.routes {
            let untouched = after.routes.get(key) == Some(route) || is_ours(key, route, peers);
            assert!(untouched, "{}: touched {key:?}", tried.op);
        }
        for peer in peers {
            let right = |tables: &Tables| rows(peer).iter().all(|row| tables.at(row) == Some(*row));
            assert!(!right(before) || right(after), "{}: broke {peer:?}, which was right", tried.op);
            let reached = |tables: &Tables| reaches(tables, peer.subnet);
            assert!(!reached(before) || reached(after), "{}: cut {} off", tried.op, peer.subnet);
        }
    }
}

fn family_of(entry: &Entry) -> Family {
    match entry {
        Entry::Fdb(_, fdb) => Family::of(fdb.dst),
        Entry::Neighbour(ip, _) => Family::of(*ip),
        Entry::Route(key, _) => key.dst.family(),
    }
}

/// Whether everything that is not on our devices is the same.
fn same_foreign(before: &Net, after: &Net) -> bool {
    let ours = Family::BOTH.map(device);
    let links = |net: &Net| net.interfaces().filter(|it| !ours.contains(&it.link.name)).cloned().collect::<Vec<_>>();
    let numbers = |net: &Net| ours.each_ref().map(|name| net.index(name));
    let routes = |net: &Net| {
        let numbers = numbers(net);
        // What carries our number is ours wherever it is (decision 5).
        let foreign = |route: &weft::kernel::fake::MainRoute| {
            route.route.protocol != PROTOCOL_WEFT && (route.oif.is_none() || !numbers.contains(&route.oif))
        };
        net.routes().filter(|(_, route)| foreign(route)).map(|(key, route)| (key, route.clone())).collect::<Vec<_>>()
    };
    links(before) == links(after) && routes(before) == routes(after)
}

/// Whether packets for a destination are encapsulated towards somebody.
pub(crate) fn reaches(tables: &Tables, dst: Subnet) -> bool {
    let (low, high) = (RouteKey { dst, metric: 0 }, RouteKey { dst, metric: u32::MAX });
    let best = tables.routes.range(low..=high).next().and_then(|(_, route)| route.via);
    best.is_some_and(|via| leads_somewhere(tables, via))
}

fn leads_somewhere(tables: &Tables, via: IpAddr) -> bool {
    let mac = tables.neighbours.get(&via).map(|neighbour| neighbour.mac);
    let fdb = mac.and_then(|mac| tables.fdb.get(&FdbKey { mac, remote: None }));
    // Where a group leads is somebody else's business.
    fdb.is_some_and(|fdb| !fdb.is_grouped())
}

/// No route appears that leads nowhere, and nothing goes that a route of ours leads to.
fn supported(tables: &Tables, tried: &Tried) {
    let Some(entry) = tried.op.entry().filter(|_| tried.ack == Ack::Done) else { return };
    let weft = |route: &Route| route.protocol == PROTOCOL_WEFT;
    match (&tried.op, entry) {
        (Op::Set { .. }, Entry::Route(_, Route { via: Some(via), .. })) => {
            assert!(leads_somewhere(tables, *via), "{}: a route that leads nowhere", tried.op);
        }
        (Op::Set { .. }, Entry::Neighbour(_, neighbour)) => {
            let key = FdbKey { mac: neighbour.mac, remote: None };
            assert!(tables.fdb.contains_key(&key), "{}: a neighbour that leads nowhere", tried.op);
        }
        (Op::Del { .. }, Entry::Neighbour(ip, _)) => {
            let used = tables.routes.values().any(|route| route.via == Some(*ip) && weft(route));
            assert!(!used, "{}: a route still needs it", tried.op);
        }
        // One of a group goes so that ours can take its place.
        (Op::Del { .. }, Entry::Fdb(key, fdb)) if !fdb.is_grouped() => {
            let used = tables.neighbours.values().any(|neighbour| neighbour.mac == key.mac);
            assert!(!used || tables.fdb.contains_key(key), "{}: a neighbour still needs it", tried.op);
        }
        _ => {}
    }
}
