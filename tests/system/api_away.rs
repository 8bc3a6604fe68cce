//! An API server that is away, refuses, lies or hangs: nothing is removed for it, the kernel is kept right from
//! what is known, the server is left in peace, and when it comes to its senses nobody has to restart anything.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use weft::lab::apiserver::{Action, ApiServer, Verb};

use crate::cluster::{OWN, name, peer};
use crate::sandbox::{isolated, sh};
use crate::stage::{Facts, SOON, Stage, difference, kernel, port, rows_of, until_kernel_has};
use crate::world::{DEVICES, World, within};

crate::tests![
    away_at_the_start_an_adopted_device_is_left_as_it_is,
    away_for_long_weft_heals_from_what_it_knows,
    every_bad_answer_is_survived,
    retry_after_is_honoured,
    a_server_without_streaming_lists_will_do,
    an_empty_api_server_empties_nothing,
    most_nodes_gone_at_once_is_confirmed_first,
    a_list_that_lacks_half_of_the_nodes_is_not_believed_at_once,
];

const PEERS: u32 = 40;
const LISTS: [Verb; 3] = [Verb::List, Verb::Continue, Verb::StreamingList];
const READS: [Verb; 4] = [Verb::List, Verb::Continue, Verb::StreamingList, Verb::Watch];

fn requests(api: &ApiServer) -> usize {
    READS.iter().map(|verb| api.count(*verb)).sum()
}

/// A route goes, and comes back.
fn heals(stage: &mut Stage, number: u32) {
    let [route, _] = crate::cluster::pod_cidrs(number);
    sh(&format!("ip route del {route} dev {}", DEVICES[0]));
    within(SOON, "the route is back", || difference(&kernel(), &stage.rows()));
    stage.forget();
}

fn away_at_the_start_an_adopted_device_is_left_as_it_is() {
    let mut stage = Stage::with_peers(PEERS);
    stage.world.take_agent().terminate();
    stage.world.api.stop();
    // While nobody can say what is right, nothing is wrong: neither a row that is gone nor one that is new.
    sh(&format!("ip route del {} dev {}", crate::cluster::pod_cidrs(3)[0], DEVICES[0]));
    sh(&format!("ip neigh add 10.240.200.0 lladdr 0e:00:00:00:00:07 dev {} nud permanent", DEVICES[0]));
    stage.forget();
    let as_left = kernel();
    stage.world.spawn();
    within(SOON, "weft says what it waits for", || {
        let log = stage.world.agent().log();
        let says = |text: &str| log.iter().any(|line| line.contains(text));
        if says("cannot be reached") && says("has not been read whole yet") { Ok(()) } else { Err(log) }
    });
    // Several attempts later.
    within(SOON, "it tries again", || {
        let failed = stage.world.agent().metrics().sum("weft_api_errors_total", &[("kind", "unreachable")]);
        if failed >= 4.0 { Ok(()) } else { Err(failed) }
    });
    assert_eq!(stage.world.agent().readyz(), Some(503));
    let log = stage.world.agent().log();
    let times = log.iter().filter(|line| line.contains("has not been read whole yet")).count();
    assert_eq!(times, 1, "one clear message, once:\n{}", log.join("\n"));
    assert!(log.len() < 20, "{}", log.join("\n"));
    assert_eq!(kernel(), as_left);
    assert_eq!(stage.witness.heard(), [], "something was written without the API server");
    stage.world.api.resume(port()).expect("to serve again");
    stage.world.agent().until_ready();
    stage.shown(3, crate::stage::INSTALLED);
    within(SOON, "the drift is repaired", || difference(&kernel(), &stage.rows()));
    assert!(stage.world.agent().log().iter().any(|line| line.contains("no longer so: the API server's list")));
}

fn away_for_long_weft_heals_from_what_it_knows() {
    let mut stage = Stage::with_peers(PEERS);
    stage.world.api.stop();
    let gone = Instant::now();
    for number in 1..=8 {
        heals(&mut stage, number);
    }
    sh(&format!("ip link del {}", DEVICES[0]));
    within(SOON, "the device is back", || difference(&kernel(), &stage.rows()));
    stage.forget();
    assert_eq!(stage.world.agent().readyz(), Some(200), "the overlay works without the API server");
    std::thread::sleep(Duration::from_secs(6).saturating_sub(gone.elapsed()));
    let failed = stage.world.agent().metrics().sum("weft_api_errors_total", &[("kind", "unreachable")]);
    // Half a second, one, two, four: cut by up to half.
    assert!((3.0..=12.0).contains(&failed), "{failed} attempts in {:?}", gone.elapsed());
    assert!(stage.world.agent().metrics().sum("weft_api_failing_seconds", &[]) > 1.0);
    // Meanwhile things happen that nobody could tell of.
    stage.delete(2);
    stage.put(50, Facts::of(50));
    stage.put(3, Facts { macs: Facts::of(51).macs, ..Facts::of(3) });
    stage.world.api.resume(port()).expect("to serve again");
    stage.settled("what happened while the API server was away");
    assert!(stage.world.agent().metrics().sum("weft_api_failing_seconds", &[]).abs() < 1e-9);
}

/// What goes wrong, and with which requests.
struct Bad {
    what: &'static str,
    on: &'static [Verb],
    action: Action,
    /// So many requests at most while it lasts.
    most: usize,
}

/// They mostly wait, so several pass at the same time.
const AT_A_TIME: usize = 6;
/// How long each bad day lasts.
const DAY: Duration = Duration::from_secs(4);

fn every_bad_answer_is_survived() {
    let bad = |what, on: &'static [Verb], action, most| Bad { what, on, action, most };
    let refuse = |code| Action::Refuse { code, retry_after: None };
    let days = [
        bad("410 to everything", &READS, refuse(410), 12),
        bad("410 to watches", &[Verb::Watch], refuse(410), 24),
        bad("429 to everything", &READS, refuse(429), 12),
        bad("500 to everything", &READS, refuse(500), 12),
        bad("500 to watches", &[Verb::Watch], refuse(500), 12),
        bad("503 to lists", &LISTS, refuse(503), 12),
        bad("403 to everything", &READS, refuse(403), 24),
        bad("401 to everything", &READS, refuse(401), 24),
        bad("404 to everything", &READS, refuse(404), 24),
        bad("garbage", &READS, Action::Garbage, 24),
        bad("answers that break off", &READS, Action::Truncate, 24),
        bad("no answer", &READS, Action::Hang, 4),
        bad("closed connections", &READS, Action::Drop, 24),
        bad("watches that end at once", &[Verb::Watch, Verb::StreamingList], Action::EndWatch, 24),
        bad("garbage in watches", &[Verb::Watch, Verb::StreamingList], Action::GarbageLine, 24),
        bad("expired watches", &[Verb::Watch, Verb::StreamingList], Action::ExpiredWatch, 24),
        bad("objects of no shape", &READS, Action::Undecodable, 24),
    ];
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(bad) = days.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(panic) = isolated(|| bad_day(bad)) {
                        let text = panic.downcast_ref::<String>().cloned();
                        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
                        failures.lock().expect("a list").push(format!("{}: {}", bad.what, text.unwrap_or_default()));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("a list");
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

fn bad_day(bad: &Bad) {
    let mut stage = Stage::with_peers(PEERS);
    let what = bad.what;
    stage.world.api.inject(bad.on, bad.action.clone(), None);
    // History is lost and every watch is closed: what is bad is met at once.
    stage.world.api.compact();
    stage.world.api.close_watches();
    stage.world.api.clear_log();
    let begun = Instant::now();
    within(SOON, &format!("{what}: it is met"), || match stage.world.api.faults_fired() {
        0 => Err("no fault"),
        _ => Ok(()),
    });
    heals(&mut stage, 5);
    std::thread::sleep(DAY.saturating_sub(begun.elapsed()));
    let asked = requests(&stage.world.api);
    assert!(asked <= bad.most, "{what}: {asked} requests in {:?}: {:#?}", begun.elapsed(), stage.world.api.log());
    stage.settled(&format!("{what}, while it lasts"));
    assert_eq!(stage.world.agent().readyz(), Some(200), "{what}");
    // Things happen, and the server comes to its senses.
    stage.delete(7);
    stage.put(60, Facts::of(60));
    stage.world.api.clear_faults();
    if bad.action == Action::Hang {
        // A connection that hangs is given up after half a minute; a server that restarts ends it sooner.
        stage.world.api.stop();
        stage.world.api.resume(port()).expect("to serve again");
    }
    stage.settled(&format!("{what}, when it is over"));
    stage.shown(60, crate::stage::INSTALLED);
}

fn retry_after_is_honoured() {
    let stage = Stage::with_peers(3);
    stage.world.api.inject(&READS, Action::Refuse { code: 429, retry_after: Some(3) }, Some(2));
    stage.world.api.clear_log();
    stage.world.api.compact();
    stage.world.api.close_watches();
    within(SOON, "three requests", || match requests(&stage.world.api) {
        0..3 => Err("fewer"),
        _ => Ok(()),
    });
    let log = stage.world.api.log();
    let times: Vec<Duration> = log.iter().filter(|it| READS.contains(&it.verb)).map(|it| it.at).collect();
    for pair in times.windows(2).take(2) {
        let gap = pair[1].saturating_sub(pair[0]);
        assert!(gap >= Duration::from_secs(3), "asked again after {gap:?}: {log:#?}");
    }
    // So it is for what we write.
    stage.world.api.inject(&[Verb::Patch], Action::Refuse { code: 429, retry_after: Some(3) }, Some(1));
    stage.world.api.clear_log();
    stage.world.api.patch_node(OWN, crate::stage::annotate("public-ip", "192.0.2.9"));
    within(SOON, "the annotation is put right", || match stage.world.own_annotation("public-ip").as_deref() {
        Some("172.16.0.1") => Ok(()),
        other => Err(other.map(str::to_owned)),
    });
    let log = stage.world.api.log();
    let times: Vec<Duration> = log.iter().filter(|it| it.verb == Verb::Patch).map(|it| it.at).collect();
    assert_eq!(times.len(), 2, "{log:#?}");
    assert!(times[1].saturating_sub(times[0]) >= Duration::from_secs(3), "{times:?}");
}

fn a_server_without_streaming_lists_will_do() {
    for action in [Action::RefuseStreaming, Action::IgnoreStreaming] {
        isolated(|| {
            let mut world = World::with_peers(PEERS);
            world.api.inject(&[Verb::StreamingList], action.clone(), None);
            world.api.bookmark_every(Duration::from_secs(1));
            world.start();
            until_kernel_has(&rows_of(1..=PEERS));
            world.api.put_node(peer(70));
            until_kernel_has(&rows_of((1..=PEERS).chain([70])));
            let streaming = world.api.count(Verb::StreamingList);
            assert_eq!(streaming, 1, "it is not asked for again");
            // After a lost history, in pages.
            world.api.compact();
            world.api.close_watches();
            world.api.put_node(peer(71));
            until_kernel_has(&rows_of((1..=PEERS).chain([70, 71])));
            assert_eq!(world.api.count(Verb::StreamingList), streaming, "{action:?}");
        })
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
}

fn an_empty_api_server_empties_nothing() {
    let mut stage = Stage::with_peers(PEERS);
    let rows = stage.rows();
    // An API server whose etcd was lost, or that belongs to another cluster.
    stage.world.api.stop();
    let empty = ApiServer::start(port()).expect("an API server");
    let lists = stage.world.agent().metrics().sum("weft_api_lists_total", &[]);
    // A watch from a moment that it has not seen yet is open and silent; one that is closed again and again is
    // given up for a list. And that list is repeated.
    for more in 1..=3_u32 {
        within(SOON, "an empty list is read", || {
            empty.compact();
            empty.close_watches();
            std::thread::sleep(Duration::from_millis(50));
            let now = stage.world.agent().metrics().sum("weft_api_lists_total", &[]);
            if now >= lists + f64::from(more) { Ok(()) } else { Err(now) }
        });
    }
    stage.settled_with("empty lists", rows.clone());
    // A list is counted before the pass that takes it in.
    let withheld = within(SOON, "all of it is withheld", || {
        let state = stage.world.agent().state();
        let withheld = state["families"]["ipv4"]["withheld"].as_str().unwrap_or_default().to_owned();
        if withheld.contains("our own Node is not in the list") { Ok(withheld) } else { Err(withheld) }
    });
    // Nobody asks for these rows, so one that somebody takes away stays away until the right server is back.
    sh(&format!("ip route del {} dev {}", crate::cluster::pod_cidrs(4)[0], DEVICES[0]));
    stage.forget();
    empty.stop();
    stage.world.api.compact();
    stage.world.api.resume(port()).expect("to serve again");
    within(SOON, "nothing is withheld", || {
        stage.world.api.close_watches();
        std::thread::sleep(Duration::from_millis(50));
        let state = stage.world.agent().state();
        if state["families"]["ipv4"]["withheld"].is_null() { Ok(()) } else { Err(withheld.clone()) }
    });
    stage.settled("the right API server is back");
}

fn most_nodes_gone_at_once_is_confirmed_first() {
    let mut stage = Stage::with_peers(PEERS);
    let lists = stage.world.agent().metrics().sum("weft_api_lists_total", &[]);
    let rows = stage.rows();
    // No list can be had for the moment; all but three nodes go.
    stage.world.api.inject(&LISTS, Action::Refuse { code: 503, retry_after: None }, None);
    (4..=PEERS).for_each(|number| stage.delete(number));
    stage.shown_of(&name(PEERS), crate::stage::GONE);
    within(SOON, "they are held back", || {
        let state = stage.world.agent().state();
        let withheld = state["families"]["ipv6"]["withheld"].as_str().unwrap_or_default().to_owned();
        if withheld.contains("read once more") { Ok(()) } else { Err(withheld) }
    });
    let after = stage.rows();
    // Those that went while there were still many may be gone.
    let now = kernel();
    assert!(now.is_superset(&after) && now.is_subset(&rows) && now.len() > rows.len() / 2, "{} rows", now.len());
    stage.world.api.clear_faults();
    stage.settled_with("confirmed by a second list", after);
    let listed = stage.world.agent().metrics().sum("weft_api_lists_total", &[]) - lists;
    assert!((1.0..=2.0).contains(&listed), "{listed} lists");
    // Everybody is back.
    (4..=PEERS).for_each(|number| stage.put(number, Facts::of(number)));
    stage.settled("everybody is back");
}

fn a_list_that_lacks_half_of_the_nodes_is_not_believed_at_once() {
    let mut stage = Stage::with_peers(PEERS);
    stage.world.api.inject(&[Verb::StreamingList], Action::RefuseStreaming, None);
    stage.world.api.inject(&[Verb::List], Action::HalfList, Some(1));
    let fired = stage.world.api.faults_fired();
    let lists = stage.world.agent().metrics().sum("weft_api_lists_total", &[]);
    stage.world.api.compact();
    stage.world.api.close_watches();
    within(SOON, "half a list, and then a whole one", || {
        let now = stage.world.agent().metrics().sum("weft_api_lists_total", &[]) - lists;
        if now >= 2.0 { Ok(()) } else { Err(now) }
    });
    assert!(stage.world.api.faults_fired() >= fired + 2);
    within(SOON, "everybody is shown again", || {
        let installed = stage.world.agent().metrics().sum("weft_peers", &[("state", "installed")]);
        if (installed - f64::from(2 * PEERS)).abs() < 0.5 { Ok(()) } else { Err(installed) }
    });
    stage.settled("half a list");
}
