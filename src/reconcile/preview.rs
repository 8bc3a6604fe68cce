//! A dry run: a real pass, over a copy of the kernel.

use std::time::Duration;

use super::memory::Memory;
use super::pass::{Input, pass};
use super::report::Report;
use crate::kernel::fake::{FakeKernel, Net};
use crate::kernel::{Kernel, ObserveError};
use crate::model::addr::Family;
use crate::model::host::{Host, Scope};
use crate::model::node::Snapshot;
use crate::model::op::{Ack, Op};
use crate::plan::tenure::STANDS;

/// What a pass would do now to a kernel that looks like `host`. Its changes are in the order in which
/// they would be made.
pub fn preview(host: &Host, input: &Input<'_>) -> Report {
    let mut copy = Copy::new(host, &input.settings.scope());
    let mut memory = Memory::default();
    let first = pass(&mut copy, input, &mut memory, Duration::ZERO);
    let moves = first.families.iter().filter_map(|(_, family)| family.as_ref()).any(|family| family.moving.is_some());
    if !first.wants_list && !moves {
        return first;
    }
    // The agent would read the list once more before it removes so much; a saved list says the same again. And it
    // would see the routes lead where they lead now for long enough.
    let again = Snapshot { lists: input.snapshot.lists + 1, ..input.snapshot.clone() };
    let later = if moves { STANDS } else { Duration::ZERO };
    let mut report = pass(&mut copy, &Input { snapshot: &again, ..*input }, &mut memory, later);
    report.changes.splice(..0, first.changes);
    report
}

/// A kernel in memory that begins as another was seen. What no operation of ours changes stays as it
/// was seen.
pub struct Copy<'a> {
    seen: &'a Host,
    kernel: FakeKernel,
}

impl<'a> Copy<'a> {
    /// Copies what `scope` covers.
    pub fn new(host: &'a Host, scope: &Scope) -> Self {
        let device_of = |family: Family| {
            let name = scope.devices.get(family).as_ref()?;
            host.link(name).map(|link| link.index)
        };
        Self { seen: host, kernel: FakeKernel::new(Net::copy_of(host, device_of)) }
    }
}

impl Kernel for Copy<'_> {
    fn observe(&mut self, scope: &Scope) -> Result<Host, ObserveError> {
        let host = self.kernel.observe(scope)?;
        let Host { filter_problem, defaults, foreign, ways, reach, .. } = self.seen.clone();
        Ok(Host { defaults, foreign, ways, reach, filter_problem, ..host })
    }

    fn apply(&mut self, ops: &[Op]) -> Vec<Ack> {
        self.kernel.apply(ops)
    }
}
