//! The files that tell of a host, under `/proc` and `/run`, and the one kind that is written: sysctls.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use super::{BRIDGE, Device, FORWARD, Seen};
use crate::model::addr::ByFamily;

/// Where things are; the root of the file system, except in tests.
#[derive(Clone, Debug)]
pub struct Places {
    /// `/proc/sys/net`.
    pub sysctls: PathBuf,
    /// `/proc/net`, for the default routes.
    pub routes: PathBuf,
    /// `/run`.
    pub run: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        // Of the calling thread's namespace; /proc/net is the first thread's.
        Self { sysctls: "/proc/sys/net".into(), routes: "/proc/thread-self/net".into(), run: "/run".into() }
    }
}

/// Sets it. Whether the host's `/proc/sys` can be written.
pub fn cure(places: &Places, path: &str) -> bool {
    fs::write(places.sysctls.join(path), "1").is_ok()
}

/// Looks. Of enabled families only, and these devices of ours.
pub fn look(places: &Places, enabled: ByFamily<bool>, devices: &[Device]) -> Seen {
    let sysctl = |path: &str| fs::read_to_string(places.sysctls.join(path)).ok();
    let is_on = |path: &str| sysctl(path).map(|text| text.trim() != "0");
    let switch = |paths: ByFamily<&str>| {
        ByFamily::from_fn(|family| if *enabled.get(family) { is_on(paths.get(family)) } else { None })
    };
    let managed = |by: fn(&Path, u32) -> bool| {
        let managed = devices.iter().filter(|device| device.index.is_some_and(|index| by(&places.run, index)));
        managed.map(|device| device.name.clone()).collect()
    };
    let forwards = switch(FORWARD);
    // On a host that forwards it makes no difference, and among 5,000 nodes there are 10,000 routes to read.
    let heeds = if forwards.v6 == Some(false) { advertised(places) } else { None };
    Seen {
        forwards,
        heeds_advertisements: heeds,
        bridge_netfilter: switch(BRIDGE),
        networkd: managed(by_networkd),
        network_manager: managed(by_network_manager),
        strict: strict_ones(places, &sysctl, devices),
    }
}

/// Linux takes the larger of the interface's and that of `all` (net/ipv4/fib_frontend.c). Strict does no harm
/// where every route back leaves by the underlay anyway.
fn strict_ones(places: &Places, sysctl: &impl Fn(&str) -> Option<String>, devices: &[Device]) -> Vec<String> {
    let value = |name: &str| -> u8 {
        sysctl(&format!("ipv4/conf/{name}/rp_filter")).and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    };
    let mut names: Vec<&String> = devices.iter().map(|device| &device.underlay).collect();
    names.sort();
    names.dedup();
    names.retain(|name| value("all").max(value(name)) == 1);
    // The routes last: there may be thousands, and mostly nobody is strict.
    let Some(default) = (!names.is_empty()).then(|| default_by(places)).flatten() else { return Vec::new() };
    names.into_iter().filter(|name| **name != default).cloned().collect()
}

/// The interface of the first IPv4 default route. Linux tells it before the others, so that little is read.
fn default_by(places: &Places) -> Option<String> {
    let routes = BufReader::new(File::open(places.routes.join("route")).ok()?);
    routes.lines().map_while(Result::ok).find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [device, "00000000", _, _, _, _, _, "00000000", ..] = words[..] else { return None };
        Some(device.to_owned())
    })
}

/// Of which programs nothing can be told here, in sentences: where they keep what they manage cannot be seen. In a
/// container that may be for want of a mount, and then they may manage our devices all the same.
pub fn unseen(places: &Places) -> Vec<String> {
    let told_by = [("systemd-networkd", "systemd/netif"), ("NetworkManager", "NetworkManager/devices")];
    let hidden = told_by.iter().map(|(who, path)| (who, places.run.join(path))).filter(|(_, path)| !path.is_dir());
    hidden
        .map(|(who, path)| {
            format!(
                "whether {who} manages weft's devices is not known: {} is not there; right on a host without {who}, else \
                 mount it into the container, read-only",
                path.display()
            )
        })
        .collect()
}

/// networkd keeps a file for each interface that it knows; one that it leaves alone is `unmanaged`.
fn by_networkd(run: &Path, index: u32) -> bool {
    let text = fs::read_to_string(run.join(format!("systemd/netif/links/{index}"))).unwrap_or_default();
    text.lines().any(|line| matches!(line, "ADMIN_STATE=configured" | "ADMIN_STATE=configuring" | "ADMIN_STATE=failed"))
}

/// NetworkManager's file says `managed` only of an interface that it was told about, not of one that it
/// only watches.
fn by_network_manager(run: &Path, index: u32) -> bool {
    let text = fs::read_to_string(run.join(format!("NetworkManager/devices/{index}"))).unwrap_or_default();
    text.lines().any(|line| matches!(line, "managed=true" | "managed=1"))
}

/// The interface of a default route that came by router advertisement (RTF_ADDRCONF), unless it listens to them on
/// a host that forwards too (`accept_ra` 2).
fn advertised(places: &Places) -> Option<String> {
    const RTF_ADDRCONF: u32 = 0x0004_0000;
    let routes = fs::read_to_string(places.routes.join("ipv6_route")).ok()?;
    routes.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [destination, "00", .., flags, device] = words[..] else { return None };
        let from_router = u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & RTF_ADDRCONF != 0);
        let accepts = fs::read_to_string(places.sysctls.join(format!("ipv6/conf/{device}/accept_ra")));
        let for_ever = accepts.is_ok_and(|text| text.trim() == "2");
        (destination.bytes().all(|digit| digit == b'0') && from_router && !for_ever).then(|| device.to_owned())
    })
}
