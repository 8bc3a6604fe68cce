//! `weft plan`: what would change on this machine now, without changing it.
//!
//! A real pass, over a copy of the kernel: what it prints is what the agent would do. Everything that
//! is not a command is behind a `#`, so that the output can be pasted into a shell.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use crate::cluster::annotations::Keys;
use crate::cluster::peers::{Peers, Viewpoint};
use crate::cluster::wire::Page;
use crate::config::PlanConfig;
use crate::kernel::Kernel;
use crate::kernel::flannel;
use crate::kernel::netlink::Netlink;
use crate::model::addr::{ByFamily, Family};
use crate::model::node::Snapshot;
use crate::model::op::Ack;
use crate::model::settings::Settings;
use crate::plan::bridge::Leases;
use crate::plan::leftovers::{Decision, Leftovers, grounds};
use crate::reconcile::peers::peer_states;
use crate::reconcile::report::{PeerState, Report, Verdict};
use crate::reconcile::{Input, preview};

/// Exit code when something would change; 0 is "nothing", 1 is "something went wrong".
pub const SOMETHING_TO_DO: u8 = 2;

/// Runs the command.
pub fn run(config: &PlanConfig) -> ExitCode {
    match plan(config) {
        Ok(plan) => {
            // A reader that has gone away is no failure of ours.
            let _ = std::io::stdout().write_all(render(&plan).as_bytes());
            let report = &plan.report;
            match (&report.verdict, plan.changes_nothing()) {
                (Verdict::Waiting(_) | Verdict::Blind(_), _) => ExitCode::FAILURE,
                _ if report.families.iter().any(|(_, family)| family.as_ref().is_some_and(|f| f.waiting.is_some())) => {
                    ExitCode::FAILURE
                }
                (Verdict::Converged, true) => ExitCode::SUCCESS,
                (Verdict::Converged | Verdict::Incomplete, _) => ExitCode::from(SOMETHING_TO_DO),
            }
        }
        Err(problem) => {
            let _ = writeln!(std::io::stderr(), "error: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// What would be done.
struct Plan {
    report: Report,
    /// Of packet rules that flannel left.
    flannels: Decision,
    /// Why those cannot be told.
    unread: Vec<String>,
}

impl Plan {
    fn changes_nothing(&self) -> bool {
        self.report.changes.is_empty() && self.flannels.remove.is_empty()
    }
}

fn plan(config: &PlanConfig) -> Result<Plan, String> {
    for notice in &config.notices {
        let _ = writeln!(std::io::stderr(), "note: {notice}");
    }
    let snapshot = read_nodes(config)?;
    let mut kernel = Netlink::open().map_err(|error| format!("opening a netlink socket: {error}"))?;
    let host = kernel.observe(&config.settings.scope()).map_err(|error| error.to_string())?;
    let input = Input { settings: &config.settings, snapshot: &snapshot, leases: &Leases::Unknown };
    let (flannels, unread) = flannels(&config.settings);
    Ok(Plan { report: preview(&host, &input), flannels, unread })
}

/// What becomes of packet rules that flannel left, as the agent decides it when its own stand; and why they cannot be
/// told.
fn flannels(settings: &Settings) -> (Decision, Vec<String>) {
    let (seen, unread) = flannel::find_all();
    let unread = unread.iter().map(|(family, why)| format!("{family}: cannot look for rules of flannel: {why}"));
    let stands = ByFamily::from_fn(|family| {
        settings.overlay.networks.get(family).is_some().then_some(settings.filter.masquerade.is_some())
    });
    (Leftovers::default().decide(&seen, grounds(stands), Duration::ZERO), unread.collect())
}

fn read_nodes(config: &PlanConfig) -> Result<Snapshot, String> {
    let path = &config.nodes;
    let mut json = Vec::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().read_to_end(&mut json)
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut json))
    };
    read.map_err(|error| format!("--nodes {}: {error}", path.display()))?;
    snapshot(config, &json).map_err(|problem| format!("--nodes {}: {problem}", path.display()))
}

/// The cluster, as a saved list of Nodes shows it.
fn snapshot(config: &PlanConfig, json: &[u8]) -> Result<Snapshot, String> {
    let keys = Keys::new(&config.annotation_prefix).map_err(|error| error.to_string())?;
    let view = Viewpoint { own: config.node_name.clone(), vni: config.settings.overlay.tunnel() };
    let list = Page::read_file(&keys, json)
        .map_err(|problem| format!("{problem}; what `kubectl get nodes -o json` prints is expected"))?;
    let mut peers = Peers::default();
    peers.begin();
    for node in &list.items.nodes {
        peers.apply(view.see(node));
    }
    peers.swap().map_err(|count| format!("{count} of its objects have no name: the list is not whole"))?;
    let snapshot = peers.snapshot().clone();
    if snapshot.own.is_none() {
        return Err(format!(
            "none of its {} Nodes is called {:?}: give the name that `kubectl get nodes` shows for this machine to \
             --node-name",
            snapshot.nodes.len(),
            config.node_name
        ));
    }
    Ok(snapshot)
}

/// The commands, then the nodes that get none.
fn render(plan: &Plan) -> String {
    let (mut text, Plan { report, flannels, unread }) = (String::new(), plan);
    // Writing to a String cannot fail.
    let _ = write_changes(&mut text, report);
    let _ = flannels.remove.iter().try_for_each(|what| writeln!(text, "{what}  # flannel's"));
    let _ = unread.iter().chain(flannels.stays.values()).try_for_each(|why| writeln!(text, "# {why}"));
    let _ = write_families(&mut text, report);
    if plan.changes_nothing() && matches!(report.verdict, Verdict::Converged) {
        text.push_str("# nothing would change\n");
    }
    text
}

fn write_changes(text: &mut String, report: &Report) -> std::fmt::Result {
    for change in &report.changes {
        write!(text, "{}", change.op)?;
        if let Some(peer) = &change.peer {
            write!(text, "  # {peer}")?;
        }
        match &change.ack {
            Ack::Done => writeln!(text)?,
            Ack::Refused(refusal) => writeln!(text, "  # would be refused: {refusal}")?,
            Ack::Unknown(problem) => writeln!(text, "  # {problem}")?,
        }
    }
    match &report.verdict {
        Verdict::Waiting(why) | Verdict::Blind(why) => writeln!(text, "# {why}"),
        Verdict::Converged | Verdict::Incomplete => Ok(()),
    }
}

fn write_families(text: &mut String, report: &Report) -> std::fmt::Result {
    for left_over in &report.left_over {
        writeln!(text, "# {left_over}")?;
    }
    for family in Family::BOTH {
        let Some(of_family) = report.families.get(family) else { continue };
        for shadow in &of_family.shadows {
            writeln!(text, "# {family} {}: {}", shadow.peer, shadow.problem)?;
        }
        if let Some(withheld) = &of_family.withheld {
            writeln!(text, "# {family}: {withheld}")?;
        }
        if let Some(problem) = &report.filter.get(family).problem {
            writeln!(text, "# {family}: the packet filter: {problem}")?;
        }
        for pending in of_family.pending.iter().filter(|pending| pending.peer.is_none()) {
            writeln!(text, "# {family}: {}: {}", pending.op, pending.problem)?;
        }
        for (name, state) in peer_states(report, family) {
            match state {
                PeerState::Unusable(why) => writeln!(text, "# {family} {name} cannot be used: {why}")?,
                PeerState::Rejected(why) => writeln!(text, "# {family} {name} is refused: {why}")?,
                PeerState::Pending(why) => writeln!(text, "# {family} {name} could not be put in: {why}")?,
                PeerState::Installed | PeerState::Absent(_) => {}
            }
        }
    }
    Ok(())
}
