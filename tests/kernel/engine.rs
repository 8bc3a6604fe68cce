//! Our engine on a real kernel, checked by iproute2.

use weft::model::addr::Family;

use crate::support::{Node, peers, sets};

crate::tests![what_is_applied_is_observed];

fn what_is_applied_is_observed() {
    let mut node = Node::with_devices();
    for family in Family::BOTH {
        let dev = node.dev(family);
        let wanted = peers(family, 5000);
        let start = std::time::Instant::now();
        node.done(&sets(&dev, wanted.entries()));
        eprintln!("applied {:?}", start.elapsed());
        for _ in 0..3 {
            let start = std::time::Instant::now();
            let _ = node.observe();
            eprintln!("observed {:?}", start.elapsed());
        }
        assert_eq!(node.tables(family), wanted);
    }
}
