//! `/healthz`: does every loop go round? `/readyz`: is the overlay in place?

use super::View;
use super::totals::is_complete;
use crate::reconcile::report::{FamilyReport, Report, Verdict};

/// Whether every loop goes round. A failed check means that a restart may help.
///
/// # Errors
/// A sentence for each loop that has stopped.
pub fn live(view: &View) -> Result<(), Vec<String>> {
    let stopped = view.beats.iter().filter(|beat| beat.age > beat.limit);
    let sentences: Vec<String> = stopped
        .map(|beat| {
            let (name, age, limit) = (beat.name, beat.age.as_secs(), beat.limit.as_secs());
            format!("the {name} loop last went round {age} s ago; more than {limit} s means that it hangs")
        })
        .collect();
    if sentences.is_empty() { Ok(()) } else { Err(sentences) }
}

/// Whether this node takes part: the device can receive, and everything that the kernel took is in.
/// Single peers with a problem of their own do not count against it.
///
/// # Errors
/// What is missing, in sentences.
pub fn ready(view: &View) -> Result<(), Vec<String>> {
    let mut missing = match &view.report {
        None => vec!["no pass has been made yet".to_owned()],
        Some(report) => match &report.verdict {
            Verdict::Waiting(why) | Verdict::Blind(why) => vec![why.clone()],
            Verdict::Converged | Verdict::Incomplete => {
                let families = report.families.iter().filter_map(|(family, of)| Some((family, of.as_ref()?)));
                let missing = families.filter(|(_, of)| !of.ready);
                let missing = missing.map(|(family, of)| format!("{family}: {}", unready(of)));
                missing.chain(unmasqueraded(report)).collect()
            }
        },
    };
    // The tables are compared once; later a pass under way (a hundred nodes joining) is no reason to
    // take the node out.
    let complete = view.totals.completed.is_some() || view.report.as_deref().is_some_and(is_complete);
    if missing.is_empty() && !complete {
        missing.push("the first pass has not put everything in yet".to_owned());
    }
    missing.extend(view.report.iter().filter_map(|report| report.unlisted).map(str::to_owned));
    missing.extend(view.unready.iter().cloned());
    if missing.is_empty() {
        return Ok(());
    }
    // No reason by itself, but most likely the reason for the others.
    let watch = view.api_problems.iter().find(|problem| problem.request == "watch");
    if let Some(problem) = watch.filter(|_| view.api.failing_since.is_some()) {
        let (text, ago) = (&problem.text, view.now.saturating_sub(problem.at).as_secs());
        missing.push(format!("{text}, {ago} s ago"));
    }
    Err(missing)
}

/// Why no packet is masqueraded that should be. Pods without it reach nobody outside, so flannel ends there.
fn unmasqueraded(report: &Report) -> impl Iterator<Item = String> {
    report.filter.iter().filter(|(_, filter)| filter.lacks_masquerading).map(|(family, filter)| {
        let why = filter.problem.as_deref().unwrap_or("it is being put right");
        format!("{family}: masquerading (--ip-masq) is not in place: {why}")
    })
}

/// Why a family's device that is not ready is not.
pub(super) fn unready(family: &FamilyReport) -> String {
    let device = family.device.as_ref().map_or("the device", |device| device.name.as_str());
    let why = match (&family.waiting, family.pending.first()) {
        (Some(waiting), _) => waiting.clone(),
        (None, Some(pending)) => format!("{}: {}", pending.op, pending.problem),
        (None, None) => "it is being put right".to_owned(),
    };
    format!("{device} is not ready: {why}")
}
