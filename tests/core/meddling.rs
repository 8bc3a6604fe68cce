//! What others do to the kernel, and what goes wrong on the way to it.

use proptest::prelude::*;
use weft::kernel::ObserveError;
use weft::kernel::fake::{Fate, Fault, Net};
use weft::model::addr::{Family, IfName, Mac, Vni};
use weft::model::table::{Entry, Fdb, PROTOCOL_KERNEL, PROTOCOL_WEFT, Route, RouteKey};

use crate::world::{add_underlay, device, flannel_route, ip, peer, pod_cidr, public_ip, rows, vtep_mac};

/// One disturbance. Numbers are peers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Meddle {
    RouteGone(u8),
    NeighbourGone(u8),
    FdbGone(u8),
    RouteElsewhere(u8),
    RouteAppended(u8),
    RoutePrepended(u8),
    NeighbourElsewhere(u8),
    FdbElsewhere(u8),
    FdbGroup(u8),
    StaleRoute(u8),
    StaleNeighbour(u8),
    StaleFdb(u8),
    FlannelRoute(u8),
    RouteByHand(u8),
    OddRoute(u8),
    FloodEntry,
    RoutesFlushed,
    NeighboursFlushed,
    Resolved(u8),
    Learned(u8),
    Down,
    DownAndUp,
    DeviceGone,
    DeviceOther(u32),
    DeviceRenamed,
    Mac,
    Mtu(u32),
    Local,
    Learning,
    AddressGone,
    AddressExtra,
    Ipv6Off,
    UnderlayRemade,
}

pub(crate) fn any_meddle(peers: u8) -> impl Strategy<Value = (Family, Meddle)> {
    let n = || 1..=peers;
    let row = prop_oneof![
        n().prop_map(Meddle::RouteGone),
        n().prop_map(Meddle::NeighbourGone),
        n().prop_map(Meddle::FdbGone),
        n().prop_map(Meddle::RouteElsewhere),
        n().prop_map(Meddle::RouteAppended),
        n().prop_map(Meddle::RoutePrepended),
        n().prop_map(Meddle::NeighbourElsewhere),
        n().prop_map(Meddle::FdbElsewhere),
        n().prop_map(Meddle::FdbGroup),
        n().prop_map(Meddle::StaleRoute),
        n().prop_map(Meddle::StaleNeighbour),
        n().prop_map(Meddle::StaleFdb),
        n().prop_map(Meddle::FlannelRoute),
        n().prop_map(Meddle::RouteByHand),
        n().prop_map(Meddle::OddRoute),
        n().prop_map(Meddle::Resolved),
        n().prop_map(Meddle::Learned),
    ];
    let device = prop_oneof![
        Just(Meddle::FloodEntry),
        Just(Meddle::RoutesFlushed),
        Just(Meddle::NeighboursFlushed),
        Just(Meddle::Down),
        Just(Meddle::DownAndUp),
        Just(Meddle::DeviceGone),
        (2..4_u32).prop_map(Meddle::DeviceOther),
        Just(Meddle::DeviceRenamed),
        Just(Meddle::Mac),
        prop_oneof![Just(1000), Just(1400), Just(1279)].prop_map(Meddle::Mtu),
        Just(Meddle::Local),
        Just(Meddle::Learning),
        Just(Meddle::AddressGone),
        Just(Meddle::AddressExtra),
        Just(Meddle::Ipv6Off),
        Just(Meddle::UnderlayRemade),
    ];
    let family = prop_oneof![Just(Family::V4), Just(Family::V6)];
    (family, prop_oneof![3 => row, 2 => device])
}

impl Meddle {
    pub(crate) fn act(self, net: &mut Net, family: Family) {
        if let Self::UnderlayRemade = self {
            net.del_link(&IfName::new("eth0"));
            add_underlay(net);
            return;
        }
        let Some(index) = net.index(&device(family)) else { return };
        let route_of = |n| match rows(&peer(family, n)) {
            [_, _, Entry::Route(key, route)] => (key, route),
            rows => panic!("{rows:?}"),
        };
        match self {
            Self::RouteGone(n) => net.del_routes(|key, it| it.oif == Some(index) && key.dst == pod_cidr(family, n)),
            Self::NeighbourGone(n) => net.del_neighbour(index, pod_cidr(family, n).base()),
            Self::FdbGone(n) => net.del_fdb(index, vtep_mac(family, n)),
            Self::RouteElsewhere(n) => {
                let (key, _) = route_of(n);
                net.del_routes(|held, it| it.oif == Some(index) && held == key);
                net.put_route(key, Some(index), Route::through(pod_cidr(family, 99).base()));
            }
            Self::RouteAppended(n) => {
                net.put_route(route_of(n).0, Some(index), Route::through(pod_cidr(family, 97).base()));
            }
            Self::RoutePrepended(n) => {
                let (key, route) = route_of(n);
                net.del_routes(|held, it| it.oif == Some(index) && held == key);
                net.put_route(key, Some(index), Route::through(pod_cidr(family, 96).base()));
                net.put_route(key, Some(index), route);
            }
            Self::NeighbourElsewhere(n) => {
                net.put_neighbour(index, pod_cidr(family, n).base(), Mac([2, 9, 9, 9, 9, n]));
            }
            Self::FdbElsewhere(n) => net.put_fdb(index, vtep_mac(family, n), Fdb::to(public_ip(family, 99))),
            Self::FdbGroup(n) => {
                net.del_fdb(index, vtep_mac(family, n));
                net.group_fdb(index, vtep_mac(family, n));
            }
            Self::StaleRoute(n) => {
                let dst = pod_cidr(family, 100 + n);
                net.put_route(RouteKey { dst, metric: u32::from(n) }, Some(index), Route::through(dst.base()));
            }
            Self::StaleNeighbour(n) => net.put_neighbour(index, pod_cidr(family, 100 + n).base(), vtep_mac(family, n)),
            Self::StaleFdb(n) => net.put_fdb(index, Mac([2, 8, 8, 8, 8, n]), Fdb::to(public_ip(family, n))),
            Self::FlannelRoute(n) => {
                let (key, route) = flannel_route(pod_cidr(family, n));
                net.del_routes(|held, it| it.oif == Some(index) && held == key);
                net.put_route(key, Some(index), route);
            }
            Self::RouteByHand(n) => {
                let key = RouteKey { dst: pod_cidr(family, n), metric: 2 };
                net.del_routes(|held, it| it.oif == Some(index) && held == key);
                net.put_route(key, Some(index), Route { protocol: 3, ..Route::through(pod_cidr(family, 98).base()) });
            }
            Self::OddRoute(n) => {
                let route = Route { via: None, onlink: false, protocol: PROTOCOL_WEFT, plain: false, dev: None };
                net.put_route(RouteKey { dst: pod_cidr(family, 120 + n), metric: 77 }, Some(index), route);
            }
            Self::FloodEntry => net.put_fdb(index, Mac([0; 6]), Fdb::to(public_ip(family, 9))),
            Self::RoutesFlushed => net.flush_routes(index),
            Self::NeighboursFlushed => net.flush_neighbours(index),
            Self::Resolved(n) => net.resolve(index, pod_cidr(family, n).base()),
            Self::Learned(n) => net.learn(index, vtep_mac(family, n), public_ip(family, 77)),
            other => other.act_on_device(net, family),
        }
    }

    fn act_on_device(self, net: &mut Net, family: Family) {
        let Some(index) = net.index(&device(family)) else { return };
        match self {
            Self::Down => net.set_down(index),
            Self::DownAndUp => {
                net.set_down(index);
                net.set_up(index);
            }
            Self::DeviceGone => net.del_link(&device(family)),
            Self::DeviceOther(vni) => net.set_vxlan(index, |vxlan| vxlan.vni = Vni::new(vni).unwrap()),
            Self::DeviceRenamed => {
                // Under another name it blocks ours by its VNI and port, so it gets others; and routes on it
                // that are not weft's would be somebody else's from now on, and block a peer for good.
                net.del_routes(|_, it| {
                    it.oif == Some(index) && ![PROTOCOL_KERNEL, PROTOCOL_WEFT].contains(&it.route.protocol)
                });
                net.rename(index, &format!("old{}", index.0));
                net.set_vxlan(index, |vxlan| vxlan.port = 4789);
            }
            Self::Mac => net.set_mac(index, Mac([2, 7, 7, 7, 7, 7])),
            Self::Mtu(mtu) => net.set_mtu(index, mtu),
            Self::Local => net.set_vxlan(index, |vxlan| vxlan.local = Some(public_ip(family, 66))),
            Self::Learning => net.set_vxlan(index, |vxlan| vxlan.learning = true),
            Self::AddressGone => net.del_address(index, pod_cidr(family, 0).base(), family.bits()),
            Self::AddressExtra => {
                let extra = ip(if family == Family::V4 { "10.244.0.99" } else { "fd00:244::99" });
                if !net.links().any(|link| link.addresses.iter().any(|address| address.ip == extra)) {
                    net.add_address(index, extra, family.bits());
                }
            }
            Self::Ipv6Off => net.set_ipv6(index, false),
            other => panic!("{other:?} is about rows"),
        }
    }
}

/// A fault in a form that can be printed, shrunk and repeated.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trouble {
    Fate(Fate),
    Overtaken(Family, Meddle),
    Undone(Family, Meddle),
    Vanish,
    Die(bool),
}

impl Trouble {
    pub(crate) fn fault(self) -> Fault {
        match self {
            Self::Fate(fate) => Fault::Fate(fate),
            Self::Overtaken(family, meddle) => Fault::overtaken(move |net| meddle.act(net, family)),
            Self::Undone(family, meddle) => Fault::undone(move |net| meddle.act(net, family)),
            Self::Vanish => Fault::Vanish,
            Self::Die(done) => Fault::Die { done },
        }
    }
}

/// Faults after which what weft believes is still what is, or is known not to be.
pub(crate) fn any_honest_trouble() -> impl Strategy<Value = Trouble> {
    // ENOMEM, ENOBUFS, EPERM, EINVAL, EBUSY: nothing that means something else to the planner.
    let errno = proptest::sample::select(&[12, 105, 1, 22, 16][..]);
    prop_oneof![
        4 => errno.prop_map(|errno| Trouble::Fate(Fate::Refused(errno))),
        2 => Just(Trouble::Fate(Fate::DoneUnheard)),
        2 => Just(Trouble::Fate(Fate::NotDoneUnheard)),
        1 => any::<bool>().prop_map(Trouble::Die),
        1 => Just(Trouble::Vanish),
    ]
}

pub(crate) fn any_trouble(peers: u8) -> impl Strategy<Value = Trouble> {
    // ENOENT, ESRCH, EEXIST, ENODEV, EADDRNOTAVAIL, ENETDOWN: words that the planner gives a meaning to.
    let errno = proptest::sample::select(&[2, 3, 17, 19, 30, 95, 99, 100][..]);
    prop_oneof![
        5 => any_honest_trouble(),
        2 => errno.prop_map(|errno| Trouble::Fate(Fate::Refused(errno))),
        1 => Just(Trouble::Fate(Fate::Lie)),
        3 => any_meddle(peers).prop_map(|(family, meddle)| Trouble::Overtaken(family, meddle)),
        2 => any_meddle(peers).prop_map(|(family, meddle)| Trouble::Undone(family, meddle)),
    ]
}

pub(crate) fn any_blindness() -> impl Strategy<Value = ObserveError> {
    prop_oneof![
        Just(ObserveError::Torn { what: "routes", attempts: 5 }),
        Just(ObserveError::Refused { what: "links", refusal: weft::model::op::Refusal { errno: 1, text: None } }),
        Just(ObserveError::Broken { what: "neighbours", problem: "half an answer".into() }),
    ]
}
