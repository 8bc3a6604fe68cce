//! A node in a namespace: an underlay, our devices on it, and peers.

use std::net::IpAddr;

use weft::kernel::Kernel;
use weft::kernel::netlink::Netlink;
use weft::model::addr::{ByFamily, Family, IfName, Mac, Subnet, Vni};
use weft::model::device::{DeviceSpec, device_name};
use weft::model::host::{Host, Link, Scope};
use weft::model::op::{Ack, Dev, LinkOp, Op, Refusal};
use weft::model::table::{Entry, Fdb, FdbKey, Neighbour, Route, RouteKey, Tables, peer_metric};

use crate::sandbox;

/// The underlay's name.
pub(crate) const UNDERLAY: &str = "eth0";

/// Parses what a test writes down.
pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Parses what a test writes down.
pub(crate) fn subnet(text: &str) -> Subnet {
    text.parse().expect("a subnet")
}

/// A MAC that no other number has.
pub(crate) fn mac(number: u32) -> Mac {
    let [a, b, c, d] = number.to_be_bytes();
    Mac([0x0a, 0x00, a, b, c, d])
}

/// Both devices, both networks.
pub(crate) fn scope() -> Scope {
    Scope {
        devices: ByFamily::from_fn(|family| Some(device_name(family, vni()))),
        networks: ByFamily { v4: Some(subnet("10.244.0.0/16")), v6: Some(subnet("fd00:10:244::/48")) },
        reach: None,
        ways: false,
    }
}

/// The VNI of every test.
pub(crate) fn vni() -> Vni {
    Vni::new(1).expect("small enough")
}

/// A thread's kernel, with an underlay on which devices can be made.
pub(crate) struct Node {
    /// The code under test.
    pub(crate) kernel: Netlink,
}

impl Node {
    /// A node with an underlay of both families.
    pub(crate) fn new() -> Self {
        sandbox::underlay(UNDERLAY, &["192.168.174.1/24", "fd00:174::1/64"]);
        Self { kernel: Netlink::open().expect("sockets") }
    }

    /// A node with both devices up and addressed.
    pub(crate) fn with_devices() -> Self {
        let mut node = Self::new();
        for family in Family::BOTH {
            node.make_device(family);
        }
        node
    }

    pub(crate) fn observe(&mut self) -> Host {
        self.kernel.observe(&scope()).expect("a look")
    }

    pub(crate) fn link(&mut self, name: &str) -> Link {
        self.observe().link(&IfName::new(name)).cloned().unwrap_or_else(|| panic!("no {name}"))
    }

    pub(crate) fn dev(&mut self, family: Family) -> Dev {
        let name = device_name(family, vni());
        let index = self.link(name.as_str()).index;
        Dev { index, name }
    }

    pub(crate) fn spec(&mut self, family: Family) -> DeviceSpec {
        let (local, address) = match family {
            Family::V4 => ("192.168.174.1", "10.244.0.0"),
            Family::V6 => ("fd00:174::1", "fd00:10:244::"),
        };
        DeviceSpec {
            name: device_name(family, vni()),
            family,
            vni: vni(),
            port: 8472,
            gbp: false,
            learning: false,
            udp_checksum: family == Family::V6,
            underlay: self.link(UNDERLAY).index,
            underlay_name: IfName::new(UNDERLAY),
            local: ip(local),
            mtu: 1500 - family.vxlan_overhead(),
            mac: mac(u32::from(family.bits())),
            address: ip(address),
            network: scope().networks.get(family).expect("both"),
        }
    }

    /// Makes a device by our own operations, in our order.
    pub(crate) fn make_device(&mut self, family: Family) -> Dev {
        let spec = self.spec(family);
        let address = (spec.address, family.bits());
        self.done(&[Op::Link(LinkOp::Create(spec))]);
        let dev = self.dev(family);
        self.done(&[
            Op::Link(LinkOp::AddrGenNone(dev.clone())),
            Op::Link(LinkOp::Up(dev.clone())),
            Op::Link(LinkOp::AddAddress(dev.clone(), address.0, address.1)),
        ]);
        dev
    }

    pub(crate) fn apply(&mut self, ops: &[Op]) -> Vec<Ack> {
        self.kernel.apply(ops)
    }

    /// Applies operations that must all succeed.
    pub(crate) fn done(&mut self, ops: &[Op]) {
        let acks = self.apply(ops);
        assert_eq!(acks.len(), ops.len());
        for (op, ack) in ops.iter().zip(acks) {
            assert_eq!(ack, Ack::Done, "{op}");
        }
    }

    /// Applies one operation that must be refused.
    pub(crate) fn refused(&mut self, op: &Op) -> Refusal {
        match self.apply(std::slice::from_ref(op)).pop() {
            Some(Ack::Refused(refusal)) => refusal,
            other => panic!("`{op}` should have been refused: {other:?}"),
        }
    }

    pub(crate) fn tables(&mut self, family: Family) -> Tables {
        self.observe().tables.get(family).clone().expect("a device")
    }
}

/// The pod CIDR of peer `number`.
pub(crate) fn pod_cidr(family: Family, number: u32) -> Subnet {
    match family {
        Family::V4 => Subnet::new(IpAddr::from((0x0af4_0000 + (number << 8)).to_be_bytes()), 24),
        Family::V6 => {
            Subnet::new(IpAddr::from((0xfd00_0010_0244_u128 << 80 | u128::from(number) << 64).to_be_bytes()), 64)
        }
    }
    .expect("a subnet")
}

/// The three rows of peer `number`.
pub(crate) fn rows(family: Family, number: u32) -> [Entry; 3] {
    let dst = pod_cidr(family, number);
    let public = match family {
        Family::V4 => IpAddr::from((0xac10_0000 + number).to_be_bytes()),
        Family::V6 => IpAddr::from((0xfd00_0174_u128 << 96 | u128::from(number)).to_be_bytes()),
    };
    let mac = mac(0x0100_0000 + number);
    [
        Entry::Fdb(FdbKey::new(mac, public), Fdb::to(public)),
        Entry::Neighbour(dst.base(), Neighbour { mac }),
        Entry::Route(RouteKey { dst, metric: peer_metric(dst) }, Route::through(dst.base())),
    ]
}

/// The rows of peers 1 to `count`.
pub(crate) fn peers(family: Family, count: u32) -> Tables {
    let mut tables = Tables::default();
    (1..=count).flat_map(|number| rows(family, number)).for_each(|row| tables.set(row));
    tables
}

/// The operations that put rows in.
pub(crate) fn sets(dev: &Dev, rows: impl IntoIterator<Item = Entry>) -> Vec<Op> {
    rows.into_iter().map(|entry| set(dev, entry, false)).collect()
}

/// Puts one row in.
pub(crate) fn set(dev: &Dev, entry: Entry, replace: bool) -> Op {
    Op::Set { dev: dev.clone(), entry, replace }
}

/// Takes one row out.
pub(crate) fn del(dev: &Dev, entry: Entry) -> Op {
    Op::Del { dev: dev.clone(), entry }
}
