//! nf_tables messages as bytes. The numbers are those of `linux/netfilter/nf_tables.h`.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST};

use crate::kernel::netlink::dump::Ask;
use crate::kernel::netlink::wire::writer::Writer;
use crate::model::addr::Family;
use crate::model::nft::{
    Base, Chain, Comparison, Expression, Header, NftChange, Rule, Set, TableFamily, TableName, Verdict,
};
use crate::model::op::Refusal;

/// NFNL_SUBSYS_NFTABLES, in the upper byte of a message's type.
pub(super) const SUBSYSTEM: u16 = 10;
/// NFT_MSG_…
pub(super) mod message {
    pub(in super::super) const NEWTABLE: u8 = 0;
    pub(in super::super) const GETTABLE: u8 = 1;
    pub(in super::super) const DELTABLE: u8 = 2;
    pub(in super::super) const NEWCHAIN: u8 = 3;
    pub(in super::super) const GETCHAIN: u8 = 4;
    pub(in super::super) const DELCHAIN: u8 = 5;
    pub(in super::super) const NEWRULE: u8 = 6;
    pub(in super::super) const GETRULE: u8 = 7;
    pub(in super::super) const DELRULE: u8 = 8;
    pub(in super::super) const NEWSET: u8 = 9;
    pub(in super::super) const GETSET: u8 = 10;
    pub(in super::super) const NEWSETELEM: u8 = 12;
    pub(in super::super) const GETSETELEM: u8 = 13;
    pub(in super::super) const DELSETELEM: u8 = 14;
    pub(in super::super) const NEWGEN: u8 = 15;
    pub(in super::super) const GETGEN: u8 = 16;
}
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// NFNL_BATCH_GENID.
const GENERATION: u16 = 1;
/// NFTA_LIST_ELEM.
pub(super) const ELEMENT: u16 = 1;
/// NFTA_DATA_VALUE and NFTA_DATA_VERDICT.
pub(super) const VALUE: u16 = 1;
pub(super) const VERDICT: u16 = 2;
/// NFT_REG_VERDICT and NFT_REG_1.
const TO_VERDICT: u32 = 0;
pub(super) const REGISTER: u32 = 1;
/// NF_NAT_RANGE_PROTO_RANDOM_FULLY.
pub(super) const FULLY_RANDOM: u32 = 1 << 4;
/// NFT_SET_TIMEOUT | NFT_SET_EVAL.
pub(super) const GROWING: u32 = 0x10 | 0x20;
/// nft's own numbers of the types `ipv4_addr` and `ipv6_addr`.
pub(super) const fn key_type(family: Family) -> u32 {
    match family {
        Family::V4 => 7,
        Family::V6 => 8,
    }
}

/// Elements in one message: an attribute is at most 64 KiB, and one takes up to 28 bytes.
const ELEMENTS: usize = 1000;

/// What nf_tables is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question<'a> {
    /// The number of the last transaction.
    Generation,
    /// Every table of a family.
    Tables(TableFamily),
    /// One table.
    Table(&'a TableName),
    /// Every chain of a family.
    Chains(TableFamily),
    /// One chain.
    Chain(&'a TableName, &'a str),
    /// The rules of a table, or of one of its chains.
    Rules(&'a TableName, Option<&'a str>),
    /// A set, without its elements.
    Set(&'a TableName, &'a str),
    /// The elements of a set.
    Elements(&'a TableName, &'a str),
}

impl Ask for Question<'_> {
    fn what(&self) -> &'static str {
        match self {
            Self::Generation => "the number of the last nf_tables transaction",
            Self::Tables(_) | Self::Table(_) => "nf_tables tables",
            Self::Chains(_) | Self::Chain(..) => "nf_tables chains",
            Self::Rules(..) => "nf_tables rules",
            Self::Set(..) | Self::Elements(..) => "nf_tables sets",
        }
    }

    fn encode(&self, seq: u32) -> Vec<u8> {
        let (one, all) = (NLM_F_REQUEST, NLM_F_REQUEST | NLM_F_DUMP);
        // NFTA_…_TABLE is 1; NFTA_…_NAME is 2, or 3 for a chain.
        let (kind, flags, family, table, name) = match self {
            Self::Generation => (message::GETGEN, one, 0, None, None),
            Self::Tables(family) => (message::GETTABLE, all, family.number(), None, None),
            Self::Table(table) => (message::GETTABLE, one, table.family.number(), Some(table), None),
            Self::Chains(family) => (message::GETCHAIN, all, family.number(), None, None),
            Self::Chain(table, chain) => {
                (message::GETCHAIN, one, table.family.number(), Some(table), Some((3, *chain)))
            }
            Self::Rules(table, chain) => {
                (message::GETRULE, all, table.family.number(), Some(table), chain.map(|chain| (2, chain)))
            }
            Self::Set(table, set) => (message::GETSET, one, table.family.number(), Some(table), Some((2, *set))),
            Self::Elements(table, set) => {
                (message::GETSETELEM, all, table.family.number(), Some(table), Some((2, *set)))
            }
        };
        let mut out = Vec::new();
        let mut asked = begin(&mut out, kind, flags, family, seq);
        if let Some(table) = table {
            asked = asked.text(1, &table.name);
        }
        if let Some((kind, name)) = name {
            asked = asked.text(kind, name);
        }
        asked.end();
        out
    }

    fn is_empty_table(&self, _: &Refusal) -> bool {
        false
    }
}

fn begin(out: &mut Vec<u8>, kind: u8, flags: u16, family: u8, seq: u32) -> Writer<'_> {
    // struct nfgenmsg: family, version, resource.
    Writer::begin(out, SUBSYSTEM << 8 | u16::from(kind), flags, seq).fixed(&[family, 0, 0, 0])
}

/// A transaction as one datagram; its messages are numbered from `first_seq`, and the last change asks for an
/// answer. Returns the number of that.
pub(super) fn transaction(changes: &[NftChange], generation: Option<u32>, first_seq: u32, out: &mut Vec<u8>) -> u32 {
    let mut seq = first_seq;
    let bracket = |out: &mut Vec<u8>, kind, seq, generation: Option<u32>| {
        let [high, low] = SUBSYSTEM.to_be_bytes();
        let writer = Writer::begin(out, kind, NLM_F_REQUEST, seq).fixed(&[0, 0, high, low]);
        match generation {
            Some(generation) => writer.big_endian(GENERATION, generation).end(),
            None => writer.end(),
        }
    };
    bracket(out, BATCH_BEGIN, seq, generation);
    let mut last = out.len();
    let mut next = || {
        seq = seq.wrapping_add(1);
        seq
    };
    for change in changes {
        match change {
            NftChange::AddElements(table, set, all) | NftChange::DeleteElements(table, set, all) => {
                let adds = matches!(change, NftChange::AddElements(..));
                for part in all.chunks(ELEMENTS) {
                    last = out.len();
                    elements(out, adds, (table, set), part, next());
                }
            }
            change => {
                last = out.len();
                one(out, change, next());
            }
        }
    }
    let last_seq = seq;
    if let Some(flags) = out.get_mut(last + 6..last + 8) {
        let asked = u16::from_ne_bytes([flags[0], flags[1]]) | NLM_F_ACK;
        flags.copy_from_slice(&asked.to_ne_bytes());
    }
    bracket(out, BATCH_END, last_seq.wrapping_add(1), None);
    last_seq
}

/// A message about a table.
fn about<'a>(out: &'a mut Vec<u8>, kind: u8, flags: u16, table: &TableName, seq: u32) -> Writer<'a> {
    begin(out, kind, NLM_F_REQUEST | flags, table.family.number(), seq).text(1, &table.name)
}

fn one(out: &mut Vec<u8>, change: &NftChange, seq: u32) {
    let table = change.table();
    match change {
        NftChange::AddTable(_) => about(out, message::NEWTABLE, NLM_F_CREATE, table, seq).big_endian(2, 0),
        NftChange::DeleteTable(_) => about(out, message::DELTABLE, 0, table, seq),
        NftChange::AddChain(_, chain) => new_chain(about(out, message::NEWCHAIN, NLM_F_CREATE, table, seq), chain),
        NftChange::FlushChain(_, chain) => about(out, message::DELRULE, 0, table, seq).text(2, chain),
        NftChange::DeleteChain(_, chain) => about(out, message::DELCHAIN, 0, table, seq).text(3, chain),
        NftChange::AddRule(_, chain, rule) => {
            new_rule(about(out, message::NEWRULE, NLM_F_CREATE | NLM_F_APPEND, table, seq).text(2, chain), rule)
        }
        NftChange::DeleteRule(_, chain, handle) => {
            about(out, message::DELRULE, 0, table, seq).text(2, chain).attribute(3, &handle.to_be_bytes())
        }
        NftChange::AddSet(_, set) => new_set(about(out, message::NEWSET, NLM_F_CREATE, table, seq), set, seq),
        // Those may be several messages.
        NftChange::AddElements(..) | NftChange::DeleteElements(..) => return,
    }
    .end();
}

fn new_chain<'a>(message: Writer<'a>, chain: &Chain) -> Writer<'a> {
    let named = message.text(3, &chain.name);
    let Some(Base { kind, hook, priority, drop }) = &chain.base else { return named };
    named
        .nested(4, |w| w.big_endian(1, *hook).big_endian(2, priority.cast_unsigned()))
        .big_endian(5, u32::from(!*drop))
        .text(7, kind)
}

fn new_set<'a>(message: Writer<'a>, set: &Set, seq: u32) -> Writer<'a> {
    let named = message.text(2, &set.name);
    let typed = |w: Writer<'a>, flags| {
        w.big_endian(3, flags).big_endian(4, key_type(set.family)).big_endian(5, u32::from(set.family.bits() / 8))
    };
    // NFTA_SET_ID is required: a number within the transaction.
    match set.grows {
        None => typed(named, 0).big_endian(10, seq),
        Some((size, milliseconds)) => typed(named, GROWING)
            .nested(9, |w| w.big_endian(1, size))
            .big_endian(10, seq)
            .attribute(11, &milliseconds.to_be_bytes()),
    }
}

fn elements(out: &mut Vec<u8>, adds: bool, (table, set): (&TableName, &str), part: &[IpAddr], seq: u32) {
    let (kind, flags) = if adds { (message::NEWSETELEM, NLM_F_CREATE) } else { (message::DELSETELEM, 0) };
    about(out, kind, flags, table, seq)
        .text(2, set)
        .nested(3, |list| {
            part.iter().fold(list, |list, ip| list.nested(ELEMENT, |one| one.nested(1, |key| key.address(VALUE, *ip))))
        })
        .end();
}

fn new_rule<'a>(message: Writer<'a>, rule: &Rule) -> Writer<'a> {
    let with = message.nested(4, |list| rule.expressions.iter().fold(list, expression));
    match &rule.comment {
        // NFTNL_UDATA_RULE_COMMENT: type, length, text, zero.
        Some(comment) => {
            let length = u8::try_from(comment.len() + 1).unwrap_or(u8::MAX);
            with.attribute(7, &[&[0, length], comment.as_bytes(), &[0]].concat())
        }
        None => with,
    }
}

fn expression<'a>(list: Writer<'a>, expression: &Expression) -> Writer<'a> {
    list.nested(ELEMENT, |one| one.text(1, name(expression)).nested(2, |w| attributes(w, expression)))
}

/// What the kernel calls it.
fn name(expression: &Expression) -> &str {
    match expression {
        Expression::Payload { .. } => "payload",
        Expression::Meta(_) => "meta",
        Expression::Ipv6Header(_) => "exthdr",
        Expression::Mask(_) => "bitwise",
        Expression::Compare(..) => "cmp",
        Expression::Lookup { .. } => "lookup",
        Expression::Remember(_) => "dynset",
        Expression::Counter => "counter",
        Expression::Verdict(_) => "immediate",
        Expression::Masquerade { .. } => "masq",
        Expression::Other(name, _) => name,
    }
}

fn attributes<'a>(w: Writer<'a>, expression: &Expression) -> Writer<'a> {
    match expression {
        Expression::Payload { header, offset, len } => {
            let base = match header {
                Header::Link => 0,
                Header::Network => 1,
                Header::Transport => 2,
            };
            w.big_endian(1, REGISTER).big_endian(2, base).big_endian(3, *offset).big_endian(4, *len)
        }
        Expression::Meta(key) => w.big_endian(1, REGISTER).big_endian(2, *key),
        // One byte, 1 if it is there (NFT_EXTHDR_F_PRESENT).
        Expression::Ipv6Header(number) => {
            w.big_endian(1, REGISTER).attribute(2, &[*number]).big_endian(3, 0).big_endian(4, 1).big_endian(5, 1)
        }
        Expression::Mask(mask) => w
            .big_endian(1, REGISTER)
            .big_endian(2, REGISTER)
            .big_endian(3, u32::try_from(mask.len()).unwrap_or(u32::MAX))
            .nested(4, |w| w.attribute(VALUE, mask))
            .nested(5, |w| w.attribute(VALUE, &vec![0; mask.len()])),
        Expression::Compare(how, value) => w
            .big_endian(1, REGISTER)
            .big_endian(2, u32::from(*how == Comparison::NotEqual))
            .nested(3, |w| w.attribute(VALUE, value)),
        Expression::Lookup { set, inverted } => {
            w.text(1, set).big_endian(2, REGISTER).big_endian(5, u32::from(*inverted))
        }
        // NFT_DYNSET_OP_UPDATE.
        Expression::Remember(set) => w.text(1, set).big_endian(3, 1).big_endian(4, REGISTER),
        Expression::Counter => w.attribute(1, &[0; 8]).attribute(2, &[0; 8]),
        Expression::Verdict(verdict) => {
            w.big_endian(1, TO_VERDICT).nested(2, |w| w.nested(VERDICT, |w| encode_verdict(w, verdict)))
        }
        Expression::Masquerade { fully_random: true } => w.big_endian(1, FULLY_RANDOM),
        Expression::Masquerade { fully_random: false } => w,
        Expression::Other(_, raw) => w.fixed(raw),
    }
}

fn encode_verdict<'a>(w: Writer<'a>, verdict: &Verdict) -> Writer<'a> {
    let code = |code: i32| code.cast_unsigned();
    match verdict {
        Verdict::Drop => w.big_endian(1, 0),
        Verdict::Accept => w.big_endian(1, 1),
        Verdict::Return => w.big_endian(1, code(-5)),
        Verdict::Jump(chain) => w.big_endian(1, code(-3)).text(2, chain),
        Verdict::Goto(chain) => w.big_endian(1, code(-4)).text(2, chain),
    }
}
