//! A Kubernetes API server for Nodes (and Events), in memory: good enough for agents and for kubectl.
//!
//! It keeps the promises that clients build on: one counter of revisions, lists in consistent pages,
//! watches that continue where a list ended, bookmarks, and 410 for those who come too late. And it
//! breaks each of them on demand ([`Action`]). It knows nothing of kubelets, pods and users.
//!
//! ```no_run
//! # fn main() -> std::io::Result<()> {
//! use weft::lab::apiserver::{Action, ApiServer, Verb};
//!
//! let server = ApiServer::start(std::net::TcpListener::bind("127.0.0.1:0")?)?;
//! server.put_node(serde_json::json!({ "metadata": { "name": "a" }, "spec": { "podCIDR": "10.244.0.0/24" } }));
//! server.inject(&[Verb::List], Action::Refuse { code: 429, retry_after: Some(1) }, Some(2));
//! println!("kubectl --server {} get nodes", server.url());
//! # Ok(()) }
//! ```

mod discovery;
mod fault;
mod http;
mod list;
mod managed;
mod object;
mod patch;
mod render;
mod route;
mod selector;
mod shared;
mod status;
mod store;
mod watch;
mod write;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch as signal;

pub use fault::Action;
pub use route::Verb;
pub use shared::Logged;

use route::{Resource, Version};
use shared::Shared;
use store::Store;

/// A running server. Dropping it closes every connection.
#[derive(Debug)]
pub struct ApiServer {
    shared: Arc<Shared>,
    running: Mutex<Option<Running>>,
}

/// The thread that serves, and how to end it.
#[derive(Debug)]
struct Running {
    address: SocketAddr,
    stop: signal::Sender<bool>,
    thread: JoinHandle<()>,
}

impl ApiServer {
    /// Serves on a listener; it may have been bound in any network namespace.
    ///
    /// # Errors
    /// If the thread or its reactor cannot be made.
    pub fn start(listener: TcpListener) -> io::Result<Self> {
        let shared = Arc::new(Shared::new());
        let running = Running::start(listener, Arc::clone(&shared))?;
        Ok(Self { shared, running: Mutex::new(Some(running)) })
    }

    /// Stops serving: the listener and every connection are closed when this returns. What is stored
    /// stays.
    pub fn stop(&self) {
        if let Some(running) = self.running.lock().take() {
            running.stop.send_replace(true);
            // The thread has nothing to say; if it panicked there is nothing left to close.
            let _ = running.thread.join();
        }
    }

    /// Serves again, on another listener, what was stored.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn resume(&self, listener: TcpListener) -> io::Result<()> {
        self.stop();
        *self.running.lock() = Some(Running::start(listener, Arc::clone(&self.shared))?);
        Ok(())
    }

    /// Where it serves; `None` while it is stopped.
    pub fn address(&self) -> Option<SocketAddr> {
        self.running.lock().as_ref().map(|running| running.address)
    }

    /// Its URL, for `--kube-api-url` and `kubectl --server`; empty while it is stopped.
    pub fn url(&self) -> String {
        self.address().map(|address| format!("http://{address}")).unwrap_or_default()
    }

    /// Creates a node or replaces it whole, by `metadata.name`, without any check: also what a real
    /// server would refuse. Uid and creation time stay those of the old object, or are as given.
    /// Returns the node as stored.
    pub fn put_node(&self, mut node: Value) -> Value {
        let name = node["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        object::normalise(Resource::Nodes, Version::Core, &mut node);
        let stored = self.shared.write(|store| {
            let old = store.get(Resource::Nodes, &name).map(store::Object::value);
            let given = Some(node.clone());
            object::stamp(old.as_ref().or(given.as_ref()), &mut node, store.next_revision());
            store.put(Resource::Nodes, &name, &node)
        });
        stored.value()
    }

    /// Applies a JSON merge patch to a node, metadata, spec and status alike, without any check.
    /// Returns the node as stored, `None` if there is none of that name.
    pub fn patch_node(&self, name: &str, merge: Value) -> Option<Value> {
        let mut node = self.node(name)?;
        patch::merge(&mut node, merge);
        Some(self.put_node(node))
    }

    /// Deletes a node; whether it was there.
    pub fn delete_node(&self, name: &str) -> bool {
        self.shared.write(|store| store.remove(Resource::Nodes, name)).is_some()
    }

    /// A node as stored.
    pub fn node(&self, name: &str) -> Option<Value> {
        self.shared.store().get(Resource::Nodes, name).map(store::Object::value)
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> Vec<Value> {
        self.all(Resource::Nodes)
    }

    /// All Events, in the form of `v1`.
    pub fn events(&self) -> Vec<Value> {
        self.all(Resource::Events)
    }

    fn all(&self, resource: Resource) -> Vec<Value> {
        let store = self.shared.store();
        store.at(resource, store.revision()).unwrap_or_default().values().map(store::Object::value).collect()
    }

    /// Makes requests of these kinds fail: the first of the faults put that is for a request's kind
    /// meets it. `times` is how often; `None` until [`Self::clear_faults`].
    pub fn inject(&self, on: &[Verb], action: Action, times: Option<u32>) {
        self.shared.faults.lock().put(on, action, times);
    }

    /// Ends all faults. Requests that hang go on hanging; [`Self::stop`] ends them.
    pub fn clear_faults(&self) {
        self.shared.faults.lock().clear();
    }

    /// How many requests met a fault so far: a test of a fault that never fired proves nothing.
    pub fn faults_fired(&self) -> u64 {
        self.shared.faults.lock().fired()
    }

    /// Ends every open watch, as a server does that restarts or sheds load.
    pub fn close_watches(&self) {
        self.shared.closed.send_modify(|times| *times += 1);
    }

    /// Forgets history: lists that continue, and watches that start, from before now get 410. Open
    /// watches go on.
    pub fn compact(&self) {
        self.shared.write(Store::compact);
    }

    /// Remembers this many writes of each resource from now on.
    pub fn keep_history(&self, writes: usize) {
        self.shared.store().keep(writes);
    }

    /// Sends bookmarks this often, in watches that begin from now on.
    pub fn bookmark_every(&self, time: Duration) {
        *self.shared.bookmark_every.lock() = time;
    }

    /// Every request since the start or the last [`Self::clear_log`].
    pub fn log(&self) -> Vec<Logged> {
        self.shared.log.lock().clone()
    }

    /// How many requests of a kind the log holds.
    pub fn count(&self, verb: Verb) -> usize {
        self.shared.log.lock().iter().filter(|logged| logged.verb == verb).count()
    }

    /// Empties the log.
    pub fn clear_log(&self) {
        self.shared.log.lock().clear();
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Running {
    fn start(listener: TcpListener, shared: Arc<Shared>) -> io::Result<Self> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let (stop, mut stopped) = signal::channel(false);
        let serve = async move {
            tokio::select! {
                () = http::serve(listener, shared) => {}
                _ = stopped.changed() => {}
            }
        };
        // The runtime goes with the thread, and every connection with the runtime.
        let thread = std::thread::Builder::new().name("apiserver".to_owned()).spawn(move || runtime.block_on(serve))?;
        Ok(Self { address, stop, thread })
    }
}
