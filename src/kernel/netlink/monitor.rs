//! Hearing that something changed. What changed is for the next observation to say: Linux drops IPv4
//! routes without a word when their device goes down, and throws notifications away when they come too fast.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::filter;
use super::interest::Interest;
use super::socket::{Channel, Mailbox, Silence};
use super::wire::frame::frames;
use crate::kernel::{Heard, nft};
use crate::model::traffic::NetlinkCounters;

/// Asked of the receive buffer: 20,000 notifications.
const BUFFER: usize = 8 * 1024 * 1024;
/// Notifications looked at before the waker and the timer are asked again; also bounds how long an
/// endless flood is drained for.
const AT_ONCE: usize = 4096;
/// Notifications that are thrown away one by one, before the whole queue is.
const FEW: usize = 64;
/// The groups: links, neighbours and FDB entries, addresses, routes.
const GROUPS: [u32; 6] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_NEIGH,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV6_ROUTE,
];

/// Those of the rows.
const ROWS: [u32; 3] = [libc::RTNLGRP_NEIGH, libc::RTNLGRP_IPV4_ROUTE, libc::RTNLGRP_IPV6_ROUTE];

/// How often a look takes the place of hearing where rows cannot be heard again.
const DEAF: Duration = Duration::from_secs(1);

/// Ends a [`crate::kernel::Listen::wait`] from another thread. A wake-up before the wait ends it too; several
/// before one wait count as one.
#[derive(Clone, Debug)]
pub struct Waker(Arc<EventFd>);

impl Waker {
    /// Wakes.
    pub fn wake(&self) {
        // It can only be refused because the counter is full: then the wait will end anyway.
        let _ = self.0.write(1);
    }
}

/// The ears.
#[derive(Debug)]
pub(super) struct Monitor {
    channel: Channel,
    /// What is announced of nf_tables; `None` while that cannot be heard.
    nft: Option<Channel>,
    /// That it cannot was said, and nothing has been heard since.
    deaf_said: bool,
    woken: Arc<EventFd>,
    timer: TimerFd,
    /// What is worth waking for.
    interest: Interest,
    /// Nothing is heard of rows, until the next look or the next wait.
    muted: bool,
}

impl Monitor {
    pub(super) fn open() -> io::Result<Self> {
        let woken = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let mut monitor = Self {
            channel: Channel::for_notifications(NETLINK_ROUTE, BUFFER, &GROUPS)?,
            nft: None,
            deaf_said: false,
            woken: Arc::new(woken),
            timer: TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?,
            interest: Interest::default(),
            muted: false,
        };
        monitor.hear_nft();
        Ok(monitor)
    }

    /// Opens what hears nf_tables, where it is not open: it was refused, or failed.
    fn hear_nft(&mut self) {
        if self.nft.is_none() {
            match Channel::for_notifications(NETLINK_NETFILTER, BUFFER, &[nft::GROUP]) {
                Ok(channel) => self.nft = Some(channel),
                Err(error) => self.say_deaf(&error),
            }
        }
    }

    /// Once, however often it is tried.
    fn say_deaf(&mut self, error: &dyn std::fmt::Display) {
        if !std::mem::replace(&mut self.deaf_said, true) {
            tracing::info!(
                %error,
                "cannot hear changes of nf_tables; they are seen at the next look, and each look tries to hear again"
            );
        }
    }

    pub(super) fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.woken))
    }

    /// From now on only this is worth waking for. Call it before reading the tables: a row that changes
    /// after it is heard, one that changed before is read.
    pub(super) fn care_for(&mut self, interest: Interest) {
        if self.interest == interest {
            return;
        }
        self.interest = interest;
        self.filter();
    }

    /// Has the kernel sort out what is not worth waking for. A new socket needs it anew.
    fn filter(&self) {
        if let Err(error) = filter::attach(self.channel.socket(), &self.interest.devices()) {
            tracing::debug!(%error, "the kernel takes no filter for notifications; sorting them out here");
        }
    }

    /// Hears nothing of rows while a long batch is worked off. There is a notification of each of its changes:
    /// delivering thousands costs a tenth of making them, fills the buffer, and says nothing that the look
    /// after the batch does not see.
    pub(super) fn mute(&mut self) {
        if !std::mem::replace(&mut self.muted, true) {
            for group in ROWS {
                // One that cannot be left is heard.
                let _ = self.channel.leave(group);
            }
        }
    }

    /// Hears everything again. Whether it was muted: then nobody knows what was missed.
    fn unmute(&mut self, counters: &mut NetlinkCounters) -> bool {
        let muted = std::mem::take(&mut self.muted);
        if muted && ROWS.into_iter().any(|group| self.channel.join(group).is_err()) {
            self.muted = !self.renew(counters);
        }
        muted
    }

    /// Waits for a change, a wake-up or the end of the time. What does not matter is passed over and does not lengthen
    /// the wait: the deadline is in the kernel, in a timer.
    pub(super) fn wait(&mut self, timeout: Duration, counters: &mut NetlinkCounters) -> Heard {
        match self.try_wait(timeout, counters) {
            Ok(heard) => heard,
            Err(errno) => {
                counters.socket_errors += 1;
                tracing::warn!(error = errno.desc(), "cannot wait for kernel notifications; looking instead");
                Heard::Changed
            }
        }
    }

    fn try_wait(&mut self, timeout: Duration, counters: &mut NetlinkCounters) -> Result<Heard, Errno> {
        let missed = self.unmute(counters);
        if missed && !self.muted {
            return Ok(Heard::Changed);
        }
        self.arm(if missed { timeout.min(DEAF) } else { timeout })?;
        loop {
            let [changed, woken, late, filtered] = self.poll()?;
            if woken {
                // Nothing to read means that somebody else has read it: still a wake-up.
                let _ = self.woken.read();
                return Ok(Heard::Woken);
            }
            if (changed && self.listen(counters)?) || (filtered && self.listen_to_nft(counters)) {
                return Ok(Heard::Changed);
            }
            if late {
                return Ok(if missed { Heard::Changed } else { Heard::Nothing });
            }
        }
    }

    fn arm(&self, timeout: Duration) -> Result<(), Errno> {
        // Setting it also forgets that it went off before. Zero would turn it off.
        let timeout = TimeSpec::from_duration(timeout.max(Duration::from_nanos(1)));
        self.timer.set(Expiration::OneShot(timeout), TimerSetTimeFlags::empty())
    }

    fn poll(&self) -> Result<[bool; 4], Errno> {
        let routes = self.channel.socket().as_fd();
        let nft = self.nft.as_ref().map_or(routes, |nft| nft.socket().as_fd());
        let mut fds =
            [routes, self.woken.as_fd(), self.timer.as_fd(), nft].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        loop {
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) => return Ok(fds.map(|fd| fd.any().unwrap_or(true))),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Reads notifications until one matters. An overrun matters: nobody knows what was lost.
    fn listen(&mut self, counters: &mut NetlinkCounters) -> Result<bool, Errno> {
        for _ in 0..AT_ONCE {
            match self.channel.receive(false) {
                Ok(datagram) => {
                    let interest = &self.interest;
                    if frames(datagram).filter_map(Result::ok).any(|frame| interest.concerns(&frame)) {
                        return Ok(true);
                    }
                }
                Err(Silence::Empty) => return Ok(false),
                Err(Silence::Overrun) => {
                    counters.overruns += 1;
                    return Ok(true);
                }
                Err(Silence::Truncated) => return Ok(true),
                Err(Silence::Failed(errno)) => return Err(errno),
            }
        }
        Ok(false)
    }

    /// The same of nf_tables. A socket that fails is given up: the next look opens another.
    fn listen_to_nft(&mut self, counters: &mut NetlinkCounters) -> bool {
        for _ in 0..AT_ONCE {
            let Some(channel) = &mut self.nft else { return false };
            match channel.receive(false) {
                Ok(datagram) => {
                    self.deaf_said = false;
                    if frames(datagram).filter_map(Result::ok).any(|frame| nft::concerns(&frame)) {
                        return true;
                    }
                }
                Err(Silence::Empty) => return false,
                Err(Silence::Overrun) => {
                    counters.overruns += 1;
                    return true;
                }
                Err(Silence::Truncated) => return true,
                Err(Silence::Failed(errno)) => {
                    counters.socket_errors += 1;
                    self.nft = None;
                    self.say_deaf(&errno.desc());
                    return true;
                }
            }
        }
        false
    }

    /// Throws away what has come in, and hears again what had failed: the observation that follows will see it.
    pub(super) fn forget(&mut self, counters: &mut NetlinkCounters) {
        self.unmute(counters);
        for _ in 0..FEW {
            if !self.listen_to_nft(counters) {
                break;
            }
        }
        self.hear_nft();
        // What is left of a flood about our table costs one more look. In one about anything else there is no
        // end to it: the queue goes with the socket, however long it is.
        if !self.is_emptied(counters) {
            self.renew(counters);
        }
    }

    /// Hears with another socket from now on. Whether there is one.
    fn renew(&mut self, counters: &mut NetlinkCounters) -> bool {
        match Channel::for_notifications(NETLINK_ROUTE, BUFFER, &GROUPS) {
            Ok(channel) => {
                self.channel = channel;
                // Before the first observation everything is heard.
                if self.interest != Interest::default() {
                    self.filter();
                }
                true
            }
            Err(error) => {
                counters.socket_errors += 1;
                // What is left over costs one more look.
                tracing::warn!(%error, "cannot open another netlink socket to hear with; keeping the old one");
                false
            }
        }
    }

    /// Whether reading a few has emptied the queue.
    fn is_emptied(&mut self, counters: &mut NetlinkCounters) -> bool {
        for _ in 0..FEW {
            match self.channel.receive(false) {
                Ok(_) | Err(Silence::Truncated) => {}
                Err(Silence::Overrun) => counters.overruns += 1,
                Err(Silence::Empty) => return true,
                Err(Silence::Failed(_)) => {
                    counters.socket_errors += 1;
                    return false;
                }
            }
        }
        false
    }
}
