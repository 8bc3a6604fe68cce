//! Our own annotations: written once the device can receive, and again when somebody edits them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::upkeep::{Wanted, Wish};
use crate::cluster::annotations::Keys;
use crate::cluster::announce::{Place, decide};
use crate::model::addr::ByFamily;
use crate::model::node::OwnNode;
use crate::reconcile::Report;

/// Our annotations, as they should be.
pub struct Announcement {
    /// The annotations' names.
    pub keys: Keys,
    /// Whether our Node, as last seen, says what it should. An API server that is away later changes
    /// nothing about that.
    pub in_place: Arc<AtomicBool>,
}

impl Wish for Announcement {
    const DONE: &str = "announced";
    const RIVAL: &str = "an agent on another machine with the same --node-name?";
    const FAILED: (&str, &str) = ("cannot write our annotations", "peers keep what they know of us");

    fn wanted(&self, report: &Report, own: &OwnNode) -> Option<Wanted> {
        let places = places(report);
        let patch = decide(&self.keys, &places, own);
        // Before we can receive there is nothing to say, and nothing that could be wrong.
        if places.v4.is_some() || places.v6.is_some() {
            self.in_place.store(patch.is_none(), Ordering::Relaxed);
        }
        let patch = patch?;
        let written: Vec<String> = patch.iter().map(|(key, value)| format!("{key}={value}")).collect();
        Some(Wanted { body: patch.body(), text: written.join(" ") })
    }
}

/// The families that can receive. Every enabled one must, so that a flanneld peer never sees half of
/// us: it drops a node that lacks a family.
fn places(report: &Report) -> ByFamily<Option<Place>> {
    let families = || report.families.iter().filter_map(|(_, family)| family.as_ref());
    if !families().all(|family| family.ready) {
        return ByFamily::default();
    }
    ByFamily::from_fn(|family| {
        let family = report.families.get(family).as_ref()?;
        let vtep = family.device.as_ref().map(|device| (device.vni, device.mac));
        Some(Place { vtep, public_ip: family.public_ip? })
    })
}
