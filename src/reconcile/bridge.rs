//! The pods' bridge in one round: an address of an earlier pod CIDR is said, and removed if no pod uses it.

use super::pass::{Pass, pending};
use super::report::{Change, FamilyReport};
use crate::model::addr::{Family, IfName};
use crate::model::host::Host;
use crate::model::op::Op;
use crate::plan::attempts::Look;
use crate::plan::bridge::{BRIDGE, stale};
use crate::plan::cause::Cause;
use crate::plan::local::Local;

impl Pass<'_> {
    /// True if anything was tried.
    pub(super) fn bridge(&mut self, family: Family, local: &Local, host: &Host, report: &mut FamilyReport) -> bool {
        let found = stale(host, local.device.network, local.subnet, self.input.leases);
        let ops: Vec<Op> = found.iter().filter_map(|stale| stale.remove.clone().map(Op::Link)).collect();
        report.stale_bridge = found.into_iter().map(|stale| stale.problem).collect();
        if ops.is_empty() {
            return false;
        }
        self.memory.attempts.looked(Look::Settings(&IfName::new(BRIDGE)), &ops);
        let mut batch = Vec::new();
        for op in ops {
            match self.memory.attempts.put_off(&op, self.now) {
                Some(put_off) => report.pending.push(pending(op, None, &put_off)),
                None => batch.push(op),
            }
        }
        let acks = self.kernel.apply(&batch);
        let wrote = !batch.is_empty();
        for (op, ack) in batch.into_iter().zip(acks) {
            self.settle(&op, &ack, false);
            self.report.changes.push(Change { family, op, cause: Cause::LocalChanged, peer: None, ack });
        }
        wrote
    }
}
