//! `metadata.managedFields`: who set what. Agents have to carry or skip it, so it is here as it is there.

use serde_json::{Map, Value, json};

/// Who writes, and how.
#[derive(Clone, Debug)]
pub(super) struct Manager {
    /// `fieldManager`, or the first part of the user agent.
    pub(super) name: String,
    /// `Update` always: server-side apply is not offered.
    pub(super) status: bool,
}

/// Notes in `new` that the manager set whatever differs from `old`, and that nobody else did.
pub(super) fn track(old: Option<&Value>, new: &mut Value, manager: &Manager, now: &str) {
    let changed = changed(old.unwrap_or(&Value::Null), new, "");
    let mut entries = old.and_then(|old| old["metadata"]["managedFields"].as_array().cloned()).unwrap_or_default();
    if !changed.is_empty() {
        for entry in &mut entries {
            if let Value::Object(fields) = &mut entry["fieldsV1"] {
                subtract(fields, &changed);
            }
        }
        let mine = entries.iter_mut().find(|entry| is_of(entry, manager));
        if let Some(mine) = mine {
            mine["time"] = now.into();
            if let Value::Object(fields) = &mut mine["fieldsV1"] {
                union(fields, changed);
            }
        } else {
            entries.push(entry(manager, now, &changed));
        }
        entries.retain(|entry| entry["fieldsV1"].as_object().is_some_and(|fields| !fields.is_empty()));
    }
    new["metadata"]["managedFields"] = entries.into();
}

fn is_of(entry: &Value, manager: &Manager) -> bool {
    entry["manager"] == manager.name.as_str() && (entry["subresource"] == "status") == manager.status
}

fn entry(manager: &Manager, now: &str, fields: &Map<String, Value>) -> Value {
    let mut entry = json!({
        "manager": manager.name, "operation": "Update", "apiVersion": "v1", "time": now,
        "fieldsType": "FieldsV1", "fieldsV1": fields,
    });
    if manager.status {
        entry["subresource"] = "status".into();
    }
    entry
}

/// The server's own fields: nobody manages them.
const UNMANAGED: [&str; 6] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "metadata.resourceVersion",
    "metadata.creationTimestamp",
    "metadata.managedFields",
];

/// The fields that are new or differ, as a `FieldsV1` tree. Lists count as one field.
fn changed(old: &Value, new: &Value, path: &str) -> Map<String, Value> {
    let mut out = Map::new();
    for (key, value) in new.as_object().into_iter().flatten() {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        if *value == old[key.as_str()] || UNMANAGED.contains(&path.as_str()) {
            continue;
        }
        let mut below = changed(&old[key.as_str()], value, &path);
        if value.is_object() && old[key.as_str()].is_null() {
            below.insert(".".to_owned(), json!({}));
        }
        if !value.is_object() || !below.is_empty() {
            out.insert(format!("f:{key}"), below.into());
        }
    }
    out
}

fn union(into: &mut Map<String, Value>, from: Map<String, Value>) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(into)), Value::Object(from)) => union(into, from),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

fn subtract(from: &mut Map<String, Value>, gone: &Map<String, Value>) {
    for (key, gone) in gone {
        let Some(Value::Object(have)) = from.get_mut(key) else { continue };
        let leaf = gone.as_object().is_none_or(Map::is_empty);
        if let (false, Value::Object(gone)) = (leaf, gone) {
            subtract(have, gone);
        }
        if leaf || have.is_empty() {
            from.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_belongs_to_whoever_set_it_last() {
        let by = |name: &str| Manager { name: name.to_owned(), status: false };
        let mut first = json!({"metadata": {"name": "n", "annotations": {"a": "1", "b": "1"}}});
        track(None, &mut first, &by("x"), "t1");
        let mut second = first.clone();
        second["metadata"]["annotations"]["b"] = "2".into();
        track(Some(&first), &mut second, &by("y"), "t2");
        let fields = |at: usize| &second["metadata"]["managedFields"][at]["fieldsV1"]["f:metadata"]["f:annotations"];
        assert_eq!(*fields(0), json!({".": {}, "f:a": {}}));
        assert_eq!(*fields(1), json!({"f:b": {}}));
    }
}
