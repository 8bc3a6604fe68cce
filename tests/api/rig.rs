//! A loop and an API server to spoil.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use weft::cluster::annotations::{DEFAULT_PREFIX, Keys};
use weft::cluster::client::{ClientOptions, Connection, connect};
use weft::cluster::peers::Viewpoint;
use weft::cluster::problem::Class;
use weft::cluster::timing::Timing;
use weft::cluster::watch::{Handle, Watcher};
use weft::lab::apiserver::{ApiServer, Verb};
use weft::model::addr::Vni;
use weft::model::node::Snapshot;

/// The name of our own Node.
pub(crate) const OWN: &str = "self";

/// How long a test waits for what must come. Far more than it takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Every request of the loop.
pub(crate) const ASKS: [Verb; 4] = [Verb::List, Verb::Continue, Verb::Watch, Verb::StreamingList];

/// A loop that watches a server.
pub(crate) struct Rig {
    pub(crate) server: ApiServer,
    pub(crate) handle: Handle,
    born: Instant,
    task: JoinHandle<()>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// As impatient as a loaded machine allows. A wait after failures is at least half of `backoff_most`
/// in the long run, which is what the tests count requests by.
pub(crate) fn timing() -> Timing {
    let ms = Duration::from_millis;
    Timing {
        backoff_least: ms(20),
        backoff_most: ms(200),
        healthy: ms(2000),
        brief: ms(200),
        pause: ms(5),
        answer: ms(500),
        initial_silence: ms(300),
        initial_total: ms(1500),
        watch: ms(1000),
        watch_grace: ms(300),
        bookmark_silence: ms(1000),
        between_lists: ms(100),
        spread: ms(20),
        page: 3,
    }
}

/// A node that can be a peer.
pub(crate) fn node(name: &str, i: usize) -> Value {
    json!({
        "metadata": {
            "name": name,
            "annotations": {
                "flannel.alpha.coreos.com/kube-subnet-manager": "true",
                "flannel.alpha.coreos.com/backend-type": "vxlan",
                "flannel.alpha.coreos.com/backend-data": format!("{{\"VNI\":1,\"VtepMAC\":\"02:00:00:00:{:02x}:{:02x}\"}}", i / 256, i % 256),
                "flannel.alpha.coreos.com/public-ip": format!("192.168.{}.{}", i / 250, i % 250 + 1),
            },
        },
        "spec": { "podCIDR": format!("10.{}.{}.0/24", 100 + i / 256, i % 256) },
    })
}

/// A server with our own node and n0, n1, ...
pub(crate) fn server(nodes: usize) -> ApiServer {
    let server = ApiServer::start(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
    server.bookmark_every(Duration::from_millis(200));
    server.put_node(node(OWN, 60_000));
    for i in 0..nodes {
        server.put_node(node(&format!("n{i}"), i));
    }
    server
}

pub(crate) async fn client(url: &str) -> Connection {
    connect(&ClientOptions { kubeconfig: None, api_url: Some(url.to_owned()) }).await.unwrap()
}

impl Rig {
    /// A loop that watches this server.
    pub(crate) async fn watching(server: ApiServer) -> Self {
        let url = server.url();
        Self::watching_at(server, &url).await
    }

    pub(crate) async fn watching_at(server: ApiServer, url: &str) -> Self {
        Self::timed(server, url, timing()).await
    }

    /// A loop with other waits.
    pub(crate) async fn timed(server: ApiServer, url: &str, timing: Timing) -> Self {
        let keys = Keys::new(DEFAULT_PREFIX).unwrap();
        let view = Viewpoint { own: OWN.into(), vni: Vni::new(1) };
        let born = Instant::now();
        let clock = Arc::new(move || born.elapsed());
        let (watcher, handle) = Watcher::new(client(url).await, keys, view, timing, clock);
        let task = tokio::spawn(async move {
            let never = watcher.run().await;
            match never {}
        });
        Self { server, handle, born, task }
    }

    /// A loop that has seen this many nodes.
    pub(crate) async fn with(nodes: usize) -> Self {
        let rig = Self::watching(server(nodes)).await;
        rig.until("the first list", |snapshot| snapshot.complete && snapshot.nodes.len() == nodes).await;
        rig
    }

    /// Waits until the snapshot is so.
    pub(crate) async fn until(&self, what: &str, so: impl FnMut(&Snapshot) -> bool) -> Arc<Snapshot> {
        let mut so = so;
        let mut snapshots = self.handle.snapshots();
        let found = tokio::time::timeout(PATIENCE, snapshots.wait_for(|snapshot| so(snapshot))).await;
        let found = found.map(|found| found.unwrap().clone());
        found.unwrap_or_else(|_| panic!("waited in vain for {what}: {:#?}, {:?}", self.now().nodes.keys(), self.log()))
    }

    pub(crate) fn now(&self) -> Arc<Snapshot> {
        self.handle.snapshots().borrow().clone()
    }

    /// Waits until requests of a kind have come, or problems, or anything else that has no signal.
    pub(crate) async fn until_true(&self, what: &str, mut so: impl FnMut() -> bool) {
        let deadline = self.born.elapsed() + PATIENCE;
        while !so() {
            assert!(self.born.elapsed() < deadline, "waited in vain for {what}: {:?}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Lists, pages and watches so far.
    pub(crate) fn requests(&self) -> usize {
        ASKS.iter().map(|verb| self.server.count(*verb)).sum()
    }

    pub(crate) fn problems(&self, class: Class) -> u64 {
        self.handle.counters().problems(class)
    }

    /// The requests, for people.
    pub(crate) fn log(&self) -> Vec<String> {
        let say = |r: &weft::lab::apiserver::Logged| format!("{:?} {:?} {} {:?}", r.at, r.verb, r.query, r.fault);
        self.server.log().iter().map(say).collect()
    }
}
