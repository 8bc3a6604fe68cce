//! A filter in the kernel, so that what is none of our business never gets as far as our receive buffer.
//!
//! On a busy node thousands of neighbours and bridge FDB entries of pods come and go; sorting them out here
//! would cost a wake-up each, and a burst of them would push out what we wait for. The classic BPF program
//! looks at the message type and at one field of the fixed part, which every kernel writes at the same
//! place. It only saves work: [`super::Interest`] still decides.

use std::io;

use netlink_sys::Socket;
use nix::libc;
use socket2::{SockFilter, SockRef};

use crate::model::addr::IfIndex;

/// Where `nlmsg_type` is.
const TYPE: u32 = 4;
/// Where `ndm_ifindex` is.
const NEIGHBOUR_DEVICE: u32 = 20;
/// Where `rtm_table` is.
const ROUTE_TABLE: u32 = 20;

/// Lets through only what may matter: neighbours and FDB entries of these devices, routes of the main table,
/// and everything that is neither.
pub(super) fn attach(socket: &Socket, devices: &[IfIndex]) -> io::Result<()> {
    SockRef::from(socket).attach_filter(&program(devices))
}

fn program(devices: &[IfIndex]) -> Vec<SockFilter> {
    let types = [libc::RTM_NEWNEIGH, libc::RTM_DELNEIGH, libc::RTM_NEWROUTE, libc::RTM_DELROUTE];
    let [new_neighbour, del_neighbour, new_route, del_route] = types.map(|kind| u32::from(as_loaded_16(kind)));
    let ours: Vec<u32> = devices.iter().map(|device| as_loaded_32(device.0)).collect();
    // The part about neighbours has a load, a comparison for each device, a refusal and an acceptance.
    let neighbours = u8::try_from(ours.len() + 3).unwrap_or(u8::MAX);
    let mut program = vec![
        load(libc::BPF_H, TYPE),
        skip_if(new_neighbour, 4, 0),
        skip_if(del_neighbour, 3, 0),
        skip_if(new_route, 2 + neighbours, 0),
        skip_if(del_route, 1 + neighbours, 0),
        accept(),
    ];
    program.push(load(libc::BPF_W, NEIGHBOUR_DEVICE));
    for (at, device) in ours.iter().enumerate() {
        // Over the devices that are left and the refusal, to the acceptance after it.
        let skip = u8::try_from(ours.len() - at).unwrap_or(u8::MAX);
        program.push(skip_if(*device, skip, 0));
    }
    program.push(refuse());
    program.push(accept());
    program.extend([load(libc::BPF_B, ROUTE_TABLE), skip_if(u32::from(libc::RT_TABLE_MAIN), 0, 1), accept(), refuse()]);
    program
}

/// BPF loads in network order what the kernel wrote in its own.
const fn as_loaded_16(value: u16) -> u16 {
    u16::from_be_bytes(value.to_ne_bytes())
}

const fn as_loaded_32(value: u32) -> u32 {
    u32::from_be_bytes(value.to_ne_bytes())
}

fn load(size: libc::__u32, at: u32) -> SockFilter {
    instruction(libc::BPF_LD | size | libc::BPF_ABS, 0, 0, at)
}

/// Compares what was loaded, and passes over so many instructions.
fn skip_if(value: u32, if_equal: u8, if_not: u8) -> SockFilter {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, if_equal, if_not, value)
}

fn accept() -> SockFilter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX)
}

fn refuse() -> SockFilter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0)
}

fn instruction(code: u32, if_equal: u8, if_not: u8, value: u32) -> SockFilter {
    // Every operation code is below 256.
    SockFilter::new(u16::try_from(code).unwrap_or(0), if_equal, if_not, value)
}
