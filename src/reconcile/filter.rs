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
        if let Some(problem) = host.filter_problem.get(family) {
            self.unread(family, wanted.as_ref(), problem);
            return false;
        }
        let seen = host.filter.get(family).as_ref();
        let (difference, todo) = changes(family, wanted.as_ref(), seen);
        self.memory.count_strangers(family, seen.and_then(counted));
        let masquerades = self.input.settings.filter.masquerade.is_some();
        let stands = matches!(difference, Difference::None | Difference::Elements);
        let mut report = FilterReport {
            in_place: difference == Difference::None,
            lacks_masquerading: masquerades && wanted.is_some() && !stands,
            strangers: seen.map(strangers).unwrap_or_default(),
            ..self.wish(family, wanted.as_ref())
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
        } else {
            report.problem = later.into_iter().next().map(|pending| pending.problem);
            let failed = now.iter().any(|op| self.memory.attempts.has_failed(op));
            let cause = if failed { Cause::Retry } else { cause };
            wrote = !self.carry_out(family, now, |_| cause).is_empty();
        }
        report.has_masqueraded = masquerades && self.memory.filters.get(family).stood();
        self.memory.filter_looks.get_mut(family).clone_from(&report);
        *self.report.filter.get_mut(family) = report;
        wrote
    }

    /// A look that failed says nothing against what stood before: all is told as it was. Nothing is changed.
    fn unread(&mut self, family: Family, wanted: Option<&Table>, problem: &str) {
        let (last, before) = (self.memory.filter_looks.get(family).clone(), self.memory.filters.get(family));
        let masquerades = self.input.settings.filter.masquerade.is_some();
        let report = FilterReport {
            in_place: wanted.is_none() || (last.in_place && before.is(wanted)),
            has_masqueraded: masquerades && before.stood(),
            lacks_masquerading: masquerades && wanted.is_some() && (last.lacks_masquerading || !before.stood()),
            strangers: last.strangers,
            problem: wanted.map(|_| problem.to_owned()),
            ..self.wish(family, wanted)
        };
        *self.report.filter.get_mut(family) = report;
    }

    /// What can be said without a look.
    fn wish(&self, family: Family, wanted: Option<&Table>) -> FilterReport {
        FilterReport {
            rules: wanted.map_or(0, Table::rules),
            vteps: wanted.and_then(|table| table.sets.first()).map_or(0, |(_, vteps)| vteps.len()),
            masquerades: self.input.settings.filter.masquerade.is_some(),
            ..self.memory.unlooked_filter(family)
        }
    }
}
