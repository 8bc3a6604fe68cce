//! A node with peers, the things of others around it, and its state when all is well.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use weft::kernel::Kernel;
use weft::kernel::netlink::Netlink;
use weft::lab::netns::prepare;
use weft::model::addr::{ByFamily, Family, IfName, Subnet};
use weft::model::host::{Host, LinkKind, Scope};
use weft::model::table::{PROTOCOL_WEFT, Tables};

use super::PEERS;
use crate::agent::{Agent, Metrics};
use crate::cluster::{NETWORKS, gateways, macs, pod_cidrs, public_ips};
use crate::picture::Picture;
use crate::sandbox::{Listener, json, sh, try_sh, underlay};
use crate::world::{DEVICES, World, pictures, within};

/// How long the whole wait may be, so that a test that fails says by how much.
const PATIENCE: Duration = Duration::from_secs(10);

/// One of our devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// `flannel.1`
    V4,
    /// `flannel-v6.1`
    V6,
}

impl Side {
    pub(super) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    const fn number(self) -> usize {
        match self {
            Self::V4 => 0,
            Self::V6 => 1,
        }
    }

    pub(super) const fn dev(self) -> &'static str {
        DEVICES[self.number()]
    }

    /// `-4` or `-6`.
    pub(super) const fn flag(self) -> &'static str {
        ["-4", "-6"][self.number()]
    }

    /// The prefix length of one address.
    pub(super) const fn full(self) -> &'static str {
        ["32", "128"][self.number()]
    }

    pub(super) fn cidr(self, node: u32) -> String {
        pod_cidrs(node)[self.number()].clone()
    }

    pub(super) fn gateway(self, node: u32) -> IpAddr {
        gateways(node)[self.number()]
    }

    pub(super) fn mac(self, node: u32) -> String {
        macs(node)[self.number()].clone()
    }

    pub(super) fn public_ip(self, node: u32) -> IpAddr {
        public_ips(node)[self.number()]
    }

    /// The route that weft has made for a node, by its key: `DST … metric M`.
    pub(super) fn key(self, node: u32) -> String {
        let cidr = self.cidr(node);
        let route = json(&format!("ip -j {} route show {cidr} dev {}", self.flag(), self.dev())).remove(0);
        format!("{cidr} metric {}", route["metric"])
    }

    /// As the metrics call it.
    pub(super) const fn label(self) -> &'static str {
        ["ipv4", "ipv6"][self.number()]
    }
}

/// The node.
pub(super) struct Site {
    pub(super) world: World,
    eyes: Netlink,
    ears: Listener,
    /// When the disturbance began.
    start: Instant,
    /// One at a time is disturbed and heals: the time is its own.
    quiet: Option<MutexGuard<'static, ()>>,
    /// What iproute2 shows of our devices when all is well.
    right: [Picture; 2],
    /// The same as our own eyes see it: quicker to look at, and so good for taking the time.
    glance: Glance,
}

/// Things of others on our devices and the underlay: what lays them, and what shows them.
const FOREIGN: [(&str, &str); 7] = [
    ("ip route add 198.18.9.0/24 dev flannel.1 proto static", r#""198.18.9.0/24""#),
    ("ip route add 10.252.0.0/24 dev flannel.1 proto static", r#""10.252.0.0/24""#),
    ("ip address add 198.18.10.1/32 dev flannel.1", r#""local":"198.18.10.1""#),
    ("ip -6 route add fd00:198:9::/64 dev flannel-v6.1 proto static", r#""fd00:198:9::/64""#),
    ("ip address add fe80::77/64 dev flannel-v6.1 nodad", r#""local":"fe80::77""#),
    ("ip neigh add 172.16.9.9 lladdr 0a:00:00:00:09:09 dev eth0 nud permanent", r#""172.16.9.9""#),
    ("ip neigh add fd00:174::9:9 lladdr 0a:00:00:00:09:09 dev eth0 nud permanent", r#""fd00:174::9:9""#),
];

/// What decides whether a look is worth a close one: compared without the numbers of interfaces.
#[derive(Clone, Debug, PartialEq)]
struct Glance {
    links: Vec<weft::model::host::Link>,
    tables: [Option<Tables>; 2],
}

impl Site {
    /// A node that is right, with 200 peers.
    pub(super) fn new() -> Self {
        prepare().expect("sysctls");
        let mut world = World::with_peers(PEERS);
        underlay("foreign0", &["198.18.0.1/24", "fd00:198::1/64"]);
        sh("ip route add 198.18.7.0/24 via 198.18.0.254 dev foreign0 proto static
            ip route add 10.253.0.0/24 via 198.18.0.254 dev foreign0 proto static
            ip -6 route add fd00:198:7::/64 via fd00:198::fe dev foreign0 proto static
            ip route add blackhole 198.18.8.0/24");
        world.start();
        let mut site = Self {
            world,
            eyes: Netlink::open().expect("sockets"),
            ears: Listener::start(),
            start: Instant::now(),
            quiet: None,
            right: Default::default(),
            glance: Glance { links: Vec::new(), tables: [None, None] },
        };
        site.lay_foreign();
        site.take_as_right();
        assert_eq!(site.right.each_ref().map(|it| it.count("fdb")), [PEERS as usize; 2], "{:?}", site.right);
        site
    }

    /// Takes what there is now for the state to come back to.
    pub(super) fn take_as_right(&mut self) {
        self.right = pictures().map(|picture| ours(&picture));
        self.glance = self.look();
    }

    /// The state to come back to has another underlay address.
    pub(super) fn moves(&mut self, from: IpAddr, to: IpAddr) {
        let changed = |fact: &String| fact.replace(&format!(r#":"{from}""#), &format!(r#":"{to}""#));
        for picture in &mut self.right {
            picture.0 = picture.0.iter().map(changed).collect();
        }
        for link in &mut self.glance.links {
            if let LinkKind::Vxlan(vxlan) = &mut link.kind
                && vxlan.local == Some(from)
            {
                vxlan.local = Some(to);
            }
        }
    }

    /// Things of others where they are easily hit, if they are not there: routes and an address on our
    /// devices, neighbours on the underlay. The agent has looked at them when this returns.
    pub(super) fn lay_foreign(&mut self) {
        let passes = self.metrics().count("weft_passes_total", &[]);
        let mut laid = false;
        for (line, _) in FOREIGN {
            match try_sh(line) {
                Ok(_) => laid = true,
                Err(error) => {
                    assert!(error.contains("File exists") || error.contains("already assigned"), "`{line}`: {error}");
                }
            }
        }
        if laid {
            within(PATIENCE, "the agent has looked", || {
                let now = self.metrics().count("weft_passes_total", &[]);
                if now > passes { Ok(()) } else { Err(now) }
            });
        }
    }

    /// The things of others, everywhere.
    pub(super) fn foreign() -> Picture {
        let on_ours = DEVICES.into_iter().flat_map(|dev| {
            let facts = Picture::of_device(dev).0.into_iter();
            let foreign = facts.filter(|fact| is_foreign(fact) && !is_the_kernels(fact));
            foreign.map(move |fact| format!("{fact} on {dev}"))
        });
        Picture(Picture::of_the_rest().0.into_iter().chain(on_ours).collect())
    }

    /// The same, when nothing has been disturbed yet: nothing of it may be missing.
    pub(super) fn foreign_before() -> Picture {
        let foreign = Self::foreign();
        for (line, mark) in FOREIGN {
            assert!(foreign.0.iter().any(|fact| fact.contains(mark)), "weft undid `{line}`");
        }
        foreign
    }

    /// The agent.
    pub(super) fn agent(&mut self) -> &mut Agent {
        self.world.agent()
    }

    pub(super) fn metrics(&mut self) -> Metrics {
        self.agent().metrics()
    }

    /// The disturbance begins now.
    pub(super) fn begin(&mut self) {
        static QUIET: Mutex<()> = Mutex::new(());
        // One that failed meanwhile is nothing to this one.
        self.quiet = Some(QUIET.lock().unwrap_or_else(PoisonError::into_inner));
        self.start = Instant::now();
    }

    /// Disturbs while the agent is stopped, so that it sees only the outcome: the time counts from then.
    pub(super) fn behind_its_back(&mut self, lines: &str) {
        self.behind_its_back_with(|| sh(lines));
    }

    /// The same with anything.
    pub(super) fn behind_its_back_with(&mut self, disturb: impl FnOnce()) {
        self.start = self.world.agent().paused(|| {
            disturb();
            Instant::now()
        });
    }

    /// When the disturbance began.
    pub(super) const fn start(&self) -> Instant {
        self.start
    }

    /// Waits until everything is as it was, and says how long that took.
    pub(super) fn until_right(&mut self, what: &str) -> Duration {
        let mut heard = self.start;
        loop {
            let looked = self.start.elapsed();
            let late = looked > PATIENCE;
            if self.look() == self.glance || late {
                let now = pictures().map(|picture| ours(&picture));
                if now == self.right {
                    self.quiet = None;
                    // It was right when the last burst of notifications ended, or before the first look.
                    return if heard > self.start { heard - self.start } else { looked };
                }
                let differences = [0, 1].map(|side| self.right[side].difference(&now[side]));
                assert!(!late, "{what}: not right after {PATIENCE:?}:\n{}", differences.concat());
            }
            // No polling: the agent needs the processor. The last thing that is put right is announced.
            if self.ears.wait(Duration::from_millis(100)) {
                heard = Instant::now();
            }
        }
    }

    /// Waits until these causes have been counted, and no cause that has nothing to do with disturbances.
    pub(super) fn counted(&mut self, side: Side, before: &Metrics, expected: &[(&str, &str)]) {
        let agent = self.world.agent();
        for (table, cause) in expected {
            let labels = [("family", side.label()), ("table", *table), ("cause", *cause)];
            within(Duration::from_secs(2), "the cause is counted", || {
                let now = agent.metrics();
                let grown = now.count("weft_changes_total", &labels) - before.count("weft_changes_total", &labels);
                if grown >= 1 { Ok(()) } else { Err((labels, now.since(before))) }
            });
        }
        let now = agent.metrics();
        for cause in ["start", "node_joined", "node_changed", "node_left"] {
            let labels = [("cause", cause)];
            let grown = now.count("weft_changes_total", &labels) - before.count("weft_changes_total", &labels);
            assert!(grown == 0, "{cause}: {:?}", now.since(before));
        }
    }

    fn look(&mut self) -> Glance {
        let networks = NETWORKS.map(|network| network.parse::<Subnet>().expect("a network"));
        let scope = Scope {
            devices: ByFamily { v4: Some(IfName::new(DEVICES[0])), v6: Some(IfName::new(DEVICES[1])) },
            networks: ByFamily { v4: Some(networks[0]), v6: Some(networks[1]) },
            reach: None,
            ways: false,
        };
        let host = within(PATIENCE, "a look at the kernel", || self.eyes.observe(&scope));
        Glance::of(host, networks)
    }
}

impl Glance {
    fn of(host: Host, networks: [Subnet; 2]) -> Self {
        let mut links: Vec<_> = host.links.into_iter().filter(|link| DEVICES.contains(&link.name.as_str())).collect();
        for link in &mut links {
            link.index = weft::model::addr::IfIndex(0);
            link.addresses.retain(|address| networks.iter().any(|network| network.contains(address.ip)));
            if let LinkKind::Vxlan(vxlan) = &mut link.kind {
                vxlan.underlay = None;
            }
        }
        links.sort_by(|a, b| a.name.cmp(&b.name));
        let mut tables = [host.tables.get(Family::V4).clone(), host.tables.get(Family::V6).clone()];
        for tables in tables.iter_mut().flatten() {
            tables.routes.retain(|_, route| route.protocol == PROTOCOL_WEFT || route.onlink);
        }
        Self { links, tables }
    }
}

/// What [`Site::lay_foreign`] lays on our devices, and what the kernel adds to it.
fn is_foreign(fact: &str) -> bool {
    ["198.18.", "fd00:198:", "10.252.", "fe80:"].iter().any(|mark| fact.contains(mark))
}

/// Linux makes a link-local address for a device without addrgenmode none, whenever it likes.
fn is_the_kernels(fact: &str) -> bool {
    fact.contains("fe80:") && !fact.contains("fe80::77")
}

fn ours(picture: &Picture) -> Picture {
    Picture(picture.0.iter().filter(|fact| !is_foreign(fact)).cloned().collect())
}

impl Picture {
    /// The facts of [`Site::foreign`] on a device.
    pub(super) fn on(&self, dev: &str) -> Self {
        Self(self.0.iter().filter(|fact| fact.ends_with(&format!(" on {dev}"))).cloned().collect())
    }

    /// The facts of [`Site::foreign`] elsewhere.
    pub(super) fn not_on(&self, dev: &str) -> Self {
        Self(self.0.iter().filter(|fact| !fact.ends_with(&format!(" on {dev}"))).cloned().collect())
    }
}
