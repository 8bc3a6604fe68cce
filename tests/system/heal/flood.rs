//! More notifications than anybody can read.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use weft::lab::netns::Namespace;

use super::site::{Side, Site};
use super::{LIMIT, ROUNDS, table};
use crate::sandbox::{batch, sh};
use crate::world::within;

crate::tests![
    what_breaks_in_a_rain_of_foreign_changes_is_put_right,
    what_breaks_unheard_is_put_right_when_notifications_were_lost,
];

/// Changes of others in a rain: so many routes come, or go.
const RAIN: u32 = 5000;

fn what_breaks_in_a_rain_of_foreign_changes_is_put_right() {
    let mut site = Site::new();
    let here = Namespace::current().expect("a namespace");
    for side in Side::BOTH {
        for round in 0..ROUNDS {
            let before = site.metrics();
            let over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let rain = scope.spawn(|| {
                    here.run(|| {
                        while !over.load(Ordering::Relaxed) {
                            foreign_routes("add");
                            foreign_routes("del");
                        }
                    })
                });
                within(Duration::from_secs(10), "it rains", || {
                    let routes = crate::sandbox::json("ip -j route show dev foreign0").len();
                    if routes > 100 { Ok(()) } else { Err(routes) }
                });
                site.begin();
                break_rows(side, 7 + round);
                let took = site.until_right("in the rain");
                over.store(true, Ordering::Relaxed);
                rain.join().expect("the rain").expect("a thread");
                table::note(
                    "route, neighbour and FDB entry deleted while 5,000 foreign changes rain",
                    side.dev(),
                    took,
                );
                assert!(took <= LIMIT, "{took:?} on {}", side.dev());
            });
            let counted = [("route", "drift_deleted"), ("neighbour", "drift_deleted"), ("fdb", "drift_deleted")];
            site.counted(side, &before, &counted);
        }
    }
}

fn what_breaks_unheard_is_put_right_when_notifications_were_lost() {
    let mut site = Site::new();
    for side in Side::BOTH {
        for round in 0..ROUNDS {
            let before = site.metrics();
            let foreign = Site::foreign_before();
            site.behind_its_back_with(|| {
                // Whatever the size of the agent's buffer is: its notification comes when it is full.
                for _ in 0..4 {
                    foreign_routes("add");
                    foreign_routes("del");
                }
                break_rows(side, 7 + round);
            });
            let took = site.until_right("after an overrun");
            table::note("route, neighbour and FDB entry deleted, notifications lost", side.dev(), took);
            assert!(took <= LIMIT, "{took:?} on {}", side.dev());
            let overruns = site.metrics().count("weft_netlink_overruns_total", &[]);
            assert!(overruns > before.count("weft_netlink_overruns_total", &[]), "no notification was lost");
            assert_eq!(foreign, Site::foreign());
            site.counted(side, &before, &[("route", "drift_deleted")]);
        }
    }
}

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
