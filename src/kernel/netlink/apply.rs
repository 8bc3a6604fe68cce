//! Changes in batches: many messages in one send, and an answer for each.
//!
//! The kernel works a batch off while it is being sent, one message at a time and whatever becomes of the
//! ones before (`a_refused_message_does_not_stop_the_batch`); RTNL is taken for each message alone, so
//! that others get their turn in between. Only the last message asks for an acknowledgement: errors come
//! without being asked for, and so a message before it that has no error was done.

use std::io;
use std::path::{Component, Path, PathBuf};

use super::NetlinkCounters;
use super::socket::{Channel, Silence};
use super::wire;
use super::wire::frame::{Answer, frames};
use crate::model::addr::IfName;
use crate::model::op::{Ack, LinkOp, Op, Refusal};

/// Messages in one send. 64 already give all that batching gives; more would only keep a CNI plugin
/// waiting longer.
const MESSAGES: usize = 128;
/// Bytes in one send, well below the smallest usual send buffer.
const BYTES: usize = 32 * 1024;

/// Tries every operation, in order.
pub(super) fn apply(channel: &mut Channel, counters: &mut NetlinkCounters, ops: &[Op]) -> Vec<Ack> {
    // Every message of a batch may fail, and each answer needs its place.
    let most = MESSAGES.min(channel.room());
    let mut acks = Vec::with_capacity(ops.len());
    let mut batch = Batch::default();
    for op in ops {
        if batch.count >= most || batch.bytes.len() >= BYTES {
            acks.append(&mut batch.send(channel, counters));
        }
        let seq = channel.next_seq();
        if let Some(message) = wire::encode(op, seq) {
            batch.push(&message, seq);
        } else {
            acks.append(&mut batch.send(channel, counters));
            acks.push(write_sysctl(op));
        }
    }
    acks.append(&mut batch.send(channel, counters));
    acks
}

/// Messages with consecutive sequence numbers.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    count: usize,
    first_seq: u32,
    last_at: usize,
}

impl Batch {
    fn push(&mut self, message: &[u8], seq: u32) {
        if self.count == 0 {
            self.first_seq = seq;
        }
        self.count += 1;
        self.last_at = self.bytes.len();
        self.bytes.extend_from_slice(message);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Sends what is there and leaves the batch empty.
    fn send(&mut self, channel: &mut Channel, counters: &mut NetlinkCounters) -> Vec<Ack> {
        let mut batch = std::mem::take(self);
        if batch.count == 0 {
            return Vec::new();
        }
        counters.batches += 1;
        counters.messages += batch.count as u64;
        if let Some(last) = batch.bytes.get_mut(batch.last_at..) {
            wire::request_ack(last);
        }
        let acks = match channel.send(&batch.bytes) {
            Ok(()) => batch.collect(channel),
            Err(error) => vec![Ack::Unknown(format!("sending: {error}")); batch.count],
        };
        counters.answers_lost += acks.iter().filter(|ack| matches!(ack, Ack::Unknown(_))).count() as u64;
        acks
    }

    /// Reads answers until the last message has one. If any was lost on the way, no news is no longer
    /// good news.
    fn collect(&self, channel: &mut Channel) -> Vec<Ack> {
        let mut answers = vec![None; self.count];
        let mut lost = None;
        while answers.last().is_some_and(Option::is_none) {
            match channel.receive(lost.is_none()) {
                Ok(datagram) => self.sort(datagram, &mut answers),
                // What was queued before the overrun is still there, and nothing more is coming.
                Err(silence @ (Silence::Overrun | Silence::Truncated)) => lost = Some(silence.to_string()),
                Err(silence) => {
                    lost.get_or_insert_with(|| silence.to_string());
                    break;
                }
            }
        }
        let otherwise = lost.map_or(Ack::Done, Ack::Unknown);
        answers.into_iter().map(|answer| answer.unwrap_or_else(|| otherwise.clone())).collect()
    }

    fn sort(&self, datagram: &[u8], answers: &mut [Option<Ack>]) {
        for frame in frames(datagram).filter_map(Result::ok) {
            let place = usize::try_from(frame.seq.wrapping_sub(self.first_seq)).unwrap_or(usize::MAX);
            let Some(answer) = answers.get_mut(place) else { continue };
            match frame.answer() {
                Ok(Answer::Done) => *answer = Some(Ack::Done),
                Ok(Answer::Refused(refusal)) => *answer = Some(Ack::Refused(refusal)),
                Ok(Answer::Data) => {}
                Err(malformed) => *answer = Some(Ack::Unknown(malformed.to_string())),
            }
        }
    }
}

/// `/proc/sys/net` is that of the calling thread's network namespace.
fn write_sysctl(op: &Op) -> Ack {
    let Op::Link(LinkOp::EnableIpv6(dev)) = op else {
        return Ack::Unknown("not a change that netlink or a sysctl can make".to_owned());
    };
    match disable_ipv6_file(&dev.name).and_then(|path| std::fs::write(path, "0")) {
        Ok(()) => Ack::Done,
        Err(error) => match error.raw_os_error() {
            Some(errno) => Ack::Refused(Refusal { errno, text: None }),
            None => Ack::Unknown(error.to_string()),
        },
    }
}

fn disable_ipv6_file(name: &IfName) -> io::Result<PathBuf> {
    let mut parts = Path::new(name.as_str()).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(name)), None) => {
            Ok(Path::new("/proc/sys/net/ipv6/conf").join(name).join("disable_ipv6"))
        }
        // No interface can be called so.
        _ => Err(io::Error::from_raw_os_error(nix::libc::ENODEV)),
    }
}
