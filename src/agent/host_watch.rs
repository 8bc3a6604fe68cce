//! Looks after the host around the tables: sets what may be set, says what a person must do.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::model::addr::ByFamily;
use crate::model::settings::Overlay;
use crate::node::host::{Device, Places, Problem, cure, look, problems, unseen};
use crate::reconcile::Report;

/// How often: a person or a program may have changed something.
const PERIOD: Duration = Duration::from_secs(5);

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
}

impl HostWatch {
    /// Runs for ever.
    pub async fn run(self) {
        let places = Places::default();
        unseen(&places).iter().for_each(|what| info!("{what}"));
        let mut said: Vec<Problem> = Vec::new();
        loop {
            let now = self.round(&places);
            for problem in now.iter().filter(|problem| !said.contains(problem)) {
                warn!("{}", problem.text);
            }
            for problem in said.iter().filter(|problem| !now.contains(problem)) {
                info!("no longer so: {}", problem.text);
            }
            // A thread that panicked while it held this left what it last saw.
            self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&now);
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
