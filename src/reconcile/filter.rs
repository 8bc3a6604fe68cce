//! The packet filter in one round: before the tables of the devices, so that a peer is known before the
//! kernel sends it anything, and forgotten only when a look finds nothing that leads to it.

use super::memory::Filtered;
use super::pass::Pass;
use super::report::FilterReport;
use super::trying::Due;
use crate::model::addr::{ByFamily, Family};
use crate::model::host::Host;
use crate::model::nft::Table;
use crate::model::op::{FilterOp, Op};
use crate::plan::attempts::Look;
use crate::plan::cause::Cause;
use crate::plan::desired::Desired;
use crate::plan::filter::{Difference, changes, counted, strangers, table};
use crate::plan::local::Local;

impl Pass<'_> {
    /// Compares, and changes what differs. True if anything was tried.
    pub(super) fn filter(
        &mut self,
        locals: &ByFamily<Option<Result<Local, String>>>,
        host: &Host,
        desired: &Desired,
    ) -> bool {
        let mut wrote = false;
        for family in Family::BOTH {
            let wanted = match locals.get(family) {
                // A family that is off.
                None => None,
                // Without knowing our own pod CIDR nothing can be said; what is there stays.
                Some(Err(_)) => continue,
                Some(Ok(local)) => self.wanted(family, local, host, desired),
            };
            wrote |= self.filter_of(family, wanted, host);
        }
        wrote
    }

    fn wanted(&self, family: Family, local: &Local, host: &Host, desired: &Desired) -> Option<Table> {
        let wanted = desired.families.get(family).iter().flat_map(|wanted| wanted.peers.values());
        let seen = host.tables.get(family).iter().flat_map(|seen| seen.fdb.values());
        let vteps = || wanted.map(|(_, peer)| peer.public_ip).chain(seen.map(|fdb| fdb.dst)).collect();
        let settings = self.input.settings;
        table(&settings.overlay, &settings.filter, local.subnet, vteps)
    }

    fn filter_of(&mut self, family: Family, wanted: Option<Table>, host: &Host) -> bool {
        let seen = host.filter.get(family).as_ref();
        let (difference, todo) = changes(family, wanted.as_ref(), seen);
        self.memory.count_strangers(family, seen.and_then(counted));
        let mut report = FilterReport {
            rules: wanted.as_ref().map_or(0, Table::rules),
            vteps: wanted.as_ref().and_then(|table| table.sets.first()).map_or(0, |(_, vteps)| vteps.len()),
            in_place: difference == Difference::None && (wanted.is_none() || host.filter_problem.is_none()),
            masquerades: self.input.settings.filter.masquerade.is_some(),
            has_masqueraded: false,
            lacks_masquerading: false,
            strangers: seen.map(strangers).unwrap_or_default(),
            from_strangers: self.memory.from_strangers(family),
            problem: host.filter_problem.clone().filter(|_| wanted.is_some()),
        };
        let cause = self.memory.filter_cause(family, wanted.as_ref(), difference, &todo);
        let ops = match difference {
            Difference::None => Vec::new(),
            _ => vec![Op::Filter(FilterOp { family, changes: todo })],
        };
        let Due { now, later } = self.due(Look::Filter(family), ops);
        let mut wrote = false;
        if difference == Difference::None {
            *self.memory.filters.get_mut(family) = Filtered::So(wanted);
        } else if host.filter_problem.is_none() {
            report.problem = later.into_iter().next().map(|pending| pending.problem);
            let failed = now.iter().any(|op| self.memory.attempts.has_failed(op));
            let cause = if failed { Cause::Retry } else { cause };
            wrote = !self.carry_out(family, now, |_| cause).is_empty();
        }
        let ever = matches!(self.memory.filters.get(family), Filtered::So(Some(_)));
        report.has_masqueraded = report.masquerades && ever;
        // A look that failed says nothing against rules that were there before.
        let stands = match host.filter_problem {
            Some(_) => ever,
            None => matches!(difference, Difference::None | Difference::Elements),
        };
        report.lacks_masquerading = report.masquerades && report.rules > 0 && !stands;
        *self.report.filter.get_mut(family) = report;
        wrote
    }
}
