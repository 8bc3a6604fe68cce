//! The ground under the device: its interface and the address on it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::site::{Side, Site};
use super::{LIMIT, ROUNDS, rounds, table};
use crate::cluster::{self, OWN, annotation};
use crate::sandbox::sh;
use crate::world::{UNDERLAY, add_default_routes, make_underlay, within};

crate::tests![another_underlay_address_is_taken_and_announced, an_underlay_that_was_made_again_is_taken];

fn another_underlay_address_is_taken_and_announced() {
    let mut site = Site::new();
    for side in Side::BOTH {
        let mut at = side.public_ip(0);
        // Not more often: from the sixth announcement on weft takes it for a fight and slows down.
        rounds(2, |attempt| {
            let to = side.public_ip(3000 + attempt);
            let counts = moves(&mut site, side, at, to);
            at = to;
            counts
        });
    }
}

fn moves(site: &mut Site, side: Side, from: IpAddr, to: IpAddr) -> bool {
    let (len, key) = match side {
        Side::V4 => ("16", "public-ip"),
        Side::V6 => ("64", "public-ipv6"),
    };
    let before = site.metrics();
    site.begin();
    sh(&format!("ip address del {from}/{len} dev {UNDERLAY}\n ip address add {to}/{len} dev {UNDERLAY}"));
    add_default_routes();
    site.moves(from, to);
    let (api, start) = (Arc::clone(&site.world.api), site.start());
    let announced = std::thread::spawn(move || {
        within(Duration::from_secs(10), "the new address is announced", || {
            let node = api.node(OWN).expect("our Node");
            if annotation(&node, key) == Some(&to.to_string()) { Ok(start.elapsed()) } else { Err(node) }
        })
    });
    let took = site.until_right("the underlay has another address");
    let announced = announced.join().expect("an announcement");
    site.counted(side, &before, &[("device", "local_changed")]);
    let counts = table::note("underlay address changed", side.dev(), took)
        && table::note("underlay address changed: announced", side.dev(), announced);
    assert!(!counts || (took <= LIMIT && announced <= LIMIT), "{took:?}, announced after {announced:?}");
    counts
}

fn an_underlay_that_was_made_again_is_taken() {
    let mut site = Site::new();
    rounds(ROUNDS, |_| {
        site.lay_foreign();
        let before = site.metrics();
        // The kernel takes both devices along.
        sh(&format!("ip link del {UNDERLAY}"));
        site.begin();
        make_underlay(cluster::public_ips(0).map(|ip| ip.to_string()));
        let took = site.until_right("the underlay was made again");
        let counts = Side::BOTH.map(|side| {
            site.counted(side, &before, &[("route", "drift_deleted")]);
            table::note("underlay deleted and made again", side.dev(), took)
        });
        assert!(counts != [true; 2] || took <= LIMIT, "{took:?}");
        counts == [true; 2]
    });
}
