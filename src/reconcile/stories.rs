//! The pass as stories, on Linux in memory. `tests/core` has the properties.

use std::sync::Arc;
use std::time::Duration;

use super::{Input, Memory, Report, Verdict, pass};
use crate::kernel::fake::{FakeKernel, Net};
use crate::model::addr::{ByFamily, IfName, Mac, Vni};
use crate::model::node::{NodeRecord, OwnNode, Peer, Snapshot, Standing};
use crate::model::op::Op;
use crate::model::settings::{Backend, DEFAULT_PORT, Overlay, Settings, UnderlayRules};
use crate::model::table::{PROTOCOL_BOOT, Route, RouteKey};
use crate::plan::bridge::Leases;
use crate::plan::cause::Cause;

struct World {
    kernel: FakeKernel,
    settings: Settings,
    snapshot: Snapshot,
    memory: Memory,
    now: Duration,
}

impl World {
    fn with_peers(count: u8) -> Self {
        let mut net = Net::new();
        let eth0 = net.add_link("eth0", "", Mac([2, 0, 0, 0, 0, 1]), 1500);
        net.set_up(eth0);
        net.add_address(eth0, "192.168.0.1".parse().expect("an address"), 24);
        let networks = ByFamily { v4: Some("10.244.0.0/16".parse().expect("a subnet")), v6: None };
        let overlay = Overlay {
            networks,
            backend: Backend::Vxlan,
            vni: Vni::new(1).expect("a VNI"),
            port: DEFAULT_PORT,
            mtu: None,
            gbp: false,
            learning: false,
            direct_routing: false,
        };
        let underlay = UnderlayRules { iface: vec!["eth0".into()], ..UnderlayRules::default() };
        let mut world = Self {
            kernel: FakeKernel::new(net),
            settings: Settings { overlay, underlay, filter: crate::model::filter::FilterRules::default() },
            snapshot: Snapshot { complete: true, lists: 1, ..Snapshot::default() },
            memory: Memory::default(),
            now: Duration::ZERO,
        };
        let subnet = ByFamily { v4: Ok("10.244.0.0/24".parse().expect("a subnet")), v6: Err("none".into()) };
        world.snapshot.own = Some(Arc::new(OwnNode {
            name: "own".into(),
            uid: "u-own".into(),
            subnet,
            annotated_mac: ByFamily::default(),
            overwrite: ByFamily::default(),
            node_public_ip: ByFamily::default(),
            annotations: std::collections::BTreeMap::new(),
            network_unavailable: None,
        }));
        (1..=count).for_each(|n| world.put(peer(n)));
        world
    }

    fn put(&mut self, node: NodeRecord) {
        Arc::make_mut(&mut self.snapshot.nodes).insert(node.name.clone(), Arc::new(node));
        self.snapshot.generation += 1;
    }

    fn remove(&mut self, name: &str) {
        Arc::make_mut(&mut self.snapshot.nodes).remove(name);
        self.snapshot.generation += 1;
    }

    fn pass(&mut self) -> Report {
        self.now += Duration::from_millis(10);
        let input = Input { settings: &self.settings, snapshot: &self.snapshot, leases: &Leases::Unknown };
        pass(&mut self.kernel, &input, &mut self.memory, self.now)
    }
}

fn peer(n: u8) -> NodeRecord {
    let peer = Peer {
        subnet: format!("10.244.{n}.0/24").parse().expect("a subnet"),
        mac: Some(Mac([0x0e, 0, 0, 0, 0, n])),
        public_ip: format!("192.168.0.{}", 100 + u16::from(n)).parse().expect("an address"),
    };
    NodeRecord {
        name: format!("node-{n}").into(),
        uid: format!("u-{n}").into(),
        created: i64::from(n),
        standing: ByFamily { v4: Standing::Usable(peer), v6: Standing::Absent(crate::model::node::Absence::NoPodCidr) },
    }
}

fn told(report: &Report) -> Vec<(String, Cause)> {
    report.changes.iter().map(|change| (change.op.to_string(), change.cause)).collect()
}

#[test]
fn from_nothing_to_done_in_one_pass_and_then_nothing_more() {
    let mut world = World::with_peers(1);
    let report = world.pass();
    assert_eq!(report.verdict, Verdict::Converged, "{report:#?}");
    let lines: Vec<String> = told(&report).into_iter().map(|(op, _)| op).collect();
    let mac = report.families.v4.and_then(|family| family.device).expect("a device").mac;
    assert_eq!(
        lines,
        [
            &format!(
                "ip link add flannel.1 mtu 1450 address {mac} txqueuelen 0 type vxlan id 1 dev eth0 local 192.168.0.1 \
                 dstport 8472 nolearning noudpcsum"
            ),
            "ip link set flannel.1 addrgenmode none",
            "ip link set flannel.1 up",
            "ip addr add 10.244.0.0/32 dev flannel.1",
            "bridge fdb replace 0e:00:00:00:00:01 dev flannel.1 dst 192.168.0.101 self permanent",
            "ip neigh replace 10.244.1.0 lladdr 0e:00:00:00:00:01 dev flannel.1 nud permanent",
            "ip route add 10.244.1.0/24 via 10.244.1.0 dev flannel.1 proto 119 metric 1026 onlink",
        ]
    );
    assert_eq!(told(&world.pass()), []);
}

#[test]
fn what_somebody_deletes_comes_back_and_what_somebody_adds_goes() {
    let mut world = World::with_peers(2);
    world.pass();
    let device = world.kernel.net.index(&IfName::new("flannel.1")).expect("the device");
    world.kernel.net.flush_routes(device);
    world.kernel.net.put_neighbour(device, "10.244.9.0".parse().expect("an address"), Mac([2, 0, 0, 0, 9, 9]));
    let causes: Vec<Cause> = told(&world.pass()).into_iter().map(|(_, cause)| cause).collect();
    assert_eq!(causes, [Cause::DriftDeleted, Cause::DriftDeleted, Cause::DriftAdded].into_iter().collect::<Vec<_>>());
}

#[test]
fn a_peers_new_mac_is_in_place_before_the_old_one_goes() {
    let mut world = World::with_peers(1);
    world.pass();
    let mut node = peer(1);
    if let Standing::Usable(peer) = &mut node.standing.v4 {
        peer.mac = Some(Mac([0x0e, 0, 0, 0, 1, 1]));
    }
    world.put(node);
    let told = told(&world.pass());
    let verbs: Vec<&str> = told.iter().map(|(op, _)| &op[..15]).collect();
    assert_eq!(verbs, ["bridge fdb repl", "ip neigh replac", "bridge fdb del "]);
    assert!(told.iter().all(|(_, cause)| *cause == Cause::NodeChanged), "{told:?}");
}

#[test]
fn a_flannel_route_goes_only_after_ours_is_in_place() {
    let mut world = World::with_peers(1);
    world.pass();
    let device = world.kernel.net.index(&IfName::new("flannel.1")).expect("the device");
    world.kernel.net.flush_routes(device);
    let dst = "10.244.1.0/24".parse().expect("a subnet");
    let flannels = Route { protocol: PROTOCOL_BOOT, ..Route::through("10.244.1.0".parse().expect("an address")) };
    world.kernel.net.put_route(RouteKey { dst, metric: 0 }, Some(device), flannels);
    let ops: Vec<Op> = world.pass().changes.into_iter().map(|change| change.op).collect();
    assert!(matches!(ops.as_slice(), [Op::Set { .. }, Op::Del { .. }]), "{ops:?}");
}

#[test]
fn a_peer_that_leaves_takes_its_rows_along_route_first() {
    let mut world = World::with_peers(3);
    world.pass();
    world.remove("node-2");
    let told = told(&world.pass());
    let verbs: Vec<&str> = told.iter().map(|(op, _)| &op[..14]).collect();
    assert_eq!(verbs, ["ip route del 1", "ip neigh del 1", "bridge fdb del"]);
    assert!(told.iter().all(|(_, cause)| *cause == Cause::NodeLeft), "{told:?}");
}

#[test]
fn most_peers_leave_only_after_another_list() {
    let mut world = World::with_peers(30);
    world.pass();
    (1..=20).for_each(|n| world.remove(&format!("node-{n}")));
    let report = world.pass();
    assert!(report.changes.is_empty() && report.wants_list, "{report:?}");
    assert!(world.pass().changes.is_empty());
    world.snapshot.lists += 1;
    let report = world.pass();
    assert_eq!((report.changes.len(), report.verdict), (60, Verdict::Converged));
}

#[test]
fn new_peers_do_not_hide_a_mass_removal() {
    let mut world = World::with_peers(30);
    world.pass();
    (1..=20).for_each(|n| world.remove(&format!("node-{n}")));
    (101..=140).for_each(|n| world.put(peer(n)));
    let report = world.pass();
    assert!(report.wants_list && report.changes.iter().all(|change| matches!(change.op, Op::Set { .. })));
    assert!(world.pass().changes.is_empty());
    world.snapshot.lists += 1;
    assert_eq!((world.pass().changes.len(), world.pass().verdict), (60, Verdict::Converged));
}

#[test]
fn what_somebody_adds_goes_at_once_however_much_it_is() {
    let mut world = World::with_peers(3);
    world.pass();
    let device = world.kernel.net.index(&IfName::new("flannel.1")).expect("the device");
    for n in 0..100 {
        world.kernel.net.put_neighbour(device, [10, 244, 99, n].into(), Mac([2, 0, 0, 0, 9, n]));
    }
    let report = world.pass();
    assert_eq!((report.changes.len(), report.verdict), (100, Verdict::Converged));
}

#[test]
fn a_list_without_our_own_node_adds_but_removes_nothing() {
    let mut world = World::with_peers(30);
    world.pass();
    let own = world.snapshot.own.take();
    (1..=30).for_each(|n| world.remove(&format!("node-{n}")));
    world.put(peer(31));
    for _ in 0..3 {
        world.snapshot.lists += 1;
        let report = world.pass();
        assert!(report.changes.iter().all(|change| matches!(change.op, Op::Set { .. })), "{:?}", told(&report));
        assert!(!report.wants_list, "asked for a list that cannot tell");
        assert!(report.families.v4.is_some_and(|family| family.withheld.is_some()));
    }
    // It is back, but the lists that lacked it prove nothing.
    world.snapshot.own = own;
    world.snapshot.generation += 1;
    let report = world.pass();
    assert!(report.changes.is_empty() && report.wants_list, "{report:?}");
    world.snapshot.lists += 1;
    assert_eq!((world.pass().changes.len(), world.pass().verdict), (90, Verdict::Converged));
}

#[test]
fn a_list_that_was_never_whole_adds_but_removes_nothing() {
    let mut world = World::with_peers(3);
    world.pass();
    (1..=3).for_each(|n| world.remove(&format!("node-{n}")));
    world.put(peer(4));
    world.memory = Memory::default();
    world.snapshot.complete = false;
    assert_eq!(world.pass().changes.len(), 3);
    assert!(world.pass().changes.is_empty());
    world.snapshot.complete = true;
    assert_eq!((world.pass().changes.len(), world.pass().verdict), (9, Verdict::Converged));
}

#[test]
fn no_own_node_no_change() {
    let mut world = World::with_peers(3);
    world.snapshot.own = None;
    assert!(matches!(world.pass().verdict, Verdict::Waiting(_)));
    assert_eq!(world.kernel.operations(), 0);
}

#[test]
fn a_foreign_route_that_wins_is_shown_and_left_alone() {
    let mut world = World::with_peers(3);
    let eth0 = world.kernel.net.index(&IfName::new("eth0"));
    for (dst, metric) in
        [("10.244.2.0/24", 0), ("10.244.3.128/25", 9000), ("10.244.3.0/24", 9000), ("10.244.0.0/16", 0)]
    {
        let route = Route { via: None, onlink: false, protocol: 4, plain: true, dev: None };
        world.kernel.net.put_route(RouteKey { dst: dst.parse().expect("a subnet"), metric }, eth0, route);
    }
    let report = world.pass();
    let family = report.families.v4.expect("the family");
    let shadowed: Vec<&str> = family.shadows.iter().map(|shadow| &*shadow.peer).collect();
    assert_eq!((shadowed, report.verdict), (vec!["node-2", "node-3"], Verdict::Converged));
}

#[test]
fn handed_over_to_flannel_no_pod_cidr_is_ever_without_a_route() {
    let mut world = World::with_peers(5);
    world.pass();
    world.kernel.check(|net, _| {
        for n in 1..=5 {
            let dst = format!("10.244.{n}.0/24").parse().expect("a subnet");
            assert!(net.routes().any(|(key, _)| key.dst == dst), "no route to {dst}");
        }
    });
    let scope = world.settings.scope();
    let tried = super::leave(&mut world.kernel, &scope, super::Leave::HandOver).expect("an observation");
    assert_eq!(tried.len(), 10);
    let protocols: Vec<_> = world.kernel.net.routes().map(|(key, it)| (key.metric, it.route.protocol)).collect();
    assert_eq!(protocols.iter().filter(|form| **form == (0, PROTOCOL_BOOT)).count(), 5, "{protocols:?}");
    assert!(protocols.iter().all(|(_, protocol)| *protocol != crate::model::table::PROTOCOL_WEFT));
    // And back: adoption is make-before-break too.
    assert_eq!(world.pass().verdict, Verdict::Converged);
}

#[test]
fn a_dry_run_tells_what_a_pass_then_does() {
    let mut world = World::with_peers(2);
    world.pass();
    world.remove("node-1");
    let host = world.kernel.net.observe(&world.settings.scope());
    let input = Input { settings: &world.settings, snapshot: &world.snapshot, leases: &Leases::Unknown };
    let foretold: Vec<String> =
        super::preview(&host, &input).changes.iter().map(|change| change.op.to_string()).collect();
    let done: Vec<String> = world.pass().changes.iter().map(|change| change.op.to_string()).collect();
    assert_eq!((foretold.len(), foretold), (3, done));
}

#[test]
fn a_dry_run_shows_a_mass_removal_too() {
    let mut world = World::with_peers(30);
    world.pass();
    (1..=20).for_each(|n| world.remove(&format!("node-{n}")));
    let host = world.kernel.net.observe(&world.settings.scope());
    let input = Input { settings: &world.settings, snapshot: &world.snapshot, leases: &Leases::Unknown };
    let report = super::preview(&host, &input);
    assert_eq!((report.changes.len(), report.verdict), (60, Verdict::Converged));
}

#[test]
fn a_peer_that_came_while_removals_were_kept_back_is_kept_too() {
    let mut world = World::with_peers(3);
    world.pass();
    let own = world.snapshot.own.take();
    world.remove("node-1");
    world.put(peer(9));
    assert_eq!(world.pass().changes.len(), 3);
    world.remove("node-9");
    assert!(world.pass().changes.is_empty());
    world.snapshot.own = own;
    world.snapshot.lists += 1;
    world.snapshot.generation += 1;
    let report = world.pass();
    assert_eq!((report.changes.len(), report.verdict.clone()), (6, Verdict::Converged), "{report:#?}");
    assert!(report.changes.iter().all(|change| change.cause == Cause::NodeLeft), "{:?}", told(&report));
}

#[test]
fn a_device_that_cannot_be_changed_is_made_anew_once() {
    use crate::kernel::fake::Fate;
    use crate::model::op::LinkOp;
    let mut world = World::with_peers(2);
    world.pass();
    // A kernel whose every device comes out so, and that lets nobody change it.
    world.kernel.meddle(|net| {
        if let Some(device) = net.index(&IfName::new("flannel.1")) {
            net.set_vxlan(device, |vxlan| vxlan.learning = true);
        }
    });
    world.kernel.rule(|op| match op {
        Op::Link(LinkOp::SetLearning(..)) => Some(Fate::Refused(95)),
        _ => None,
    });
    let device = world.kernel.net.index(&IfName::new("flannel.1")).expect("the device");
    world.kernel.net.set_vxlan(device, |vxlan| vxlan.learning = true);
    let mut deletes = 0;
    for _ in 0..20 {
        let report = world.pass();
        deletes += report.changes.iter().filter(|change| matches!(change.op, Op::Link(LinkOp::Delete(_)))).count();
        world.now += Duration::from_secs(1);
    }
    assert_eq!(deletes, 1);
    let device = world.kernel.net.index(&IfName::new("flannel.1")).expect("the device");
    assert_eq!(world.kernel.net.tables(device, crate::model::addr::Family::V4).expect("tables").len(), 6);
}
