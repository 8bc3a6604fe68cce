//! How netlink answers, shown with bare sockets.

#![allow(clippy::cast_possible_truncation, reason = "libc has the kernel's 16-bit constants as int; the rest is small")]

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::libc;
use nix::sys::socket::sockopt::RcvBuf;
use nix::sys::socket::{getsockopt, setsockopt};
use weft::kernel::netlink::wire::frame::{Answer, frames};

use super::devices;
use crate::sandbox::json;

crate::tests![
    one_answer_takes_no_more_than_832_bytes_of_the_receive_buffer,
    the_error_of_a_refused_dump_comes_in_its_last_message,
    a_connected_socket_takes_messages_from_the_kernel_alone,
];

fn socket() -> (Socket, u32) {
    let mut socket = Socket::new(NETLINK_ROUTE).unwrap();
    let address = socket.bind_auto().unwrap();
    (socket, address.port_number())
}

/// A message about neighbours: header, `struct ndmsg`, and one attribute.
fn neighbour_message(kind: u16, flags: u16, seq: u32, device: u32, (attribute, value): (u16, [u8; 4])) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(36_u32.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
    bytes.extend(seq.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend([libc::AF_INET as u8, 0, 0, 0]);
    bytes.extend(device.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(8_u16.to_ne_bytes());
    bytes.extend(attribute.to_ne_bytes());
    bytes.extend(value);
    bytes
}

fn one_answer_takes_no_more_than_832_bytes_of_the_receive_buffer() {
    devices();
    let index = json("ip -j link show flannel.1")[0]["ifindex"].as_u64().unwrap() as u32;
    let (socket, _) = socket();
    setsockopt(&socket, RcvBuf, &50_000).unwrap();
    let places = getsockopt(&socket, RcvBuf).unwrap() / 832;
    // Each is refused: there is no such neighbour. The last is not: it makes one.
    let mut batch = Vec::new();
    let add = libc::NLM_F_CREATE as u16 | libc::NLM_F_ACK as u16;
    for seq in 0..2 * places as u32 {
        batch.extend(neighbour_message(libc::RTM_DELNEIGH, 0, seq, index, (libc::NDA_DST, [10, 0, 0, 1])));
    }
    batch.extend(neighbour_message(libc::RTM_NEWNEIGH, add, 9999, index, (libc::NDA_DST, [10, 0, 0, 1])));
    socket.send_to(&batch, &SocketAddr::new(0, 0), 0).unwrap();
    let (mut answers, mut overruns) = (0, 0);
    let mut buffer = [0; 4096];
    loop {
        match socket.recv(&mut &mut buffer[..], libc::MSG_DONTWAIT) {
            Ok(_) => answers += 1,
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => overruns += 1,
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(answers >= places && answers < 2 * places, "{answers} answers, {places} places");
    assert_eq!(overruns, 1);
    // The last change was made, though its answer was lost.
    assert_eq!(json("ip -j neigh show dev flannel.1 nud none").len(), 1);
}

fn the_error_of_a_refused_dump_comes_in_its_last_message() {
    devices();
    let index = json("ip -j link show flannel.1")[0]["ifindex"].as_u64().unwrap() as u32;
    let (socket, _) = socket();
    socket.set_netlink_get_strict_chk(true).unwrap();
    // The device belongs into an attribute.
    let dump = neighbour_message(
        libc::RTM_GETNEIGH,
        libc::NLM_F_DUMP as u16,
        1,
        index,
        (libc::NDA_IFINDEX, index.to_ne_bytes()),
    );
    socket.send_to(&dump, &SocketAddr::new(0, 0), 0).unwrap();
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut &mut buffer[..], 0).unwrap();
    let frames: Vec<_> = frames(&buffer[..length]).map(Result::unwrap).collect();
    let [end] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!(i32::from(end.kind), libc::NLMSG_DONE);
    assert!(matches!(end.answer(), Ok(Answer::Refused(refusal)) if refusal.errno == libc::EINVAL));
}

fn a_connected_socket_takes_messages_from_the_kernel_alone() {
    let (ours, port) = socket();
    let (stranger, _) = socket();
    let to = SocketAddr::new(port, 0);
    stranger.send_to(b"once upon a time", &to, 0).unwrap();
    let mut buffer = [0; 64];
    assert_eq!(ours.recv(&mut &mut buffer[..], libc::MSG_DONTWAIT).unwrap(), 16);
    ours.connect(&SocketAddr::new(0, 0)).unwrap();
    let error = stranger.send_to(b"once upon a time", &to, 0).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
}
