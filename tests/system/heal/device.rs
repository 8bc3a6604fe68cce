//! The device itself: down, gone, another, changed.

use super::Disturbance;
use super::site::{Side, Site};
use crate::sandbox::{json, sh};
use crate::world::UNDERLAY;

crate::tests![
    a_device_set_down_comes_up,
    a_device_set_down_and_up_gets_its_routes_back,
    a_deleted_device_is_made_again,
    a_device_with_another_vni_is_replaced,
    a_device_with_another_port_is_replaced,
    a_device_with_another_mac_is_corrected,
    a_changed_mac_is_corrected,
    a_changed_mtu_is_corrected,
    an_mtu_without_room_for_ipv6_is_corrected,
    a_changed_local_address_is_corrected,
    a_removed_address_comes_back,
    all_addresses_removed_come_back,
    an_extra_address_goes,
    ipv6_switched_off_comes_on,
    ipv6_switched_off_and_on_costs_nothing_for_long,
];

const CHANGED: &[(&str, &str)] = &[("device", "drift_changed")];
/// The device is right by itself; its rows are not.
const ROUTES_DELETED: &[(&str, &str)] = &[("route", "drift_deleted")];

fn a_device_set_down_comes_up() {
    Disturbance::new("link down", &[("device", "drift_changed"), ("route", "drift_deleted")]).taking().heals(
        |_, side, _| {
            sh(&format!("ip link set {} down", side.dev()));
        },
    );
}

fn a_device_set_down_and_up_gets_its_routes_back() {
    Disturbance::new("link down and up", ROUTES_DELETED).taking().heals(|site, side, _| {
        site.behind_its_back(&format!("ip link set {0} down\n ip link set {0} up", side.dev()));
    });
}

fn a_deleted_device_is_made_again() {
    let counted = &[("device", "drift_deleted"), ("fdb", "drift_deleted"), ("route", "drift_deleted")];
    Disturbance::new("device deleted", counted).taking().heals(|_, side, _| {
        sh(&format!("ip link del {}", side.dev()));
    });
}

fn a_device_with_another_vni_is_replaced() {
    Disturbance::new("device replaced: another VNI", CHANGED).taking().heals(|site, side, _| {
        replace(site, side, &mac_of(side), "id 77 dstport 8472");
    });
}

fn a_device_with_another_port_is_replaced() {
    Disturbance::new("device replaced: another port", CHANGED).taking().heals(|site, side, _| {
        replace(site, side, &mac_of(side), "id 1 dstport 4789");
    });
}

fn a_device_with_another_mac_is_corrected() {
    Disturbance::new("device replaced: another MAC", CHANGED).taking().heals(|site, side, _| {
        // A device that is otherwise right keeps its checksum, so it must have weft's here.
        let checksum = if matches!(side, Side::V4) { "noudpcsum" } else { "udpcsum" };
        replace(site, side, "0a:00:00:00:00:42", &format!("id 1 dstport 8472 {checksum}"));
    });
}

/// Puts another device in the place of ours, before weft can see that it is gone.
fn replace(site: &mut Site, side: Side, mac: &str, vxlan: &str) {
    let (dev, local) = (side.dev(), side.public_ip(0));
    site.behind_its_back(&format!(
        "ip link del {dev}
         ip link add {dev} txqueuelen 0 address {mac} type vxlan {vxlan} local {local} dev {UNDERLAY} nolearning
         ip link set {dev} up"
    ));
}

fn mac_of(side: Side) -> String {
    json(&format!("ip -j link show dev {}", side.dev()))[0]["address"].as_str().expect("a MAC").to_owned()
}

fn a_changed_mac_is_corrected() {
    Disturbance::new("MAC changed", &[("device", "drift_changed"), ("neighbour", "drift_deleted")]).heals(
        |_, side, _| {
            sh(&format!("ip link set {} address 0a:00:00:00:00:42", side.dev()));
        },
    );
}

fn a_changed_mtu_is_corrected() {
    Disturbance::new("MTU changed", CHANGED).heals(|_, side, _| {
        sh(&format!("ip link set {} mtu 1300", side.dev()));
    });
}

fn an_mtu_without_room_for_ipv6_is_corrected() {
    // Below 1280 bytes Linux takes IPv6 away from a device.
    Disturbance::new("MTU changed to less than 1280", CHANGED).taking().heals(|_, side, _| {
        sh(&format!("ip link set {} mtu 1200", side.dev()));
    });
}

fn a_changed_local_address_is_corrected() {
    Disturbance::new("local changed", CHANGED).heals(|_, side, round| {
        let (dev, elsewhere) = (side.dev(), side.public_ip(90 + round));
        sh(&format!("ip link set {dev} type vxlan id 1 dev {UNDERLAY} local {elsewhere}"));
    });
}

fn a_removed_address_comes_back() {
    Disturbance::new("address removed", &[("device", "drift_deleted")]).heals(|_, side, _| {
        sh(&format!("ip address del {}/{} dev {}", side.gateway(0), side.full(), side.dev()));
    });
}

fn all_addresses_removed_come_back() {
    // With its last address an interface loses its IPv4 routes, and neighbours.
    Disturbance::new("all addresses removed", &[("device", "drift_deleted")]).taking().heals(|_, side, _| {
        sh(&format!("ip address flush dev {}", side.dev()));
    });
}

fn an_extra_address_goes() {
    Disturbance::new("address of the pod network added", &[("device", "drift_added")]).heals(|_, side, round| {
        sh(&format!("ip address add {}/{} dev {}", side.gateway(3000 + round), side.full(), side.dev()));
    });
}

fn ipv6_switched_off_comes_on() {
    let counted = &[("device", "drift_changed"), ("route", "drift_deleted")];
    Disturbance::new("IPv6 disabled", counted).taking().only(&[Side::V6]).heals(|_, side, _| {
        sh(&disable_ipv6(side, 1));
    });
}

fn ipv6_switched_off_and_on_costs_nothing_for_long() {
    Disturbance::new("IPv6 disabled and enabled", ROUTES_DELETED).taking().only(&[Side::V6]).heals(|site, side, _| {
        site.behind_its_back(&[disable_ipv6(side, 1), disable_ipv6(side, 0)].join("\n"));
    });
}

fn disable_ipv6(side: Side, off: u8) -> String {
    // A dot in an interface's name is a slash for sysctl.
    format!("sysctl -q net.ipv6.conf.{}.disable_ipv6={off}", side.dev().replace('.', "/"))
}
