//! Random clusters: small pools of everything, so that nodes get in each other's way.

use proptest::prelude::*;
use weft::model::addr::{ByFamily, Family, Subnet};
use weft::model::node::{Absence, NodeRecord, Peer, Standing, Unusable};

use crate::world::{cidr, ip, peer, pod_cidr, public_ip, vtep_mac};

/// A node that nobody can quarrel with.
pub(crate) fn plain(n: u8) -> NodeRecord {
    NodeRecord {
        name: format!("node-{n:03}").into(),
        uid: format!("uid-{n}").into(),
        created: i64::from(n),
        standing: ByFamily::from_fn(|family| Standing::Usable(peer(family, n))),
    }
}

pub(crate) fn unusable(subnet: Option<Subnet>) -> Standing {
    Standing::Unusable { subnet, reason: Unusable::Missing("public-ip") }
}

/// A node of the first `names`, claiming from small pools.
pub(crate) fn any_node(names: u8) -> impl Strategy<Value = NodeRecord> {
    let standing = |family| any_standing(family, names);
    (1..=names, 0..4_i64, 0..3_u8, standing(Family::V4), standing(Family::V6)).prop_map(|(n, created, uid, v4, v6)| {
        NodeRecord {
            name: format!("node-{n:03}").into(),
            uid: format!("uid-{uid}").into(),
            created,
            standing: ByFamily { v4, v6 },
        }
    })
}

/// A node that is itself, but may be away or differ in a way that leaves the others alone.
pub(crate) fn any_tame_node(names: u8) -> impl Strategy<Value = NodeRecord> {
    (1..=names, 0..3_u8, 0..3_u8, any::<bool>()).prop_map(|(n, mac, ip, both)| {
        let mut node = plain(n);
        for family in Family::BOTH {
            let standing = node.standing.get_mut(family);
            if family == Family::V6 && !both {
                *standing = Standing::Absent(Absence::NoVtep);
            } else if let Standing::Usable(peer) = standing {
                peer.mac = Some(vtep_mac(family, n + 50 * mac));
                peer.public_ip = public_ip(family, n + 1 + 50 * ip);
            }
        }
        node
    })
}

fn any_standing(family: Family, names: u8) -> impl Strategy<Value = Standing> {
    let peer = (any_subnet(family, names), 0..=names, any_public_ip(family, names)).prop_map(
        move |(subnet, mac, public_ip)| Standing::Usable(Peer { subnet, mac: Some(vtep_mac(family, mac)), public_ip }),
    );
    let absent = prop_oneof![Just(Absence::NotFlannel), Just(Absence::NoPodCidr), Just(Absence::NoVtep)];
    prop_oneof![
        8 => peer,
        1 => absent.prop_map(Standing::Absent),
        2 => proptest::option::weighted(0.8, any_subnet(family, names)).prop_map(unusable),
    ]
}

fn any_subnet(family: Family, names: u8) -> impl Strategy<Value = Subnet> {
    let odd: &[&str] = match family {
        Family::V4 => &[
            "10.244.2.0/23",
            "10.244.4.128/25",
            "10.250.1.0/24",
            "10.244.200.0/24",
            "10.244.0.0/16",
            "10.244.0.128/25",
        ],
        Family::V6 => &[
            "fd00:244:0:2::/63",
            "fd00:244:0:4:8000::/65",
            "fd00:250::/64",
            "fd00:244:0:c8::/64",
            "fd00:244::/48",
            "fd00:244:0:0:1::/80",
        ],
    };
    prop_oneof![
        8 => (0..=names).prop_map(move |n| pod_cidr(family, n)),
        2 => proptest::sample::select(odd).prop_map(cidr),
    ]
}

fn any_public_ip(family: Family, names: u8) -> impl Strategy<Value = std::net::IpAddr> {
    let odd: &[&str] = match family {
        Family::V4 => &["10.244.3.9", "10.244.0.7", "172.17.0.1", "127.0.0.1", "10.244.200.1"],
        Family::V6 => &["fd00:244:0:3::9", "fd00:244::7", "fd17::1", "::1", "fd00:244:0:c8::1"],
    };
    prop_oneof![
        10 => (1..=names + 1).prop_map(move |n| public_ip(family, n)),
        1 => proptest::sample::select(odd).prop_map(ip),
    ]
}
