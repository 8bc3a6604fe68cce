//! Flannel's packet rules in a network namespace, wherever they are: found, and taken away.

use std::io;
use std::path::Path;

use super::ObserveError;
use super::legacy;
use super::netlink::wire::frame::attributes;
use super::nft::{Names, Nft};
use crate::model::addr::Family;
use crate::model::leftover::{Chain, Filter, Leftover, Seen, table_name};
use crate::model::nft::{Expression, ListedRule, NftChange, TableName, Verdict};
use crate::model::op::{Ack, Refusal};

/// Why they were not found or not taken away.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// There is no socket.
    #[error("opening a socket to nf_tables: {0}")]
    Socket(io::Error),
    /// nf_tables cannot be read.
    #[error(transparent)]
    Unread(#[from] ObserveError),
    /// nf_tables refuses the change.
    #[error("nf_tables refuses: {0}")]
    Refused(Refusal),
    /// The answer was lost.
    #[error("{0}")]
    Lost(String),
    /// The old packet filter.
    #[error(transparent)]
    Legacy(#[from] legacy::Trouble),
}

/// A chain of `iptables-nft` with the rules of its table that lead to it.
struct Linked {
    seen: Seen,
    /// Flannel's jumps, by their handles.
    jumps: Vec<u64>,
}

/// Finds what flannel left of a family. Tables are asked for by name, so that it costs little where there is
/// nothing; only a table with a chain of flannel's is read.
///
/// # Errors
/// If the kernel cannot be read.
pub fn find(family: Family) -> Result<Vec<Seen>, Trouble> {
    let mut nft = Nft::open().map_err(Trouble::Socket)?;
    let mut seen = Vec::new();
    if nft.look(&own_table(family), Names { chains: &[], sets: &[] })?.is_some() {
        seen.push(Seen { what: Leftover::Table(family), jumps: 0, users: Vec::new(), guards: false });
    }
    for chain in Chain::BOTH {
        seen.extend(linked(&mut nft, family, chain)?.map(|linked| linked.seen));
    }
    seen.extend(legacy::find(family)?);
    Ok(seen)
}

/// Finds what flannel left in both families; and why, of one, it cannot be told.
pub fn find_all() -> (Vec<Seen>, Vec<(Family, Trouble)>) {
    let (mut seen, mut unread) = (Vec::new(), Vec::new());
    for family in Family::BOTH {
        match find(family) {
            Ok(found) => seen.extend(found),
            Err(trouble) => unread.push((family, trouble)),
        }
    }
    (seen, unread)
}

/// Takes one of them away; `lock` is that of the old packet filter. Whether there was anything to do.
///
/// # Errors
/// If the kernel refuses; then nothing was changed.
pub fn remove(what: Leftover, lock: &Path) -> Result<bool, Trouble> {
    let (family, chain) = match what {
        Leftover::Chain(Filter::Legacy, family, chain) => return Ok(legacy::remove(family, chain, lock)?),
        Leftover::Chain(Filter::Nft, family, chain) => (family, chain),
        Leftover::Table(family) => {
            let mut nft = Nft::open().map_err(Trouble::Socket)?;
            return commit(&mut nft, &[NftChange::DeleteTable(own_table(family))], None);
        }
    };
    let mut nft = Nft::open().map_err(Trouble::Socket)?;
    let generation = nft.generation()?;
    let Some(Linked { seen, jumps }) = linked(&mut nft, family, chain)? else { return Ok(false) };
    let (table, name) = (TableName::new(family, chain.table()), chain.name().to_owned());
    let jump = |handle| NftChange::DeleteRule(table.clone(), chain.hook().to_owned(), handle);
    let mut changes: Vec<NftChange> = jumps.into_iter().map(jump).collect();
    if seen.users.is_empty() {
        changes.push(NftChange::FlushChain(table.clone(), name.clone()));
        changes.push(NftChange::DeleteChain(table, name));
    }
    if changes.is_empty() { Ok(false) } else { commit(&mut nft, &changes, Some(generation)) }
}

fn commit(nft: &mut Nft, changes: &[NftChange], generation: Option<u32>) -> Result<bool, Trouble> {
    match nft.commit(changes, generation) {
        Ack::Done => Ok(true),
        Ack::Refused(refusal) => Err(Trouble::Refused(refusal)),
        Ack::Unknown(problem) => Err(Trouble::Lost(problem)),
    }
}

fn own_table(family: Family) -> TableName {
    TableName::new(family, table_name(family))
}

fn linked(nft: &mut Nft, family: Family, chain: Chain) -> Result<Option<Linked>, Trouble> {
    let table = TableName::new(family, chain.table());
    if nft.chain(&table, chain.name())?.is_none() {
        return Ok(None);
    }
    let drops = nft.chain(&table, chain.hook())?.and_then(|hook| hook.base).is_some_and(|base| base.drop);
    let rules = nft.rules(&table, None)?;
    let what = Leftover::Chain(Filter::Nft, family, chain);
    let mut seen = Seen { what, jumps: 0, users: Vec::new(), guards: chain == Chain::Forward && drops };
    let mut jumps = Vec::new();
    for (of, rule) in rules.iter().filter(|(of, _)| of != chain.name()) {
        let flannels = of == chain.hook() && is_flannels_jump(rule, chain);
        if flannels {
            jumps.push(rule.handle);
        } else if leads_to(rule, chain.name()) {
            seen.users.push(of.clone());
        }
        // Behind a jump of flannel's, in the same chain.
        seen.guards |= chain == Chain::Forward && of == chain.hook() && !flannels && !jumps.is_empty();
    }
    seen.jumps = jumps.len();
    Ok(Some(Linked { seen, jumps }))
}

fn leads_to(rule: &ListedRule, chain: &str) -> bool {
    rule.rule.expressions.iter().any(|expression| match expression {
        Expression::Verdict(Verdict::Jump(to) | Verdict::Goto(to)) => to == chain,
        _ => false,
    })
}

/// The comment (a match of the old kind, or the rule's own), a counter, the jump; nothing else.
fn is_flannels_jump(rule: &ListedRule, chain: Chain) -> bool {
    let mut comment = rule.rule.comment.as_deref() == Some(chain.comment());
    let mut jumps = false;
    for expression in &rule.rule.expressions {
        match expression {
            Expression::Counter => {}
            Expression::Verdict(Verdict::Jump(to)) if to == chain.name() => jumps = true,
            Expression::Other(name, raw) if name == "match" && is_comment(raw, chain.comment()) => comment = true,
            _ => return false,
        }
    }
    comment && jumps
}

/// NFTA_MATCH_NAME is 1, NFTA_MATCH_INFO 3: `struct xt_comment_info`.
fn is_comment(raw: &[u8], text: &str) -> bool {
    let value = |wanted: u16| attributes(raw).filter_map(Result::ok).find(|(kind, _)| *kind == wanted);
    let reads = |wanted: u16, text: &str| {
        let bytes = value(wanted).map_or(&[][..], |(_, bytes)| bytes);
        bytes.split(|byte| *byte == 0).next() == Some(text.as_bytes())
    };
    reads(1, "comment") && reads(3, text)
}
