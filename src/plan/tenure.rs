//! How long an underlay stays: as long as its interface and address are there and no flag says otherwise.
//!
//! flannel chooses once, when it starts. weft looks again in every pass, so it has to know what it chose: this
//! process from its memory, a new one from the device, which has both the interface and the address. An
//! agent that starts again therefore decides as the one before it
//! (docs/decisions/0014-the-underlay-stays.md).

use std::net::IpAddr;
use std::time::Duration;

use super::underlay::{Present, Site, Underlay, choose};
use crate::model::addr::{Family, IfIndex, IfName};
use crate::model::host::{Host, LinkKind};
use crate::model::settings::UnderlayRules;

/// How long routes have to lead to another interface before it is taken: longer than a DHCP client, a network
/// manager or a NIC takes to put a default route back.
pub const STANDS: Duration = Duration::from_secs(5);

/// What is remembered of one family's underlay from pass to pass.
#[derive(Clone, Debug, Default)]
pub struct Tenure {
    chosen: Option<Present>,
    /// The configured public IP that it was chosen for.
    public_ip: Option<IpAddr>,
    /// Another interface that the routes lead to, and since when.
    rival: Option<(IfIndex, Duration)>,
}

impl Tenure {
    /// Chooses for one family. `device` is its device, `ours` are all of our devices; `now` is the time since the
    /// agent started.
    ///
    /// # Errors
    /// A sentence that says what was looked for and what to do.
    pub fn choose(
        &mut self,
        rules: &UnderlayRules,
        (host, family): (&Host, Family),
        (device, ours): (&IfName, &[IfName]),
        public_ip: Option<IpAddr>,
        now: Duration,
    ) -> Result<Underlay, String> {
        let present = self.chosen.or_else(|| in_use(host, device, family));
        // An address that was chosen because it was to be announced, and is not any more, has no right to stay.
        let present = present.filter(|present| Some(present.local) != self.public_ip || public_ip == self.public_ip);
        let stood = self.rival.filter(|(_, since)| now >= *since + STANDS).map(|(rival, _)| rival);
        let chosen = choose(rules, Site { host, family, ours, present, stood }, public_ip);
        let rival = chosen.as_ref().ok().and_then(|chosen| chosen.rival.as_ref());
        let since = |rival: IfIndex| self.rival.filter(|(before, _)| *before == rival).map_or(now, |(_, since)| since);
        self.rival = rival.map(|(rival, _)| (*rival, since(*rival)));
        if let Ok(Underlay { index, local, .. }) = &chosen {
            self.chosen = Some(Present { index: *index, local: *local });
            self.public_ip = public_ip;
        }
        chosen
    }

    /// When the rival has stood, if that is still to come.
    pub fn due(&self, now: Duration) -> Option<Duration> {
        self.rival.map(|(_, since)| since + STANDS).filter(|due| *due > now)
    }
}

/// What a device that is there goes over.
fn in_use(host: &Host, device: &IfName, family: Family) -> Option<Present> {
    let LinkKind::Vxlan(vxlan) = &host.link(device)?.kind else { return None };
    let local = vxlan.local.filter(|local| Family::of(*local) == family)?;
    Some(Present { index: vxlan.underlay?, local })
}
