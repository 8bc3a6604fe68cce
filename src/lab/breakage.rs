//! The wounds that the tour inflicts.

use super::addressing::name;
use super::heal::{self, Proof, Traffic};
use super::link::Links;
use super::outcome::Scene;
use super::rows;
use super::stage::{Stage, Trouble};
use super::witness::Cry;
use crate::kernel::Kernel;
use crate::model::addr::{Family, IfName};
use crate::model::op::{Ack, Dev, LinkOp, Op};
use crate::model::settings::Backend;
use crate::model::table::{Entry, Kind, Route, Tables};

/// What each machine calls its first interface.
const UNDERLAY: &str = "eth0";

/// What is broken on node-1: what it has for node-2, or its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wound {
    /// The route to node-2's pods is deleted.
    Route,
    /// The neighbour entry of node-2's VTEP is deleted.
    Neighbour,
    /// The FDB entry of node-2's VTEP is deleted.
    Fdb,
    /// The device is set down.
    Down,
    /// The device is deleted.
    Gone,
}

impl Wound {
    /// All that there are with this backend, mildest first.
    pub const fn all(backend: Backend) -> &'static [Self] {
        match backend {
            Backend::Vxlan => &[Self::Route, Self::Neighbour, Self::Fdb, Self::Down, Self::Gone],
            Backend::HostGw => &[Self::Route],
        }
    }

    /// In words.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Route => "route deleted",
            Self::Neighbour => "neighbour deleted",
            Self::Fdb => "FDB entry deleted",
            Self::Down => "device set down",
            Self::Gone => "device deleted",
        }
    }

    /// What the kernel says when it happens.
    const fn cry(self) -> Cry {
        match self {
            Self::Route => Cry::RouteGone,
            Self::Neighbour | Self::Fdb => Cry::NeighbourGone,
            Self::Down => Cry::Link,
            Self::Gone => Cry::LinkGone,
        }
    }
}

/// Inflicts a wound on node-1 and waits until it has healed. With `beside`, pings to node-3 must not
/// notice a wound that is only node-2's.
///
/// # Errors
/// If it does not heal, or could not be inflicted.
pub fn inflict(stage: &mut Stage, family: Family, wound: Wound, beside: bool) -> Result<Scene, Trouble> {
    let one_peer = !matches!(wound, Wound::Down | Wound::Gone);
    let traffic = Traffic { through: (1, 2), beside: (beside && one_peer).then_some((1, 3)), family };
    let (command, op) = prepare(stage, family, wound)?;
    let proof = Proof { on: 1, cry: wound.cry() };
    let what = stage.of_family(wound.label(), family);
    let scene = heal::measure(stage, &what, traffic, Some(proof), |stage| match op {
        Some(op) => apply(stage, 1, &op),
        None => down(stage, family),
    })?;
    Ok(Scene { command: Some(command), ..scene })
}

/// The command that will be carried out, and the operation, if it is one.
fn prepare(stage: &mut Stage, family: Family, wound: Wound) -> Result<(String, Option<Op>), Trouble> {
    let missing = |what: &str| Trouble::Unproven(format!("node-1 has no {what} to break"));
    let underlay = || (stage.backend() == Backend::HostGw).then(|| IfName::new(UNDERLAY));
    let device = stage.device(family).cloned().or_else(underlay).ok_or_else(|| missing("device"))?;
    let sight = stage.look(1)?;
    let link = sight.host.link(&device).ok_or_else(|| missing("device"))?;
    let dev = Dev { index: link.index, name: device };
    let node = stage.server.node(&name(2)).unwrap_or_default();
    let rows = rows::peer(&node, family).ok_or_else(|| missing("peer"))?;
    let of = |kind: Kind| {
        let tables = sight.host.tables.get(family).as_ref();
        let mut entries = tables.into_iter().flat_map(Tables::entries);
        entries
            .find(|entry| entry.kind() == kind && rows.iter().any(|row| row.is(entry)))
            .ok_or_else(|| missing(kind.label()))
    };
    let del = |entry: Entry| Op::Del { dev: dev.clone(), entry };
    let op = match wound {
        Wound::Route => del(of(Kind::Route)?),
        Wound::Neighbour => del(of(Kind::Neighbour)?),
        Wound::Fdb => del(of(Kind::Fdb)?),
        Wound::Gone => Op::Link(LinkOp::Delete(dev.clone())),
        Wound::Down => return Ok((format!("ip link set {} down", dev.name), None)),
    };
    Ok((op.to_string(), Some(op)))
}

fn apply(stage: &mut Stage, number: u8, op: &Op) -> Result<(), Trouble> {
    let eyes = stage.members.get_mut(&number).map(|member| &mut member.eyes);
    match eyes.map(|eyes| eyes.apply(std::slice::from_ref(op))).as_deref() {
        Some([Ack::Done]) => Ok(()),
        other => Err(Trouble::Unproven(format!("`{op}` was not carried out: {other:?}"))),
    }
}

fn down(stage: &Stage, family: Family) -> Result<(), Trouble> {
    let device = stage.device(family).map(ToString::to_string).unwrap_or_default();
    let Some(member) = stage.members.get(&1) else { return Ok(()) };
    Ok(member.machine.network.run(|| Links::open()?.down(&device))??)
}

/// Removes what an agent has made on a machine, as a new installation would.
///
/// # Errors
/// If the kernel refuses.
pub fn wipe(stage: &mut Stage, number: u8) -> Result<(), Trouble> {
    if stage.backend() == Backend::HostGw {
        return wipe_routes(stage, number);
    }
    let Some(member) = stage.members.get(&number) else { return Ok(()) };
    for family in stage.underlay.addressing().families() {
        let device = stage.device(family).map(ToString::to_string).unwrap_or_default();
        member.machine.network.run(|| Links::open()?.delete(&device))??;
    }
    Ok(())
}

/// The routes to other machines, each over the underlay.
fn wipe_routes(stage: &mut Stage, number: u8) -> Result<(), Trouble> {
    let sight = stage.look(number)?;
    let all = sight.host.tables.iter().filter_map(|(_, tables)| tables.as_ref()).flat_map(Tables::entries);
    for entry in all {
        if let Entry::Route(_, Route { dev: Some(index), .. }) = entry {
            let dev = Dev { index, name: IfName::new(UNDERLAY) };
            apply(stage, number, &Op::Del { dev, entry })?;
        }
    }
    Ok(())
}
