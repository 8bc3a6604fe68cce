//! Batches: an answer for each operation, whatever becomes of the others.

use nix::libc;
use weft::kernel::netlink::Netlink;
use weft::model::addr::{Family, IfIndex, IfName};
use weft::model::op::{Ack, Dev, LinkOp, Op};

use crate::support::{Node, peers, rows, set, sets};

crate::tests![
    a_refused_message_does_not_stop_the_batch,
    answers_are_right_when_every_message_fails,
    the_smallest_receive_buffer_is_enough,
    a_sysctl_between_messages_keeps_the_order,
    nothing_is_sent_for_nothing,
];

fn nowhere() -> Dev {
    Dev { index: IfIndex(99_999), name: IfName::new("nowhere") }
}

fn a_refused_message_does_not_stop_the_batch() {
    let mut node = Node::with_devices();
    let dev = node.dev(Family::V4);
    let mut ops = sets(&dev, peers(Family::V4, 150).entries());
    // At both ends of batches, and inside.
    let bad = [0, 1, 77, 127, 128, 129, 255, 256, ops.len() - 1];
    for at in bad {
        let Op::Set { entry, .. } = &ops[at] else { panic!() };
        ops[at] = set(&nowhere(), *entry, false);
    }
    let acks = node.apply(&ops);
    assert_eq!(acks.len(), ops.len());
    for (at, ack) in acks.iter().enumerate() {
        match ack {
            Ack::Done => assert!(!bad.contains(&at), "{at}"),
            Ack::Refused(refusal) => assert!(bad.contains(&at) && refusal.errno == libc::ENODEV, "{at}: {refusal:?}"),
            Ack::Unknown(why) => panic!("{at}: {why}"),
        }
    }
    assert_eq!(node.tables(Family::V4).len(), ops.len() - bad.len());
}

fn answers_are_right_when_every_message_fails() {
    let mut node = Node::new();
    let ops = sets(&nowhere(), peers(Family::V4, 400).entries());
    let acks = node.apply(&ops);
    assert!(acks.iter().all(|ack| matches!(ack, Ack::Refused(refusal) if refusal.errno == libc::ENODEV)));
    assert_eq!((acks.len(), node.kernel.counters().answers_lost), (1200, 0));
}

fn the_smallest_receive_buffer_is_enough() {
    let mut node = Node::with_devices();
    // The kernel rounds this up to 2304 bytes: room for two answers.
    node.kernel = Netlink::with_buffer(1).expect("sockets");
    let dev = node.dev(Family::V6);
    let wanted = peers(Family::V6, 500);
    let mut ops = sets(&dev, wanted.entries());
    ops.extend(sets(&nowhere(), rows(Family::V6, 1)));
    ops.extend(sets(&nowhere(), rows(Family::V6, 2)));
    let acks = node.apply(&ops);
    assert!(acks[..1500].iter().all(|ack| *ack == Ack::Done));
    assert!(acks[1500..].iter().all(|ack| matches!(ack, Ack::Refused(_))));
    assert_eq!(node.kernel.counters().answers_lost, 0);
    assert_eq!(node.tables(Family::V6), wanted);
}

fn a_sysctl_between_messages_keeps_the_order() {
    let mut node = Node::with_devices();
    let dev = node.dev(Family::V6);
    std::fs::write("/proc/sys/net/ipv6/conf/flannel-v6.1/disable_ipv6", "1").unwrap();
    let [_, neighbour, _] = rows(Family::V6, 1);
    let address = weft::model::host::Address {
        ip: "fd00:10:244::".parse().unwrap(),
        len: 128,
        global: true,
        deprecated: false,
        permanent: true,
        temporary: false,
        failed: false,
    };
    let acks = node.apply(&[
        set(&dev, neighbour, false),
        Op::Link(LinkOp::EnableIpv6(dev.clone())),
        Op::Link(LinkOp::AddAddress(dev.clone(), address.ip, 128)),
        set(&dev, neighbour, false),
    ]);
    assert!(matches!(acks[..], [Ack::Refused(_), Ack::Done, Ack::Done, Ack::Done]), "{acks:?}");
    assert_eq!(node.link("flannel-v6.1").addresses, [address]);
}

fn nothing_is_sent_for_nothing() {
    let mut node = Node::new();
    assert_eq!(node.apply(&[]), []);
    assert_eq!(node.kernel.counters().batches, 0);
}
