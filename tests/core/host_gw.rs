//! The host-gw backend: a route to each peer over the underlay and no device; from VXLAN to it and back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use weft::kernel::fake::{Fate, MainRoute, Net};
use weft::model::addr::{ByFamily, Family, Subnet};
use weft::model::node::{NodeRecord, Standing};
use weft::model::op::{LinkOp, Op};
use weft::model::settings::Backend;
use weft::model::table::{Entry, PROTOCOL_BOOT, PROTOCOL_WEFT, Route, RouteKey, flannel_metric, peer_metric};
use weft::plan::bridge::Leases;
use weft::plan::cause::Cause;
use weft::reconcile::{Input, Leave, PeerState, Verdict, leave, peers::peer_states, preview};

use crate::cluster::{plain, unusable};
use crate::direct::{self, connect, eth0, flannel_direct, flap, installed, is_reached, near, reroute};
use crate::properties::cases;
use crate::world::{MINUTE, World, device, ip, own, pod_cidr};

const PEERS: u8 = 4;

/// A host, and where its peers are.
struct Site {
    world: World,
    near: BTreeMap<u8, bool>,
}

impl Site {
    fn new(backend: Backend) -> Self {
        let mut world = World::new().unwatched();
        world.settings.overlay.backend = backend;
        let mut site = Self { world, near: (1..=PEERS).map(|n| (n, true)).collect() };
        site.publish();
        site
    }

    fn backend(&self) -> Backend {
        self.world.settings.overlay.backend
    }

    fn node(&self, n: u8) -> NodeRecord {
        let mut node = direct::node(n, self.near[&n]);
        for family in Family::BOTH {
            if let Standing::Usable(peer) = node.standing.get_mut(family) {
                peer.mac = peer.mac.filter(|_| self.backend() == Backend::Vxlan);
            }
        }
        node
    }

    fn publish(&mut self) {
        (1..=PEERS).for_each(|n| self.world.remove(&plain(n).name));
        let nodes: Vec<NodeRecord> = self.near.keys().map(|n| self.node(*n)).collect();
        self.world.put_all(nodes);
        self.world.snapshot.lists += 1;
    }

    fn switch(&mut self, to: Backend) {
        // The configuration is read at the start alone.
        self.world.settings.overlay.backend = to;
        self.world.restart();
        self.publish();
    }

    fn net(&mut self) -> &mut Net {
        &mut self.world.kernel.net
    }

    /// The pod CIDRs that can be reached from here as the configuration is.
    fn in_reach(&self) -> BTreeSet<Subnet> {
        let near = |family, n: &u8| self.backend() == Backend::Vxlan || is_on_link(&self.world.kernel.net, family, *n);
        let of = |family| self.near.iter().filter(move |(n, is_near)| **is_near && near(family, n));
        Family::BOTH.into_iter().flat_map(|family| of(family).map(move |(n, _)| pod_cidr(family, *n))).collect()
    }

    /// From now on nothing of ours may cut off a peer in reach.
    fn watch(&mut self) {
        let wanted = self.in_reach();
        direct::guard(&mut self.world, wanted);
    }

    fn pass(&mut self) -> weft::reconcile::Report {
        self.watch();
        let report = self.world.pass();
        self.world.kernel.check(|_, _| ());
        report
    }

    /// What is to be there with host-gw. Of peers that cannot be reached whatever was there may be.
    fn assert_right(&self) {
        let net = &self.world.kernel.net;
        assert!(Family::BOTH.into_iter().all(|family| net.index(&device(family)).is_none()), "a device");
        let reach = self.in_reach();
        let row = |(family, n): (Family, u8)| {
            let dst = pod_cidr(family, n);
            reach.contains(&dst).then(|| format!("{dst} via {} {}", near(family, n), peer_metric(dst)))
        };
        let all = Family::BOTH.into_iter().flat_map(|family| (1..=PEERS).map(move |n| (family, n)));
        let expected: BTreeSet<String> = all.filter_map(row).collect();
        let there = |text: &&String| self.near.keys().any(|n| Family::BOTH.iter().any(|f| starts(text, *f, *n)));
        let in_reach = |text: &&String| reach.iter().any(|dst| text.starts_with(&format!("{dst} ")));
        let installed = installed(net);
        assert_eq!(installed.iter().filter(in_reach).cloned().collect::<BTreeSet<_>>(), expected);
        assert!(installed.iter().all(|row| there(&row)), "of a node that is gone: {installed:?}");
    }
}

fn starts(text: &str, family: Family, n: u8) -> bool {
    text.starts_with(&format!("{} ", pod_cidr(family, n)))
}

/// Whether the routes over the underlay lead straight to a near peer.
fn is_on_link(net: &Net, family: Family, n: u8) -> bool {
    let to = near(family, n);
    let inside = |dst: Subnet| crate::world::network(family).contains_subnet(dst);
    let fits = net.routes().filter(|(key, it)| key.dst.contains(to) && !inside(key.dst) && it.oif == eth0(net));
    let best = fits.max_by_key(|(key, _)| (key.dst.len(), std::cmp::Reverse(key.metric)));
    best.is_some_and(|(_, it)| it.route.via.is_none())
}

fn boot(net: &Net, family: Family, n: u8, via: IpAddr) -> (RouteKey, Route) {
    let (key, route) = flannel_direct(net, family, n);
    (key, Route { via: Some(via), ..route })
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Moves(u8, bool),
    Leaves(u8),
    Rerouted(Family, u8, bool),
    NicFlaps,
    NetworkGone(Family),
    NetworkBack(Family),
    RoutesGone(Family, u8),
    Wrong(Family, u8),
    Flannels(Family, u8, bool),
    Switch(bool),
    Restart,
    Pass,
}

fn any_event() -> impl Strategy<Value = Event> {
    let n = || 1..=PEERS;
    let family = || prop_oneof![Just(Family::V4), Just(Family::V6)];
    prop_oneof![
        3 => (n(), any::<bool>()).prop_map(|(n, near)| Event::Moves(n, near)),
        1 => n().prop_map(Event::Leaves),
        2 => (family(), n(), any::<bool>()).prop_map(|(family, n, away)| Event::Rerouted(family, n, away)),
        2 => Just(Event::NicFlaps),
        1 => family().prop_map(Event::NetworkGone),
        1 => family().prop_map(Event::NetworkBack),
        2 => (family(), n()).prop_map(|(family, n)| Event::RoutesGone(family, n)),
        1 => (family(), n()).prop_map(|(family, n)| Event::Wrong(family, n)),
        2 => (family(), n(), any::<bool>()).prop_map(|(family, n, moved)| Event::Flannels(family, n, moved)),
        2 => any::<bool>().prop_map(Event::Switch),
        1 => Just(Event::Restart),
        5 => Just(Event::Pass),
    ]
}

fn happen(site: &mut Site, event: Event) {
    match event {
        Event::Moves(n, is_near) => {
            site.near.insert(n, is_near);
            site.publish();
        }
        Event::Leaves(n) => {
            site.near.remove(&n);
            site.publish();
        }
        Event::Switch(host_gw) => site.switch(if host_gw { Backend::HostGw } else { Backend::Vxlan }),
        Event::Restart => site.world.restart(),
        Event::Pass => drop(site.pass()),
        event => disturb(site.net(), event),
    }
}

fn disturb(net: &mut Net, event: Event) {
    let index = eth0(net);
    match event {
        Event::Rerouted(family, n, away) => reroute(net, family, n, away),
        Event::NicFlaps => flap(net),
        Event::NetworkGone(family) => connect(net, family, false),
        Event::NetworkBack(family) => connect(net, family, true),
        Event::RoutesGone(family, n) => net.del_routes(|key, _| key.dst == pod_cidr(family, n)),
        Event::Wrong(family, n) => {
            let key = RouteKey { dst: pod_cidr(family, n), metric: peer_metric(pod_cidr(family, n)) };
            let route = Route::direct(near(family, PEERS + 1), index.expect("the underlay"));
            net.del_routes(|held, _| held == key);
            net.put_route(key, index, route);
        }
        Event::Flannels(family, n, moved) => {
            let (key, route) = boot(net, family, n, near(family, if moved { PEERS + 2 } else { n }));
            net.del_routes(|held, _| held == key);
            net.put_route(key, index, route);
        }
        _ => unreachable!("not the network's"),
    }
}

proptest! {
    #![proptest_config(cases(60))]

    /// Whatever happens to peers, to the underlay, to the routes and to the backend: no change of ours cuts
    /// anybody off who can be reached, and in the end each of those has its route and nothing else is left.
    #[test]
    fn every_peer_in_reach_gets_its_route_without_a_gap(events in vec(any_event(), 1..30)) {
        let mut site = Site::new(Backend::HostGw);
        for event in events {
            happen(&mut site, event);
        }
        if site.backend() == Backend::Vxlan {
            site.switch(Backend::HostGw);
        }
        // Of those in flannel's form for peers that are out of reach or gone, nobody can say whose they are.
        let reach = site.in_reach();
        site.net().del_routes(|key, it| it.route.protocol == PROTOCOL_BOOT && !reach.contains(&key.dst));
        site.watch();
        let report = site.world.settle();
        prop_assert_eq!(&report.verdict, &Verdict::Converged, "{:#?}", report.families);
        site.assert_right();
        let boot = site.world.kernel.net.routes().find(|(_, it)| it.route.protocol == PROTOCOL_BOOT);
        prop_assert!(boot.is_none(), "{:?}", boot);
        let before = site.world.kernel.operations();
        site.world.restart();
        site.world.pass();
        prop_assert_eq!(site.world.kernel.operations(), before, "a restart wrote something");
    }

    /// There and back again, whatever is refused on the way: nobody is cut off, nothing is left behind.
    #[test]
    fn the_backend_can_be_changed_and_changed_back(
        refused in vec((0..60_u64, prop_oneof![Just(12), Just(105)]), 0..3),
        direct_routing: bool,
    ) {
        let mut site = Site::new(Backend::Vxlan);
        site.world.settings.overlay.direct_routing = direct_routing;
        site.pass();
        for to in [Backend::HostGw, Backend::Vxlan] {
            for (nth, errno) in &refused {
                site.world.kernel.fail(1 + nth, weft::kernel::fake::Fault::Fate(Fate::Refused(*errno)));
            }
            site.switch(to);
            for _ in 0..4 {
                site.pass();
                site.world.now += MINUTE;
            }
            site.watch();
            prop_assert_eq!(site.world.settle().verdict, Verdict::Converged);
            match to {
                Backend::HostGw => site.assert_right(),
                Backend::Vxlan => {
                    let direct = installed(&site.world.kernel.net).into_iter().filter(|row| !row.contains("onlink"));
                    let expected = if direct_routing { 3 * usize::from(PEERS) } else { 0 };
                    prop_assert_eq!(direct.count(), expected, "direct ones, and to the IPv6 gateways");
                    prop_assert!(site.in_reach().iter().all(|dst| is_reached(&site.world.kernel.net, *dst)));
                }
            }
        }
    }
}

#[test]
fn a_peer_costs_one_row_and_the_node_no_device() {
    let mut site = Site::new(Backend::HostGw);
    let report = site.pass();
    assert_eq!(report.verdict, Verdict::Converged);
    let told: Vec<String> = report.changes.iter().map(|change| change.op.to_string()).collect();
    assert_eq!(told.len(), 2 * usize::from(PEERS), "{told:#?}");
    let metric = peer_metric(pod_cidr(Family::V4, 2));
    assert!(told.contains(&format!("ip route add 10.244.2.0/24 via 192.168.174.3 dev eth0 proto 119 metric {metric}")));
    assert!(told.contains(&"ip -6 route add fd00:244:0:2::/64 via fd01::3 dev eth0 proto 119 metric 1024".to_owned()));
    for family in Family::BOTH {
        let said = report.families.get(family).as_ref().expect("the family");
        assert!(said.ready && said.device.is_none());
        assert_eq!(said.mtu, Some(1500), "the underlay's");
        assert_eq!(said.wanted.route, usize::from(PEERS));
        assert_eq!(said.wanted.fdb + said.wanted.neighbour, 0);
    }
    site.assert_right();
}

#[test]
fn a_deleted_route_is_drift_and_a_cable_pulled_out_is_nothing() {
    let mut site = Site::new(Backend::HostGw);
    site.pass();
    site.net().del_routes(|key, _| key.dst == pod_cidr(Family::V4, 3));
    let report = site.pass();
    let told: Vec<_> = report.changes.iter().map(|change| (change.cause, change.peer.as_deref())).collect();
    assert_eq!(told, [(Cause::DriftDeleted, Some(&*plain(3).name))]);
    let index = eth0(site.net()).expect("the underlay");
    site.net().set_carrier(index, false);
    assert_eq!(site.pass().changes.len(), 0);
    site.assert_right();
}

#[test]
fn a_peer_behind_a_router_costs_itself_alone_and_its_rows_stay_as_they_were() {
    let mut site = Site::new(Backend::HostGw);
    site.near.insert(1, false);
    site.publish();
    let report = site.pass();
    assert_eq!(report.verdict, Verdict::Converged, "{report:#?}");
    for family in Family::BOTH {
        let states = peer_states(&report, family);
        let why = "is not on the network of eth0";
        assert!(matches!(&states[&plain(1).name], PeerState::Unusable(said) if said.contains(why)), "{states:?}");
        assert!((2..=PEERS).all(|n| states[&plain(n).name] == PeerState::Installed), "{states:?}");
    }
    site.assert_right();
    // Another that was near: its route goes on leading where it led.
    let before = installed(site.net());
    site.near.insert(2, false);
    site.publish();
    assert_eq!(site.pass().changes.len(), 0);
    assert_eq!(installed(site.net()), before);
    // Until its node is gone.
    site.near.remove(&2);
    site.publish();
    let report = site.pass();
    assert!(report.changes.iter().all(|change| change.cause == Cause::NodeLeft), "{report:#?}");
    site.assert_right();
}

/// Who is on which network is each host's own affair: it gives nobody else the pod CIDR.
#[test]
fn a_peer_out_of_reach_keeps_its_pod_cidr_from_younger_nodes() {
    let mut site = Site::new(Backend::HostGw);
    site.near.insert(1, false);
    site.publish();
    let mut thief = site.node(2);
    for family in Family::BOTH {
        let Standing::Usable(peer) = thief.standing.get_mut(family) else { panic!("usable") };
        peer.subnet = pod_cidr(family, 1);
    }
    site.world.put(thief);
    let report = site.pass();
    let states = peer_states(&report, Family::V4);
    assert!(matches!(&states[&plain(2).name], PeerState::Rejected(why) if why.contains("older node node-001")));
}

#[test]
fn flannels_routes_are_taken_over_and_handed_back_without_a_gap() {
    let mut site = Site::new(Backend::HostGw);
    let lay = |net: &mut Net, family, n, via| {
        let (key, route) = boot(net, family, n, via);
        let index = eth0(net);
        net.put_route(key, index, route);
    };
    for family in Family::BOTH {
        (1..=PEERS).for_each(|n| lay(site.net(), family, n, near(family, n)));
        // Node 3 has another address since flanneld stopped: it would have removed that route itself.
        let old = boot(site.net(), family, 3, near(family, PEERS + 3)).0;
        site.net().del_routes(|key, _| key == old);
        lay(site.net(), family, 3, near(family, PEERS + 3));
    }
    assert_eq!(site.pass().verdict, Verdict::Converged);
    site.assert_right();
    assert!(site.net().routes().all(|(_, it)| it.route.protocol != PROTOCOL_BOOT));
    site.watch();
    let scope = site.world.scope();
    let tried = leave(&mut site.world.kernel, &scope, Leave::HandOver).expect("a look");
    assert!(tried.iter().all(|(_, ack)| *ack == weft::model::op::Ack::Done), "{tried:?}");
    for family in Family::BOTH {
        for n in 1..=PEERS {
            let (key, route) = flannel_direct(site.net(), family, n);
            let held: Vec<(RouteKey, MainRoute)> = site
                .net()
                .routes()
                .filter(|(held, _)| held.dst == key.dst)
                .map(|(key, it)| (key, it.clone()))
                .collect();
            let theirs = MainRoute { oif: eth0(site.net()), route: Route { dev: None, ..route } };
            assert_eq!(held, [(key, theirs)]);
            assert_eq!(key.metric, flannel_metric(family));
        }
    }
    // And taken over once more, and removed.
    site.world.restart();
    assert_eq!(site.pass().verdict, Verdict::Converged);
    site.world.kernel.check(|_, _| ());
    let scope = site.world.scope();
    leave(&mut site.world.kernel, &scope, Leave::Remove).expect("a look");
    assert!(site.net().routes().all(|(_, it)| it.route.protocol != PROTOCOL_WEFT));
}

#[test]
fn the_device_of_before_goes_when_every_route_is_there_and_not_before() {
    let mut site = Site::new(Backend::Vxlan);
    site.pass();
    site.switch(Backend::HostGw);
    let dst = pod_cidr(Family::V4, 2);
    let is_it = move |op: &Op| matches!(op, Op::Set { entry: Entry::Route(key, _), .. } if key.dst == dst);
    site.world.kernel.rule(move |op| is_it(op).then_some(Fate::Refused(12)));
    site.pass();
    assert!(site.net().index(&device(Family::V4)).is_some(), "node 2 is still reached over it");
    assert!(site.net().index(&device(Family::V6)).is_none(), "the other family's is not needed");
    site.world.kernel.calm();
    site.world.now += MINUTE;
    let report = site.pass();
    assert_eq!(report.verdict, Verdict::Converged);
    let last = report.changes.last().expect("changes");
    assert!(matches!(&last.op, Op::Link(LinkOp::Delete(_))), "{report:#?}");
    site.assert_right();
}

/// Nodes that are not listed any more: a list that was cut short must not take the device away either.
#[test]
fn the_device_of_before_waits_for_a_second_list_where_rows_do() {
    let mut world = World::with_peers(30).unwatched();
    world.pass();
    world.settings.overlay.backend = Backend::HostGw;
    world.restart();
    (1..=30).for_each(|n| world.remove(&plain(n).name));
    let report = world.pass();
    assert!(report.wants_list && report.changes.is_empty(), "{report:#?}");
    let report = world.pass();
    assert_eq!(report.verdict, Verdict::Converged, "{report:#?}");
    assert!(world.kernel.net.index(&device(Family::V4)).is_none());
}

#[test]
fn somebody_who_keeps_making_the_device_is_told_and_not_fought_for_ever() {
    let mut site = Site::new(Backend::Vxlan);
    let spec = site.pass().families.v4.and_then(|family| family.device).expect("a device");
    site.switch(Backend::HostGw);
    site.pass();
    let mut asked = 0;
    for _ in 0..600 {
        site.net().ack(&Op::Link(LinkOp::Create(spec.clone())));
        asked += site.pass().changes.len();
        site.world.now += MINUTE / 120;
    }
    assert!((30..90).contains(&asked), "{asked} times in five minutes");
    let report = site.pass();
    let pending = &report.families.v4.as_ref().expect("the family").pending;
    assert!(pending.iter().any(|it| it.label == "fight"), "{pending:#?}");
}

#[test]
fn a_node_behind_nat_waits_and_says_why() {
    let mut site = Site::new(Backend::HostGw);
    let mut own = own();
    own.node_public_ip = ByFamily { v4: Some(ip("203.0.113.77")), v6: None };
    site.world.snapshot.own = Some(std::sync::Arc::new(own));
    let report = site.pass();
    let waiting = report.families.v4.as_ref().expect("the family").waiting.clone().expect("it waits");
    assert!(waiting.contains("203.0.113.77 is not an address of eth0"), "{waiting}");
    assert!(report.families.v6.as_ref().expect("the family").ready);
}

#[test]
fn a_dry_run_shows_the_change_of_the_backend_in_order() {
    let mut site = Site::new(Backend::Vxlan);
    site.pass();
    site.switch(Backend::HostGw);
    let host = site.world.kernel.net.observe(&site.world.settings.scope());
    let input = Input { settings: &site.world.settings, snapshot: &site.world.snapshot, leases: &Leases::Unknown };
    let shown: Vec<String> = preview(&host, &input).changes.iter().map(|change| change.op.to_string()).collect();
    let done: Vec<String> = site.pass().changes.iter().map(|change| change.op.to_string()).collect();
    assert_eq!(shown, done);
    assert!(shown.iter().any(|line| line == "ip link del flannel.1"), "{shown:#?}");
}

#[test]
fn a_node_that_cannot_be_used_keeps_its_route() {
    let mut site = Site::new(Backend::HostGw);
    site.pass();
    let mut node = site.node(2);
    node.standing = ByFamily::from_fn(|family| unusable(Some(pod_cidr(family, 2))));
    site.world.put(node);
    assert_eq!(site.pass().changes.len(), 0);
}
