//! The four socket options of the old packet filter (`include/uapi/linux/netfilter_ipv4/ip_tables.h`,
//! `netfilter_ipv6/ip6_tables.h`): the one file with `unsafe` in it
//! (docs/decisions/0008-flannels-rules.md).
//!
//! No library has them: they are read and written through options whose numbers mean something else below
//! the same level, one of them takes input in the buffer that it answers in, and one carries a pointer. So
//! the numbers are private to this file, and each function fills in the lengths and the pointer itself.
//! Nothing here looks at a rule.
#![allow(unsafe_code, reason = "getsockopt and setsockopt with options that no crate wraps")]

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::model::addr::Family;

/// XT_TABLE_MAXNAMELEN.
pub(super) const NAME: usize = 32;
/// `struct ipt_getinfo`, the same in both families.
pub(super) const INFO: usize = 84;
/// `struct ipt_get_entries` up to its entries, which are aligned to eight bytes.
const GET_HEAD: usize = 40;
/// `struct ipt_replace` up to its pointer, and with it.
pub(super) const REPLACE_HEAD: usize = 88;
/// `struct xt_counters_info` up to its counters.
const COUNTERS_HEAD: usize = 40;
/// `struct xt_counters`: packets and bytes.
pub(super) type Counters = [u64; 2];

// IPT_BASE_CTL and IP6T_BASE_CTL are both 64.
const GET_INFO: c_int = 64;
const GET_ENTRIES: c_int = 65;
const SET_REPLACE: c_int = 64;
const SET_ADD_COUNTERS: c_int = 65;

/// A socket to ask through. Any will do, so it takes CAP_NET_ADMIN and not CAP_NET_RAW.
pub(super) struct Options {
    socket: OwnedFd,
    level: c_int,
}

impl Options {
    pub(super) fn open(family: Family) -> io::Result<Self> {
        let (domain, level) = match family {
            Family::V4 => (AddressFamily::Inet, libc::SOL_IP),
            Family::V6 => (AddressFamily::Inet6, libc::SOL_IPV6),
        };
        Ok(Self { socket: socket(domain, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?, level })
    }

    /// IPT_SO_GET_INFO.
    pub(super) fn info(&self, table: &[u8; NAME]) -> Result<[u8; INFO], Errno> {
        let mut buffer = [0; INFO];
        buffer[..NAME].copy_from_slice(table);
        self.get(GET_INFO, &mut buffer)?;
        Ok(buffer)
    }

    /// IPT_SO_GET_ENTRIES: `size` bytes of entries; EAGAIN if the table has another size by now.
    pub(super) fn entries(&self, table: &[u8; NAME], size: u32) -> Result<Vec<u8>, Errno> {
        let length = usize::try_from(size).map_err(|_| Errno::EINVAL)?;
        let mut buffer = vec![0; GET_HEAD + length];
        buffer[..NAME].copy_from_slice(table);
        buffer[NAME..NAME + 4].copy_from_slice(&size.to_ne_bytes());
        self.get(GET_ENTRIES, &mut buffer)?;
        buffer.drain(..GET_HEAD);
        Ok(buffer)
    }

    /// IPT_SO_SET_REPLACE: `head` is `struct ipt_replace` up to `num_counters`, which is filled in here with
    /// the number of entries that the table has now; EAGAIN if it has another number. Returns their last
    /// counters.
    pub(super) fn replace(&self, head: &[u8; REPLACE_HEAD], entries: &[u8], old: u32) -> Result<Vec<Counters>, Errno> {
        /// Of a `*mut Counters` on the two architectures that weft is built for.
        const POINTER: usize = 8;
        const { assert!(size_of::<*mut Counters>() == POINTER, "struct ipt_replace of a 64-bit kernel") };
        let mut counters: Vec<Counters> = vec![[0; 2]; usize::try_from(old).map_err(|_| Errno::EINVAL)?];
        let mut request = Vec::with_capacity(REPLACE_HEAD + POINTER + entries.len());
        request.extend_from_slice(&head[..REPLACE_HEAD - 4]);
        request.extend_from_slice(&old.to_ne_bytes());
        request.extend_from_slice(&counters.as_mut_ptr().expose_provenance().to_ne_bytes());
        request.extend_from_slice(entries);
        // SAFETY: besides `request`, which it only reads, the kernel writes `old` times 16 bytes to the
        // pointer in it (`__do_replace` copies `num_counters` counters, and refuses with EAGAIN if the table
        // has another number of entries): the length of `counters`, which outlives the call and is not
        // otherwise used meanwhile.
        unsafe { self.set(SET_REPLACE, &request) }?;
        Ok(counters)
    }

    /// IPT_SO_SET_ADD_COUNTERS: adds to the counters of each entry in turn.
    pub(super) fn add_counters(&self, table: &[u8; NAME], counters: &[Counters]) -> Result<(), Errno> {
        let mut request = Vec::with_capacity(COUNTERS_HEAD + size_of_val(counters));
        request.extend_from_slice(table);
        request.extend_from_slice(&u32::try_from(counters.len()).map_err(|_| Errno::EINVAL)?.to_ne_bytes());
        request.resize(COUNTERS_HEAD, 0);
        request.extend(counters.as_flattened().iter().flat_map(|number| number.to_ne_bytes()));
        // SAFETY: this request carries no pointer; the kernel only reads `request`.
        unsafe { self.set(SET_ADD_COUNTERS, &request) }
    }

    fn get(&self, option: c_int, buffer: &mut [u8]) -> Result<(), Errno> {
        let mut length = libc::socklen_t::try_from(buffer.len()).map_err(|_| Errno::EINVAL)?;
        // SAFETY: the kernel reads and writes at most `length` bytes of `buffer`, which is that long, and
        // `length` itself; any bytes are a valid `[u8]`. Neither of the two GET options follows a pointer.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                self.level,
                option,
                buffer.as_mut_ptr().cast::<c_void>(),
                &raw mut length,
            )
        };
        Errno::result(result).map(drop)
    }

    /// # Safety
    /// A pointer in `request` must be to memory that the kernel may write as the option says.
    unsafe fn set(&self, option: c_int, request: &[u8]) -> Result<(), Errno> {
        let length = libc::socklen_t::try_from(request.len()).map_err(|_| Errno::EINVAL)?;
        // SAFETY: the kernel reads `length` bytes of `request`, which is that long; for what else it does with
        // them the caller answers.
        let result = unsafe {
            libc::setsockopt(self.socket.as_raw_fd(), self.level, option, request.as_ptr().cast::<c_void>(), length)
        };
        Errno::result(result).map(drop)
    }
}
