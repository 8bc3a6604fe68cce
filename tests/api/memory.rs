//! A large cluster costs little memory: Nodes are read as they come, and only what is used is kept.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weft::cluster::annotations::{DEFAULT_PREFIX, Keys};
use weft::cluster::peers::Viewpoint;
use weft::cluster::timing::Timing;
use weft::cluster::watch::Watcher;
use weft::lab::apiserver::{Action, ApiServer, Verb};
use weft::model::addr::Vni;

use crate::rig::{OWN, client, node, server};

/// Tells the child where the server is.
const URL: &str = "WEFT_TEST_API_URL";
const NODES: usize = 5000;
/// What a real Node is padded with: images, conditions, managedFields.
const PADDING: usize = 19_500;
/// The most that the nodes of the cluster may cost a process at its peak.
const MOST_KIB: u64 = 10 * 1024;

fn large(i: usize) -> Value {
    let mut node = node(&format!("node-{i:05}.example.internal"), i);
    // Few long texts rather than many short ones: the server, which is not what is measured, is quicker so.
    node["status"] = json!({ "images": vec!["x".repeat(1000); PADDING / 1000] });
    node
}

fn measure(server: &ApiServer) -> String {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture", "memory::the_process_that_is_measured"])
        .env(URL, server.url())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout).into_owned();
    assert!(child.status.success(), "{said}{}", String::from_utf8_lossy(&child.stderr));
    said.lines().find(|line| line.starts_with("cost ")).unwrap_or_else(|| panic!("{said}")).to_owned()
}

#[test]
fn five_thousand_nodes_of_20_kb_cost_at_most_10_mib() {
    let server = server(0);
    for i in 0..NODES {
        server.put_node(large(i));
    }
    for streaming in [true, false] {
        if !streaming {
            server.inject(&[Verb::StreamingList], Action::RefuseStreaming, None);
        }
        let said = measure(&server);
        println!("streaming {streaming}: {said}");
        let cost: u64 = said.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(cost <= MOST_KIB, "streaming {streaming}: {said}");
    }
}

/// Run by the test above, in a process of its own: prints by how many KiB the peak grew with the nodes.
#[test]
#[ignore = "run by five_thousand_nodes_of_20_kb_cost_at_most_10_mib"]
fn the_process_that_is_measured() {
    let Ok(url) = std::env::var(URL) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let keys = Keys::new(DEFAULT_PREFIX).unwrap();
        let view = Viewpoint { own: OWN.into(), vni: Vni::new(1) };
        let born = Instant::now();
        let client = client(&url).await;
        let (watcher, handle) = Watcher::new(client, keys, view, Timing::default(), Arc::new(move || born.elapsed()));
        let before = kib("VmHWM");
        let task = tokio::spawn(async move {
            let never = watcher.run().await;
            match never {}
        });
        for lists in 1..=2 {
            let mut snapshots = handle.snapshots();
            let whole = snapshots.wait_for(|snapshot| snapshot.nodes.len() == NODES && snapshot.lists >= lists);
            tokio::time::timeout(Duration::from_secs(120), whole).await.unwrap().unwrap();
            handle.request_list();
        }
        let (peak, now) = (kib("VmHWM"), kib("VmRSS"));
        println!("\ncost {} KiB at the peak of two lists ({before} before, {peak} then, {now} now)", peak - before);
        task.abort();
    });
}

fn kib(key: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
