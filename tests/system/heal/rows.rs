//! Routes, neighbours and FDB entries: gone, wrong, too many.

use std::time::Duration;

use super::site::{Side, Site};
use super::{Disturbance, LIMIT, table};
use crate::sandbox::{json, sh, try_sh};
use crate::world::within;

crate::tests![
    a_deleted_route_comes_back,
    a_deleted_neighbour_comes_back,
    a_deleted_fdb_entry_comes_back,
    a_changed_route_is_corrected,
    a_route_by_hand_that_wins_over_ours_goes,
    a_second_route_under_the_same_key_goes,
    a_second_next_hop_goes,
    a_route_of_somebody_else_under_our_key_stays_and_is_shown,
    a_route_put_before_ours_under_the_same_key_goes,
    a_changed_neighbour_is_corrected,
    a_neighbour_that_may_expire_becomes_permanent,
    a_changed_fdb_entry_is_corrected,
    an_fdb_entry_of_a_nexthop_group_is_corrected,
    a_second_next_hop_over_the_underlay_goes,
    stale_extra_entries_go,
    all_routes_flushed_come_back,
    all_neighbours_flushed_come_back,
    all_fdb_entries_flushed_come_back,
];

fn a_deleted_route_comes_back() {
    Disturbance::new("route deleted", &[("route", "drift_deleted")]).heals(|_, side, round| {
        sh(&format!("ip {} route del {} dev {}", side.flag(), side.cidr(7 + round), side.dev()));
    });
}

fn a_deleted_neighbour_comes_back() {
    Disturbance::new("neighbour deleted", &[("neighbour", "drift_deleted")]).heals(|_, side, round| {
        sh(&format!("ip neigh del {} dev {}", side.gateway(7 + round), side.dev()));
    });
}

fn a_deleted_fdb_entry_comes_back() {
    Disturbance::new("FDB entry deleted", &[("fdb", "drift_deleted")]).heals(|_, side, round| {
        sh(&format!("bridge fdb del {} dev {} self", side.mac(7 + round), side.dev()));
    });
}

fn a_changed_route_is_corrected() {
    Disturbance::new("route changed", &[("route", "drift_changed")]).heals(|_, side, round| {
        let (key, other) = (side.key(7 + round), side.gateway(90));
        sh(&format!("ip {} route replace {key} via {other} dev {} proto 119 onlink", side.flag(), side.dev()));
    });
}

fn a_route_by_hand_that_wins_over_ours_goes() {
    Disturbance::new("route by hand added beside ours", &[("route", "drift_added")]).heals(|_, side, round| {
        let (cidr, other) = (side.cidr(7 + round), side.gateway(90));
        // IPv6 takes a metric of 0 for 1024.
        let metric = if side.flag() == "-4" { 0 } else { 512 };
        sh(&format!("ip {} route add {cidr} via {other} dev {} metric {metric} onlink", side.flag(), side.dev()));
    });
}

fn a_second_route_under_the_same_key_goes() {
    let disturbance = Disturbance::new("route appended under the same key", &[("route", "drift_added")]);
    disturbance.only(&[Side::V4]).heals(|_, side, round| append(side, round));
}

fn a_second_next_hop_goes() {
    // IPv6 makes one route of both.
    let disturbance = Disturbance::new("route appended under the same key", &[("route", "drift_changed")]);
    disturbance.only(&[Side::V6]).heals(|_, side, round| append(side, round));
}

fn a_second_next_hop_over_the_underlay_goes() {
    // With our number it is our route that somebody appended to.
    let disturbance = Disturbance::new("next hop over the underlay appended", &[("route", "drift_changed")]);
    disturbance.only(&[Side::V6]).heals(|_, side, round| {
        sh(&format!("ip -6 route append {} via fd00:174::99 dev eth0 proto 119", side.key(7 + round)));
    });
}

fn append(side: Side, round: u32) {
    let (key, other) = (side.key(7 + round), side.gateway(90));
    sh(&format!("ip {} route append {key} via {other} dev {} proto 119 onlink", side.flag(), side.dev()));
}

fn a_route_put_before_ours_under_the_same_key_goes() {
    let disturbance = Disturbance::new("route prepended under the same key", &[("route", "drift_added")]);
    disturbance.only(&[Side::V4]).heals(|_, side, round| {
        let (key, other) = (side.key(7 + round), side.gateway(90));
        sh(&format!("ip {} route prepend {key} via {other} dev {} proto 119 onlink", side.flag(), side.dev()));
    });
}

fn a_route_of_somebody_else_under_our_key_stays_and_is_shown() {
    let mut site = Site::new();
    for side in Side::BOTH {
        let (flag, dev, key) = (side.flag(), side.dev(), side.key(7));
        site.lay_foreign();
        site.behind_its_back(&format!(
            "ip {flag} route del {key} dev {dev}\n ip {flag} route add {key} dev {dev} proto static"
        ));
        // After the sixth failure the delay is 3.2 s: longer than a repair may take.
        within(Duration::from_secs(20), "it is shown, and weft has become patient", || {
            let metrics = site.metrics();
            let labels = [("family", side.label())];
            let failures = metrics.count("weft_change_failures_total", &[labels[0], ("outcome", "blocked")]);
            let shown = metrics.count("weft_foreign_routes", &labels);
            if failures >= 6 && shown == 1 { Ok(()) } else { Err((failures, shown)) }
        });
        let route = json(&format!("ip -j {flag} route show {key} dev {dev}"));
        assert_eq!((route.len(), &route[0]["protocol"]), (1, &"static".into()), "{route:?}");
        site.begin();
        sh(&format!("ip {flag} route del {key} dev {dev} proto static"));
        let took = site.until_right("a foreign route has gone");
        let what = "route of somebody else under our key deleted";
        assert!(!table::note(what, dev, took) || took <= LIMIT, "{took:?}");
    }
}

fn a_changed_neighbour_is_corrected() {
    Disturbance::new("neighbour changed", &[("neighbour", "drift_changed")]).heals(|_, side, round| {
        let gateway = side.gateway(7 + round);
        sh(&format!("ip neigh replace {gateway} lladdr 0a:00:00:00:00:99 dev {} nud permanent", side.dev()));
    });
}

fn a_neighbour_that_may_expire_becomes_permanent() {
    Disturbance::new("neighbour no longer permanent", &[("neighbour", "drift_deleted")]).heals(|_, side, round| {
        let (gateway, mac) = (side.gateway(7 + round), side.mac(7 + round));
        sh(&format!("ip neigh replace {gateway} lladdr {mac} dev {} nud stale", side.dev()));
    });
}

fn a_changed_fdb_entry_is_corrected() {
    Disturbance::new("FDB entry changed", &[("fdb", "drift_changed")]).heals(|_, side, round| {
        let (mac, elsewhere) = (side.mac(7 + round), side.public_ip(90));
        sh(&format!("bridge fdb replace {mac} dev {} dst {elsewhere} self permanent", side.dev()));
    });
}

fn an_fdb_entry_of_a_nexthop_group_is_corrected() {
    // The kernel lets nobody replace it, so it goes and ours comes.
    let counted = &[("fdb", "drift_added"), ("fdb", "drift_deleted")];
    Disturbance::new("FDB entry of a nexthop group in its place", counted).heals(|_, side, round| {
        let (mac, dev) = (side.mac(7 + round), side.dev());
        let (id, elsewhere) = (if side.flag() == "-4" { 1 } else { 2 }, side.public_ip(90));
        // The second round finds them there.
        let _ = try_sh(&format!("ip nexthop add id {id} via {elsewhere} fdb"));
        let _ = try_sh(&format!("ip nexthop add id {id}0 group {id} fdb"));
        // weft may be quicker than the second command.
        let swapped = (0..50).any(|_| {
            let _ = try_sh(&format!("bridge fdb del {mac} dev {dev} self"));
            try_sh(&format!("bridge fdb add {mac} dev {dev} nhid {id}0")).is_ok()
        });
        assert!(swapped, "weft was quicker each time");
    });
}

fn stale_extra_entries_go() {
    let counted = &[("route", "drift_added"), ("neighbour", "drift_added"), ("fdb", "drift_added")];
    Disturbance::new("entries of a node that does not exist added", counted).heals(|_, side, round| {
        let (flag, dev, nobody) = (side.flag(), side.dev(), 3000 + round);
        let (cidr, gateway, mac) = (side.cidr(nobody), side.gateway(nobody), side.mac(nobody));
        sh(&format!(
            "bridge fdb add {mac} dev {dev} dst {} self permanent
             ip neigh add {gateway} lladdr {mac} dev {dev} nud permanent
             ip {flag} route add {cidr} via {gateway} dev {dev} proto 119 metric 77 onlink
             ip {flag} route add {cidr} via {gateway} dev {dev} proto boot onlink",
            side.public_ip(nobody)
        ));
    });
}

fn all_routes_flushed_come_back() {
    Disturbance::new("all routes flushed", &[("route", "drift_deleted")]).taking().heals(|_, side, _| {
        // Routes of the kernel's own do not come back by anybody's doing.
        let but = if side.flag() == "-6" { "proto 119" } else { "" };
        sh(&format!("ip {} route flush dev {} {but}", side.flag(), side.dev()));
    });
}

fn all_neighbours_flushed_come_back() {
    Disturbance::new("all neighbours flushed", &[("neighbour", "drift_deleted")]).heals(|_, side, _| {
        sh(&format!("ip neigh flush all\n ip neigh flush dev {} nud permanent", side.dev()));
    });
}

fn all_fdb_entries_flushed_come_back() {
    Disturbance::new("all FDB entries flushed", &[("fdb", "drift_deleted")]).heals(|_, side, _| {
        sh(&format!("bridge fdb flush dev {} self permanent", side.dev()));
    });
}
