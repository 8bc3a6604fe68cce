//! Hears the kernel say that something was really broken: a wound that never was would heal in no time.

use std::collections::BTreeSet;
use std::io;

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::libc;

use crate::kernel::netlink::wire::frame::frames;

/// A socket that queues every change of links, neighbours, FDB entries and routes from the moment it is made.
#[derive(Debug)]
pub struct Witness {
    socket: Socket,
}

/// What was heard, by the kernel's names (`RTM_DELROUTE` …).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cry {
    /// A link appeared or changed.
    Link,
    /// A link is gone.
    LinkGone,
    /// A neighbour or an FDB entry is gone.
    NeighbourGone,
    /// A route is gone.
    RouteGone,
}

impl Witness {
    /// Listens in the calling thread's namespace.
    ///
    /// # Errors
    /// If the kernel gives no socket.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        for group in [libc::RTNLGRP_LINK, libc::RTNLGRP_NEIGH, libc::RTNLGRP_IPV4_ROUTE, libc::RTNLGRP_IPV6_ROUTE] {
            socket.add_membership(group)?;
        }
        socket.set_non_blocking(true)?;
        Ok(Self { socket })
    }

    /// What was heard so far. If too much came at once for the socket, what is missing is not in it.
    pub fn heard(&self) -> BTreeSet<Cry> {
        let mut heard = BTreeSet::new();
        loop {
            match self.socket.recv_from_full() {
                Ok((datagram, _)) => {
                    heard.extend(frames(&datagram).flatten().filter_map(|frame| cry(frame.kind, frame.body)));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return heard,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(_) => return heard,
            }
        }
    }
}

fn cry(kind: u16, payload: &[u8]) -> Option<Cry> {
    match kind {
        libc::RTM_NEWLINK => Some(Cry::Link),
        libc::RTM_DELLINK => Some(Cry::LinkGone),
        libc::RTM_DELNEIGH => Some(Cry::NeighbourGone),
        libc::RTM_NEWNEIGH if has_failed(payload) => Some(Cry::NeighbourGone),
        libc::RTM_DELROUTE => Some(Cry::RouteGone),
        _ => None,
    }
}

/// Whether a neighbour cannot be used any more. One that a packet holds at the moment when it is deleted stays,
/// as failed (`neigh_del` in net/core/neighbour.c): then this is all that the kernel says.
fn has_failed(payload: &[u8]) -> bool {
    // `ndm_state` in `struct ndmsg`.
    payload.get(8..10).is_some_and(|state| u16::from_ne_bytes([state[0], state[1]]) & libc::NUD_FAILED != 0)
}
