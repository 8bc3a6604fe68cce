//! The rounds of a pass: look, put the devices right, then the tables on them, until a look finds
//! nothing to do.

use std::sync::Arc;
use std::time::Duration;

use super::memory::Memory;
use super::report::{ByKind, FamilyReport, Report, Verdict};
use super::tables::Untold;
use crate::kernel::Kernel;
use crate::model::addr::{ByFamily, Family};
use crate::model::host::Host;
use crate::model::node::{OwnNode, Snapshot};
use crate::model::op::Dev;
use crate::model::settings::Settings;
use crate::model::table::Tables;
use crate::plan::bridge::Leases;
use crate::plan::desired::{Desired, Wanted};
use crate::plan::device::left_over;
use crate::plan::local::{Before, Local, grounds, local};
use crate::plan::shadow::shadows;
use crate::plan::tenure::STANDS;

/// Looks per pass at most: making a device from nothing and filling it takes four.
const ROUNDS: u32 = 8;

/// The tables are kept right for all that, so nothing else says it.
const UNLISTED: &str = "our own Node is not in the API server's list any more: other nodes take their rows for this one away; \
                        weft keeps its own, and announces this node again once its Node is there";

/// What a pass works from.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The configuration.
    pub settings: &'a Settings,
    /// The cluster.
    pub snapshot: &'a Snapshot,
    /// Who may be using the pods' bridge.
    pub leases: &'a Leases,
}

/// One pass. `now` is the time since the agent started; the caller fills in how long it took.
pub fn pass(kernel: &mut dyn Kernel, input: &Input<'_>, memory: &mut Memory, now: Duration) -> Report {
    memory.passes += 1;
    if let Some(own) = &input.snapshot.own {
        memory.own = Some(own.clone());
    }
    let mut report = Report {
        pass: memory.passes,
        at: now,
        took: Duration::ZERO,
        verdict: Verdict::Incomplete,
        families: ByFamily::default(),
        filter: ByFamily::from_fn(|family| memory.unlooked_filter(family)),
        left_over: Vec::new(),
        desired: None,
        unlisted: (memory.own.is_some() && input.snapshot.complete && input.snapshot.own.is_none()).then_some(UNLISTED),
        nodes: input.snapshot.nodes.len() + usize::from(input.snapshot.own.is_some()),
        changes: Vec::new(),
        wants_list: false,
        next_try: None,
        half_way: false,
    };
    // Our own Node may be known before a list was whole: from one with an object that nobody can read.
    // Then entries are put in and none is taken out.
    match &memory.own.clone() {
        Some(own) => Pass { kernel, input: *input, memory, now, report: &mut report, untold: Vec::new() }.run(own),
        None => report.verdict = Verdict::Waiting(waiting_for(input.snapshot)),
    }
    memory.attempts.forgive(now);
    let stood = memory.tenures.iter().filter_map(|(_, tenure)| tenure.due(now));
    report.next_try = memory.attempts.next_try(now).into_iter().chain(stood).min();
    report
}

fn waiting_for(snapshot: &Snapshot) -> String {
    if snapshot.complete {
        "our own Node object is not in the API server's list; weft waits for it and changes nothing: does --node-name \
         agree with `kubectl get nodes`?"
            .to_owned()
    } else {
        "the API server's list of Nodes has not been read whole yet; weft waits and changes nothing".to_owned()
    }
}

/// One pass under way.
pub(super) struct Pass<'a> {
    pub(super) kernel: &'a mut dyn Kernel,
    pub(super) input: Input<'a>,
    pub(super) memory: &'a mut Memory,
    pub(super) now: Duration,
    pub(super) report: &'a mut Report,
    /// Of this round.
    pub(super) untold: Vec<Untold>,
}

/// The rows of a family in one round: as wanted, and as the last look saw them.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) family: Family,
    /// Where they are.
    pub(super) dev: &'a Dev,
    pub(super) wanted: &'a Wanted,
    pub(super) seen: &'a Tables,
    pub(super) host: &'a Host,
}

impl Pass<'_> {
    fn run(mut self, own: &OwnNode) {
        let scope = self.input.settings.scope();
        for _ in 0..ROUNDS {
            let host = match self.kernel.observe(&scope) {
                Ok(host) => host,
                Err(error) => {
                    self.report.verdict = Verdict::Blind(format!("{error}; nothing is changed, weft looks again"));
                    return;
                }
            };
            self.report.left_over = left_over(&self.input.settings.overlay, &host);
            let locals = self.locals(own, &host);
            let desired = self.memory.desired(self.input.snapshot, grounds(&locals));
            self.report.desired = Some(desired.clone());
            let filtered = self.filter(&locals, &host, &desired);
            let wrote = Family::BOTH.map(|family| match locals.get(family) {
                Some(local) => self.family(family, local, &host, &desired),
                None => false,
            });
            self.tell(&desired, &host);
            self.report.half_way = filtered || wrote != [false, false];
            if !self.report.half_way {
                self.report.verdict = self.verdict();
                self.report.half_way = self.unread_filter(&host);
                break;
            }
        }
        self.keep();
    }

    /// Our own node in each enabled family.
    fn locals(&mut self, own: &OwnNode, host: &Host) -> ByFamily<Option<Result<Local, String>>> {
        let settings = self.input.settings;
        ByFamily::from_fn(|family| {
            (*settings.overlay.networks.get(family))?;
            let mac = *self.memory.macs.get(family);
            let mut before = Before { mac, tenure: self.memory.tenures.get_mut(family) };
            let found = local(settings, own, host, family, &mut before, self.now);
            if let Ok(found) = &found {
                *self.memory.macs.get_mut(family) = found.device.as_ref().map(|device| device.mac).or(mac);
            }
            Some(found)
        })
    }

    /// One family in one round. True if anything was tried.
    fn family(&mut self, family: Family, local: &Result<Local, String>, host: &Host, desired: &Arc<Desired>) -> bool {
        let mut report = FamilyReport::default();
        let wrote = match local {
            Err(waiting) => {
                report.waiting = Some(waiting.clone());
                false
            }
            Ok(local) => {
                report.device.clone_from(&local.device);
                report.underlay = Some(local.underlay.name.clone());
                report.mtu = Some(local.mtu);
                report.subnet = Some(local.subnet);
                report.public_ip = Some(local.public_ip);
                report.moving = moving(local);
                let cleared = self.bridge(family, local, host, &mut report);
                let dev = match &local.device {
                    Some(spec) => self.device(spec, host, &mut report),
                    None => Ok(self.no_device(family, host, &mut report)),
                };
                cleared
                    | match dev {
                        Err(wrote) => wrote,
                        Ok(dev) => self.rows(family, &dev, host, desired, &mut report),
                    }
            }
        };
        *self.report.families.get_mut(family) = Some(report);
        wrote
    }

    /// The tables, and with host-gw a device of before that nothing uses any more. True if anything was tried.
    fn rows(
        &mut self,
        family: Family,
        dev: &Dev,
        host: &Host,
        desired: &Arc<Desired>,
        report: &mut FamilyReport,
    ) -> bool {
        let (Some(wanted), Some(seen)) = (desired.families.get(family), host.tables.get(family)) else { return false };
        report.shadows = shadows(wanted, seen, host, &dev.name);
        let rows = Rows { family, dev, wanted, seen, host };
        let wrote = self.tables(&rows, report);
        wrote || (report.device.is_none() && self.retire(&rows, report))
    }

    fn verdict(&self) -> Verdict {
        let families = || self.report.families.iter().filter_map(|(_, family)| family.as_ref());
        let waiting: Vec<String> = families().filter_map(|family| family.waiting.clone()).collect();
        if families().all(|family| family.waiting.is_some()) {
            return Verdict::Waiting(waiting.join("; "));
        }
        let done = |family: &FamilyReport| family.ready && family.pending.is_empty() && family.withheld.is_none();
        let filtered = self.report.filter.iter().all(|(_, filter)| filter.in_place && filter.problem.is_none());
        if filtered && families().all(done) { Verdict::Converged } else { Verdict::Incomplete }
    }

    /// Whether a packet filter that matters could not be read.
    fn unread_filter(&self, host: &Host) -> bool {
        let unread = |family| host.filter_problem.get(family).is_some();
        self.report.filter.iter().any(|(family, filter)| filter.problem.is_some() && unread(family))
    }

    /// Remembers how each family was left, for the causes of the next pass.
    fn keep(&mut self) {
        for family in Family::BOTH {
            let Some(report) = self.report.families.get(family) else { continue };
            let worked_on = report.ready || report.wanted != ByKind::default();
            let desired = self.report.desired.clone().filter(|_| worked_on);
            self.memory.keep(family, report.device.clone(), desired, report.withheld.is_some());
        }
    }
}

/// What is said while the underlay does not follow the routes yet.
fn moving(local: &Local) -> Option<String> {
    let (_, rival) = local.underlay.rival.as_ref()?;
    let who = local.device.as_ref().map_or("weft", |device| device.name.as_str());
    Some(format!(
        "routes lead by {rival} now; {who} stays over {} until they have done so for {} s without a break",
        local.underlay.name,
        STANDS.as_secs()
    ))
}
