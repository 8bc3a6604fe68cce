//! The framing: messages in a datagram, attributes in a message, answers with the kernel's words.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR};

use super::Malformed;
use crate::model::op::Refusal;

/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// NLMSGERR_ATTR_MSG: the text of an extended acknowledgement.
const ERROR_TEXT: u16 = 1;

/// One message of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`.
    pub seq: u32,
    /// What follows the header.
    pub body: &'a [u8],
}

/// The messages of a datagram, in order. Ends after the first that is malformed.
pub fn frames(datagram: &[u8]) -> impl Iterator<Item = Result<Frame<'_>, Malformed>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (frame, after) = match first_frame(rest) {
            Some((frame, after)) => (Ok(frame), after),
            None => (Err(Malformed("message")), &[][..]),
        };
        rest = after;
        Some(frame)
    })
}

fn first_frame(bytes: &[u8]) -> Option<(Frame<'_>, &[u8])> {
    let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
    let body = bytes.get(HEADER..length)?;
    let frame = Frame { kind: u16_at(bytes, 4)?, flags: u16_at(bytes, 6)?, seq: u32_at(bytes, 8)?, body };
    Some((frame, bytes.get(length.next_multiple_of(4)..).unwrap_or(&[])))
}

/// The attributes in a run of bytes, as (type without the flag bits, value). Ends after the first that
/// is malformed.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = Result<(u16, &[u8]), Malformed>> {
    /// NLA_TYPE_MASK.
    const TYPE: u16 = 0x3fff;
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some(length) = u16_at(rest, 0).map(usize::from) else {
            rest = &[];
            return Some(Err(Malformed("attribute")));
        };
        let (Some(kind), Some(value)) = (u16_at(rest, 2), rest.get(4..length)) else {
            rest = &[];
            return Some(Err(Malformed("attribute")));
        };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Ok((kind & TYPE, value)))
    })
}

/// What a message says about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Neither an answer nor an end: a row, or a notification.
    Data,
    /// The request was done, or the dump is at its end.
    Done,
    /// It was refused.
    Refused(Refusal),
}

impl Frame<'_> {
    /// Reads NLMSG_ERROR and NLMSG_DONE. The end of a dump carries an error number too: a dump that was
    /// refused under strict checking looks like an empty table to whoever ignores it.
    pub fn answer(&self) -> Result<Answer, Malformed> {
        let texts = match self.kind {
            NLMSG_ERROR => self.after_request()?,
            // An end without a number is a success.
            NLMSG_DONE if self.body.len() < 4 => return Ok(Answer::Done),
            NLMSG_DONE => self.body.get(4..).unwrap_or(&[]),
            _ => return Ok(Answer::Data),
        };
        let number = u32_at(self.body, 0).ok_or(Malformed("answer"))?.cast_signed();
        if number >= 0 {
            return Ok(Answer::Done);
        }
        let text = if self.flags & NLM_F_ACK_TLVS == 0 { None } else { text(texts) };
        Ok(Answer::Refused(Refusal { errno: number.saturating_neg(), text }))
    }

    /// Whether the table changed while it was being dumped.
    pub const fn interrupted(&self) -> bool {
        self.flags & NLM_F_DUMP_INTR != 0
    }

    /// What follows the copy of the request in an error: its header alone if the socket asked for
    /// capped answers, else all of it.
    fn after_request(&self) -> Result<&[u8], Malformed> {
        let copy = if self.flags & NLM_F_CAPPED != 0 {
            HEADER
        } else {
            usize::try_from(u32_at(self.body, 4).ok_or(Malformed("answer"))?).map_err(|_| Malformed("answer"))?
        };
        Ok(copy.checked_next_multiple_of(4).and_then(|copy| self.body.get(4 + copy..)).unwrap_or(&[]))
    }
}

fn text(attributes_of_error: &[u8]) -> Option<String> {
    let (_, words) = attributes(attributes_of_error).filter_map(Result::ok).find(|(kind, _)| *kind == ERROR_TEXT)?;
    Some(string(words))
}

/// A NUL-terminated text.
pub(in crate::kernel) fn string(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or(bytes)).into_owned()
}

/// An address, by its length.
pub(in crate::kernel) fn ip(bytes: &[u8]) -> Result<IpAddr, Malformed> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        Ok(v4.into())
    } else if let Ok(v6) = <[u8; 16]>::try_from(bytes) {
        Ok(v6.into())
    } else {
        Err(Malformed("address"))
    }
}

/// A number of four bytes, in the host's order.
pub(super) fn u32_value(bytes: &[u8]) -> Result<u32, Malformed> {
    bytes.try_into().map(u32::from_ne_bytes).map_err(|_| Malformed("number"))
}

pub(super) fn u8_at(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at.checked_add(2)?)?.try_into().ok().map(u16::from_ne_bytes)
}

pub(in super::super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_ne_bytes)
}
