//! A blocking netlink socket with the options that make its answers trustworthy.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce, ReceiveTimeout, SndBuf, SndBufForce};
use nix::sys::socket::{MsgFlags, getsockopt, recv, setsockopt};
use nix::sys::time::{TimeVal, TimeValLike};

/// What one answer or notification takes of the receive buffer, whatever its length
/// (`one_answer_takes_no_more_than_832_bytes_of_the_receive_buffer`).
const ACCOUNTED: usize = 832;
/// What the kernel keeps of the send buffer for itself, and some more.
const SLACK: usize = 4096;
/// The kernel fills at most 32 KiB for each read of a dump; a single bigger message grows the buffer.
const READ: usize = 64 * 1024;
/// Requests are worked off while they are sent; a kernel that has not answered after this long never will.
const PATIENCE: Duration = Duration::from_secs(10);

/// A socket, its sequence numbers and its reading buffer.
#[derive(Debug)]
pub(in crate::kernel) struct Channel {
    socket: Socket,
    /// NETLINK_ROUTE, NETLINK_NETFILTER.
    protocol: isize,
    seq: u32,
    buffer: Vec<u8>,
    /// Bytes asked of the receive buffer.
    asked: usize,
}

/// Why nothing was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) enum Silence {
    /// Nothing came in time, or nothing is there.
    Empty,
    /// ENOBUFS: messages were thrown away because the receive buffer was full. Those before are still there.
    Overrun,
    /// A message was longer than the buffer, which has grown since; it is lost.
    Truncated,
    /// The socket failed.
    Failed(Errno),
}

impl Channel {
    /// Opens a socket for requests in the network namespace of the calling thread, with a receive buffer of
    /// this many bytes if the kernel allows it.
    pub(in crate::kernel) fn for_requests(protocol: isize, asked: usize) -> io::Result<Self> {
        let channel = Self::open(protocol, asked)?;
        // An error then carries its text, and not the whole request.
        channel.socket.set_cap_ack(true)?;
        channel.socket.set_ext_ack(true)?;
        // Linux before 4.20 has no strict checking: it ignores the filters, and the rows are filtered here.
        if channel.socket.set_netlink_get_strict_chk(true).is_err() {
            tracing::debug!("this kernel has no strict netlink dumps; filtering in user space");
        }
        let patience = TimeVal::seconds(i64::try_from(PATIENCE.as_secs()).unwrap_or(i64::MAX));
        setsockopt(&channel.socket, ReceiveTimeout, &patience)?;
        Ok(channel)
    }

    /// Opens a socket that hears these multicast groups.
    pub(in crate::kernel) fn for_notifications(protocol: isize, asked: usize, groups: &[u32]) -> io::Result<Self> {
        let channel = Self::open(protocol, asked)?;
        for group in groups {
            channel.socket.add_membership(*group)?;
        }
        channel.socket.set_non_blocking(true)?;
        Ok(channel)
    }

    /// Hears a multicast group too.
    pub(in crate::kernel) fn join(&mut self, group: u32) -> io::Result<()> {
        self.socket.add_membership(group)
    }

    /// Hears a multicast group no longer.
    pub(in crate::kernel) fn leave(&mut self, group: u32) -> io::Result<()> {
        self.socket.drop_membership(group)
    }

    fn open(protocol: isize, asked: usize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        // From then on nobody but the kernel can send to it (ECONNREFUSED in netlink_getsockbyportid).
        socket.connect(&SocketAddr::new(0, 0))?;
        // Forcing it takes CAP_NET_ADMIN in the first user namespace; without, net.core.rmem_max is the limit.
        if setsockopt(&socket, RcvBufForce, &asked).is_err() {
            setsockopt(&socket, RcvBuf, &asked)?;
        }
        Ok(Self { socket, protocol, seq: 0, buffer: vec![0; READ], asked })
    }

    /// Starts again with a new socket: the way out of a dump that was left in the middle.
    pub(in crate::kernel) fn renew(&mut self) -> io::Result<()> {
        let fresh = Self::for_requests(self.protocol, self.asked)?;
        self.socket = fresh.socket;
        Ok(())
    }

    /// How many answers the receive buffer holds.
    pub(in crate::kernel) fn room(&self) -> usize {
        let bytes = getsockopt(&self.socket, RcvBuf).unwrap_or(0);
        (bytes / ACCOUNTED).max(1)
    }

    /// The next sequence number.
    pub(in crate::kernel) fn next_seq(&mut self) -> u32 {
        self.seq = self.seq.wrapping_add(1);
        self.seq
    }

    /// Makes room for a datagram of so many bytes: the kernel refuses one that is bigger than the send buffer.
    pub(in crate::kernel) fn make_room(&self, bytes: usize) {
        if getsockopt(&self.socket, SndBuf).is_ok_and(|room| room < bytes + SLACK) {
            let asked = bytes + SLACK;
            // Without the privilege net.core.wmem_max is the limit, and sending says so.
            if setsockopt(&self.socket, SndBufForce, &asked).is_err() {
                let _ = setsockopt(&self.socket, SndBuf, &asked);
            }
        }
    }

    /// Sends one datagram.
    pub(in crate::kernel) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        loop {
            match self.socket.send(bytes, 0) {
                Ok(sent) if sent == bytes.len() => return Ok(()),
                Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The socket, to poll.
    pub(in crate::kernel) const fn socket(&self) -> &Socket {
        &self.socket
    }
}

/// Where datagrams come from.
pub(in crate::kernel) trait Mailbox {
    /// Receives one datagram: waits for one, or only looks.
    fn receive(&mut self, wait: bool) -> Result<&[u8], Silence>;
}

impl Mailbox for Channel {
    fn receive(&mut self, wait: bool) -> Result<&[u8], Silence> {
        let flags = if wait { MsgFlags::MSG_TRUNC } else { MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT };
        let length = loop {
            match recv(self.socket.as_raw_fd(), &mut self.buffer, flags) {
                Ok(length) => break length,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Err(Silence::Empty),
                Err(Errno::ENOBUFS) => return Err(Silence::Overrun),
                Err(errno) => return Err(Silence::Failed(errno)),
            }
        };
        if length > self.buffer.len() {
            self.buffer.resize(length, 0);
            return Err(Silence::Truncated);
        }
        self.buffer.get(..length).ok_or(Silence::Truncated)
    }
}

impl std::fmt::Display for Silence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => f.write_str("the kernel did not answer in time"),
            Self::Overrun => f.write_str("the receive buffer overran"),
            Self::Truncated => f.write_str("an answer was longer than the buffer"),
            Self::Failed(errno) => write!(f, "the netlink socket failed: {}", errno.desc()),
        }
    }
}
