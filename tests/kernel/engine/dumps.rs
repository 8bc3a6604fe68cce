//! Dumps: whole, or not at all.

use std::sync::atomic::{AtomicBool, Ordering};

use weft::kernel::nft::Nft;
use weft::kernel::{Kernel, ObserveError};
use weft::model::addr::Family;
use weft::model::nft::{NftChange, OUR_TABLE, TableName};
use weft::model::op::{Ack, FilterOp, Op};

use crate::sandbox::{batch, sh, try_sh};
use crate::support::{Node, peers, scope, sets};

crate::tests![
    a_table_that_changes_while_it_is_read_is_read_again,
    packet_rules_that_change_while_they_are_read_are_counted_too,
    rows_of_other_devices_do_not_show,
];

fn a_table_that_changes_while_it_is_read_is_read_again() {
    let mut node = Node::with_devices();
    // Enough links for a dump in several parts.
    let links: String = (0..100).map(|n| format!("link add v{n} type veth peer name w{n}\n")).collect();
    batch("ip", &links);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope_of_threads| {
        // A thread inherits the namespace of the one that starts it.
        scope_of_threads.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = try_sh("ip link add churn type veth peer name churn-far");
                let _ = try_sh("ip link del churn");
            }
        });
        let mut looks = 0;
        while node.kernel.counters().dumps_repeated == 0 && looks < 20_000 {
            looks += 1;
            match node.kernel.observe(&scope()) {
                Ok(host) => {
                    let steady = host.links.iter().filter(|link| !link.name.as_str().starts_with("churn")).count();
                    assert_eq!(steady, 1 + 2 + 2 + 200, "links are missing from a look that was not refused");
                }
                Err(ObserveError::Torn { attempts, .. }) => assert_eq!(attempts, 8),
                Err(error) => panic!("{error}"),
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(node.kernel.counters().dumps_repeated > 0, "the churn never hit a dump");
    node.observe();
}

fn packet_rules_that_change_while_they_are_read_are_counted_too() {
    let mut node = Node::new();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope_of_threads| {
        scope_of_threads.spawn(|| {
            let mut nft = Nft::open().expect("a socket");
            let table = TableName::new(Family::V4, "churn");
            while !stop.load(Ordering::Relaxed) {
                let _ = nft.commit(&[NftChange::AddTable(table.clone())], None);
                let _ = nft.commit(&[NftChange::DeleteTable(table.clone())], None);
            }
        });
        let mut looks = 0;
        while node.kernel.counters().dumps_repeated == 0 && looks < 20_000 {
            looks += 1;
            node.observe();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(node.kernel.counters().dumps_repeated > 0, "the churn never hit a look");
    // A change is counted once.
    let (before, table) = (node.kernel.counters(), TableName::new(Family::V4, OUR_TABLE));
    let op = Op::Filter(FilterOp { family: Family::V4, changes: vec![NftChange::AddTable(table)] });
    assert_eq!(node.kernel.apply(&[op]), [Ack::Done]);
    let after = node.kernel.counters();
    assert_eq!((after.batches - before.batches, after.messages - before.messages), (1, 1));
}

fn rows_of_other_devices_do_not_show() {
    let mut node = Node::with_devices();
    sh("ip link add other type vxlan id 9 dev eth0 local 192.168.174.1 dstport 8472 nolearning
        ip link set other up
        ip address add 10.9.0.0/32 dev other
        ip route add 10.9.1.0/24 via 10.9.1.0 dev other onlink
        ip neigh add 10.244.1.0 lladdr 0a:00:00:00:00:01 dev other nud permanent
        bridge fdb add 0a:00:00:00:00:01 dev other dst 192.0.2.1 self permanent");
    let dev = node.dev(Family::V4);
    let wanted = peers(Family::V4, 3);
    node.done(&sets(&dev, wanted.entries()));
    assert_eq!(node.tables(Family::V4), wanted);
}
