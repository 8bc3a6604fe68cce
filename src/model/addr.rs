//! Addresses that cannot be wrong once they exist.

use std::cmp::Ordering;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use ipnetwork::IpNetwork;

pub use super::mac::{Mac, NotAMac};

/// An address family; weft keeps one VXLAN device for each that is enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4: device `flannel.<VNI>`.
    V4,
    /// IPv6: device `flannel-v6.<VNI>`.
    V6,
}

impl Family {
    /// Both families, in the order in which they are always worked through.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Bits in an address: 32 or 128.
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// Bytes that VXLAN adds over an underlay of this family: outer IP (20 or 40), UDP 8, VXLAN 8,
    /// inner Ethernet 14 (RFC 7348 section 5).
    pub const fn vxlan_overhead(self) -> u32 {
        match self {
            Self::V4 => 50,
            Self::V6 => 70,
        }
    }

    /// `ipv4` or `ipv6`: the word used in logs, metrics and `/state`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// One value for each family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByFamily<T> {
    /// The IPv4 one.
    pub v4: T,
    /// The IPv6 one.
    pub v6: T,
}

impl<T> ByFamily<T> {
    /// Builds both from one function.
    pub fn from_fn(mut f: impl FnMut(Family) -> T) -> Self {
        Self { v4: f(Family::V4), v6: f(Family::V6) }
    }

    /// The value of one family.
    pub const fn get(&self, family: Family) -> &T {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    /// The value of one family, to change.
    pub const fn get_mut(&mut self, family: Family) -> &mut T {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }

    /// Both, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = (Family, &T)> {
        [(Family::V4, &self.v4), (Family::V6, &self.v6)].into_iter()
    }
}

/// A VXLAN network identifier, below 2^24 (RFC 7348 section 5; Linux answers ERANGE above).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Vni(u32);

impl Vni {
    /// The largest.
    pub const MAX: u32 = (1 << 24) - 1;

    /// `None` at 2^24 and above.
    pub const fn new(value: u32) -> Option<Self> {
        if value <= Self::MAX { Some(Self(value)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number that the kernel gives an interface. Lives for one pass: a re-made device has another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IfIndex(pub u32);

/// The name of an interface.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IfName(Arc<str>);

impl IfName {
    /// Takes any text; the kernel is the judge of what it accepts (at most 15 bytes).
    pub fn new(name: &str) -> Self {
        Self(Arc::from(name))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The bits of an address. Within a family they sort as the addresses do, and much faster: that counts
/// where thousands are looked up.
pub const fn bits(ip: IpAddr) -> u128 {
    match ip {
        // Widening; `From` is not const.
        IpAddr::V4(ip) => ip.to_bits() as u128,
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// A CIDR whose host bits are zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subnet(IpNetwork);

/// IPv4 first, then by address, then by length.
impl Ord for Subnet {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.0, other.0) {
            (IpNetwork::V4(a), IpNetwork::V4(b)) => (a.ip().to_bits(), a.prefix()).cmp(&(b.ip().to_bits(), b.prefix())),
            (IpNetwork::V6(a), IpNetwork::V6(b)) => (a.ip().to_bits(), a.prefix()).cmp(&(b.ip().to_bits(), b.prefix())),
            (IpNetwork::V4(_), IpNetwork::V6(_)) => Ordering::Less,
            (IpNetwork::V6(_), IpNetwork::V4(_)) => Ordering::Greater,
        }
    }
}

impl PartialOrd for Subnet {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Why a text is not a subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotASubnet {
    /// No slash, or something on either side of it that does not parse.
    #[error("not a CIDR (address/prefix-length)")]
    Syntax,
    /// The prefix is longer than the address.
    #[error("prefix length out of range")]
    Length,
}

impl Subnet {
    /// Masks the host bits off. `None` if `len` is longer than the address.
    pub fn new(ip: IpAddr, len: u8) -> Option<Self> {
        let network = IpNetwork::new(ip, len).ok()?;
        IpNetwork::new(network.network(), len).ok().map(Self)
    }

    /// The one-address subnet (/32 or /128).
    pub fn host(ip: IpAddr) -> Self {
        // A full-length prefix has no host bits, whatever the family.
        Self(IpNetwork::from(ip))
    }

    /// The all-zero host: the VTEP's address and every peer's next hop in flannel's scheme.
    pub fn base(self) -> IpAddr {
        self.0.ip()
    }

    /// The prefix length in bits.
    #[expect(clippy::len_without_is_empty, reason = "a prefix is no container")]
    pub fn len(self) -> u8 {
        self.0.prefix()
    }

    /// Whether this is the default route's destination.
    pub fn is_default(self) -> bool {
        self.len() == 0
    }

    /// The family.
    pub fn family(self) -> Family {
        Family::of(self.base())
    }

    /// Whether an address lies inside.
    pub fn contains(self, ip: IpAddr) -> bool {
        self.0.contains(ip)
    }

    /// Whether the other lies wholly inside (equal counts).
    pub fn contains_subnet(self, other: Self) -> bool {
        self.len() <= other.len() && self.contains(other.base())
    }

    /// Whether any address lies in both.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains_subnet(other) || other.contains_subnet(self)
    }

    /// The last address inside.
    pub fn last(self) -> IpAddr {
        self.0.broadcast()
    }

    /// The first address after the base, which flannel gives the pod bridge. `None` in a
    /// one-address subnet.
    pub fn first_host(self) -> Option<IpAddr> {
        if self.len() == self.family().bits() {
            return None;
        }
        Some(match self.base() {
            IpAddr::V4(ip) => IpAddr::V4((u32::from(ip) + 1).into()),
            IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) + 1).into()),
        })
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base(), self.len())
    }
}

impl fmt::Debug for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Subnet {
    type Err = NotASubnet;

    /// Stricter than `IpNetwork::from_str`, which takes a bare address, a dotted mask, `/08` and
    /// `/+8`. Host bits are masked off, as flannel does.
    fn from_str(text: &str) -> Result<Self, NotASubnet> {
        let (ip, len) = text.split_once('/').ok_or(NotASubnet::Syntax)?;
        let ip: IpAddr = ip.parse().map_err(|_| NotASubnet::Syntax)?;
        let canonical = len.bytes().all(|b| b.is_ascii_digit()) && (len == "0" || !len.starts_with('0'));
        if !canonical || len.is_empty() {
            return Err(NotASubnet::Syntax);
        }
        let len = len.parse().map_err(|_| NotASubnet::Length)?;
        Self::new(ip, len).ok_or(NotASubnet::Length)
    }
}

impl serde::Serialize for Subnet {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl serde::Serialize for Family {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(self.label())
    }
}

impl serde::Serialize for IfName {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_has_no_host_bits_and_no_odd_spelling() {
        let subnet: Subnet = "10.244.1.5/24".parse().expect("a subnet");
        assert_eq!(subnet.to_string(), "10.244.1.0/24");
        assert_eq!(subnet.first_host().map(|ip| ip.to_string()), Some("10.244.1.1".into()));
        for text in ["10.0.0.0", "10.0.0.0/", "10.0.0.0/08", "10.0.0.0/+8", "10.0.0.0/255.0.0.0", "10.0.0/8", "/8"] {
            assert_eq!(text.parse::<Subnet>(), Err(NotASubnet::Syntax), "{text:?}");
        }
        for text in ["10.0.0.0/33", "fd00::/129", "10.0.0.0/999"] {
            assert_eq!(text.parse::<Subnet>(), Err(NotASubnet::Length), "{text:?}");
        }
    }

    #[test]
    fn overlap_is_containment_either_way() {
        let subnet = |text: &str| text.parse::<Subnet>().expect("a subnet");
        assert!(subnet("10.244.0.0/16").overlaps(subnet("10.244.3.0/24")));
        assert!(subnet("10.244.3.0/24").overlaps(subnet("10.244.0.0/16")));
        assert!(!subnet("10.244.3.0/24").overlaps(subnet("10.244.4.0/24")));
        assert!(!subnet("0.0.0.0/0").overlaps(subnet("fd00::/8")));
    }
}
