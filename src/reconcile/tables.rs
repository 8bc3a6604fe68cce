//! The tables of one device in one round.

use std::cell::OnceCell;
use std::collections::HashSet;

use super::pass::{Pass, Rows};
use super::report::{ByKind, Change, FamilyReport, Pending};
use super::trying::{Settled, pending};
use crate::model::addr::Family;
use crate::model::host::Host;
use crate::model::node::NodeName;
use crate::model::op::{Ack, Op};
use crate::model::table::{Entry, Kind, Route, Tables};
use crate::plan::attempts::Look;
use crate::plan::cause::{Cause, People, of_del, of_set};
use crate::plan::desired::{Desired, Wanted};
use crate::plan::next::Program;
use crate::plan::shadow::others;

/// A removal of more rows than this, and of more than a third, is confirmed by another LIST first.
/// Only rows of nodes that are no longer listed count: what somebody else put in is no node's.
const FEW: usize = 10;

impl Pass<'_> {
    /// Compares, and changes what differs. True if anything was tried.
    pub(super) fn tables(&mut self, rows: &Rows<'_>, report: &mut FamilyReport) -> bool {
        let Rows { family, dev, wanted, seen, host } = *rows;
        let mut program = Program::new(dev, wanted, seen, &host.links);
        self.memory.attempts.looked(Look::Rows(&dev.name, family), program.pending());
        self.memory.attempts.saw_others(family, others(wanted, seen, host, family));
        report.wanted = count(&wanted.tables);
        report.present = present(&wanted.tables, program.pending());
        if program.is_done() {
            *self.memory.mass.get_mut(family) = None;
            return false;
        }
        let before = self.memory.before.get(family).clone();
        let causes = Causes::new(family, wanted, before.as_deref(), seen);
        self.withhold(&causes, &mut program, report);
        self.hold_back(&causes, &mut program, report);
        let wrote = self.work_off(family, &mut program);
        report.pending.extend(program.pending().map(|op| causes.dependant(op)));
        wrote
    }

    /// Keeps back what an API server that has lost its mind must not do.
    fn withhold(&mut self, causes: &Causes<'_>, program: &mut Program<'_>, report: &mut FamilyReport) {
        let for_want_of_a_node = |op: &Op| matches!(op, Op::Del { .. }) && !causes.of(op).0.is_drift();
        let removals = Kind::ALL.map(|kind| (kind, program.removals(kind, for_want_of_a_node)));
        let mass = removals.iter().find(|(_, (gone, there))| *gone > FEW && gone * 3 > *there);
        let many = removals.iter().any(|(_, (gone, _))| *gone > FEW);
        let snapshot = self.input.snapshot;
        let noticed = self.memory.mass.get_mut(causes.family);
        // New rows make the share of the old ones smaller, so a notice stands until they are few.
        *noticed = noticed.filter(|_| many).or_else(|| mass.map(|_| snapshot.lists));
        let reason = if !snapshot.complete {
            "nothing is removed until the list of Nodes can be read whole"
        } else if snapshot.own.is_none() {
            // A list without the very node that reads it: etcd lost or restored, or the wrong server. It
            // does not become true by being repeated.
            *noticed = Some(snapshot.lists);
            "our own Node is not in the list of Nodes: such a list adds, but it removes nothing"
        } else if noticed.is_none_or(|noticed| noticed < snapshot.lists) {
            return;
        } else {
            self.report.wants_list = true;
            "the list of Nodes is read once more before so many entries are removed"
        };
        let kept = program.put_off(for_want_of_a_node);
        if !kept.is_empty() {
            report.withheld = Some(format!("{reason}; {} entries are kept meanwhile", kept.len()));
        }
    }

    /// Leaves out what failed a moment ago, what is being fought over, and what the kernel said it
    /// had done in this very pass without its being there.
    fn hold_back(&mut self, causes: &Causes<'_>, program: &mut Program<'_>, report: &mut FamilyReport) {
        // What was on the device before it was changed may have gone with the change.
        let since = self.report.changes.iter().rev().filter(|change| change.family == causes.family);
        let since = since.take_while(|change| !matches!(change.op, Op::Link(_)));
        let told: HashSet<_> = since.filter(|change| change.ack == Ack::Done).filter_map(|it| row(&it.op)).collect();
        let attempts = &mut self.memory.attempts;
        if told.is_empty() && attempts.is_empty() {
            return;
        }
        let now = self.now;
        let off = program.put_off(|op| {
            if row(op).is_some_and(|row| told.contains(&row)) {
                attempts.doubted(op, now);
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

    fn work_off(&mut self, family: Family, program: &mut Program<'_>) -> bool {
        let (place, mut batches, mut look_again) = (self.report.changes.len(), Vec::new(), false);
        while !look_again {
            let batch = program.next_batch();
            if batch.is_empty() {
                break;
            }
            let acks = self.kernel.apply(&batch);
            for (op, ack) in batch.iter().zip(&acks) {
                let settled = Settled::of(op, ack);
                look_again |= settled == Settled::LookAgain;
                if settled == Settled::Done {
                    program.done(op);
                } else {
                    program.failed(op);
                }
            }
            batches.push((batch, acks));
        }
        let wrote = !batches.is_empty();
        self.untold.push(Untold { family, place, batches });
        wrote
    }

    /// Draws the conclusions from the changes that were tried in this round, and writes down whom each was for and
    /// why: after the last of them, since no packet waits for that.
    pub(super) fn tell(&mut self, desired: &Desired, host: &Host) {
        // The last first, so that the places of the others stay what they are.
        while let Some(Untold { family, place, batches }) = self.untold.pop() {
            let (Some(wanted), Some(seen)) = (desired.families.get(family), host.tables.get(family)) else { continue };
            let before = self.memory.before.get(family).clone();
            let causes = Causes::new(family, wanted, before.as_deref(), seen);
            let tried = batches.into_iter().flat_map(|(batch, acks)| batch.into_iter().zip(acks));
            let told: Vec<Change> = tried.map(|(op, ack)| self.change(&causes, op, ack)).collect();
            self.report.changes.splice(place..place, told);
        }
    }

    fn change(&mut self, causes: &Causes<'_>, op: Op, ack: Ack) -> Change {
        let (cause, peer) = causes.of(&op);
        let cause = if self.memory.attempts.has_failed(&op) { Cause::Retry } else { cause };
        self.settle(&op, &ack, cause.is_drift());
        Change { family: causes.family, cause, peer: peer.cloned(), op, ack }
    }
}

/// Changes to the tables of a family that were tried and are not in the report yet.
pub(super) struct Untold {
    family: Family,
    /// Where they belong in it.
    place: usize,
    batches: Vec<(Vec<Op>, Vec<Ack>)>,
}

/// Who a change is for and why it is made.
struct Causes<'a> {
    family: Family,
    wanted: &'a Wanted,
    before: Option<&'a Wanted>,
    seen: &'a Tables,
    /// Seldom needed before the last write.
    people: OnceCell<(People<'a>, Option<People<'a>>)>,
}

impl<'a> Causes<'a> {
    fn new(family: Family, wanted: &'a Wanted, before: Option<&'a Desired>, seen: &'a Tables) -> Self {
        let before = before.and_then(|desired| desired.families.get(family).as_ref());
        Self { family, wanted, before, seen, people: OnceCell::new() }
    }

    fn peer(&self, op: &Op) -> Option<&NodeName> {
        self.of(op).1
    }

    /// Why, and for whom.
    fn of(&self, op: &Op) -> (Cause, Option<&NodeName>) {
        let Some(entry) = op.entry() else { return (Cause::LocalChanged, None) };
        let people = |wanted| People::new(wanted, self.seen);
        let (now, before) = self.people.get_or_init(|| (people(self.wanted), self.before.map(people)));
        let before = before.as_ref();
        let cause = match op {
            Op::Set { replace, .. } => of_set(entry, *replace, now, before),
            Op::Del { .. } | Op::Link(_) | Op::Filter(_) => of_del(entry, now, before),
        };
        (cause, now.owner(entry).or_else(|| before?.owner(entry)))
    }

    /// A change that could not be tried because what it needs is not there.
    fn dependant(&self, op: &Op) -> Pending {
        let problem = match op {
            Op::Set { .. } => "waits until the entry it points at is in place",
            Op::Del { .. } | Op::Link(_) | Op::Filter(_) => "waits until nothing points at it any more",
        };
        Pending {
            op: op.clone(),
            peer: self.peer(op).cloned(),
            problem: problem.to_owned(),
            times: 0,
            label: "waiting",
        }
    }
}

/// What a change to a table does, whichever device number it names and whatever it replaces.
fn row(op: &Op) -> Option<(bool, Entry)> {
    op.entry().map(|entry| (matches!(op, Op::Set { .. }), *entry))
}

fn count(tables: &Tables) -> ByKind {
    ByKind { fdb: tables.fdb.len(), neighbour: tables.neighbours.len(), route: tables.routes.len() }
}

/// Every wanted row is either there or about to be set. A route to a gateway may be set without being wanted.
fn present<'a>(wanted: &Tables, pending: impl Iterator<Item = &'a Op>) -> ByKind {
    let mut present = count(wanted);
    for op in pending {
        match op {
            Op::Set { entry: Entry::Route(key, Route { via: None, .. }), .. } if !wanted.routes.contains_key(key) => {}
            Op::Set { entry, .. } => *present.get_mut(entry.kind()) -= 1,
            Op::Del { .. } | Op::Link(_) | Op::Filter(_) => {}
        }
    }
    present
}
