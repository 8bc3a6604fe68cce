//! Leaving a node: a pass towards another state than the cluster's, asked for by name.

use crate::kernel::{Kernel, ObserveError};
use crate::model::addr::{Family, IfIndex};
use crate::model::host::{Host, LinkKind, Scope};
use crate::model::op::{Ack, Dev, LinkOp, Op};
use crate::model::table::{Entry, PROTOCOL_WEFT, Route, Tables};
use crate::plan::handover::to_flannel;
use crate::plan::next::Program;

/// How to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// Remove the devices, with which every row on them goes, and our routes over other interfaces.
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
        let link = name.and_then(|name| host.link(name)).filter(|link| matches!(link.kind, LinkKind::Vxlan(_)));
        let dev = link.map(|link| Dev { index: link.index, name: link.name.clone() });
        let tables = host.tables.get(family).as_ref();
        match how {
            Leave::Remove => {
                let routes = tables.map(|seen| elsewhere(seen, &host)).unwrap_or_default();
                let device = dev.map(|dev| Op::Link(LinkOp::Delete(dev)));
                try_all(kernel, device.into_iter().chain(routes).collect(), &mut tried);
            }
            Leave::HandOver => {
                let (Some(name), Some(seen)) = (name, tables) else { continue };
                // Without the device no row is on it: all are routes over the underlay.
                let dev = dev.unwrap_or_else(|| Dev { index: IfIndex(0), name: name.clone() });
                hand_over(kernel, &dev, seen, &host, &mut tried);
            }
        }
    }
    Ok(tried)
}

/// Removals of what carries our number on other interfaces.
fn elsewhere(seen: &Tables, host: &Host) -> Vec<Op> {
    let rows = seen.entries().chain(seen.surplus.iter().map(|(key, route)| Entry::Route(*key, *route)));
    let ours = rows.filter_map(|entry| match entry {
        Entry::Route(_, Route { protocol: PROTOCOL_WEFT, dev: Some(dev), .. }) => Some((entry, host.link_at(dev)?)),
        _ => None,
    });
    ours.map(|(entry, link)| Op::Del { dev: Dev { index: link.index, name: link.name.clone() }, entry }).collect()
}

fn hand_over(kernel: &mut dyn Kernel, dev: &Dev, seen: &Tables, host: &Host, tried: &mut Vec<(Op, Ack)>) {
    let wanted = to_flannel(seen);
    let mut program = Program::new(dev, &wanted, seen, &host.links);
    loop {
        let batch = program.next_batch();
        if batch.is_empty() {
            return;
        }
        let from = tried.len();
        try_all(kernel, batch, tried);
        for (op, ack) in tried.iter().skip(from) {
            if *ack == Ack::Done { program.done(op) } else { program.failed(op) }
        }
    }
}

fn try_all(kernel: &mut dyn Kernel, batch: Vec<Op>, tried: &mut Vec<(Op, Ack)>) {
    let acks = kernel.apply(&batch);
    tried.extend(batch.into_iter().zip(acks));
}
