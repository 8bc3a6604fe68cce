//! The lab's machines, pods and pings, without any agent.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use weft::lab::addressing::{Addressing, Stack};
use weft::lab::link::Links;
use weft::lab::netns::Namespace;
use weft::lab::ping::{self, Stream};
use weft::lab::topology::{Machine, Underlay};

use crate::sandbox::{json, try_sh};

crate::tests![
    machines_reach_each_other_and_their_pods,
    a_machine_that_is_removed_is_gone,
    a_stream_counts_what_is_lost_and_for_how_long,
    a_stream_keeps_its_rhythm,
    a_command_started_in_a_namespace_stays_there,
];

fn two(stack: Stack) -> (Underlay, Machine, Machine) {
    let underlay = Underlay::build(Addressing { stack, segments: 1 }).expect("a bridge");
    let first = underlay.add(1).expect("a machine");
    let second = underlay.add(2).expect("another");
    (underlay, first, second)
}

fn pings(from: &Namespace, to: IpAddr) -> bool {
    from.run(|| ping::once(to, Duration::from_secs(2))).expect("a thread").is_ok_and(|time| time.is_some())
}

fn machines_reach_each_other_and_their_pods() {
    for stack in [Stack::V4, Stack::V6, Stack::Dual] {
        Namespace::new()
            .expect("a namespace")
            .run(move || {
                let (underlay, first, second) = two(stack);
                for (ip, _) in underlay.addressing().machine(2).into_iter().chain(underlay.addressing().gateway(1)) {
                    assert!(pings(&first.network, ip), "{ip} from node-1");
                }
                assert_eq!(first.pod.addresses.len(), if stack == Stack::Dual { 2 } else { 1 });
                for ip in &first.pod.addresses {
                    assert!(pings(&first.network, *ip), "{ip} from its machine");
                    assert!(
                        !second
                            .network
                            .run(|| ping::once(*ip, Duration::from_millis(50)).is_ok_and(|t| t.is_some()))
                            .unwrap()
                    );
                }
                for (ip, _) in underlay.addressing().inside(1, 1) {
                    assert!(pings(&first.pod.network, ip), "{ip} from the pod");
                }
            })
            .expect("a thread");
    }
}

fn a_machine_that_is_removed_is_gone() {
    let (underlay, _first, second) = two(Stack::V4);
    let links = || json("ip -j link show type veth").len();
    assert_eq!(links(), 2);
    underlay.remove(&second).expect("to remove");
    assert_eq!(links(), 1);
    let again = underlay.add(2).expect("the same number again");
    assert!(pings(&again.network, underlay.address()));
}

fn a_stream_counts_what_is_lost_and_for_how_long() {
    let (_underlay, first, second) = two(Stack::V4);
    let target = "192.168.174.12".parse().unwrap();
    let stream = Stream::start(&first.network, target, Duration::from_millis(1)).expect("a stream");
    let set = |up: bool| {
        second.network.run(move || {
            let mut links = Links::open()?;
            if up { links.up("eth0") } else { links.down("eth0") }
        })
    };
    std::thread::sleep(Duration::from_millis(50));
    set(false).unwrap().unwrap();
    let down = Instant::now();
    std::thread::sleep(Duration::from_millis(100));
    let least = down.elapsed();
    set(true).unwrap().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let tally = stream.stop();
    assert!(tally.sent >= 100 && tally.lost >= 20, "{tally:?}");
    assert!(tally.longest_gap >= least.mul_f64(0.9) && tally.longest_gap < Duration::from_secs(2), "{tally:?}");
}

fn a_stream_keeps_its_rhythm() {
    let (_underlay, first, _second) = two(Stack::V4);
    let target = "192.168.174.12".parse().unwrap();
    let stream = Stream::start(&first.network, target, Duration::from_millis(1)).expect("a stream");
    std::thread::sleep(Duration::from_millis(300));
    let tally = stream.stop();
    assert_eq!(tally.lost, 0, "{tally:?}");
    assert!((100..=320).contains(&tally.sent), "{tally:?}");
}

fn a_command_started_in_a_namespace_stays_there() {
    let (_underlay, first, _second) = two(Stack::V4);
    let own = try_sh("readlink /proc/self/ns/net").unwrap();
    let inner = first.network.run(|| try_sh("readlink /proc/self/ns/net").unwrap()).unwrap();
    assert_ne!(own, inner);
    assert_eq!(try_sh("readlink /proc/self/ns/net").unwrap(), own, "the caller has not moved");
}
