//! The state of every peer, worked out from a report when somebody asks.

use std::collections::BTreeMap;

use super::report::{PeerState, PeerStates, Report};
use crate::model::addr::Family;
use crate::plan::desired::Without;

/// Every node's state in one family.
pub fn peer_states(report: &Report, family: Family) -> PeerStates {
    let wanted = report.desired.as_ref().and_then(|desired| desired.families.get(family).as_ref());
    let (Some(wanted), Some(of_family)) = (wanted, report.families.get(family)) else { return BTreeMap::new() };
    let without = wanted.without.iter().map(|(name, without)| {
        let state = match without {
            Without::Absent(reason) => PeerState::Absent(reason.clone()),
            Without::Unusable(_, reason) => PeerState::Unusable(reason.clone()),
            Without::Rejected(_, reason) => PeerState::Rejected(reason.clone()),
        };
        (name.clone(), state)
    });
    let installed = wanted.peers.values().map(|(name, _)| (name.clone(), PeerState::Installed));
    let mut states: PeerStates = without.chain(installed).collect();
    for pending in &of_family.pending {
        if let Some(state) = pending.peer.as_ref().and_then(|name| states.get_mut(name)) {
            *state = PeerState::Pending(format!("{}: {}", pending.op, pending.problem));
        }
    }
    if !of_family.ready {
        let why = of_family.waiting.clone().unwrap_or_else(|| "the device is not as it should be".to_owned());
        states.values_mut().filter(|state| **state == PeerState::Installed).for_each(|state| {
            *state = PeerState::Pending(why.clone());
        });
    }
    states
}
