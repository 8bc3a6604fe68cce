//! Which interface carries the encapsulated packets, and from which address.
//!
//! Flannel's rules, one family at a time: `--iface` values in order, then `--iface-regex`, then
//! `--iface-can-reach`; with none of them, the interface that has the public IP, else the one of the
//! default route. Unlike flannel, a public IP that no interface has (NAT) is not an error, and each
//! family may have an underlay of its own.
//!
//! What is in use counts for more than the order of preference: an address that appears beside it, or a
//! default route that is away for a moment, moves nothing. See [`super::tenure`] for how long it counts.

use std::cmp::Reverse;
use std::net::IpAddr;

use crate::model::addr::{Family, IfIndex, IfName};
use crate::model::host::{Address, Host, Link};
use crate::model::settings::UnderlayRules;

/// What was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Underlay {
    /// The interface.
    pub index: IfIndex,
    /// Its name.
    pub name: IfName,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// The address that packets leave from.
    pub local: IpAddr,
    /// The interface that the routes lead to now, if it is another: it has to stand for a while first.
    pub rival: Option<(IfIndex, IfName)>,
}

/// An underlay that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Present {
    /// The interface.
    pub index: IfIndex,
    /// The address that packets leave from.
    pub local: IpAddr,
}

/// Where to look, and what counts for more than the order of preference.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// The host.
    pub host: &'a Host,
    /// The family of the outer packets.
    pub family: Family,
    /// The names of our own devices, which never carry themselves.
    pub ours: &'a [IfName],
    /// What is in use.
    pub present: Option<Present>,
    /// The rival that has stood long enough.
    pub stood: Option<IfIndex>,
}

/// Chooses for one family. `public_ip` is what is to be advertised, if that is configured. What flags name is
/// taken at once; what routes lead to takes the place of another interface only once it has stood.
///
/// # Errors
/// A sentence that says what was looked for and what to do.
pub fn choose(rules: &UnderlayRules, site: Site<'_>, public_ip: Option<IpAddr>) -> Result<Underlay, String> {
    let candidates = Candidates::new(site);
    let at_once = |found| (found, None);
    let found = if rules.iface.is_empty() && rules.iface_regex.is_empty() && rules.can_reach.is_none() {
        let owner = public_ip.and_then(|ip| candidates.owner(ip));
        owner.map(at_once).or_else(|| candidates.once_it_stood(candidates.of_default_route()))
    } else {
        let named = rules.iface.iter().find_map(|text| candidates.named(text));
        let matched = || rules.iface_regex.iter().find_map(|regex| candidates.matching(|text| regex.is_match(text)));
        let reached = |_| candidates.once_it_stood(candidates.towards());
        named.or_else(matched).map(at_once).or_else(|| rules.can_reach.and_then(reached))
    };
    let ((link, mut local), rival) = found.ok_or_else(|| nothing_found(rules, site.family))?;
    if let Some(ip) = public_ip
        && link.addresses.iter().any(|address| address.ip == ip)
    {
        local = ip;
    }
    let rival = rival.map(|link| (link.index, link.name.clone()));
    Ok(Underlay { index: link.index, name: link.name.clone(), mtu: link.mtu, local, rival })
}

fn nothing_found(rules: &UnderlayRules, family: Family) -> String {
    let mut looked = Vec::new();
    looked.extend(rules.iface.iter().map(|text| format!("--iface={text}")));
    looked.extend(rules.iface_regex.iter().map(|regex| format!("--iface-regex={regex}")));
    looked.extend(rules.can_reach.iter().map(|ip| format!("--iface-can-reach={ip}")));
    if looked.is_empty() {
        looked.push("the default route of the main table".to_owned());
    }
    format!(
        "no underlay interface for {family}: looked for {} and found none with a usable {family} address; \
         weft waits for one to appear (see `ip addr`, `ip route`, or name one with --iface)",
        looked.join(", ")
    )
}

struct Candidates<'a> {
    site: Site<'a>,
    /// What is in use, if it can stay: the address may be deprecated, and the interface down for a moment.
    present: Option<Found<'a>>,
}

type Found<'a> = (&'a Link, IpAddr);

impl<'a> Candidates<'a> {
    fn new(site: Site<'a>) -> Self {
        let mut candidates = Self { site, present: None };
        candidates.present = site.present.and_then(|Present { index, local }| {
            let link = candidates.links().find(|link| link.index == index)?;
            let held = link.addresses.iter().find(|address| address.ip == local)?;
            candidates.carries(held).then_some((link, local))
        });
        candidates
    }

    fn links(&self) -> impl Iterator<Item = &'a Link> + use<'a> {
        let ours = self.site.ours;
        self.site.host.links.iter().filter(move |link| !ours.contains(&link.name))
    }

    fn owner(&self, ip: IpAddr) -> Option<Found<'a>> {
        if self.present.is_some_and(|(_, local)| local == ip) {
            return self.present;
        }
        let link = self.links().find(|link| link.addresses.iter().any(|address| address.ip == ip))?;
        if Family::of(ip) == self.site.family { Some((link, ip)) } else { self.on(link) }
    }

    fn named(&self, text: &str) -> Option<Found<'a>> {
        match text.parse() {
            Ok(ip) => self.owner(ip),
            Err(_) => self.links().find(|link| link.name.as_str() == text).and_then(|link| self.on(link)),
        }
    }

    /// A regular expression is matched with addresses first, then with names; what is in use is asked first
    /// each time.
    fn matching(&self, matches: impl Fn(&str) -> bool) -> Option<Found<'a>> {
        let stays = |fits: &dyn Fn(Found<'a>) -> bool| self.present.filter(|present| fits(*present));
        let usable = |link: &'a Link| link.addresses.iter().filter(|address| self.rank(address).is_some());
        let by_address = || {
            self.links().filter(|link| !link.loopback).find_map(|link| {
                let address = usable(link).find(|address| matches(&address.ip.to_string()))?;
                Some((link, address.ip))
            })
        };
        let by_name = || self.links().filter(|link| matches(link.name.as_str())).find_map(|link| self.on(link));
        stays(&|(_, ip)| matches(&ip.to_string()))
            .or_else(by_address)
            .or_else(|| stays(&|(link, _)| matches(link.name.as_str())))
            .or_else(by_name)
    }

    fn towards(&self) -> Option<Found<'a>> {
        let (index, source) = self.site.host.reach?;
        let link = self.links().find(|link| link.index == index)?;
        let is_present = self.present.is_some_and(|(present, _)| present.index == index);
        if Family::of(source) == self.site.family && !is_present { Some((link, source)) } else { self.on(link) }
    }

    /// The smallest metric wins; of equal ones, that of the interface in use. The other family's default route
    /// serves to begin with if ours has none, and moves nothing.
    fn of_default_route(&self) -> Option<Found<'a>> {
        let present = self.present.map(|(link, _)| link.index);
        let family = self.site.family;
        let serves = |of: Family| of == family || present.is_none();
        let mut defaults: Vec<_> = self.site.host.defaults.iter().filter(|route| serves(route.family)).collect();
        defaults.sort_by_key(|route| (route.family != family, route.metric, route.oif != present));
        defaults.into_iter().find_map(|route| {
            let link = self.links().find(|link| Some(link.index) == route.oif)?;
            self.on(link)
        })
    }

    /// What routes lead to, unless another interface is in use and this one has not stood yet: then the rival
    /// comes second. Without any route what is in use stays, as long as it is up.
    fn once_it_stood(&self, best: Option<Found<'a>>) -> Option<(Found<'a>, Option<&'a Link>)> {
        match (self.present, best) {
            (Some(present), Some((rival, _))) => {
                let waits = rival.index != present.0.index && self.site.stood != Some(rival.index);
                if waits { Some((present, Some(rival))) } else { best.map(|best| (best, None)) }
            }
            (Some(present), None) => present.0.up.then_some((present, None)),
            (None, best) => best.map(|best| (best, None)),
        }
    }

    fn on(&self, link: &'a Link) -> Option<Found<'a>> {
        if self.present.is_some_and(|(present, _)| present.index == link.index) {
            return self.present;
        }
        let ranked = link.addresses.iter().filter_map(|address| Some((self.rank(address)?, address.ip)));
        // `min_by_key` keeps the first of equals: the kernel's order decides.
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, ip)| (link, ip))
    }

    /// Whether packets can leave from it.
    fn carries(&self, address: &Address) -> bool {
        let family = self.site.family;
        Family::of(address.ip) == family && !address.failed && (address.global || family == Family::V4)
    }

    /// Flannel's order of addresses since v0.28.0; `None` for one that is not taken.
    fn rank(&self, address: &Address) -> Option<impl Ord + Copy + use<>> {
        let usable = self.carries(address) && !address.deprecated;
        usable.then_some((Reverse(address.global), Reverse(address.permanent), address.temporary))
    }
}
