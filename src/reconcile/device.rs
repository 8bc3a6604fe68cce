//! The device in one round: put right, or taken away where nothing is encapsulated any more.

use super::memory::Renewal;
use super::pass::{Pass, Rows};
use super::report::FamilyReport;
use super::trying::{Due, Settled};
use crate::model::addr::{Family, IfIndex};
use crate::model::device::DeviceSpec;
use crate::model::host::{Host, LinkKind};
use crate::model::op::{Dev, LinkOp, Op};
use crate::plan::attempts::Look;
use crate::plan::cause::{Cause, of_link};
use crate::plan::device::{DeviceState, compare, enslaved};

impl Pass<'_> {
    /// Puts the device right. The device if its tables can be worked on; else whether anything was
    /// tried.
    pub(super) fn device(&mut self, spec: &DeviceSpec, host: &Host, report: &mut FamilyReport) -> Result<Dev, bool> {
        report.udp_checksum = host.link(&spec.name).and_then(|link| match &link.kind {
            LinkKind::Vxlan(vxlan) => Some(vxlan.udp_checksum),
            LinkKind::Other(_) => None,
        });
        report.enslaved = enslaved(spec, host);
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
            self.change_device(spec, now);
            return Err(true);
        }
        // Everything that could be done was refused before: what is left must not keep the tables
        // from being right, if there is a device that is up.
        let usable = host.link(&spec.name).filter(|link| link.up);
        usable.map(|link| Dev { index: link.index, name: link.name.clone() }).ok_or(false)
    }

    fn change_device(&mut self, spec: &DeviceSpec, batch: Vec<Op>) {
        let family = spec.family;
        let before = self.memory.devices.get(family).clone();
        let settled = self.carry_out(family, batch, |op| match op {
            Op::Link(link) => of_link(link, spec, before.as_ref()),
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

    /// With host-gw rows are on the underlay: able to receive as soon as that is. What is on a device of before
    /// is its rows still; without one, the name stands for it and no row is on it.
    pub(super) fn no_device(&self, family: Family, host: &Host, report: &mut FamilyReport) -> Dev {
        report.ready = true;
        let name = self.input.settings.overlay.device(family);
        let link = host.link(&name).filter(|link| matches!(link.kind, LinkKind::Vxlan(_)));
        Dev { index: link.map_or(IfIndex(0), |link| link.index), name }
    }

    /// Takes a device of before away: once every peer has its route over the underlay, and the rows of nodes
    /// that are no longer listed need not be kept. True if it was tried.
    pub(super) fn retire(&mut self, rows: &Rows<'_>, report: &mut FamilyReport) -> bool {
        let Rows { family, dev, wanted, seen, .. } = *rows;
        let mut over_it =
            seen.routes.iter().filter(|(key, route)| route.dev.is_none() && wanted.peers.contains_key(&key.dst));
        if dev.index == IfIndex(0) || report.withheld.is_some() || over_it.next().is_some() {
            return false;
        }
        let gone = vec![Op::Link(LinkOp::Delete(dev.clone()))];
        let Due { now, later } = self.due(Look::Settings(&dev.name), gone);
        report.pending.extend(later);
        let cause = if self.memory.before.get(family).is_none() { Cause::Start } else { Cause::DriftAdded };
        !self.carry_out(family, now, |_| cause).is_empty()
    }
}
