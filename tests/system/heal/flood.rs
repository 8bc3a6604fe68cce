//! More notifications than anybody can read.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use weft::lab::netns::Namespace;

use super::site::{Side, Site};
use super::{LIMIT, ROUNDS, rounds, table};
use crate::agent::Metrics;
use crate::sandbox::{batch, json, sh};
use crate::world::within;

crate::tests![
    what_breaks_in_a_rain_of_foreign_changes_is_put_right,
    what_breaks_unheard_is_put_right_when_notifications_were_lost,
];

/// Changes of others in a rain: so many routes come, or go.
const RAIN: u32 = 5000;

fn what_breaks_in_a_rain_of_foreign_changes_is_put_right() {
    let mut site = Site::new();
    for side in Side::BOTH {
        rounds(ROUNDS, |attempt| {
            let before = site.metrics();
            let took = in_the_rain(&mut site, |site| {
                site.begin();
                break_rows(side, 7 + attempt);
                site.until_right("in the rain")
            });
            site.counted(side, &before, DELETED);
            let what = "route, neighbour and FDB entry deleted while 5,000 foreign changes rain";
            let counts = table::note(what, side.dev(), took);
            assert!(!counts || took <= LIMIT, "{took:?} on {}", side.dev());
            counts
        });
    }
}

/// Runs something while others add and delete routes as fast as they can.
fn in_the_rain<T>(site: &mut Site, body: impl FnOnce(&mut Site) -> T) -> T {
    let here = Namespace::current().expect("a namespace");
    let over = AtomicBool::new(false);
    let rain = || {
        while !over.load(Ordering::Relaxed) {
            foreign_routes("add");
            foreign_routes("del");
        }
    };
    std::thread::scope(|scope| {
        let raining = scope.spawn(|| here.run(rain));
        within(Duration::from_secs(10), "it rains", || {
            let routes = json("ip -j route show dev foreign0").len();
            if routes > 100 { Ok(()) } else { Err(routes) }
        });
        let result = body(site);
        over.store(true, Ordering::Relaxed);
        raining.join().expect("the rain").expect("a thread");
        result
    })
}

fn what_breaks_unheard_is_put_right_when_notifications_were_lost() {
    let mut site = Site::new();
    for side in Side::BOTH {
        rounds(ROUNDS, |attempt| {
            site.lay_foreign();
            let (before, foreign) = (site.metrics(), Site::foreign_before());
            site.begin();
            site.behind_its_back_with(|| {
                // However large the agent's buffer is: its notification comes when it is full.
                for _ in 0..4 {
                    foreign_routes("add");
                    foreign_routes("del");
                }
                break_rows(side, 7 + attempt);
            });
            let took = site.until_right("after an overrun");
            let lost = |metrics: &Metrics| metrics.count("weft_netlink_overruns_total", &[]);
            assert!(lost(&site.metrics()) > lost(&before), "no notification was lost");
            assert_eq!(foreign, Site::foreign());
            site.counted(side, &before, DELETED);
            let what = "route, neighbour and FDB entry deleted, notifications lost";
            let counts = table::note(what, side.dev(), took);
            assert!(!counts || took <= LIMIT, "{took:?} on {}", side.dev());
            counts
        });
    }
}

const DELETED: &[(&str, &str)] =
    &[("route", "drift_deleted"), ("neighbour", "drift_deleted"), ("fdb", "drift_deleted")];

fn break_rows(side: Side, peer: u32) {
    sh(&format!(
        "ip {} route del {} dev {}
         ip neigh del {} dev {}
         bridge fdb del {} dev {} self",
        side.flag(),
        side.cidr(peer),
        side.dev(),
        side.gateway(peer),
        side.dev(),
        side.mac(peer),
        side.dev()
    ));
}

/// Others add or delete as many routes as fall in a rain.
fn foreign_routes(verb: &str) {
    let line = |number: u32| format!("route {verb} 198.19.{}.{}/32 dev foreign0\n", number >> 8, number & 255);
    batch("ip", &(0..RAIN).map(line).collect::<String>());
}
