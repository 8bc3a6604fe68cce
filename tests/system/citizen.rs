//! What the agent tells Kubernetes of its node beside its annotations, and how it ends.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use weft::lab::apiserver::{Action, Verb};

use crate::cluster::{OWN, bare, network_unavailable};
use crate::sandbox::sh;
use crate::stage::{SOON, annotate, difference, kernel, port, rows_of};
use crate::world::{UNDERLAY, World, add_default_routes, within};

crate::tests![
    the_condition_follows_readiness_and_is_kept,
    a_condition_that_the_api_server_does_not_take_is_tried_again,
    who_keeps_setting_the_condition_is_answered_ever_more_rarely,
    a_watch_that_shows_nothing_is_no_rival,
    turned_off_the_condition_is_left_alone,
    what_a_person_must_act_on_is_an_event_of_our_node,
    a_fight_and_a_node_that_cannot_receive_are_events,
    events_that_are_not_taken_disturb_nothing,
    an_api_server_that_hangs_is_no_loop_that_hangs,
    a_loop_that_hangs_is_no_longer_alive,
    an_api_server_away_later_makes_no_node_unready,
    sigterm_ends_at_once_whatever_hangs,
];

const PEERS: u32 = 8;

fn condition(world: &World) -> Option<Value> {
    network_unavailable(&world.api.node(OWN)?)
}

fn until_condition(world: &World, status: &str) -> Value {
    within(SOON, "the condition", || match condition(world) {
        Some(is) if is["status"] == status && is["reason"] == "WeftIsUp" => Ok(is),
        other => Err(other),
    })
}

/// As a cloud controller manager does it.
fn set_condition(world: &World, to: Option<Value>) {
    let mut node = world.api.node(OWN).expect("our Node");
    let conditions = node["status"]["conditions"].as_array_mut().expect("conditions");
    conditions.retain(|condition| condition["type"] != "NetworkUnavailable");
    conditions.extend(to);
    world.api.put_node(node);
}

fn unavailable() -> Value {
    json!({ "type": "NetworkUnavailable", "status": "True", "reason": "NoRouteCreated", "message": "no route",
            "lastTransitionTime": "2020-01-01T00:00:00Z", "lastHeartbeatTime": "2020-01-01T00:00:00Z" })
}

fn the_condition_follows_readiness_and_is_kept() {
    let mut world = World::with_peers(PEERS);
    set_condition(&world, Some(unavailable()));
    // Without its pod CIDR the node cannot be ready.
    world.api.patch_node(OWN, json!({ "spec": { "podCIDR": null, "podCIDRs": null } }));
    world.spawn();
    within(SOON, "weft waits", || {
        let log = world.agent().log();
        log.iter().any(|line| line.contains("has no ipv4 pod CIDR yet")).then_some(()).ok_or(log)
    });
    assert_eq!(condition(&world), Some(unavailable()), "nothing is said before the node is ready");
    world.api.patch_node(OWN, json!({ "spec": bare(0)["spec"] }));
    let set = until_condition(&world, "False");
    assert_eq!(world.agent().readyz(), Some(200));
    difference(&kernel(), &rows_of(1..=PEERS)).expect("every row is there before the condition");
    for time in ["lastTransitionTime", "lastHeartbeatTime"] {
        assert!(set[time].as_str().is_some_and(|text| text > "2026" && text.ends_with('Z')), "{set}");
    }
    let node = world.api.node(OWN).expect("our Node");
    let ready = node["status"]["conditions"].as_array().expect("conditions").iter().any(|it| it["type"] == "Ready");
    assert!(ready, "other people's conditions are theirs: {node:#}");
    // Somebody sets it, or takes it away.
    for other in [Some(unavailable()), None] {
        set_condition(&world, other);
        until_condition(&world, "False");
    }
    // flanneld says the same in other words: the moment of the transition stays.
    let flannels = json!({ "type": "NetworkUnavailable", "status": "False", "reason": "FlannelIsUp",
        "message": "Flannel is running on this node", "lastTransitionTime": "2020-01-01T00:00:00Z" });
    set_condition(&world, Some(flannels));
    assert_eq!(until_condition(&world, "False")["lastTransitionTime"], "2020-01-01T00:00:00Z");
    // Then it stands, and costs nothing.
    world.api.clear_log();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(world.api.count(Verb::Patch), 0);
    assert_eq!(world.agent().metrics().count("weft_condition_patches_total", &[]), 4);
}

fn a_condition_that_the_api_server_does_not_take_is_tried_again() {
    let mut world = World::with_peers(1);
    world.start();
    for action in [
        Action::Refuse { code: 500, retry_after: None },
        Action::Refuse { code: 429, retry_after: Some(1) },
        Action::Refuse { code: 409, retry_after: None },
        Action::Drop,
        Action::Truncate,
    ] {
        world.api.inject(&[Verb::Patch], action.clone(), Some(2));
        let fired = world.api.faults_fired();
        set_condition(&world, Some(unavailable()));
        until_condition(&world, "False");
        assert!(world.api.faults_fired() > fired, "{action:?} never came");
        world.api.clear_faults();
        assert_eq!(world.agent().readyz(), Some(200), "a node is no worse for it");
    }
    assert!(world.agent().metrics().count("weft_condition_failures_total", &[]) >= 5);
}

fn who_keeps_setting_the_condition_is_answered_ever_more_rarely() {
    let mut world = World::with_peers(1);
    world.start();
    world.api.clear_log();
    let end = Instant::now() + Duration::from_secs(16);
    while Instant::now() < end {
        if condition(&world).is_some_and(|is| is["status"] == "False") {
            set_condition(&world, Some(unavailable()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let patches = world.api.count(Verb::Patch);
    assert!((3..=10).contains(&patches), "{patches} patches in 16 s");
}

fn a_watch_that_shows_nothing_is_no_rival() {
    let mut world = World::with_peers(1);
    world.api.inject(&[Verb::StreamingList], Action::RefuseStreaming, None);
    world.api.inject(&[Verb::Watch], Action::MuteWatch, None);
    world.spawn().until_ready();
    until_condition(&world, "False");
    // Longer than it takes to call five patches a fight.
    let end = Instant::now() + Duration::from_secs(12);
    while Instant::now() < end {
        assert_eq!(world.agent().readyz(), Some(200), "the API server has our annotations: {:?}", world.agent().log());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(world.api.count(Verb::Patch), 2, "annotations and condition, once each");
    // What is new is said, whatever the watch shows.
    sh(&format!("ip address del 172.16.0.1/16 dev {UNDERLAY}\nip address add 172.16.0.9/16 dev {UNDERLAY}"));
    add_default_routes();
    within(SOON, "the new address", || match world.own_annotation("public-ip").as_deref() {
        Some("172.16.0.9") => Ok(()),
        other => Err(other.map(str::to_owned)),
    });
    assert!(!world.agent().log().iter().any(|line| line.contains("once more")), "{:?}", world.agent().log());
    assert!(!world.agent().log().iter().any(|line| line.contains("somebody keeps writing")));
}

fn turned_off_the_condition_is_left_alone() {
    let mut world = World::with_peers(1);
    set_condition(&world, Some(unavailable()));
    world.arguments = vec!["--set-node-network-unavailable=false".to_owned()];
    world.spawn().until_ready();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(condition(&world), Some(unavailable()));
}

/// Our Events: reason, type, message, count.
fn events(world: &World) -> Vec<(String, String, String, u64)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let event = |event: Value| {
        assert_eq!(event["involvedObject"], json!({ "kind": "Node", "name": OWN, "uid": OWN }));
        assert_eq!(event["source"], json!({ "component": "weft", "host": OWN }));
        let count = event["count"].as_u64().expect("a count");
        (text(&event["reason"]), text(&event["type"]), text(&event["message"]), count)
    };
    world.api.events().into_iter().map(event).collect()
}

/// Waits for one of this reason whose message says this; its count.
fn until_event(world: &World, reason: &str, kind: &str, says: &str) -> u64 {
    within(SOON, &format!("{reason}: {says}"), || {
        let all = events(world);
        let found = all.iter().find(|(is, of, message, _)| is == reason && of == kind && message.contains(says));
        found.map(|(_, _, _, count)| *count).ok_or(all)
    })
}

fn what_a_person_must_act_on_is_an_event_of_our_node() {
    let mut world = World::with_peers(4);
    // Three agents can tell of node-1: its usable peers and ours. All do.
    world.api.patch_node("node-1", annotate("backend-data", "nonsense"));
    world.api.patch_node("node-1", annotate("backend-v6-data", "nonsense"));
    let peer = crate::cluster::name;
    world.api.delete_node(&peer(4));
    world.start();
    world.api.patch_node("node-2", annotate("public-ip", crate::cluster::public_ips(0)[0].to_string()));
    let cidr = crate::cluster::pod_cidrs(3)[0].clone();
    sh(&format!("ip route add {cidr} dev {UNDERLAY} metric 1"));
    until_event(&world, "PeerUnusable", "Warning", "node-1: ipv4: cannot be used: annotation backend-data");
    until_event(&world, "PeerConflict", "Warning", "node-2: ipv4: gets no entries: public IP 172.16.0.1 is an address");
    until_event(&world, "ForeignRoute", "Warning", &format!("route {cidr} dev eth0 proto"));
    assert_eq!(events(&world).len(), 3, "{:#?}", events(&world));
    // The server has it before the agent has counted it.
    within(SOON, "three are counted", || {
        let told = world.agent().metrics().count("weft_node_events_total", &[]);
        if told == 3 { Ok(()) } else { Err(told) }
    });
    assert_eq!(world.agent().metrics().count("weft_node_event_failures_total", &[]), 0);
    // What lasts is not said again so soon; another agent goes on with what is there.
    assert!(world.take_agent().terminate().success());
    world.api.clear_log();
    world.spawn().until_ready();
    within(SOON, "told again", || {
        let told = world.agent().metrics().count("weft_node_events_total", &[]);
        if told == 3 { Ok(()) } else { Err(told) }
    });
    let of_events =
        |verb| world.api.log().into_iter().filter(|it| it.verb == verb && it.path.contains("/events")).count();
    assert_eq!((of_events(Verb::Create), of_events(Verb::Patch)), (3, 3));
    assert_eq!(events(&world).len(), 3, "{:#?}", events(&world));
    // As a person sees it.
    let Some(described) = kubectl(&world, &["describe", "node", OWN]) else { return };
    for reason in ["PeerUnusable", "PeerConflict", "ForeignRoute"] {
        let shown = |line: &str| line.contains(reason) && line.contains("Warning") && line.contains("weft");
        assert!(described.lines().any(shown), "{described}");
    }
    let listed = kubectl(&world, &["get", "events", "--field-selector", "type=Warning"]).expect("kubectl");
    assert!(listed.contains("node/node-0") && listed.contains("PeerConflict"), "{listed}");
}

/// What kubectl prints; `None`, loudly, if there is none (an error in CI).
fn kubectl(world: &World, args: &[&str]) -> Option<String> {
    let mut command = std::process::Command::new("kubectl");
    command.args(["--server", &world.api.url()]).args(args).env("HOME", &world.directory).env_remove("KUBECONFIG");
    match command.output() {
        Ok(output) => {
            assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
            Some(String::from_utf8(output.stdout).expect("text"))
        }
        Err(error) => {
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "kubectl: {error}");
            eprintln!("SKIPPED: kubectl cannot be run ({error})");
            None
        }
    }
}

fn a_fight_and_a_node_that_cannot_receive_are_events() {
    let mut world = World::with_peers(2);
    world.start();
    let cidr = crate::cluster::pod_cidrs(1)[0].clone();
    let fought = within(Duration::from_secs(120), "a fight is told", || {
        // Somebody who removes it as soon as it is there.
        let mut remove = std::process::Command::new("ip");
        remove.args(["route", "del", &cidr, "dev", "flannel.1"]).output().expect("ip");
        let all = events(&world);
        let found = all.iter().find(|(reason, ..)| reason == "ChangedByOthers").cloned();
        found.ok_or(all)
    });
    assert!(fought.2.contains(&cidr) && fought.2.contains("something else keeps changing it"), "{fought:?}");
    assert_eq!(fought.1, "Warning");
    world.api.patch_node(OWN, json!({ "spec": { "podCIDR": null, "podCIDRs": null } }));
    until_event(&world, "OverlayNotReady", "Warning", "has no ipv4 pod CIDR yet");
    world.api.patch_node(OWN, json!({ "spec": bare(0)["spec"] }));
    until_event(&world, "OverlayReady", "Normal", "can receive again");
}

fn events_that_are_not_taken_disturb_nothing() {
    let mut world = World::with_peers(2);
    // One that hangs, after two that are refused, all put before any can come.
    world.api.inject(&[Verb::Create], Action::Refuse { code: 403, retry_after: None }, Some(2));
    world.api.inject(&[Verb::Create], Action::Hang, Some(1));
    world.api.patch_node("node-1", annotate("backend-data", "nonsense"));
    world.start();
    within(SOON, "refused twice", || {
        let failed = world.agent().metrics().count("weft_node_event_failures_total", &[]);
        if failed >= 2 { Ok(()) } else { Err(failed) }
    });
    assert_eq!(world.agent().readyz(), Some(200));
    let log = world.agent().log();
    let said = log.iter().filter(|line| line.contains("cannot make an Event about our Node")).collect::<Vec<_>>();
    assert!(said.first().is_some_and(|line| line.contains("events create and patch")), "{said:?}");
    // One that hangs holds up nobody either.
    within(SOON, "one that hangs", || (world.api.faults_fired() == 3).then_some(()).ok_or("not yet"));
    set_condition(&world, Some(unavailable()));
    until_condition(&world, "False");
    until_event(&world, "PeerUnusable", "Warning", "node-1: ipv4: cannot be used");
}

fn healthz() -> (u16, String) {
    let answer = crate::http::get("127.0.0.1:8081".parse().expect("an address"), "/healthz");
    (answer.status, String::from_utf8(answer.body).expect("text"))
}

fn an_api_server_that_hangs_is_no_loop_that_hangs() {
    const LOOPS: [&str; 8] =
        ["announcer", "condition", "events", "flannel_rules", "host", "reconciler", "subnet_env", "watch"];
    let mut world = World::with_peers(2);
    world.api.patch_node("node-1", annotate("backend-data", "nonsense"));
    // The Event of it is due ten seconds after the first pass, however long the rest of the start takes.
    world.api.inject(&[Verb::Create], Action::Hang, None);
    world.start();
    world.api.inject(&[Verb::Patch, Verb::List, Verb::Watch, Verb::StreamingList], Action::Hang, None);
    let hung = |verb| world.api.log().iter().filter(|it| it.verb == verb && it.fault.is_some()).count();
    // Each that talks to it has something to say, and hangs.
    set_condition(&world, Some(unavailable()));
    world.api.patch_node(OWN, annotate("backend-type", "other"));
    within(SOON, "an Event, the condition and the annotations hang", || {
        let both = [Verb::Create, Verb::Patch].map(hung);
        if both[0] >= 1 && both[1] >= 2 { Ok(()) } else { Err(both) }
    });
    // Not before: a watch that is cut takes with it what the agent has not read, and then nobody has anything to say.
    world.api.close_watches();
    within(SOON, "the watch hangs", || if hung(Verb::Watch) >= 1 { Ok(()) } else { Err("not yet") });
    let ages = |world: &mut World| {
        let metrics = world.agent().metrics();
        LOOPS.map(|name| metrics.sum("weft_heartbeat_age_seconds", &[("loop", name)]))
    };
    // They give up, and go round: a request is given ten seconds, a watch to open thirty.
    let mut oldest = [0.0; LOOPS.len()];
    let mut round = [false; LOOPS.len()];
    within(Duration::from_secs(120), "each goes round", || {
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(healthz(), (200, "ok\n".to_owned()));
        for (at, age) in ages(&mut world).into_iter().enumerate() {
            round[at] |= age < oldest[at];
            oldest[at] = age;
        }
        if round == [true; LOOPS.len()] { Ok(()) } else { Err((round, oldest)) }
    });
}

fn a_loop_that_hangs_is_no_longer_alive() {
    let mut world = World::with_peers(1);
    world.start();
    assert_eq!(healthz(), (200, "ok\n".to_owned()));
    world.agent().holding("reconciler", || {
        within(Duration::from_secs(120), "it is no longer alive", || {
            let (status, text) = healthz();
            let so = status == 503 && text.starts_with("the reconciler loop last went round ");
            std::thread::sleep(Duration::from_millis(200));
            if so { Ok(()) } else { Err((status, text)) }
        });
    });
    within(SOON, "it is alive again", || if healthz().0 == 200 { Ok(()) } else { Err(healthz()) });
}

fn an_api_server_away_later_makes_no_node_unready() {
    let mut world = World::with_peers(1);
    world.api.inject(&[Verb::Patch], Action::Refuse { code: 403, retry_after: None }, None);
    world.spawn();
    within(SOON, "nobody knows of us", || {
        world.agent().readyz().ok_or_else(|| "no server yet".to_owned())?;
        let answer = crate::http::get("127.0.0.1:8081".parse().expect("an address"), "/readyz");
        let body = String::from_utf8(answer.body).expect("text");
        let said = ["our annotations are not on our Node yet; ", "the API server answered 403 Forbidden"];
        let so = answer.status == 503 && body.starts_with(said[0]) && body.contains(said[1]);
        if so { Ok(()) } else { Err(body) }
    });
    let failures = |world: &mut World| world.agent().metrics().count("weft_announcement_failures_total", &[]);
    within(SOON, "three failures", || if failures(&mut world) < 3 { Err("fewer") } else { Ok(()) });
    let lines = world.agent().log().iter().filter(|line| line.contains("cannot write our annotations")).count();
    assert_eq!(lines, 2, "the first and the second: {:?}", world.agent().log());
    let problem = &world.agent().state()["api_problems"][0];
    assert_eq!((&problem["request"], &problem["class"]), (&json!("announcement"), &json!("forbidden")), "{problem}");
    assert_eq!(condition(&world), None);
    world.api.clear_faults();
    world.agent().until_ready();
    world.api.stop();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(world.agent().readyz(), Some(200));
    world.api.resume(port()).expect("to serve again");
}

fn sigterm_ends_at_once_whatever_hangs() {
    let mut world = World::with_peers(PEERS);
    let ends = |world: &mut World, what: &str| {
        let agent = world.take_agent();
        let asked = Instant::now();
        agent.signal(Signal::SIGTERM);
        assert!(agent.terminate().success(), "{what}");
        assert!(asked.elapsed() < Duration::from_millis(500), "{what}: {:?}", asked.elapsed());
    };
    // The first request of its life.
    world.api.inject(&[Verb::StreamingList], Action::Hang, None);
    world.spawn();
    within(SOON, "a list that hangs", || world.api.count(Verb::StreamingList).checked_sub(1).ok_or("none"));
    ends(&mut world, "a list hangs");
    world.api.clear_faults();
    // The announcement.
    world.api.inject(&[Verb::Patch], Action::Hang, None);
    world.spawn();
    within(SOON, "a patch that hangs", || world.api.count(Verb::Patch).checked_sub(1).ok_or("none"));
    within(SOON, "the tables", || difference(&kernel(), &rows_of(1..=PEERS)));
    ends(&mut world, "a patch hangs");
    world.api.clear_faults();
    difference(&kernel(), &rows_of(1..=PEERS)).expect("the data plane stays");
}
