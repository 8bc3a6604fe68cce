//! Peers with a life, what the kernel should hold for them, and proof that nothing else was touched.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::{self, PREFIX, backend_data, bare, gateways, macs, name, pod_cidrs, public_ips};
use crate::sandbox::{Event, Listener, json};
use crate::world::{DEVICES, World, within};

/// Nothing here takes longer, also on a busy machine: the list-watch loop waits half a minute at most.
pub(crate) const SOON: Duration = Duration::from_secs(40);

/// A row of the kernel's on one of our devices: its table, what a notification calls it, and the rest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Row {
    pub(crate) table: &'static str,
    pub(crate) key: String,
    value: String,
}

pub(crate) type Rows = BTreeSet<Row>;

/// What a node says of itself: IPv4, IPv6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) cidrs: [Option<String>; 2],
    pub(crate) macs: [Option<String>; 2],
    pub(crate) ips: [Option<String>; 2],
}

impl Facts {
    /// Those of [`cluster::peer`].
    pub(crate) fn of(number: u32) -> Self {
        Self {
            cidrs: pod_cidrs(number).map(Some),
            macs: macs(number).map(Some),
            ips: public_ips(number).map(|ip| Some(ip.to_string())),
        }
    }

    /// The Node that says so.
    pub(crate) fn node(&self, number: u32) -> Value {
        let mut node = bare(number);
        let cidrs: Vec<&String> = self.cidrs.iter().flatten().collect();
        node["spec"] = json!({ "podCIDR": cidrs.first(), "podCIDRs": cidrs });
        let annotations = &mut node["metadata"]["annotations"];
        annotations[key("kube-subnet-manager")] = "true".into();
        annotations[key("backend-type")] = "vxlan".into();
        for (family, (data, ip)) in
            [("backend-data", "public-ip"), ("backend-v6-data", "public-ipv6")].iter().enumerate()
        {
            if let Some(mac) = &self.macs[family] {
                annotations[key(data)] = backend_data(1, mac).into();
            }
            if let Some(to) = &self.ips[family] {
                annotations[key(ip)] = to.as_str().into();
            }
        }
        node
    }

    /// Its rows: three in each family that it has all of.
    pub(crate) fn rows(&self) -> Rows {
        let of = |family: usize| {
            let (cidr, mac, ip) = (self.cidrs[family].clone()?, self.macs[family].clone()?, self.ips[family].clone()?);
            let gateway = cidr.split_once('/').expect("a CIDR").0.to_owned();
            let dev = DEVICES[family];
            Some([
                Row { table: "route", key: cidr, value: format!("via {gateway} dev {dev} proto 119 onlink") },
                Row { table: "neighbour", key: gateway, value: format!("lladdr {mac} dev {dev} PERMANENT") },
                Row { table: "fdb", key: mac, value: format!("dst {ip} dev {dev} permanent") },
            ])
        };
        [0, 1].into_iter().filter_map(of).flatten().collect()
    }

    /// Its rows in one family.
    pub(crate) fn rows_in(&self, family: usize) -> Rows {
        let mut one = self.clone();
        one.cidrs[1 - family] = None;
        one.rows()
    }
}

/// One of flannel's annotation keys in full.
pub(crate) fn key(name: &str) -> String {
    format!("{PREFIX}/{name}")
}

/// A merge patch of one annotation.
pub(crate) fn annotate(name: &str, value: impl Into<Value>) -> Value {
    json!({ "metadata": { "annotations": { key(name): value.into() } } })
}

/// What the kernel holds on our devices, its own routes left out, as iproute2 sees it.
pub(crate) fn kernel() -> Rows {
    let mut rows = Rows::new();
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    for (dev, family) in DEVICES.into_iter().zip(["-4", "-6"]) {
        if !std::fs::exists(format!("/proc/sys/net/ipv4/conf/{dev}")).expect("/proc") {
            continue;
        }
        for route in json(&format!("ip -j {family} route show dev {dev}")) {
            let (via, proto, flags) = (text(&route["gateway"]), text(&route["protocol"]), &route["flags"]);
            let flags: Vec<String> = flags.as_array().into_iter().flatten().map(text).collect();
            if proto != "kernel" {
                let value = format!("via {via} dev {dev} proto {proto} {}", flags.join(" "));
                rows.insert(Row { table: "route", key: text(&route["dst"]), value });
            }
        }
        for row in json(&format!("ip -j {family} neigh show dev {dev}")) {
            let value = format!("lladdr {} dev {dev} {}", text(&row["lladdr"]), text(&row["state"][0]));
            rows.insert(Row { table: "neighbour", key: text(&row["dst"]), value });
        }
        for row in json(&format!("bridge -j fdb show dev {dev}")) {
            let value = format!("dst {} dev {dev} {}", text(&row["dst"]), text(&row["state"]));
            rows.insert(Row { table: "fdb", key: text(&row["mac"]), value });
        }
    }
    rows
}

/// The difference of what is and what should be, for a person.
pub(crate) fn difference(is: &Rows, should: &Rows) -> Result<(), String> {
    let some = |sign: &str, rows: Vec<&Row>| {
        let count = rows.len();
        rows.into_iter().take(6).fold(format!("{count} {sign}"), |text, row| text + &format!("\n    {row:?}"))
    };
    if is == should {
        return Ok(());
    }
    Err(some("too many", is.difference(should).collect()) + "\n  " + &some("missing", should.difference(is).collect()))
}

/// Waits until the kernel holds this.
pub(crate) fn until_kernel_has(should: &Rows) {
    within(SOON, "the right tables", || difference(&kernel(), should));
}

/// A notification about a row of a device of ours, or such a device, its address or route of its own.
pub(crate) fn is_ours(Event(_, of): &Event) -> bool {
    // Neighbours on the underlay come and go with every packet.
    !["172.16.", "fd00:174:", "fe80:", "ff02:"].iter().any(|underlay| of.starts_with(underlay))
}

/// Hears everything: as nobody in particular, a socket holds some 500 notifications, so they are read as they come.
pub(crate) struct Witness {
    shared: Arc<Mutex<(Listener, Vec<Event>)>>,
    over: Arc<AtomicBool>,
}

impl Witness {
    /// Listens from now on, in the calling thread's namespace.
    pub(crate) fn start() -> Self {
        let shared = Arc::new(Mutex::new((Listener::start(), Vec::new())));
        let over = Arc::new(AtomicBool::new(false));
        let (theirs, told) = (Arc::clone(&shared), Arc::clone(&over));
        std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                drop(collect(&theirs));
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        Self { shared, over }
    }

    /// Everything about our devices that happened until now and was not told yet.
    pub(crate) fn heard(&self) -> Vec<Event> {
        std::mem::take(&mut collect(&self.shared).1).into_iter().filter(is_ours).collect()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

fn collect(shared: &Mutex<(Listener, Vec<Event>)>) -> MutexGuard<'_, (Listener, Vec<Event>)> {
    let mut both = shared.lock().unwrap_or_else(PoisonError::into_inner);
    let new = both.0.heard();
    both.1.extend(new);
    both
}

/// Where the API server of each world listens. A command that another test is just starting may hold the old
/// listener for a moment.
pub(crate) fn port() -> TcpListener {
    within(SOON, "the port", || TcpListener::bind("127.0.0.1:6443"))
}

/// A cluster that changes, and a witness.
pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) peers: BTreeMap<u32, Facts>,
    pub(crate) witness: Witness,
    rows: Rows,
}

impl Stage {
    /// Peers 1 to `peers`, all in place, with an agent that runs.
    pub(crate) fn with_peers(peers: u32) -> Self {
        Self::in_world(World::with_peers(peers), peers)
    }

    /// The same in a world that was prepared.
    pub(crate) fn in_world(mut world: World, peers: u32) -> Self {
        let peers: BTreeMap<u32, Facts> = (1..=peers).map(|number| (number, Facts::of(number))).collect();
        let rows = all_rows(&peers);
        world.start();
        until_kernel_has(&rows);
        // Linux tells when an address has turned out not to be a duplicate.
        within(SOON, "the addresses are final", || {
            let tentative = json("ip -j -6 address show tentative");
            if tentative.iter().all(|link| link["addr_info"].as_array().is_none_or(Vec::is_empty)) {
                Ok(())
            } else {
                Err(tentative)
            }
        });
        Self { world, peers, witness: Witness::start(), rows }
    }

    /// The rows of all peers as they should be.
    pub(crate) fn rows(&self) -> Rows {
        all_rows(&self.peers)
    }

    /// Peer `number` is now so.
    pub(crate) fn put(&mut self, number: u32, facts: Facts) {
        self.world.api.put_node(facts.node(number));
        self.peers.insert(number, facts);
    }

    /// Peer `number` is gone.
    pub(crate) fn delete(&mut self, number: u32) {
        assert!(self.world.api.delete_node(&name(number)), "a peer to delete");
        self.peers.remove(&number);
    }

    /// Changes several things in one moment, as far as weft can see: in a list.
    pub(crate) fn at_once(&mut self, change: impl FnOnce(&mut Self)) {
        self.world.api.stop();
        change(self);
        self.world.api.compact();
        self.world.api.resume(port()).expect("to serve again");
    }

    /// Waits until every peer's rows are there and nothing else is, and checks that no row was touched that had
    /// no reason to.
    pub(crate) fn settled(&mut self, what: &str) {
        let rows = self.rows();
        self.settled_with(what, rows);
    }

    /// The same with other rows.
    pub(crate) fn settled_with(&mut self, what: &str, rows: Rows) {
        within(SOON, what, || difference(&kernel(), &rows));
        let before = std::mem::replace(&mut self.rows, rows);
        let changed: BTreeSet<&str> = before.symmetric_difference(&self.rows).map(|row| row.key.as_str()).collect();
        let heard = self.witness.heard();
        let wrong: Vec<&Event> = heard.iter().filter(|event| !changed.contains(event.1.as_str())).collect();
        assert!(wrong.is_empty(), "{what}: rows that had no reason to be touched were: {wrong:?}");
    }

    /// Lets the witness forget what it heard.
    pub(crate) fn forget(&mut self) {
        self.witness.heard();
        self.rows = kernel();
    }

    /// Waits until `/state` says this of a peer in both families: the state, and a part of the reason.
    pub(crate) fn shown(&mut self, number: u32, expected: [(&str, &str); 2]) {
        self.shown_of(&name(number), expected);
    }

    /// The same, by name.
    pub(crate) fn shown_of(&mut self, name: &str, expected: [(&str, &str); 2]) {
        for (family, (state, because)) in ["ipv4", "ipv6"].into_iter().zip(expected) {
            within(SOON, &format!("{name} is shown as {state:?} in {family} because of {because:?}"), || {
                let all = self.world.agent().state();
                let shown = &all["families"][family]["peers"][name];
                let fits = shown["state"].as_str().unwrap_or("gone") == state
                    && shown["because"].as_str().unwrap_or_default().contains(because);
                if fits { Ok(()) } else { Err(shown.clone()) }
            });
        }
    }

    /// A gauge of `/metrics` in one family, by its reason.
    pub(crate) fn counted(&mut self, metric: &str, family: usize, reason: &str) -> f64 {
        let family = ["ipv4", "ipv6"][family];
        self.world.agent().metrics().sum(metric, &[("family", family), ("reason", reason)])
    }
}

/// The rows of all of these.
pub(crate) fn all_rows(peers: &BTreeMap<u32, Facts>) -> Rows {
    peers.values().flat_map(Facts::rows).collect()
}

/// The rows of peers as [`cluster::peer`] makes them.
pub(crate) fn rows_of(peers: impl IntoIterator<Item = u32>) -> Rows {
    peers.into_iter().flat_map(|number| Facts::of(number).rows()).collect()
}

/// Both families alike.
pub(crate) const INSTALLED: [(&str, &str); 2] = [("installed", ""); 2];
/// Not a Node any more.
pub(crate) const GONE: [(&str, &str); 2] = [("gone", ""); 2];

/// The first address of a pod CIDR of peer `number`.
pub(crate) fn gateway(number: u32, family: usize) -> String {
    gateways(number)[family].to_string()
}

/// Another MAC for peer `number`, the same at every call.
pub(crate) fn new_mac(number: u32, family: usize) -> String {
    cluster::macs(number)[family].replacen("0a:58", "0e:99", 1)
}

/// Another public address for peer `number`.
pub(crate) fn new_ip(number: u32, family: usize) -> String {
    cluster::public_ips(number + 20_000)[family].to_string()
}
