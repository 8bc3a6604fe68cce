//! What the server itself puts into objects, and what it refuses in them.

use serde_json::{Map, Value, json};

use super::route::{Resource, Version};
use super::status::Failure;

pub(super) use crate::agent::clock::timestamp as now;

/// A new random UUID; the kernel makes them.
pub(super) fn uid() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default().trim().to_owned()
}

/// Brings an object into the stored form: defaults as the API server's, `events.k8s.io/v1` as `v1`.
pub(super) fn normalise(resource: Resource, version: Version, value: &mut Value) {
    if let Some(object) = value.as_object_mut() {
        object.remove("kind");
        object.remove("apiVersion");
    }
    match (resource, version) {
        (Resource::Nodes, _) => default_node(value),
        (Resource::Events, Version::Events) => rename_fields(value, false),
        (Resource::Events, Version::Core) => {}
    }
}

/// `podCIDR` is the first of `podCIDRs`, whichever was given; if both were and differ, `podCIDR` counts (the conversion in
/// k8s.io/kubernetes pkg/apis/core/v1).
fn default_node(value: &mut Value) {
    for part in ["spec", "status"] {
        if !value[part].is_object() {
            value[part] = json!({});
        }
    }
    let spec = &mut value["spec"];
    let first = spec["podCIDRs"].get(0).cloned();
    let one = spec["podCIDR"].as_str().filter(|one| !one.is_empty()).map(str::to_owned);
    match (one, first) {
        (Some(one), first) if first.as_ref().is_none_or(|first| *first != one.as_str()) => {
            spec["podCIDRs"] = json!([one]);
        }
        (None, Some(first)) => spec["podCIDR"] = first,
        _ => {}
    }
    if let Some(spec) = spec.as_object_mut() {
        spec.retain(|_, value| !value.is_null()); // indexing above may have left nulls
    }
}

/// What `events.k8s.io/v1` calls differently from `v1`.
const EVENT_FIELDS: [(&str, &str); 6] = [
    ("note", "message"),
    ("regarding", "involvedObject"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
    ("deprecatedSource", "source"),
];

/// Turns an Event of one API group into the other's, in place.
pub(super) fn rename_fields(value: &mut Value, to_events_group: bool) {
    let Some(object) = value.as_object_mut() else { return };
    for (new, old) in EVENT_FIELDS {
        let (from, to) = if to_events_group { (old, new) } else { (new, old) };
        if let Some(value) = object.remove(from) {
            object.insert(to.to_owned(), value);
        }
    }
}

/// The object that a request carries, with the types checked that Go would refuse to decode.
pub(super) fn decode(body: &[u8]) -> Result<Value, Failure> {
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| Failure::bad_request(format!("the object provided is unrecognized: {error}")))?;
    check_types(&value).map_err(Failure::bad_request)?;
    Ok(value)
}

/// Whether it is an object whose parts are objects and whose annotations and labels are texts.
pub(super) fn check_types(value: &Value) -> Result<(), String> {
    if !value.is_object() {
        return Err("couldn't get version/kind; json parse error: not an object".to_owned());
    }
    for part in ["metadata", "spec", "status"] {
        if !matches!(value[part], Value::Object(_) | Value::Null) {
            return Err(format!("json: cannot unmarshal into Go struct field .{part}"));
        }
    }
    for map in ["annotations", "labels"] {
        let bad = |entries: &Map<String, Value>| entries.values().any(|value| !value.is_string());
        match &value["metadata"][map] {
            Value::Null => {}
            Value::Object(entries) if !bad(entries) => {}
            _ => {
                return Err(format!(
                    "json: cannot unmarshal into Go struct field ObjectMeta.metadata.{map} of type string"
                ));
            }
        }
    }
    Ok(())
}

/// Whether a name may be a Node's: RFC 1123 subdomain.
pub(super) fn check_name(resource: Resource, name: &str) -> Result<(), Failure> {
    let label = |label: &str| {
        let inner = label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        inner && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    if name.len() <= 253 && name.split('.').all(label) {
        return Ok(());
    }
    let problem = format!(
        "metadata.name: Invalid value: {name:?}: a lowercase RFC 1123 subdomain must consist of lower case \
         alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character"
    );
    Err(Failure::invalid(resource.kind(), name, &problem))
}

/// Whether an Event is in the namespace of what it is about; of what has none, in `default` (`ValidateEventCreate`).
pub(super) fn check_event(name: &str, namespace: &str, new: &Value) -> Result<(), Failure> {
    let about = new["involvedObject"]["namespace"].as_str().unwrap_or_default();
    if about == namespace || (about.is_empty() && matches!(namespace, "default" | "kube-system")) {
        return Ok(());
    }
    Err(Failure::invalid("Event", name, "involvedObject.namespace: Invalid value: does not match event.namespace"))
}

/// What may not change: who it is, and a Node's pod CIDRs, once it has them.
pub(super) fn check_update(resource: Resource, name: &str, old: &Value, new: &Value) -> Result<(), Failure> {
    if has_another_uid(old, new) {
        let problem = format!("metadata.uid: Invalid value: {}: field is immutable", new["metadata"]["uid"]);
        return Err(Failure::invalid(resource.kind(), name, &problem));
    }
    let (was, is) = (&old["spec"]["podCIDRs"], &new["spec"]["podCIDRs"]);
    if resource == Resource::Nodes && !was.is_null() && was != is {
        let problem = "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid";
        return Err(Failure::invalid(resource.kind(), name, problem));
    }
    Ok(())
}

/// Whether an object that a client sends is meant for another one of that name.
pub(super) fn has_another_uid(old: &Value, new: &Value) -> bool {
    let uid = &new["metadata"]["uid"];
    !uid.is_null() && *uid != old["metadata"]["uid"]
}

/// Undoes what a client may have written over the server's own fields.
pub(super) fn keep_identity(old: &Value, new: &mut Value) {
    let Some(meta) = new["metadata"].as_object_mut() else {
        new["metadata"] = old["metadata"].clone();
        return;
    };
    for own in ["name", "namespace", "uid", "creationTimestamp", "resourceVersion", "managedFields"] {
        match &old["metadata"][own] {
            Value::Null => drop(meta.remove(own)),
            value => drop(meta.insert(own.to_owned(), value.clone())),
        }
    }
}

/// Puts in what a client cannot choose: the old object's identity, or a new one.
pub(super) fn stamp(old: Option<&Value>, new: &mut Value, revision: u64) {
    let kept = |key: &str| old.map(|old| old["metadata"][key].clone()).filter(|value| !value.is_null());
    let meta = &mut new["metadata"];
    meta["uid"] = kept("uid").unwrap_or_else(|| uid().into());
    meta["creationTimestamp"] = kept("creationTimestamp").unwrap_or_else(|| now().into());
    meta["resourceVersion"] = revision.to_string().into();
}
