//! The old packet filter (`iptables-legacy`), as far as flannel's leftovers in it go, and a FORWARD that drops.
//!
//! Its tables are read and replaced whole. The kernel answers EAGAIN if a table changed its number of
//! entries meanwhile; for changes that keep the number, all programs take a lock on a file. weft changes
//! nothing without that lock. Nothing here makes the kernel load this filter: tables that no program has
//! asked for in this network namespace are not asked for here.

pub mod blob;
mod sockopt;

use std::fs::{self, File};
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use self::blob::{HOOKS, Hooks, Rewritten, Table};
use self::sockopt::{Counters, INFO, NAME, Options, REPLACE_HEAD};
use crate::model::addr::Family;
use crate::model::forward::DropChain;
use crate::model::leftover::{Chain, Seen};

/// The lock that iptables-legacy, and everything that calls it, takes.
pub const LOCK: &str = "/run/xtables.lock";

/// A table that changed under this many attempts is left for later.
const ATTEMPTS: u32 = 4;

/// Why the old packet filter was not read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The list of its tables cannot be read.
    #[error("reading {0}: {1}")]
    Names(String, io::Error),
    /// The kernel refuses.
    #[error("{0} of the table {1}: {error}", error = .2.desc())]
    Refused(&'static str, &'static str, Errno),
    /// It kept changing.
    #[error("the table {0} kept changing")]
    Torn(&'static str),
    /// It makes no sense.
    #[error(transparent)]
    Malformed(#[from] blob::Malformed),
    /// There is no lock.
    #[error(
        "{0} is not there, and without that lock another program's rules could be lost; in a container, mount it \
         from the host"
    )]
    NoLock(String),
    /// Somebody holds it.
    #[error("another program holds {0}")]
    Locked(String),
    /// It cannot be had.
    #[error("locking {0}: {1}")]
    Lock(String, io::Error),
    /// A socket cannot be had.
    #[error("opening a socket: {0}")]
    Socket(io::Error),
}

/// Which of flannel's chains are there.
///
/// # Errors
/// If the kernel cannot be read.
pub fn find(family: Family) -> Result<Vec<Seen>, Trouble> {
    let names = names(family)?;
    let here = Chain::BOTH.into_iter().filter(|chain| names.lines().any(|name| name == chain.table()));
    let mut seen = Vec::new();
    for chain in here {
        let (table, _) = read(&open(family)?, family, chain.table())?;
        seen.extend(table.find(chain));
    }
    Ok(seen)
}

/// FORWARD, if its policy is to drop.
///
/// # Errors
/// If the kernel cannot be read.
pub fn forward(family: Family) -> Result<Option<DropChain>, Trouble> {
    let name = Chain::Forward.table();
    if !names(family)?.lines().any(|line| line == name) {
        return Ok(None);
    }
    let (table, _) = read(&open(family)?, family, name)?;
    Ok(table.forward())
}

/// Takes out one of flannel's chains and flannel's jumps to it, and keeps every other rule, and its counters.
/// Whether there was anything to do.
///
/// # Errors
/// If the lock cannot be had or the kernel refuses; then nothing was changed, except that the counters are at
/// zero if only they were refused.
pub fn remove(family: Family, chain: Chain, lock: &Path) -> Result<bool, Trouble> {
    let name = chain.table();
    if !names(family)?.lines().any(|line| line == name) {
        return Ok(false);
    }
    let _locked = locked(lock)?;
    let options = open(family)?;
    for _ in 0..ATTEMPTS {
        let (table, padded) = read(&options, family, name)?;
        let Some(rest) = table.without(chain)? else { return Ok(false) };
        let old = u32::try_from(table.len()).unwrap_or(u32::MAX);
        let Some(head) = head(&padded, &rest) else { return Err(Trouble::Torn(name)) };
        match options.replace(&head, &rest.bytes, old) {
            Ok(counters) => {
                let kept: Vec<Counters> =
                    counters.into_iter().zip(&rest.kept).filter(|(_, kept)| **kept).map(|(count, _)| count).collect();
                let added = options.add_counters(&padded, &kept);
                return added.map(|()| true).map_err(|errno| Trouble::Refused("setting the counters", name, errno));
            }
            Err(Errno::EAGAIN) => std::thread::yield_now(),
            Err(errno) => return Err(Trouble::Refused("replacing the rules", name, errno)),
        }
    }
    Err(Trouble::Torn(name))
}

fn open(family: Family) -> Result<Options, Trouble> {
    Options::open(family).map_err(Trouble::Socket)
}

/// The tables that exist in the calling thread's network namespace, one a line; none if this kernel has no
/// old packet filter.
fn names(family: Family) -> Result<String, Trouble> {
    let path = match family {
        Family::V4 => "/proc/thread-self/net/ip_tables_names",
        Family::V6 => "/proc/thread-self/net/ip6_tables_names",
    };
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(Trouble::Names(path.to_owned(), error)),
        Ok(names) => Ok(names),
    }
}

/// Reads a table, with its name as the kernel takes it.
fn read(options: &Options, family: Family, name: &'static str) -> Result<(Table, [u8; NAME]), Trouble> {
    let mut padded = [0; NAME];
    padded.iter_mut().zip(name.bytes()).for_each(|(place, byte)| *place = byte);
    let refused = |what| move |errno| Trouble::Refused(what, name, errno);
    for _ in 0..ATTEMPTS {
        let info = options.info(&padded).map_err(refused("reading the hooks"))?;
        let (hooks, size) = read_info(&info);
        match options.entries(&padded, size) {
            Ok(bytes) => return Ok((Table::parse(family, hooks, &bytes)?, padded)),
            Err(Errno::EAGAIN) => std::thread::yield_now(),
            Err(errno) => return Err(refused("reading the rules")(errno)),
        }
    }
    Err(Trouble::Torn(name))
}

/// `struct ipt_getinfo`: the hooks, and the size of the entries.
fn read_info(info: &[u8; INFO]) -> (Hooks, u32) {
    let number = |at: usize| {
        let bytes = info.get(NAME + 4 * at..NAME + 4 * at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u32::from_ne_bytes)
    };
    let hooks = Hooks {
        valid: number(0),
        entry: std::array::from_fn(|hook| number(1 + hook)),
        underflow: std::array::from_fn(|hook| number(1 + HOOKS + hook)),
    };
    (hooks, number(2 + 2 * HOOKS))
}

/// `struct ipt_replace`, but for what the system call fills in.
fn head(name: &[u8; NAME], rest: &Rewritten) -> Option<[u8; REPLACE_HEAD]> {
    let entries = u32::try_from(rest.kept.iter().filter(|kept| **kept).count()).ok()?;
    let size = u32::try_from(rest.bytes.len()).ok()?;
    let numbers = [rest.hooks.valid, entries, size].into_iter().chain(rest.hooks.entry).chain(rest.hooks.underflow);
    let mut head = name.to_vec();
    head.extend(numbers.flat_map(u32::to_ne_bytes));
    head.resize(REPLACE_HEAD, 0);
    head.try_into().ok()
}

/// The lock; not waited for: the caller comes again.
fn locked(path: &Path) -> Result<Flock<File>, Trouble> {
    let shown = || path.display().to_string();
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Trouble::NoLock(shown())),
        Err(error) => return Err(Trouble::Lock(shown(), error)),
    };
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(locked) => Ok(locked),
        Err((_, Errno::EWOULDBLOCK)) => Err(Trouble::Locked(shown())),
        Err((_, errno)) => Err(Trouble::Lock(shown(), errno.into())),
    }
}
