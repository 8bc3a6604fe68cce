//! The server that is asked: the lab's, or the one that the environment names.
//!
//! `WEFT_TEST_APISERVER=127.0.0.1:8001` is the plain HTTP address of a real one (`kubectl proxy`), of which
//! every Node and Event is deleted before each test, and `WEFT_TEST_APISERVER_FORGET` a program that makes
//! it forget its history and returns once it serves again. `tests/cluster/run` sets both.

use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weft::lab::apiserver::ApiServer;

use crate::http::{self, Answer, Stream};

pub(crate) const JSON: (&str, &str) = ("Content-Type", "application/json");
pub(crate) const MERGE: (&str, &str) = ("Content-Type", "application/merge-patch+json");
pub(crate) const STRATEGIC: (&str, &str) = ("Content-Type", "application/strategic-merge-patch+json");

/// There is one real server, and a test wants it to itself.
static ALONE: Mutex<()> = Mutex::new(());

/// An empty server.
pub(crate) struct Server {
    pub(crate) at: SocketAddr,
    kind: Kind,
}

enum Kind {
    Lab(ApiServer),
    Real { _alone: MutexGuard<'static, ()> },
}

impl Server {
    /// Whichever the environment names, without any Node or Event.
    pub(crate) fn empty() -> Self {
        let Ok(address) = std::env::var("WEFT_TEST_APISERVER") else {
            let (lab, at) = lab();
            return Self { at, kind: Kind::Lab(lab) };
        };
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let server = Self { at: address.parse().expect("an address"), kind: Kind::Real { _alone: alone } };
        for path in ["/api/v1/nodes", "/api/v1/namespaces/default/events"] {
            assert_eq!(http::request(server.at, "DELETE", path, &[], "").status, 200, "{path}");
            until("it is empty", || server.get(path).json()["items"] == json!([]));
        }
        server
    }

    /// With nodes n0, n1, ...
    pub(crate) fn with_nodes(count: usize) -> Self {
        let server = Self::empty();
        (0..count).for_each(|i| drop(server.create(&format!("n{i}"), &format!("10.244.{i}.0/24"))));
        server
    }

    pub(crate) fn is_real(&self) -> bool {
        matches!(self.kind, Kind::Real { .. })
    }

    /// For `kubectl --server`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.at)
    }

    /// Forgets every change before now, and with a real server every watch too: it is started again.
    pub(crate) fn forget(&self) {
        match &self.kind {
            Kind::Lab(lab) => lab.compact(),
            Kind::Real { .. } => {
                let program = std::env::var_os("WEFT_TEST_APISERVER_FORGET").expect("WEFT_TEST_APISERVER_FORGET");
                assert!(Command::new(program).status().expect("it runs").success());
            }
        }
    }

    pub(crate) fn get(&self, target: &str) -> Answer {
        http::get(self.at, target)
    }

    pub(crate) fn send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        http::request(self.at, method, target, headers, &body.to_string())
    }

    /// Creates a node; as stored.
    pub(crate) fn create(&self, name: &str, cidr: &str) -> Value {
        let made = self.send("POST", "/api/v1/nodes", &[], &node(name, cidr));
        assert_eq!(made.status, 201, "{}", made.json());
        made.json()
    }

    /// Patches a node by JSON merge patch; as stored.
    pub(crate) fn patch(&self, name: &str, merge: &Value) -> Value {
        let patched = self.send("PATCH", &format!("/api/v1/nodes/{name}"), &[MERGE], merge);
        assert_eq!(patched.status, 200, "{}", patched.json());
        patched.json()
    }

    pub(crate) fn delete(&self, name: &str) {
        assert_eq!(self.send("DELETE", &format!("/api/v1/nodes/{name}"), &[], &json!({})).status, 200);
    }

    /// All nodes.
    pub(crate) fn list(&self) -> Value {
        self.get("/api/v1/nodes").json()
    }

    /// A watch of nodes from where a list ended.
    pub(crate) fn watch_from(&self, list: &Value, query: &str) -> Stream {
        watch(self.at, &format!("resourceVersion={}{query}", version(list)))
    }
}

/// The lab's own, whatever the environment says.
pub(crate) fn lab() -> (ApiServer, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    (ApiServer::start(listener).unwrap(), at)
}

pub(crate) fn node(name: &str, cidr: &str) -> Value {
    json!({ "kind": "Node", "apiVersion": "v1", "metadata": { "name": name }, "spec": { "podCIDR": cidr, "podCIDRs": [cidr] } })
}

pub(crate) fn watch(at: SocketAddr, query: &str) -> Stream {
    let stream = http::open(at, "GET", &format!("/api/v1/nodes?watch=1&{query}"), &[], "").unwrap();
    assert_eq!(stream.status, 200, "{query}");
    stream
}

/// The names in a list, in its order.
pub(crate) fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().unwrap_or_else(|| panic!("a list: {list}"));
    items.iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

pub(crate) fn version(object: &Value) -> u64 {
    let version = object["metadata"]["resourceVersion"].as_str();
    version.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("a resourceVersion: {object}"))
}

/// An event of a watch: what happened to whom.
pub(crate) fn seen(event: &Value) -> (&str, &str) {
    (event["type"].as_str().unwrap_or(""), event["object"]["metadata"]["name"].as_str().unwrap_or(""))
}

fn until(what: &str, so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(30), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
