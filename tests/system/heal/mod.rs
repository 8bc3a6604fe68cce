//! Everything that can be done to a node's overlay from outside, and how long it takes to be right again.
//!
//! Each test has a node with 200 dual-stack peers and things of others all around. It disturbs one device,
//! then the other, several times each; every time the whole state must be back, as iproute2 shows it, within
//! a second; the cause must be in `/metrics`, and what belongs to others must be as it was.

mod device;
mod flood;
mod rows;
mod site;
mod table;
mod underlay;

pub(crate) use table::print;

use std::time::Duration;

use self::site::{Side, Site};

/// All of them.
pub(crate) fn all() -> Vec<crate::sandbox::Test> {
    [rows::all(), device::all(), underlay::all(), flood::all()].concat()
}

/// Peers of the node.
const PEERS: u32 = 200;
/// How often each device is disturbed.
const ROUNDS: u32 = 5;
/// How long healing may take.
const LIMIT: Duration = Duration::from_secs(1);

/// Something done to a node, and what is expected of it.
struct Disturbance {
    /// For the table.
    name: &'static str,
    /// What must be counted, in the family of the device: table and cause.
    counted: &'static [(&'static str, &'static str)],
    /// Whether the things of others on the device go, by the kernel's doing.
    takes: bool,
    /// On which devices.
    sides: &'static [Side],
}

impl Disturbance {
    const fn new(name: &'static str, counted: &'static [(&'static str, &'static str)]) -> Self {
        Self { name, counted, takes: false, sides: &Side::BOTH }
    }

    /// The kernel takes the things of others on the device along.
    const fn taking(self) -> Self {
        Self { takes: true, ..self }
    }

    /// Only this device knows it.
    const fn only(self, sides: &'static [Side]) -> Self {
        Self { sides, ..self }
    }

    /// Disturbs and waits, in turn. `disturb` gets the number of the attempt.
    fn heals(self, disturb: impl Fn(&mut Site, Side, u32)) {
        let mut site = Site::new();
        for side in self.sides {
            rounds(ROUNDS, |attempt| self.round(&mut site, *side, |site| disturb(site, *side, attempt)));
        }
    }

    /// Whether the time counts.
    fn round(&self, site: &mut Site, side: Side, disturb: impl FnOnce(&mut Site)) -> bool {
        site.lay_foreign();
        let (foreign, counters) = (Site::foreign_before(), site.metrics());
        site.begin();
        disturb(site);
        let took = site.until_right(self.name);
        let mut before = foreign.clone();
        let mut after = Site::foreign();
        if self.takes {
            // None appeared, at least.
            assert!(after.on(side.dev()).0.is_subset(&before.on(side.dev()).0), "{:?}", after.on(side.dev()));
            (before, after) = (before.not_on(side.dev()), after.not_on(side.dev()));
        }
        assert!(before == after, "{}: things of others changed:\n{}", self.name, before.difference(&after));
        site.counted(side, &counters, self.counted);
        let counts = table::note(self.name, side.dev(), took);
        let counters = site.metrics().since(&counters);
        assert!(!counts || took <= LIMIT, "{} on {} took {took:?}: {counters:#?}", self.name, side.dev());
        counts
    }
}

/// Makes rounds until so many count.
fn rounds(count: u32, mut round: impl FnMut(u32) -> bool) {
    let mut counting = 0;
    for attempt in 0..4 * count {
        counting += u32::from(round(attempt));
        if counting == count {
            return;
        }
    }
    panic!("this machine is too slow to say anything about times");
}
