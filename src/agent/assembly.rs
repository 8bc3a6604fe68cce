//! Makes every loop and ties them together: who reads what of whom.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::announcer::Announcement;
use super::clock::Clock;
use super::cni_file::{self, CniFile};
use super::condition::NetworkCondition;
use super::events::{self, Events};
use super::flannel_rules::{self, FlannelRules};
use super::heartbeat::Heartbeats;
use super::host_watch::{self, HostWatch};
use super::reconciler::{self, Reconciler};
use super::subnet_file::{self, SubnetFile};
use super::upkeep::{self, Upkeep, UpkeepCounters, Wish};
use super::view::{Sources, Sums};
use crate::cluster::annotations::Keys;
use crate::cluster::client::{ClientOptions, Connection, connect};
use crate::cluster::node::complaints;
use crate::cluster::peers::Viewpoint;
use crate::cluster::timing::Timing;
use crate::cluster::watch::{Handle, Watcher};
use crate::config::RunConfig;
use crate::node::cni;
use crate::plan::bridge::Leases;
use crate::reconcile::Report;
use crate::status::notices::log::Notices;
use crate::status::{self, Identity};

/// The loops, not yet running.
pub(super) struct Parts {
    pub(super) watcher: Watcher,
    pub(super) handle: Handle,
    pub(super) reconciler: Reconciler,
    pub(super) announcer: Upkeep<Announcement>,
    pub(super) condition: Option<Upkeep<NetworkCondition>>,
    pub(super) events: Events,
    pub(super) subnet_file: SubnetFile,
    pub(super) cni_file: Option<CniFile>,
    pub(super) flannel_rules: FlannelRules,
    pub(super) host_watch: HostWatch,
    pub(super) sources: Arc<Sources>,
}

/// Makes every loop and ties them together.
pub(super) async fn assemble(config: &RunConfig) -> Result<Parts, String> {
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
    let sources = Arc::new(sources(config, clock, handle.clone(), reported.clone(), longest_watch));
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

/// What the loops show of themselves, and what `/healthz` expects of them.
fn sources(
    config: &RunConfig,
    clock: Clock,
    watcher: Handle,
    reports: watch::Receiver<Option<Arc<Report>>>,
    longest_watch: Duration,
) -> Sources {
    Sources {
        identity: Arc::new(identity(config)),
        clock,
        reports,
        watcher,
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
        host_unseen: Arc::default(),
        cni: config.cni.as_ref().map(|cni| Arc::new(Mutex::new(CniFile::unwritten(&cni.dir, cni.form)))),
    }
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
        unseen: sources.host_unseen.clone(),
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
