//! The steps: operations of ours, and what somebody else does.

use std::fmt;
use std::net::IpAddr;

use weft::kernel::fake::Net;
use weft::model::addr::{Family, IfIndex, IfName, Mac, Subnet, Vni};
use weft::model::device::{DeviceSpec, device_name};
use weft::model::host::{Host, LinkKind};
use weft::model::op::{Dev, LinkOp, Op};
use weft::model::table::{Entry, Fdb, FdbKey, Neighbour, Route, RouteKey};

use super::Numbers;
use crate::sandbox::try_sh;
use crate::support::{ip, scope, subnet, vni};

/// The underlays and their addresses.
pub(super) const UNDERLAYS: [(&str, [&str; 2]); 2] =
    [("eth0", ["192.168.174.1/24", "fd00:174::1/64"]), ("eth1", ["192.168.175.1/24", "fd00:175::1/64"])];

/// One thing that happens to both kernels.
pub(super) enum Step {
    /// An operation of ours.
    Op(Named),
    /// Something that somebody else does.
    Disturb(Disturbance),
}

/// An operation whose devices still have no numbers.
pub(super) struct Named(Op);

impl Named {
    /// The operation in a kernel with these numbers.
    pub(super) fn on(&self, numbers: &Numbers) -> Op {
        let at = |dev: &Dev| Dev { index: numbers.get(&dev.name), name: dev.name.clone() };
        match &self.0 {
            Op::Set { dev, entry, replace } => Op::Set { dev: at(dev), entry: *entry, replace: *replace },
            Op::Del { dev, entry } => Op::Del { dev: at(dev), entry: *entry },
            Op::Filter(op) => Op::Filter(op.clone()),
            Op::Link(op) => Op::Link(match op {
                LinkOp::Create(spec) => {
                    LinkOp::Create(DeviceSpec { underlay: numbers.get(&spec.underlay_name), ..spec.clone() })
                }
                LinkOp::Delete(dev) => LinkOp::Delete(at(dev)),
                LinkOp::AddrGenNone(dev) => LinkOp::AddrGenNone(at(dev)),
                LinkOp::SetMac(dev, mac) => LinkOp::SetMac(at(dev), *mac),
                LinkOp::SetMtu(dev, mtu) => LinkOp::SetMtu(at(dev), *mtu),
                LinkOp::SetLocal(dev, ip) => LinkOp::SetLocal(at(dev), *ip),
                LinkOp::SetUnderlay(dev, to) => LinkOp::SetUnderlay(at(dev), at(to)),
                LinkOp::SetLearning(dev, on) => LinkOp::SetLearning(at(dev), *on),
                LinkOp::SetTtl(dev, ttl) => LinkOp::SetTtl(at(dev), *ttl),
                LinkOp::EnableIpv6(dev) => LinkOp::EnableIpv6(at(dev)),
                LinkOp::Up(dev) => LinkOp::Up(at(dev)),
                LinkOp::AddAddress(dev, ip, len) => LinkOp::AddAddress(at(dev), *ip, *len),
                LinkOp::DelAddress(dev, ip, len) => LinkOp::DelAddress(at(dev), *ip, *len),
            }),
        }
    }
}

/// What somebody else does. What does not apply changes nothing on either kernel.
#[derive(Debug)]
pub(super) enum Disturbance {
    Down(IfName),
    Up(IfName),
    Delete(IfName),
    /// There and back.
    Rename(IfName),
    /// An FDB entry of a nexthop group.
    Group(IfName, Mac, Family),
    Mac(IfName, Mac),
    DisableIpv6(IfName),
    FlushRoutes(IfName, Family),
    FlushNeighbours(IfName),
    /// Somebody else's route in the main table, over the first underlay.
    Route(Subnet, u32),
    Unroute(Subnet, u32),
    /// An FDB entry that the device learned.
    Learn(IfName, Mac, IpAddr),
    AddAddress(IfName, IpAddr, u8),
    DelAddress(IfName, IpAddr, u8),
}

impl Disturbance {
    pub(super) fn linux(&self) {
        let option = |family| if family == Family::V4 { "-4" } else { "-6" };
        // What is not there cannot be disturbed.
        let _ = match self {
            Self::Down(name) => try_sh(&format!("ip link set {name} down")),
            Self::Up(name) => try_sh(&format!("ip link set {name} up")),
            Self::Delete(name) => try_sh(&format!("ip link del {name}")),
            Self::Rename(name) => {
                let _ = try_sh(&format!("ip link set {name} name elsewhere"));
                try_sh(&format!("ip link set elsewhere name {name}"))
            }
            Self::Group(name, mac, family) => {
                let (id, via) = if *family == Family::V4 { (1, "192.168.174.9") } else { (2, "fd00:174::9") };
                let _ = try_sh(&format!("ip nexthop add id {id} via {via} fdb"));
                let _ = try_sh(&format!("ip nexthop add id {id}0 group {id} fdb"));
                try_sh(&format!("bridge fdb add {mac} dev {name} nhid {id}0"))
            }
            Self::Mac(name, mac) => try_sh(&format!("ip link set {name} address {mac}")),
            Self::DisableIpv6(name) => std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1")
                .map(|()| String::new())
                .map_err(|error| error.to_string()),
            Self::FlushRoutes(name, family) => try_sh(&format!("ip {} route flush dev {name}", option(*family))),
            Self::FlushNeighbours(name) => {
                // Permanent ones only go if they are named.
                for nud in ["permanent", "all"] {
                    let _ = try_sh(&format!("ip neigh flush dev {name} nud {nud}"));
                }
                Ok(String::new())
            }
            Self::Route(dst, metric) => {
                let via = if dst.family() == Family::V4 { "192.168.174.9" } else { "fd00:174::9" };
                try_sh(&format!(
                    "ip {} route add {dst} via {via} dev eth0 proto 4 metric {metric}",
                    option(dst.family())
                ))
            }
            Self::Unroute(dst, metric) => {
                try_sh(&format!("ip {} route del {dst} dev eth0 proto 4 metric {metric}", option(dst.family())))
            }
            Self::Learn(name, mac, dst) => try_sh(&format!("bridge fdb add {mac} dev {name} dst {dst} self dynamic")),
            Self::AddAddress(name, ip, len) => {
                let nodad = if ip.is_ipv6() { "nodad" } else { "" };
                try_sh(&format!("ip address add {ip}/{len} dev {name} {nodad}"))
            }
            Self::DelAddress(name, ip, len) => try_sh(&format!("ip address del {ip}/{len} dev {name}")),
        };
    }

    pub(super) fn fake(&self, net: &mut Net) {
        let name = match self {
            Self::Down(name)
            | Self::Up(name)
            | Self::Delete(name)
            | Self::Rename(name)
            | Self::Group(name, ..)
            | Self::Mac(name, _)
            | Self::DisableIpv6(name)
            | Self::FlushRoutes(name, _)
            | Self::FlushNeighbours(name)
            | Self::Learn(name, ..)
            | Self::AddAddress(name, ..)
            | Self::DelAddress(name, ..) => name.clone(),
            Self::Route(..) | Self::Unroute(..) => IfName::new("eth0"),
        };
        let Some(index) = net.index(&name) else { return };
        let dev = Dev { index, name: name.clone() };
        match self {
            Self::Down(_) => net.set_down(index),
            Self::Up(_) => drop(net.ack(&Op::Link(LinkOp::Up(dev)))),
            Self::Delete(_) => net.del_link(&name),
            Self::Rename(_) => {
                net.rename(index, "elsewhere");
                net.rename(index, name.as_str());
            }
            Self::Group(_, mac, _) => net.group_fdb(index, *mac),
            Self::Mac(_, mac) => net.set_mac(index, *mac),
            Self::DisableIpv6(_) => net.set_ipv6(index, false),
            Self::FlushRoutes(_, family) => {
                net.del_routes(|key, route| route.oif == Some(index) && key.dst.family() == *family);
            }
            Self::FlushNeighbours(_) => net.flush_neighbours(index),
            Self::Route(dst, metric) => {
                let route =
                    Route { via: Some(foreign_gateway(*dst)), onlink: false, protocol: 4, plain: true, dev: None };
                let key = RouteKey { dst: *dst, metric: *metric };
                if net.routes().all(|(held, _)| held != key) {
                    net.put_route(key, Some(index), route);
                }
            }
            Self::Unroute(dst, metric) => {
                net.del_routes(|key, route| {
                    key == RouteKey { dst: *dst, metric: *metric }
                        && route.oif == Some(index)
                        && route.route.protocol == 4
                });
            }
            // A device learns addresses of its underlay's family.
            Self::Learn(_, mac, dst) => match net.link(&name).map(|link| &link.kind) {
                Some(LinkKind::Vxlan(vxlan)) if vxlan.local.map(Family::of) == Some(Family::of(*dst)) => {
                    net.learn(index, *mac, *dst);
                }
                _ => {}
            },
            Self::AddAddress(_, ip, len) => drop(net.ack(&Op::Link(LinkOp::AddAddress(dev, *ip, *len)))),
            Self::DelAddress(_, ip, len) => drop(net.ack(&Op::Link(LinkOp::DelAddress(dev, *ip, *len)))),
        }
    }
}

fn foreign_gateway(dst: Subnet) -> IpAddr {
    ip(if dst.family() == Family::V4 { "192.168.174.9" } else { "fd00:174::9" })
}

/// The interface of a route that is not over the device.
fn place(host: &Host, entry: &Entry) -> Option<Dev> {
    let Entry::Route(_, Route { dev: Some(index), .. }) = entry else { return None };
    let link = host.link_at(*index)?;
    Some(Dev { index: link.index, name: link.name.clone() })
}

/// Chooses; the same seed chooses the same.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn roll(&mut self, sides: usize) -> usize {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).expect("31 bits") % sides
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len())].clone()
    }

    /// Once in so many times.
    fn once_in(&mut self, times: usize) -> bool {
        self.roll(times) == 0
    }

    /// The next step in a kernel that looks like this.
    pub(super) fn step(&mut self, host: &Host) -> Step {
        let family = self.pick(&Family::BOTH);
        let name = device_name(family, vni());
        let dev = Dev { index: IfIndex(0), name: name.clone() };
        let there = host.link(&name).is_some();
        let op = match self.roll(if there { 20 } else { 6 }) {
            0..=2 if !there => Op::Link(LinkOp::Create(self.spec(family))),
            0 => Op::Link(LinkOp::Create(self.spec(family))),
            1..=3 => Op::Link(self.link_op(family, dev)),
            4..=5 => return Step::Disturb(self.disturbance(family, name)),
            6..=7 if !host.link(&name).is_some_and(|link| link.up) => Op::Link(LinkOp::Up(dev)),
            6..=8 => {
                match host
                    .tables
                    .get(family)
                    .as_ref()
                    .and_then(|tables| self.one_of(&tables.entries().collect::<Vec<_>>()))
                {
                    Some(entry) => Op::Del { dev: place(host, &entry).unwrap_or(dev), entry },
                    None => Op::Del { dev, entry: self.entry(family) },
                }
            }
            9 => Op::Del { dev, entry: self.entry(family) },
            10 | 11 => self.direct(family),
            _ => {
                let replace = self.once_in(2);
                Op::Set { dev, entry: self.entry(family), replace }
            }
        };
        Step::Op(Named(op))
    }

    /// A route over an underlay, through a gateway that is on its network or not.
    fn direct(&mut self, family: Family) -> Op {
        let key = RouteKey { dst: self.dst(family), metric: self.pick(&[0, 5, 7, 1024]) };
        let via = ip(match family {
            Family::V4 => self.pick(&["192.168.174.9", "192.168.174.9", "192.168.175.9", "192.0.2.9"]),
            Family::V6 => self.pick(&["fd00:174::9", "fd00:174::9", "fd00:175::9", "2001:db8::9"]),
        });
        let dev = Dev { index: IfIndex(0), name: IfName::new(self.pick(&["eth0", "eth0", "eth1"])) };
        let route = Route { protocol: self.pick(&[119, 119, 3]), ..Route::direct(via, dev.index) };
        Op::Set { dev, entry: Entry::Route(key, route), replace: self.once_in(2) }
    }

    fn one_of<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        if of.is_empty() { None } else { Some(self.pick(of)) }
    }

    fn spec(&mut self, family: Family) -> DeviceSpec {
        let underlay = IfName::new(self.pick(&["eth0", "eth0", "eth1", "gone"]));
        DeviceSpec {
            name: device_name(family, vni()),
            family,
            vni: if self.once_in(8) { Vni::new(2).expect("small") } else { vni() },
            port: if self.once_in(8) { 4789 } else { 8472 },
            gbp: self.once_in(8),
            learning: self.once_in(4),
            udp_checksum: family == Family::V6,
            underlay: IfIndex(0),
            underlay_name: underlay,
            local: self.local(family),
            mtu: self.mtu(),
            mac: self.mac(),
            address: own_address(family),
            network: scope().networks.get(family).expect("both"),
        }
    }

    fn link_op(&mut self, family: Family, dev: Dev) -> LinkOp {
        match self.roll(13) {
            0 => LinkOp::Delete(dev),
            1 => LinkOp::AddrGenNone(dev),
            2 => LinkOp::SetMac(dev, self.mac()),
            3 => LinkOp::SetMtu(dev, self.mtu()),
            4 => LinkOp::SetLocal(dev, self.local(family)),
            5 => {
                let to = IfName::new(self.pick(&["eth0", "eth1", "gone"]));
                LinkOp::SetUnderlay(dev, Dev { index: IfIndex(0), name: to })
            }
            6 => LinkOp::SetLearning(dev, self.once_in(2)),
            7 => LinkOp::EnableIpv6(dev),
            8 => LinkOp::Up(dev),
            10 => LinkOp::SetTtl(dev, self.pick(&[0, 1, 64])),
            9 => {
                let (ip, len) = self.address(family);
                LinkOp::DelAddress(dev, ip, len)
            }
            _ => {
                let (ip, len) = self.address(family);
                LinkOp::AddAddress(dev, ip, len)
            }
        }
    }

    fn disturbance(&mut self, family: Family, name: IfName) -> Disturbance {
        let dst = self.dst(family);
        let metric = self.pick(&[5, 7]);
        match self.roll(15) {
            0 => Disturbance::Down(name),
            1 => Disturbance::Up(name),
            2 => Disturbance::Delete(if self.once_in(3) { IfName::new("eth1") } else { name }),
            3 => Disturbance::Mac(name, self.pick(&[Mac([0x0a, 0, 0, 0, 0, 7]), Mac([0x0a, 0, 0, 0, 0, 8])])),
            4 => Disturbance::DisableIpv6(name),
            5 => Disturbance::FlushRoutes(name, family),
            6 => Disturbance::FlushNeighbours(name),
            7 | 8 => Disturbance::Route(dst, metric),
            9 => Disturbance::Unroute(dst, metric),
            10 => Disturbance::Learn(name, self.pick(&MACS), self.public(family)),
            11 => Disturbance::Rename(name),
            12 => Disturbance::Group(name, self.pick(&MACS), family),
            13 => {
                let (ip, len) = self.address(family);
                Disturbance::AddAddress(name, ip, len)
            }
            _ => {
                let (ip, len) = self.address(family);
                Disturbance::DelAddress(name, ip, len)
            }
        }
    }

    fn entry(&mut self, family: Family) -> Entry {
        match self.roll(3) {
            0 => {
                let key = RouteKey { dst: self.dst(family), metric: self.pick(&[0, 5, 7, 1024]) };
                // The route to a VTEP address itself, which IPv6 wants beside a direct one.
                if family == Family::V6 && self.once_in(6) {
                    let key = RouteKey { dst: Subnet::host(key.dst.base()), metric: 1024 };
                    return Entry::Route(key, Route::over_the_device());
                }
                let via = match self.roll(8) {
                    0 => None,
                    1 => Some(own_address(family)),
                    2 => Some(ip(if family == Family::V4 { "192.168.174.1" } else { "fd00:174::1" })),
                    3 => Some(self.dst(family).base()),
                    _ => Some(key.dst.base()),
                };
                let protocol = self.pick(&[119, 119, 3]);
                // Over its device weft never asks for a gateway that is not onlink.
                Entry::Route(key, Route { via, onlink: via.is_some(), protocol, plain: true, dev: None })
            }
            1 => Entry::Neighbour(self.dst(family).base(), Neighbour { mac: self.pick(&MACS) }),
            _ => {
                let mac = if self.once_in(4) {
                    self.pick(&[Mac([0; 6]), Mac([1, 0, 0x5e, 0, 0, 1])])
                } else {
                    self.pick(&MACS)
                };
                let of = if self.once_in(10) { other(family) } else { family };
                let dst = self.public(of);
                Entry::Fdb(FdbKey::new(mac, dst), Fdb::to(dst))
            }
        }
    }

    fn dst(&mut self, family: Family) -> Subnet {
        subnet(match family {
            Family::V4 => self.pick(&["10.244.1.0/24", "10.244.2.0/24", "10.244.3.0/24"]),
            Family::V6 => self.pick(&["fd00:10:244:1::/64", "fd00:10:244:2::/64", "fd00:10:244:3::/64"]),
        })
    }

    fn public(&mut self, family: Family) -> IpAddr {
        ip(match family {
            Family::V4 => self.pick(&["192.168.174.2", "192.168.174.3"]),
            Family::V6 => self.pick(&["fd00:174::2", "fd00:174::3"]),
        })
    }

    fn local(&mut self, family: Family) -> IpAddr {
        ip(match if self.once_in(10) { other(family) } else { family } {
            Family::V4 => self.pick(&["192.168.174.1", "192.168.175.1", "192.0.2.1"]),
            Family::V6 => self.pick(&["fd00:174::1", "fd00:175::1", "2001:db8::1"]),
        })
    }

    fn address(&mut self, family: Family) -> (IpAddr, u8) {
        match if self.once_in(6) { other(family) } else { family } {
            Family::V4 => (ip(self.pick(&["10.244.0.0", "10.244.0.0", "10.244.0.5"])), self.pick(&[32, 32, 24])),
            Family::V6 => {
                (ip(self.pick(&["fd00:10:244::", "fd00:10:244::", "fd00:10:244::5"])), self.pick(&[128, 128, 64]))
            }
        }
    }

    fn mtu(&mut self) -> u32 {
        self.pick(&[1450, 1430, 1400, 1400, 1280, 1279, 1451, 68, 67])
    }

    fn mac(&mut self) -> Mac {
        if self.once_in(10) { self.pick(&[Mac([1, 0, 0x5e, 0, 0, 1]), Mac([0; 6])]) } else { self.pick(&MACS) }
    }
}

const MACS: [Mac; 3] = [Mac([0x0a, 0, 0, 0, 0, 1]), Mac([0x0a, 0, 0, 0, 0, 2]), Mac([0x0a, 0, 0, 0, 0, 3])];

fn own_address(family: Family) -> IpAddr {
    ip(if family == Family::V4 { "10.244.0.0" } else { "fd00:10:244::" })
}

const fn other(family: Family) -> Family {
    match family {
        Family::V4 => Family::V6,
        Family::V6 => Family::V4,
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Op(Named(op)) => op.fmt(f),
            Self::Disturb(disturbance) => write!(f, "somebody: {disturbance:?}"),
        }
    }
}
