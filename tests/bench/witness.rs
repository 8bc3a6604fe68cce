//! A listener that keeps the route table in its head, change by change, in the kernel's order.

use std::collections::HashMap;
use std::os::fd::AsRawFd;

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce};
use nix::sys::socket::{MsgFlags, recv, setsockopt};
use weft::kernel::netlink::wire::frame::frames;
use weft::kernel::netlink::wire::route::RouteSeen;
use weft::model::addr::Subnet;

/// Hears of every IPv4 route of the namespace from the start on.
pub(crate) struct Witness {
    socket: Socket,
    routes: HashMap<Subnet, usize>,
    present: usize,
    most: usize,
    without: usize,
}

impl Witness {
    pub(crate) fn start() -> Self {
        let mut socket = Socket::new(NETLINK_ROUTE).expect("a netlink socket");
        socket.bind_auto().expect("an address");
        // 832 bytes for each notification; a witness that missed one is none.
        let room = 256 << 20;
        if setsockopt(&socket, RcvBufForce, &room).is_err() {
            setsockopt(&socket, RcvBuf, &room).expect("a receive buffer");
        }
        socket.add_membership(libc::RTNLGRP_IPV4_ROUTE).expect("a group");
        Self { socket, routes: HashMap::new(), present: 0, most: 0, without: 0 }
    }

    /// Takes in what has happened. False if something was missed: an ordinary user's buffer is small.
    pub(crate) fn listen(&mut self) -> bool {
        let mut buffer = vec![0; 1 << 16];
        loop {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => self.take(&buffer[..length]),
                Err(Errno::EAGAIN) => return true,
                Err(Errno::ENOBUFS) => return false,
                Err(errno) => panic!("the witness: {errno}"),
            }
        }
    }

    fn take(&mut self, datagram: &[u8]) {
        for frame in frames(datagram).map(|frame| frame.expect("a message")) {
            let Some(seen) = RouteSeen::parse(frame.body).expect("a route") else { continue };
            if !seen.is_ordinary() {
                continue;
            }
            let of = self.routes.entry(seen.key.dst).or_default();
            match frame.kind {
                libc::RTM_NEWROUTE => {
                    *of += 1;
                    self.present += 1;
                }
                libc::RTM_DELROUTE => {
                    *of -= 1;
                    self.present -= 1;
                    self.without += usize::from(*of == 0);
                }
                _ => {}
            }
            self.most = self.most.max(self.present);
        }
    }

    /// The most routes that were there at one time.
    pub(crate) const fn most_routes(&self) -> usize {
        self.most
    }

    /// How often a destination lost its last route.
    pub(crate) const fn ever_without(&self) -> usize {
        self.without
    }
}
