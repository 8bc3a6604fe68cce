//! Keeps the CNI network configuration: not there before a pod can be reached, then always as it should be.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::{info, warn};

use super::clock::Clock;
use super::heartbeat::Heartbeat;
use super::subnet_file::env_of;
use crate::model::settings::{CniForm, Overlay};
use crate::node::{cni, file};
use crate::reconcile::Report;
use crate::status::totals::is_complete;
use crate::status::{Cni, CniState};

/// How often the file is looked at: somebody may delete it, or put another before it.
const PERIOD: Duration = Duration::from_secs(1);

/// It looks every `PERIOD`; a file system may be slow.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The keeper.
pub struct CniFile {
    /// The directory that the container runtime reads.
    pub dir: PathBuf,
    /// What to write.
    pub form: CniForm,
    /// Where `subnet.env` is, for flannel's plugin.
    pub subnet_file: PathBuf,
    /// The families that must be in it.
    pub overlay: Overlay,
    /// The devices, as the reconciler sees them.
    pub reports: watch::Receiver<Option<Arc<Report>>>,
    /// For `/state` and metrics.
    pub shown: Arc<Mutex<Cni>>,
    /// Shows that the loop goes round.
    pub heartbeat: Arc<Heartbeat>,
    /// Since the agent started.
    pub clock: Clock,
}

impl CniFile {
    /// What is shown before anything has been done.
    pub fn unwritten(dir: &Path, form: CniForm) -> Cni {
        let file = dir.join(cni::FILE_NAME).display().to_string();
        Cni { file, form: form.label(), state: CniState::NotYet, instead: None, written: 0, failed: 0 }
    }

    /// Runs until the reconciler is gone.
    pub async fn run(mut self) {
        // The first pass in which everything is there has been seen: from then on a device that is being
        // put right is no reason to leave the file alone.
        let mut complete = false;
        loop {
            self.heartbeat.beat(self.clock.now());
            let report = self.reports.borrow_and_update().clone();
            if let Some(report) = report {
                complete |= is_complete(&report);
                if complete && let Some(env) = env_of(&self.overlay, &report) {
                    self.keep(&cni::render(self.form, &env, &self.subnet_file));
                }
            }
            if let Ok(Err(_)) = tokio::time::timeout(PERIOD, self.reports.changed()).await {
                return;
            }
        }
    }

    fn keep(&self, content: &str) {
        let path = self.dir.join(cni::FILE_NAME);
        let kept = write(&path, content);
        let instead = names(&self.dir).ok().and_then(|names| {
            cni::taken(names.iter().map(String::as_str)).filter(|name| *name != cni::FILE_NAME).map(str::to_owned)
        });
        let mut shown = self.shown.lock();
        let state = match kept {
            Ok(wrote) => {
                if wrote {
                    shown.written += 1;
                    info!("wrote {}: {}", path.display(), on_one_line(content));
                }
                CniState::InPlace
            }
            Err(problem) => {
                shown.failed += 1;
                CniState::Failed(problem)
            }
        };
        if let CniState::Failed(problem) = &state
            && state != shown.state
        {
            warn!("{problem}");
        }
        shown.state = state;
        if instead != shown.instead {
            match &instead {
                Some(name) => warn!(
                    "the container runtime takes {name} and not {}: it takes the first file by name; remove that one \
                     when this node is to start pods with weft's",
                    cni::FILE_NAME
                ),
                None => info!("{} is now the first file in its directory", cni::FILE_NAME),
            }
            shown.instead = instead;
        }
    }
}

/// Whether it was written; or what is in the way.
fn write(path: &Path, content: &str) -> Result<bool, String> {
    match fs::read(path) {
        Ok(held) if !cni::is_ours(&String::from_utf8_lossy(&held)) => Err(format!(
            "{} is somebody else's (it lacks the key {:?}), so weft leaves it alone; pods are started with what it \
             says; remove it, and weft writes its own within a second",
            path.display(),
            cni::MARK
        )),
        _ => file::ensure(path, content, cni::MODE)
            .map_err(|error| format!("cannot write {}: {error}; weft tries again every second", path.display())),
    }
}

fn names(dir: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

fn on_one_line(content: &str) -> String {
    content.split_whitespace().collect::<Vec<_>>().join(" ")
}
