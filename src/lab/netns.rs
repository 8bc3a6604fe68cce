//! Network namespaces without iproute2: made by threads, held by a file descriptor, entered by threads.
//!
//! Nothing of this has a name in the file system, so nothing can stay behind: a namespace goes with the
//! last descriptor, thread and process in it.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// Makes one, with loopback up, pings allowed and IPv6 ready without delay.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN in the user namespace.
    pub fn new() -> io::Result<Self> {
        let namespace = on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Self::current()
        })?;
        namespace.run(|| {
            prepare()?;
            super::link::Links::open()?.up("lo")
        })??;
        Ok(namespace)
    }

    /// That of the calling thread.
    ///
    /// # Errors
    /// If there is no `/proc`.
    pub fn current() -> io::Result<Self> {
        Ok(Self { file: File::open("/proc/thread-self/ns/net")? })
    }

    /// Runs something on a thread in this namespace. A process that it starts is in the namespace for
    /// good, and so is a socket that it opens; files of `/proc/sys/net` and `/proc/net` are this namespace's.
    ///
    /// # Errors
    /// If the thread cannot be made or cannot enter.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_a_thread(|| {
            setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        })
    }

    /// Another handle of the same namespace, for a thread that outlives this one.
    ///
    /// # Errors
    /// If the process has too many open files.
    pub fn again(&self) -> io::Result<Self> {
        Ok(Self { file: self.file.try_clone()? })
    }

    /// Moves the calling thread into it.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN in the user namespace that owns it.
    pub fn enter(&self) -> io::Result<()> {
        Ok(setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)?)
    }

    /// Its descriptor's number, for netlink.
    pub fn raw(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Lets the calling thread's namespace ping, and use IPv6 addresses at once: nobody else is there whose
/// duplicate one would have to wait for.
///
/// # Errors
/// If a sysctl cannot be written.
pub fn prepare() -> io::Result<()> {
    let group = nix::unistd::getegid();
    sysctl("net/ipv4/ping_group_range", &format!("{group} {group}"))?;
    for scope in ["all", "default"] {
        let file = format!("net/ipv6/conf/{scope}/accept_dad");
        // A kernel without IPv6 has no such file, and then there is nothing to wait for.
        if fs::exists(format!("/proc/sys/{file}"))? {
            sysctl(&file, "0")?;
        }
    }
    Ok(())
}

/// Writes a sysctl of the calling thread's network namespace.
///
/// # Errors
/// If it is not there or not ours to write.
pub fn sysctl(path: &str, value: &str) -> io::Result<()> {
    let path = format!("/proc/sys/{path}");
    fs::write(&path, value).map_err(|error| io::Error::new(error.kind(), format!("{path} = {value}: {error}")))
}

/// Runs something on a thread of its own, so that the caller's namespace stays what it is.
fn on_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
