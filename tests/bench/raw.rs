//! The other side of every ratio: messages that were encoded beforehand, on a plain socket. Nothing is
//! decided, looked at or accounted for; only an error is noticed, and ends the benchmark.

use std::os::fd::AsRawFd;

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce};
use nix::sys::socket::{MsgFlags, recv, send, setsockopt};
use weft::kernel::netlink::wire::frame::{Answer, frames};
use weft::kernel::netlink::wire::{encode, request_ack};
use weft::model::op::Op;

/// Messages in one send. From 64 on, more make no difference (`docs/performance.md`).
const BATCH: usize = 1000;

/// A socket for requests.
pub(crate) struct Raw {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Raw {
    pub(crate) fn open() -> Self {
        let mut socket = Socket::new(NETLINK_ROUTE).expect("a netlink socket");
        socket.bind_auto().expect("an address");
        socket.connect(&SocketAddr::new(0, 0)).expect("to connect to the kernel");
        socket.set_cap_ack(true).expect("capped answers");
        socket.set_ext_ack(true).expect("answers with a text");
        socket.set_netlink_get_strict_chk(true).expect("strict dumps");
        let room = 4 << 20;
        if setsockopt(&socket, RcvBufForce, &room).is_err() {
            setsockopt(&socket, RcvBuf, &room).expect("a receive buffer");
        }
        Self { socket, buffer: vec![0; 1 << 18] }
    }

    /// Sends every batch and waits for its one acknowledgement.
    pub(crate) fn send_batches(&mut self, batches: &Batches) {
        for (bytes, last) in &batches.0 {
            self.exchange(bytes, *last);
        }
    }

    /// Sends each message alone and waits for its acknowledgement.
    pub(crate) fn send_each(&mut self, messages: &Each) {
        for (bytes, seq) in &messages.0 {
            self.exchange(bytes, *seq);
        }
    }

    /// Sends each message over a socket made for it, as flannel's netlink library does.
    pub(crate) fn send_each_anew(messages: &Each) {
        for (bytes, seq) in &messages.0 {
            let mut socket = Socket::new(NETLINK_ROUTE).expect("a netlink socket");
            socket.bind_auto().expect("an address");
            let mut raw = Self { socket, buffer: vec![0; 4096] };
            raw.exchange(bytes, *seq);
        }
    }

    fn exchange(&mut self, bytes: &[u8], last: u32) {
        send(self.socket.as_raw_fd(), bytes, MsgFlags::empty()).expect("to send");
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty()).expect("an answer");
            for frame in frames(&self.buffer[..length]) {
                let frame = frame.expect("a message");
                match frame.answer().expect("an answer") {
                    Answer::Done if frame.seq == last => return,
                    Answer::Done | Answer::Data => {}
                    Answer::Refused(refusal) => panic!("message {} of {last}: {refusal}", frame.seq),
                }
            }
        }
    }

    /// Asks for a dump and reads all of it; the number of rows.
    pub(crate) fn dump(&mut self, request: &[u8]) -> usize {
        send(self.socket.as_raw_fd(), request, MsgFlags::empty()).expect("to send");
        let mut rows = 0;
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty()).expect("an answer");
            for frame in frames(&self.buffer[..length]) {
                match frame.expect("a message").answer().expect("an answer") {
                    Answer::Data => rows += 1,
                    Answer::Done => return rows,
                    Answer::Refused(refusal) => panic!("dump: {refusal}"),
                }
            }
        }
    }
}

/// Messages in sends of many; only the last of each send asks for an acknowledgement.
pub(crate) struct Batches(Vec<(Vec<u8>, u32)>);

/// Messages to be sent one at a time, each with an acknowledgement.
pub(crate) struct Each(Vec<(Vec<u8>, u32)>);

/// Encodes what netlink can carry of these operations, numbered from 1.
pub(crate) fn messages(ops: &[Op]) -> Vec<Vec<u8>> {
    ops.iter().zip(1..).filter_map(|(op, seq)| encode(op, seq)).collect()
}

impl Batches {
    pub(crate) fn new(messages: &[Vec<u8>]) -> Self {
        Self::of(messages, BATCH)
    }

    pub(crate) fn of(messages: &[Vec<u8>], size: usize) -> Self {
        let batch = |batch: &[Vec<u8>]| {
            let mut bytes = Vec::new();
            for (at, message) in batch.iter().enumerate() {
                let from = bytes.len();
                bytes.extend_from_slice(message);
                if at + 1 == batch.len() {
                    request_ack(&mut bytes[from..]);
                }
                bytes.resize(bytes.len().next_multiple_of(4), 0);
            }
            (bytes, batch.last().map_or(0, |message| seq_of(message)))
        };
        Self(messages.chunks(size).map(batch).collect())
    }
}

impl Each {
    pub(crate) fn new(messages: Vec<Vec<u8>>) -> Self {
        let acked = |mut message: Vec<u8>| {
            request_ack(&mut message);
            let seq = seq_of(&message);
            (message, seq)
        };
        Self(messages.into_iter().map(acked).collect())
    }
}

fn seq_of(message: &[u8]) -> u32 {
    message.get(8..12).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes)
}
