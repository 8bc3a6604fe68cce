//! Whole dumps or none: an interrupted one is repeated, a refused or broken one is an error.

use nix::libc;

use super::socket::{Channel, Mailbox, Silence};
use super::wire::frame::{Answer, Frame, frames};
use super::wire::{Malformed, Question};
use crate::kernel::ObserveError;
use crate::model::addr::Family;
use crate::model::op::Refusal;
use crate::model::traffic::NetlinkCounters;

/// How often a table that changes while it is read is tried.
const ATTEMPTS: u32 = 8;

/// What the kernel is asked.
pub(in crate::kernel) trait Ask {
    /// What is asked for, in an error message.
    fn what(&self) -> &'static str;
    /// The message.
    fn encode(&self, seq: u32) -> Vec<u8>;
    /// Whether this refusal, before the first row, only says that there are no rows.
    fn is_empty_table(&self, refusal: &Refusal) -> bool;
}

impl Ask for Question {
    fn what(&self) -> &'static str {
        Self::what(self)
    }

    fn encode(&self, seq: u32) -> Vec<u8> {
        Self::encode(self, seq)
    }

    fn is_empty_table(&self, refusal: &Refusal) -> bool {
        // The IPv4 main table does not exist before its first route: it has no rows.
        refusal.errno == libc::ENOENT && *self == Self::Routes(Family::V4)
    }
}

/// Why one attempt gave nothing.
enum Failure {
    /// Try again.
    Torn,
    /// It would fail again.
    Final(ObserveError),
}

/// Reads every row that `decode` makes something of.
///
/// `decode` filters too: the filters of the request are honoured by Linux 4.20 and later only, and not by
/// every table.
pub(in crate::kernel) fn dump<T>(
    channel: &mut Channel,
    counters: &mut NetlinkCounters,
    question: &impl Ask,
    mut decode: impl FnMut(&Frame<'_>) -> Result<Option<T>, Malformed>,
) -> Result<Vec<T>, ObserveError> {
    for _ in 0..ATTEMPTS {
        match attempt(channel, question, &mut decode) {
            Ok(rows) => return Ok(rows),
            Err(Failure::Torn) => counters.dumps_repeated += 1,
            Err(Failure::Final(error)) => {
                counters.dumps_failed += 1;
                return Err(error);
            }
        }
    }
    counters.dumps_failed += 1;
    Err(ObserveError::Torn { what: question.what(), attempts: ATTEMPTS })
}

fn attempt<T>(
    channel: &mut Channel,
    question: &impl Ask,
    decode: &mut impl FnMut(&Frame<'_>) -> Result<Option<T>, Malformed>,
) -> Result<Vec<T>, Failure> {
    let broken = |problem: String| Failure::Final(ObserveError::Broken { what: question.what(), problem });
    let seq = channel.next_seq();
    channel.send(&question.encode(seq)).map_err(|error| broken(error.to_string()))?;
    let read = read_rows(channel, seq, question, decode);
    if !matches!(read, Ok(_) | Err(Stop::AtTheEnd(_))) {
        // The kernel still has rows for the socket and would answer EBUSY to the next dump.
        channel.renew().map_err(|error| broken(error.to_string()))?;
    }
    match read {
        Ok((rows, false)) => Ok(rows),
        Ok((_, true)) | Err(Stop::Silent(Silence::Overrun | Silence::Truncated)) => Err(Failure::Torn),
        Err(Stop::AtTheEnd(refusal)) => Err(Failure::Final(ObserveError::Refused { what: question.what(), refusal })),
        Err(Stop::Malformed(problem)) => Err(broken(problem.to_string())),
        Err(Stop::Silent(silence)) => Err(broken(silence.to_string())),
    }
}

/// Why reading stopped short.
enum Stop {
    AtTheEnd(Refusal),
    Malformed(Malformed),
    Silent(Silence),
}

/// The rows, and whether the table changed meanwhile.
fn read_rows<T>(
    channel: &mut Channel,
    seq: u32,
    question: &impl Ask,
    decode: &mut impl FnMut(&Frame<'_>) -> Result<Option<T>, Malformed>,
) -> Result<(Vec<T>, bool), Stop> {
    let (mut rows, mut interrupted, mut begun) = (Vec::new(), false, false);
    loop {
        let datagram = channel.receive(true).map_err(Stop::Silent)?;
        for frame in frames(datagram) {
            let frame = frame.map_err(Stop::Malformed)?;
            if frame.seq != seq {
                continue;
            }
            interrupted |= frame.interrupted();
            match frame.answer().map_err(Stop::Malformed)? {
                Answer::Data => {
                    begun = true;
                    rows.extend(decode(&frame).map_err(Stop::Malformed)?);
                }
                Answer::Done => return Ok((rows, interrupted)),
                Answer::Refused(refusal) if !begun && question.is_empty_table(&refusal) => {
                    return Ok((rows, interrupted));
                }
                Answer::Refused(refusal) => return Err(Stop::AtTheEnd(refusal)),
            }
        }
    }
}

/// Asks for one thing: its row, or the kernel's refusal.
pub(in crate::kernel) fn look_up<T>(
    channel: &mut Channel,
    question: &impl Ask,
    decode: impl Fn(&Frame<'_>) -> Result<Option<T>, Malformed>,
) -> Result<Result<Option<T>, Refusal>, ObserveError> {
    let broken = |problem: String| ObserveError::Broken { what: question.what(), problem };
    let seq = channel.next_seq();
    channel.send(&question.encode(seq)).map_err(|error| broken(error.to_string()))?;
    loop {
        let datagram = channel.receive(true).map_err(|silence| broken(silence.to_string()))?;
        for frame in frames(datagram) {
            let frame = frame.map_err(|malformed| broken(malformed.to_string()))?;
            if frame.seq != seq {
                continue;
            }
            return match frame.answer().map_err(|malformed| broken(malformed.to_string()))? {
                Answer::Data => decode(&frame).map(Ok).map_err(|malformed| broken(malformed.to_string())),
                Answer::Done => Ok(Ok(None)),
                Answer::Refused(refusal) => Ok(Err(refusal)),
            };
        }
    }
}
