//! What a pass remembers for the next one. Losing all of it (a restart) costs the wording of causes and the
//! patience with failures; and if our own Node is gone from the API server, an agent that remembers it goes
//! on, and one that was restarted waits.

use std::sync::Arc;

use super::report::FilterReport;
use crate::model::addr::{ByFamily, Family, Mac};
use crate::model::device::DeviceSpec;
use crate::model::nft::{NftChange, Table};
use crate::model::node::{OwnNode, Snapshot};
use crate::plan::attempts::Attempts;
use crate::plan::cause::Cause;
use crate::plan::claims::Ground;
use crate::plan::desired::{Desired, desired};
use crate::plan::filter::Difference;
use crate::plan::tenure::Tenure;

/// Remembered between passes.
#[derive(Debug, Default)]
pub struct Memory {
    /// Passes so far.
    pub(super) passes: u64,
    /// Our own Node as last seen: if somebody deletes it, the tables are still kept right.
    pub(super) own: Option<Arc<OwnNode>>,
    /// The MAC that each device got; once chosen it does not change.
    pub(super) macs: ByFamily<Option<Mac>>,
    /// The underlay of each family, which stays.
    pub(super) tenures: ByFamily<Tenure>,
    /// What failed and what is being fought over.
    pub(super) attempts: Attempts,
    /// What was wanted, and allowed, at the end of the last pass.
    pub(super) before: ByFamily<Option<Arc<Desired>>>,
    /// The device as wanted at the end of the last pass.
    pub(super) devices: ByFamily<Option<DeviceSpec>>,
    /// Whether a change in place was refused, so that the device is made anew.
    pub(super) renewal: ByFamily<Renewal>,
    /// A mass removal was seen when this many whole LISTs had been made.
    pub(super) mass: ByFamily<Option<u64>>,
    /// The packet filter as it was when it was last right.
    pub(super) filters: ByFamily<Filtered>,
    /// What the last look that could read the packet filter found.
    pub(super) filter_looks: ByFamily<FilterReport>,
    /// Packets and bytes of strangers: in all, and as their counter stood at the last look.
    strangers: ByFamily<[(u64, u64); 2]>,
    desired: Option<Cached>,
}

/// Making a device anew because the kernel refuses a change in place. Once: if the new one is no better,
/// making one again and again would cut the node off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Renewal {
    /// Nothing was refused since the device was last right.
    #[default]
    Unneeded,
    /// The next thing to do.
    Needed,
    /// It was done, and the device has not been right since.
    Done,
}

/// What is wanted changes only with the snapshot or the host's own ground; passes are many more.
#[derive(Debug)]
struct Cached {
    generation: u64,
    ground: ByFamily<Option<Ground>>,
    desired: Arc<Desired>,
}

/// The packet filter of a family as it was when it was last right.
#[derive(Debug, Default)]
pub(super) enum Filtered {
    /// It never was in this process.
    #[default]
    Never,
    /// So; `None` is no table.
    So(Option<Table>),
}

impl Filtered {
    /// Whether there ever was a table, and as wanted.
    pub(super) const fn stood(&self) -> bool {
        matches!(self, Self::So(Some(_)))
    }

    /// Whether it was so.
    pub(super) fn is(&self, wanted: Option<&Table>) -> bool {
        matches!(self, Self::So(before) if before.as_ref() == wanted)
    }
}

impl Memory {
    /// Packets and bytes that came from no known VTEP, since the start.
    pub fn from_strangers(&self, family: Family) -> (u64, u64) {
        self.strangers.get(family)[0]
    }

    /// What is said of the packet filter before a pass has looked: a counter never goes down.
    pub(super) fn unlooked_filter(&self, family: Family) -> FilterReport {
        FilterReport { from_strangers: self.from_strangers(family), ..FilterReport::default() }
    }

    /// Adds what the counter has grown by. It begins again when the table is made anew.
    pub(super) fn count_strangers(&mut self, family: Family, counter: Option<(u64, u64)>) {
        let [sum, last] = self.strangers.get_mut(family);
        let now = counter.unwrap_or_default();
        let grown = |now: u64, last: u64| if now < last { now } else { now - last };
        sum.0 += grown(now.0, last.0);
        sum.1 += grown(now.1, last.1);
        *last = now;
    }

    /// Why the packet filter is changed.
    pub(super) fn filter_cause(
        &self,
        family: Family,
        wanted: Option<&Table>,
        difference: Difference,
        todo: &[NftChange],
    ) -> Cause {
        let Filtered::So(before) = self.filters.get(family) else { return Cause::Start };
        match difference {
            _ if before.as_ref() == wanted => match difference {
                Difference::Missing => Cause::DriftDeleted,
                _ => Cause::DriftChanged,
            },
            Difference::Elements if todo.iter().all(|change| matches!(change, NftChange::AddElements(..))) => {
                Cause::NodeJoined
            }
            Difference::Elements => Cause::NodeLeft,
            _ => Cause::LocalChanged,
        }
    }

    /// What is wanted, worked out anew only if something it depends on has changed.
    pub(super) fn desired(&mut self, snapshot: &Snapshot, ground: ByFamily<Option<Ground>>) -> Arc<Desired> {
        if let Some(cached) = &self.desired
            && cached.generation == snapshot.generation
            && cached.ground == ground
        {
            return cached.desired.clone();
        }
        let desired = Arc::new(desired(snapshot, &ground));
        self.desired = Some(Cached { generation: snapshot.generation, ground, desired: desired.clone() });
        desired
    }

    /// Takes note of how a family was left: the device as wanted, and the rows that were worked on, if
    /// any were. Rows that are kept although their node is gone stay known as that node's.
    pub(super) fn keep(
        &mut self,
        family: Family,
        device: Option<DeviceSpec>,
        desired: Option<Arc<Desired>>,
        withheld: bool,
    ) {
        if device.is_some() {
            *self.devices.get_mut(family) = device;
        }
        let Some(now) = desired.as_ref().and_then(|desired| desired.families.get(family).as_ref()) else { return };
        let before = self.before.get_mut(family);
        let known = before.as_ref().and_then(|before| before.families.get(family).as_ref());
        match (withheld, known) {
            (false, _) => *before = desired,
            (true, Some(known)) => {
                let mut both = Desired::default();
                *both.families.get_mut(family) = Some(now.or(known));
                *before = Some(Arc::new(both));
            }
            // Whose the rows are that are kept, nobody knows yet.
            (true, None) => {}
        }
    }
}
