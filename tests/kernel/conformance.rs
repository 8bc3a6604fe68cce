//! The kernel in memory against Linux: the same random operations and disturbances on both, and after each
//! the same answer and the same picture.
//!
//! `WEFT_CONFORMANCE_STEPS` and `WEFT_SEED` choose how many steps and which.

mod world;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::IpAddr;

use weft::kernel::Kernel;
use weft::kernel::fake::{FakeKernel, Net};
use weft::kernel::netlink::Netlink;
use weft::model::addr::{Family, IfIndex, IfName};
use weft::model::host::{Host, LinkKind, Scope, VxlanAttributes};
use weft::model::op::{Ack, Dev, LinkOp, Op};
use weft::model::table::{Entry, Route, Tables};

use crate::sandbox::{isolated, underlay};
use crate::support::scope;
use world::{Dice, Named, Step};

crate::tests![linux_in_memory_answers_and_changes_as_linux_does];

/// Steps in one namespace: few enough that a failure's story can be read.
const STORY: u64 = 50;

fn linux_in_memory_answers_and_changes_as_linux_does() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let steps = number("WEFT_CONFORMANCE_STEPS").unwrap_or(2000_u64);
    let seed = number("WEFT_SEED").unwrap_or(20_261_122);
    let mut seen = BTreeMap::new();
    for story in 0..steps.div_ceil(STORY) {
        let seed = seed + story;
        match isolated(|| tell(Dice::new(seed))) {
            Ok(kinds) => kinds.into_iter().for_each(|(kind, count)| *seen.entry(kind).or_insert(0) += count),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                panic!("WEFT_SEED={seed} WEFT_CONFORMANCE_STEPS={STORY}\n{text}");
            }
        }
    }
    // A test of random steps that are all refused would prove little.
    eprintln!("{seen:?}");
    for kind in ["done", "refused", "disturbed"] {
        assert!(seen.get(kind).copied().unwrap_or(0) >= steps / 10, "{seen:?}");
    }
}

/// One story: a fresh namespace and a fresh fake, and the same steps on both.
fn tell(mut dice: Dice) -> BTreeMap<&'static str, u64> {
    let mut both = Both::new();
    let mut story = Vec::new();
    let mut kinds = BTreeMap::new();
    for number in 0..STORY {
        let step = dice.step(&both.linux.observe(&everything()).expect("a look"));
        story.push(format!("{number:3} {step}"));
        let kind = both.take(&step).unwrap_or_else(|difference| panic!("{}\n{difference}", story.join("\n")));
        *kinds.entry(kind).or_insert(0) += 1;
    }
    kinds
}

/// The two kernels.
struct Both {
    linux: Netlink,
    fake: FakeKernel,
}

impl Both {
    fn new() -> Self {
        let mut net = Net::new();
        let lo = net.index(&IfName::new("lo")).expect("lo");
        net.set_up(lo);
        for (name, addresses) in world::UNDERLAYS {
            underlay(name, &addresses);
        }
        let mut linux = Netlink::open().expect("sockets");
        let host = linux.observe(&everything()).expect("a look");
        for (name, addresses) in world::UNDERLAYS {
            let link = host.link(&IfName::new(name)).expect("an underlay");
            let index = net.add_link(name, "veth", link.mac.expect("a MAC"), link.mtu);
            net.ack(&Op::Link(LinkOp::AddrGenNone(Dev { index, name: IfName::new(name) })));
            net.set_up(index);
            for address in addresses {
                let (ip, len) = address.split_once('/').expect("a CIDR");
                net.add_address(index, ip.parse().expect("an address"), len.parse().expect("a length"));
            }
        }
        let mut both = Self { linux, fake: FakeKernel::new(net) };
        both.compare().expect("the same start");
        both
    }

    /// Does a step on both. `Err` says how they differ afterwards.
    fn take(&mut self, step: &Step) -> Result<&'static str, String> {
        let kind = match step {
            Step::Op(op) => {
                let (linux, fake) = (answer(&mut self.linux, op), answer(&mut self.fake, op));
                same("answer", &linux, &fake)?;
                if linux == 0 { "done" } else { "refused" }
            }
            Step::Disturb(disturbance) => {
                disturbance.linux();
                disturbance.fake(&mut self.fake.net);
                "disturbed"
            }
        };
        self.compare()?;
        Ok(kind)
    }

    fn compare(&mut self) -> Result<(), String> {
        let linux = Picture::of(&self.linux.observe(&everything()).expect("a look"));
        let fake = Picture::of(&self.fake.observe(&everything()).expect("a look"));
        same("links", &linux.links, &fake.links)?;
        same("foreign and default routes", &linux.others, &fake.others)?;
        for family in Family::BOTH {
            let rows = |picture: &Picture| picture.rows.get(&family).cloned();
            same("rows", &rows(&linux), &rows(&fake))?;
        }
        Ok(())
    }
}

/// All that a look can cover.
fn everything() -> Scope {
    Scope { ways: true, ..scope() }
}

/// What a kernel answers: done is 0, a refusal its number.
fn answer(kernel: &mut impl Kernel, op: &Named) -> i32 {
    let numbers = Numbers::of(&kernel.observe(&everything()).expect("a look"));
    match kernel.apply(&[op.on(&numbers)])[..] {
        [Ack::Done] => 0,
        [Ack::Refused(ref refusal)] => refusal.errno,
        ref other => panic!("{other:?}"),
    }
}

fn same<T: PartialEq + Debug>(what: &str, linux: &T, fake: &T) -> Result<(), String> {
    if linux == fake { Ok(()) } else { Err(format!("{what} differ\n linux: {linux:?}\n fake:  {fake:?}")) }
}

/// The interfaces' numbers, which the two kernels give differently.
pub(crate) struct Numbers(BTreeMap<IfName, IfIndex>);

impl Numbers {
    fn of(host: &Host) -> Self {
        Self(host.links.iter().map(|link| (link.name.clone(), link.index)).collect())
    }

    /// The number of an interface; that of none if there is none.
    pub(crate) fn get(&self, name: &IfName) -> IfIndex {
        self.0.get(name).copied().unwrap_or(IfIndex(7777))
    }
}

/// What is compared: everything that has a name in both kernels.
#[derive(Debug, PartialEq, Eq)]
struct Picture {
    links: BTreeMap<String, Vec<String>>,
    others: Vec<String>,
    /// With the interface of a route that is not over the device.
    rows: BTreeMap<Family, Vec<(Entry, Option<String>)>>,
}

impl Picture {
    fn of(host: &Host) -> Self {
        let name = |index: Option<IfIndex>| {
            index.map(|index| host.link_at(index).map_or("?".to_owned(), |link| link.name.to_string()))
        };
        let ours = host.links.iter().filter(|link| !link.name.as_str().ends_with("-far"));
        let links = ours.map(|link| {
            let mut lines = vec![format!(
                "mac {:?} mtu {} up {} addrgen_none {} ipv6_disabled {:?}",
                link.mac, link.mtu, link.up, link.addrgen_none, link.ipv6_disabled
            )];
            if let LinkKind::Vxlan(vxlan) = &link.kind {
                let VxlanAttributes { underlay, .. } = vxlan.clone();
                lines.push(format!(
                    "{:?} over {:?}",
                    VxlanAttributes { underlay: None, ..vxlan.clone() },
                    name(underlay)
                ));
            }
            let mut addresses: Vec<(IpAddr, u8)> =
                link.addresses.iter().map(|address| (address.ip, address.len)).collect();
            addresses.sort_unstable();
            lines.extend(addresses.iter().map(|(ip, len)| format!("{ip}/{len}")));
            (link.name.to_string(), lines)
        });
        let mut others: Vec<String> = host
            .foreign
            .iter()
            .map(|route| {
                format!("{} metric {} dev {:?} proto {}", route.dst, route.metric, name(route.oif), route.protocol)
            })
            .chain(host.defaults.iter().map(|route| format!("default {route:?}")))
            .chain(host.ways.iter().map(|way| {
                format!("way to {} metric {} dev {:?} on link {}", way.dst, way.metric, name(way.oif), way.on_link)
            }))
            .collect();
        others.sort();
        let named = |entry: Entry| match entry {
            Entry::Route(key, route) => (Entry::Route(key, Route { dev: None, ..route }), name(route.dev)),
            other => (other, None),
        };
        let rows = host.tables.iter().filter_map(|(family, tables)| {
            tables.as_ref().map(|tables: &Tables| (family, tables.entries().map(named).collect()))
        });
        Self { links: links.collect(), others, rows: rows.collect() }
    }
}
