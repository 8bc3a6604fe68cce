//! What a pass remembers for the next one. Losing all of it (a restart) costs nothing but the
//! wording of causes and the patience with failures.

use std::sync::Arc;

use crate::model::addr::{ByFamily, Family, Mac};
use crate::model::device::DeviceSpec;
use crate::model::node::{OwnNode, Snapshot};
use crate::plan::attempts::Attempts;
use crate::plan::claims::Ground;
use crate::plan::desired::{Desired, desired};

/// Remembered between passes.
#[derive(Debug, Default)]
pub struct Memory {
    /// Passes so far.
    pub(super) passes: u64,
    /// Our own Node as last seen: if somebody deletes it, the tables are still kept right.
    pub(super) own: Option<Arc<OwnNode>>,
    /// The MAC that each device got; once chosen it does not change.
    pub(super) macs: ByFamily<Option<Mac>>,
    /// What failed and what is being fought over.
    pub(super) attempts: Attempts,
    /// What was wanted, and allowed, at the end of the last pass.
    pub(super) before: ByFamily<Option<Arc<Desired>>>,
    /// The device as wanted at the end of the last pass.
    pub(super) devices: ByFamily<Option<DeviceSpec>>,
    /// A change in place was refused: make the device anew.
    pub(super) recreate: ByFamily<bool>,
    /// A mass removal was seen when this many whole LISTs had been made.
    pub(super) mass: ByFamily<Option<u64>>,
    desired: Option<Cached>,
}

/// What is wanted changes only with the snapshot or the host's own ground; passes are many more.
#[derive(Debug)]
struct Cached {
    generation: u64,
    ground: ByFamily<Option<Ground>>,
    desired: Arc<Desired>,
}

impl Memory {
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

    /// Takes note of how a family was left.
    pub(super) fn keep(&mut self, family: Family, desired: Option<Arc<Desired>>, device: Option<DeviceSpec>) {
        if desired.is_some() {
            *self.before.get_mut(family) = desired;
        }
        if device.is_some() {
            *self.devices.get_mut(family) = device;
        }
    }
}
