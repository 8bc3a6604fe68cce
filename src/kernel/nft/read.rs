//! What nf_tables says, as values. An attribute that a newer kernel adds is passed over: it must never
//! make a table look as if somebody had changed it.

use std::net::IpAddr;

use super::wire::{ELEMENT, FULLY_RANDOM, GROWING, REGISTER, SUBSYSTEM, VALUE, VERDICT, key_type};
use crate::kernel::netlink::wire::Malformed;
use crate::kernel::netlink::wire::frame::{Frame, attributes, ip, string};
use crate::model::addr::Family;
use crate::model::nft::{Base, Chain, Comparison, Expression, Header, ListedRule, Rule, Set, Verdict};

/// The attributes of a message or of an attribute, by number.
struct Attributes<'a>(Vec<(u16, &'a [u8])>);

impl<'a> Attributes<'a> {
    fn of(bytes: &'a [u8]) -> Result<Self, Malformed> {
        attributes(bytes).collect::<Result<_, _>>().map(Self)
    }

    fn get(&self, kind: u16) -> Option<&'a [u8]> {
        self.0.iter().find(|(number, _)| *number == kind).map(|(_, value)| *value)
    }

    fn text(&self, kind: u16) -> Result<String, Malformed> {
        self.get(kind).map(string).ok_or(Malformed("nf_tables name"))
    }

    fn number(&self, kind: u16) -> Option<u32> {
        self.get(kind).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes)
    }

    fn long(&self, kind: u16) -> Option<u64> {
        self.get(kind).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes)
    }

    fn nested(&self, kind: u16) -> Result<Self, Malformed> {
        Self::of(self.get(kind).unwrap_or(&[]))
    }
}

/// The attributes of an nf_tables message of this kind; `None` for another kind.
fn body<'a>(frame: &Frame<'a>, kind: u8) -> Result<Option<Attributes<'a>>, Malformed> {
    if frame.kind != SUBSYSTEM << 8 | u16::from(kind) {
        return Ok(None);
    }
    // struct nfgenmsg
    Attributes::of(frame.body.get(4..).ok_or(Malformed("nf_tables message"))?).map(Some)
}

/// The table that a notification is about; `None` for one that names none.
pub(super) fn table_of(frame: &Frame<'_>) -> Option<String> {
    if frame.kind >> 8 != SUBSYSTEM {
        return None;
    }
    // NFTA_TABLE_NAME, NFTA_CHAIN_TABLE and so on: always 1.
    Attributes::of(frame.body.get(4..)?).ok()?.get(1).map(string)
}

pub(super) fn generation(frame: &Frame<'_>) -> Result<Option<u32>, Malformed> {
    Ok(body(frame, super::wire::message::NEWGEN)?.and_then(|of| of.number(1)))
}

/// A table's name, whether it is dormant, how many objects it has.
pub(super) fn table(frame: &Frame<'_>) -> Result<Option<(String, bool, u32)>, Malformed> {
    let Some(of) = body(frame, super::wire::message::NEWTABLE)? else { return Ok(None) };
    Ok(Some((of.text(1)?, of.number(2).unwrap_or(0) & 1 != 0, of.number(3).unwrap_or(0))))
}

/// A chain and the name of its table.
pub(super) fn chain(frame: &Frame<'_>) -> Result<Option<(String, Chain)>, Malformed> {
    let Some(of) = body(frame, super::wire::message::NEWCHAIN)? else { return Ok(None) };
    let base = match of.get(4) {
        None => None,
        Some(hook) => {
            let hook = Attributes::of(hook)?;
            Some(Base {
                kind: of.text(7)?,
                hook: hook.number(1).unwrap_or(u32::MAX),
                priority: hook.number(2).unwrap_or(0).cast_signed(),
                drop: of.number(5) == Some(0),
            })
        }
    };
    Ok(Some((of.text(1)?, Chain { name: of.text(3)?, base })))
}

/// A rule and the name of its chain.
pub(super) fn rule(frame: &Frame<'_>) -> Result<Option<(String, ListedRule)>, Malformed> {
    let Some(of) = body(frame, super::wire::message::NEWRULE)? else { return Ok(None) };
    let (mut expressions, mut counted) = (Vec::new(), None);
    for (kind, one) in of.nested(4)?.0 {
        if kind != ELEMENT {
            continue;
        }
        let one = Attributes::of(one)?;
        let (name, raw) = (one.text(1)?, one.get(2).unwrap_or(&[]));
        let read = expression(&name, &Attributes::of(raw)?);
        if read == Some(Expression::Counter) {
            let counter = Attributes::of(raw)?;
            counted = Some((counter.long(2).unwrap_or(0), counter.long(1).unwrap_or(0)));
        }
        expressions.push(read.unwrap_or_else(|| Expression::Other(name, raw.to_vec())));
    }
    let rule = Rule { expressions, comment: of.get(7).and_then(comment) };
    Ok(Some((of.text(2)?, ListedRule { handle: of.long(3).unwrap_or(0), rule, counted })))
}

/// User data is a run of (type, length, value); type 0 is the comment.
fn comment(mut rest: &[u8]) -> Option<String> {
    while let [kind, length, after @ ..] = rest {
        let value = after.get(..usize::from(*length))?;
        if *kind == 0 {
            return Some(string(value));
        }
        rest = after.get(usize::from(*length)..)?;
    }
    None
}

/// `None` if it is not one that weft would have written: another kind, another register, another option.
fn expression(name: &str, of: &Attributes<'_>) -> Option<Expression> {
    let register = |kind| of.number(kind) == Some(REGISTER);
    let data = |kind| of.nested(kind).ok().and_then(|data| data.get(VALUE)).map(<[u8]>::to_vec);
    let absent =
        |kinds: &[u16]| kinds.iter().all(|kind| of.get(*kind).is_none_or(|value| value.iter().all(|b| *b == 0)));
    match name {
        "payload" if register(1) => {
            let header = match of.number(2)? {
                0 => Header::Link,
                1 => Header::Network,
                2 => Header::Transport,
                _ => return None,
            };
            Some(Expression::Payload { header, offset: of.number(3)?, len: of.number(4)? })
        }
        "meta" if register(1) => Some(Expression::Meta(of.number(2)?)),
        "exthdr" if register(1) && absent(&[3, 6]) && of.number(4) == Some(1) && of.number(5) == Some(1) => {
            of.get(2)?.first().map(|number| Expression::Ipv6Header(*number))
        }
        // NFTA_BITWISE_OP: 0 is "and, then exclusive or".
        "bitwise" if register(1) && register(2) && absent(&[6]) => {
            data(5)?.iter().all(|byte| *byte == 0).then_some(Expression::Mask(data(4)?))
        }
        "cmp" if register(1) => {
            let how = match of.number(2)? {
                0 => Comparison::Equal,
                1 => Comparison::NotEqual,
                _ => return None,
            };
            Some(Expression::Compare(how, data(3)?))
        }
        "lookup" if register(2) && of.get(3).is_none() => {
            Some(Expression::Lookup { set: of.text(1).ok()?, inverted: of.number(5).unwrap_or(0) & 1 != 0 })
        }
        "dynset" if of.number(3) == Some(1) && register(4) && absent(&[5, 7, 9, 10]) => {
            Some(Expression::Remember(of.text(1).ok()?))
        }
        "counter" => Some(Expression::Counter),
        "immediate" => verdict(&of.nested(2).ok()?.nested(VERDICT).ok()?).map(Expression::Verdict),
        "masq" if absent(&[2, 3]) => match of.number(1).unwrap_or(0) {
            0 => Some(Expression::Masquerade { fully_random: false }),
            FULLY_RANDOM => Some(Expression::Masquerade { fully_random: true }),
            _ => None,
        },
        _ => None,
    }
}

fn verdict(of: &Attributes<'_>) -> Option<Verdict> {
    match of.number(1)?.cast_signed() {
        0 => Some(Verdict::Drop),
        1 => Some(Verdict::Accept),
        -5 => Some(Verdict::Return),
        -3 => Some(Verdict::Jump(of.text(2).ok()?)),
        -4 => Some(Verdict::Goto(of.text(2).ok()?)),
        _ => None,
    }
}

/// A set's name, and the set unless it is of another make than weft's.
pub(super) fn set(frame: &Frame<'_>) -> Result<Option<(String, Option<Set>)>, Malformed> {
    let Some(of) = body(frame, super::wire::message::NEWSET)? else { return Ok(None) };
    let family = Family::BOTH.into_iter().find(|family| of.number(4) == Some(key_type(*family)));
    let grows = match of.number(3).unwrap_or(0) {
        0 => Some(None),
        GROWING => of.nested(9)?.number(1).zip(of.long(11)).map(Some),
        _ => None,
    };
    let name = of.text(2)?;
    let set = family.zip(grows).map(|(family, grows)| Set { name: name.clone(), family, grows });
    Ok(Some((name, set)))
}

/// Some elements of a set; `None` for one that weft would not have written.
pub(super) fn elements(frame: &Frame<'_>) -> Result<Option<Vec<Option<IpAddr>>>, Malformed> {
    let Some(of) = body(frame, super::wire::message::NEWSETELEM)? else { return Ok(None) };
    let list = of.nested(3)?;
    let elements = list.0.iter().filter(|(kind, _)| *kind == ELEMENT);
    elements.map(|(_, element)| Attributes::of(element).map(|of| address(&of))).collect::<Result<_, _>>().map(Some)
}

/// The address that an element is, and nothing but that: not the end of an interval or every address (`*`, both
/// NFTA_SET_ELEM_FLAGS), not with a value, a statement, an object or another end (NFTA_SET_ELEM_DATA, _EXPR, _OBJREF,
/// _KEY_END, _EXPRESSIONS).
fn address(element: &Attributes<'_>) -> Option<IpAddr> {
    let more = [2, 7, 9, 10, 11].iter().any(|kind| element.get(*kind).is_some());
    if more || element.number(3).unwrap_or(0) != 0 {
        return None;
    }
    element.nested(1).ok()?.get(VALUE).and_then(|key| ip(key).ok())
}
