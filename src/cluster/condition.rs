//! The condition `NetworkUnavailable` of our Node: what it says, and what it should.
//!
//! Everybody else's conditions pass by unread: 5,000 Nodes have one each, and only ours matters.

use serde_json::{Value, json};

use super::json::Fill;
use crate::model::node::{Condition, OwnNode};

/// The condition's type. While it is `True` the node has the taint
/// `node.kubernetes.io/network-unavailable`, and no pod is scheduled to it.
pub const TYPE: &str = "NetworkUnavailable";
/// What it is set to; weft never sets anything else (docs/decisions/0012).
pub const STATUS: &str = "False";
/// Who says so, as Calico and Cilium put it; flannel's is `FlannelIsUp`.
pub const REASON: &str = "WeftIsUp";
/// The same for all nodes and times: a text that changes would be a patch for each change.
pub const MESSAGE: &str = "weft has put the overlay in place on this node: device, routes, neighbours, FDB entries";

/// The body of the patch that is needed so that our Node says [`STATUS`]; `None` if it does. `now` is the
/// moment in the API's form.
///
/// The patch merges by the condition's type (strategic merge), so that nobody else's is touched. What it
/// leaves out stays: `lastTransitionTime` moves only when the status does.
pub fn decide(own: &OwnNode, now: &str) -> Option<Vec<u8>> {
    let said = own.network_unavailable.as_ref();
    let stands = said.is_some_and(|said| &*said.status == STATUS);
    if stands && said.is_some_and(|said| &*said.reason == REASON && &*said.message == MESSAGE) {
        return None;
    }
    let mut condition = json!({
        "type": TYPE, "status": STATUS, "reason": REASON, "message": MESSAGE, "lastHeartbeatTime": now,
    });
    if !stands && let Value::Object(members) = &mut condition {
        members.insert("lastTransitionTime".to_owned(), now.into());
    }
    Some(json!({ "status": { "conditions": [condition] } }).to_string().into_bytes())
}

/// `status` of a Node as it comes over the wire, of which one condition is kept.
#[derive(Clone, Debug, Default)]
pub struct Status {
    conditions: Conditions,
}

/// `status.conditions`: the one that was wanted, if it has come, and the one that is being read.
#[derive(Clone, Debug, Default)]
struct Conditions {
    found: Option<Read>,
    reading: Read,
}

/// A condition. What is missing, or no string, is empty.
#[derive(Clone, Debug, Default)]
struct Read {
    kind: String,
    status: String,
    reason: String,
    message: String,
}

/// A longer text of a condition is cut: it is not ours, and only compared.
const LONGEST: usize = 256;

impl Status {
    /// The condition [`TYPE`], if the Node has one.
    pub fn network_unavailable(&self) -> Option<Condition> {
        let Conditions { found, reading } = &self.conditions;
        let read = Some(reading).filter(|reading| reading.kind == TYPE).or(found.as_ref())?;
        let cut = |text: &str| text.chars().take(LONGEST).collect::<String>().into();
        Some(Condition { status: cut(&read.status), reason: cut(&read.reason), message: cut(&read.message) })
    }
}

impl Fill for Status {
    fn member(&mut self, key: &str) -> Option<&mut dyn Fill> {
        (key == "conditions").then_some(&mut self.conditions as &mut dyn Fill)
    }
}

impl Fill for Conditions {
    fn item(&mut self) -> Option<&mut dyn Fill> {
        let read = std::mem::take(&mut self.reading);
        if read.kind == TYPE {
            self.found = Some(read);
        }
        Some(&mut self.reading)
    }
}

impl Fill for Read {
    fn member(&mut self, key: &str) -> Option<&mut dyn Fill> {
        match key {
            "type" => Some(&mut self.kind),
            "status" => Some(&mut self.status),
            "reason" => Some(&mut self.reason),
            "message" => Some(&mut self.message),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::annotations::{DEFAULT_PREFIX, Keys};
    use crate::cluster::node;
    use crate::cluster::wire::SlimNode;

    const NOW: &str = "2026-01-02T03:04:05Z";

    fn own(status: &Value) -> OwnNode {
        let keys = Keys::new(DEFAULT_PREFIX).expect("a prefix");
        let node = json!({ "metadata": { "name": "us" }, "status": status });
        node::own("us".into(), &SlimNode::read(&keys, node.to_string().as_bytes()).expect("JSON"))
    }

    fn patch(conditions: &Value) -> Option<Value> {
        let body = decide(&own(&json!({ "conditions": conditions })), NOW)?;
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        let conditions = body["status"]["conditions"].as_array().expect("conditions");
        assert_eq!(conditions.len(), 1);
        Some(conditions[0].clone())
    }

    fn says(status: &str, reason: &str, message: &str) -> Value {
        json!({ "type": TYPE, "status": status, "reason": reason, "message": message })
    }

    #[test]
    fn what_is_said_is_not_said_again_wherever_it_stands() {
        let (ours, ready) = (says(STATUS, REASON, MESSAGE), json!({ "type": "Ready", "status": "True" }));
        for list in [json!([ours]), json!([ours, ready]), json!([ready, ours]), json!([ready, ours, ready])] {
            assert_eq!(patch(&list), None, "{list}");
        }
    }

    #[test]
    fn the_time_of_the_transition_moves_only_with_the_status() {
        let moved = |conditions: Value| patch(&conditions).expect("a patch").get("lastTransitionTime").cloned();
        assert_eq!(moved(json!([])), Some(NOW.into()));
        assert_eq!(moved(json!([says("True", "NoRouteCreated", "x")])), Some(NOW.into()));
        assert_eq!(moved(json!([says("Unknown", "NodeStatusUnknown", "x")])), Some(NOW.into()));
        assert_eq!(moved(json!([says("False", "FlannelIsUp", "Flannel is running on this node")])), None);
    }

    #[test]
    fn no_shape_of_a_status_is_an_error() {
        for status in
            [json!(null), json!([]), json!({ "conditions": { "type": TYPE } }), json!({ "conditions": [1, [], null] })]
        {
            assert_eq!(own(&status).network_unavailable, None, "{status}");
        }
        let odd = own(&json!({ "conditions": [{ "type": TYPE, "status": 5, "reason": {} }] }));
        assert_eq!(odd.network_unavailable, Some(Condition::default()));
        assert!(decide(&odd, NOW).is_some());
    }
}
