//! Changes in batches: many messages in one send, and an answer for each.
//!
//! The kernel works a batch off while it is being sent, one message at a time and whatever becomes of the
//! ones before (`a_refused_message_does_not_stop_the_batch`); RTNL is taken for each message alone, so
//! that others get their turn in between. Only the last message asks for an acknowledgement: errors come
//! without being asked for, and so a message before it that has no error was done.

use std::io;
use std::path::{Component, Path, PathBuf};

use super::socket::{Channel, Mailbox, Silence};
use super::wire;
use super::wire::frame::{Answer, frames};
use crate::model::addr::IfName;
use crate::model::op::{Ack, LinkOp, Op, Refusal};
use crate::model::traffic::NetlinkCounters;

/// Messages in one send. 64 already give all that batching gives; more would only keep a CNI plugin
/// waiting longer.
pub(super) const MESSAGES: usize = 128;
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
        if !batch.push(op, channel.next_seq()) {
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
    /// Whether the operation is one for netlink.
    fn push(&mut self, op: &Op, seq: u32) -> bool {
        let at = self.bytes.len();
        if !wire::encode(op, seq, &mut self.bytes) {
            return false;
        }
        if self.count == 0 {
            self.first_seq = seq;
        }
        self.count += 1;
        self.last_at = at;
        true
    }

    /// Sends what is there and leaves the batch empty.
    fn send(&mut self, channel: &mut Channel, counters: &mut NetlinkCounters) -> Vec<Ack> {
        if self.count == 0 {
            return Vec::new();
        }
        counters.batches += 1;
        counters.messages += self.count as u64;
        if let Some(last) = self.bytes.get_mut(self.last_at..) {
            wire::request_ack(last);
        }
        let acks = match channel.send(&self.bytes) {
            Ok(()) => self.collect(channel),
            Err(error) => vec![Ack::Unknown(format!("sending: {error}")); self.count],
        };
        counters.answers_lost += acks.iter().filter(|ack| matches!(ack, Ack::Unknown(_))).count() as u64;
        self.bytes.clear();
        self.count = 0;
        acks
    }

    /// Reads answers until the last message has one. If any was lost on the way, no news is no longer
    /// good news.
    fn collect(&self, from: &mut impl Mailbox) -> Vec<Ack> {
        let mut answers = vec![None; self.count];
        let mut lost = None;
        while answers.last().is_some_and(Option::is_none) {
            match from.receive(lost.is_none()) {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Says what it was told to say.
    struct Script(Vec<Result<Vec<u8>, Silence>>, Vec<u8>);

    impl Script {
        fn new(mut lines: Vec<Result<Vec<u8>, Silence>>) -> Self {
            lines.reverse();
            Self(lines, Vec::new())
        }
    }

    impl Mailbox for Script {
        fn receive(&mut self, _wait: bool) -> Result<&[u8], Silence> {
            self.1 = self.0.pop().unwrap_or(Err(Silence::Empty))?;
            Ok(&self.1)
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "what a mailbox gives")]
    fn answer(seq: u32, errno: i32) -> Result<Vec<u8>, Silence> {
        let mut bytes = Vec::new();
        bytes.extend(36_u32.to_ne_bytes());
        bytes.extend(2_u16.to_ne_bytes());
        bytes.extend(0x100_u16.to_ne_bytes());
        bytes.extend(seq.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend((-errno).to_ne_bytes());
        bytes.extend([0; 16]);
        Ok(bytes)
    }

    fn refused(errno: i32) -> Ack {
        Ack::Refused(Refusal { errno, text: None })
    }

    fn unknown(silence: Silence) -> Ack {
        Ack::Unknown(silence.to_string())
    }

    fn batch(first_seq: u32) -> Batch {
        Batch { count: 4, first_seq, ..Batch::default() }
    }

    #[test]
    fn silence_before_the_last_answer_means_done() {
        let acks = batch(7).collect(&mut Script::new(vec![answer(8, 17), answer(10, 0)]));
        assert_eq!(acks, [Ack::Done, refused(17), Ack::Done, Ack::Done]);
    }

    #[test]
    fn answers_of_an_earlier_batch_and_a_wrapped_sequence_are_told_apart() {
        let acks = batch(u32::MAX - 1).collect(&mut Script::new(vec![answer(3, 2), answer(0, 17), answer(1, 0)]));
        assert_eq!(acks, [Ack::Done, Ack::Done, refused(17), Ack::Done]);
    }

    #[test]
    fn after_an_overrun_only_what_was_heard_is_known() {
        let lines = vec![Err(Silence::Overrun), answer(8, 17), Err(Silence::Empty)];
        let acks = batch(7).collect(&mut Script::new(lines));
        let lost = unknown(Silence::Overrun);
        assert_eq!(acks, [lost.clone(), refused(17), lost.clone(), lost]);
    }

    #[test]
    fn an_overrun_before_the_last_answer_still_casts_doubt_on_the_silent() {
        let acks = batch(7).collect(&mut Script::new(vec![Err(Silence::Overrun), answer(10, 0)]));
        let lost = unknown(Silence::Overrun);
        assert_eq!(acks, [lost.clone(), lost.clone(), lost, Ack::Done]);
    }

    #[test]
    fn a_kernel_that_does_not_answer_leaves_everything_unknown() {
        let acks = batch(7).collect(&mut Script::new(vec![]));
        assert_eq!(acks, vec![unknown(Silence::Empty); 4]);
    }

    #[test]
    fn a_sysctl_is_never_written_outside_its_folder() {
        for name in ["", ".", "..", "a/b", "/", "../../../kernel/x"] {
            assert!(disable_ipv6_file(&IfName::new(name)).is_err(), "{name}");
        }
        let path = disable_ipv6_file(&IfName::new("flannel-v6.1")).expect("a name");
        assert_eq!(path, Path::new("/proc/sys/net/ipv6/conf/flannel-v6.1/disable_ipv6"));
    }
}
