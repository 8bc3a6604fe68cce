//! One node on Linux in memory, with peers good and bad, and everything that can be seen of it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use weft::kernel::fake::{FakeKernel, Fault, Net};
use weft::model::addr::{ByFamily, IfName, Mac, Vni};
use weft::model::filter::FilterRules;
use weft::model::node::{Absence, NodeRecord, OwnNode, Peer, Snapshot, Standing, Unusable};
use weft::model::settings::{Backend, DEFAULT_PORT, Overlay, Settings, UnderlayRules};
use weft::model::traffic::NetlinkCounters;
use weft::plan::bridge::Leases;
use weft::reconcile::{Input, Memory, Report, pass};
use weft::status::{
    Announcements, Api, ApiProblem, Beat, Cni, CniState, FlannelRules, Identity, Process, Totals, View,
};

/// The node `own`, and what its agent would know.
pub(crate) struct World {
    pub(crate) kernel: FakeKernel,
    pub(crate) snapshot: Snapshot,
    pub(crate) totals: Totals,
    pub(crate) settings: Settings,
    memory: Memory,
    now: Duration,
    last: Option<Arc<Report>>,
}

impl World {
    /// An underlay and no peers.
    pub(crate) fn new() -> Self {
        let mut net = Net::new();
        let eth0 = net.add_link("eth0", "", Mac([2, 0, 0, 0, 0, 1]), 1500);
        net.set_up(eth0);
        net.add_address(eth0, "192.168.0.1".parse().expect("an address"), 24);
        let overlay = Overlay {
            networks: ByFamily { v4: Some("10.244.0.0/16".parse().expect("a subnet")), v6: None },
            backend: Backend::Vxlan,
            vni: Vni::new(1).expect("a VNI"),
            port: DEFAULT_PORT,
            mtu: None,
            gbp: false,
            learning: false,
            direct_routing: false,
        };
        let own = OwnNode {
            name: "own".into(),
            uid: "u-own".into(),
            subnet: ByFamily { v4: Ok("10.244.0.0/24".parse().expect("a subnet")), v6: Err("no IPv6 pod CIDR".into()) },
            annotated_mac: ByFamily { v4: Some(Mac([0x3a, 0x1f, 0, 0, 0, 1])), v6: None },
            overwrite: ByFamily::default(),
            node_public_ip: ByFamily::default(),
            annotations: [("backend-type".into(), "vxlan".into())].into(),
            network_unavailable: None,
        };
        Self {
            kernel: FakeKernel::new(net),
            snapshot: Snapshot { complete: true, lists: 1, own: Some(Arc::new(own)), ..Snapshot::default() },
            totals: Totals::default(),
            memory: Memory::default(),
            settings: Settings {
                overlay,
                underlay: UnderlayRules { iface: vec!["eth0".into()], ..UnderlayRules::default() },
                filter: FilterRules::default(),
            },
            now: Duration::from_secs(1),
            last: None,
        }
    }

    /// Peers `node-1` to `node-n`, all good.
    pub(crate) fn with_peers(n: u8) -> Self {
        let mut world = Self::new();
        (1..=n).for_each(|n| world.put(peer(n)));
        world
    }

    /// Two good peers, one with a broken annotation, one that claims another's MAC, and one that is
    /// no flannel node.
    pub(crate) fn with_trouble() -> Self {
        let mut world = Self::with_peers(2);
        let reason = Unusable::Missing("public-ip");
        let subnet = Some("10.244.3.0/24".parse().expect("a subnet"));
        world.put(NodeRecord { standing: v4(Standing::Unusable { subnet, reason }), ..peer(3) });
        let thief = Peer { mac: Some(Mac([0x0e, 0, 0, 0, 0, 1])), ..address(4) };
        world.put(NodeRecord { standing: v4(Standing::Usable(thief)), ..peer(4) });
        world.put(NodeRecord { standing: v4(Standing::Absent(Absence::NotFlannel)), ..peer(5) });
        world
    }

    pub(crate) fn put(&mut self, node: NodeRecord) {
        Arc::make_mut(&mut self.snapshot.nodes).insert(node.name.clone(), Arc::new(node));
        self.snapshot.generation += 1;
    }

    pub(crate) fn remove(&mut self, name: &str) {
        Arc::make_mut(&mut self.snapshot.nodes).remove(name);
        self.snapshot.generation += 1;
    }

    /// One pass, of 4 ms, a second after the last one.
    pub(crate) fn pass(&mut self) -> Arc<Report> {
        self.now += Duration::from_secs(1);
        let input = Input { settings: &self.settings, snapshot: &self.snapshot, leases: &Leases::Unknown };
        let mut report = pass(&mut self.kernel, &input, &mut self.memory, self.now);
        report.took = Duration::from_millis(4);
        self.totals.absorb(&report);
        let report = Arc::new(report);
        self.last = Some(report.clone());
        report
    }

    /// The `nth` operation from now is refused.
    pub(crate) fn refuse(&mut self, nth: u64, errno: i32) {
        self.kernel.fail(nth, Fault::refused(errno));
    }

    /// Somebody flushes the device's routes.
    pub(crate) fn flush_routes(&mut self) {
        let device = self.kernel.net.index(&IfName::new("flannel.1")).expect("the device");
        self.kernel.net.flush_routes(device);
    }

    /// What is seen half a second later.
    pub(crate) fn view(&self) -> View {
        let identity = Identity {
            version: "0.0.0",
            node_name: "own".into(),
            annotation_prefix: "flannel.alpha.coreos.com/".into(),
            settings: self.settings.clone(),
            subnet_file: "/run/flannel/subnet.env".into(),
            resync: Duration::from_secs(60),
            notices: vec!["SubnetLen has no effect: a node's pod CIDR comes from its Node object".into()],
        };
        View {
            complaints: Vec::new(),
            identity: Arc::new(identity),
            now: self.now + Duration::from_millis(504),
            report: self.last.clone(),
            own: self.snapshot.own.clone(),
            totals: self.totals.clone(),
            api: Api {
                lists: 1,
                pages: 2,
                watches: 3,
                events: 40,
                bookmarks: 5,
                errors: vec![("gone", 1), ("unreachable", 0)],
                last_heard: Some(Duration::from_secs(1)),
                failing_since: None,
            },
            api_problems: vec![ApiProblem {
                request: "announcement",
                class: "forbidden",
                text: "the API server answered 403 Forbidden".into(),
                at: Duration::from_secs(1),
            }],
            netlink: NetlinkCounters { batches: 3, messages: 12, overruns: 1, ..NetlinkCounters::default() },
            announcements: Announcements {
                sent: 1,
                failed: 0,
                conditions_sent: 1,
                conditions_failed: 0,
                events_sent: 2,
                events_failed: 0,
                subnet_env_written: 1,
                subnet_env_failed: 0,
            },
            flannel_rules: FlannelRules { removed: 2, stays: vec!["rules of flannel stay".into()] },
            host_problems: vec![("networkd", "systemd-networkd manages flannel.1".into())],
            host_unseen: vec!["whether NetworkManager manages weft's devices is not known".into()],
            host_labels: &weft::node::host::LABELS,
            cni: Some(Cni {
                file: "/etc/cni/net.d/10-weft.conflist".into(),
                form: "standard",
                state: CniState::InPlace,
                instead: Some("10-flannel.conflist".into()),
                written: 1,
                failed: 0,
            }),
            beats: vec![Beat { name: "reconciler", age: Duration::from_millis(250), limit: Duration::from_secs(30) }],
            unready: Vec::new(),
            process: Process { resident_bytes: Some(12_345_678), started_at: Some(1_700_000_000.25) },
        }
    }
}

fn v4(standing: Standing) -> ByFamily<Standing> {
    ByFamily { v4: standing, v6: Standing::Absent(Absence::NoPodCidr) }
}

fn address(n: u8) -> Peer {
    Peer {
        subnet: format!("10.244.{n}.0/24").parse().expect("a subnet"),
        mac: Some(Mac([0x0e, 0, 0, 0, 0, n])),
        public_ip: format!("192.168.0.{}", 100 + u16::from(n)).parse().expect("an address"),
    }
}

/// A good peer.
pub(crate) fn peer(n: u8) -> NodeRecord {
    NodeRecord {
        name: format!("node-{n}").into(),
        uid: format!("u-{n}").into(),
        created: i64::from(n),
        standing: v4(Standing::Usable(address(n))),
    }
}

/// Compares with a file under `expected/`; with WEFT_BLESS=1 in the environment the file is written
/// instead, to be read in the diff.
pub(crate) fn assert_expected(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/operator/expected").join(name);
    if std::env::var_os("WEFT_BLESS").is_some() {
        std::fs::write(&path, text).expect("written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    for (number, (is, should)) in text.lines().zip(expected.lines()).enumerate() {
        assert_eq!(is, should, "{name}, line {}", number + 1);
    }
    assert_eq!(text, expected, "{name} is longer or shorter than expected");
}
