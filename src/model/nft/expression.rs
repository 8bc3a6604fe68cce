//! The parts of a rule, as the kernel has them.

use std::net::IpAddr;

use crate::model::addr::{Family, Subnet};

/// Which header an offset counts from (`enum nft_payload_bases`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// Link layer.
    Link,
    /// Network layer.
    Network,
    /// Transport layer.
    Transport,
}

/// How a register is compared (`enum nft_cmp_ops`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Equal.
    Equal,
    /// Not equal.
    NotEqual,
}

/// What becomes of the packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// On to the next chain of the hook, or out.
    Accept,
    /// Away with it.
    Drop,
    /// Back to the chain that jumped here; in a base chain the policy decides.
    Return,
    /// Into another chain, and back here after it.
    Jump(String),
    /// Into another chain, and not back.
    Goto(String),
}

/// One expression. weft uses one register, so it is not named: each expression that reads takes what
/// the one before it has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// Takes bytes of the packet.
    Payload {
        /// From where `offset` counts.
        header: Header,
        /// Bytes before those that are taken.
        offset: u32,
        /// Bytes taken.
        len: u32,
    },
    /// Takes something the kernel knows of the packet (`enum nft_meta_keys`).
    Meta(u32),
    /// Takes whether an IPv6 extension header of this number is there.
    Ipv6Header(u8),
    /// Keeps some of the bits.
    Mask(Vec<u8>),
    /// Goes on only if the register compares so.
    Compare(Comparison, Vec<u8>),
    /// Goes on only if the register is in the set, or only if it is not.
    Lookup {
        /// The set.
        set: String,
        /// Only if it is not.
        inverted: bool,
    },
    /// Puts the register into the set, or renews it there, for the set's own time; goes on unless it is full.
    Remember(String),
    /// Counts packets and bytes.
    Counter,
    /// Ends the rule.
    Verdict(Verdict),
    /// Source NAT to the address of the interface that the packet leaves by.
    Masquerade {
        /// A random port for each connection (`NF_NAT_RANGE_PROTO_RANDOM_FULLY`).
        fully_random: bool,
    },
    /// Something that weft does not use: its name, and its attributes as they are.
    Other(String, Vec<u8>),
}

/// NFT_META_MARK.
pub(super) const META_MARK: u32 = 3;
/// NFT_META_L4PROTO.
pub(super) const META_L4PROTO: u32 = 16;
/// IPPROTO_UDP.
pub(super) const UDP: u8 = 17;
/// IPPROTO_FRAGMENT.
const FRAGMENT: u8 = 44;

const fn compare(equal: bool) -> Comparison {
    if equal { Comparison::Equal } else { Comparison::NotEqual }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

impl Expression {
    const fn address(family: Family, source: bool) -> Self {
        // struct iphdr and struct ipv6hdr.
        let (offset, len) = match (family, source) {
            (Family::V4, true) => (12, 4),
            (Family::V4, false) => (16, 4),
            (Family::V6, true) => (8, 16),
            (Family::V6, false) => (24, 16),
        };
        Self::Payload { header: Header::Network, offset, len }
    }

    /// As `nft` itself writes it: whole bytes are taken and compared, other prefixes are masked.
    fn within(family: Family, source: bool, net: Subnet, inside: bool) -> Vec<Self> {
        let (whole, mut value) = (Self::address(family, source), octets(net.base()));
        let bytes = net.len() / 8;
        match whole {
            Self::Payload { header, offset, .. } if net.len().is_multiple_of(8) && bytes > 0 => {
                value.truncate(usize::from(bytes));
                let taken = Self::Payload { header, offset, len: u32::from(bytes) };
                vec![taken, Self::Compare(compare(inside), value)]
            }
            whole => vec![whole, Self::Mask(mask(net)), Self::Compare(compare(inside), value)],
        }
    }

    /// The source address is in the network, or is not.
    pub fn source(net: Subnet, inside: bool) -> Vec<Self> {
        Self::within(net.family(), true, net, inside)
    }

    /// The destination address is in the network, or is not.
    pub fn destination(net: Subnet, inside: bool) -> Vec<Self> {
        Self::within(net.family(), false, net, inside)
    }

    /// These bits of the packet's mark are all set.
    pub fn marked(bits: u32) -> Vec<Self> {
        let bits = bits.to_ne_bytes().to_vec();
        vec![Self::Meta(META_MARK), Self::Mask(bits.clone()), Self::Compare(Comparison::Equal, bits)]
    }

    /// A UDP packet for this port.
    pub fn udp_to(port: u16) -> Vec<Self> {
        vec![
            Self::Meta(META_L4PROTO),
            Self::Compare(Comparison::Equal, vec![UDP]),
            Self::Payload { header: Header::Transport, offset: 2, len: 2 },
            Self::Compare(Comparison::Equal, port.to_be_bytes().to_vec()),
        ]
    }

    /// The 24 bits where a VXLAN packet has its VNI: 8 bytes of UDP header, 4 of VXLAN's (RFC 7348 section 5).
    pub fn vni(vni: u32) -> Vec<Self> {
        let [_, vni @ ..] = vni.to_be_bytes();
        vec![
            Self::Payload { header: Header::Transport, offset: 12, len: 3 },
            Self::Compare(Comparison::Equal, vni.to_vec()),
        ]
    }

    /// An IPv6 packet that is a fragment.
    pub fn ipv6_fragment() -> Vec<Self> {
        vec![Self::Ipv6Header(FRAGMENT), Self::Compare(Comparison::Equal, vec![1])]
    }

    /// The source address is in the set, or is not.
    pub fn source_in(family: Family, set: &str, inside: bool) -> Vec<Self> {
        vec![Self::address(family, true), Self::Lookup { set: set.to_owned(), inverted: !inside }]
    }

    /// Puts the source address into the set.
    pub fn remember_source(family: Family, set: &str) -> Vec<Self> {
        vec![Self::address(family, true), Self::Remember(set.to_owned())]
    }
}

fn mask(net: Subnet) -> Vec<u8> {
    let bits = usize::from(net.family().bits());
    let len = usize::from(net.len());
    let byte = |at: usize| {
        let ones = u32::try_from(len.saturating_sub(at * 8).min(8)).unwrap_or(8);
        u8::MAX.checked_shl(8 - ones).unwrap_or(0)
    };
    (0..bits / 8).map(byte).collect()
}

/// The prefix length of a mask, if it is one.
pub(super) fn prefix_of(mask: &[u8]) -> Option<u32> {
    let ones: u32 = mask.iter().map(|byte| byte.leading_ones()).sum();
    let set: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
    let after = mask.iter().skip_while(|byte| **byte == 0xff).skip(1).all(|byte| *byte == 0);
    (ones == set && after).then_some(ones)
}
