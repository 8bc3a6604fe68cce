//! The documents that kubectl reads before it asks for anything.

use serde_json::{Value, json};

use super::status::Failure;

/// The version that this server says it is.
const MINOR: &str = "33";

/// The document at a path.
pub(super) fn document(path: &str) -> Result<Value, Failure> {
    let document = match path.trim_end_matches('/') {
        "" => {
            json!({ "paths": ["/api", "/api/v1", "/apis", "/apis/events.k8s.io", "/healthz", "/openapi/v3", "/version"] })
        }
        "/healthz" | "/livez" | "/readyz" => json!("ok"),
        "/version" => version(),
        "/api" => json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [],
        }),
        "/apis" => json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": [events_group()] }),
        "/apis/events.k8s.io" => {
            let mut group = events_group();
            group["kind"] = "APIGroup".into();
            group["apiVersion"] = "v1".into();
            group
        }
        "/api/v1" => resources("v1", &[node(), node_status(), event(), pod()]),
        "/apis/events.k8s.io/v1" => resources("events.k8s.io/v1", &[event()]),
        "/openapi/v3" => {
            json!({ "paths": { "api/v1": { "serverRelativeURL": "/openapi/v3/api/v1" } } })
        }
        "/openapi/v3/api/v1" => openapi(),
        _ => return Err(Failure::no_path()),
    };
    Ok(document)
}

fn version() -> Value {
    json!({
        "major": "1", "minor": MINOR, "gitVersion": format!("v1.{MINOR}.0-weft-lab"), "gitCommit": "",
        "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc",
        "platform": "linux/amd64",
    })
}

fn events_group() -> Value {
    let version = json!({ "groupVersion": "events.k8s.io/v1", "version": "v1" });
    json!({ "name": "events.k8s.io", "versions": [version], "preferredVersion": version })
}

fn resources(group_version: &str, list: &[Value]) -> Value {
    json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list })
}

fn node() -> Value {
    json!({
        "name": "nodes", "singularName": "node", "namespaced": false, "kind": "Node", "shortNames": ["no"],
        "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
    })
}

fn node_status() -> Value {
    json!({
        "name": "nodes/status", "singularName": "", "namespaced": false, "kind": "Node",
        "verbs": ["get", "patch", "update"],
    })
}

fn event() -> Value {
    json!({
        "name": "events", "singularName": "event", "namespaced": true, "kind": "Event", "shortNames": ["ev"],
        "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
    })
}

fn pod() -> Value {
    json!({
        "name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod", "shortNames": ["po"],
        "verbs": ["list", "watch"],
    })
}

/// As much of it as kubectl looks for: that writes of Nodes and Events take `fieldValidation`,
/// so that it leaves the checking of fields to the server.
fn openapi() -> Value {
    let parameter = |name: &str| json!({ "name": name, "in": "query", "schema": { "type": "string" } });
    let patch = |group: &str, kind: &str| {
        json!({ "patch": {
            "x-kubernetes-action": "patch",
            "x-kubernetes-group-version-kind": { "group": group, "version": "v1", "kind": kind },
            "parameters": [parameter("dryRun"), parameter("fieldManager"), parameter("fieldValidation")],
            "responses": {},
        } })
    };
    json!({
        "openapi": "3.0.0", "info": { "title": "weft lab", "version": "v1" },
        "paths": {
            "/api/v1/nodes/{name}": patch("", "Node"),
            "/api/v1/namespaces/{namespace}/events/{name}": patch("", "Event"),
        },
    })
}
