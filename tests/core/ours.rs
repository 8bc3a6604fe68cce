//! Our own side: the device follows the configuration, our Node and the underlay; and leaving.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use weft::kernel::fake::{Fault, Net};
use weft::model::addr::{ByFamily, Family, IfName, Mac, Vni};
use weft::model::host::LinkKind;
use weft::model::node::{NodeRecord, OwnNode};
use weft::plan::bridge::Leases;
use weft::plan::cause::Cause;
use weft::reconcile::{Input, Leave, Report, Verdict, leave, preview};

use crate::cluster::any_tame_node;
use crate::meddling::{Meddle, Trouble, any_honest_trouble, any_meddle};
use crate::properties::cases;
use crate::world::{MINUTE, World, cidr, device, flannel_route, ip, own, pod_cidr, public_ip, reaches, vtep_mac};

/// A change of what our device should be.
#[derive(Clone, Debug)]
enum Change {
    Port(u16),
    Gbp(bool),
    Learning(bool),
    Mtu(Option<u32>),
    UnderlayMtu(u32),
    UnderlayAddress(u8),
    PublicIp(Option<u8>),
    OwnNodeGone,
    Restart,
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        prop_oneof![Just(8472), Just(4789)].prop_map(Change::Port),
        any::<bool>().prop_map(Change::Gbp),
        any::<bool>().prop_map(Change::Learning),
        proptest::option::of(1350..9000_u32).prop_map(Change::Mtu),
        (1400..9000_u32).prop_map(Change::UnderlayMtu),
        (1..4_u8).prop_map(Change::UnderlayAddress),
        proptest::option::of(100..110_u8).prop_map(Change::PublicIp),
        Just(Change::OwnNodeGone),
        Just(Change::Restart),
    ]
}

fn own_with(world: &mut World, change: impl FnOnce(&mut OwnNode)) {
    let mut node = world.snapshot.own.as_deref().cloned().unwrap_or_else(own);
    change(&mut node);
    world.snapshot.own = Some(Arc::new(node));
    world.snapshot.generation += 1;
}

fn eth0(world: &World) -> weft::model::addr::IfIndex {
    world.kernel.net.index(&IfName::new("eth0")).unwrap()
}

/// Addresses of the underlay that stand for it: .1, .250, .251 of 192.168.174.0/24 and so on.
fn underlay_ip(family: Family, n: u8) -> IpAddr {
    public_ip(family, if n == 1 { 1 } else { 248 + n })
}

fn apply(world: &mut World, change: &Change) {
    match *change {
        Change::Port(port) => world.settings.overlay.port = port,
        Change::Gbp(gbp) => world.settings.overlay.gbp = gbp,
        Change::Learning(learning) => world.settings.overlay.learning = learning,
        Change::Mtu(mtu) => world.settings.overlay.mtu = mtu,
        Change::UnderlayMtu(mtu) => {
            let index = eth0(world);
            world.kernel.net.set_mtu(index, mtu);
        }
        Change::UnderlayAddress(n) => {
            let index = eth0(world);
            for family in Family::BOTH {
                let len = if family == Family::V4 { 24 } else { 64 };
                (1..4).for_each(|old| world.kernel.net.del_address(index, underlay_ip(family, old), len));
                world.kernel.net.add_address(index, underlay_ip(family, n), len);
            }
        }
        Change::PublicIp(n) => {
            own_with(world, |own| own.overwrite = ByFamily::from_fn(|family| n.map(|n| public_ip(family, n))));
        }
        Change::OwnNodeGone => world.snapshot.own = None,
        Change::Restart => {
            world.restart();
            own_with(world, |_| ());
        }
    }
}

proptest! {
    #![proptest_config(cases(32))]

    /// However often configuration, Node and underlay change: in the end the device is what they say,
    /// and every peer is reached.
    #[test]
    fn the_device_follows_what_it_depends_on(changes in vec((any_change(), any::<bool>()), 1..10)) {
        let mut world = World::with_peers(4);
        crate::world::lock(&world.watch).off = true;
        world.pass();
        for (change, look) in changes {
            apply(&mut world, &change);
            if look {
                world.pass();
            }
        }
        if world.snapshot.own.is_none() {
            own_with(&mut world, |_| ());
        }
        let report = world.settle();
        prop_assert_eq!(&report.verdict, &Verdict::Converged);
        let underlay = world.kernel.net.link(&IfName::new("eth0")).unwrap().clone();
        for family in Family::BOTH {
            prop_assert_eq!(world.tables(family).len(), 12);
            let link = world.kernel.net.link(&device(family)).unwrap();
            let LinkKind::Vxlan(vxlan) = &link.kind else { panic!("a VXLAN device") };
            let overlay = &world.settings.overlay;
            prop_assert_eq!((vxlan.vni, vxlan.port), (Vni::new(1).unwrap(), overlay.port));
            prop_assert_eq!((vxlan.gbp, vxlan.learning), (overlay.gbp, overlay.learning));
            prop_assert_eq!(vxlan.underlay, Some(underlay.index));
            let local = vxlan.local.unwrap();
            prop_assert!(underlay.addresses.iter().any(|address| address.ip == local), "{} is not on the host", local);
            prop_assert_eq!(link.mac, Some(vtep_mac(family, 0)));
            let outer = overlay.mtu.map_or(underlay.mtu, |mtu| mtu.min(underlay.mtu));
            prop_assert_eq!(link.mtu, outer - family.vxlan_overhead());
            prop_assert!(link.up && (link.addrgen_none || link.ipv6_disabled.is_none()));
            let addresses: Vec<_> = link.addresses.iter().map(|address| (address.ip, address.len)).collect();
            prop_assert_eq!(addresses, [(pod_cidr(family, 0).base(), family.bits())]);
            let said = report.families.get(family).as_ref().unwrap();
            let overwrite = world.snapshot.own.as_deref().and_then(|own| *own.overwrite.get(family));
            prop_assert!(said.ready && said.public_ip == overwrite.or(Some(local)));
        }
    }

    /// Handing over to flannel never leaves a peer without a route, whatever fails on the way; done again
    /// it is complete, and weft can take the node back as smoothly.
    #[test]
    fn handing_over_leaves_no_gap(
        peers in 1..8_u8,
        troubles in vec((1..24_u64, any_honest_trouble()), 0..4),
    ) {
        let mut world = World::with_peers(peers);
        world.converge();
        let reached = move |net: &Net| Family::BOTH.map(|family| {
            let tables = net.index(&device(family)).and_then(|index| net.tables(index, family)).unwrap_or_default();
            (1..=peers).filter(|n| reaches(&tables, pod_cidr(family, *n))).count()
        });
        world.kernel.check(move |net, tried| {
            let there = Family::BOTH.iter().all(|family| net.index(&device(*family)).is_some());
            assert!(!there || reached(net) == [usize::from(peers); 2], "{}: a gap", tried.op);
        });
        for (nth, trouble) in troubles.iter().filter(|(_, trouble)| !matches!(trouble, Trouble::Vanish)) {
            world.kernel.fail(*nth, trouble.fault());
        }
        let scope = world.scope();
        let _interrupted = leave(&mut world.kernel, &scope, Leave::HandOver);
        world.kernel.calm();
        leave(&mut world.kernel, &scope, Leave::HandOver).unwrap();
        for family in Family::BOTH {
            let routes: Vec<_> = world.tables(family).routes.into_iter().collect();
            let flannels: Vec<_> = (1..=peers).map(|n| flannel_route(pod_cidr(family, n))).collect();
            prop_assert_eq!(routes, flannels);
        }
        prop_assert!(leave(&mut world.kernel, &scope, Leave::HandOver).unwrap().is_empty());
        world.restart();
        world.converge();
    }

    /// A change has the cause that it has.
    #[test]
    fn every_change_is_explained(
        (family, meddle) in any_meddle(4),
        node in any_tame_node(6),
        gone in 1..=4_u8,
    ) {
        let mut world = World::with_peers(4);
        world.converge();
        let causes = |world: &mut World| world.pass().changes.iter().map(|change| change.cause).collect::<BTreeSet<_>>();
        meddle.act(&mut world.kernel.net, family);
        let found = causes(&mut world);
        if let Meddle::UnderlayRemade = meddle {
            prop_assert!(found.contains(&Cause::LocalChanged), "{:?}", found);
        } else {
            prop_assert!(found.iter().all(|cause| cause.is_drift()), "{:?}", found);
        }
        world.converge();
        let known = world.snapshot.nodes.contains_key(&node.name);
        world.put(node);
        let expected = [if known { Cause::NodeChanged } else { Cause::NodeJoined }, Cause::NodeLeft];
        let found = causes(&mut world);
        prop_assert!(found.iter().all(|cause| expected.contains(cause)), "{:?}", found);
        world.converge();
        world.remove(&crate::cluster::plain(gone).name);
        prop_assert_eq!(causes(&mut world), BTreeSet::from([Cause::NodeLeft]));
    }

    /// What a dry run tells is what a pass then does, operation by operation.
    #[test]
    fn a_dry_run_foretells_the_pass(
        nodes in vec(any_tame_node(6), 0..8),
        meddles in vec(any_meddle(6), 0..8),
    ) {
        let (foretold, done) = dry_and_real(nodes, &meddles);
        prop_assert_eq!(foretold, done);
    }
}

/// The operations of a dry run, and of the pass after it, on a node that knew other peers before.
fn dry_and_real(nodes: Vec<NodeRecord>, meddles: &[(Family, Meddle)]) -> (Vec<String>, Vec<String>) {
    let mut world = World::with_peers(6);
    world.pass();
    (1..=6).for_each(|n| world.remove(&crate::cluster::plain(n).name));
    world.put_all(nodes);
    for (family, meddle) in meddles {
        meddle.act(&mut world.kernel.net, *family);
    }
    world.restart();
    let host = world.kernel.net.observe(&world.scope());
    let input = Input { settings: &world.settings, snapshot: &world.snapshot, leases: &Leases::Unknown };
    let ops = |report: Report| report.changes.iter().map(|change| change.op.to_string()).collect();
    (ops(preview(&host, &input)), ops(world.pass()))
}

/// The device was moved out of the way by hand, and a route of its peers is up on it: whoever looks before
/// ours is made again sees that route too.
#[test]
fn a_dry_run_without_the_device_sees_its_routes_elsewhere() {
    let moved = [Meddle::Down, Meddle::RouteElsewhere(1), Meddle::DeviceRenamed].map(|it| (Family::V6, it));
    let (foretold, done) = dry_and_real(Vec::new(), &moved);
    assert_eq!(foretold, done);
    assert!(done.iter().any(|op| op.starts_with("ip -6 route del")), "{done:?}");
}

#[test]
fn a_change_that_the_kernel_can_make_in_place_does_not_remake_the_device() {
    let in_place = [
        Change::Learning(true),
        Change::Mtu(Some(1400)),
        Change::UnderlayMtu(1450),
        Change::UnderlayAddress(2),
        Change::PublicIp(Some(100)),
    ];
    for change in in_place {
        let mut world = World::with_peers(3);
        world.converge();
        let before = Family::BOTH.map(|family| (world.kernel.net.index(&device(family)), world.tables(family)));
        apply(&mut world, &change);
        world.settle();
        let after = Family::BOTH.map(|family| (world.kernel.net.index(&device(family)), world.tables(family)));
        assert_eq!(before, after, "{change:?}");
    }
}

#[test]
fn a_change_that_needs_a_new_device_brings_every_peer_back_in_the_same_pass() {
    for change in [Change::Port(4789), Change::Gbp(true)] {
        let mut world = World::with_peers(3);
        world.converge();
        let before = world.kernel.net.index(&device(Family::V4));
        apply(&mut world, &change);
        assert_eq!(world.pass().verdict, Verdict::Converged);
        assert_ne!(world.kernel.net.index(&device(Family::V4)), before);
        assert_eq!(Family::BOTH.map(|family| world.tables(family).len()), [9, 9]);
    }
}

#[test]
fn a_device_that_vanishes_half_way_is_back_with_every_row_in_the_same_pass() {
    for nth in 1..=26 {
        let mut world = World::with_peers(3);
        world.kernel.fail(nth, Fault::Vanish);
        let report = world.pass();
        assert_eq!(world.kernel.unspent(), 0);
        assert_eq!(report.verdict, Verdict::Converged, "operation {nth}: {report:#?}");
        world.assert_right();
    }
}

#[test]
fn an_underlay_too_small_for_ipv6_keeps_only_ipv6_waiting() {
    let mut world = World::with_peers(3);
    apply(&mut world, &Change::UnderlayMtu(1349));
    let report = world.settle();
    let waiting = report.families.v6.as_ref().unwrap().waiting.clone().unwrap();
    assert!(waiting.contains("leaves 1279 bytes") && waiting.contains("ip link set eth0 mtu 1350"), "{waiting}");
    assert!(report.families.v4.as_ref().unwrap().ready);
    assert_eq!(world.tables(Family::V4).len(), 9);
    apply(&mut world, &Change::UnderlayMtu(1350));
    assert_eq!(world.settle().verdict, Verdict::Converged);
    assert_eq!(world.tables(Family::V6).len(), 9);
}

#[test]
fn one_family_without_a_pod_cidr_does_not_keep_the_other_waiting() {
    for family in Family::BOTH {
        let mut world = World::with_peers(3);
        own_with(&mut world, |own| *own.subnet.get_mut(family) = Err("none yet".into()));
        let report = world.pass();
        let other = if family == Family::V4 { Family::V6 } else { Family::V4 };
        assert_eq!(report.verdict, Verdict::Incomplete);
        assert!(report.families.get(family).as_ref().unwrap().waiting.is_some());
        assert!(report.families.get(other).as_ref().unwrap().ready);
        assert_eq!(world.tables(other).len(), 9);
        assert!(world.kernel.net.index(&device(family)).is_none());
        own_with(&mut world, |node| *node = own());
        world.converge();
    }
}

#[test]
fn our_own_pod_cidr_moves_and_the_address_with_it() {
    let mut world = World::with_peers(3);
    world.converge();
    own_with(&mut world, |own| own.subnet = ByFamily::from_fn(|family| Ok(pod_cidr(family, 77))));
    crate::world::lock(&world.watch).off = true;
    let report = world.pass();
    assert_eq!(report.verdict, Verdict::Converged);
    // The new address comes first: with the last one IPv4 would lose its routes and neighbours.
    assert!(report.changes.iter().all(|change| change.op.entry().is_none()), "{:?}", report.changes);
    for family in Family::BOTH {
        let link = world.kernel.net.link(&device(family)).unwrap();
        let addresses: Vec<_> = link.addresses.iter().map(|address| address.ip).collect();
        assert_eq!(addresses, [pod_cidr(family, 77).base()]);
        assert_eq!(world.tables(family).len(), 9, "nothing was lost with the old address");
    }
}

#[test]
fn an_address_of_ours_that_is_no_source_is_made_again() {
    let spoil: [fn(&mut weft::model::Address); 2] =
        [|address| address.global = false, |address| address.deprecated = true];
    for family in Family::BOTH {
        for spoil in spoil {
            let mut world = World::with_peers(3);
            world.converge();
            let index = world.kernel.net.index(&device(family)).unwrap();
            world.kernel.net.set_address(index, pod_cidr(family, 0).base(), spoil);
            // With its only address the device loses its IPv4 routes and neighbours.
            crate::world::lock(&world.watch).off = true;
            let report = world.pass();
            assert_eq!(report.verdict, Verdict::Converged);
            let told: Vec<String> = report.changes.iter().take(2).map(|change| change.op.to_string()).collect();
            assert!(told[0].starts_with("ip addr del") && told[1].starts_with("ip addr add"), "{told:?}");
            let addresses = &world.kernel.net.link(&device(family)).unwrap().addresses;
            assert!(matches!(addresses[..], [weft::model::Address { global: true, deprecated: false, .. }]));
            crate::world::lock(&world.watch).off = false;
            world.converge();
        }
    }
}

#[test]
fn without_an_underlay_weft_waits_and_then_goes_on() {
    let mut world = World::with_peers(3);
    world.converge();
    world.kernel.net.del_link(&IfName::new("eth0"));
    let report = world.pass();
    assert!(matches!(&report.verdict, Verdict::Waiting(why) if why.contains("default route")), "{:?}", report.verdict);
    Meddle::UnderlayRemade.act(&mut world.kernel.net, Family::V4);
    assert_eq!(world.pass().verdict, Verdict::Converged);
    world.assert_right();
}

#[test]
fn our_own_node_deleted_by_mistake_does_not_stop_repairs() {
    let mut world = World::with_peers(3);
    world.converge();
    world.snapshot.own = None;
    let index = world.kernel.net.index(&device(Family::V4)).unwrap();
    world.kernel.net.flush_routes(index);
    assert_eq!(world.pass().verdict, Verdict::Converged);
    world.assert_right();
}

#[test]
fn another_devices_vni_and_port_are_named_as_the_problem() {
    let mut world = World::with_peers(3);
    world.pass();
    let index = world.kernel.net.index(&device(Family::V4)).unwrap();
    world.kernel.net.rename(index, "cilium_vxlan");
    let report = world.pass();
    let waiting = report.families.v4.as_ref().unwrap().waiting.clone().unwrap();
    assert!(waiting.contains("cilium_vxlan") && waiting.contains("ip link del"), "{waiting}");
    assert!(report.families.v6.as_ref().unwrap().ready);
    world.kernel.net.del_link(&IfName::new("cilium_vxlan"));
    world.converge();
}

#[test]
fn an_interface_of_our_name_that_is_no_vxlan_device_is_left_alone() {
    let mut world = World::with_peers(3);
    let dummy = world.kernel.net.add_link("flannel.1", "dummy", Mac([2, 0, 0, 0, 0, 9]), 1500);
    let report = world.pass();
    assert!(report.families.v4.as_ref().unwrap().waiting.as_ref().unwrap().contains("not a VXLAN device"));
    assert_eq!(world.kernel.net.index(&device(Family::V4)), Some(dummy));
}

#[test]
fn leaving_removes_the_devices_and_nothing_else() {
    let mut world = World::with_peers(3);
    let before = world.kernel.net.clone();
    world.converge();
    let scope = world.scope();
    leave(&mut world.kernel, &scope, Leave::Remove).unwrap();
    let links = |net: &weft::kernel::fake::Net| net.links().cloned().collect::<Vec<_>>();
    assert_eq!(links(&world.kernel.net), links(&before));
    let routes = |net: &weft::kernel::fake::Net| net.routes().map(|(key, it)| (key, it.clone())).collect::<Vec<_>>();
    assert_eq!(routes(&world.kernel.net), routes(&before));
    world.converge();
}

#[test]
fn a_device_with_what_flannels_never_has_is_made_right() {
    let mut world = World::with_peers(3);
    world.converge();
    let index = world.kernel.net.index(&device(Family::V4)).unwrap();
    world.kernel.net.set_vxlan(index, |vxlan| vxlan.ttl = 1);
    let told: Vec<String> = world.pass().changes.iter().map(|change| change.op.to_string()).collect();
    assert_eq!(told, ["ip link set flannel.1 type vxlan ttl auto"]);
    world.converge();
    world.kernel.net.set_vxlan(index, |vxlan| vxlan.special = true);
    crate::world::lock(&world.watch).off = true;
    assert_eq!(world.pass().verdict, Verdict::Converged);
    assert_ne!(world.kernel.net.index(&device(Family::V4)), Some(index), "made anew");
    crate::world::lock(&world.watch).off = false;
    world.converge();
}

#[test]
fn a_device_that_is_a_port_of_another_is_said_and_left() {
    let mut world = World::with_peers(3);
    world.converge();
    let index = world.kernel.net.index(&device(Family::V4)).unwrap();
    world.kernel.net.set_master(index, world.kernel.net.index(&IfName::new("docker0")));
    let report = world.pass();
    assert!(report.changes.is_empty());
    let said = report.families.v4.unwrap().enslaved.unwrap();
    assert!(said.contains("a port of docker0") && said.contains("ip link set flannel.1 nomaster"), "{said}");
    assert_eq!(report.families.v6.unwrap().enslaved, None);
}

#[test]
fn a_family_that_is_switched_off_is_said_and_leaves_with_the_other() {
    let mut world = World::with_peers(3);
    world.converge();
    world.settings.overlay.networks.v6 = None;
    let report = world.pass();
    assert_eq!((&report.verdict, report.changes.len()), (&Verdict::Converged, 0));
    let [said] = &report.left_over[..] else { panic!("{:?}", report.left_over) };
    assert!(said.contains("ipv6 is off") && said.contains("ip link del flannel-v6.1"), "{said}");
    assert_eq!(world.tables(Family::V6).len(), 9, "nothing is removed unasked");
    crate::world::lock(&world.watch).off = true;
    leave(&mut world.kernel, &world.settings.overlay.scope_of_all(), Leave::Remove).unwrap();
    assert_eq!(Family::BOTH.map(|family| world.kernel.net.index(&device(family))), [None, None]);
    assert!(world.pass().left_over.is_empty());
}

#[test]
fn a_big_cluster_costs_three_rows_a_peer_and_a_change_only_its_own() {
    let mut world = World::new();
    let peers: u32 = 1500;
    let node = |n: u32| {
        let mut node = crate::cluster::plain(1);
        node.name = format!("node-{n:05}").into();
        node.standing = ByFamily::from_fn(|family| {
            let [high, low] = u16::try_from(n).unwrap().to_be_bytes();
            weft::model::node::Standing::Usable(weft::model::node::Peer {
                subnet: cidr(&match family {
                    Family::V4 => format!("10.244.{}.{}/28", 16 + n / 16, n % 16 * 16),
                    Family::V6 => format!("fd00:244:0:{:x}::/64", 0x1000 + n),
                }),
                mac: Some(Mac([0x0e, 1, 0, 0, high, low])),
                public_ip: ip(&match family {
                    Family::V4 => format!("172.30.{high}.{low}"),
                    Family::V6 => format!("fd30::{n:x}"),
                }),
            })
        });
        node
    };
    world.put_all((1..=peers).map(node));
    // The check compares whole kernels after each of nine thousand operations.
    world.kernel.check(|_, _| ());
    let device_ops = 2 * 4;
    assert_eq!(world.pass().verdict, Verdict::Converged);
    assert_eq!(world.kernel.operations(), u64::from(peers) * 6 + device_ops);
    let before = world.kernel.operations();
    world.now += MINUTE;
    world.restart();
    assert_eq!(world.pass().verdict, Verdict::Converged);
    assert_eq!(world.kernel.operations(), before, "a restart writes nothing");
    let mut moved = node(7);
    if let weft::model::node::Standing::Usable(peer) = &mut moved.standing.v4 {
        peer.public_ip = ip("172.31.0.7");
    }
    world.put(moved);
    let report = world.pass();
    assert_eq!(report.changes.len(), 1, "{:?}", report.changes);
}
