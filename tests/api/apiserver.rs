//! The lab's API server keeps the promises of the real one, and breaks them when told to.

#![expect(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test may")]

#[path = "../support/http.rs"]
mod http;

use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weft::lab::apiserver::{Action, ApiServer, Verb};

const MERGE: (&str, &str) = ("Content-Type", "application/merge-patch+json");
const STRATEGIC: (&str, &str) = ("Content-Type", "application/strategic-merge-patch+json");

fn server() -> (ApiServer, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (ApiServer::start(listener).unwrap(), address)
}

fn node(name: &str, cidr: &str) -> Value {
    json!({ "metadata": { "name": name }, "spec": { "podCIDR": cidr } })
}

/// A server with nodes n0, n1, ...
fn with_nodes(count: usize) -> (ApiServer, SocketAddr) {
    let (server, at) = server();
    for i in 0..count {
        server.put_node(node(&format!("n{i}"), &format!("10.244.{i}.0/24")));
    }
    (server, at)
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

fn version(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().unwrap()
}

fn watch(at: SocketAddr, query: &str) -> http::Stream {
    let stream = http::open(at, "GET", &format!("/api/v1/nodes?watch=1&{query}"), &[], "").unwrap();
    assert_eq!(stream.status, 200);
    stream
}

fn seen(event: &Value) -> (&str, &str) {
    (event["type"].as_str().unwrap(), event["object"]["metadata"]["name"].as_str().unwrap_or(""))
}

#[test]
fn a_list_comes_in_pages_of_one_moment() {
    let (server, at) = with_nodes(5);
    let first = http::get(at, "/api/v1/nodes?limit=2").json();
    assert_eq!((names(&first), &first["metadata"]["remainingItemCount"]), (vec!["n0", "n1"], &json!(3)));
    assert_eq!((&first["kind"], &first["items"][0]["kind"]), (&json!("NodeList"), &Value::Null));
    server.delete_node("n3");
    server.put_node(node("n9", "10.244.9.0/24"));
    let more = |list: &Value| {
        let token = list["metadata"]["continue"].as_str().unwrap().to_owned();
        http::get(at, &format!("/api/v1/nodes?limit=2&continue={token}")).json()
    };
    let second = more(&first);
    assert_eq!(names(&second), ["n2", "n3"], "as it was when the list began");
    let third = more(&second);
    assert_eq!((names(&third), version(&third)), (vec!["n4"], version(&first)));
    assert_eq!(third["metadata"]["continue"], Value::Null);
    server.compact();
    let token = first["metadata"]["continue"].as_str().unwrap();
    let late = http::get(at, &format!("/api/v1/nodes?limit=2&continue={token}"));
    assert_eq!((late.status, &late.json()["reason"]), (410, &json!("Expired")));
}

#[test]
fn a_list_honours_resource_versions() {
    let (server, at) = with_nodes(2);
    let old = http::get(at, "/api/v1/nodes").json();
    server.delete_node("n0");
    let list = |query: String| http::get(at, &format!("/api/v1/nodes?{query}"));
    let then = version(&old);
    assert_eq!(names(&list(format!("resourceVersion={then}&resourceVersionMatch=Exact")).json()), ["n0", "n1"]);
    assert_eq!(names(&list(format!("resourceVersion={then}&resourceVersionMatch=NotOlderThan")).json()), ["n1"]);
    assert_eq!(names(&list("resourceVersion=0&limit=1".to_owned()).json()), ["n1"]);
    let future = list("resourceVersion=999".to_owned());
    assert_eq!((future.status, future.header("retry-after")), (504, Some("1")));
    assert_eq!(list("resourceVersionMatch=NotOlderThan".to_owned()).status, 422);
    server.compact();
    assert_eq!(list(format!("resourceVersion={then}&resourceVersionMatch=Exact")).status, 410);
}

#[test]
fn resource_version_zero_knows_no_pages() {
    let (_server, at) = with_nodes(3);
    let list = http::get(at, "/api/v1/nodes?resourceVersion=0&limit=1").json();
    assert_eq!((names(&list).len(), &list["metadata"]["continue"]), (3, &Value::Null));
}

#[test]
fn a_watch_continues_where_the_list_ended() {
    let (server, at) = with_nodes(1);
    let list = http::get(at, "/api/v1/nodes").json();
    server.put_node(node("n1", "10.244.1.0/24"));
    let mut watch = watch(at, &format!("resourceVersion={}", version(&list)));
    assert_eq!(seen(&watch.event().unwrap()), ("ADDED", "n1"));
    server.patch_node("n0", json!({"metadata": {"labels": {"a": "b"}}}));
    let modified = watch.event().unwrap();
    assert_eq!((seen(&modified), &modified["object"]["kind"]), (("MODIFIED", "n0"), &json!("Node")));
    server.delete_node("n0");
    let deleted = watch.event().unwrap();
    assert_eq!(seen(&deleted), ("DELETED", "n0"));
    assert!(version(&deleted["object"]) > version(&modified["object"]), "a removal has a revision of its own");
}

#[test]
fn a_watch_from_nothing_begins_with_everything() {
    let (server, at) = with_nodes(2);
    for query in ["", "resourceVersion=0"] {
        let mut watch = watch(at, query);
        assert_eq!(seen(&watch.event().unwrap()), ("ADDED", "n0"));
        assert_eq!(seen(&watch.event().unwrap()), ("ADDED", "n1"));
        assert!(watch.is_quiet_for(Duration::from_millis(50)));
    }
    assert_eq!(server.count(Verb::Watch), 2);
}

#[test]
fn a_streaming_list_ends_with_its_bookmark() {
    let (server, at) = with_nodes(2);
    let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&resourceVersion=0";
    let mut watch = watch(at, query);
    assert_eq!(seen(&watch.event().unwrap()), ("ADDED", "n0"));
    assert_eq!(seen(&watch.event().unwrap()), ("ADDED", "n1"));
    let end = watch.event().unwrap();
    assert_eq!(end["type"], "BOOKMARK");
    assert_eq!(end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    server.put_node(node("n2", "10.244.2.0/24"));
    assert_eq!(seen(&watch.event().unwrap()), ("ADDED", "n2"));
    let refused = http::get(at, "/api/v1/nodes?watch=1&sendInitialEvents=true");
    assert_eq!(refused.status, 422, "without resourceVersionMatch");
    assert_eq!(server.count(Verb::StreamingList), 2);
}

#[test]
fn a_quiet_watch_gets_bookmarks_and_ends_in_time() {
    let (server, at) = with_nodes(1);
    server.bookmark_every(Duration::from_millis(20));
    let mut quiet = watch(at, "resourceVersion=2&allowWatchBookmarks=true");
    let bookmark = quiet.event().unwrap();
    assert_eq!((&bookmark["type"], version(&bookmark["object"])), (&json!("BOOKMARK"), "2"));
    let mut short = watch(at, "resourceVersion=2&timeoutSeconds=1");
    let begun = Instant::now();
    assert_eq!(short.event(), None, "no bookmark unless asked for");
    assert!(begun.elapsed() >= Duration::from_millis(900));
}

#[test]
fn a_watch_that_comes_too_late_is_told_so() {
    let (server, at) = with_nodes(3);
    let old = version(&http::get(at, "/api/v1/nodes").json()).to_owned();
    let mut live = watch(at, &format!("resourceVersion={old}"));
    server.compact();
    let mut late = watch(at, &format!("resourceVersion={old}"));
    let error = late.event().unwrap();
    assert_eq!(
        (&error["type"], &error["object"]["code"], &error["object"]["reason"]),
        (&json!("ERROR"), &json!(410), &json!("Expired"))
    );
    assert_eq!(late.event(), None);
    server.delete_node("n0");
    assert_eq!(seen(&live.event().unwrap()), ("DELETED", "n0"), "who missed nothing goes on");
}

#[test]
fn history_is_bounded() {
    let (server, at) = server();
    server.keep_history(2);
    for i in 0..4 {
        server.put_node(node(&format!("n{i}"), &format!("10.244.{i}.0/24")));
    }
    assert_eq!(seen(&watch(at, "resourceVersion=3").event().unwrap()), ("ADDED", "n2"));
    assert_eq!(watch(at, "resourceVersion=2").event().unwrap()["object"]["code"], 410);
}

#[test]
fn a_selector_turns_changes_into_comings_and_goings() {
    let (server, at) = with_nodes(2);
    let mut watch = watch(at, "resourceVersion=3&labelSelector=zone%3Da");
    server.patch_node("n1", json!({"metadata": {"labels": {"zone": "a"}}}));
    assert_eq!(seen(&watch.event().unwrap()), ("ADDED", "n1"));
    server.patch_node("n1", json!({"metadata": {"labels": {"zone": "b"}}}));
    assert_eq!(seen(&watch.event().unwrap()), ("DELETED", "n1"));
    assert_eq!(names(&http::get(at, "/api/v1/nodes?fieldSelector=metadata.name%3Dn0").json()), ["n0"]);
}

#[test]
fn an_object_keeps_its_identity_and_notes_who_wrote() {
    let (_server, at) = server();
    let body = node("a", "10.244.0.0/24").to_string();
    let made = http::request(at, "POST", "/api/v1/nodes?fieldManager=me", &[], &body);
    assert_eq!(made.status, 201);
    let made = made.json();
    assert_eq!((&made["kind"], &made["apiVersion"]), (&json!("Node"), &json!("v1")));
    assert_eq!(made["spec"]["podCIDRs"], json!(["10.244.0.0/24"]));
    assert_eq!(made["metadata"]["uid"].as_str().unwrap().len(), 36);
    assert_eq!(made["metadata"]["managedFields"][0]["manager"], "me");
    let patch = json!({"metadata": {"annotations": {"x": "y"}, "uid": "forged"}}).to_string();
    let patched =
        http::request(at, "PATCH", "/api/v1/nodes/a/status", &[MERGE, ("User-Agent", "flanneld/v1")], &patch).json();
    for own in ["uid", "creationTimestamp", "name"] {
        assert_eq!(patched["metadata"][own], made["metadata"][own]);
    }
    let managed = &patched["metadata"]["managedFields"][1];
    assert_eq!((&managed["manager"], &managed["subresource"]), (&json!("flanneld"), &json!("status")));
    assert_eq!(managed["fieldsV1"]["f:metadata"]["f:annotations"]["f:x"], json!({}));
    let again = http::request(at, "POST", "/api/v1/nodes", &[], &body);
    assert_eq!((again.status, &again.json()["reason"]), (409, &json!("AlreadyExists")));
}

#[test]
fn a_patch_that_changes_nothing_is_no_write() {
    let (server, at) = with_nodes(1);
    let patch = json!({"metadata": {"annotations": {"x": "y"}}}).to_string();
    let first = http::request(at, "PATCH", "/api/v1/nodes/n0", &[MERGE], &patch).json();
    let mut watch = watch(at, &format!("resourceVersion={}", version(&first)));
    let second = http::request(at, "PATCH", "/api/v1/nodes/n0", &[STRATEGIC], &patch).json();
    assert_eq!(first, second);
    assert!(watch.is_quiet_for(Duration::from_millis(50)));
    drop(server);
}

#[test]
fn status_and_spec_are_written_apart_and_metadata_through_both() {
    let (_server, at) = with_nodes(1);
    let patch = json!({
        "metadata": {"annotations": {"seen": "yes"}}, "spec": {"unschedulable": true},
        "status": {"conditions": [{"type": "NetworkUnavailable", "status": "False"}]},
    })
    .to_string();
    let node = http::request(at, "PATCH", "/api/v1/nodes/n0/status", &[STRATEGIC], &patch).json();
    assert_eq!(node["spec"]["unschedulable"], Value::Null);
    assert_eq!(node["status"]["conditions"][0]["status"], "False");
    assert_eq!(node["metadata"]["annotations"]["seen"], "yes");
    let patch = json!({"spec": {"unschedulable": true}, "status": {"conditions": null}}).to_string();
    let node = http::request(at, "PATCH", "/api/v1/nodes/n0", &[MERGE], &patch).json();
    assert_eq!(node["spec"]["unschedulable"], true);
    assert_eq!(node["status"]["conditions"][0]["status"], "False");
}

#[test]
fn what_a_real_server_refuses_is_refused() {
    let (_server, at) = with_nodes(1);
    let send = |method: &str, target: &str, header, body: Value| {
        http::request(at, method, target, &[header], &body.to_string()).status
    };
    let stale = json!({"metadata": {"resourceVersion": "1", "annotations": {"a": "b"}}});
    assert_eq!(send("PATCH", "/api/v1/nodes/n0", MERGE, stale.clone()), 409);
    let mut put = node("n0", "10.244.0.0/24");
    put["metadata"]["resourceVersion"] = json!("1");
    assert_eq!(send("PUT", "/api/v1/nodes/n0", MERGE, put), 409);
    assert_eq!(send("PATCH", "/api/v1/nodes/none", MERGE, json!({})), 404);
    assert_eq!(send("PATCH", "/api/v1/nodes/n0", MERGE, json!({"metadata": {"annotations": {"a": 1}}})), 400);
    assert_eq!(send("PATCH", "/api/v1/nodes/n0", ("Content-Type", "text/plain"), json!({})), 415);
    assert_eq!(send("PATCH", "/api/v1/nodes/n0", MERGE, json!({"spec": {"podCIDRs": ["10.244.7.0/24"]}})), 422);
    assert_eq!(send("POST", "/api/v1/nodes", MERGE, node("Not_A_Name", "10.244.7.0/24")), 422);
    assert_eq!(send("POST", "/api/v1/nodes", MERGE, json!("text")), 400);
    assert_eq!(send("DELETE", "/api/v1/nodes/n0", MERGE, json!({"preconditions": {"uid": "other"}})), 409);
    assert_eq!(send("POST", "/api/v1/nodes/n0", MERGE, json!({})), 405);
    assert_eq!(http::get(at, "/api/v1/secrets").status, 404);
}

#[test]
fn a_delete_names_what_is_gone() {
    let (server, at) = with_nodes(1);
    let uid = server.node("n0").unwrap()["metadata"]["uid"].clone();
    let gone = http::request(at, "DELETE", "/api/v1/nodes/n0", &[], "{}");
    assert_eq!((gone.status, &gone.json()["details"]["uid"]), (200, &uid));
    assert_eq!(http::get(at, "/api/v1/nodes/n0").status, 404);
    server.put_node(node("n0", "10.244.0.0/24"));
    assert_ne!(server.node("n0").unwrap()["metadata"]["uid"], uid, "a node made again is another");
}

#[test]
fn events_of_both_groups_are_one() {
    let (server, at) = server();
    let event = json!({"metadata": {"generateName": "a."}, "note": "hello", "reason": "Test", "type": "Normal",
                       "regarding": {"kind": "Node", "name": "a"}});
    let made = http::request(at, "POST", "/apis/events.k8s.io/v1/namespaces/default/events", &[], &event.to_string());
    assert_eq!(
        (made.status, &made.json()["note"], &made.json()["apiVersion"]),
        (201, &json!("hello"), &json!("events.k8s.io/v1"))
    );
    let list = http::get(at, "/api/v1/namespaces/default/events").json();
    assert_eq!(
        (&list["items"][0]["message"], &list["items"][0]["involvedObject"]["name"]),
        (&json!("hello"), &json!("a"))
    );
    assert_eq!(server.events().len(), 1);
    assert_eq!(http::get(at, "/api/v1/namespaces/other/events").json()["items"], json!([]));
}

#[test]
fn metadata_can_be_had_alone() {
    let (_server, at) = with_nodes(1);
    let accept = ("Accept", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");
    let list = http::request(at, "GET", "/api/v1/nodes", &[accept], "").json();
    assert_eq!(
        (&list["kind"], &list["items"][0]["kind"]),
        (&json!("PartialObjectMetadataList"), &json!("PartialObjectMetadata"))
    );
    assert_eq!((names(&list), &list["items"][0]["spec"]), (vec!["n0"], &Value::Null));
}

#[test]
fn faults_meet_their_kind_as_often_as_told() {
    let (server, at) = with_nodes(4);
    let refuse = |code, retry_after| Action::Refuse { code, retry_after };
    server.inject(&[Verb::List], refuse(429, Some(3)), Some(2));
    server.inject(&[Verb::Get], refuse(500, None), None);
    for _ in 0..2 {
        let answer = http::get(at, "/api/v1/nodes");
        assert_eq!((answer.status, answer.header("retry-after")), (429, Some("3")));
        assert_eq!(answer.json()["details"]["retryAfterSeconds"], 3);
    }
    assert_eq!(http::get(at, "/api/v1/nodes").status, 200);
    for _ in 0..3 {
        assert_eq!(http::get(at, "/api/v1/nodes/n0").status, 500);
    }
    server.clear_faults();
    assert_eq!(http::get(at, "/api/v1/nodes/n0").status, 200);
    assert_eq!(server.faults_fired(), 5);
    assert_eq!(server.count(Verb::List), 3);
    assert_eq!(server.log()[0].fault, Some(refuse(429, Some(3))));
}

#[test]
fn lists_can_come_back_broken() {
    let (server, at) = with_nodes(4);
    let broken = |action| {
        server.inject(&[Verb::List], action, Some(1));
        http::get(at, "/api/v1/nodes")
    };
    assert_eq!(names(&broken(Action::HalfList).json()), ["n0", "n2"]);
    assert_eq!(broken(Action::Undecodable).json()["items"][4]["metadata"], "this is no object");
    let cut = broken(Action::Truncate);
    assert!(cut.status == 200 && !cut.whole && !cut.body.is_empty());
    assert!(serde_json::from_slice::<Value>(&broken(Action::Garbage).body).is_err());
    server.inject(&[Verb::List], Action::Drop, Some(1));
    assert!(http::open(at, "GET", "/api/v1/nodes", &[], "").is_none());
    let begun = Instant::now();
    broken(Action::Delay(Duration::from_millis(100)));
    assert!(begun.elapsed() >= Duration::from_millis(100));
}

#[test]
fn a_request_can_hang_until_the_server_stops() {
    let (server, at) = with_nodes(1);
    server.inject(&[Verb::Get], Action::Hang, Some(1));
    let hung = std::thread::spawn(move || http::open(at, "GET", "/api/v1/nodes/n0", &[], "").is_none());
    while server.count(Verb::Get) == 0 {
        std::thread::yield_now();
    }
    server.stop();
    assert!(hung.join().unwrap(), "closed without an answer");
    assert!(std::net::TcpStream::connect(at).is_err(), "a stopped server refuses connections");
    server.resume(TcpListener::bind(at).unwrap()).unwrap();
    assert_eq!(names(&http::get(at, "/api/v1/nodes").json()), ["n0"], "what was stored is still there");
}

#[test]
fn watches_can_misbehave() {
    let (server, at) = with_nodes(1);
    let faulty = |action, query: &str| {
        server.inject(&[Verb::Watch, Verb::StreamingList], action, Some(1));
        watch(at, query)
    };
    assert_eq!(faulty(Action::EndWatch, "resourceVersion=2").event(), None);
    assert_eq!(faulty(Action::ExpiredWatch, "resourceVersion=2").event().unwrap()["object"]["code"], 410);
    assert!(faulty(Action::GarbageLine, "resourceVersion=2").event().unwrap().is_string());
    assert_eq!(faulty(Action::Undecodable, "resourceVersion=2").event().unwrap()["object"]["spec"], json!([1, 2, 3]));
    let streaming = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut old = faulty(Action::IgnoreStreaming, streaming);
    assert_eq!(seen(&old.event().unwrap()), ("ADDED", "n0"));
    assert!(old.is_quiet_for(Duration::from_millis(50)), "no bookmark ends it");
    let mut mute = faulty(Action::MuteWatch, "resourceVersion=0");
    server.put_node(node("n1", "10.244.1.0/24"));
    assert!(mute.is_quiet_for(Duration::from_millis(50)));
    server.inject(&[Verb::StreamingList], Action::RefuseStreaming, Some(1));
    assert_eq!(http::get(at, &format!("/api/v1/nodes?watch=1&{streaming}")).status, 422);
    let mut open = watch(at, "resourceVersion=3");
    server.close_watches();
    assert_eq!(open.event(), None);
}

// === kubectl ===

/// Runs kubectl with a home of its own; `None`, loudly, if it is not installed (an error in CI).
fn kubectl(server: &ApiServer, home: &std::path::Path, args: &[&str]) -> Option<String> {
    let output = Command::new("kubectl")
        .args(["--server", &server.url(), "--cache-dir"])
        .arg(home)
        .args(args)
        .env("HOME", home)
        .env_remove("KUBECONFIG")
        .output();
    match output {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "kubectl {args:?}: {text} {}", String::from_utf8_lossy(&output.stderr));
            Some(text)
        }
        Err(error) if std::env::var_os("CI").is_some_and(|ci| ci == "true") => panic!("kubectl: {error}"),
        Err(error) => {
            eprintln!("SKIPPED: kubectl cannot be run ({error})");
            None
        }
    }
}

#[test]
fn kubectl_finds_a_server_it_knows() {
    let (server, _) = with_nodes(2);
    let home = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| kubectl(&server, home.path(), args);
    let Some(version) = run(&["version"]) else { return };
    assert!(version.contains("weft-lab"), "{version}");
    let patch = r#"{"status":{"conditions":[{"type":"Ready","status":"True"}],"addresses":[{"type":"InternalIP","address":"192.168.174.10"}]}}"#;
    run(&["patch", "node", "n0", "--subresource", "status", "-p", patch]);
    let wide = run(&["get", "nodes", "-o", "wide"]).unwrap();
    let first: Vec<&str> = wide.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!((first[0], first[1], first[2]), ("n0", "Ready", "<none>"), "{wide}");
    assert!(wide.contains("INTERNAL-IP") && wide.contains("192.168.174.10"), "{wide}");
    run(&["annotate", "node", "n0", "flannel.alpha.coreos.com/public-ip=192.168.174.10"]);
    run(&["label", "node", "n0", "zone=a"]);
    let yaml = run(&["get", "nodes", "-o", "yaml"]).unwrap();
    assert!(yaml.contains("flannel.alpha.coreos.com/public-ip: 192.168.174.10"), "{yaml}");
    let json: Value = serde_json::from_str(&run(&["get", "nodes", "-l", "zone=a", "-o", "json"]).unwrap()).unwrap();
    assert_eq!(names(&json), ["n0"]);
    std::fs::write(home.path().join("n.json"), r#"{"kind":"Node","apiVersion":"v1","metadata":{"name":"new"}}"#)
        .unwrap();
    run(&["create", "-f", home.path().join("n.json").to_str().unwrap()]);
    run(&["taint", "node", "new", "a=b:NoSchedule"]);
    run(&["cordon", "new"]);
    assert_eq!(server.node("new").unwrap()["spec"]["unschedulable"], true);
    run(&["delete", "node", "new"]);
    assert!(server.node("new").is_none());
    run(&["describe", "node", "n0"]);
    run(&["get", "events", "-A"]);
}

#[test]
fn kubectl_watches() {
    use std::io::{BufRead, BufReader};
    let (server, _) = with_nodes(1);
    let home = tempfile::tempdir().unwrap();
    if kubectl(&server, home.path(), &["get", "nodes"]).is_none() {
        return;
    }
    let mut child = Command::new("kubectl")
        .args(["--server", &server.url(), "get", "nodes", "-w", "--no-headers"])
        .env("HOME", home.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("n0 "));
    while server.count(Verb::Watch) == 0 {
        std::thread::yield_now();
    }
    server.put_node(node("n1", "10.244.1.0/24"));
    assert!(lines.next().unwrap().unwrap().starts_with("n1 "));
    child.kill().unwrap();
    child.wait().unwrap();
}
