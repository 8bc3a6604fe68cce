//! The ground moves: another interface, another name, another MTU. The devices follow in place, keep their
//! rows, and the node announces itself anew.

use std::time::Duration;

use serde_json::Value;

use weft::lab::apiserver::Verb;

use crate::cluster::public_ips;
use crate::sandbox::{json, sh, underlay};
use crate::stage::{Facts, Rows, difference, kernel};
use crate::world::{DEVICES, UNDERLAY, World, add_default_routes, within};

crate::tests![
    the_default_route_moves_to_another_interface_and_back,
    the_route_of_iface_can_reach_moves,
    an_underlay_changes_its_mtu_and_everything_follows,
    an_underlay_changes_its_name,
    behind_nat_the_announced_address_stays,
    what_appears_beside_or_is_away_for_a_moment_moves_nothing,
];

/// Well below the slow timer: only a notification is as fast. A route has to stand for five seconds first.
const SOON: Duration = Duration::from_secs(20);
const PEERS: u32 = 20;
const OTHER: &str = "eth1";

fn rows() -> Rows {
    (1..=PEERS).flat_map(|number| Facts::of(number).rows()).collect()
}

/// Waits until both devices are over this interface, from these addresses, with this outer MTU; the rows must be
/// there, and the devices the same ones as before.
fn follows(world: &World, before: &[Value; 2], name: &str, locals: [&str; 2], mtu: u64, what: &str) {
    within(SOON, what, || {
        let now = devices();
        for (family, device) in now.iter().enumerate() {
            let data = &device["linkinfo"]["info_data"];
            let local = ["local", "local6"].iter().find_map(|key| data[*key].as_str());
            let right = data["link"] == name
                && local == Some(locals[family])
                && device["mtu"] == mtu - [50, 70][family]
                && device["ifindex"] == before[family]["ifindex"];
            if !right {
                return Err(format!("{device:#}"));
            }
        }
        difference(&kernel(), &rows())?;
        let env = std::fs::read_to_string(world.directory.join("subnet.env")).map_err(|error| error.to_string())?;
        if env.contains(&format!("FLANNEL_MTU={}\n", mtu - 70)) { Ok(()) } else { Err(env) }
    });
}

fn devices() -> [Value; 2] {
    DEVICES.map(|name| json(&format!("ip -j -d link show {name}")).remove(0))
}

fn announces(world: &World, ips: [&str; 2]) {
    within(SOON, "the announcement", || {
        let said = ["public-ip", "public-ipv6"].map(|key| world.own_annotation(key).unwrap_or_default());
        if said == ips { Ok(()) } else { Err(said) }
    });
}

fn own() -> [String; 2] {
    public_ips(0).map(|ip| ip.to_string())
}

/// A second underlay with smaller packets.
fn make_other() -> [&'static str; 2] {
    underlay(OTHER, &["172.17.0.1/16", "fd00:175::1/64"]);
    sh(&format!("ip link set {OTHER} mtu 1400"));
    ["172.17.0.1", "fd00:175::1"]
}

fn the_default_route_moves_to_another_interface_and_back() {
    let mut world = World::with_peers(PEERS);
    let other = make_other();
    world.start();
    let before = devices();
    let [v4, v6] = own();
    sh(&format!(
        "ip route replace default via 172.17.255.254 dev {OTHER}
         ip -6 route del default
         ip -6 route add default via fd00:175::ffff dev {OTHER}"
    ));
    follows(&world, &before, OTHER, other, 1400, "the default route is by the other");
    announces(&world, other);
    sh("ip -6 route del default");
    add_default_routes();
    follows(&world, &before, UNDERLAY, [&v4, &v6], 1500, "the default route is by the first");
    announces(&world, [&v4, &v6]);
    assert_eq!(world.agent().metrics().count("weft_changes_total", &[("cause", "drift_deleted")]), 0);
}

fn the_route_of_iface_can_reach_moves() {
    let mut world = World::with_peers(PEERS);
    let other = make_other();
    sh("ip route add 198.51.100.0/24 via 172.16.255.254");
    world.arguments.extend(["--iface-can-reach", "198.51.100.7"].map(str::to_owned));
    world.start();
    let before = devices();
    let [v4, v6] = own();
    follows(&world, &before, UNDERLAY, [&v4, &v6], 1500, "the first route");
    sh("ip route add 198.51.100.7/32 via 172.17.255.254");
    follows(&world, &before, OTHER, other, 1400, "a more special route");
    announces(&world, other);
    sh("ip route del 198.51.100.7/32");
    follows(&world, &before, UNDERLAY, [&v4, &v6], 1500, "it is gone");
}

fn an_underlay_changes_its_mtu_and_everything_follows() {
    let mut world = World::with_peers(PEERS);
    world.start();
    let before = devices();
    let [v4, v6] = own();
    for mtu in [1400, 9000, 1500] {
        sh(&format!("ip link set {UNDERLAY} mtu {mtu}"));
        follows(&world, &before, UNDERLAY, [&v4, &v6], mtu, "the MTU");
    }
}

fn an_underlay_changes_its_name() {
    let mut world = World::with_peers(PEERS);
    world.start();
    let before = devices();
    let [v4, v6] = own();
    // As udev does it; a link that goes down loses its IPv6 address and the routes.
    sh(&format!(
        "ip link set {UNDERLAY} down
         ip link set {UNDERLAY} name ens5
         ip link set ens5 up
         ip address add {v6}/64 dev ens5 nodad
         ip route replace default via 172.16.255.254 dev ens5
         ip -6 route replace default via fd00:174::ffff dev ens5"
    ));
    follows(&world, &before, "ens5", [&v4, &v6], 1500, "another name");
    within(SOON, "the name is shown", || {
        let state = world.agent().state();
        let shown = ["ipv4", "ipv6"].map(|family| state["families"][family]["device"]["underlay"].clone());
        if shown == ["ens5", "ens5"] { Ok(()) } else { Err(shown) }
    });
}

fn behind_nat_the_announced_address_stays() {
    let mut world = World::with_peers(PEERS);
    let public = ["203.0.113.9", "2001:db8::9"];
    let flags = ["--public-ip", public[0], "--public-ipv6", public[1]];
    world.arguments.extend(flags.map(str::to_owned));
    world.start();
    let before = devices();
    let [v4, v6] = own();
    follows(&world, &before, UNDERLAY, [&v4, &v6], 1500, "an address of the host is the source");
    announces(&world, public);
    sh(&format!(
        "ip address del {v4}/16 dev {UNDERLAY}
         ip address add 172.16.0.99/16 dev {UNDERLAY}
         ip address add fd00:174::99/64 dev {UNDERLAY} nodad
         ip address del {v6}/64 dev {UNDERLAY}"
    ));
    add_default_routes();
    follows(&world, &before, UNDERLAY, ["172.16.0.99", "fd00:174::99"], 1500, "the source follows");
    announces(&world, public);
}

/// Waits until a pass has ended that began after now.
fn looked(world: &mut World) {
    let passes = |world: &mut World| world.agent().metrics().count("weft_passes_total", &[]);
    let before = passes(world);
    within(SOON, "two passes more", || match passes(world) {
        now if now >= before + 2 => Ok(()),
        now => Err((before, now)),
    });
}

fn until_said(world: &mut World, text: &str, times: usize) {
    within(SOON, text, || {
        let log = world.agent().log();
        if log.iter().filter(|line| line.contains(text)).count() == times { Ok(()) } else { Err(log) }
    });
}

/// As keepalived or kube-vip do it, a router that renumbers, and a DHCP client that starts again.
fn what_appears_beside_or_is_away_for_a_moment_moves_nothing() {
    let mut world = World::with_peers(PEERS);
    make_other();
    let [v4, v6] = own();
    sh(&format!(
        "ip route add default via 172.17.255.254 dev {OTHER} metric 2000
         ip -6 route add default via fd00:175::ffff dev {OTHER} metric 2000
         ip address change {v4}/16 dev {UNDERLAY} valid_lft 3600 preferred_lft 3600
         ip -6 address change {v6}/64 dev {UNDERLAY} valid_lft 3600 preferred_lft 3600"
    ));
    world.arguments.extend(["--resync-period", "1s"].map(str::to_owned));
    world.start();
    let changes = |world: &mut World| world.agent().metrics().count("weft_changes_total", &[("table", "device")]);
    let (before, made) = (devices(), changes(&mut world));
    world.api.clear_log();
    let floating = ["172.16.200.200/32", "fd00:174::200/128"];
    sh(&format!(
        "ip address add {} dev {UNDERLAY}
         ip -6 address add {} dev {UNDERLAY} nodad
         ip address change {v4}/16 dev {UNDERLAY} valid_lft 3600 preferred_lft 0
         ip -6 address change {v6}/64 dev {UNDERLAY} valid_lft 3600 preferred_lft 0",
        floating[0], floating[1],
    ));
    looked(&mut world);
    sh(&format!(
        "ip route del default via 172.16.255.254 dev {UNDERLAY}
         ip -6 route del default via fd00:174::ffff dev {UNDERLAY}"
    ));
    for (family, device) in ["ipv4", "ipv6"].into_iter().zip(DEVICES) {
        until_said(
            &mut world,
            &format!("WARN {family}: routes lead by {OTHER} now; {device} stays over {UNDERLAY}"),
            1,
        );
    }
    add_default_routes();
    until_said(&mut world, &format!("no longer so: routes lead by {OTHER} now"), 2);
    looked(&mut world);
    assert_eq!((devices(), changes(&mut world)), (before.clone(), made));
    // Another process comes to the same.
    world.take_agent().terminate();
    world.start();
    looked(&mut world);
    assert_eq!((devices(), changes(&mut world)), (before, 0));
    assert_eq!(world.api.count(Verb::Patch), 0, "announced");
}
