//! Changes as values. Each prints as the iproute2 command that would do the same.

use std::fmt;
use std::net::IpAddr;

use super::addr::{Family, IfIndex, IfName, Mac};
use super::device::DeviceSpec;
use super::nft::{NftChange, OUR_TABLE, TableName};
use super::table::{Entry, PROTOCOL_BOOT, PROTOCOL_WEFT, Route, RouteKey};

/// A device as it stands in the kernel during one pass.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dev {
    /// The kernel's number: what netlink is told.
    pub index: IfIndex,
    /// Its name: what a person is told.
    pub name: IfName,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// To the device, its addresses or its sysctls.
    Link(LinkOp),
    /// Put a row in. A route with `replace` only where the key was seen to be held by a route of ours:
    /// otherwise the kernel is asked to refuse (`NLM_F_EXCL`), so that a foreign route is never
    /// overwritten. Neighbours and FDB entries are always sent with `NLM_F_REPLACE`: on our device
    /// they are all ours, and one that the kernel resolved or learned itself holds the key unseen.
    Set {
        /// On which device.
        dev: Dev,
        /// The row.
        entry: Entry,
        /// Whether a row with this key is there already.
        replace: bool,
    },
    /// Take a row out; it carries the value that was seen.
    Del {
        /// On which device.
        dev: Dev,
        /// The row as seen.
        entry: Entry,
    },
    /// To our packet filter. It goes to the kernel alone, not among others.
    Filter(FilterOp),
}

/// A change to our packet filter in one family, as one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterOp {
    /// The family.
    pub family: Family,
    /// All of them happen at once, or none.
    pub changes: Vec<NftChange>,
}

/// A change to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkOp {
    /// Make it, down, with every attribute of the spec except address and addrgenmode.
    Create(DeviceSpec),
    /// Remove it.
    Delete(Dev),
    /// `addrgenmode none`; must come before the device is first up (the kernel refuses it in the
    /// message that creates the device).
    AddrGenNone(Dev),
    /// Change the MAC. The kernel then drops every neighbour of the device.
    SetMac(Dev, Mac),
    /// Change the MTU, in bytes.
    SetMtu(Dev, u32),
    /// Change the outer source address in place.
    SetLocal(Dev, IpAddr),
    /// Bind it to another underlay in place.
    SetUnderlay(Dev, Dev),
    /// Turn learning on or off.
    SetLearning(Dev, bool),
    /// Change the TTL of the outer packets; 0 is the host's default.
    SetTtl(Dev, u8),
    /// `disable_ipv6 = 0`.
    EnableIpv6(Dev),
    /// Set it up.
    Up(Dev),
    /// Add an address with this prefix length.
    AddAddress(Dev, IpAddr, u8),
    /// Remove an address.
    DelAddress(Dev, IpAddr, u8),
}

/// The kernel's refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.sentence())]
pub struct Refusal {
    /// The error number, positive.
    pub errno: i32,
    /// The kernel's own words (extended ack), if it gave any.
    pub text: Option<String>,
}

impl Refusal {
    fn sentence(&self) -> String {
        let os = std::io::Error::from_raw_os_error(self.errno);
        match &self.text {
            Some(text) => format!("{os}: {text}"),
            None => os.to_string(),
        }
    }
}

/// What became of one change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ack {
    /// The kernel says it is done. Not a proof: the next observation is.
    Done,
    /// The kernel said no.
    Refused(Refusal),
    /// The answer was lost (overrun, socket trouble): it may have happened or not.
    Unknown(String),
}

impl Op {
    /// The device that the change is on, by name; packet rules are on none.
    pub const fn device(&self) -> Option<&IfName> {
        match self {
            Self::Set { dev, .. } | Self::Del { dev, .. } => Some(&dev.name),
            Self::Link(op) => Some(op.device()),
            Self::Filter(_) => None,
        }
    }

    /// The row, if the change is to a table.
    pub const fn entry(&self) -> Option<&Entry> {
        match self {
            Self::Set { entry, .. } | Self::Del { entry, .. } => Some(entry),
            Self::Link(_) | Self::Filter(_) => None,
        }
    }
}

impl LinkOp {
    /// The device that the change is on, by name.
    pub const fn device(&self) -> &IfName {
        match self {
            Self::Create(spec) => &spec.name,
            Self::Delete(dev)
            | Self::AddrGenNone(dev)
            | Self::SetMac(dev, _)
            | Self::SetMtu(dev, _)
            | Self::SetLocal(dev, _)
            | Self::SetUnderlay(dev, _)
            | Self::SetLearning(dev, _)
            | Self::SetTtl(dev, _)
            | Self::EnableIpv6(dev)
            | Self::Up(dev)
            | Self::AddAddress(dev, ..)
            | Self::DelAddress(dev, ..) => &dev.name,
        }
    }

    /// The address that it is about, and its prefix length, if it is about one.
    pub const fn address(&self) -> Option<(IpAddr, u8)> {
        match self {
            Self::AddAddress(_, ip, len) | Self::DelAddress(_, ip, len) => Some((*ip, *len)),
            _ => None,
        }
    }
}

impl FilterOp {
    /// The table that it changes.
    pub fn table(&self) -> TableName {
        TableName::new(self.family, OUR_TABLE)
    }

    /// What it does, however many rules and addresses that is.
    pub fn in_short(&self) -> String {
        let count = |counts: fn(&NftChange) -> usize| self.changes.iter().map(counts).sum::<usize>();
        let rules = count(|change| usize::from(matches!(change, NftChange::AddRule(..))));
        let [new, gone] = [
            count(|change| if let NftChange::AddElements(.., all) = change { all.len() } else { 0 }),
            count(|change| if let NftChange::DeleteElements(.., all) = change { all.len() } else { 0 }),
        ];
        let table = self.table();
        match (rules, new, gone) {
            (0, 0, 0) => format!("nft delete table {table}"),
            (0, _, _) => format!("nft table {table}: known VTEPs, {new} in and {gone} out"),
            (_, 0, _) => format!("nft table {table}: made, {rules} rules"),
            _ => format!("nft table {table}: made, {rules} rules, {new} known VTEPs"),
        }
    }
}

/// For a shell: one `nft` command, its text in quotes.
impl fmt::Display for FilterOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nft '")?;
        for (at, change) in self.changes.iter().enumerate() {
            write!(f, "{}{change}", if at == 0 { "" } else { "; " })?;
        }
        f.write_str("'")
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(op) => op.fmt(f),
            Self::Set { dev, entry, replace } => {
                let exclusive = matches!(entry, Entry::Route(..)) && !replace;
                row(f, if exclusive { "add" } else { "replace" }, &dev.name, entry)
            }
            Self::Del { dev, entry } => row(f, "del", &dev.name, entry),
            Self::Filter(op) => op.fmt(f),
        }
    }
}

fn row(f: &mut fmt::Formatter<'_>, verb: &str, dev: &IfName, entry: &Entry) -> fmt::Result {
    match entry {
        Entry::Route(key, route) => route_command(f, verb, dev, key, route),
        Entry::Neighbour(ip, _) if verb == "del" => write!(f, "ip neigh del {ip} dev {dev}"),
        Entry::Neighbour(ip, neighbour) => {
            write!(f, "ip neigh {verb} {ip} lladdr {} dev {dev} nud permanent", neighbour.mac)
        }
        // With anything else set the kernel does not find it by its destination.
        Entry::Fdb(key, fdb) if verb == "del" && !fdb.plain => write!(f, "bridge fdb del {} dev {dev} self", key.mac),
        Entry::Fdb(key, fdb) if verb == "del" => {
            write!(f, "bridge fdb del {} dev {dev} dst {} self", key.mac, fdb.dst)
        }
        Entry::Fdb(key, fdb) => {
            write!(f, "bridge fdb {verb} {} dev {dev} dst {} self permanent", key.mac, fdb.dst)
        }
    }
}

fn route_command(f: &mut fmt::Formatter<'_>, verb: &str, dev: &IfName, key: &RouteKey, route: &Route) -> fmt::Result {
    let six = if key.dst.family() == Family::V6 { "-6 " } else { "" };
    write!(f, "ip {six}route {verb} {}", key.dst)?;
    // Nor is a route that is not plain found by its gateway or interface.
    if route.plain {
        route.via.map_or(Ok(()), |via| write!(f, " via {via}"))?;
        write!(f, " dev {dev}")?;
    }
    match route.protocol {
        PROTOCOL_BOOT => f.write_str(" proto boot")?,
        PROTOCOL_WEFT => write!(f, " proto {PROTOCOL_WEFT}")?,
        other => write!(f, " proto {other}")?,
    }
    if key.metric != 0 {
        write!(f, " metric {}", key.metric)?;
    }
    if route.plain && route.onlink { f.write_str(" onlink") } else { Ok(()) }
}

impl fmt::Display for LinkOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let switch = |on: bool, word: &'static str, off: &'static str| if on { word } else { off };
        match self {
            Self::Create(spec) => {
                write!(f, "ip link add {} mtu {} address {} txqueuelen 0", spec.name, spec.mtu, spec.mac)?;
                write!(f, " type vxlan id {} dev {} local {}", spec.vni, spec.underlay_name, spec.local)?;
                write!(f, " dstport {} {}", spec.port, switch(spec.learning, "learning", "nolearning"))?;
                f.write_str(switch(spec.udp_checksum, "", " noudpcsum"))?;
                f.write_str(switch(spec.gbp, " gbp", ""))
            }
            Self::Delete(dev) => write!(f, "ip link del {}", dev.name),
            Self::AddrGenNone(dev) => write!(f, "ip link set {} addrgenmode none", dev.name),
            Self::SetMac(dev, mac) => write!(f, "ip link set {} address {mac}", dev.name),
            Self::SetMtu(dev, mtu) => write!(f, "ip link set {} mtu {mtu}", dev.name),
            Self::SetLocal(dev, ip) => write!(f, "ip link set {} type vxlan local {ip}", dev.name),
            Self::SetUnderlay(dev, to) => write!(f, "ip link set {} type vxlan dev {}", dev.name, to.name),
            Self::SetLearning(dev, on) => {
                write!(f, "ip link set {} type vxlan {}", dev.name, switch(*on, "learning", "nolearning"))
            }
            Self::SetTtl(dev, 0) => write!(f, "ip link set {} type vxlan ttl auto", dev.name),
            Self::SetTtl(dev, ttl) => write!(f, "ip link set {} type vxlan ttl {ttl}", dev.name),
            Self::EnableIpv6(dev) => {
                write!(f, "sysctl net.ipv6.conf.{}.disable_ipv6=0", dev.name.as_str().replace('.', "/"))
            }
            Self::Up(dev) => write!(f, "ip link set {} up", dev.name),
            // Duplicate detection could find nothing on such a device.
            Self::AddAddress(dev, ip, len) => {
                write!(f, "ip addr add {ip}/{len} dev {}{}", dev.name, switch(ip.is_ipv6(), " nodad", ""))
            }
            Self::DelAddress(dev, ip, len) => write!(f, "ip addr del {ip}/{len} dev {}", dev.name),
        }
    }
}
