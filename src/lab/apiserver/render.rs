//! The forms in which an object can be asked for: as it is, as metadata alone, as a row of a table.

use std::time::SystemTime;

use bytes::Bytes;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::object;
use super::route::{Resource, Version};
use super::store::Object;

/// What the `Accept` header asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The object.
    Plain,
    /// `PartialObjectMetadata`.
    Metadata,
    /// A `Table`, for kubectl to print.
    Table,
}

/// How objects of one request are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Render {
    /// Of what.
    pub(super) resource: Resource,
    /// In which version.
    pub(super) version: Version,
    /// In which form.
    pub(super) form: Form,
}

impl Form {
    /// Reads an `Accept` header; what is not known is answered with JSON, as a real server would.
    pub(super) fn accepted(accept: &str) -> Self {
        let first = |needle: &str| accept.find(needle).unwrap_or(usize::MAX);
        let table = first("as=Table");
        let metadata = first("as=PartialObjectMetadata");
        match table.cmp(&metadata) {
            std::cmp::Ordering::Less => Self::Table,
            std::cmp::Ordering::Greater => Self::Metadata,
            std::cmp::Ordering::Equal => Self::Plain,
        }
    }
}

impl Render {
    /// One object on its own.
    pub(super) fn one(self, object: &Object) -> Bytes {
        match self.form {
            Form::Plain => typed(&self.item(object), self.resource.kind(), self.version.name()),
            Form::Metadata => self.item(object),
            Form::Table => {
                let mut table = self.table(&[self.row(object)]);
                table["metadata"]["resourceVersion"] = object.revision.to_string().into();
                table.to_string().into()
            }
        }
    }

    /// One object in a list.
    pub(super) fn item(self, object: &Object) -> Bytes {
        match (self.form, self.resource, self.version) {
            (Form::Plain, Resource::Events, Version::Events) => {
                let mut value = object.value();
                object::rename_fields(&mut value, true);
                value.to_string().into()
            }
            (Form::Plain, ..) => object.json.clone(),
            (Form::Metadata, ..) => metadata(&object.value()).to_string().into(),
            (Form::Table, ..) => self.row(object).to_string().into(),
        }
    }

    /// What stands before and after the items of a list.
    pub(super) fn frame(self, list_meta: &Value) -> (String, &'static str) {
        let (kind, version) = match self.form {
            Form::Plain => (format!("{}List", self.resource.kind()), self.version.name()),
            Form::Metadata => ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1"),
            Form::Table => {
                let mut table = self.table(&[]);
                table["metadata"] = list_meta.clone();
                let text = table.to_string();
                // Keys are written in order, and nothing comes after `rows`.
                return (text.strip_suffix("]}").unwrap_or(&text).to_owned(), "]}");
            }
        };
        (format!(r#"{{"kind":"{kind}","apiVersion":"{version}","metadata":{list_meta},"items":["#), "]}")
    }

    /// A bookmark: an object of nothing but a revision.
    pub(super) fn bookmark(self, revision: u64, ends_initial: bool) -> Value {
        let mut object = match self.form {
            Form::Plain => json!({ "kind": self.resource.kind(), "apiVersion": self.version.name(), "metadata": {} }),
            Form::Metadata => {
                json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {} })
            }
            Form::Table => self.table(&[]),
        };
        object["metadata"]["resourceVersion"] = revision.to_string().into();
        if ends_initial {
            object["metadata"]["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        json!({ "type": "BOOKMARK", "object": object })
    }

    fn table(self, rows: &[Value]) -> Value {
        let columns: Vec<Value> = columns(self.resource).iter().map(|(name, wide)| column(name, *wide)).collect();
        json!({
            "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {},
            "columnDefinitions": columns, "rows": rows,
        })
    }

    fn row(self, object: &Object) -> Value {
        let value = object.value();
        let cells = match self.resource {
            Resource::Nodes => node_cells(&value),
            Resource::Events => event_cells(&value),
        };
        json!({ "cells": cells, "object": metadata(&value) })
    }
}

/// Puts `kind` and `apiVersion` before what is stored without them.
fn typed(json: &Bytes, kind: &str, version: &str) -> Bytes {
    let mut out = format!(r#"{{"kind":"{kind}","apiVersion":"{version}","#).into_bytes();
    out.extend_from_slice(json.get(1..).unwrap_or_default());
    out.into()
}

fn metadata(value: &Value) -> Value {
    json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": value["metadata"] })
}

const fn columns(resource: Resource) -> &'static [(&'static str, bool)] {
    match resource {
        Resource::Nodes => &[
            ("Name", false),
            ("Status", false),
            ("Roles", false),
            ("Age", false),
            ("Version", false),
            ("Internal-IP", true),
            ("External-IP", true),
            ("OS-Image", true),
            ("Kernel-Version", true),
            ("Container-Runtime", true),
        ],
        Resource::Events => {
            &[("Last Seen", false), ("Type", false), ("Reason", false), ("Object", false), ("Message", false)]
        }
    }
}

fn column(name: &str, wide: bool) -> Value {
    let format = if name == "Name" { "name" } else { "" };
    json!({ "name": name, "type": "string", "format": format, "description": "", "priority": i32::from(wide) })
}

fn node_cells(node: &Value) -> Vec<String> {
    let conditions = node["status"]["conditions"].as_array();
    let ready = conditions.and_then(|all| all.iter().find(|condition| condition["type"] == "Ready"));
    let mut status = match ready.and_then(|ready| ready["status"].as_str()) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if node["spec"]["unschedulable"] == true {
        status.push_str(",SchedulingDisabled");
    }
    let labels = node["metadata"]["labels"].as_object();
    let role = |key: &String| key.strip_prefix("node-role.kubernetes.io/").map(str::to_owned);
    let roles: Vec<String> = labels.into_iter().flat_map(|labels| labels.keys()).filter_map(role).collect();
    let info = |key: &str| text(&node["status"]["nodeInfo"][key], "<unknown>");
    vec![
        text(&node["metadata"]["name"], ""),
        status,
        if roles.is_empty() { "<none>".to_owned() } else { roles.join(",") },
        age(&node["metadata"]["creationTimestamp"]),
        text(&node["status"]["nodeInfo"]["kubeletVersion"], ""),
        address(node, "InternalIP"),
        address(node, "ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

fn event_cells(event: &Value) -> Vec<String> {
    let about = &event["involvedObject"];
    let when = [&event["lastTimestamp"], &event["eventTime"], &event["metadata"]["creationTimestamp"]];
    vec![
        age(when.into_iter().find(|when| when.is_string()).unwrap_or(&Value::Null)),
        text(&event["type"], ""),
        text(&event["reason"], ""),
        format!("{}/{}", text(&about["kind"], "").to_lowercase(), text(&about["name"], "")),
        text(&event["message"], ""),
    ]
}

fn address(node: &Value, kind: &str) -> String {
    let all = node["status"]["addresses"].as_array();
    let found = all.and_then(|all| all.iter().find(|address| address["type"] == kind));
    found.map_or_else(|| "<none>".to_owned(), |address| text(&address["address"], "<none>"))
}

fn text(value: &Value, otherwise: &str) -> String {
    value.as_str().unwrap_or(otherwise).to_owned()
}

/// How long ago a time was, in its two largest units.
fn age(since: &Value) -> String {
    let then = since.as_str().and_then(|text| text.parse::<Timestamp>().ok()).map(Timestamp::as_second);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map(|now| now.as_secs());
    let (Some(then), Ok(now)) = (then.and_then(|then| u64::try_from(then).ok()), now) else {
        return "<unknown>".to_owned();
    };
    let seconds = now.saturating_sub(then);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => format!("{}m{}s", seconds / 60, seconds % 60),
        600..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}
