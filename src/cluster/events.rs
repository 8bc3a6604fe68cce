//! Events about our own Node, as kubelet makes them: `v1`, in the namespace `default`, and `kubectl describe node` shows
//! them.
//!
//! The name of an Event follows from what it is about, so that an agent that starts anew goes on with the one that is
//! there. It can do so without a right to read: making it is refused with 409, and the answer to a patch says its count.

use std::time::Duration;

use serde_json::{Value, json};

use super::api::NodesApi;
use super::client::Connection;
use super::problem::Problem;
use crate::model::hash;

/// Where Events about objects without a namespace belong (`ValidateEventCreate` in k8s.io/kubernetes).
const NAMESPACE: &str = "default";
/// `source.component`; the admission policy in `manifests/` knows it.
pub const COMPONENT: &str = "weft";
/// The longest name of an object is 253 characters; so much is left for the Node's in an Event's.
const NODE_PART: usize = 220;

/// An Event of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEvent<'a> {
    /// Our Node's name.
    pub node: &'a str,
    /// `reason`: one word.
    pub reason: &'a str,
    /// `type`: `Normal` or `Warning`.
    pub kind: &'a str,
    /// `message`.
    pub message: &'a str,
    /// What tells it from every other Event about this Node.
    pub identity: &'a str,
    /// The moment in the API's form.
    pub now: &'a str,
}

impl NodeEvent<'_> {
    /// `metadata.name`.
    pub fn name(&self) -> String {
        let whole = self.node.bytes().chain([0]).chain(self.identity.bytes());
        let node = self.node.get(..NODE_PART).unwrap_or(self.node).trim_end_matches(['.', '-']);
        format!("{node}.weft-{:016x}", hash::spread(hash::of(whole)))
    }

    /// The body of the POST.
    fn body(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": { "name": self.name(), "namespace": NAMESPACE },
            // As kubelet does: the Node's name in the place of its UID. kubectl looks for either.
            "involvedObject": { "kind": "Node", "name": self.node, "uid": self.node },
            "source": { "component": COMPONENT, "host": self.node },
            "reportingComponent": COMPONENT, "reportingInstance": self.node,
            "type": self.kind, "reason": self.reason, "message": self.message,
            "firstTimestamp": self.now, "lastTimestamp": self.now, "count": 1,
        })
    }

    /// The body of the PATCH.
    fn patch(&self, count: Option<u64>) -> Value {
        let mut patch = json!({ "type": self.kind, "message": self.message, "lastTimestamp": self.now });
        if let (Some(count), Value::Object(members)) = (count, &mut patch) {
            members.insert("count".to_owned(), count.into());
        }
        patch
    }
}

/// Makes the Event, or says on the one that is there that it is so still. `count` is what its `count` was at the last
/// telling, if we know. Returns what it is now.
pub async fn tell(
    connection: &Connection,
    event: &NodeEvent<'_>,
    count: Option<u64>,
    patience: Duration,
) -> Result<u64, Problem> {
    let api = NodesApi::new(connection.clone(), patience);
    let name = event.name();
    let patch = async |count| api.patch_event(NAMESPACE, &name, event.patch(count).to_string().into_bytes()).await;
    let make = async || api.create_event(NAMESPACE, event.body().to_string().into_bytes()).await;
    let answer = if let Some(count) = count {
        match patch(Some(count.saturating_add(1))).await {
            // Forgotten by the API server, as all Events are in time.
            Err(Problem::Refused { code: 404, .. }) => make().await,
            answer => answer,
        }
    } else {
        match make().await {
            // Of an agent before this one.
            Err(Problem::Refused { code: 409, .. }) => patch(None).await,
            answer => answer,
        }
    }?;
    // Whatever it is, it was taken.
    let stored: Value = serde_json::from_slice(&answer).unwrap_or_default();
    Ok(stored["count"].as_u64().unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event<'a>(node: &'a str, identity: &'a str) -> NodeEvent<'a> {
        let (reason, kind, message) = ("PeerConflict", "Warning", "m");
        NodeEvent { node, reason, kind, message, identity, now: "2026-01-02T03:04:05Z" }
    }

    #[test]
    fn the_name_is_the_same_at_every_start_and_fits() {
        let name = event("node-1", "PeerConflict node-2").name();
        assert_eq!(name, "node-1.weft-a8cd63a7e1d1ff54", "it must not change between versions");
        assert_ne!(name, event("node-1", "PeerConflict node-3").name());
        let long = ["a".repeat(219), ".b".to_owned(), "c".repeat(31)].concat();
        let long = event(&long, "x").name();
        assert!(long.len() <= 253 && long.contains("a.weft-"), "{long}");
    }

    #[test]
    fn a_patch_leaves_alone_what_it_does_not_know() {
        assert!(event("n", "i").patch(None).get("count").is_none());
        assert_eq!(event("n", "i").patch(Some(7))["count"], 7);
        assert!(event("n", "i").patch(Some(7)).get("firstTimestamp").is_none());
    }
}
