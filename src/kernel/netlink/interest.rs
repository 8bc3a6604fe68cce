//! Which notifications are worth a look. A node's kernel is busy with the devices of pods; a neighbour
//! that comes and goes on one of those is none of our business.

use std::net::IpAddr;

use nix::libc;

use super::wire::frame::{Frame, u32_at};
use super::wire::route::RouteSeen;
use crate::model::addr::{ByFamily, IfIndex, Subnet};
use crate::model::host::Scope;

/// What the last observation looked at. Before the first, everything matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    looked: bool,
    devices: ByFamily<Option<IfIndex>>,
    networks: ByFamily<Option<Subnet>>,
    ways: bool,
    reach: Option<IpAddr>,
}

impl Interest {
    /// In these devices, and in what is in scope.
    pub const fn new(devices: ByFamily<Option<IfIndex>>, scope: &Scope) -> Self {
        Self { looked: true, devices, networks: scope.networks, ways: scope.ways, reach: scope.reach }
    }

    /// The devices whose rows matter.
    pub(super) fn devices(&self) -> Vec<IfIndex> {
        self.devices.iter().filter_map(|(_, device)| *device).collect()
    }

    /// Whether a notification may be about something that weft decides from. A message that cannot be read
    /// is not: what it was about is found by the next look, which comes by itself.
    pub fn concerns(&self, frame: &Frame<'_>) -> bool {
        match frame.kind {
            _ if !self.looked => true,
            // Few, and the silent losses of IPv4 routes are announced by nothing else.
            libc::RTM_NEWLINK | libc::RTM_DELLINK | libc::RTM_NEWADDR | libc::RTM_DELADDR => true,
            libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => u32_at(frame.body, 4).is_some_and(|of| self.has(IfIndex(of))),
            libc::RTM_NEWROUTE | libc::RTM_DELROUTE => {
                matches!(RouteSeen::parse(frame.body), Ok(Some(seen)) if self.has_route(&seen))
            }
            _ => false,
        }
    }

    fn has(&self, device: IfIndex) -> bool {
        self.devices.iter().any(|(_, ours)| *ours == Some(device))
    }

    fn has_route(&self, seen: &RouteSeen) -> bool {
        let dst = seen.key.dst;
        let inside = || self.networks.get(dst.family()).is_some_and(|network| network.contains_subnet(dst));
        let on_the_way = || self.reach.is_some_and(|to| dst.contains(to));
        let ours = || seen.oif.is_some_and(|oif| self.has(oif));
        seen.is_ordinary() && (self.ways || dst.is_default() || ours() || inside() || on_the_way())
    }
}
