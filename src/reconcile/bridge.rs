//! The pods' bridge in one round: an address of an earlier pod CIDR is said, and removed if no pod uses it.

use super::pass::Pass;
use super::report::FamilyReport;
use super::trying::Due;
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
        let found = stale(host, local.ground.network, local.subnet, self.input.leases);
        let ops: Vec<Op> = found.iter().filter_map(|stale| stale.remove.clone().map(Op::Link)).collect();
        report.stale_bridge = found.into_iter().map(|stale| stale.problem).collect();
        if ops.is_empty() {
            return false;
        }
        let Due { now, later } = self.due(Look::Settings(&IfName::new(BRIDGE)), ops);
        report.pending.extend(later);
        !self.carry_out(family, now, |_| Cause::LocalChanged).is_empty()
    }
}
