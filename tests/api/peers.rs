//! What is known of the nodes does not depend on how it was learnt.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;
use weft::cluster::annotations::{DEFAULT_PREFIX, Keys};
use weft::cluster::peers::{Peers, Seen, Viewpoint};
use weft::cluster::wire::SlimNode;
use weft::model::addr::Vni;
use weft::model::node::Snapshot;

/// Few names and few variants, so that they meet; node 0 is our own.
const NAMES: u8 = 5;
const VARIANTS: u8 = 4;

fn see(name: u8, variant: u8) -> Seen {
    let keys = Keys::new(DEFAULT_PREFIX).unwrap();
    let node = json!({
        "metadata": {
            "name": format!("n{name}"), "uid": format!("u{name}"),
            "annotations": {
                "flannel.alpha.coreos.com/kube-subnet-manager": if variant == 3 { "false" } else { "true" },
                "flannel.alpha.coreos.com/backend-type": "vxlan",
                "flannel.alpha.coreos.com/backend-data": format!("{{\"VtepMAC\":\"02:00:00:00:00:0{variant}\"}}"),
                "flannel.alpha.coreos.com/public-ip": if variant == 2 { "nonsense" } else { "192.168.0.1" },
            },
        },
        "spec": { "podCIDR": format!("10.244.{name}.0/24") },
    });
    let view = Viewpoint { own: "n0".into(), vni: Vni::new(1) };
    view.see(&SlimNode::read(&keys, node.to_string().as_bytes()).unwrap())
}

/// What happens in the cluster, or to our connection.
#[derive(Clone, Debug)]
enum Step {
    /// A node is made or changed; the event comes.
    Put(u8, u8),
    /// A node goes; the event comes.
    Remove(u8),
    /// An event of what is already so.
    Again(u8),
    /// The watch is away while these happen; then there is a list.
    Relist(Vec<(u8, Option<u8>)>),
    /// A list begins, and breaks off after so many nodes.
    Interrupted(usize),
    /// A list begins, breaks off, and another begins and ends.
    Restarted(usize),
    /// As a streaming list has it: changes come in between.
    Streamed(usize, u8, Option<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0..NAMES;
    let change = (0..NAMES, proptest::option::of(0..VARIANTS));
    prop_oneof![
        4 => (node.clone(), 0..VARIANTS).prop_map(|(n, v)| Step::Put(n, v)),
        2 => node.clone().prop_map(Step::Remove),
        1 => node.clone().prop_map(Step::Again),
        1 => proptest::collection::vec(change, 0..6).prop_map(Step::Relist),
        1 => (0_usize..6).prop_map(Step::Interrupted),
        1 => (0_usize..6).prop_map(Step::Restarted),
        1 => (0_usize..6, node, proptest::option::of(0..VARIANTS)).prop_map(|(at, n, v)| Step::Streamed(at, n, v)),
    ]
}

type Truth = BTreeMap<u8, u8>;

fn set(truth: &mut Truth, name: u8, variant: Option<u8>) {
    match variant {
        Some(variant) => drop(truth.insert(name, variant)),
        None => drop(truth.remove(&name)),
    }
}

fn stage(peers: &mut Peers, truth: &Truth, count: usize) {
    peers.begin();
    for (name, variant) in truth.iter().take(count) {
        peers.apply(see(*name, *variant));
    }
}

fn list(peers: &mut Peers, truth: &Truth) {
    stage(peers, truth, usize::MAX);
    peers.swap().unwrap();
}

fn play(peers: &mut Peers, truth: &mut Truth, step: &Step) {
    match step {
        Step::Put(name, variant) => {
            truth.insert(*name, *variant);
            peers.apply(see(*name, *variant));
        }
        Step::Remove(name) => {
            truth.remove(name);
            peers.delete(&format!("n{name}"));
        }
        Step::Again(name) => match truth.get(name) {
            Some(variant) => assert!(!peers.apply(see(*name, *variant))),
            None => assert!(!peers.delete(&format!("n{name}"))),
        },
        Step::Relist(changes) => {
            for (name, variant) in changes {
                set(truth, *name, *variant);
            }
            list(peers, truth);
        }
        Step::Interrupted(count) => {
            stage(peers, truth, *count);
            peers.abandon();
        }
        Step::Restarted(count) => {
            stage(peers, truth, *count);
            list(peers, truth);
        }
        Step::Streamed(at, name, variant) => {
            stage(peers, truth, *at);
            let late: Vec<_> = truth.iter().skip(*at).map(|(n, v)| (*n, *v)).collect();
            set(truth, *name, *variant);
            match variant {
                Some(variant) => drop(peers.apply(see(*name, *variant))),
                None => drop(peers.delete(&format!("n{name}"))),
            }
            for (other, v) in late.into_iter().filter(|(other, _)| other != name) {
                peers.apply(see(other, v));
            }
            peers.swap().unwrap();
        }
    }
}

fn content(
    snapshot: &Snapshot,
) -> (&BTreeMap<weft::model::node::NodeName, std::sync::Arc<weft::model::NodeRecord>>, bool, bool) {
    (&snapshot.nodes, snapshot.own.is_some(), snapshot.complete)
}

proptest! {
    #[test]
    fn the_same_nodes_are_known_by_every_path(steps in proptest::collection::vec(step(), 0..40)) {
        let (mut peers, mut truth) = (Peers::default(), Truth::new());
        list(&mut peers, &truth);
        for step in &steps {
            let before = peers.snapshot().clone();
            play(&mut peers, &mut truth, step);
            let after = peers.snapshot();
            let changed = (&before.nodes, &before.own) != (&after.nodes, &after.own);
            prop_assert_eq!(changed, after.generation > before.generation, "{:?}", step);
            prop_assert!(after.generation >= before.generation && after.lists >= before.lists);

            // A process that starts now and lists sees the same.
            let mut fresh = Peers::default();
            list(&mut fresh, &truth);
            prop_assert_eq!(content(fresh.snapshot()), content(after), "{:?}", step);
            prop_assert_eq!(&fresh.snapshot().own, &after.own);
        }
    }
}

#[test]
fn nothing_is_complete_before_the_first_whole_list() {
    let mut peers = Peers::default();
    stage(&mut peers, &Truth::from([(1, 0), (2, 0)]), 1);
    peers.abandon();
    assert!(!peers.snapshot().complete && peers.snapshot().nodes.is_empty());
    list(&mut peers, &Truth::from([(1, 0)]));
    assert_eq!((peers.snapshot().complete, peers.snapshot().lists, peers.snapshot().generation), (true, 1, 1));
}

#[test]
fn our_own_node_is_not_among_the_others() {
    let mut peers = Peers::default();
    list(&mut peers, &Truth::from([(0, 0), (1, 0)]));
    let names: Vec<_> = peers.snapshot().nodes.keys().map(|name| &**name).collect();
    assert_eq!(names, ["n1"]);
    assert_eq!(&*peers.snapshot().own.as_ref().unwrap().name, "n0");
    assert!(peers.delete("n0"));
    assert!(peers.snapshot().own.is_none());
}

#[test]
fn a_list_with_a_nameless_object_takes_nobody_away() {
    let mut peers = Peers::default();
    list(&mut peers, &Truth::from([(0, 0), (1, 0), (2, 0)]));
    stage(&mut peers, &Truth::from([(3, 0)]), 9);
    peers.apply(Seen::Nameless);
    assert_eq!(peers.swap(), Err(1));
    let snapshot = peers.snapshot();
    assert_eq!((snapshot.nodes.len(), snapshot.own.is_some(), snapshot.lists), (3, true, 1));
}

#[test]
fn a_relist_of_the_same_nodes_shares_their_records() {
    let mut peers = Peers::default();
    let truth = Truth::from([(0, 0), (1, 0), (2, 1)]);
    list(&mut peers, &truth);
    let before = peers.snapshot().clone();
    list(&mut peers, &truth);
    assert!(std::sync::Arc::ptr_eq(&before.nodes, &peers.snapshot().nodes));
    assert_eq!((peers.snapshot().generation, peers.snapshot().lists), (1, 2));
}
