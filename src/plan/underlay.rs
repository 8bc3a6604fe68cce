//! Which interface carries the encapsulated packets, and from which address.
//!
//! Flannel's rules, one family at a time: `--iface` values in order, then `--iface-regex`, then
//! `--iface-can-reach`; with none of them, the interface that has the public IP, else the one of the
//! default route. Unlike flannel, a public IP that no interface has (NAT) is not an error, and each
//! family may have an underlay of its own.

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
}

/// Chooses for one family. `public_ip` is what is to be advertised, if that is configured; `ours` are
/// the names of our own devices, which never carry themselves.
///
/// # Errors
/// A sentence that says what was looked for and what to do.
pub fn choose(
    rules: &UnderlayRules,
    host: &Host,
    family: Family,
    public_ip: Option<IpAddr>,
    ours: &[IfName],
) -> Result<Underlay, String> {
    let candidates = Candidates { host, family, ours };
    let found = if rules.iface.is_empty() && rules.iface_regex.is_empty() && rules.can_reach.is_none() {
        let owner = public_ip.and_then(|ip| candidates.owner(ip));
        owner.or_else(|| candidates.of_default_route())
    } else {
        let named = rules.iface.iter().find_map(|text| candidates.named(text));
        let matched = || rules.iface_regex.iter().find_map(|regex| candidates.matching(|text| regex.is_match(text)));
        named.or_else(matched).or_else(|| candidates.towards())
    };
    let (link, mut local) = found.ok_or_else(|| nothing_found(rules, family))?;
    if let Some(ip) = public_ip
        && link.addresses.iter().any(|address| address.ip == ip)
    {
        local = ip;
    }
    Ok(Underlay { index: link.index, name: link.name.clone(), mtu: link.mtu, local })
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
    host: &'a Host,
    family: Family,
    ours: &'a [IfName],
}

type Found<'a> = (&'a Link, IpAddr);

impl<'a> Candidates<'a> {
    fn links(&self) -> impl Iterator<Item = &'a Link> {
        let ours = self.ours;
        self.host.links.iter().filter(move |link| !ours.contains(&link.name))
    }

    fn owner(&self, ip: IpAddr) -> Option<Found<'a>> {
        let link = self.links().find(|link| link.addresses.iter().any(|address| address.ip == ip))?;
        if Family::of(ip) == self.family { Some((link, ip)) } else { self.on(link) }
    }

    fn named(&self, text: &str) -> Option<Found<'a>> {
        match text.parse() {
            Ok(ip) => self.owner(ip),
            Err(_) => self.links().find(|link| link.name.as_str() == text).and_then(|link| self.on(link)),
        }
    }

    /// A regular expression is matched with addresses first, then with names.
    fn matching(&self, matches: impl Fn(&str) -> bool) -> Option<Found<'a>> {
        let usable = |link: &'a Link| link.addresses.iter().filter(|address| self.rank(address).is_some());
        let by_address = self.links().filter(|link| !link.loopback).find_map(|link| {
            let address = usable(link).find(|address| matches(&address.ip.to_string()))?;
            Some((link, address.ip))
        });
        let mut named = self.links().filter(|link| matches(link.name.as_str()));
        by_address.or_else(|| named.find_map(|link| self.on(link)))
    }

    fn towards(&self) -> Option<Found<'a>> {
        let (index, source) = self.host.reach?;
        let link = self.links().find(|link| link.index == index)?;
        if Family::of(source) == self.family { Some((link, source)) } else { self.on(link) }
    }

    /// The smallest metric wins. The other family's default route serves if ours has none.
    fn of_default_route(&self) -> Option<Found<'a>> {
        let mut defaults: Vec<_> = self.host.defaults.iter().collect();
        defaults.sort_by_key(|route| (route.family != self.family, route.metric));
        defaults.into_iter().find_map(|route| {
            let link = self.links().find(|link| Some(link.index) == route.oif)?;
            self.on(link)
        })
    }

    fn on(&self, link: &'a Link) -> Option<Found<'a>> {
        let ranked = link.addresses.iter().filter_map(|address| Some((self.rank(address)?, address.ip)));
        // `min_by_key` keeps the first of equals: the kernel's order decides.
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, ip)| (link, ip))
    }

    /// Flannel's order of addresses since v0.28.0; `None` for one that cannot be used.
    fn rank(&self, address: &Address) -> Option<impl Ord + Copy + use<>> {
        let usable = Family::of(address.ip) == self.family && !address.deprecated && !address.failed;
        let reachable = address.global || self.family == Family::V4;
        (usable && reachable).then_some((Reverse(address.global), Reverse(address.permanent), address.temporary))
    }
}
