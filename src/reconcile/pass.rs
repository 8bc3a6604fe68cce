//! The rounds of a pass: look, put the devices right, then the tables on them, until a look finds
//! nothing to do.

use std::sync::Arc;
use std::time::Duration;

use super::memory::{Memory, Renewal};
use super::report::{ByKind, FamilyReport, Report, Verdict};
use super::trying::{Due, Settled};
use crate::kernel::Kernel;
use crate::model::addr::{ByFamily, Family};
use crate::model::host::{Host, LinkKind};
use crate::model::node::{OwnNode, Snapshot};
use crate::model::op::{Dev, LinkOp, Op};
use crate::model::settings::Settings;
use crate::plan::attempts::Look;
use crate::plan::bridge::Leases;
use crate::plan::cause::{Cause, of_link};
use crate::plan::desired::Desired;
use crate::plan::device::{DeviceState, compare, left_over};
use crate::plan::local::{Before, Local, grounds, local};
use crate::plan::shadow::shadows;
use crate::plan::tenure::STANDS;

/// Looks per pass at most: making a device from nothing and filling it takes four.
const ROUNDS: u32 = 8;

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
        filter: ByFamily::default(),
        left_over: Vec::new(),
        desired: None,
        nodes: input.snapshot.nodes.len() + usize::from(input.snapshot.own.is_some()),
        changes: Vec::new(),
        wants_list: false,
        next_try: None,
    };
    // Our own Node may be known before a list was whole: from one with an object that nobody can read.
    // Then entries are put in and none is taken out.
    match &memory.own.clone() {
        Some(own) => Pass { kernel, input: *input, memory, now, report: &mut report }.run(own),
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
            if !filtered && wrote == [false, false] {
                self.report.verdict = self.verdict();
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
                *self.memory.macs.get_mut(family) = Some(found.device.mac);
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
                report.device = Some(local.device.clone());
                report.subnet = Some(local.subnet);
                report.public_ip = Some(local.public_ip);
                report.moving = moving(local);
                report.udp_checksum = host.link(&local.device.name).and_then(|link| match &link.kind {
                    LinkKind::Vxlan(vxlan) => Some(vxlan.udp_checksum),
                    LinkKind::Other(_) => None,
                });
                let cleared = self.bridge(family, local, host, &mut report);
                cleared
                    | match self.device(local, host, &mut report) {
                        Err(wrote) => wrote,
                        Ok(dev) => match (desired.families.get(family), host.tables.get(family)) {
                            (Some(wanted), Some(seen)) => {
                                report.shadows = shadows(wanted, seen, host, &dev.name);
                                self.tables(&dev, wanted, host, &mut report)
                            }
                            _ => false,
                        },
                    }
            }
        };
        *self.report.families.get_mut(family) = Some(report);
        wrote
    }

    /// Puts the device right. The device if its tables can be worked on; else whether anything was
    /// tried.
    fn device(&mut self, local: &Local, host: &Host, report: &mut FamilyReport) -> Result<Dev, bool> {
        let spec = &local.device;
        let renew = *self.memory.renewal.get(spec.family) == Renewal::Needed;
        let ops = match compare(spec, host, renew) {
            DeviceState::Ready(dev) => {
                *self.memory.renewal.get_mut(spec.family) = Renewal::Unneeded;
                self.memory.attempts.looked(Look::Settings(&spec.name), &[]);
                report.ready = true;
                return Ok(dev);
            }
            DeviceState::Blocked(problem) => {
                report.waiting = Some(problem);
                return Err(false);
            }
            DeviceState::Needs(ops) => ops,
        };
        let ops = ops.into_iter().map(Op::Link).collect();
        let Due { mut now, later } = self.due(Look::Settings(&spec.name), ops);
        // A device goes only if another can be made in its place.
        if later.iter().any(|pending| matches!(pending.op, Op::Link(LinkOp::Create(_)))) {
            now.clear();
        }
        report.pending.extend(later);
        if !now.is_empty() {
            self.change_device(local, now);
            return Err(true);
        }
        // Everything that could be done was refused before: what is left must not keep the tables
        // from being right, if there is a device that is up.
        let usable = host.link(&spec.name).filter(|link| link.up);
        usable.map(|link| Dev { index: link.index, name: link.name.clone() }).ok_or(false)
    }

    fn change_device(&mut self, local: &Local, batch: Vec<Op>) {
        let family = local.device.family;
        let before = self.memory.devices.get(family).clone();
        let settled = self.carry_out(family, batch, |op| match op {
            Op::Link(link) => of_link(link, &local.device, before.as_ref()),
            Op::Set { .. } | Op::Del { .. } | Op::Filter(_) => Cause::LocalChanged,
        });
        let renewal = self.memory.renewal.get_mut(family);
        for (op, settled) in settled {
            let created = matches!(op, Op::Link(LinkOp::Create(_)));
            match (settled, *renewal) {
                (Settled::Done, Renewal::Needed) if created => *renewal = Renewal::Done,
                (Settled::Recreate, Renewal::Unneeded) => *renewal = Renewal::Needed,
                _ => {}
            }
        }
    }

    fn verdict(&self) -> Verdict {
        let families = || self.report.families.iter().filter_map(|(_, family)| family.as_ref());
        let waiting: Vec<String> = families().filter_map(|family| family.waiting.clone()).collect();
        if families().all(|family| family.waiting.is_some()) {
            return Verdict::Waiting(waiting.join("; "));
        }
        let done = |family: &FamilyReport| family.ready && family.pending.is_empty() && family.withheld.is_none();
        if families().all(done) { Verdict::Converged } else { Verdict::Incomplete }
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

/// What is said while the device does not follow the routes yet.
fn moving(local: &Local) -> Option<String> {
    let (rival, device) = (local.rival.as_ref()?, &local.device);
    Some(format!(
        "routes lead by {rival} now; {} stays over {} until they have done so for {} s without a break",
        device.name,
        device.underlay_name,
        STANDS.as_secs()
    ))
}
