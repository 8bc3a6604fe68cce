//! Linux over netlink.
//!
//! One socket asks and changes, another hears; both belong to the network namespace of the thread that
//! opened them, and all of it blocks: give it a thread of its own.
//!
//! The engine is our own, over `netlink-sys`, because three things decide whether an agent can trust what
//! it sees, and the usual library hides them: the error number at the end of a dump, the flag that says
//! that the table changed under the dump, and answers lost to a full receive buffer.

mod apply;
pub(super) mod dump;
mod filter;
mod interest;
mod monitor;
mod observe;
pub(super) mod socket;
pub mod wire;

use std::io;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_ROUTE;

pub use interest::Interest;
pub use monitor::Waker;

use self::monitor::Monitor;
use self::socket::Channel;
use super::nft::{Names, Nft};
use super::{Heard, Kernel, Listen, ObserveError};
use crate::model::addr::Family;
use crate::model::host::{Host, Scope};
use crate::model::nft::{OUR_CHAINS, OUR_SETS, OUR_TABLE, SeenTable, TableName};
use crate::model::op::{Ack, Op};
use crate::model::traffic::NetlinkCounters;

/// Asked of the receive buffer for answers: thousands of them, where the kernel grants it.
const BUFFER: usize = 1024 * 1024;

/// The kernel of the network namespace that it was opened in.
#[derive(Debug)]
pub struct Netlink {
    channel: Channel,
    monitor: Monitor,
    /// `None` until one could be opened: tried at each look.
    nft: Option<Nft>,
    /// Without those of `nft`.
    counters: NetlinkCounters,
}

impl Netlink {
    /// Opens the sockets in the calling thread's network namespace. Needs no privilege by itself; changes
    /// need CAP_NET_ADMIN in the user namespace that owns the network namespace.
    ///
    /// # Errors
    /// If the kernel gives no sockets, timers or eventfds.
    pub fn open() -> io::Result<Self> {
        Self::with_buffer(BUFFER)
    }

    /// Like [`Netlink::open`], with so many bytes asked of the receive buffer for answers. The kernel has
    /// the last word; batches are cut to what it granted.
    ///
    /// # Errors
    /// Those of [`Netlink::open`].
    pub fn with_buffer(bytes: usize) -> io::Result<Self> {
        let monitor = Monitor::open()?;
        Ok(Self {
            channel: Channel::for_requests(NETLINK_ROUTE, bytes)?,
            monitor,
            nft: Nft::open().ok(),
            counters: NetlinkCounters::default(),
        })
    }

    /// What ends a wait from another thread.
    pub fn waker(&self) -> Waker {
        self.monitor.waker()
    }

    /// What happened so far.
    pub fn counters(&self) -> NetlinkCounters {
        self.counters + self.nft.as_ref().map(Nft::counters).unwrap_or_default()
    }

    /// Our table of a family. That it cannot be read keeps nothing else from being read.
    fn filter_table(&mut self, family: Family) -> Result<Option<SeenTable>, String> {
        let nft = match &mut self.nft {
            Some(nft) => nft,
            none => {
                none.insert(Nft::open().map_err(|error| format!("opening a netlink socket to nf_tables: {error}"))?)
            }
        };
        let names = Names { chains: &OUR_CHAINS, sets: &OUR_SETS };
        let seen = nft.look(&TableName::new(family, OUR_TABLE), names);
        if matches!(seen, Err(ObserveError::Broken { .. })) {
            // It may be the socket: the next look has a new one.
            self.counters = self.counters();
            self.nft = None;
        }
        seen.map_err(|error| error.to_string())
    }
}

impl std::ops::Add for NetlinkCounters {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            batches: self.batches + other.batches,
            messages: self.messages + other.messages,
            answers_lost: self.answers_lost + other.answers_lost,
            dumps_repeated: self.dumps_repeated + other.dumps_repeated,
            dumps_failed: self.dumps_failed + other.dumps_failed,
            overruns: self.overruns + other.overruns,
            socket_errors: self.socket_errors + other.socket_errors,
        }
    }
}

impl Kernel for Netlink {
    fn observe(&mut self, scope: &Scope) -> Result<Host, ObserveError> {
        let (channel, counters) = (&mut self.channel, &mut self.counters);
        self.monitor.forget(counters);
        let links = observe::links(channel, counters)?;
        // From here on the tables of the devices are read, so from here on changes to them count.
        let devices = observe::devices(scope, &links);
        self.monitor.care_for(Interest::new(devices, scope));
        let mut host = observe::host(channel, counters, scope, links, devices)?;
        for family in Family::BOTH {
            match self.filter_table(family) {
                Ok(table) => *host.filter.get_mut(family) = table,
                Err(problem) => *host.filter_problem.get_mut(family) = Some(problem),
            }
        }
        Ok(host)
    }

    fn apply(&mut self, ops: &[Op]) -> Vec<Ack> {
        if let [Op::Filter(op)] = ops {
            let ack = self.nft.as_mut().map(|nft| nft.commit(&op.changes, None));
            return vec![ack.unwrap_or_else(|| Ack::Unknown("there is no netlink socket to nf_tables".to_owned()))];
        }
        if ops.len() > apply::MESSAGES {
            self.monitor.mute();
        }
        apply::apply(&mut self.channel, &mut self.counters, ops)
    }
}

impl Listen for Netlink {
    fn wait(&mut self, timeout: Duration) -> Heard {
        self.monitor.wait(timeout, &mut self.counters)
    }
}
