//! Direct routing: peers on the same network are reached without encapsulation, the others with it; no
//! pod CIDR is ever without a route on the way from one to the other.

use std::collections::BTreeSet;
use std::net::IpAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use weft::kernel::fake::{MainRoute, Net};
use weft::model::addr::{Family, IfName, Subnet};
use weft::model::node::{NodeRecord, Standing};
use weft::model::table::{
    FALLBACK, FdbKey, PROTOCOL_BOOT, PROTOCOL_KERNEL, PROTOCOL_WEFT, Route, RouteKey, flannel_metric, peer_metric,
};
use weft::plan::cause::Cause;
use weft::reconcile::{Leave, Verdict, leave};

use crate::cluster::plain;
use crate::meddling::Meddle;
use crate::properties::cases;
use crate::world::{World, cidr, device, flannel_route, ip, network, pod_cidr, public_ip};

const PEERS: u8 = 4;

pub(crate) fn eth0(net: &Net) -> Option<weft::model::addr::IfIndex> {
    net.index(&IfName::new("eth0"))
}

/// An address that is reached through the default gateway.
pub(crate) fn far(family: Family, n: u8) -> IpAddr {
    ip(&match family {
        Family::V4 => format!("203.0.113.{n}"),
        Family::V6 => format!("2001:db8::{n:x}"),
    })
}

fn gateway(family: Family) -> IpAddr {
    ip(if family == Family::V4 { "192.168.174.254" } else { "fd01::fe" })
}

pub(crate) fn near(family: Family, n: u8) -> IpAddr {
    public_ip(family, n + 1)
}

/// A peer that is on the same network as we, or not.
pub(crate) fn node(n: u8, is_near: bool) -> NodeRecord {
    let mut node = plain(n);
    for family in Family::BOTH {
        if let Standing::Usable(peer) = node.standing.get_mut(family) {
            peer.public_ip = if is_near { near(family, n) } else { far(family, n) };
        }
    }
    node
}

fn world() -> World {
    let mut world = World::new().unwatched();
    world.settings.overlay.direct_routing = true;
    world.put_all((1..=PEERS).map(|n| node(n, n % 2 == 0)));
    world
}

/// The routes to a destination in the order in which the kernel prefers them.
fn routes_to(net: &Net, dst: Subnet) -> Vec<(RouteKey, MainRoute)> {
    net.routes().filter(|(key, _)| key.dst == dst).map(|(key, it)| (key, it.clone())).collect()
}

/// Whether packets for a pod CIDR go somewhere: straight to a neighbour, or into the device and out again.
pub(crate) fn is_reached(net: &Net, dst: Subnet) -> bool {
    let family = dst.family();
    let index = net.index(&device(family));
    let Some((_, best)) = routes_to(net, dst).into_iter().next() else { return false };
    if best.oif.is_none() || best.oif != index {
        return best.route.via.is_some();
    }
    let Some(tables) = index.and_then(|index| net.tables(index, family)) else { return false };
    let neighbour = best.route.via.and_then(|via| tables.neighbours.get(&via).copied());
    neighbour.is_some_and(|neighbour| tables.fdb.contains_key(&FdbKey { mac: neighbour.mac, remote: None }))
}

/// Everything that is nobody's business.
pub(crate) fn foreign(net: &Net) -> Vec<(RouteKey, MainRoute)> {
    net.routes().filter(|(_, it)| it.route.protocol == 4).map(|(key, it)| (key, it.clone())).collect()
}

fn watch(world: &mut World) {
    let wanted = Family::BOTH.into_iter().flat_map(|family| world.wanted(family)).map(|peer| peer.subnet).collect();
    guard(world, wanted);
}

/// From now on panics at any operation of ours that cuts one of these pod CIDRs off, or touches a foreign route.
pub(crate) fn guard(world: &mut World, wanted: BTreeSet<Subnet>) {
    let state = move |net: &Net| {
        let reached: BTreeSet<Subnet> = wanted.iter().copied().filter(|dst| is_reached(net, *dst)).collect();
        (reached, foreign(net))
    };
    let mut last = state(&world.kernel.net);
    world.kernel.check(move |net, tried| {
        let now = state(net);
        let lost = last.0.difference(&now.0).next();
        assert!(lost.is_none(), "{}: cut {lost:?} off", tried.op);
        assert_eq!(last.1, now.1, "{}: touched what is not ours", tried.op);
        last = now;
    });
}

/// What the routes should be, worked out slowly: one row a line.
fn expected(world: &World, is_near: impl Fn(Family, IpAddr) -> bool) -> BTreeSet<String> {
    let mut rows = BTreeSet::new();
    for family in Family::BOTH {
        for peer in world.wanted(family) {
            let (dst, base) = (peer.subnet, peer.subnet.base());
            let direct_routing = world.settings.overlay.direct_routing;
            let under = if direct_routing { FALLBACK } else { 0 };
            rows.insert(format!("{dst} via {base} {} onlink", peer_metric(dst) + under));
            if direct_routing && is_near(family, peer.public_ip) {
                rows.insert(format!("{dst} via {} {}", peer.public_ip, peer_metric(dst)));
            }
            if direct_routing && family == Family::V6 {
                rows.insert(format!("{base}/128 1024"));
            }
        }
    }
    rows
}

pub(crate) fn installed(net: &Net) -> BTreeSet<String> {
    let ours = net.routes().filter(|(_, it)| it.route.protocol == PROTOCOL_WEFT);
    let text = |(key, it): (RouteKey, &MainRoute)| {
        let via = it.route.via.map_or(String::new(), |via| format!(" via {via}"));
        format!("{}{via} {}{}", key.dst, key.metric, if it.route.onlink { " onlink" } else { "" })
    };
    ours.map(text).collect()
}

fn assert_right(world: &World) {
    let net = &world.kernel.net;
    let is_near = |_: Family, to: IpAddr| {
        let fits = net.routes().filter(|(key, _)| key.dst.contains(to) && !network(key.dst.family()).contains(to));
        let best = fits.max_by_key(|(key, _)| (key.dst.len(), std::cmp::Reverse(key.metric)));
        best.is_some_and(|(_, it)| it.route.via.is_none() && it.oif == eth0(net))
    };
    assert_eq!(installed(net), expected(world, is_near));
}

/// One thing that happens. Numbers are peers.
#[derive(Clone, Copy, Debug)]
enum Event {
    Moves(u8, bool),
    Leaves(u8),
    Rerouted(Family, u8, bool),
    NicFlaps,
    NetworkGone(Family),
    NetworkBack(Family),
    DirectGone(Family, u8),
    FallbackGone(Family, u8),
    FlannelDirect(Family, u8),
    Meddle(Family, Meddle),
    Switch(bool),
    Restart,
    Pass,
}

fn any_event() -> impl Strategy<Value = Event> {
    let n = || 1..=PEERS;
    let family = || prop_oneof![Just(Family::V4), Just(Family::V6)];
    let meddle = prop_oneof![
        Just(Meddle::DeviceGone),
        Just(Meddle::DownAndUp),
        Just(Meddle::RoutesFlushed),
        Just(Meddle::NeighboursFlushed),
        n().prop_map(Meddle::FlannelRoute),
    ];
    prop_oneof![
        4 => (n(), any::<bool>()).prop_map(|(n, near)| Event::Moves(n, near)),
        1 => n().prop_map(Event::Leaves),
        3 => (family(), n(), any::<bool>()).prop_map(|(family, n, away)| Event::Rerouted(family, n, away)),
        2 => Just(Event::NicFlaps),
        1 => family().prop_map(Event::NetworkGone),
        2 => family().prop_map(Event::NetworkBack),
        2 => (family(), n()).prop_map(|(family, n)| Event::DirectGone(family, n)),
        1 => (family(), n()).prop_map(|(family, n)| Event::FallbackGone(family, n)),
        1 => (family(), n()).prop_map(|(family, n)| Event::FlannelDirect(family, n)),
        2 => (family(), meddle).prop_map(|(family, meddle)| Event::Meddle(family, meddle)),
        1 => any::<bool>().prop_map(Event::Switch),
        1 => Just(Event::Restart),
        5 => Just(Event::Pass),
    ]
}

fn on_link(family: Family) -> (RouteKey, Route) {
    let (dst, metric) = match family {
        Family::V4 => (cidr("192.168.174.0/24"), 0),
        Family::V6 => (cidr("fd01::/64"), 256),
    };
    let route = Route { via: None, onlink: false, protocol: PROTOCOL_KERNEL, plain: true, dev: None };
    (RouteKey { dst, metric }, route)
}

fn default_route(net: &mut Net, family: Family) {
    let dst = cidr(if family == Family::V4 { "0.0.0.0/0" } else { "::/0" });
    let route = Route { via: Some(gateway(family)), onlink: false, protocol: 4, plain: true, dev: None };
    let index = eth0(net);
    net.put_route(RouteKey { dst, metric: 100 }, index, route);
}

/// A peer's address is reached through the gateway from now on, or no longer.
pub(crate) fn reroute(net: &mut Net, family: Family, n: u8, away: bool) {
    let key = RouteKey { dst: Subnet::host(near(family, n)), metric: 7 };
    let route = Route { via: Some(gateway(family)), onlink: false, protocol: 4, plain: true, dev: None };
    let index = eth0(net);
    net.del_routes(|held, _| held == key);
    if away {
        net.put_route(key, index, route);
    }
}

/// The underlay goes down and comes up, with the address and the routes without which a family would only wait.
pub(crate) fn flap(net: &mut Net) {
    let Some(index) = eth0(net) else { return };
    net.set_down(index);
    net.set_up(index);
    net.add_address(index, public_ip(Family::V6, 1), 64);
    Family::BOTH.into_iter().for_each(|family| default_route(net, family));
}

/// The route to the underlay's own network is there, or not.
pub(crate) fn connect(net: &mut Net, family: Family, there: bool) {
    let (key, route) = on_link(family);
    let index = eth0(net);
    net.del_routes(|held, _| held == key);
    if there {
        net.put_route(key, index, route);
    }
}

fn happen(world: &mut World, event: Event) {
    let index = eth0(&world.kernel.net);
    let net = &mut world.kernel.net;
    match event {
        Event::Moves(n, is_near) => world.put(node(n, is_near)),
        Event::Leaves(n) => world.remove(&plain(n).name),
        Event::Rerouted(family, n, away) => reroute(net, family, n, away),
        Event::NicFlaps => flap(net),
        Event::NetworkGone(family) => connect(net, family, false),
        Event::NetworkBack(family) => connect(net, family, true),
        Event::DirectGone(family, n) => net.del_routes(|key, it| key.dst == pod_cidr(family, n) && it.oif == index),
        Event::FallbackGone(family, n) => {
            net.del_routes(|key, it| key.dst == pod_cidr(family, n) && it.oif != index);
        }
        Event::FlannelDirect(family, n) => {
            let (key, route) = flannel_direct(net, family, n);
            net.del_routes(|held, _| held == key);
            net.put_route(key, index, route);
        }
        Event::Meddle(family, meddle) => meddle.act(net, family),
        Event::Switch(on) => {
            world.settings.overlay.direct_routing = on;
        }
        Event::Restart => world.restart(),
        Event::Pass => {
            watch(world);
            world.pass();
            world.kernel.check(|_, _| ());
        }
    }
}

pub(crate) fn flannel_direct(net: &Net, family: Family, n: u8) -> (RouteKey, Route) {
    let key = RouteKey { dst: pod_cidr(family, n), metric: flannel_metric(family) };
    let route = Route::direct(near(family, n), eth0(net).expect("the underlay"));
    (key, Route { protocol: PROTOCOL_BOOT, ..route })
}

proptest! {
    #![proptest_config(cases(60))]

    /// Whatever happens to peers, to the underlay and to the tables: no change of ours cuts anybody off, and
    /// in the end each peer has the routes that its place asks for.
    #[test]
    fn every_peer_gets_the_routes_of_its_place_without_a_gap(events in vec(any_event(), 1..30)) {
        let mut world = world();
        for event in events {
            happen(&mut world, event);
        }
        // Of a route in flannel's form nobody can say whose it was, once its peer is elsewhere.
        let stale = |key: RouteKey, it: &MainRoute| {
            let boot = it.route.protocol == PROTOCOL_BOOT && it.oif == eth0(&world.kernel.net);
            boot && !Family::BOTH.into_iter().flat_map(|family| world.wanted(family)).any(|peer| {
                peer.subnet == key.dst && it.route.via == Some(peer.public_ip)
            })
        };
        let stale: Vec<RouteKey> =
            world.kernel.net.routes().filter(|(key, it)| stale(*key, it)).map(|(key, _)| key).collect();
        world.kernel.net.del_routes(|key, it| stale.contains(&key) && it.route.protocol == PROTOCOL_BOOT);
        world.snapshot.lists += 1;
        world.snapshot.generation += 1;
        watch(&mut world);
        let report = world.settle();
        prop_assert_eq!(&report.verdict, &Verdict::Converged, "{:#?}", report.families);
        assert_right(&world);
        let before = world.kernel.operations();
        world.restart();
        world.pass();
        prop_assert_eq!(world.kernel.operations(), before, "a restart wrote something");
    }
}

#[test]
fn a_peer_that_moves_costs_one_row_each_way() {
    let mut world = world();
    world.pass();
    for (away, verb) in [(true, "del"), (false, "add"), (true, "del")] {
        happen(&mut world, Event::Rerouted(Family::V4, 2, away));
        watch(&mut world);
        let report = world.pass();
        let told: Vec<_> = report.changes.iter().map(|change| (change.op.to_string(), change.cause)).collect();
        let metric = peer_metric(pod_cidr(Family::V4, 2));
        let row = format!("ip route {verb} 10.244.2.0/24 via 192.168.174.3 dev eth0 proto 119 metric {metric}");
        assert_eq!(told, [(row, Cause::LocalChanged)]);
    }
}

#[test]
fn flannels_direct_routes_are_taken_over_without_a_gap() {
    let mut world = world();
    let net = &mut world.kernel.net;
    let rows: Vec<_> = Family::BOTH.into_iter().map(|family| flannel_direct(net, family, 2)).collect();
    let index = eth0(net);
    rows.iter().for_each(|(key, route)| net.put_route(*key, index, *route));
    watch(&mut world);
    assert_eq!(world.pass().verdict, Verdict::Converged);
    assert_right(&world);
    assert!(world.kernel.net.routes().all(|(_, it)| it.route.protocol != PROTOCOL_BOOT));
}

#[test]
fn what_only_looks_like_flannels_stays() {
    let mut world = world();
    let index = eth0(&world.kernel.net);
    // Another gateway than the peer's; the pod CIDR of nobody; another metric.
    let rows = [(2, 9, 0), (77, 2, 0), (2, 2, 2000)].map(|(n, via, metric)| {
        let key = RouteKey { dst: pod_cidr(Family::V4, n), metric };
        let route = Route { protocol: PROTOCOL_BOOT, ..Route::direct(near(Family::V4, via), index.unwrap()) };
        (key, Route { dev: None, ..route })
    });
    rows.iter().for_each(|(key, route)| world.kernel.net.put_route(*key, index, *route));
    let report = world.pass();
    for (key, route) in rows {
        let there = world.kernel.net.routes().any(|(held, it)| held == key && it.route == route);
        assert!(there, "{key:?} is gone");
    }
    let shadows = report.families.v4.expect("the family").shadows;
    assert_eq!(shadows.len(), 1, "{shadows:?}");
    assert!(shadows[0].problem.contains("dev eth0"), "{shadows:?}");
}

#[test]
fn direct_routing_can_be_turned_off_and_handed_over() {
    let mut world = world();
    world.pass();
    world.settings.overlay.direct_routing = false;
    watch(&mut world);
    assert_eq!(world.pass().verdict, Verdict::Converged);
    assert_right(&world);
    world.settings.overlay.direct_routing = true;
    watch(&mut world);
    assert_eq!(world.pass().verdict, Verdict::Converged);
    watch(&mut world);
    let scope = world.scope();
    let tried = leave(&mut world.kernel, &scope, Leave::HandOver).expect("a look");
    assert!(tried.iter().all(|(_, ack)| *ack == weft::model::op::Ack::Done), "{tried:?}");
    let net = &world.kernel.net;
    for family in Family::BOTH {
        for n in 1..=PEERS {
            let index = if n % 2 == 0 { eth0(net) } else { net.index(&device(family)) };
            let (key, route) = if n % 2 == 0 {
                let (key, route) = flannel_direct(net, family, n);
                (key, Route { dev: None, ..route })
            } else {
                flannel_route(pod_cidr(family, n))
            };
            assert_eq!(routes_to(net, pod_cidr(family, n)), [(key, MainRoute { oif: index, route })]);
        }
    }
}

#[test]
fn leaving_takes_direct_routes_along() {
    let mut world = world();
    world.pass();
    let scope = world.scope();
    leave(&mut world.kernel, &scope, Leave::Remove).expect("a look");
    assert_eq!(installed(&world.kernel.net), BTreeSet::new());
    // Also if somebody has removed the device before.
    world.pass();
    Family::BOTH.into_iter().for_each(|family| world.kernel.net.del_link(&device(family)));
    assert!(!installed(&world.kernel.net).is_empty());
    leave(&mut world.kernel, &scope, Leave::Remove).expect("a look");
    assert_eq!(installed(&world.kernel.net), BTreeSet::new());
}

/// Each of two routes that go waited for the other: flannel's beside ours under one key, and the fallback of
/// direct routing, which is off again.
#[test]
fn a_second_route_under_our_key_and_an_old_fallback_do_not_wait_for_each_other() {
    for family in Family::BOTH {
        let mut world = world();
        happen(&mut world, Event::Pass);
        happen(&mut world, Event::Switch(false));
        happen(&mut world, Event::Meddle(family, Meddle::FlannelRoute(2)));
        world.kernel.check(|_, _| ());
        let report = world.settle();
        assert_eq!(report.verdict, Verdict::Converged, "{family}: {:?}", report.families);
        assert_right(&world);
    }
}
