//! Writing messages of rows: three for each peer, thousands in a row, so without an allocation for each.

use std::net::IpAddr;

/// NLA_F_NESTED.
const NESTED: u16 = 0x8000;

/// Appends one netlink message to a buffer. Its length is filled in by [`Writer::end`].
pub(in crate::kernel) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Writer<'a> {
    /// Starts a message: `struct nlmsghdr`.
    pub(in crate::kernel) fn begin(out: &'a mut Vec<u8>, kind: u16, flags: u16, seq: u32) -> Self {
        let start = out.len();
        let ([k0, k1], [f0, f1], [s0, s1, s2, s3]) = (kind.to_ne_bytes(), flags.to_ne_bytes(), seq.to_ne_bytes());
        // The last four say from whom: the kernel knows.
        out.extend_from_slice(&[0, 0, 0, 0, k0, k1, f0, f1, s0, s1, s2, s3, 0, 0, 0, 0]);
        Self { out, start }
    }

    /// Appends the fixed part that follows the header; its length is a multiple of four.
    pub(in crate::kernel) fn fixed(mut self, bytes: &[u8]) -> Self {
        self.append(bytes);
        self
    }

    /// Appends an attribute.
    pub(in crate::kernel) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        // No value here is longer than a rule's comment.
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        let ([l0, l1], [k0, k1]) = (length.to_ne_bytes(), kind.to_ne_bytes());
        self.out.extend_from_slice(&[l0, l1, k0, k1]);
        self.append(value);
        self
    }

    /// Appends an attribute whose value is a number in the host's order.
    pub(in crate::kernel) fn number(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// Appends an attribute whose value is an address.
    pub(in crate::kernel) fn address(self, kind: u16, ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => self.attribute(kind, &ip.octets()),
            IpAddr::V6(ip) => self.attribute(kind, &ip.octets()),
        }
    }

    /// Appends an attribute that holds attributes.
    pub(in crate::kernel) fn nested(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let at = self.out.len();
        self.out.extend([0; 2]);
        self.out.extend((kind | NESTED).to_ne_bytes());
        self = fill(self);
        // Whoever fills it keeps it below 64 KiB.
        let length = u16::try_from(self.out.len() - at).unwrap_or(u16::MAX);
        if let Some(place) = self.out.get_mut(at..at + 2) {
            place.copy_from_slice(&length.to_ne_bytes());
        }
        self
    }

    /// Appends an attribute that is a text with its closing zero.
    pub(in crate::kernel) fn text(self, kind: u16, text: &str) -> Self {
        self.attribute(kind, &[text.as_bytes(), &[0]].concat())
    }

    /// Appends an attribute whose value is a number in network order, as nf_tables has them.
    pub(in crate::kernel) fn big_endian(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// Ends the message.
    pub(in crate::kernel) fn end(self) {
        let length = u32::try_from(self.out.len() - self.start).unwrap_or(u32::MAX);
        if let Some(place) = self.out.get_mut(self.start..self.start + 4) {
            place.copy_from_slice(&length.to_ne_bytes());
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
        let padding = bytes.len().next_multiple_of(4) - bytes.len();
        self.out.extend_from_slice(&[0; 3][..padding]);
    }
}
