//! The rounds of a pass: look, put the devices right, then the tables on them, until a look finds
//! nothing to do.

use std::sync::Arc;
use std::time::Duration;

use super::memory::{Memory, Renewal};
use super::report::{ByKind, Change, FamilyReport, Pending, Report, Verdict};
use crate::kernel::Kernel;
use crate::model::addr::{ByFamily, Family};
use crate::model::host::{Host, LinkKind};
use crate::model::node::{OwnNode, Snapshot};
use crate::model::op::{Ack, Dev, LinkOp, Op};
use crate::model::settings::Settings;
use crate::plan::attempts::{Look, PutOff};
use crate::plan::bridge::Leases;
use crate::plan::cause::of_link;
use crate::plan::desired::Desired;
use crate::plan::device::{DeviceState, compare};
use crate::plan::local::{Local, grounds, local};
use crate::plan::shadow::shadows;
use crate::plan::verdict;

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
    report.next_try = memory.attempts.next_try(now);
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
            let pinned = *self.memory.macs.get(family);
            let found = local(settings, own, host, family, pinned);
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
        let ops: Vec<Op> = ops.into_iter().map(Op::Link).collect();
        self.memory.attempts.looked(Look::Settings(&spec.name), &ops);
        for op in &ops {
            // Done twice in this pass and not there: once can be somebody who deleted the device meanwhile.
            let told = self.report.changes.iter().filter(|change| change.ack == Ack::Done && change.op == *op);
            if told.count() > 1 {
                self.memory.attempts.doubted(op, self.now);
            }
        }
        let put_off = |op: &Op| self.memory.attempts.put_off(op, self.now);
        // A device goes only if another can be made in its place.
        let stuck = ops.iter().any(|op| matches!(op, Op::Link(LinkOp::Create(_))) && put_off(op).is_some());
        let mut batch = Vec::new();
        for op in ops {
            match put_off(&op) {
                Some(put_off) => report.pending.push(pending(op, None, &put_off)),
                None if stuck => {}
                None => batch.push(op),
            }
        }
        if !batch.is_empty() {
            self.change_device(local, batch);
            return Err(true);
        }
        // Everything that could be done was refused before: what is left must not keep the tables
        // from being right, if there is a device that is up.
        let usable = host.link(&spec.name).filter(|link| link.up);
        usable.map(|link| Dev { index: link.index, name: link.name.clone() }).ok_or(false)
    }

    fn change_device(&mut self, local: &Local, batch: Vec<Op>) {
        let family = local.device.family;
        let acks = self.kernel.apply(&batch);
        for (op, ack) in batch.into_iter().zip(acks) {
            let Op::Link(link) = &op else { continue };
            let cause = of_link(link, &local.device, self.memory.devices.get(family).as_ref());
            let created = matches!(link, LinkOp::Create(_));
            let settled = self.settle(&op, &ack, cause.is_drift());
            let renewal = self.memory.renewal.get_mut(family);
            match (settled, *renewal) {
                (Settled::Done, Renewal::Needed) if created => *renewal = Renewal::Done,
                (Settled::Recreate, Renewal::Unneeded) => *renewal = Renewal::Needed,
                _ => {}
            }
            self.report.changes.push(Change { family, op, cause, peer: None, ack });
        }
    }

    /// Draws the conclusions from one ack.
    pub(super) fn settle(&mut self, op: &Op, ack: &Ack, drift: bool) -> Settled {
        let (problem, verdict) = match ack {
            Ack::Done => {
                self.memory.attempts.succeeded(op, drift, self.now);
                return Settled::Done;
            }
            Ack::Unknown(problem) => (problem.clone(), verdict::Verdict::Retry),
            Ack::Refused(refusal) => (refusal.to_string(), verdict::verdict(op, refusal)),
        };
        match verdict {
            verdict::Verdict::Settled => Settled::Done,
            verdict::Verdict::LookAgain => Settled::LookAgain,
            verdict::Verdict::Recreate => {
                self.memory.attempts.failed(op, problem, self.now);
                Settled::Recreate
            }
            verdict::Verdict::Blocked => {
                let problem =
                    format!("a route of somebody else holds this key ({problem}); remove it or change its metric");
                self.memory.attempts.failed(op, problem, self.now);
                Settled::Failed
            }
            verdict::Verdict::Retry => {
                let problem = match ack {
                    Ack::Refused(refusal) => verdict::explain(op, refusal).unwrap_or(problem),
                    Ack::Done | Ack::Unknown(_) => problem,
                };
                self.memory.attempts.failed(op, problem, self.now);
                Settled::Failed
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

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// The kernel has it, or says so.
    Done,
    /// The ground moved: look again.
    LookAgain,
    /// It needs a new device.
    Recreate,
    /// It will be tried again.
    Failed,
}

/// Something put off, for the report.
pub(super) fn pending(op: Op, peer: Option<crate::model::node::NodeName>, put_off: &PutOff) -> Pending {
    let (label, problem) = if put_off.fight {
        let problem = format!(
            "{}: repaired {} times in a row, so weft waits longer and longer between repairs; find out what does it \
             (`{}`)",
            put_off.problem,
            put_off.times,
            watch(&op)
        );
        ("fight", problem)
    } else {
        let problem = format!("{} (tried {} times); weft tries again", put_off.problem, put_off.times);
        ("refused", problem)
    };
    Pending { op, peer, problem, label }
}

/// What shows who changes it.
fn watch(op: &Op) -> String {
    match op {
        Op::Filter(_) => "nft monitor".to_owned(),
        op => format!("ip monitor all dev {}", op.device()),
    }
}
