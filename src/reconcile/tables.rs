//! The tables of one device in one round.

use std::collections::HashSet;
use std::sync::Arc;

use super::pass::{Pass, Settled, pending};
use super::report::{ByKind, Change, FamilyReport, Pending};
use crate::model::addr::Family;
use crate::model::host::Host;
use crate::model::node::NodeName;
use crate::model::op::{Ack, Dev, Op};
use crate::model::table::{Entry, Kind, Tables};
use crate::plan::cause::{Cause, People, of_del, of_set};
use crate::plan::desired::{Desired, Wanted};
use crate::plan::next::Program;

/// A removal of more rows than this, and of more than half, is confirmed by another LIST first.
const FEW: usize = 10;

impl Pass<'_> {
    /// Compares, and changes what differs. True if anything was tried.
    pub(super) fn tables(&mut self, dev: &Dev, wanted: &Wanted, host: &Host, report: &mut FamilyReport) -> bool {
        let Some(family) = report.device.as_ref().map(|device| device.family) else { return false };
        let Some(seen) = host.tables.get(family) else { return false };
        let mut program = Program::new(dev, wanted, seen.clone());
        program.take_over(&host.foreign);
        report.wanted = count(&wanted.tables);
        report.present = present(&wanted.tables, program.pending());
        if program.is_done() {
            *self.memory.mass.get_mut(family) = None;
            return false;
        }
        let before: Option<Arc<Desired>> = self.memory.before.get(family).clone();
        let before = before.as_ref().and_then(|desired| desired.families.get(family).as_ref()).map(People::new);
        let causes = Causes { family, now: People::new(wanted), before };
        self.withhold(family, &mut program, report);
        self.hold_back(&causes, &mut program, report);
        let wrote = self.work_off(&causes, &mut program);
        report.pending.extend(program.pending().iter().map(|op| causes.dependant(op)));
        wrote
    }

    /// Keeps a removal of most rows back until the list of nodes has been read once more.
    fn withhold(&mut self, family: Family, program: &mut Program<'_>, report: &mut FamilyReport) {
        let removals = Kind::ALL.map(|kind| (kind, program.removals(kind)));
        let mass = removals.iter().find(|(_, (gone, there))| *gone > FEW && gone * 2 > *there);
        let lists = self.input.snapshot.lists;
        let Some((kind, (gone, there))) = mass else {
            *self.memory.mass.get_mut(family) = None;
            return;
        };
        let noticed = *self.memory.mass.get_mut(family).get_or_insert(lists);
        if lists > noticed {
            return;
        }
        program.put_off(|op| matches!(op, Op::Del { .. }));
        self.report.wants_list = true;
        report.withheld = Some(format!(
            "{gone} of {there} {kind} entries would be removed: the list of Nodes is read once more before that"
        ));
    }

    /// Leaves out what failed a moment ago, what is being fought over, and what the kernel said it
    /// had done in this very pass without its being there.
    fn hold_back(&mut self, causes: &Causes<'_>, program: &mut Program<'_>, report: &mut FamilyReport) {
        // What was on the device before it was changed may have gone with the change.
        let since = self.report.changes.iter().rev().filter(|change| change.family == causes.family);
        let since = since.take_while(|change| !matches!(change.op, Op::Link(_)));
        let told: HashSet<&Entry> = since
            .filter_map(|change| match (&change.op, &change.ack) {
                (Op::Set { entry, .. }, Ack::Done) => Some(entry),
                _ => None,
            })
            .collect();
        let attempts = &mut self.memory.attempts;
        let now = self.now;
        let off = program.put_off(|op| {
            if let Op::Set { entry, .. } = op
                && told.contains(entry)
                && attempts.put_off(op, now).is_none()
            {
                attempts.failed(op, "the kernel acknowledged it but does not have it".to_owned(), now);
            }
            attempts.put_off(op, now).is_some()
        });
        for op in off {
            if let Some(put_off) = self.memory.attempts.put_off(&op, now) {
                let peer = causes.peer(&op).cloned();
                report.pending.push(pending(op, peer, &put_off));
            }
        }
    }

    fn work_off(&mut self, causes: &Causes<'_>, program: &mut Program<'_>) -> bool {
        let mut wrote = false;
        loop {
            let batch = program.next_batch();
            if batch.is_empty() {
                return wrote;
            }
            wrote = true;
            let mut look_again = false;
            let acks = self.kernel.apply(&batch);
            for (op, ack) in batch.into_iter().zip(acks) {
                let cause = if self.memory.attempts.has_failed(&op) { Cause::Retry } else { causes.of(&op) };
                match self.settle(&op, &ack, cause.is_drift()) {
                    Settled::Done => program.done(&op),
                    Settled::LookAgain => look_again = true,
                    Settled::Recreate | Settled::Failed => {}
                }
                let peer = causes.peer(&op).cloned();
                self.report.changes.push(Change { family: causes.family, op, cause, peer, ack });
            }
            if look_again {
                return true;
            }
        }
    }
}

/// Who a change is for and why it is made.
struct Causes<'a> {
    family: Family,
    now: People<'a>,
    before: Option<People<'a>>,
}

impl Causes<'_> {
    fn peer(&self, op: &Op) -> Option<&NodeName> {
        let entry = op.entry()?;
        self.now.owner(entry).or_else(|| self.before.as_ref()?.owner(entry))
    }

    fn of(&self, op: &Op) -> Cause {
        match op {
            Op::Set { entry, replace, .. } => of_set(entry, *replace, self.now.owner(entry), self.before.as_ref()),
            Op::Del { entry, .. } => of_del(entry, &self.now, self.before.as_ref()),
            Op::Link(_) => Cause::LocalChanged,
        }
    }

    /// A change that could not be tried because what it needs is not there.
    fn dependant(&self, op: &Op) -> Pending {
        let problem = match op {
            Op::Set { .. } => "waits until the entry it points at is in place",
            Op::Del { .. } | Op::Link(_) => "waits until nothing points at it any more",
        };
        Pending { op: op.clone(), peer: self.peer(op).cloned(), problem: problem.to_owned(), label: "waiting" }
    }
}

fn count(tables: &Tables) -> ByKind {
    ByKind { fdb: tables.fdb.len(), neighbour: tables.neighbours.len(), route: tables.routes.len() }
}

/// Every wanted row is either there or about to be set.
fn present(wanted: &Tables, pending: &[Op]) -> ByKind {
    let mut present = count(wanted);
    for op in pending {
        match op {
            Op::Set { entry: Entry::Fdb(..), .. } => present.fdb -= 1,
            Op::Set { entry: Entry::Neighbour(..), .. } => present.neighbour -= 1,
            Op::Set { entry: Entry::Route(..), .. } => present.route -= 1,
            Op::Del { .. } | Op::Link(_) => {}
        }
    }
    present
}
