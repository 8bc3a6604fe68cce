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

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use parking_lot::Mutex;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tracing::info;

use self::announcer::Announcement;
use self::clock::Clock;
use self::cni_file::CniFile;
use self::condition::NetworkCondition;
use self::counted::CountedNetlink;
use self::events::Events;
use self::flannel_rules::FlannelRules;
use self::heartbeat::Heartbeats;
use self::host_watch::HostWatch;
use self::reconciler::Reconciler;
use self::subnet_file::SubnetFile;
use self::upkeep::{Upkeep, UpkeepCounters, Wish};
use self::view::{Sources, Sums};
use crate::cluster::annotations::Keys;
use crate::cluster::client::{ClientOptions, Connection, connect};
use crate::cluster::node::complaints;
use crate::cluster::peers::Viewpoint;
use crate::cluster::timing::Timing;
use crate::cluster::watch::{Handle, Watcher};
use crate::config::RunConfig;
use crate::kernel::netlink::{Netlink, Waker};
use crate::node::cni;
use crate::plan::bridge::Leases;
use crate::reconcile::Report;
use crate::status::notices::log::Notices;
use crate::status::{self, Identity};

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
        _ = dead => return Err("the reconciler has died; see the log above".to_owned()),
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
    Ok(())
}

/// Runs a loop that may be turned off.
async fn if_any<F: Future>(task: Option<F>) -> F::Output {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

/// The loops, not yet running.
struct Parts {
    watcher: Watcher,
    handle: Handle,
    reconciler: Reconciler,
    announcer: Upkeep<Announcement>,
    condition: Option<Upkeep<NetworkCondition>>,
    events: Events,
    subnet_file: SubnetFile,
    cni_file: Option<CniFile>,
    flannel_rules: FlannelRules,
    host_watch: HostWatch,
    sources: Arc<Sources>,
}

/// Makes every loop and ties them together.
async fn assemble(config: &RunConfig) -> Result<Parts, String> {
    let clock = Clock::start();
    let keys = Keys::new(&config.annotation_prefix).map_err(|error| error.to_string())?;
    let api_url = config.api_url.as_ref().map(ToString::to_string);
    let options = ClientOptions { kubeconfig: config.kubeconfig.clone(), api_url };
    let connection = connect(&options).await.map_err(|error| error.to_string())?;
    let view = Viewpoint { own: config.node_name.clone(), vni: config.settings.overlay.tunnel() };
    let since_start: crate::cluster::watch::Clock = Arc::new(move || clock.now());
    let timing = Timing::default();
    let longest_watch = timing.longest_wait();
    let (watcher, handle) = Watcher::new(connection.clone(), keys.clone(), view, timing, since_start);
    let (reports, reported) = watch::channel(None);
    let sources = Arc::new(Sources {
        identity: Arc::new(identity(config)),
        clock,
        reports: reported.clone(),
        watcher: handle.clone(),
        sums: Arc::default(),
        longest_watch,
        heartbeats: Heartbeats::default(),
        announced: Arc::default(),
        announcement_in_place: Arc::default(),
        condition: config.set_condition.then(Arc::default),
        events: Arc::default(),
        subnet_file: Arc::default(),
        flannel_rules: Arc::default(),
        host: Arc::default(),
        cni: config.cni.as_ref().map(|cni| Arc::new(Mutex::new(CniFile::unwritten(&cni.dir, cni.form)))),
    });
    let reconciler = Reconciler {
        settings: config.settings.clone(),
        resync: config.resync,
        snapshots: handle.snapshots(),
        reports,
        leases: leases(config.cni.is_some()),
        on_report: on_report(sources.sums.clone(), handle.clone()),
        clock,
        heartbeat: sources.heartbeats.of("reconciler", reconciler::LIMIT),
        stop: Arc::new(AtomicBool::new(false)),
    };
    let api = (&connection, &keys);
    let announcement = Announcement { keys: keys.clone(), in_place: sources.announcement_in_place.clone() };
    let announcer = upkeep("announcer", api, &sources, sources.announced.clone(), announcement);
    let condition = sources.condition.clone().map(|counters| {
        let (own, sources) = (&sources, sources.clone());
        let ready = Arc::new(move || status::health::ready(&sources.view()).is_ok());
        upkeep("condition", api, own, counters, NetworkCondition { ready })
    });
    let events = events(&connection, &sources);
    let heartbeat = sources.heartbeats.of("flannel_rules", flannel_rules::LIMIT);
    let flannel_rules = FlannelRules { reports: reported, clock, shown: sources.flannel_rules.clone(), heartbeat };
    Ok(Parts {
        watcher,
        handle,
        reconciler,
        announcer,
        condition,
        events,
        subnet_file: subnet_keeper(config, &sources),
        cni_file: cni_keeper(config, &sources),
        flannel_rules,
        host_watch: host_watch(config, &sources),
        sources,
    })
}

/// What tells of trouble on our Node.
fn events(connection: &Connection, sources: &Sources) -> Events {
    Events {
        connection: connection.clone(),
        snapshots: sources.watcher.snapshots(),
        reports: sources.reports.clone(),
        host: sources.host.clone(),
        counters: sources.events.clone(),
        heartbeat: sources.heartbeats.of("events", events::LIMIT),
        clock: sources.clock,
    }
}

/// The keeper of `subnet.env`.
fn subnet_keeper(config: &RunConfig, sources: &Sources) -> SubnetFile {
    SubnetFile {
        path: config.subnet_file.clone(),
        overlay: config.settings.overlay.clone(),
        reports: sources.reports.clone(),
        counters: sources.subnet_file.clone(),
        heartbeat: sources.heartbeats.of("subnet_env", subnet_file::LIMIT),
        clock: sources.clock,
    }
}

/// What looks after the host.
fn host_watch(config: &RunConfig, sources: &Sources) -> HostWatch {
    HostWatch {
        overlay: config.settings.overlay.clone(),
        reports: sources.reports.clone(),
        shown: sources.host.clone(),
        heartbeat: sources.heartbeats.of("host", host_watch::LIMIT),
        clock: sources.clock,
    }
}

/// Reads who may be using the pods' bridge.
fn leases(ours: bool) -> Box<dyn FnMut() -> Leases + Send> {
    Box::new(move || {
        if ours { cni::leases(Path::new(cni::LEASES)).map_or(Leases::Unknown, Leases::Known) } else { Leases::NotOurs }
    })
}

/// The keeper of the CNI configuration, if weft is to keep one.
fn cni_keeper(config: &RunConfig, sources: &Sources) -> Option<CniFile> {
    let (cni, shown) = config.cni.as_ref().zip(sources.cni.clone())?;
    Some(CniFile {
        dir: cni.dir.clone(),
        form: cni.form,
        subnet_file: config.subnet_file.clone(),
        overlay: config.settings.overlay.clone(),
        reports: sources.reports.clone(),
        shown,
        heartbeat: sources.heartbeats.of("cni_conf", cni_file::LIMIT),
        clock: sources.clock,
    })
}

/// A loop that keeps what our Node says.
fn upkeep<W: Wish>(
    name: &'static str,
    (connection, keys): (&Connection, &Keys),
    sources: &Sources,
    counters: Arc<UpkeepCounters>,
    wish: W,
) -> Upkeep<W> {
    Upkeep {
        connection: connection.clone(),
        keys: keys.clone(),
        snapshots: sources.watcher.snapshots(),
        reports: sources.reports.clone(),
        counters,
        heartbeat: sources.heartbeats.of(name, upkeep::LIMIT),
        clock: sources.clock,
        wish,
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

/// What happens with every report, on the reconciler's thread.
fn on_report(sums: Arc<Mutex<Sums>>, handle: Handle) -> Box<dyn FnMut(&Report) + Send> {
    let mut notices = Notices::default();
    let snapshots = handle.snapshots();
    Box::new(move |report| {
        let own = snapshots.borrow().own.clone();
        notices.tell(report, own.as_deref().map(complaints).unwrap_or_default());
        status::changes::log_changes(report);
        if report.wants_list {
            handle.request_list();
        }
        sums.lock().totals.absorb(report);
    })
}

fn identity(config: &RunConfig) -> Identity {
    Identity {
        version: env!("CARGO_PKG_VERSION"),
        node_name: config.node_name.to_string(),
        annotation_prefix: config.annotation_prefix.clone(),
        settings: config.settings.clone(),
        subnet_file: config.subnet_file.clone(),
        resync: config.resync,
        notices: config.notices.clone(),
    }
}
