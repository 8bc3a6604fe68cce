//! The underlay is chosen once and stays: what appears beside it, and routes that are away for a moment, move
//! nothing; a flag does, and so does a route that stands.

use std::net::IpAddr;
use std::time::Duration;

use regex_lite::Regex;
use weft::model::addr::{ByFamily, Family, IfIndex, IfName, Mac};
use weft::model::host::LinkKind;
use weft::model::settings::UnderlayRules;
use weft::model::table::{Route, RouteKey};
use weft::plan::bridge::Leases;
use weft::plan::tenure::STANDS;
use weft::reconcile::{Input, Report, Verdict, preview};

use crate::world::{MINUTE, World, cidr, device, ip, own, public_ip};

const SECOND: Duration = Duration::from_secs(1);

fn len(family: Family) -> u8 {
    if family == Family::V4 { 24 } else { 64 }
}

/// The address of the second interface.
fn other(family: Family) -> IpAddr {
    ip(if family == Family::V4 { "172.31.5.1" } else { "fd31::1" })
}

/// A floating address, in the same network as the first interface's.
fn floating(family: Family) -> IpAddr {
    public_ip(family, 200)
}

fn index(world: &World, name: &str) -> IfIndex {
    world.kernel.net.index(&IfName::new(name)).unwrap()
}

/// Puts in a default route that is better than every other.
fn put_default(world: &mut World, name: &str, family: Family, metric: u32) {
    let (any, via) = match family {
        Family::V4 => (cidr("0.0.0.0/0"), ip("192.168.174.254")),
        Family::V6 => (cidr("::/0"), ip("fd01::fe")),
    };
    let index = index(world, name);
    let route = Route { via: Some(via), onlink: false, protocol: 4, plain: true, dev: None };
    world.kernel.net.put_route(RouteKey { dst: any, metric }, Some(index), route);
}

fn del_default(world: &mut World, name: &str, family: Family) {
    let index = index(world, name);
    world.kernel.net.del_routes(|key, it| key.dst.is_default() && key.dst.family() == family && it.oif == Some(index));
}

/// Two interfaces, each with an address and a default route of both families; the first has the better ones.
fn two() -> World {
    let mut world = World::with_peers(2);
    let eth1 = world.kernel.net.add_link("eth1", "", Mac([2, 0, 0, 0, 0, 9]), 1400);
    world.kernel.net.set_up(eth1);
    for family in Family::BOTH {
        world.kernel.net.add_address(eth1, other(family), len(family));
        put_default(&mut world, "eth1", family, 200);
    }
    world.converge();
    assert_eq!(Family::BOTH.map(|family| over(&world, family)), Family::BOTH.map(first));
    world
}

/// What the device of a family goes over.
fn over(world: &World, family: Family) -> (String, IpAddr) {
    let net = &world.kernel.net;
    let LinkKind::Vxlan(vxlan) = &net.link(&device(family)).unwrap().kind else { panic!("a VXLAN device") };
    let link = net.links().find(|link| Some(link.index) == vxlan.underlay).unwrap();
    (link.name.as_str().to_owned(), vxlan.local.unwrap())
}

fn first(family: Family) -> (String, IpAddr) {
    ("eth0".to_owned(), public_ip(family, 1))
}

fn second(family: Family) -> (String, IpAddr) {
    ("eth1".to_owned(), other(family))
}

fn moving(report: &Report, family: Family) -> Option<&str> {
    report.families.get(family).as_ref().unwrap().moving.as_deref()
}

/// Nothing is written, now and by an agent that starts again, nor much later.
fn nothing_moves(world: &mut World) {
    for restart in [false, true] {
        if restart {
            world.restart();
        }
        for _ in 0..2 {
            let report = world.pass();
            assert_eq!((report.verdict, report.changes.len()), (Verdict::Converged, 0));
            for family in Family::BOTH {
                let said = report.families.get(family).as_ref().unwrap();
                assert_eq!(said.public_ip, Some(public_ip(family, 1)), "announced");
            }
            world.now += MINUTE;
        }
    }
}

#[test]
fn an_address_that_appears_beside_moves_nothing() {
    let rules = [
        UnderlayRules::default(),
        UnderlayRules { iface: vec!["eth0".into()], ..UnderlayRules::default() },
        UnderlayRules { iface_regex: vec![Regex::new("eth0").unwrap()], ..UnderlayRules::default() },
        UnderlayRules { iface_regex: vec![Regex::new("^(192|fd01)").unwrap()], ..UnderlayRules::default() },
        UnderlayRules { can_reach: Some(ip("192.168.174.9")), ..UnderlayRules::default() },
    ];
    for rules in rules {
        let mut world = two();
        world.settings.underlay = rules;
        world.converge();
        let eth0 = index(&world, "eth0");
        for family in Family::BOTH {
            // By DHCP or from a router, and the floating one is listed first: it would be preferred twice over.
            world.kernel.net.del_address(eth0, public_ip(family, 1), len(family));
            world.kernel.net.add_address(eth0, floating(family), family.bits());
            world.kernel.net.add_address(eth0, public_ip(family, 1), len(family));
            world.kernel.net.set_address(eth0, public_ip(family, 1), |address| address.permanent = false);
        }
        nothing_moves(&mut world);
    }
}

#[test]
fn an_address_that_is_deprecated_stays_and_is_not_chosen() {
    let mut world = World::with_peers(2);
    world.converge();
    let eth0 = index(&world, "eth0");
    for family in Family::BOTH {
        world.kernel.net.set_address(eth0, public_ip(family, 1), |address| address.deprecated = true);
        world.kernel.net.add_address(eth0, floating(family), family.bits());
    }
    nothing_moves(&mut world);
    for family in Family::BOTH {
        world.kernel.net.del_link(&device(family));
    }
    world.restart();
    assert_eq!(world.pass().verdict, Verdict::Converged);
    let chosen = Family::BOTH.map(|family| over(&world, family).1);
    assert!(chosen.iter().all(|ip| Family::BOTH.iter().all(|family| *ip != public_ip(*family, 1))), "{chosen:?}");
}

#[test]
fn an_address_that_goes_is_followed_at_once() {
    let mut world = two();
    let eth0 = index(&world, "eth0");
    for family in Family::BOTH {
        world.kernel.net.add_address(eth0, floating(family), len(family));
        world.kernel.net.del_address(eth0, public_ip(family, 1), len(family));
        world.kernel.net.del_address(
            eth0,
            ip(if family == Family::V4 { "10.244.200.1" } else { "fd00:244:0:c8::1" }),
            len(family),
        );
    }
    assert_eq!(world.pass().verdict, Verdict::Converged);
    for family in Family::BOTH {
        assert_eq!(over(&world, family), ("eth0".to_owned(), floating(family)));
    }
}

#[test]
fn a_default_route_that_is_away_for_a_moment_moves_nothing() {
    for family in Family::BOTH {
        for restart in [false, true] {
            let mut world = two();
            del_default(&mut world, "eth0", family);
            if restart {
                world.restart();
            }
            let report = world.pass();
            assert_eq!((&report.verdict, report.changes.len()), (&Verdict::Converged, 0));
            let said = moving(&report, family).unwrap();
            assert!(said.contains("eth1") && said.contains("stays over eth0"), "{said}");
            assert_eq!(report.next_try, Some(world.now + STANDS), "the agent looks again then");
            world.now += STANDS.saturating_sub(SECOND);
            assert_eq!(world.pass().changes.len(), 0);
            put_default(&mut world, "eth0", family, 100);
            let report = world.pass();
            assert_eq!((report.changes.len(), moving(&report, family), report.next_try), (0, None, None));
            // The time does not add up.
            del_default(&mut world, "eth0", family);
            world.now += STANDS;
            assert_eq!(world.pass().changes.len(), 0);
            assert_eq!(over(&world, family), first(family));
        }
    }
}

#[test]
fn a_default_route_that_stands_is_followed_and_so_is_the_way_back() {
    for family in Family::BOTH {
        let mut world = two();
        del_default(&mut world, "eth0", family);
        let due = world.pass().next_try.unwrap();
        world.now = due.saturating_sub(Duration::from_millis(10));
        assert_eq!(world.pass().verdict, Verdict::Converged);
        assert_eq!(over(&world, family), second(family));
        put_default(&mut world, "eth0", family, 100);
        world.pass();
        assert_eq!(over(&world, family), second(family));
        world.now += STANDS;
        world.pass();
        assert_eq!(over(&world, family), first(family));
    }
}

#[test]
fn without_any_default_route_the_underlay_stays_while_it_is_up() {
    let mut world = two();
    for family in Family::BOTH {
        del_default(&mut world, "eth0", family);
        del_default(&mut world, "eth1", family);
    }
    nothing_moves(&mut world);
    // The other family's serves to begin with, and moves nothing.
    put_default(&mut world, "eth1", Family::V6, 100);
    world.settle();
    world.now += MINUTE;
    world.pass();
    assert_eq!(over(&world, Family::V4), first(Family::V4));
    assert_eq!(over(&world, Family::V6), second(Family::V6));
    let eth0 = index(&world, "eth0");
    world.kernel.net.set_down(eth0);
    let report = world.pass();
    assert!(report.families.v4.as_ref().unwrap().waiting.as_ref().unwrap().contains("default route"));
    world.kernel.net.set_up(eth0);
    world.converge();
    assert_eq!(over(&world, Family::V4), first(Family::V4));
}

#[test]
fn of_default_routes_with_one_metric_that_of_the_interface_in_use_counts() {
    let mut world = two();
    for family in Family::BOTH {
        del_default(&mut world, "eth0", family);
        put_default(&mut world, "eth1", family, 100);
        put_default(&mut world, "eth0", family, 100);
    }
    nothing_moves(&mut world);
}

#[test]
fn a_flag_wins_at_once_over_what_is_in_use() {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let rules = [
        UnderlayRules { iface: names(&["eth1"]), ..UnderlayRules::default() },
        UnderlayRules { iface: names(&["172.31.5.1"]), ..UnderlayRules::default() },
        UnderlayRules {
            iface: names(&["eth7"]),
            iface_regex: vec![Regex::new("^eth1$").unwrap()],
            ..UnderlayRules::default()
        },
        UnderlayRules { public_ip: ByFamily::from_fn(|family| Some(other(family))), ..UnderlayRules::default() },
    ];
    for rules in rules {
        for restart in [false, true] {
            let mut world = two();
            world.settings.underlay = rules.clone();
            if restart {
                world.restart();
            }
            assert_eq!(world.pass().verdict, Verdict::Converged);
            assert_eq!(Family::BOTH.map(|family| over(&world, family)), Family::BOTH.map(second), "{rules:?}");
        }
    }
    let mut world = two();
    world.settings.underlay.iface = names(&["eth7"]);
    assert!(matches!(world.pass().verdict, Verdict::Waiting(why) if why.contains("--iface=eth7")));
}

#[test]
fn an_address_that_was_to_be_announced_does_not_outstay_that() {
    let mut world = two();
    let announce = |world: &mut World, what: Option<IpAddr>| {
        let mut node = own();
        node.node_public_ip.v4 = what;
        world.snapshot.own = Some(node.into());
        world.snapshot.generation += 1;
        assert_eq!(world.pass().verdict, Verdict::Converged);
    };
    announce(&mut world, Some(other(Family::V4)));
    assert_eq!(over(&world, Family::V4), second(Family::V4));
    // One that no interface has (NAT).
    announce(&mut world, Some(ip("203.0.113.5")));
    assert_eq!(over(&world, Family::V4), first(Family::V4));
    announce(&mut world, None);
    assert_eq!(over(&world, Family::V4), first(Family::V4));
}

/// A node in 10.0.0.0/8 with the pod network inside, as flannel takes it: the longer prefix wins.
#[test]
fn an_ipv4_underlay_wider_than_the_pod_network_is_no_clash() {
    let mut world = World::with_peers(3);
    let eth0 = index(&world, "eth0");
    world.kernel.net.add_address(eth0, ip("10.0.7.1"), 8);
    world.converge();
    assert_eq!(Family::BOTH.map(|family| world.tables(family).len()), [9, 9]);
    // An address inside our own pod CIDR is another matter; so is such a network over IPv6, where the kernel would
    // refuse every gateway.
    world.kernel.net.add_address(eth0, ip("10.244.0.7"), 8);
    world.kernel.net.add_address(eth0, ip("fd00::1"), 16);
    let families = world.pass().families;
    for (of, says) in
        [(families.v4, "10.244.0.7/32 of the underlay eth0"), (families.v6, "fd00::/16 of the underlay eth0")]
    {
        let waiting = of.unwrap().waiting.unwrap();
        assert!(waiting.contains(says), "{waiting}");
    }
}

#[test]
fn a_dry_run_foretells_the_move() {
    let mut world = two();
    del_default(&mut world, "eth0", Family::V4);
    let host = world.kernel.net.observe(&world.scope());
    let input = Input { settings: &world.settings, snapshot: &world.snapshot, leases: &Leases::Unknown };
    let ops: Vec<_> = preview(&host, &input).changes.iter().map(|change| change.op.to_string()).collect();
    assert_eq!(ops[0], "ip link set flannel.1 type vxlan dev eth1");
}
