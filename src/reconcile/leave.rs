//! Leaving a node: a pass towards another state than the cluster's, asked for by name.

use crate::kernel::{Kernel, ObserveError};
use crate::model::addr::Family;
use crate::model::host::{LinkKind, Scope};
use crate::model::op::{Ack, Dev, LinkOp, Op};
use crate::plan::handover::to_flannel;
use crate::plan::next::Program;

/// How to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// Remove the devices; every row goes with them.
    Remove,
    /// Give every route flannel's form, make-before-break, and leave the rest as it is: flanneld then
    /// finds exactly what it would have made, and no packet is lost.
    HandOver,
}

/// Leaves; every change that was tried, with the kernel's answer.
///
/// # Errors
/// If the kernel cannot be read; nothing has been changed then.
pub fn leave(kernel: &mut dyn Kernel, scope: &Scope, how: Leave) -> Result<Vec<(Op, Ack)>, ObserveError> {
    let host = kernel.observe(scope)?;
    let mut tried = Vec::new();
    for family in Family::BOTH {
        let name = scope.devices.get(family).as_ref();
        let Some(link) = name.and_then(|name| host.link(name)) else { continue };
        if !matches!(link.kind, LinkKind::Vxlan(_)) {
            continue;
        }
        let dev = Dev { index: link.index, name: link.name.clone() };
        match (how, host.tables.get(family)) {
            (Leave::Remove, _) => try_all(kernel, vec![Op::Link(LinkOp::Delete(dev))], &mut tried),
            (Leave::HandOver, Some(seen)) => {
                let wanted = to_flannel(seen);
                let mut program = Program::new(&dev, &wanted, seen);
                loop {
                    let batch = program.next_batch();
                    if batch.is_empty() {
                        break;
                    }
                    let from = tried.len();
                    try_all(kernel, batch, &mut tried);
                    let done = tried.iter().skip(from).filter(|(_, ack)| *ack == Ack::Done);
                    done.for_each(|(op, _)| program.done(op));
                }
            }
            (Leave::HandOver, None) => {}
        }
    }
    Ok(tried)
}

fn try_all(kernel: &mut dyn Kernel, batch: Vec<Op>, tried: &mut Vec<(Op, Ack)>) {
    let acks = kernel.apply(&batch);
    tried.extend(batch.into_iter().zip(acks));
}
