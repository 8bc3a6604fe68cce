//! The three patches of the API: merge (RFC 7396), strategic merge, and JSON patch (RFC 6902).

use serde_json::{Map, Value};

use super::status::Failure;

const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const OPERATIONS: &str = "application/json-patch+json";

/// Applies a patch of the given content type.
pub(super) fn apply(content_type: &str, target: &mut Value, patch: &[u8]) -> Result<(), Failure> {
    let patch: Value = serde_json::from_slice(patch)
        .map_err(|error| Failure::bad_request(format!("error decoding patch: {error}")))?;
    match content_type {
        MERGE => merge(target, patch),
        STRATEGIC => strategic(target, patch, ""),
        OPERATIONS => return operations(target, &patch),
        other => return Err(Failure::unsupported(other, &[OPERATIONS, MERGE, STRATEGIC])),
    }
    Ok(())
}

/// RFC 7396.
pub(super) fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    let target = as_map(target);
    for (key, value) in patch {
        if value.is_null() {
            target.remove(&key);
        } else {
            merge(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

fn as_map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made an object above"),
    }
}

/// The lists of a Node that merge by a key; `""` merges plain values. Every other list is replaced
/// (`patchStrategy` and `patchMergeKey` in k8s.io/api/core/v1).
const MERGED_LISTS: [(&str, &str); 6] = [
    ("status.conditions", "type"),
    ("status.addresses", "type"),
    ("spec.taints", "key"),
    ("spec.podCIDRs", ""),
    ("metadata.finalizers", ""),
    ("metadata.ownerReferences", "uid"),
];

fn strategic(target: &mut Value, patch: Value, parent: &str) {
    let Value::Object(mut patch) = patch else {
        *target = patch;
        return;
    };
    if patch.remove("$patch").as_ref().and_then(Value::as_str) == Some("replace") {
        *target = Value::Object(patch);
        return;
    }
    let target = as_map(target);
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix("$deleteFromPrimitiveList/") {
            delete_plain(target.get_mut(list), &value);
            continue;
        }
        if key.starts_with('$') {
            continue; // $setElementOrder and $retainKeys: order is not kept here
        }
        let field = if parent.is_empty() { key.clone() } else { format!("{parent}.{key}") };
        match value {
            Value::Null => drop(target.remove(&key)),
            Value::Array(items) => strategic_list(target.entry(key).or_insert(Value::Null), items, &field),
            value => strategic(target.entry(key).or_insert(Value::Null), value, &field),
        }
    }
}

fn delete_plain(list: Option<&mut Value>, gone: &Value) {
    let (Some(Value::Array(list)), Value::Array(gone)) = (list, gone) else { return };
    list.retain(|item| !gone.contains(item));
}

fn strategic_list(target: &mut Value, items: Vec<Value>, path: &str) {
    let merged = MERGED_LISTS.iter().find(|(list, _)| *list == path);
    let replace = items.iter().any(|item| item["$patch"] == "replace");
    let (Some((_, key)), false) = (merged, replace) else {
        *target = items.into_iter().filter(|item| item["$patch"] != "replace").collect();
        return;
    };
    let mut list = target.as_array_mut().map(std::mem::take).unwrap_or_default();
    for mut item in items {
        let same = |there: &Value| if key.is_empty() { *there == item } else { there[*key] == item[*key] };
        let at = list.iter().position(same);
        let delete = item["$patch"] == "delete";
        if let Some(item) = item.as_object_mut() {
            item.remove("$patch");
        }
        match at {
            Some(at) if delete => drop(list.remove(at)),
            Some(at) if !key.is_empty() => strategic(&mut list[at], item, ""),
            None if !delete => list.push(item),
            _ => {}
        }
    }
    *target = Value::Array(list);
}

fn operations(target: &mut Value, patch: &Value) -> Result<(), Failure> {
    let Value::Array(operations) = patch else {
        return Err(Failure::bad_request("a JSON patch is a list of operations"));
    };
    let mut work = target.clone();
    for operation in operations {
        step(&mut work, operation).ok_or_else(|| {
            Failure::invalid("Patch", "", &format!("the server rejected our request due to an error in: {operation}"))
        })?;
    }
    *target = work;
    Ok(())
}

/// One operation; `None` if it cannot be done.
fn step(doc: &mut Value, operation: &Value) -> Option<()> {
    let path = operation["path"].as_str()?;
    match operation["op"].as_str()? {
        "add" => add(doc, path, operation.get("value")?.clone()),
        "remove" => remove(doc, path).map(drop),
        "replace" => {
            *doc.pointer_mut(path)? = operation.get("value")?.clone();
            Some(())
        }
        "move" => {
            let value = remove(doc, operation["from"].as_str()?)?;
            add(doc, path, value)
        }
        "copy" => {
            let value = doc.pointer(operation["from"].as_str()?)?.clone();
            add(doc, path, value)
        }
        "test" => (doc.pointer(path)? == operation.get("value")?).then_some(()),
        _ => None,
    }
}

/// A pointer's parent, and its last part with `~1` and `~0` undone.
fn split(path: &str) -> Option<(&str, String)> {
    let (parent, last) = path.rsplit_once('/')?;
    Some((parent, last.replace("~1", "/").replace("~0", "~")))
}

fn add(doc: &mut Value, path: &str, value: Value) -> Option<()> {
    if path.is_empty() {
        *doc = value;
        return Some(());
    }
    let (parent, name) = split(path)?;
    match doc.pointer_mut(parent)? {
        Value::Object(map) => drop(map.insert(name, value)),
        Value::Array(list) if name == "-" => list.push(value),
        Value::Array(list) => {
            let at = name.parse().ok().filter(|at| *at <= list.len())?;
            list.insert(at, value);
        }
        _ => return None,
    }
    Some(())
}

fn remove(doc: &mut Value, path: &str) -> Option<Value> {
    let (parent, name) = split(path)?;
    match doc.pointer_mut(parent)? {
        Value::Object(map) => map.remove(&name),
        Value::Array(list) => {
            let at = name.parse().ok().filter(|at| *at < list.len())?;
            Some(list.remove(at))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(content_type: &str, mut target: Value, patch: &Value) -> Result<Value, Failure> {
        apply(content_type, &mut target, patch.to_string().as_bytes()).map(|()| target)
    }

    #[test]
    fn a_merge_patch_sets_removes_and_replaces_lists() {
        let before = json!({"metadata": {"annotations": {"a": "1", "b": "2"}}, "l": [1, 2]});
        let patch = json!({"metadata": {"annotations": {"a": null, "c": "3"}}, "l": [3]});
        let after = json!({"metadata": {"annotations": {"b": "2", "c": "3"}}, "l": [3]});
        assert_eq!(patched("application/merge-patch+json", before, &patch), Ok(after));
    }

    #[test]
    fn a_strategic_patch_merges_conditions_by_type() {
        let before = json!({"status": {"conditions": [{"type": "Ready", "status": "True"},
                                                      {"type": "NetworkUnavailable", "status": "True", "reason": "x"}]}});
        let patch = json!({"status": {"$setElementOrder/conditions": [{"type": "NetworkUnavailable"}],
                           "conditions": [{"type": "NetworkUnavailable", "status": "False"}, {"type": "New"}]}});
        let after = json!({"status": {"conditions": [{"type": "Ready", "status": "True"},
            {"type": "NetworkUnavailable", "status": "False", "reason": "x"}, {"type": "New"}]}});
        assert_eq!(patched("application/strategic-merge-patch+json", before, &patch), Ok(after));
    }

    #[test]
    fn a_strategic_patch_can_delete_by_key_and_by_value() {
        let before = json!({"spec": {"taints": [{"key": "a"}, {"key": "b"}]}, "metadata": {"finalizers": ["x", "y"]}});
        let patch = json!({"spec": {"taints": [{"key": "a", "$patch": "delete"}]},
                           "metadata": {"$deleteFromPrimitiveList/finalizers": ["x"]}});
        let after = json!({"spec": {"taints": [{"key": "b"}]}, "metadata": {"finalizers": ["y"]}});
        assert_eq!(patched("application/strategic-merge-patch+json", before, &patch), Ok(after));
    }

    #[test]
    fn a_json_patch_is_all_or_nothing() {
        let before = json!({"a": {"x/y": 1}, "l": [1, 3]});
        let good = json!([{"op": "replace", "path": "/a/x~1y", "value": 2}, {"op": "add", "path": "/l/1", "value": 2},
                          {"op": "test", "path": "/l/2", "value": 3}, {"op": "move", "from": "/l", "path": "/m"}]);
        let content = "application/json-patch+json";
        assert_eq!(patched(content, before.clone(), &good), Ok(json!({"a": {"x/y": 2}, "m": [1, 2, 3]})));
        let bad = json!([{"op": "remove", "path": "/a"}, {"op": "remove", "path": "/nowhere"}]);
        let mut target = before.clone();
        assert!(apply(content, &mut target, bad.to_string().as_bytes()).is_err());
        assert_eq!(target, before);
    }
}
