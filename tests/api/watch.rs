//! The list-watch loop on the API server's bad days: nothing is taken away wrongly, no request is
//! repeated hot, and when the day is over the loop goes on by itself.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::json;
use weft::cluster::annotations::{DEFAULT_PREFIX, Keys};
use weft::cluster::announce::{Place, decide, send};
use weft::cluster::problem::{Class, Problem};
use weft::cluster::timing::Timing;
use weft::lab::apiserver::{Action, ApiServer, Verb};
use weft::model::addr::{ByFamily, Vni};
use weft::model::node::{Snapshot, Standing};

use crate::rig::{ASKS, OWN, Rig, client, node, server, timing};

/// How long a bad day lasts.
const BAD_DAY: Duration = Duration::from_secs(1);

/// The most requests that a loop may make in a bad day. It waits 20 to 200 ms, doubling, each cut by
/// up to half: 5 in the first 310 ms at the most, then one each 100 ms; each of those may be two (a
/// streaming list, and the pages in its place).
const MOST: usize = 2 * (6 + 10) + 4;

fn refuse(code: u16) -> Action {
    Action::Refuse { code, retry_after: None }
}

fn names(snapshot: &Snapshot) -> Vec<String> {
    snapshot.nodes.keys().map(ToString::to_string).collect()
}

fn mac(snapshot: &Snapshot, name: &str) -> Option<String> {
    match &snapshot.nodes.get(name)?.standing.v4 {
        Standing::Usable(peer) => peer.mac.map(|mac| mac.to_string()),
        _ => None,
    }
}

/// Spoils every request for a while; then the loop must know what changed meanwhile.
async fn a_bad_day(action: Action) {
    let rig = Rig::with(8).await;
    let before = rig.now();
    rig.server.clear_log();
    rig.server.inject(&ASKS, action.clone(), None);
    rig.server.close_watches();
    rig.until_true("the fault", || rig.server.faults_fired() > 0).await;

    let mut snapshots = rig.handle.snapshots();
    snapshots.mark_unchanged();
    rig.server.delete_node("n3");
    rig.server.patch_node("n4", json!({ "spec": { "podCIDR": "10.99.4.0/24", "podCIDRs": ["10.99.4.0/24"] } }));
    let day = tokio::time::sleep(BAD_DAY);
    tokio::pin!(day);
    // Only what really happened may be seen on a bad day.
    loop {
        tokio::select! {
            () = &mut day => break,
            changed = snapshots.changed() => changed.unwrap(),
        }
        let seen = snapshots.borrow_and_update().clone();
        for name in names(&before).iter().filter(|name| *name != "n3") {
            assert!(seen.nodes.contains_key(name.as_str()), "{action:?}: {name} was lost: {:?}", rig.log());
        }
        assert!(seen.own.is_some(), "{action:?}");
    }
    let requests = rig.requests();
    assert!(requests <= MOST, "{action:?}: {requests} requests: {:#?}", rig.log());
    assert!(requests >= 1, "{action:?}: it tries again");

    rig.server.clear_faults();
    rig.server.put_node(node("late", 77));
    let snapshot = rig
        .until("the world as it is now", |snapshot| {
            let moved =
                snapshot.nodes.get("n4").is_some_and(|node| format!("{:?}", node.standing.v4).contains("10.99.4.0"));
            snapshot.nodes.contains_key("late") && !snapshot.nodes.contains_key("n3") && moved
        })
        .await;
    assert_eq!(snapshot.nodes.len(), 8);
}

macro_rules! bad_days {
    ($($name:ident: $action:expr;)*) => {
        $(#[tokio::test]
        async fn $name() {
            a_bad_day($action).await;
        })*
    };
}

bad_days! {
    a_day_of_400_is_survived: refuse(400);
    a_day_of_401_is_survived: refuse(401);
    a_day_of_403_is_survived: refuse(403);
    a_day_of_404_is_survived: refuse(404);
    a_day_of_410_is_survived: refuse(410);
    a_day_of_422_is_survived: refuse(422);
    a_day_of_429_is_survived: refuse(429);
    a_day_of_500_is_survived: refuse(500);
    a_day_of_503_is_survived: refuse(503);
    a_day_of_504_is_survived: refuse(504);
    a_day_of_garbage_is_survived: Action::Garbage;
    a_day_of_half_answers_is_survived: Action::Truncate;
    a_day_of_silence_is_survived: Action::Hang;
    a_day_of_dropped_connections_is_survived: Action::Drop;
    a_day_of_watches_that_end_at_once_is_survived: Action::EndWatch;
    a_day_of_watches_that_say_nothing_is_survived: Action::MuteWatch;
    a_day_of_watches_that_begin_with_garbage_is_survived: Action::GarbageLine;
    a_day_of_watches_that_have_expired_is_survived: Action::ExpiredWatch;
    a_day_of_objects_that_are_no_nodes_is_survived: Action::Undecodable;
    a_day_without_streaming_lists_is_survived: Action::RefuseStreaming;
    a_day_of_overlooked_streaming_lists_is_survived: Action::IgnoreStreaming;
    a_slow_day_is_survived: Action::Delay(Duration::from_millis(100));
}

#[tokio::test]
async fn each_problem_is_counted_in_its_class() {
    let cases = [
        (refuse(410), Class::Gone),
        (refuse(429), Class::Throttled),
        (refuse(403), Class::Forbidden),
        (refuse(500), Class::Server),
        (Action::Garbage, Class::Garbage),
        (Action::GarbageLine, Class::Garbage),
        (Action::ExpiredWatch, Class::Gone),
        (Action::Hang, Class::Timeout),
        (Action::Drop, Class::Unreachable),
        (Action::EndWatch, Class::Closed),
    ];
    let rig = Rig::with(3).await;
    for (action, class) in cases {
        let before = rig.problems(class);
        // The loop may be waiting, or listing: the fault meets the next watch that it starts.
        rig.server.inject(&[Verb::Watch], action.clone(), Some(1));
        rig.server.close_watches();
        rig.until_true(&format!("{action:?} as {class:?}"), || rig.problems(class) > before).await;
    }
    rig.server.put_node(node("late", 77));
    rig.until("recovery", |snapshot| snapshot.nodes.contains_key("late")).await;
    rig.until_true("the end of trouble", || rig.handle.counters().failing_since().is_none()).await;
}

#[tokio::test]
async fn a_server_that_is_away_at_the_start_is_waited_for() {
    let server = server(2);
    let url = server.url();
    let address = server.address().unwrap();
    server.stop();
    let rig = Rig::watching_at(server, &url).await;
    rig.until_true("some attempts", || rig.problems(Class::Unreachable) >= 4).await;
    assert!(!rig.now().complete && rig.handle.counters().failing_since().is_some());
    rig.server.resume(TcpListener::bind(address).unwrap()).unwrap();
    rig.until("the list", |snapshot| snapshot.complete && snapshot.nodes.len() == 2 && snapshot.own.is_some()).await;
}

#[tokio::test]
async fn a_server_that_is_away_for_long_takes_nothing_away() {
    let rig = Rig::with(5).await;
    let address = rig.server.address().unwrap();
    rig.server.stop();
    let before = rig.problems(Class::Unreachable);
    rig.until_true("attempts", || rig.problems(Class::Unreachable) >= before + 4).await;
    assert_eq!(rig.now().nodes.len(), 5);
    rig.server.delete_node("n0");
    rig.server.put_node(node("late", 77));
    rig.server.compact();
    rig.server.resume(TcpListener::bind(address).unwrap()).unwrap();
    let snapshot = rig.until("what happened", |snapshot| snapshot.nodes.contains_key("late")).await;
    assert_eq!(names(&snapshot), ["late", "n1", "n2", "n3", "n4"]);
    assert!(rig.problems(Class::Gone) >= 1, "it went by way of a 410: {:?}", rig.log());
}

#[tokio::test]
async fn nodes_are_kept_until_the_list_after_a_410_is_whole() {
    let rig = Rig::with(8).await;
    rig.server.inject(&[Verb::StreamingList], Action::RefuseStreaming, None);
    // Three lists break off on their second page before one comes through.
    rig.server.inject(&[Verb::Continue], Action::Truncate, Some(3));
    rig.server.inject(&[Verb::Watch], Action::ExpiredWatch, Some(1));
    let mut snapshots = rig.handle.snapshots();
    snapshots.mark_unchanged();
    rig.server.delete_node("n7");
    rig.server.compact();
    rig.server.close_watches();
    let lists = rig.now().lists;
    loop {
        let changed = tokio::time::timeout(Duration::from_secs(30), snapshots.changed()).await;
        changed.unwrap_or_else(|_| panic!("no list came through: {:?}", rig.log())).unwrap();
        let seen = snapshots.borrow_and_update().clone();
        assert!(seen.nodes.len() >= 7, "{:?}", names(&seen));
        if seen.lists > lists {
            assert_eq!(seen.nodes.len(), 7);
            break;
        }
    }
    assert!(rig.server.count(Verb::Continue) >= 4, "{:?}", rig.log());
}

#[tokio::test]
async fn changes_of_every_kind_are_seen() {
    let rig = Rig::with(3).await;
    rig.server.put_node(node("new", 9));
    rig.until("a new node", |snapshot| snapshot.nodes.contains_key("new")).await;
    let data = json!({ "metadata": { "annotations": {
        "flannel.alpha.coreos.com/backend-data": "{\"VNI\":1,\"VtepMAC\":\"02:aa:bb:cc:dd:ee\"}" } } });
    rig.server.patch_node("n1", data.clone());
    rig.until("another MAC", |snapshot| mac(snapshot, "n1").as_deref() == Some("02:aa:bb:cc:dd:ee")).await;
    rig.server.delete_node("n2");
    rig.until("a node less", |snapshot| !snapshot.nodes.contains_key("n2")).await;
    rig.server.patch_node(OWN, data);
    let mac = "02:aa:bb:cc:dd:ee".parse().ok();
    rig.until("our own", |snapshot| snapshot.own.as_ref().is_some_and(|own| own.annotated_mac.v4 == mac)).await;
    rig.server.delete_node(OWN);
    rig.until("our own gone", |snapshot| snapshot.own.is_none()).await;
}

#[tokio::test]
async fn a_change_that_does_not_matter_is_no_change() {
    let rig = Rig::with(3).await;
    let before = rig.now();
    let events = rig.handle.counters().events();
    for beat in 0..20 {
        rig.server
            .patch_node("n1", json!({ "status": { "conditions": [{ "type": "Ready", "lastHeartbeatTime": beat }] } }));
    }
    rig.until_true("the events", || rig.handle.counters().events() >= events + 20).await;
    assert_eq!(rig.now().generation, before.generation);
}

#[tokio::test]
async fn a_list_that_is_asked_for_comes_although_nothing_changed() {
    let rig = Rig::with(4).await;
    let before = rig.now();
    rig.handle.request_list();
    let after = rig.until("one more list", |snapshot| snapshot.lists > before.lists).await;
    assert_eq!((after.generation, &after.nodes), (before.generation, &before.nodes));
    rig.server.put_node(node("late", 77));
    rig.until("the watch goes on", |snapshot| snapshot.nodes.contains_key("late")).await;
}

#[tokio::test]
async fn lists_that_are_asked_for_without_end_keep_their_distance() {
    let rig = Rig::with(4).await;
    rig.server.clear_log();
    let begin = std::time::Instant::now();
    while begin.elapsed() < Duration::from_secs(1) {
        rig.handle.request_list();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let least = timing().between_lists.as_millis();
    let most = usize::try_from(begin.elapsed().as_millis() / least).unwrap() + 2;
    let lists = rig.server.count(Verb::StreamingList);
    assert!((2..=most).contains(&lists), "{lists} lists, at most {most}");
}

/// How long after each of some moments a list begins, if it may take up to two seconds.
async fn delays(moment: impl Fn(&Rig)) -> Vec<Duration> {
    const SPREAD: Duration = Duration::from_secs(2);
    let server = server(2);
    let url = server.url();
    let rig = Rig::timed(server, &url, Timing { spread: SPREAD, ..timing() }).await;
    rig.until("the first list", |snapshot| snapshot.complete).await;
    let mut delays = Vec::new();
    for _ in 0..5 {
        let lists = rig.server.count(Verb::StreamingList);
        let begin = std::time::Instant::now();
        moment(&rig);
        rig.until_true("a list", || rig.server.count(Verb::StreamingList) > lists).await;
        delays.push(begin.elapsed());
        rig.until_true("a watch", || rig.handle.counters().lists() > lists as u64).await;
    }
    delays
}

#[tokio::test]
async fn a_list_that_every_agent_needs_at_once_begins_when_chance_will() {
    // The whole cluster asks for one when many Nodes are gone, and needs one when history is lost.
    let asked = delays(|rig| rig.handle.request_list()).await;
    let lost = delays(|rig| {
        rig.server.compact();
        rig.server.close_watches();
    })
    .await;
    for delays in [asked, lost] {
        // That five rolls of the dice are all below a tenth happens once in 100,000 runs.
        assert!(delays.iter().any(|delay| *delay > Duration::from_millis(200)), "{delays:?}");
    }
}

#[tokio::test]
async fn half_a_list_that_looks_whole_is_found_out_by_the_next() {
    let rig = Rig::with(8).await;
    rig.server.inject(&[Verb::StreamingList], Action::RefuseStreaming, None);
    rig.server.inject(&[Verb::List, Verb::Continue], Action::HalfList, Some(4));
    rig.handle.request_list();
    let half = rig.until("half a list", |snapshot| snapshot.nodes.len() < 8).await;
    rig.server.clear_faults();
    rig.handle.request_list();
    let whole = rig.until("a whole list", |snapshot| snapshot.lists > half.lists && snapshot.nodes.len() == 8).await;
    assert!(whole.generation > half.generation);
}

#[tokio::test]
async fn a_streaming_list_needs_one_request_and_no_list() {
    let rig = Rig::with(8).await;
    assert_eq!((rig.server.count(Verb::StreamingList), rig.server.count(Verb::List)), (1, 0), "{:?}", rig.log());
}

#[tokio::test]
async fn a_server_without_streaming_lists_is_asked_for_one_only_once() {
    for fault in [Action::RefuseStreaming, Action::IgnoreStreaming, refuse(400), refuse(403), refuse(404)] {
        let server = server(8);
        server.inject(&[Verb::StreamingList], fault.clone(), None);
        let rig = Rig::watching(server).await;
        rig.until("the list in pages", |snapshot| snapshot.complete && snapshot.nodes.len() == 8).await;
        for _ in 0..3 {
            let lists = rig.now().lists;
            rig.handle.request_list();
            rig.until("one more list", |snapshot| snapshot.lists > lists).await;
        }
        assert_eq!(rig.server.count(Verb::StreamingList), 1, "{fault:?}: {:?}", rig.log());
        assert_eq!(rig.server.count(Verb::List), 4, "{fault:?}: {:?}", rig.log());
        assert_eq!(rig.server.count(Verb::Continue), 8, "nine nodes, three to a page: {:?}", rig.log());
    }
}

#[tokio::test]
async fn a_bad_hour_does_not_end_streaming_lists_for_ever() {
    let server = server(2);
    server.inject(&ASKS, refuse(403), Some(4));
    let rig = Rig::watching(server).await;
    rig.until("the list", |snapshot| snapshot.complete).await;
    assert_eq!(rig.server.log().last().map(|last| last.verb), Some(Verb::StreamingList), "{:?}", rig.log());
}

#[tokio::test]
async fn a_server_that_asks_to_be_left_alone_is() {
    let rig = Rig::with(2).await;
    rig.server.clear_log();
    rig.server.inject(&ASKS, Action::Refuse { code: 429, retry_after: Some(1) }, Some(1));
    rig.server.close_watches();
    rig.until_true("two requests", || rig.requests() >= 2).await;
    let log = rig.server.log();
    let gap = log[1].at.saturating_sub(log[0].at);
    assert!(gap >= Duration::from_secs(1), "{gap:?}");
}

#[tokio::test]
async fn a_revision_that_the_server_does_not_have_is_found_out() {
    let rig = Rig::with(4).await;
    // etcd is restored from a backup: revisions start over, and a watch from the old one is silent.
    let address = rig.server.address().unwrap();
    rig.server.stop();
    let restored = ApiServer::start(TcpListener::bind(address).unwrap()).unwrap();
    restored.put_node(node("restored", 1));
    rig.until("the restored list", |snapshot| names(snapshot) == ["restored"]).await;
}

#[tokio::test]
async fn a_watch_that_never_says_anything_is_not_believed() {
    let rig = Rig::with(4).await;
    rig.server.inject(&[Verb::StreamingList], Action::RefuseStreaming, None);
    rig.server.inject(&[Verb::Watch], Action::MuteWatch, None);
    rig.server.close_watches();
    rig.until_true("a mute watch", || rig.server.count(Verb::Watch) > 0).await;
    rig.server.put_node(node("late", 77));
    rig.until("the node that no watch told of", |snapshot| snapshot.nodes.contains_key("late")).await;
}

#[tokio::test]
async fn a_connection_that_dies_after_a_streaming_list_is_noticed_as_one_without_bookmarks() {
    let server = server(4);
    server.bookmark_every(Duration::from_secs(3600));
    let url = server.url();
    let rig = Rig::timed(server, &url, Timing { watch: Duration::from_secs(3600), ..timing() }).await;
    rig.until("the first list", |snapshot| snapshot.complete).await;
    rig.until_true("the silence", || rig.problems(Class::Timeout) > 0).await;
    assert_eq!(rig.server.count(Verb::StreamingList), 1, "{:?}", rig.log());
}

#[tokio::test]
async fn a_burst_of_changes_ends_in_the_right_place() {
    let rig = Rig::with(2).await;
    let before = rig.now().generation;
    for round in 0..5 {
        for i in 0..200 {
            rig.server.put_node(node(&format!("b{i}"), i + round));
        }
    }
    let last = format!("02:00:00:00:00:{:02x}", 199 + 4);
    let snapshot = rig.until("the last", |snapshot| mac(snapshot, "b199").as_deref() == Some(&last)).await;
    assert_eq!(snapshot.nodes.len(), 202);
    assert!(snapshot.generation > before);
}

#[tokio::test]
async fn our_announcement_reaches_the_node_and_comes_back() {
    let server = server(0);
    server.delete_node(OWN);
    server.put_node(json!({ "metadata": { "name": OWN }, "spec": { "podCIDR": "10.244.9.0/24" } }));
    let rig = Rig::watching(server).await;
    let keys = Keys::new(DEFAULT_PREFIX).unwrap();
    let client = client(&rig.server.url()).await;
    let vni = Vni::new(1).unwrap();
    let vtep = Some((vni, "3a:1f:00:00:00:09".parse().unwrap()));
    let vtep = Place { vtep, public_ip: "192.168.1.9".parse().unwrap() };
    let vteps = ByFamily { v4: Some(vtep), v6: None };
    let own = rig.until("our node", |snapshot| snapshot.own.is_some()).await.own.clone().unwrap();
    let patch = decide(&keys, &vteps, &own).unwrap();
    let patience = Duration::from_secs(10);
    let stored = send(&client, &keys, &OWN.into(), patch.body(), patience).await.unwrap();
    assert_eq!(decide(&keys, &vteps, &stored), None, "the answer has it, before the watch");
    let done = |snapshot: &Snapshot| snapshot.own.as_ref().is_some_and(|own| decide(&keys, &vteps, own).is_none());
    rig.until("our announcement", done).await;
    let request = rig.server.log().into_iter().find(|request| request.verb == Verb::Patch).unwrap();
    assert_eq!((request.path.as_str(), request.method.as_str()), ("/api/v1/nodes/self/status", "PATCH"));

    rig.server.inject(&[Verb::Patch], refuse(403), Some(1));
    let error = send(&client, &keys, &OWN.into(), patch.body(), patience).await.unwrap_err();
    assert!(error.to_string().contains("nodes/status patch"), "{error}");
    rig.server.inject(&[Verb::Patch], Action::Hang, Some(1));
    let error = send(&client, &keys, &OWN.into(), patch.body(), Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(error, Problem::Timeout { .. }), "{error}");
}

/// What `/healthz` goes by: a hung server is no hung loop.
#[tokio::test]
async fn whatever_the_server_does_the_loop_goes_round() {
    let rig = Rig::with(2).await;
    let stepped = || rig.handle.counters().stepped();
    for action in [
        Action::Hang,
        Action::MuteWatch,
        Action::Drop,
        Action::EndWatch,
        Action::Truncate,
        Action::Refuse { code: 429, retry_after: None },
    ] {
        rig.server.inject(&ASKS, action.clone(), None);
        rig.server.close_watches();
        for _ in 0..3 {
            let before = stepped();
            rig.until_true(&format!("a step under {action:?}"), || stepped() > before).await;
        }
        rig.server.clear_faults();
    }
}
