//! What only the lab's server does: it breaks its promises when told to, and counts who asked.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weft::lab::apiserver::{Action, ApiServer, Verb};

use crate::http;
use crate::server::{lab, names, node, seen, watch};

/// A server with nodes n0, n1, ...
fn with_nodes(count: usize) -> (ApiServer, SocketAddr) {
    let (server, at) = lab();
    for i in 0..count {
        server.put_node(node(&format!("n{i}"), &format!("10.244.{i}.0/24")));
    }
    (server, at)
}

#[test]
fn requests_are_counted_by_their_kind() {
    let (server, at) = with_nodes(1);
    let streaming = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let _watches = [watch(at, ""), watch(at, "resourceVersion=0"), watch(at, streaming)];
    http::get(at, "/api/v1/nodes");
    let counted = [Verb::Watch, Verb::StreamingList, Verb::List, Verb::Get].map(|verb| server.count(verb));
    assert_eq!(counted, [2, 1, 1, 0]);
    assert_eq!(http::get(at, "/api/v1/secrets").status, 404, "it has nothing but Nodes and Events");
}

#[test]
fn bookmarks_come_as_often_as_told() {
    let (server, at) = with_nodes(1);
    server.bookmark_every(Duration::from_millis(20));
    let mut quiet = watch(at, "resourceVersion=1&allowWatchBookmarks=true");
    assert_eq!(quiet.event().unwrap()["type"], "ADDED");
    for _ in 0..3 {
        let bookmark = quiet.event().unwrap();
        assert_eq!(
            (&bookmark["type"], &bookmark["object"]["metadata"]["resourceVersion"]),
            (&json!("BOOKMARK"), &json!("2"))
        );
    }
}

#[test]
fn history_is_bounded() {
    let (server, at) = lab();
    server.keep_history(2);
    for i in 0..4 {
        server.put_node(node(&format!("n{i}"), &format!("10.244.{i}.0/24")));
    }
    assert_eq!(seen(&watch(at, "resourceVersion=3").event().unwrap()), ("ADDED", "n2"));
    assert_eq!(watch(at, "resourceVersion=2").event().unwrap()["object"]["code"], 410);
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
