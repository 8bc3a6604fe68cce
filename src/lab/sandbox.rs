//! A place for the lab that leaves nothing behind.
//!
//! `weft lab` runs itself again as the first process of new user (unless it is root), process, mount and
//! network namespaces. When that process ends, however it ends, the kernel kills every process in there
//! and takes the interfaces, the files and the namespaces away. And it ends when the outer process does:
//! the kernel kills it then (`PR_SET_PDEATHSIG`).

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

/// How the inner process knows that it is the inner one (and what `ps` shows).
const INSIDE: &str = "weft-lab";

/// The same, if it is also in a user namespace that was made for it.
const INSIDE_AS_ROOT_OF_ITS_OWN: &str = "weft-lab-user";

/// The only directory that is the lab's own, and lives in memory.
pub(super) const DIRECTORY: &str = "/tmp";

/// Why there can be no sandbox: what was refused, and what an administrator can do.
#[derive(Debug)]
pub(super) struct Obstacle {
    step: &'static str,
    error: io::Error,
}

/// Whether this process is the inner one.
pub(super) fn is_inside() -> bool {
    is_first_and_called(INSIDE) || has_own_users()
}

/// Whether this process is the inner one, and in a user namespace that was made for it.
pub(super) fn has_own_users() -> bool {
    is_first_and_called(INSIDE_AS_ROOT_OF_ITS_OWN)
}

/// The name alone proves nothing: somebody may call the program so, and root would then mount over the
/// host's `/tmp`. The inner process is also the first of its process namespace.
fn is_first_and_called(name: &str) -> bool {
    std::process::id() == 1 && std::env::args_os().next().is_some_and(|own| own == name)
}

/// The outer process: makes the namespaces, runs itself in them, and waits. Call it while the process
/// has one thread; the kernel gives no user namespace to several.
pub(super) fn outside() -> Result<ExitCode, Obstacle> {
    let name = isolate()?;
    let refused = |error| Obstacle { step: "running itself again", error };
    let mut inner = Command::new("/proc/self/exe")
        .arg0(name)
        .args(std::env::args_os().skip(1))
        .stdin(Stdio::piped())
        .spawn()
        .map_err(refused)?;
    // The pipe stays open as long as this process lives: see `inside`.
    let _alive = inner.stdin.take();
    let status = inner.wait().map_err(refused)?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Leaves the namespaces of the host; the inner process's name.
fn isolate() -> Result<&'static str, Obstacle> {
    let spaces = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS;
    match unshare(spaces) {
        Ok(()) => return Ok(INSIDE),
        Err(Errno::EPERM) => {} // not root, or root of a container: try as root of our own
        Err(errno) => return Err(Obstacle { step: "unshare", error: errno.into() }),
    }
    let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
    unshare(spaces | CloneFlags::CLONE_NEWUSER)
        .map_err(|errno| Obstacle { step: "making a user namespace", error: errno.into() })?;
    for (file, text) in
        [("setgroups", "deny".to_owned()), ("uid_map", format!("0 {user} 1")), ("gid_map", format!("0 {group} 1"))]
    {
        let refused = |error| Obstacle { step: "mapping this user to root in the user namespace", error };
        fs::write(format!("/proc/self/{file}"), text).map_err(refused)?;
    }
    Ok(INSIDE_AS_ROOT_OF_ITS_OWN)
}

/// The inner process, first thing: dies with the outer one, and gets files of its own.
pub(super) fn inside() -> Result<(), Obstacle> {
    let step = |step| move |errno: Errno| Obstacle { step, error: errno.into() };
    set_pdeathsig(Signal::SIGKILL).map_err(step("asking to die with the parent"))?;
    // If the outer process died before that line, nobody will tell; but then the pipe has closed.
    let stdin = io::stdin();
    let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    if poll(&mut fds, PollTimeout::ZERO).map_err(step("poll"))? > 0 {
        return Err(Obstacle { step: "starting", error: io::Error::other("the outer process is gone") });
    }
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(step("making mounts private"))?;
    let nothing = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), DIRECTORY, Some("tmpfs"), nothing, Some("mode=0755")).map_err(step("mounting a tmpfs"))
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "weft lab needs namespaces of its own, and this host refuses them: {}: {}.",
            self.step, self.error
        )?;
        let mut known = false;
        for (file, refusing, remedy) in SWITCHES {
            let value = fs::read_to_string(format!("/proc/sys/{file}")).unwrap_or_default();
            if value.trim() == *refusing {
                known = true;
                let name = file.replace('/', ".");
                writeln!(f, "  {name} is {refusing}: `sudo sysctl {name}={remedy}` allows them until the next boot.")?;
            }
        }
        if !known {
            writeln!(f, "  In a container: give it the capability SYS_ADMIN and no seccomp or AppArmor profile")?;
            writeln!(f, "  (docker run --privileged). In a chroot: leave it.")?;
        }
        write!(f, "  Or run it as root: sudo weft lab. It touches nothing outside of its own namespaces.")
    }
}

/// Sysctls that forbid user namespaces, the value that does, and one that allows them.
const SWITCHES: &[(&str, &str, &str)] = &[
    // Debian's and Arch's kernels.
    ("kernel/unprivileged_userns_clone", "0", "1"),
    ("user/max_user_namespaces", "0", "15000"),
    // Ubuntu since 23.10: the namespace is made, but without any capability in it.
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
];
