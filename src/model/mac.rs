//! Ethernet addresses.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

/// An Ethernet address. [`Mac::is_vtep`] says whether a VTEP may have it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

/// As one number: thousands are hashed and sorted.
impl Hash for Mac {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.bits());
    }
}

impl Ord for Mac {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.bits().cmp(&other.bits())
    }
}

impl PartialOrd for Mac {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Mac {
    /// The address as a number; it sorts as the bytes do.
    pub const fn bits(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }

    /// Whether every byte is zero: the FDB's default entry.
    pub const fn is_zero(self) -> bool {
        let [a, b, c, d, e, f] = self.0;
        a | b | c | d | e | f == 0
    }

    /// Whether the group bit is set (multicast and broadcast).
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// Whether a VTEP may have this address: unicast and not zero. Linux answers EOPNOTSUPP to an
    /// FDB replace of anything else.
    pub const fn is_vtep(self) -> bool {
        !self.is_zero() && !self.is_multicast()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not six bytes in hex with colons or dashes between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a MAC address (six hex bytes with colons between them)")]
pub struct NotAMac;

impl FromStr for Mac {
    type Err = NotAMac;

    /// Accepts what Go's `net.ParseMAC` accepts of six bytes with `:` or `-`, since that is what
    /// flanneld peers are read with.
    fn from_str(text: &str) -> Result<Self, NotAMac> {
        let separator = match text.as_bytes().get(2) {
            Some(b':') => ':',
            Some(b'-') => '-',
            _ => return Err(NotAMac),
        };
        let mut bytes = [0; 6];
        let mut parts = text.split(separator);
        for byte in &mut bytes {
            let part = parts.next().ok_or(NotAMac)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(NotAMac);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| NotAMac)?;
        }
        if parts.next().is_some() { Err(NotAMac) } else { Ok(Self(bytes)) }
    }
}

impl serde::Serialize for Mac {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_is_six_hex_bytes_and_prints_in_lower_case() {
        let mac: Mac = "3A:1f:00:Bb:cc:0d".parse().expect("a MAC");
        assert_eq!(mac.to_string(), "3a:1f:00:bb:cc:0d");
        assert_eq!("3a-1f-00-bb-cc-0d".parse(), Ok(mac));
        for text in [
            "",
            "3a:1f:00:bb:cc",
            "3a:1f:00:bb:cc:0d:0e",
            "3a:1f:00:bb:cc:+d",
            "3a1f.00bb.cc0d",
            "3a:1f-00:bb:cc:0d",
            "3a:1f:00:bb:cc:0d ",
        ] {
            assert_eq!(text.parse::<Mac>(), Err(NotAMac), "{text:?}");
        }
    }

    #[test]
    fn only_a_unicast_address_can_be_a_vteps() {
        let vtep = |text: &str| text.parse::<Mac>().expect("a MAC").is_vtep();
        assert!(vtep("02:00:00:00:00:01"));
        assert!(!vtep("00:00:00:00:00:00"));
        assert!(!vtep("01:00:5e:00:00:01"));
        assert!(!vtep("ff:ff:ff:ff:ff:ff"));
    }
}
