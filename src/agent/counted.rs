//! Linux, with its counters where the status server sees them.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::view::Sums;
use crate::kernel::netlink::Netlink;
use crate::kernel::{Heard, Kernel, Listen, ObserveError};
use crate::model::host::{Host, Scope};
use crate::model::op::{Ack, Op};

/// Copies the counters after every look and every change.
pub(super) struct CountedNetlink {
    kernel: Netlink,
    sums: Arc<Mutex<Sums>>,
}

impl CountedNetlink {
    pub(super) fn new(kernel: Netlink, sums: Arc<Mutex<Sums>>) -> Self {
        Self { kernel, sums }
    }

    fn show(&self) {
        self.sums.lock().netlink = self.kernel.counters();
    }
}

impl Kernel for CountedNetlink {
    fn observe(&mut self, scope: &Scope) -> Result<Host, ObserveError> {
        let seen = self.kernel.observe(scope);
        self.show();
        seen
    }

    fn apply(&mut self, ops: &[Op]) -> Vec<Ack> {
        let acks = self.kernel.apply(ops);
        self.show();
        acks
    }
}

impl Listen for CountedNetlink {
    fn wait(&mut self, timeout: Duration) -> Heard {
        self.kernel.wait(timeout)
    }
}
