//! Waiting until the calling thread's namespace has taken note of a new wire.

use std::io;
use std::time::{Duration, Instant};

use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::InterfaceFlags;

/// How long a wire may take to carry anything.
const PATIENCE: Duration = Duration::from_secs(5);

/// Waits until an interface has a carrier, and everything that depends on it knows.
pub(super) fn until_running(name: &str) -> io::Result<()> {
    let is = |it: InterfaceAddress| it.interface_name == name && it.flags.contains(InterfaceFlags::IFF_RUNNING);
    until(|| Ok(getifaddrs()?.any(is)), || format!("{name} has no carrier"))
}

/// Waits until an interface has an IPv6 address that it may use, to search for neighbours from.
pub(super) fn until_usable(name: &str) -> io::Result<()> {
    // Address, number, length, scope, flags, name; IFA_F_TENTATIVE is 0x40.
    let is = |line: &str| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [_, _, _, _, flags, of] => of == name && u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & 0x40 == 0),
        _ => false,
    };
    let all = || std::fs::read_to_string("/proc/thread-self/net/if_inet6");
    until(|| Ok(all()?.lines().any(is)), || format!("{name} has no usable IPv6 address"))
}

fn until(mut is: impl FnMut() -> io::Result<bool>, problem: impl FnOnce() -> String) -> io::Result<()> {
    let begun = Instant::now();
    while !is()? {
        if begun.elapsed() > PATIENCE {
            return Err(io::Error::other(problem()));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
