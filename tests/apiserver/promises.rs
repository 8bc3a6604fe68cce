//! What an agent and kubectl build on, of the lab's server and of a real one alike.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::server::{JSON, MERGE, STRATEGIC, Server, names, node, seen, version, watch};

/// A watch that is told nothing for this long is told nothing.
const QUIET: Duration = Duration::from_millis(200);

#[test]
fn a_list_comes_in_pages_of_one_moment() {
    let server = Server::with_nodes(5);
    let first = server.get("/api/v1/nodes?limit=2").json();
    assert_eq!((names(&first), &first["metadata"]["remainingItemCount"]), (vec!["n0", "n1"], &json!(3)));
    assert_eq!((&first["kind"], &first["items"][0]["kind"]), (&json!("NodeList"), &Value::Null));
    server.delete("n3");
    server.create("n9", "10.244.9.0/24");
    let more = |list: &Value| {
        let token = list["metadata"]["continue"].as_str().unwrap().to_owned();
        server.get(&format!("/api/v1/nodes?limit=2&continue={token}"))
    };
    let second = more(&first).json();
    assert_eq!(names(&second), ["n2", "n3"], "as it was when the list began");
    let third = more(&second).json();
    assert_eq!((names(&third), version(&third)), (vec!["n4"], version(&first)));
    assert_eq!(third["metadata"]["continue"], Value::Null);
    server.forget();
    let late = more(&first);
    assert_eq!((late.status, &late.json()["reason"]), (410, &json!("Expired")));
}

#[test]
fn a_list_honours_resource_versions() {
    let server = Server::with_nodes(2);
    let old = version(&server.list());
    server.delete("n0");
    let list = |query: String| server.get(&format!("/api/v1/nodes?{query}"));
    assert_eq!(names(&list(format!("resourceVersion={old}&resourceVersionMatch=Exact")).json()), ["n0", "n1"]);
    let new = version(&server.list());
    assert_eq!(names(&list(format!("resourceVersion={new}&resourceVersionMatch=NotOlderThan")).json()), ["n1"]);
    let future = list(format!("resourceVersion={}", new + 1_000_000));
    assert_eq!((future.status, future.header("retry-after")), (504, Some("1")));
    assert_eq!(list("resourceVersionMatch=NotOlderThan".to_owned()).status, 422);
    server.forget();
    assert_eq!(list(format!("resourceVersion={old}&resourceVersionMatch=Exact")).status, 410);
}

#[test]
fn resource_version_zero_knows_no_pages() {
    let server = Server::with_nodes(3);
    let newest = version(&server.list());
    // Version 0 may be any that the server has at hand: here it is made to have all three.
    server.get(&format!("/api/v1/nodes?resourceVersion={newest}"));
    let list = server.get("/api/v1/nodes?resourceVersion=0&limit=1").json();
    assert_eq!((names(&list).len(), &list["metadata"]["continue"]), (3, &Value::Null));
}

#[test]
fn a_watch_continues_where_the_list_ended() {
    let server = Server::with_nodes(1);
    let list = server.list();
    server.create("n1", "10.244.1.0/24");
    let mut watch = server.watch_from(&list, "");
    assert_eq!(seen(&watch.event().unwrap()), ("ADDED", "n1"));
    server.patch("n0", &json!({"metadata": {"labels": {"a": "b"}}}));
    let modified = watch.event().unwrap();
    assert_eq!((seen(&modified), &modified["object"]["kind"]), (("MODIFIED", "n0"), &json!("Node")));
    server.delete("n0");
    let deleted = watch.event().unwrap();
    assert_eq!(seen(&deleted), ("DELETED", "n0"));
    assert!(version(&deleted["object"]) > version(&modified["object"]), "a removal has a revision of its own");
}

#[test]
fn a_watch_from_nothing_begins_with_everything() {
    let server = Server::with_nodes(2);
    for query in ["", "resourceVersion=0"] {
        let mut watch = watch(server.at, query);
        assert_eq!(seen(&watch.event().unwrap()), ("ADDED", "n0"));
        assert_eq!(seen(&watch.event().unwrap()), ("ADDED", "n1"));
        assert!(watch.is_quiet_for(QUIET));
    }
}

#[test]
fn a_streaming_list_ends_with_its_bookmark() {
    let server = Server::with_nodes(2);
    let newest = version(&server.list());
    let rules = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = watch(server.at, &format!("{rules}&resourceVersion={newest}"));
    assert_eq!(seen(&watch.event().unwrap()), ("ADDED", "n0"));
    assert_eq!(seen(&watch.event().unwrap()), ("ADDED", "n1"));
    let end = watch.event().unwrap();
    assert_eq!(end["type"], "BOOKMARK");
    assert_eq!(end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert!(version(&end["object"]) >= newest);
    server.create("n2", "10.244.2.0/24");
    assert_eq!(seen(&watch.event().unwrap()), ("ADDED", "n2"));
    let refused = server.get("/api/v1/nodes?watch=1&sendInitialEvents=true");
    assert_eq!(refused.status, 422, "without resourceVersionMatch");
}

#[test]
fn a_watch_ends_in_time() {
    let server = Server::with_nodes(1);
    let begun = Instant::now();
    assert_eq!(server.watch_from(&server.list(), "&timeoutSeconds=1").event(), None, "no bookmark unless asked for");
    assert!(begun.elapsed() >= Duration::from_millis(900));
}

/// A real server sends a bookmark every minute, and some two seconds before the end that was asked for, once something was
/// written that the watch does not show.
#[test]
fn a_watch_that_shows_nothing_gets_bookmarks() {
    let server = Server::with_nodes(1);
    let list = server.list();
    let mut watch =
        server.watch_from(&list, "&fieldSelector=metadata.name%3Dn0&allowWatchBookmarks=true&timeoutSeconds=8");
    server.create("n1", "10.244.1.0/24");
    let bookmark = watch.event().unwrap();
    assert_eq!((&bookmark["type"], &bookmark["object"]["kind"]), (&json!("BOOKMARK"), &json!("Node")));
    assert!(version(&bookmark["object"]) > version(&list), "{bookmark}");
}

#[test]
fn a_watch_that_comes_too_late_is_told_so() {
    let server = Server::with_nodes(3);
    let old = server.list();
    let mut live = (!server.is_real()).then(|| server.watch_from(&old, ""));
    server.patch("n1", &json!({"metadata": {"labels": {"a": "b"}}}));
    if let Some(live) = &mut live {
        assert_eq!(seen(&live.event().unwrap()), ("MODIFIED", "n1"));
    }
    server.forget();
    let mut late = server.watch_from(&old, "");
    let error = late.event().unwrap();
    assert_eq!(
        (&error["type"], &error["object"]["code"], &error["object"]["reason"]),
        (&json!("ERROR"), &json!(410), &json!("Expired"))
    );
    assert_eq!(late.event(), None);
    let mut next = server.watch_from(&server.list(), "");
    server.delete("n0");
    assert_eq!(seen(&next.event().unwrap()), ("DELETED", "n0"), "after another list it goes on");
    // A real server does not live through it.
    if let Some(live) = &mut live {
        assert_eq!(seen(&live.event().unwrap()), ("DELETED", "n0"), "who missed nothing goes on");
    }
}

#[test]
fn a_selector_turns_changes_into_comings_and_goings() {
    let server = Server::with_nodes(2);
    let mut watch = server.watch_from(&server.list(), "&labelSelector=zone%3Da");
    server.patch("n1", &json!({"metadata": {"labels": {"zone": "a"}}}));
    assert_eq!(seen(&watch.event().unwrap()), ("ADDED", "n1"));
    server.patch("n1", &json!({"metadata": {"labels": {"zone": "b"}}}));
    assert_eq!(seen(&watch.event().unwrap()), ("DELETED", "n1"));
    assert_eq!(names(&server.get("/api/v1/nodes?fieldSelector=metadata.name%3Dn0").json()), ["n0"]);
}

#[test]
fn an_object_keeps_its_identity_and_notes_who_wrote() {
    let server = Server::empty();
    let body = node("a", "10.244.0.0/24");
    let made = server.send("POST", "/api/v1/nodes?fieldManager=me", &[], &body);
    assert_eq!(made.status, 201);
    let made = made.json();
    assert_eq!((&made["kind"], &made["apiVersion"]), (&json!("Node"), &json!("v1")));
    assert_eq!(made["spec"]["podCIDRs"], json!(["10.244.0.0/24"]));
    assert_eq!(made["metadata"]["uid"].as_str().unwrap().len(), 36);
    assert_eq!(made["metadata"]["managedFields"][0]["manager"], "me");
    let patch = json!({"metadata": {"annotations": {"x": "y"}}});
    let patched = server.send("PATCH", "/api/v1/nodes/a/status", &[MERGE, ("User-Agent", "flanneld/v1")], &patch);
    let patched = patched.json();
    for own in ["uid", "creationTimestamp", "name"] {
        assert_eq!(patched["metadata"][own], made["metadata"][own]);
    }
    let managers = patched["metadata"]["managedFields"].as_array().unwrap();
    let managed = managers.iter().find(|managed| managed["manager"] == "flanneld").unwrap();
    assert_eq!((managers.len(), &managed["subresource"]), (2, &json!("status")));
    assert_eq!(managed["fieldsV1"]["f:metadata"]["f:annotations"]["f:x"], json!({}));
    let again = server.send("POST", "/api/v1/nodes", &[], &body);
    assert_eq!((again.status, &again.json()["reason"]), (409, &json!("AlreadyExists")));
}

#[test]
fn a_patch_that_changes_nothing_is_no_write() {
    let server = Server::with_nodes(1);
    let patch = json!({"metadata": {"annotations": {"x": "y"}}});
    let first = server.patch("n0", &patch);
    let mut watch = server.watch_from(&first, "");
    let second = server.send("PATCH", "/api/v1/nodes/n0", &[STRATEGIC], &patch).json();
    assert_eq!(version(&first), version(&second));
    assert!(watch.is_quiet_for(QUIET));
}

#[test]
fn status_and_spec_are_written_apart_and_metadata_through_both() {
    let server = Server::with_nodes(1);
    let patch = json!({
        "metadata": {"annotations": {"seen": "yes"}}, "spec": {"unschedulable": true},
        "status": {"conditions": [{"type": "NetworkUnavailable", "status": "False"}]},
    });
    let node = server.send("PATCH", "/api/v1/nodes/n0/status", &[STRATEGIC], &patch).json();
    assert_eq!(node["spec"]["unschedulable"], Value::Null);
    assert_eq!(node["status"]["conditions"][0]["status"], "False");
    assert_eq!(node["metadata"]["annotations"]["seen"], "yes");
    let node = server.patch("n0", &json!({"spec": {"unschedulable": true}, "status": {"conditions": null}}));
    assert_eq!(node["spec"]["unschedulable"], true);
    assert_eq!(node["status"]["conditions"][0]["status"], "False");
}

#[test]
fn what_may_not_be_is_refused() {
    let server = Server::with_nodes(1);
    let send = |method: &str, target: &str, header, body: Value| {
        let answer = server.send(method, target, &[header], &body);
        (answer.status, answer.json()["reason"].as_str().unwrap_or_default().to_owned())
    };
    let refused = |status: u16, reason: &str| (status, reason.to_owned());
    let n0 = "/api/v1/nodes/n0";
    let other = json!({"spec": {"podCIDR": "10.244.7.0/24", "podCIDRs": ["10.244.7.0/24"]}});
    let stale = json!({"metadata": {"resourceVersion": "1", "annotations": {"a": "b"}}});
    assert_eq!(send("PATCH", n0, MERGE, stale), refused(409, "Conflict"));
    let mut put = node("n0", "10.244.0.0/24");
    put["metadata"]["resourceVersion"] = json!("1");
    assert_eq!(send("PUT", n0, MERGE, put.clone()), refused(415, "UnsupportedMediaType"));
    assert_eq!(send("PUT", n0, JSON, put), refused(409, "Conflict"));
    assert_eq!(send("PATCH", "/api/v1/nodes/none", MERGE, json!({})), refused(404, "NotFound"));
    assert_eq!(send("PATCH", n0, MERGE, json!({"metadata": {"annotations": {"a": 1}}})), refused(422, "Invalid"));
    assert_eq!(send("PATCH", n0, ("Content-Type", "text/plain"), json!({})), refused(415, "UnsupportedMediaType"));
    assert_eq!(send("PATCH", n0, MERGE, other), refused(422, "Invalid"));
    assert_eq!(send("PATCH", n0, MERGE, json!({"metadata": {"uid": "forged"}})), refused(422, "Invalid"));
    let mut put = node("n0", "10.244.0.0/24");
    put["metadata"]["uid"] = json!("forged");
    assert_eq!(send("PUT", n0, JSON, put), refused(409, "Conflict"));
    let ignored = json!({"spec": {"podCIDRs": ["10.244.7.0/24"]}});
    assert_eq!(send("PATCH", n0, MERGE, ignored).0, 200, "the podCIDR that is there counts");
    assert_eq!(server.get(n0).json()["spec"]["podCIDRs"], json!(["10.244.0.0/24"]));
    assert_eq!(send("POST", "/api/v1/nodes", JSON, node("Not_A_Name", "10.244.7.0/24")), refused(422, "Invalid"));
    assert_eq!(send("POST", "/api/v1/nodes", JSON, json!("text")).0, 400);
    assert_eq!(send("DELETE", n0, JSON, json!({"preconditions": {"uid": "other"}})), refused(409, "Conflict"));
    assert_eq!(send("POST", n0, JSON, json!({})), refused(405, "MethodNotAllowed"));
    assert_eq!(names(&server.list()), ["n0"]);
}

#[test]
fn a_delete_names_what_is_gone() {
    let server = Server::with_nodes(1);
    let uid = server.get("/api/v1/nodes/n0").json()["metadata"]["uid"].clone();
    let gone = server.send("DELETE", "/api/v1/nodes/n0", &[], &json!({}));
    assert_eq!((gone.status, &gone.json()["details"]["uid"]), (200, &uid));
    assert_eq!(server.get("/api/v1/nodes/n0").status, 404);
    assert_ne!(server.create("n0", "10.244.0.0/24")["metadata"]["uid"], uid, "a node made again is another");
}

#[test]
fn events_of_both_groups_are_one() {
    let server = Server::empty();
    let event = json!({
        "metadata": {"generateName": "a-", "namespace": "default"}, "note": "hello", "reason": "Test", "type": "Normal",
        "action": "Testing", "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "weft.test/x", "reportingInstance": "x",
        "regarding": {"kind": "Node", "name": "a", "namespace": "default"},
    });
    let made = server.send("POST", "/apis/events.k8s.io/v1/namespaces/default/events", &[], &event);
    assert_eq!(
        (made.status, &made.json()["note"], &made.json()["apiVersion"]),
        (201, &json!("hello"), &json!("events.k8s.io/v1"))
    );
    let list = server.get("/api/v1/namespaces/default/events").json();
    assert_eq!(
        (&list["items"][0]["message"], &list["items"][0]["involvedObject"]["name"]),
        (&json!("hello"), &json!("a"))
    );
    assert_eq!(names(&list).len(), 1);
    assert_eq!(server.get("/api/v1/namespaces/other/events").json()["items"], json!([]));
}

/// As the agent makes them, without a right to read.
#[test]
fn an_event_about_a_node_goes_on_by_its_name() {
    let server = Server::with_nodes(1);
    let event = |namespace: &str| {
        json!({
            "apiVersion": "v1", "kind": "Event", "metadata": { "name": "n0.weft-1", "namespace": namespace },
            "involvedObject": { "kind": "Node", "name": "n0", "uid": "n0" },
            "source": { "component": "weft", "host": "n0" }, "reportingComponent": "weft", "reportingInstance": "n0",
            "type": "Warning", "reason": "Test", "message": "what happened", "count": 1,
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:00Z",
        })
    };
    let post =
        |space: &str| server.send("POST", &format!("/api/v1/namespaces/{space}/events"), &[], &event(space)).status;
    assert_eq!([post("default"), post("default"), post("kube-public")], [201, 409, 422]);
    let merge = [("Content-Type", "application/merge-patch+json")];
    let patch = |name: &str, patch: Value| {
        server.send("PATCH", &format!("/api/v1/namespaces/default/events/{name}"), &merge, &patch)
    };
    let later = json!({ "type": "Warning", "message": "still so", "lastTimestamp": "2026-01-01T00:10:00Z" });
    let answer = patch("n0.weft-1", later.clone());
    assert_eq!(
        (answer.status, &answer.json()["count"], &answer.json()["message"]),
        (200, &json!(1), &json!("still so"))
    );
    assert_eq!(patch("n0.weft-1", json!({ "count": 2 })).json()["count"], 2);
    assert_eq!(patch("n0.weft-2", later).status, 404);
}

#[test]
fn metadata_can_be_had_alone() {
    let server = Server::with_nodes(1);
    let accept = ("Accept", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");
    let list = server.send("GET", "/api/v1/nodes", &[accept], &json!({})).json();
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!((names(&list), &list["items"][0]["spec"]), (vec!["n0"], &Value::Null));
}
