//! Our Node's condition `NetworkUnavailable`: `False` once this node is ready, and again when somebody
//! sets it to something else.

use std::sync::Arc;

use super::clock::timestamp;
use super::upkeep::{Wanted, Wish};
use crate::cluster::condition::{REASON, STATUS, TYPE, decide};
use crate::model::node::OwnNode;
use crate::reconcile::Report;

/// The condition, as it should be.
pub struct NetworkCondition {
    /// Whether this node is ready, as `/readyz` says. Asked only while there is something to write.
    pub ready: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl Wish for NetworkCondition {
    const DONE: &str = "set the condition";
    const RIVAL: &str = "a cloud controller manager with --configure-cloud-routes?";
    const FAILED: (&str, &str) = (
        "cannot set the condition NetworkUnavailable to False",
        "while it is True, pods are not scheduled to this node",
    );

    fn wanted(&self, _: &Report, own: &OwnNode) -> Option<Wanted> {
        let body = decide(own, &timestamp())?;
        (self.ready)().then(|| Wanted { body, text: format!("{TYPE}={STATUS} ({REASON})") })
    }
}
