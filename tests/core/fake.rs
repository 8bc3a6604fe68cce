//! The in-memory kernel behaves as Linux does. `tests/kernel` compares the two operation by operation;
//! here each habit has a name.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use weft::kernel::fake::{FakeKernel, Fate, Fault, Net};
use weft::kernel::{Kernel, ObserveError};
use weft::model::addr::{ByFamily, Family, IfIndex, IfName, Mac, Subnet, Vni};
use weft::model::device::DeviceSpec;
use weft::model::host::Scope;
use weft::model::op::{Ack, Dev, LinkOp, Op};
use weft::model::table::{Entry, Fdb, FdbKey, Neighbour, PROTOCOL_KERNEL, Route, RouteKey};

const EEXIST: i32 = 17;
const ENODEV: i32 = 19;
const EINVAL: i32 = 22;
const ENETDOWN: i32 = 100;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn mac(last: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, last])
}

fn subnet(text: &str) -> Subnet {
    text.parse().unwrap()
}

/// A host with an underlay and both of our devices, up, with addresses; three rows on each.
struct Bench {
    net: Net,
    underlay: IfIndex,
}

impl Bench {
    fn bare() -> Self {
        let mut net = Net::new();
        let underlay = net.add_link("eth0", "", mac(1), 1500);
        net.set_up(underlay);
        net.add_address(underlay, ip("192.168.174.1"), 24);
        net.add_address(underlay, ip("fd01::1"), 64);
        Self { net, underlay }
    }

    fn new() -> Self {
        let mut bench = Self::bare();
        for family in Family::BOTH {
            let spec = bench.spec(family);
            bench.ok(&Op::Link(LinkOp::Create(spec.clone())));
            let dev = bench.dev(family);
            bench.ok(&Op::Link(LinkOp::AddrGenNone(dev.clone())));
            bench.ok(&Op::Link(LinkOp::AddAddress(dev.clone(), spec.address, family.bits())));
            bench.ok(&Op::Link(LinkOp::Up(dev)));
            for entry in rows(family) {
                bench.ok(&bench.set(family, entry, false));
            }
        }
        bench
    }

    fn spec(&self, family: Family) -> DeviceSpec {
        let v4 = family == Family::V4;
        DeviceSpec {
            name: IfName::new(if v4 { "flannel.1" } else { "flannel-v6.1" }),
            family,
            vni: Vni::new(1).unwrap(),
            port: 8472,
            gbp: false,
            learning: false,
            udp_checksum: family == Family::V6,
            underlay: self.underlay,
            underlay_name: IfName::new("eth0"),
            local: ip(if v4 { "192.168.174.1" } else { "fd01::1" }),
            mtu: if v4 { 1450 } else { 1430 },
            mac: mac(0x10),
            address: ip(if v4 { "10.244.0.0" } else { "fd00:244::" }),
            network: subnet(if v4 { "10.244.0.0/16" } else { "fd00:244::/48" }),
        }
    }

    fn dev(&self, family: Family) -> Dev {
        let name = self.spec(family).name;
        Dev { index: self.net.index(&name).unwrap_or(IfIndex(99)), name }
    }

    fn set(&self, family: Family, entry: Entry, replace: bool) -> Op {
        Op::Set { dev: self.dev(family), entry, replace }
    }

    fn del(&self, family: Family, entry: Entry) -> Op {
        Op::Del { dev: self.dev(family), entry }
    }

    fn ok(&mut self, op: &Op) {
        self.net.apply(op).unwrap_or_else(|refusal| panic!("{op}: {refusal}"));
    }

    fn refused(&mut self, op: &Op) -> i32 {
        let before = self.net.clone();
        let errno = self.net.apply(op).expect_err("a refusal").errno;
        assert_eq!(self.net, before, "{op} was refused but changed something");
        errno
    }

    /// Routes, neighbours and FDB entries that are left.
    fn left(&self, family: Family) -> [usize; 3] {
        let tables = self.net.tables(self.dev(family).index, family).unwrap_or_default();
        [tables.routes.len(), tables.neighbours.len(), tables.fdb.len()]
    }

    fn addresses(&self, family: Family) -> usize {
        let link = self.net.link(&self.spec(family).name).unwrap();
        link.addresses.iter().filter(|address| Family::of(address.ip) == family).count()
    }
}

fn peer(family: Family) -> (Subnet, IpAddr) {
    match family {
        Family::V4 => (subnet("10.244.1.0/24"), ip("192.168.174.2")),
        Family::V6 => (subnet("fd00:244:0:1::/64"), ip("fd01::2")),
    }
}

fn rows(family: Family) -> [Entry; 3] {
    let (dst, public_ip) = peer(family);
    [
        Entry::Fdb(FdbKey::new(mac(0x11), public_ip), Fdb::to(public_ip)),
        Entry::Neighbour(dst.base(), Neighbour { mac: mac(0x11) }),
        Entry::Route(RouteKey { dst, metric: 5 }, Route::through(dst.base())),
    ]
}

#[test]
fn down_drops_routes_and_neighbours_and_ipv6_addresses_but_no_fdb_entry() {
    let mut bench = Bench::new();
    for family in Family::BOTH {
        let index = bench.dev(family).index;
        bench.net.set_down(index);
        bench.net.set_up(index);
        assert_eq!(bench.left(family), [0, 0, 1], "{family}");
        assert_eq!(bench.addresses(family), usize::from(family == Family::V4), "{family}");
    }
}

#[test]
fn a_new_mac_drops_the_neighbours_alone_even_if_it_is_the_old_one() {
    let mut bench = Bench::new();
    for family in Family::BOTH {
        let op = Op::Link(LinkOp::SetMac(bench.dev(family), mac(0x10)));
        bench.ok(&op);
        assert_eq!(bench.left(family), [1, 0, 1], "{family}");
    }
}

#[test]
fn with_the_last_ipv4_address_go_routes_and_neighbours_and_with_the_last_ipv6_address_nothing() {
    let mut bench = Bench::new();
    bench.ok(&Op::Link(LinkOp::DelAddress(bench.dev(Family::V4), ip("10.244.0.0"), 32)));
    bench.ok(&Op::Link(LinkOp::DelAddress(bench.dev(Family::V6), ip("fd00:244::"), 128)));
    assert_eq!(bench.left(Family::V4), [0, 0, 1]);
    assert_eq!(bench.left(Family::V6), [1, 1, 1]);
}

#[test]
fn a_second_address_saves_the_routes() {
    let mut bench = Bench::new();
    bench.ok(&Op::Link(LinkOp::AddAddress(bench.dev(Family::V4), ip("10.244.9.9"), 32)));
    bench.ok(&Op::Link(LinkOp::DelAddress(bench.dev(Family::V4), ip("10.244.0.0"), 32)));
    assert_eq!(bench.left(Family::V4), [1, 1, 1]);
}

#[test]
fn the_underlay_takes_the_device_with_it_and_the_next_one_has_a_new_number() {
    let mut bench = Bench::new();
    let old = bench.dev(Family::V4);
    bench.net.del_link(&IfName::new("eth0"));
    assert_eq!(bench.net.links().count(), 1);
    assert_eq!(bench.net.routes().count(), 0);
    let underlay = bench.net.add_link("eth0", "", mac(1), 1500);
    bench.underlay = underlay;
    bench.ok(&Op::Link(LinkOp::Create(bench.spec(Family::V4))));
    assert_ne!(bench.dev(Family::V4).index, old.index);
    assert_eq!(bench.refused(&Op::Link(LinkOp::Up(old.clone()))), ENODEV);
    let [fdb, neighbour, route] = rows(Family::V4);
    for entry in [fdb, neighbour, route] {
        assert_eq!(bench.refused(&Op::Set { dev: old.clone(), entry, replace: true }), ENODEV);
    }
    assert_eq!(bench.refused(&Op::Del { dev: old, entry: route }), 3, "ESRCH");
}

#[test]
fn a_device_that_is_down_takes_neighbours_and_fdb_entries_but_no_routes() {
    let mut bench = Bench::new();
    for family in Family::BOTH {
        bench.net.set_down(bench.dev(family).index);
        let [fdb, neighbour, route] = rows(family);
        bench.ok(&bench.set(family, fdb, true));
        bench.ok(&bench.set(family, neighbour, false));
        assert_eq!(bench.refused(&bench.set(family, route, false)), ENETDOWN, "{family}");
    }
}

#[test]
fn a_gateway_that_is_an_address_of_this_host_is_refused() {
    let mut bench = Bench::new();
    let cni = bench.net.add_link("cni0", "bridge", mac(7), 1450);
    bench.net.add_address(cni, ip("10.244.8.0"), 32);
    bench.net.add_address(cni, ip("fd00:244:0:8::"), 128);
    for (family, dst) in [(Family::V4, "10.244.8.0/24"), (Family::V6, "fd00:244:0:8::/64")] {
        let dst = subnet(dst);
        let route = Entry::Route(RouteKey { dst, metric: 7 }, Route::through(dst.base()));
        assert_eq!(bench.refused(&bench.set(family, route, false)), EINVAL, "{family}");
    }
}

#[test]
fn before_the_first_ipv4_address_no_gateway_is_valid() {
    let mut net = Net::new();
    let underlay = net.add_link("eth0", "", mac(1), 1500);
    let mut bench = Bench { net, underlay };
    bench.ok(&Op::Link(LinkOp::Create(bench.spec(Family::V4))));
    bench.ok(&Op::Link(LinkOp::Up(bench.dev(Family::V4))));
    let [_, _, route] = rows(Family::V4);
    assert_eq!(bench.refused(&bench.set(Family::V4, route, false)), EINVAL);
    bench.net.set_up(IfIndex(1));
    bench.ok(&bench.set(Family::V4, route, false));
}

#[test]
fn an_exclusive_route_is_refused_and_a_replacing_one_takes_a_foreign_route_over() {
    let mut bench = Bench::new();
    let (dst, _) = peer(Family::V4);
    let key = RouteKey { dst, metric: 9 };
    let foreign = Route { via: None, onlink: false, protocol: 4, plain: true, dev: None };
    bench.net.put_route(key, Some(bench.underlay), foreign);
    let ours = Entry::Route(key, Route::through(dst.base()));
    assert_eq!(bench.refused(&bench.set(Family::V4, ours, false)), EEXIST);
    bench.ok(&bench.set(Family::V4, ours, true));
    let (_, found) = bench.net.routes().find(|(found, _)| *found == key).unwrap();
    assert_eq!(found.oif, Some(bench.dev(Family::V4).index));
}

#[test]
fn a_route_goes_by_its_whole_value_and_a_neighbour_by_its_key() {
    let mut bench = Bench::new();
    let (dst, _) = peer(Family::V4);
    let key = RouteKey { dst, metric: 5 };
    let others = [Route { protocol: 3, ..Route::through(dst.base()) }, Route::through(ip("10.244.7.7"))];
    for other in others {
        assert_eq!(bench.refused(&bench.del(Family::V4, Entry::Route(key, other))), 3, "ESRCH");
    }
    bench.ok(&bench.del(Family::V4, Entry::Route(key, Route::through(dst.base()))));
    let neighbour = Entry::Neighbour(dst.base(), Neighbour { mac: mac(0x77) });
    bench.ok(&bench.del(Family::V4, neighbour));
    assert_eq!(bench.refused(&bench.del(Family::V4, neighbour)), 2, "ENOENT");
}

#[test]
fn a_delete_with_metric_zero_takes_the_first_route_that_fits() {
    let mut bench = Bench::new();
    let (dst, _) = peer(Family::V4);
    bench.ok(&bench.del(Family::V4, Entry::Route(RouteKey { dst, metric: 0 }, Route::through(dst.base()))));
    assert_eq!(bench.left(Family::V4), [0, 1, 1]);
}

#[test]
fn an_fdb_delete_with_another_destination_succeeds_and_removes_nothing() {
    let mut bench = Bench::new();
    let other = ip("192.168.174.77");
    bench.ok(&bench.del(Family::V4, Entry::Fdb(FdbKey::new(mac(0x11), other), Fdb::to(other))));
    assert_eq!(bench.left(Family::V4), [1, 1, 1]);
    let absent = Entry::Fdb(FdbKey::new(mac(0x12), other), Fdb::to(other));
    assert_eq!(bench.refused(&bench.del(Family::V4, absent)), 2, "ENOENT");
}

#[test]
fn an_fdb_set_changes_a_unicast_destination_and_refuses_other_macs_and_other_families() {
    let mut bench = Bench::new();
    let other = ip("192.168.174.77");
    bench.ok(&bench.set(Family::V4, Entry::Fdb(FdbKey::new(mac(0x11), other), Fdb::to(other)), false));
    let tables = bench.net.tables(bench.dev(Family::V4).index, Family::V4).unwrap();
    assert_eq!(tables.fdb.values().collect::<Vec<_>>(), [&Fdb::to(other)]);
    for odd in [Mac([0; 6]), Mac([1, 0, 0x5e, 0, 0, 1])] {
        let entry = Entry::Fdb(FdbKey::new(odd, other), Fdb::to(other));
        assert_eq!(bench.refused(&bench.set(Family::V4, entry, true)), 95, "EOPNOTSUPP");
    }
    let six = Entry::Fdb(FdbKey::new(mac(0x12), ip("fd01::2")), Fdb::to(ip("fd01::2")));
    assert_eq!(bench.refused(&bench.set(Family::V4, six, false)), 97, "EAFNOSUPPORT");
}

#[test]
fn what_the_kernel_resolved_or_learned_does_not_show_and_is_taken_over() {
    let mut bench = Bench::new();
    let index = bench.dev(Family::V4).index;
    bench.net.resolve(index, ip("10.244.2.0"));
    bench.net.learn(index, mac(0x12), ip("192.168.174.3"));
    assert_eq!(bench.left(Family::V4), [1, 1, 1]);
    bench.ok(&bench.set(Family::V4, Entry::Neighbour(ip("10.244.2.0"), Neighbour { mac: mac(0x12) }), false));
    let dst = ip("192.168.174.4");
    bench.ok(&bench.set(Family::V4, Entry::Fdb(FdbKey::new(mac(0x12), dst), Fdb::to(dst)), false));
    assert_eq!(bench.left(Family::V4), [1, 2, 2]);
}

#[test]
fn the_same_vni_on_the_same_port_is_refused_within_a_family() {
    let mut bench = Bench::new();
    let rival = DeviceSpec { name: IfName::new("vxlan9"), ..bench.spec(Family::V4) };
    assert_eq!(bench.refused(&Op::Link(LinkOp::Create(rival.clone()))), EEXIST);
    bench.ok(&Op::Link(LinkOp::Create(DeviceSpec { port: 4789, ..rival.clone() })));
    let gbp = DeviceSpec { name: IfName::new("vxlan10"), gbp: true, ..rival };
    bench.ok(&Op::Link(LinkOp::Create(gbp.clone())));
    let dev = Dev { index: bench.net.index(&gbp.name).unwrap(), name: gbp.name };
    assert_eq!(bench.refused(&Op::Link(LinkOp::Up(dev))), 98, "EADDRINUSE: it cannot share the socket");
}

#[test]
fn an_mtu_that_is_too_large_is_cut_at_creation_and_refused_afterwards() {
    let mut bench = Bench::bare();
    for family in Family::BOTH {
        let spec = DeviceSpec { mtu: 9000, ..bench.spec(family) };
        bench.ok(&Op::Link(LinkOp::Create(spec)));
        let room = 1500 - family.vxlan_overhead();
        assert_eq!(bench.net.link(&bench.spec(family).name).unwrap().mtu, room);
        let dev = bench.dev(family);
        assert_eq!(bench.refused(&Op::Link(LinkOp::SetMtu(dev.clone(), room + 1))), EINVAL);
        bench.ok(&Op::Link(LinkOp::SetMtu(dev, room)));
    }
}

#[test]
fn ipv6_switched_off_drops_everything_of_it_and_refuses_more() {
    let mut bench = Bench::new();
    let dev = bench.dev(Family::V6);
    bench.net.set_ipv6(dev.index, false);
    assert_eq!(bench.left(Family::V6), [0, 0, 1]);
    let [_, neighbour, route] = rows(Family::V6);
    assert_eq!(bench.refused(&bench.set(Family::V6, neighbour, false)), EINVAL);
    assert_eq!(bench.refused(&bench.set(Family::V6, route, false)), 13, "EACCES");
    let address = Op::Link(LinkOp::AddAddress(dev.clone(), ip("fd00:244::"), 128));
    assert_eq!(bench.refused(&address), 13, "EACCES");
    bench.ok(&Op::Link(LinkOp::EnableIpv6(dev)));
    assert_eq!(bench.addresses(Family::V6), 0, "nothing comes back by itself");
    bench.ok(&address);
    bench.ok(&bench.set(Family::V6, route, false));
}

#[test]
fn an_mtu_below_1280_takes_ipv6_away_and_more_brings_it_back_with_its_defaults() {
    let mut bench = Bench::new();
    let dev = bench.dev(Family::V6);
    bench.ok(&Op::Link(LinkOp::SetMtu(dev.clone(), 1279)));
    assert_eq!(bench.left(Family::V6), [0, 0, 1]);
    assert_eq!(bench.net.link(&dev.name).unwrap().ipv6_disabled, None);
    bench.ok(&Op::Link(LinkOp::SetMtu(dev.clone(), 1400)));
    let link = bench.net.link(&dev.name).unwrap();
    assert!(!link.addrgen_none);
    assert_eq!(link.addresses.iter().map(|address| address.ip).collect::<Vec<_>>(), [ip("fe80::ff:fe00:10")]);
}

#[test]
fn addrgenmode_none_keeps_the_link_local_address_away() {
    let mut bench = Bench::bare();
    bench.ok(&Op::Link(LinkOp::Create(bench.spec(Family::V4))));
    bench.ok(&Op::Link(LinkOp::Create(bench.spec(Family::V6))));
    bench.ok(&Op::Link(LinkOp::AddrGenNone(bench.dev(Family::V6))));
    for family in Family::BOTH {
        bench.ok(&Op::Link(LinkOp::Up(bench.dev(family))));
        let link = bench.net.link(&bench.spec(family).name).unwrap();
        assert_eq!(link.addresses.len(), usize::from(family == Family::V4), "fe80:: on the one without the mode");
    }
}

#[test]
fn an_observation_shows_what_is_ours_and_what_is_in_the_way() {
    let mut bench = Bench::new();
    let (dst, _) = peer(Family::V4);
    let cni = bench.net.add_link("cni0", "bridge", mac(7), 1450);
    bench.net.add_address(cni, ip("10.244.0.1"), 24);
    bench.net.set_up(cni);
    let plain = |via| Route { via: Some(ip(via)), onlink: false, protocol: 4, plain: true, dev: None };
    bench.net.put_route(RouteKey { dst, metric: 3 }, Some(bench.underlay), plain("192.168.174.9"));
    bench.net.put_route(RouteKey { dst: subnet("172.17.0.0/16"), metric: 0 }, Some(cni), plain("10.244.0.9"));
    bench.net.put_route(
        RouteKey { dst: subnet("0.0.0.0/0"), metric: 100 },
        Some(bench.underlay),
        plain("192.168.174.254"),
    );
    let device = |family| Some(bench.spec(family).name);
    let network = |family| Some(bench.spec(family).network);
    let scope = Scope {
        devices: ByFamily::from_fn(device),
        networks: ByFamily::from_fn(network),
        reach: Some(ip("10.244.0.77")),
        ways: false,
    };
    let host = bench.net.observe(&scope);
    let foreign: Vec<_> = host.foreign.iter().map(|route| (route.dst.to_string(), route.protocol)).collect();
    assert_eq!(foreign, [("10.244.0.0/24".into(), PROTOCOL_KERNEL), ("10.244.1.0/24".into(), 4)]);
    assert_eq!(host.defaults.len(), 1);
    assert_eq!(host.reach, Some((cni, ip("10.244.0.1"))));
    for family in Family::BOTH {
        let tables = host.tables.get(family).as_ref().unwrap();
        assert_eq!(tables.entries().collect::<Vec<_>>(), rows(family), "without the kernel's own");
    }
}

#[test]
fn every_fault_happens_at_its_operation_and_only_there() {
    let [fdb, neighbour, _] = rows(Family::V4);
    let errors = |fault: Fault| {
        let bench = Bench::new();
        let ops = [bench.del(Family::V4, fdb), bench.set(Family::V4, fdb, false), bench.del(Family::V4, neighbour)];
        let mut kernel = FakeKernel::new(bench.net);
        kernel.fail(2, fault);
        let acks = kernel.apply(&ops);
        assert_eq!(kernel.unspent(), 0);
        let tables = kernel.net.tables(kernel.net.index(&IfName::new("flannel.1"))?, Family::V4)?;
        Some((acks, tables.fdb.len(), tables.neighbours.len()))
    };
    let outcome = |fault| {
        let (acks, fdb, neighbours) = errors(fault).unwrap();
        assert_eq!(acks[0], Ack::Done);
        (acks[1].clone(), acks[2].clone(), fdb, neighbours)
    };
    assert!(matches!(outcome(Fault::refused(12)), (Ack::Refused(refusal), Ack::Done, 0, 0) if refusal.errno == 12));
    assert!(matches!(outcome(Fault::Fate(Fate::DoneUnheard)), (Ack::Unknown(_), Ack::Done, 1, 0)));
    assert!(matches!(outcome(Fault::Fate(Fate::NotDoneUnheard)), (Ack::Unknown(_), Ack::Done, 0, 0)));
    assert!(matches!(outcome(Fault::Fate(Fate::Lie)), (Ack::Done, Ack::Done, 0, 0)));
    assert!(matches!(outcome(Fault::Die { done: true }), (Ack::Unknown(_), Ack::Unknown(_), 1, 1)));
    assert!(matches!(outcome(Fault::Die { done: false }), (Ack::Unknown(_), Ack::Unknown(_), 0, 1)));
    let flush = |net: &mut Net| net.flush_neighbours(net.index(&IfName::new("flannel.1")).unwrap());
    assert!(matches!(outcome(Fault::overtaken(flush)), (Ack::Done, Ack::Refused(_), 1, 0)));
    assert!(matches!(outcome(Fault::undone(flush)), (Ack::Done, Ack::Refused(_), 1, 0)));
    assert_eq!(errors(Fault::Vanish), None);
}

#[test]
fn a_dead_process_sees_nothing_until_the_next_one_starts() {
    let bench = Bench::new();
    let op = bench.set(Family::V4, rows(Family::V4)[0], true);
    let mut kernel = FakeKernel::new(bench.net);
    kernel.fail(1, Fault::Die { done: false });
    let _unheard = kernel.apply(std::slice::from_ref(&op));
    assert!(kernel.is_dead());
    assert!(matches!(kernel.observe(&Scope::default()), Err(ObserveError::Broken { .. })));
    kernel.calm();
    assert!(kernel.observe(&Scope::default()).is_ok());
    assert_eq!(kernel.operations(), 1, "what a dead process asked for does not count");
}

#[test]
fn an_observation_fails_when_it_is_told_to() {
    let mut kernel = FakeKernel::default();
    kernel.fail_observation(2, ObserveError::Torn { what: "routes", attempts: 5 });
    assert!(kernel.observe(&Scope::default()).is_ok());
    assert!(kernel.observe(&Scope::default()).is_err());
    assert!(kernel.observe(&Scope::default()).is_ok());
}

#[test]
fn the_check_sees_every_state_between_two_operations() {
    let bench = Bench::new();
    let [fdb, neighbour, _] = rows(Family::V4);
    let ops = [bench.del(Family::V4, fdb), bench.del(Family::V4, neighbour)];
    let mut kernel = FakeKernel::new(bench.net);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    kernel.check(move |net, tried| {
        let tables = net.tables(net.index(&IfName::new("flannel.1")).unwrap(), Family::V4).unwrap();
        log.lock().unwrap().push((tried.number, tables.fdb.len(), tables.neighbours.len()));
    });
    kernel.apply(&ops);
    assert_eq!(*seen.lock().unwrap(), [(1, 0, 1), (2, 0, 0)]);
    assert_eq!(kernel.take_tried().len(), 2);
}
