//! Taking over from flanneld: what it left is kept, and nobody notices.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use weft::lab::netns::{Namespace, prepare};
use weft::lab::ping::{Stream, once};

use crate::cluster::{self, gateways, macs, pod_cidrs, public_ips};
use crate::flannel;
use crate::picture::Picture;
use crate::sandbox::{Event, Listener, sh, underlay};
use crate::world::{DEVICES, UNDERLAY, World, pictures, within};

crate::tests![flannels_state_is_taken_over_without_losing_a_packet];

const PEERS: u32 = 200;

fn flannels_state_is_taken_over_without_losing_a_packet() {
    prepare().expect("sysctls");
    let mut world = World::with_peers(PEERS);
    world.api.put_node(cluster::peer(0));
    flannel::lay(0, &macs(0), &(1..=PEERS));
    let remote = remote();
    let streams = streams();
    let before = pictures();
    let (events, after) = overheard(|| {
        world.start();
        within(Duration::from_secs(10), "no route of flannel's is left", || {
            let now = pictures();
            if now.iter().any(|picture| format!("{picture:?}").contains(r#""protocol":"boot""#)) {
                Err(now)
            } else {
                Ok(now)
            }
        })
    });
    for (family, stream) in [0, 1].into_iter().zip(streams) {
        let tally = stream.stop();
        println!("adoption: {} pings to {}, {} lost", tally.sent, pods()[family], tally.lost);
        assert!(tally.sent > 100 && tally.lost == 0, "{tally:?}");
        assert_eq!(without_routes(&before[family], "eui64"), without_routes(&after[family], "none"));
    }
    each_changes_form(&events);
    // Linux says nothing of a neighbour that is put in again as it is, so what was sent is counted too: a
    // new route for each peer and family, one IPv4 route less for each, and addrgenmode.
    let metrics = world.agent().metrics();
    assert_eq!(metrics.count("weft_netlink_messages_total", &[]), u64::from(3 * PEERS + 2), "{metrics:?}");
    drop(remote);
}

/// The pods of node 1.
pub(crate) fn pods() -> [String; 2] {
    gateways(1).map(|gateway| match gateway {
        std::net::IpAddr::V4(ip) => std::net::Ipv4Addr::from(u32::from(ip) + 10).to_string(),
        std::net::IpAddr::V6(ip) => std::net::Ipv6Addr::from(u128::from(ip) + 10).to_string(),
    })
}

/// A ping a millisecond from here to each of them, once they answer.
pub(crate) fn streams() -> [Stream; 2] {
    let here = Namespace::current().expect("a namespace");
    pods().map(|pod| {
        let ip = pod.parse().expect("an address");
        within(Duration::from_secs(10), "the remote pod answers", || {
            if once(ip, Duration::from_millis(200)).is_ok_and(|time| time.is_some()) {
                Ok(())
            } else {
                Err(pod.clone())
            }
        });
        Stream::start(&here, ip, Duration::from_millis(1)).expect("pings")
    })
}

/// Node 1, which flanneld runs on, at the other end of the underlay, with a pod.
pub(crate) fn remote() -> Namespace {
    let remote = Namespace::new().expect("a namespace");
    let process = std::fs::read_link("/proc/self").expect("/proc");
    sh(&format!("ip link set {UNDERLAY}-far netns /proc/{}/fd/{} name {UNDERLAY}", process.display(), remote.raw()));
    remote
        .run(|| {
            let [v4, v6] = public_ips(1);
            sh(&format!(
                "ip address add {v4}/16 dev {UNDERLAY}
                 ip address add {v6}/64 dev {UNDERLAY} nodad
                 ip link set {UNDERLAY} up"
            ));
            flannel::lay(1, &macs(1), &std::iter::once(0));
            underlay("cni0", &[]);
            for (pod, cidr) in pods().iter().zip(pod_cidrs(1)) {
                sh(&format!("ip address add {pod}/{} dev cni0", cidr.split_once('/').expect("a CIDR").1));
            }
        })
        .expect("a thread");
    remote
}

/// Runs something while listening to the kernel.
fn overheard<T>(body: impl FnOnce() -> T) -> (Vec<Event>, T) {
    let listener = Listener::start();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // As nobody in particular, a socket holds some 500 notifications: they are read as they come.
        let listening = scope.spawn(|| {
            let mut events = Vec::new();
            while !over.load(Ordering::Relaxed) {
                events.extend(listener.heard());
                std::thread::sleep(Duration::from_micros(200));
            }
            events.extend(listener.heard());
            events
        });
        let result = body();
        over.store(true, Ordering::Relaxed);
        (listening.join().expect("the listener"), result)
    })
}

/// Every peer's route changes form, the new one first; nothing else is written.
fn each_changes_form(events: &[Event]) {
    let mut routes: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut others: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for Event(what, of) in events {
        if what.ends_with("route") {
            routes.entry(of).or_default().push(what);
        } else if !is_of_the_underlay(of) {
            *others.entry((what, of)).or_default() += 1;
        }
    }
    for peer in 1..=PEERS {
        let [v4, v6] = pod_cidrs(peer);
        assert_eq!(routes.remove(&*v4).as_deref(), Some(&["new route", "del route"][..]), "{v4}");
        // Its key is the same: replaced in place.
        assert_eq!(routes.remove(&*v6).as_deref(), Some(&["new route"][..]), "{v6}");
    }
    assert!(routes.is_empty(), "{routes:?}");
    let addrgenmode: BTreeMap<_, _> = DEVICES.iter().map(|dev| (("new link", *dev), 1)).collect();
    assert_eq!(others, addrgenmode);
}

/// Neighbours on the underlay come and go with the encapsulated pings.
fn is_of_the_underlay(of: &str) -> bool {
    of.starts_with("172.16.") || of.starts_with("fd00:174:") || of.starts_with("fe80:")
}

/// The device without its routes to peers, and with this addrgenmode.
fn without_routes(picture: &Picture, mode: &str) -> Picture {
    let facts = picture.0.iter().filter(|fact| !fact.contains(r#""onlink""#));
    Picture(facts.map(|fact| fact.replace(&format!(r#"addr_gen_mode":"{mode}""#), r#"addr_gen_mode":"…""#)).collect())
}
