//! A cluster of any size, as the API server would tell of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use weft::model::addr::{ByFamily, Mac, Subnet, Vni};
use weft::model::node::{NodeName, NodeRecord, OwnNode, Peer, Snapshot, Standing};
use weft::model::settings::{Backend, DEFAULT_PORT, Overlay, Settings, UnderlayRules};
use weft::model::table::{Entry, Fdb, FdbKey, Neighbour, PROTOCOL_BOOT, Route, RouteKey, flannel_metric};

/// Which families take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stack {
    V4,
    Dual,
}

impl Stack {
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::Dual => "dual-stack",
        }
    }

    pub(crate) const fn six(self) -> bool {
        matches!(self, Self::Dual)
    }
}

/// The underlay's addresses on the machine that is measured.
pub(crate) const UNDERLAY: [&str; 2] = ["172.16.0.1/12", "fd99::1/64"];

/// A cluster: the configuration, and its Nodes.
pub(crate) struct Cluster {
    pub(crate) settings: Settings,
    pub(crate) full: Snapshot,
    /// The same before any peer had joined.
    pub(crate) empty: Snapshot,
    pub(crate) size: u32,
    pub(crate) stack: Stack,
}

impl Cluster {
    pub(crate) fn new(size: u32, stack: Stack) -> Self {
        let v6 = |text: &str| stack.six().then(|| subnet(text));
        let overlay = Overlay {
            networks: ByFamily { v4: Some(subnet("10.0.0.0/8")), v6: v6("fd10::/48") },
            backend: Backend::Vxlan,
            vni: Vni::new(1).expect("a VNI"),
            port: DEFAULT_PORT,
            mtu: None,
            gbp: false,
            learning: false,
            direct_routing: false,
        };
        let underlay = UnderlayRules { iface: vec!["eth0".to_owned()], ..UnderlayRules::default() };
        let own = OwnNode {
            name: "own".into(),
            uid: "own".into(),
            subnet: ByFamily { v4: Ok(peer_v4(0).subnet), v6: v6("fd10::/64").ok_or_else(|| "none".into()) },
            annotated_mac: ByFamily::default(),
            overwrite: ByFamily::default(),
            node_public_ip: ByFamily::default(),
            annotations: BTreeMap::new(),
            network_unavailable: None,
        };
        let empty =
            Snapshot { own: Some(Arc::new(own)), complete: true, lists: 1, generation: 1, ..Snapshot::default() };
        let nodes = (1..=size).map(|number| node(number, stack)).map(|node| (node.name.clone(), Arc::new(node)));
        let full = Snapshot { nodes: Arc::new(nodes.collect()), generation: 2, ..empty.clone() };
        Self {
            settings: Settings { overlay, underlay, filter: weft::model::filter::FilterRules::default() },
            full,
            empty,
            size,
            stack,
        }
    }

    /// The same cluster after a change of one node.
    pub(crate) fn with(
        &self,
        generation: u64,
        change: impl FnOnce(&mut BTreeMap<NodeName, Arc<NodeRecord>>),
    ) -> Snapshot {
        let mut nodes = BTreeMap::clone(&self.full.nodes);
        change(&mut nodes);
        Snapshot { nodes: Arc::new(nodes), generation, ..self.full.clone() }
    }

    /// Every row that flannel makes, in its order: for each peer neighbour, FDB entry, route.
    pub(crate) fn flannels(&self) -> impl Iterator<Item = Entry> {
        let six = self.stack.six();
        let peers = (1..=self.size).flat_map(move |n| [Some(peer_v4(n)), six.then(|| peer_v6(n))]).flatten();
        peers.flat_map(|peer| [neighbour(&peer), fdb(&peer), flannel_route(&peer)])
    }
}

/// A node as the API server would have it.
pub(crate) fn node(number: u32, stack: Stack) -> NodeRecord {
    let v6 = if stack.six() {
        Standing::Usable(peer_v6(number))
    } else {
        Standing::Absent(weft::model::node::Absence::NoPodCidr)
    };
    NodeRecord {
        name: format!("node-{number:05}").into(),
        uid: format!("4c6f7265-6d20-4970-8073-{number:012}").into(),
        created: i64::from(number),
        standing: ByFamily { v4: Standing::Usable(peer_v4(number)), v6 },
    }
}

pub(crate) fn peer_v4(number: u32) -> Peer {
    Peer {
        subnet: Subnet::new(IpAddr::V4((u32::from(Ipv4Addr::new(10, 0, 0, 0)) + (number << 8)).into()), 24)
            .expect("a subnet"),
        mac: Some(mac(u64::from(number))),
        public_ip: IpAddr::V4((u32::from(Ipv4Addr::new(172, 16, 1, 0)) + number).into()),
    }
}

pub(crate) fn peer_v6(number: u32) -> Peer {
    let pods = u128::from(Ipv6Addr::new(0xfd10, 0, 0, 0, 0, 0, 0, 0)) + (u128::from(number) << 64);
    let public = u128::from(Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 1, 0)) + u128::from(number);
    Peer {
        subnet: Subnet::new(IpAddr::V6(pods.into()), 64).expect("a subnet"),
        mac: Some(mac(u64::from(number) | 1 << 40)),
        public_ip: IpAddr::V6(public.into()),
    }
}

pub(crate) fn neighbour(peer: &Peer) -> Entry {
    Entry::Neighbour(peer.subnet.base(), Neighbour { mac: vtep(peer) })
}

/// The peers of a benchmark have one.
pub(crate) fn vtep(peer: &Peer) -> Mac {
    peer.mac.expect("a VTEP")
}

pub(crate) fn fdb(peer: &Peer) -> Entry {
    Entry::Fdb(FdbKey { mac: vtep(peer), remote: None }, Fdb::to(peer.public_ip))
}

/// The route that flannel makes.
pub(crate) fn flannel_route(peer: &Peer) -> Entry {
    let key = RouteKey { dst: peer.subnet, metric: flannel_metric(peer.subnet.family()) };
    Entry::Route(key, Route { protocol: PROTOCOL_BOOT, ..Route::through(peer.subnet.base()) })
}

/// A VTEP's MAC: as good as random, and never another node's.
pub(crate) const fn mac(number: u64) -> Mac {
    // An odd multiplier is a permutation of 2^46: what is left after the two low bits of the first byte.
    let mixed = number.wrapping_mul(0x1e37_79b9_7f4a_7c15) & ((1 << 46) - 1);
    let [_, _, a, b, c, d, e, f] = ((mixed >> 40 << 42) | (mixed & 0xff_ffff_ffff)).to_be_bytes();
    Mac([a | 2, b, c, d, e, f])
}

fn subnet(text: &str) -> Subnet {
    text.parse().expect("a subnet")
}
