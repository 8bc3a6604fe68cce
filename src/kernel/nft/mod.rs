//! nf_tables over netlink: look at tables, and change them in one transaction.
//!
//! Reading is by name where it can be, because a node's other tables can be large: kube-proxy has tens of
//! thousands of rules. The walk over the attributes and the sockets are those of [`super::netlink`].

mod read;
mod watch;
mod wire;

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::libc;

pub(super) use self::watch::{GROUP, concerns};
use self::wire::Question;
use super::ObserveError;
use super::netlink::dump::{Ask, dump, look_up};
use super::netlink::socket::{Channel, Mailbox};
use super::netlink::wire::Malformed;
use super::netlink::wire::frame::{Answer, Frame, frames};
use crate::model::addr::Family;
use crate::model::nft::{Chain, ListedRule, NftChange, SeenTable, Set, TableFamily, TableName};
use crate::model::op::{Ack, Refusal};
use crate::model::traffic::NetlinkCounters;

/// Asked of the receive buffer.
const BUFFER: usize = 1024 * 1024;
/// How often a ruleset that changes while it is read is tried.
const ATTEMPTS: u32 = 8;

/// A socket to nf_tables, in the network namespace that it was opened in. Reading needs CAP_NET_ADMIN too.
#[derive(Debug)]
pub struct Nft {
    channel: Channel,
    counters: NetlinkCounters,
}

/// Which chains and sets of a table to look for.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// The chains.
    pub chains: &'a [&'a str],
    /// The sets.
    pub sets: &'a [&'a str],
}

impl Nft {
    /// Opens the socket.
    ///
    /// # Errors
    /// If the kernel has no netfilter netlink.
    pub fn open() -> io::Result<Self> {
        let channel = Channel::for_requests(NETLINK_NETFILTER, BUFFER)?;
        Ok(Self { channel, counters: NetlinkCounters::default() })
    }

    /// What went over the socket so far.
    pub const fn counters(&self) -> NetlinkCounters {
        self.counters
    }

    /// The number of the last transaction of the namespace, whoever made it.
    ///
    /// # Errors
    /// If the kernel has no nf_tables, or the capability is missing.
    pub fn generation(&mut self) -> Result<u32, ObserveError> {
        let question = Question::Generation;
        match look_up(&mut self.channel, &question, read::generation)? {
            Ok(Some(generation)) => Ok(generation),
            Ok(None) => Err(ObserveError::Broken { what: question.what(), problem: "an empty answer".to_owned() }),
            Err(refusal) => Err(ObserveError::Refused { what: question.what(), refusal }),
        }
    }

    /// The tables of a family.
    ///
    /// # Errors
    /// If they could not be read whole.
    pub fn tables(&mut self, family: TableFamily) -> Result<Vec<TableName>, ObserveError> {
        let names = dump(&mut self.channel, &mut self.counters, &Question::Tables(family), read::table)?;
        Ok(names.into_iter().map(|(name, ..)| TableName { family, name }).collect())
    }

    /// Every chain of a family, with its table.
    ///
    /// # Errors
    /// If they could not be read whole.
    pub fn chains(&mut self, family: TableFamily) -> Result<Vec<(TableName, Chain)>, ObserveError> {
        let all = dump(&mut self.channel, &mut self.counters, &Question::Chains(family), read::chain)?;
        Ok(all.into_iter().map(|(name, chain)| (TableName { family, name }, chain)).collect())
    }

    /// One chain, if it is there.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn chain(&mut self, table: &TableName, chain: &str) -> Result<Option<Chain>, ObserveError> {
        Ok(self.one(&Question::Chain(table, chain), read::chain)?.map(|(_, chain)| chain))
    }

    /// The rules of a table, or of one of its chains, in order, each with the name of its chain. None if
    /// there is no such table or chain.
    ///
    /// # Errors
    /// If they could not be read whole.
    pub fn rules(&mut self, table: &TableName, chain: Option<&str>) -> Result<Vec<(String, ListedRule)>, ObserveError> {
        dump(&mut self.channel, &mut self.counters, &Question::Rules(table, chain), read::rule)
    }

    /// A table with those of its chains and sets that are named; `None` if it is not there. All of it is of
    /// one moment: no transaction ended meanwhile.
    ///
    /// # Errors
    /// If it could not be read whole, or kept changing.
    pub fn look(&mut self, table: &TableName, names: Names<'_>) -> Result<Option<SeenTable>, ObserveError> {
        for _ in 0..ATTEMPTS {
            let before = self.generation()?;
            let seen = self.try_look(table, names);
            if self.generation()? == before {
                return seen;
            }
            self.counters.dumps_repeated += 1;
        }
        Err(ObserveError::Torn { what: "an nf_tables table", attempts: ATTEMPTS })
    }

    fn try_look(&mut self, table: &TableName, names: Names<'_>) -> Result<Option<SeenTable>, ObserveError> {
        let Some((_, dormant, objects)) = self.one(&Question::Table(table), read::table)? else { return Ok(None) };
        let mut seen = SeenTable { dormant, objects, ..SeenTable::default() };
        for name in names.chains {
            if let Some(chain) = self.chain(table, name)? {
                seen.chains.insert((*name).to_owned(), (chain, Vec::new()));
            }
        }
        for (name, rule) in self.rules(table, None)? {
            if let Some((_, rules)) = seen.chains.get_mut(&name) {
                rules.push(rule);
            }
        }
        for name in names.sets {
            if let Some((_, set)) = self.one(&Question::Set(table, name), read::set)? {
                let elements = self.elements(table, name, set.as_ref())?;
                let set = set.filter(|_| elements.is_some());
                seen.sets.insert((*name).to_owned(), (set, elements.unwrap_or_default()));
            }
        }
        Ok(Some(seen))
    }

    /// The elements of a set; `None` if it is of another make than weft's, or one of them is: somebody's `*` in a
    /// set is read like any other edit.
    fn elements(
        &mut self,
        table: &TableName,
        name: &str,
        set: Option<&Set>,
    ) -> Result<Option<BTreeSet<IpAddr>>, ObserveError> {
        let Some(set) = set else { return Ok(None) };
        let parts = dump(&mut self.channel, &mut self.counters, &Question::Elements(table, name), read::elements)?;
        let fits = |element: Option<IpAddr>| element.filter(|ip| Family::of(*ip) == set.family);
        Ok(parts.into_iter().flatten().map(fits).collect())
    }

    fn one<T>(
        &mut self,
        question: &Question<'_>,
        decode: impl Fn(&Frame<'_>) -> Result<Option<T>, Malformed>,
    ) -> Result<Option<T>, ObserveError> {
        match look_up(&mut self.channel, question, decode)? {
            Ok(found) => Ok(found),
            Err(Refusal { errno: libc::ENOENT, .. }) => Ok(None),
            Err(refusal) => Err(ObserveError::Refused { what: question.what(), refusal }),
        }
    }

    /// Makes all of these changes, or none. With a `generation` (of [`Nft::generation`]) the kernel refuses
    /// (ERESTART) if any transaction has ended since.
    pub fn commit(&mut self, changes: &[NftChange], generation: Option<u32>) -> Ack {
        if changes.is_empty() {
            return Ack::Done;
        }
        let first = self.channel.next_seq();
        let mut bytes = Vec::new();
        let last = wire::transaction(changes, generation, first, &mut bytes);
        while self.channel.next_seq() != last.wrapping_add(1) {}
        self.counters.batches += 1;
        self.counters.messages += changes.len() as u64;
        self.channel.make_room(bytes.len());
        let ack = match self.channel.send(&bytes) {
            Ok(()) => self.answer(first, last),
            Err(error) => Ack::Unknown(format!("sending {} bytes: {error}", bytes.len())),
        };
        if matches!(ack, Ack::Unknown(_)) {
            self.counters.answers_lost += 1;
        }
        ack
    }

    /// The first error of any message, or the success of the last: a refused message comes before it.
    fn answer(&mut self, first: u32, last: u32) -> Ack {
        loop {
            let datagram = match self.channel.receive(true) {
                Ok(datagram) => datagram,
                Err(silence) => return Ack::Unknown(silence.to_string()),
            };
            for frame in frames(datagram).filter_map(Result::ok) {
                if frame.seq.wrapping_sub(first) > last.wrapping_sub(first).wrapping_add(1) {
                    continue;
                }
                match frame.answer() {
                    Ok(Answer::Refused(refusal)) => return Ack::Refused(refusal),
                    Ok(Answer::Done) if frame.seq == last => return Ack::Done,
                    Ok(Answer::Done | Answer::Data) => {}
                    Err(malformed) => return Ack::Unknown(malformed.to_string()),
                }
            }
        }
    }
}
