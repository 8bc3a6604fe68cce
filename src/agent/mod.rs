//! The running agent: the loops, and the only place that reads a clock.
//!
//! ```text
//! watch task ──Snapshot──► reconciler thread ──Report──► upkeep of our Node: annotations, condition, Events
//!                              ▲      │                  subnet.env keeper
//!                        netlink events                  status server
//! ```
//!
//! The reconciler is a thread of its own because everything it does blocks in the kernel; the rest
//! waits on sockets and shares one thread.

pub mod announcer;
mod assembly;
pub mod clock;
pub mod cni_file;
pub mod condition;
mod counted;
pub mod events;
pub mod flannel_rules;
pub mod heartbeat;
pub mod host_watch;
pub mod reconciler;
pub mod subnet_file;
pub mod upkeep;
pub mod view;

use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tracing::info;

use self::assembly::{Parts, assemble};
use self::cni_file::CniFile;
use self::counted::CountedNetlink;
use self::reconciler::Reconciler;
use self::upkeep::Upkeep;
use self::view::Sums;
use crate::cluster::watch::Handle;
use crate::config::RunConfig;
use crate::kernel::netlink::{Netlink, Waker};
use crate::status;

/// Runs the agent until SIGTERM or SIGINT. Nothing is torn down then: routes, neighbours and FDB
/// entries go on carrying traffic.
///
/// # Errors
/// A sentence for the operator, if it cannot start or its reconciler has died.
pub fn run(config: RunConfig) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("starting the async runtime: {error}"))?;
    let ended = runtime.block_on(until_told(config));
    // A name that is being looked up, on a thread of its own, may take for ever: nobody waits for it.
    runtime.shutdown_background();
    ended
}

/// The agent's life. A signal ends it wherever it is: also while it starts, and while a request hangs.
async fn until_told(config: RunConfig) -> Result<(), String> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| format!("listening for SIGTERM: {error}"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| format!("listening for SIGINT: {error}"))?;
    tokio::select! {
        _ = terminate.recv() => info!("SIGTERM: weft stops; the tables stay as they are"),
        _ = interrupt.recv() => info!("SIGINT: weft stops; the tables stay as they are"),
        ended = supervise(config) => return ended,
    }
    Ok(())
}

async fn supervise(config: RunConfig) -> Result<(), String> {
    let listener = match config.health {
        Some(address) => Some(status::http::bind(address).await?),
        None => None,
    };
    let Parts {
        watcher,
        handle,
        reconciler,
        announcer,
        condition,
        events,
        subnet_file,
        cni_file,
        flannel_rules,
        host_watch,
        sources,
    } = assemble(&config).await?;
    let (waker, dead) = start_reconciler(reconciler, sources.sums.clone()).await?;
    let http = if_any(listener.map(|listener| status::http::serve(listener, Arc::new(move || sources.view()))));
    let keep_cni = if_any(cni_file.map(CniFile::run));
    let condition = if_any(condition.map(Upkeep::run));
    info!(version = env!("CARGO_PKG_VERSION"), node = &*config.node_name, "weft runs");
    tokio::select! {
        _ = dead => {}
        never = watcher.run() => match never {},
        never = http => match never {},
        () = wake_on_change(handle, waker) => {}
        () = announcer.run() => {}
        () = condition => {}
        () = events.run() => {}
        () = subnet_file.run() => {}
        () = keep_cni => {}
        () = flannel_rules.run() => {}
        () = host_watch.run() => {}
    }
    // Every loop goes on for ever; those that read the reconciler's reports end with it.
    Err("the reconciler has died; see the log above".to_owned())
}

/// Runs a loop that may be turned off.
async fn if_any<F: Future>(task: Option<F>) -> F::Output {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

/// Starts the reconciler's thread, with sockets of its own in this network namespace. Returns what
/// wakes it and what tells that it ended.
async fn start_reconciler(parts: Reconciler, sums: Arc<Mutex<Sums>>) -> Result<(Waker, oneshot::Receiver<()>), String> {
    let (opened, open) = oneshot::channel();
    let (alive, dead) = oneshot::channel();
    let run = move || {
        // Dropped when the thread ends, however it ends.
        let _alive: oneshot::Sender<()> = alive;
        match Netlink::open() {
            Ok(kernel) => {
                if opened.send(Ok(kernel.waker())).is_ok() {
                    let mut counted = CountedNetlink::new(kernel, sums);
                    parts.run(&mut counted);
                }
            }
            Err(error) => drop(opened.send(Err(format!("opening netlink sockets: {error}")))),
        }
    };
    thread::Builder::new()
        .name("reconciler".into())
        .spawn(run)
        .map_err(|error| format!("starting a thread: {error}"))?;
    let waker = open.await.map_err(|_| "the reconciler died at once".to_owned())??;
    Ok((waker, dead))
}

/// Wakes the reconciler whenever the cluster has changed.
async fn wake_on_change(handle: Handle, waker: Waker) {
    let mut snapshots = handle.snapshots();
    while snapshots.changed().await.is_ok() {
        snapshots.borrow_and_update();
        waker.wake();
    }
}
