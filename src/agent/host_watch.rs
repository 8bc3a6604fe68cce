//! Looks after the host around the tables: sets what may be set, says what a person must do.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::if_nametoindex;
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::{info, warn};

use super::clock::Clock;
use super::heartbeat::Heartbeat;
use crate::kernel::forward;
use crate::model::addr::{ByFamily, Family};
use crate::model::settings::Overlay;
use crate::node::host::{Device, FORWARD_DROP, Places, Problem, cure, look, problems, unseen};
use crate::plan::bridge::BRIDGE;
use crate::plan::forward::{problem, stops};
use crate::reconcile::Report;

/// How often: a person or a program may have changed something.
const PERIOD: Duration = Duration::from_secs(5);

/// How many rounds lie between two looks at the packet filters, which can be large.
const ROUNDS: u32 = 6;

/// It looks every `PERIOD`.
pub const LIMIT: Duration = Duration::from_secs(60);

/// What is shown of it.
pub type Shown = Arc<Mutex<Vec<Problem>>>;

/// The watcher.
pub struct HostWatch {
    /// The enabled families.
    pub overlay: Overlay,
    /// The devices, as the reconciler sees them.
    pub reports: watch::Receiver<Option<Arc<Report>>>,
    /// For `/state` and metrics.
    pub shown: Shown,
    /// Of what nothing can be told here, for `/state`.
    pub unseen: Arc<Mutex<Vec<String>>>,
    /// Shows that the loop goes round.
    pub heartbeat: Arc<Heartbeat>,
    /// Since the agent started.
    pub clock: Clock,
}

impl HostWatch {
    /// Runs for ever.
    pub async fn run(self) {
        let places = Places::default();
        unseen(&places).iter().for_each(|what| info!("{what}"));
        let mut said: Vec<Problem> = Vec::new();
        let mut dropped = Vec::new();
        for round in (0..ROUNDS).cycle() {
            self.heartbeat.beat(self.clock.now());
            *self.unseen.lock() = unseen(&places);
            let mut now = self.round(&places);
            if round == 0 {
                dropped = self.dropped();
            }
            now.extend(dropped.iter().cloned());
            for problem in now.iter().filter(|problem| !said.contains(problem)) {
                warn!("{}", problem.text);
            }
            for problem in said.iter().filter(|problem| !now.contains(problem)) {
                info!("no longer so: {}", problem.text);
            }
            self.shown.lock().clone_from(&now);
            said = now;
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// What is wrong and could not be cured.
    fn round(&self, places: &Places) -> Vec<Problem> {
        let enabled = ByFamily::from_fn(|family| self.overlay.networks.get(family).is_some());
        let devices = self.devices();
        let mut left = problems(&look(places, enabled, &devices));
        left.retain(|problem| match problem.cure {
            Some(path) if cure(places, path) => {
                let name = path.replace('/', ".");
                info!("turned on net.{name}, which pods need; after a boot weft does so again, or /etc/sysctl.d does");
                false
            }
            _ => true,
        });
        left
    }

    /// Chains of others that drop what pods send to other nodes.
    fn dropped(&self) -> Vec<Problem> {
        let devices = self.devices();
        // The bridge may not be there yet.
        let ours = devices.iter().flat_map(|device| [device.name.as_str(), device.underlay.as_str()]).chain([BRIDGE]);
        let ours: Vec<&str> = ours.collect();
        let addresses: Vec<(String, Option<IpAddr>)> = getifaddrs().into_iter().flatten().map(address).collect();
        let mut problems = Vec::new();
        for (family, network) in
            self.overlay.networks.iter().filter_map(|(family, network)| Some((family, (*network)?)))
        {
            // What cannot be read is no problem: who needs the packet filter says so elsewhere.
            let chains = forward::find(family).unwrap_or_default();
            let elsewhere = |name: &str| {
                let of = addresses.iter().filter(|(of, _)| of == name);
                let mut held = of.clone().filter_map(|(_, ip)| *ip).filter(|ip| Family::of(*ip) == family).peekable();
                let unknown = of.count() > 0 && held.peek().is_none();
                !ours.contains(&name) && !unknown && held.all(|ip| !network.contains(ip))
            };
            for chain in chains.iter().filter(|chain| stops(chain, &elsewhere)) {
                problems.push(Problem {
                    label: FORWARD_DROP,
                    text: problem(&chain.place, family, network),
                    cure: None,
                });
            }
        }
        problems
    }

    fn devices(&self) -> Vec<Device> {
        let report = self.reports.borrow().clone();
        let families = report.iter().flat_map(|report| report.families.iter());
        let specs = families.filter_map(|(_, family)| family.as_ref()?.device.as_ref());
        let device = |name: &str, underlay: &str| Device {
            name: name.to_owned(),
            index: if_nametoindex(name).ok(),
            underlay: underlay.to_owned(),
        };
        specs.map(|spec| device(spec.name.as_str(), spec.underlay_name.as_str())).collect()
    }
}

/// An interface's name and one of its addresses, if it has any.
fn address(interface: InterfaceAddress) -> (String, Option<IpAddr>) {
    let ip = interface.address.and_then(|address| match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(v4), _) => Some(IpAddr::V4(v4.ip())),
        (_, Some(v6)) => Some(IpAddr::V6(v6.ip())),
        _ => None,
    });
    (interface.interface_name, ip)
}
