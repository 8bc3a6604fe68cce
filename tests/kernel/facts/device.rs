//! How a VXLAN device is made and changed.

use super::{ALL, CREATE_V4, CREATE_V6, DEVICES, count, devices, devices_with_a_peer, host, link, refused};
use crate::sandbox::{json, sh, try_sh};

crate::tests![
    a_device_has_port_8472_and_an_outer_checksum_unless_told_otherwise,
    addrgenmode_is_refused_in_the_message_that_makes_the_device,
    a_device_that_comes_up_makes_a_link_local_address_unless_addrgenmode_is_none,
    a_device_is_made_no_bigger_than_its_underlay_carries,
    a_device_cannot_be_made_bigger_than_its_underlay_carries,
    a_smaller_underlay_leaves_the_devices_mtu_alone,
    local_underlay_and_learning_change_in_place_and_nothing_is_lost,
    vni_port_checksum_and_gbp_cannot_be_changed,
    local_cannot_change_to_the_other_family,
    one_vni_and_port_belong_to_one_device,
    gbp_and_plain_devices_cannot_share_a_port,
    a_multicast_mac_is_refused,
    a_device_goes_with_its_underlay,
    below_1280_bytes_there_is_no_ipv6,
    a_local_address_that_the_host_does_not_have_is_taken,
];

fn a_device_has_port_8472_and_an_outer_checksum_unless_told_otherwise() {
    host();
    // iproute2 itself warns and takes 8472; flannel sends no port at all.
    sh("ip link add flannel.1 address 0a:00:00:00:00:09 type vxlan id 1 dev eth0 local 192.168.174.1 nolearning");
    let link = link("flannel.1");
    let data = &link["linkinfo"]["info_data"];
    assert_eq!(data["port"], 8472);
    assert_eq!(data["udp_csum"], true);
    assert_eq!(
        std::fs::read_to_string("/sys/class/net/flannel.1/addr_assign_type")
            .map_or(3, |text| text.trim().parse().unwrap()),
        3
    );
}

fn addrgenmode_is_refused_in_the_message_that_makes_the_device() {
    host();
    let (start, end) = CREATE_V4.split_at("ip link add flannel.1 ".len());
    refused(&format!("{start}addrgenmode none {end}"), "not supported");
    sh(CREATE_V4);
}

fn a_device_that_comes_up_makes_a_link_local_address_unless_addrgenmode_is_none() {
    host();
    sh(CREATE_V4);
    sh(CREATE_V6);
    sh("ip link set flannel.1 up
        ip link set flannel-v6.1 addrgenmode none
        ip link set flannel-v6.1 up");
    let local = |device| json(&format!("ip -j -6 address show dev {device} scope link")).len();
    assert_eq!((local("flannel.1"), local("flannel-v6.1")), (1, 0));
}

fn a_device_is_made_no_bigger_than_its_underlay_carries() {
    host();
    sh(&CREATE_V4.replace("txqueuelen 0", "mtu 1480"));
    sh(&CREATE_V6.replace("txqueuelen 0", "mtu 1450"));
    assert_eq!(DEVICES.map(|device| link(device)["mtu"].as_u64()), [Some(1450), Some(1430)]);
}

fn a_device_cannot_be_made_bigger_than_its_underlay_carries() {
    devices();
    refused("ip link set flannel.1 mtu 1451", "Invalid argument");
    refused("ip link set flannel-v6.1 mtu 1431", "Invalid argument");
    refused("ip link set flannel.1 mtu 67", "less than device minimum");
    sh("ip link set flannel.1 mtu 1400");
}

fn a_smaller_underlay_leaves_the_devices_mtu_alone() {
    devices();
    sh("ip link set eth0 mtu 1400");
    assert_eq!(link("flannel.1")["mtu"], 1450);
}

fn local_underlay_and_learning_change_in_place_and_nothing_is_lost() {
    devices_with_a_peer();
    sh("ip address add 192.168.174.9/24 dev eth0
        ip link add eth1 type veth peer name eth1-far
        ip link set eth1 up
        ip link set flannel.1 type vxlan local 192.168.174.9
        ip link set flannel.1 type vxlan dev eth1
        ip link set flannel.1 type vxlan learning
        ip link set flannel.1 mtu 1400");
    let link = link("flannel.1");
    let data = &link["linkinfo"]["info_data"];
    assert_eq!(
        (&data["local"], &data["link"], &data["learning"]),
        (&"192.168.174.9".into(), &"eth1".into(), &true.into())
    );
    assert_eq!(count("flannel.1"), ALL);
}

fn vni_port_checksum_and_gbp_cannot_be_changed() {
    devices();
    for option in ["id 2", "dstport 4789", "noudpcsum", "gbp"] {
        refused(&format!("ip link set flannel.1 type vxlan {option}"), "annot change");
    }
}

fn local_cannot_change_to_the_other_family() {
    devices();
    refused("ip link set flannel.1 type vxlan local fd00:174::1", "");
}

fn one_vni_and_port_belong_to_one_device() {
    devices();
    refused(&CREATE_V4.replace("flannel.1", "other"), "exists");
    sh(&CREATE_V4.replace("flannel.1", "other").replace("8472", "4789"));
}

fn gbp_and_plain_devices_cannot_share_a_port() {
    devices();
    let other = CREATE_V4.replace("flannel.1", "other").replace("id 1", "id 2");
    // Told at creation or when it comes up, depending on the kernel.
    let made = try_sh(&format!("{other} gbp")).and_then(|_| try_sh("ip link set other up"));
    assert!(made.is_err_and(|error| error.contains("in use")));
}

fn a_multicast_mac_is_refused() {
    devices();
    refused("ip link set flannel.1 address 01:00:5e:00:00:01", "Cannot assign requested address");
}

fn a_device_goes_with_its_underlay() {
    devices();
    sh("ip link add free type vxlan id 3 local 192.168.174.1 dstport 8472 nolearning");
    sh("ip link del eth0");
    for device in DEVICES {
        refused(&format!("ip link show {device}"), "does not exist");
    }
    // The one that was not bound to it stays.
    sh("ip link show free");
}

fn below_1280_bytes_there_is_no_ipv6() {
    devices();
    sh("ip link set flannel-v6.1 mtu 1279");
    assert!(!std::path::Path::new("/proc/sys/net/ipv6/conf/flannel-v6.1").exists());
    assert_eq!(count("flannel-v6.1").addresses, 0);
    sh("ip link set flannel-v6.1 mtu 1430");
    assert!(std::path::Path::new("/proc/sys/net/ipv6/conf/flannel-v6.1").exists());
    // It comes back with its defaults: a link-local address again, and ours is gone.
    assert_eq!(json("ip -j -6 address show dev flannel-v6.1 scope link").len(), 1);
    assert_eq!(count("flannel-v6.1").addresses, 0);
}

fn a_local_address_that_the_host_does_not_have_is_taken() {
    host();
    sh(&CREATE_V4.replace("192.168.174.1", "192.0.2.1"));
    sh("ip link set flannel.1 up");
}
