//! ICMP echo, once or a thousand times a second, with what was lost and for how long.
//!
//! It uses the kernel's ping sockets (`net.ipv4.ping_group_range`), which need no privilege and see no
//! one else's replies.

use std::io::{self, IoSliceMut, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use socket2::{Domain, Protocol, Socket, Type};

use super::netns::Namespace;

/// How long answers that are outstanding at the end of a stream are waited for.
const STRAGGLERS: Duration = Duration::from_millis(100);

/// A ping socket towards one address.
#[derive(Debug)]
pub struct Echo {
    socket: Socket,
    request: u8,
}

/// An answer to a ping.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// The number that was asked with.
    pub number: u32,
    /// When it reached the socket, which may be long before anybody looked.
    pub arrived: Instant,
}

impl Echo {
    /// Opens a socket in the calling thread's namespace, where it stays.
    ///
    /// # Errors
    /// If there can be no ping socket, or no route to the target.
    pub fn open(target: IpAddr) -> io::Result<Self> {
        let (domain, protocol, request) = match target {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128),
        };
        let socket = Socket::new(domain, Type::DGRAM, Some(protocol))?;
        socket.connect(&SocketAddr::new(target, 0).into())?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        Ok(Self { socket, request })
    }

    /// Asks; the kernel fills in the identifier and the checksum.
    ///
    /// # Errors
    /// If the ping could not even be sent.
    pub fn ask(&self, number: u32) -> io::Result<()> {
        let mut packet = [0_u8; 12];
        packet[0] = self.request;
        packet[8..].copy_from_slice(&number.to_be_bytes());
        (&self.socket).write_all(&packet)
    }

    /// An answer that has come, if one has.
    pub fn hear(&self) -> Option<Answer> {
        let mut packet = [0_u8; 64];
        let mut space = nix::cmsg_space!(TimeSpec);
        let mut parts = [IoSliceMut::new(&mut packet)];
        // An error here is an ICMP error that came back: no reply, and nothing to do about it.
        let heard =
            recvmsg::<()>(self.socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_DONTWAIT).ok()?;
        let stamp = heard.cmsgs().ok()?.find_map(|message| match message {
            ControlMessageOwned::ScmTimestampns(stamp) => Some(Duration::from(stamp)),
            _ => None,
        })?;
        let length = heard.bytes;
        // Only the age is taken from the clock that people set.
        let age = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().saturating_sub(stamp);
        let now = Instant::now();
        let number = packet.get(8..12).filter(|_| length >= 12)?.try_into().ok()?;
        Some(Answer { number: u32::from_be_bytes(number), arrived: now.checked_sub(age).unwrap_or(now) })
    }

    /// Waits until a reply may have come, or the time is up.
    fn wait(&self, time: Duration) {
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        // An interrupted wait is a short one.
        let _ = ppoll(&mut fds, Some(TimeSpec::from_duration(time)), None);
    }
}

/// Pings once from the calling thread's namespace; the time it took, `None` if nothing came back.
///
/// # Errors
/// If there can be no ping socket, or no route to the target.
pub fn once(target: IpAddr, patience: Duration) -> io::Result<Option<Duration>> {
    let echo = Echo::open(target)?;
    let begun = Instant::now();
    echo.ask(1)?;
    loop {
        if echo.hear().is_some_and(|answer| answer.number == 1) {
            return Ok(Some(begun.elapsed()));
        }
        let Some(left) = patience.checked_sub(begun.elapsed()) else { return Ok(None) };
        echo.wait(left);
    }
}

/// What came of a stream of pings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many were sent.
    pub sent: usize,
    /// How many were never answered.
    pub lost: usize,
    /// The longest time in which every ping that was sent was lost: from the first of them to the
    /// first that was answered again.
    pub longest_gap: Duration,
}

/// A stream of pings that runs on a thread until it is stopped.
#[derive(Debug)]
pub struct Stream {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(Echo, Vec<(Instant, bool)>)>,
}

impl Stream {
    /// Pings `target` from a namespace, once every `interval` (1 ms is fine).
    ///
    /// # Errors
    /// If there can be no ping socket or thread.
    pub fn start(from: &Namespace, target: IpAddr, interval: Duration) -> io::Result<Self> {
        let echo = from.run(|| Echo::open(target))??;
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = thread::Builder::new().name("ping".to_owned()).spawn(move || stream(echo, interval, &told))?;
        Ok(Self { stop, thread })
    }

    /// Stops asking, waits a moment for late replies, and counts.
    pub fn stop(self) -> Tally {
        self.stop_patiently(STRAGGLERS)
    }

    /// The same, with another idea of how long a moment is.
    pub fn stop_patiently(self, patience: Duration) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        // A stream that panicked has sent nothing that could be counted.
        let Ok((echo, mut pings)) = self.thread.join() else { return Tally::default() };
        while let Some((asked, _)) = pings.iter().rev().find(|(_, answered)| !answered) {
            let Some(left) = patience.checked_sub(asked.elapsed()) else { break };
            echo.wait(left);
            collect(&echo, &mut pings);
        }
        tally(&pings)
    }
}

fn stream(echo: Echo, interval: Duration, stop: &AtomicBool) -> (Echo, Vec<(Instant, bool)>) {
    let mut pings: Vec<(Instant, bool)> = Vec::new();
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        if now >= next {
            pings.push((now, false));
            // A ping that cannot even be sent (no route) is a lost one.
            let _ = u32::try_from(pings.len() - 1).map_or(Ok(()), |number| echo.ask(number));
            // Not `now + interval`: pings that the scheduler kept us from sending are not made up for,
            // but the rhythm is kept.
            next = (next + interval).max(now);
        }
        collect(&echo, &mut pings);
        echo.wait(next.saturating_duration_since(Instant::now()));
    }
    (echo, pings)
}

fn collect(echo: &Echo, pings: &mut [(Instant, bool)]) {
    while let Some(answer) = echo.hear() {
        if let Some(ping) = usize::try_from(answer.number).ok().and_then(|number| pings.get_mut(number)) {
            ping.1 = true;
        }
    }
}

fn tally(pings: &[(Instant, bool)]) -> Tally {
    let mut longest_gap = Duration::ZERO;
    let mut since = None;
    for (at, answered) in pings {
        match (since, answered) {
            (None, false) => since = Some(*at),
            (Some(first), true) => {
                longest_gap = longest_gap.max(*at - first);
                since = None;
            }
            _ => {}
        }
    }
    if let (Some(first), Some((last, _))) = (since, pings.last()) {
        longest_gap = longest_gap.max(*last - first);
    }
    Tally { sent: pings.len(), lost: pings.iter().filter(|(_, answered)| !answered).count(), longest_gap }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_lasts_until_the_next_answer() {
        let start = Instant::now();
        let at = |ms: u64, answered| (start + Duration::from_millis(ms), answered);
        let pings = [at(0, true), at(1, false), at(2, false), at(5, true), at(6, false), at(7, true)];
        assert_eq!(tally(&pings), Tally { sent: 6, lost: 3, longest_gap: Duration::from_millis(4) });
        assert_eq!(tally(&pings[..3]).longest_gap, Duration::from_millis(1), "a gap that has not ended");
        assert_eq!(tally(&[]), Tally::default());
    }
}
