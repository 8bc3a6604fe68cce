//! Breaks one thing, and measures how long it stays broken: by the tables, and by what packets notice.

use std::thread;
use std::time::{Duration, Instant};

use super::outcome::Scene;
use super::ping::{Stream, Tally};
use super::stage::{Stage, Trouble};
use super::witness::{Cry, Witness};
use crate::model::addr::Family;

/// The pace of the pings.
const EVERY: Duration = Duration::from_millis(1);

/// How long everything must run well before and after.
const CALM: Duration = Duration::from_millis(25);

/// Which pings run meanwhile, by machine: from the pod of one to the pod of another.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    /// Through what will be broken.
    pub through: (u8, u8),
    /// Beside it: must not lose anything.
    pub beside: Option<(u8, u8)>,
    /// Over which family.
    pub family: Family,
}

impl Traffic {
    /// From one machine's pod to another's, with nothing beside.
    pub const fn between(from: u8, to: u8, family: Family) -> Self {
        Self { through: (from, to), beside: None, family }
    }
}

/// What is expected.
#[derive(Clone, Copy, Debug)]
pub struct Proof {
    /// The machine on which something breaks.
    pub on: u8,
    /// What its kernel must be heard to say.
    pub cry: Cry,
}

/// Runs `act` with traffic, and waits until all tables are right again.
///
/// # Errors
/// If they are not in time, if nothing was really broken, or if somebody beside it noticed.
pub fn measure(
    stage: &mut Stage,
    what: &str,
    traffic: Traffic,
    proof: Option<Proof>,
    act: impl FnOnce(&mut Stage) -> Result<(), Trouble>,
) -> Result<Scene, Trouble> {
    let through = stream(stage, traffic.through, traffic.family)?;
    let beside = traffic.beside.map(|pair| stream(stage, pair, traffic.family)).transpose()?;
    let witness = proof.map(|proof| witness(stage, proof.on)).transpose()?;
    thread::sleep(CALM);
    let begun = Instant::now();
    act(stage)?;
    match proof {
        Some(proof) => stage.settle_one(proof.on, begun)?,
        None => stage.settle()?,
    }
    let healed = begun.elapsed();
    stage.settle()?; // nobody else is worse off
    thread::sleep(CALM);
    let (through, beside) = (through.stop(), beside.map(Stream::stop));
    if let (Some(Proof { cry, .. }), Some(witness)) = (proof, witness)
        && !witness.heard().contains(&cry)
    {
        return Err(Trouble::Unproven(format!("`{what}` broke nothing: the kernel has not said {cry:?}")));
    }
    if let Some(Tally { lost: lost @ 1.., sent, .. }) = beside {
        return Err(Trouble::Unproven(format!("`{what}` cost pings that had nothing to do with it: {lost} of {sent}")));
    }
    Ok(Scene { what: what.to_owned(), command: None, healed, through, beside })
}

fn stream(stage: &Stage, (from, to): (u8, u8), family: Family) -> Result<Stream, Trouble> {
    let missing = |number| Trouble::Unproven(format!("there is no machine {number}"));
    let from = stage.members.get(&from).ok_or_else(|| missing(from))?;
    let addresses = &stage.members.get(&to).ok_or_else(|| missing(to))?.machine.pod.addresses;
    let ip = addresses.iter().find(|ip| Family::of(**ip) == family).ok_or_else(|| missing(to))?;
    Ok(Stream::start(&from.machine.pod.network, *ip, EVERY)?)
}

fn witness(stage: &Stage, on: u8) -> Result<Witness, Trouble> {
    let member = stage.members.get(&on).ok_or_else(|| Trouble::Unproven(format!("there is no machine {on}")))?;
    Ok(member.machine.network.run(Witness::open)??)
}
