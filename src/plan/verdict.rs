//! What a refusal means: the one place that reads error numbers.

use crate::model::op::{LinkOp, Op, Refusal};
use crate::model::table::Entry;

/// "No such file or directory": the neighbour or FDB entry is not there.
const ENOENT: i32 = 2;
/// "No such process": the route is not there.
const ESRCH: i32 = 3;
/// "File exists".
const EEXIST: i32 = 17;
/// "No such device".
const ENODEV: i32 = 19;
/// "Read-only file system": /proc/sys in an unprivileged container.
const EROFS: i32 = 30;
/// "Operation not supported".
const EOPNOTSUPP: i32 = 95;
/// "Cannot assign requested address": the address is not on the interface.
const EADDRNOTAVAIL: i32 = 99;
/// "Network is down".
const ENETDOWN: i32 = 100;

/// What to make of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The state asked for is there already.
    Settled,
    /// The device went or went down meanwhile: look again at once, it is not the entry's fault.
    LookAgain,
    /// Somebody else's route holds the key.
    Blocked,
    /// The change cannot be made in place: a new device is needed.
    Recreate,
    /// It failed: try again later, with growing delay.
    Retry,
}

/// What an operator should know beyond the kernel's words.
pub fn explain(op: &Op, refusal: &Refusal) -> Option<String> {
    match (op, refusal.errno) {
        // rtnl_newlink, where no module of that kind can be loaded.
        (Op::Link(LinkOp::Create(_)), EOPNOTSUPP) => Some(format!(
            "{refusal}: the host's kernel lacks VXLAN: `modprobe vxlan` on the host, and a line \"vxlan\" in a file in \
             /etc/modules-load.d; some distributions have it in a package of its own (linux-modules-extra-…, \
             kernel-modules-extra)"
        )),
        _ => None,
    }
}

/// Classifies.
pub fn verdict(op: &Op, refusal: &Refusal) -> Verdict {
    match (op, refusal.errno) {
        (Op::Del { .. }, ENOENT | ESRCH | EADDRNOTAVAIL)
        | (Op::Link(LinkOp::DelAddress(..)), EADDRNOTAVAIL)
        | (Op::Link(LinkOp::AddAddress(..)), EEXIST) => Verdict::Settled,
        (Op::Set { entry: Entry::Route(..), replace: false, .. }, EEXIST) => Verdict::Blocked,
        // A neighbour or FDB entry that appeared since we looked: the next look sees it.
        (Op::Set { .. }, EEXIST) | (_, ENODEV | ENETDOWN) => Verdict::LookAgain,
        (
            Op::Link(LinkOp::SetLocal(..) | LinkOp::SetUnderlay(..) | LinkOp::SetLearning(..) | LinkOp::SetTtl(..)),
            EOPNOTSUPP,
        )
        | (Op::Link(LinkOp::EnableIpv6(..)), EROFS) => Verdict::Recreate,
        _ => Verdict::Retry,
    }
}
