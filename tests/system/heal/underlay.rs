//! The ground under the device: its interface and the address on it.

use std::time::Duration;

use super::site::{Side, Site};
use super::{LIMIT, ROUNDS, table};
use crate::cluster;
use crate::sandbox::sh;
use crate::world::{UNDERLAY, add_default_routes, make_underlay, within};

crate::tests![another_underlay_address_is_taken_and_announced, an_underlay_that_was_made_again_is_taken];

fn another_underlay_address_is_taken_and_announced() {
    let mut site = Site::new();
    for side in Side::BOTH {
        let mut at = side.public_ip(0);
        // Not more often: from the sixth announcement on weft takes it for a fight and slows down.
        let others: Vec<_> = (0..2).map(|round| side.public_ip(3000 + round)).collect();
        for to in others {
            let (len, key) = match side {
                Side::V4 => ("16", "public-ip"),
                Side::V6 => ("64", "public-ipv6"),
            };
            let before = site.metrics();
            site.begin();
            sh(&format!("ip address del {at}/{len} dev {UNDERLAY}\n ip address add {to}/{len} dev {UNDERLAY}"));
            add_default_routes();
            site.moves(at, to);
            let took = site.until_right("the underlay has another address");
            table::note("underlay address changed", side.dev(), took);
            let announced = within(Duration::from_secs(10), "the new address is announced", || {
                let now = site.world.own_annotation(key);
                if now == Some(to.to_string()) { Ok(site.elapsed()) } else { Err(now) }
            });
            table::note("underlay address changed: announced", side.dev(), announced);
            site.counted(side, &before, &[("device", "local_changed")]);
            assert!(took <= LIMIT && announced <= LIMIT, "{took:?}, announced after {announced:?}");
            at = to;
        }
    }
}

fn an_underlay_that_was_made_again_is_taken() {
    let mut site = Site::new();
    for _ in 0..ROUNDS {
        site.lay_foreign();
        let before = site.metrics();
        sh(&format!("ip link del {UNDERLAY}"));
        // The kernel takes both devices along.
        site.begin();
        make_underlay(cluster::public_ips(0).map(|ip| ip.to_string()));
        let took = site.until_right("the underlay was made again");
        for side in Side::BOTH {
            table::note("underlay deleted and made again", side.dev(), took);
            site.counted(side, &before, &[("route", "drift_deleted")]);
        }
        assert!(took <= LIMIT, "{took:?}");
    }
}
