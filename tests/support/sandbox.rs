//! A kernel to break: every test in a network namespace of its own, as root or as nobody in particular.
//!
//! A test binary of this kind has `harness = false` and calls [`main`] from its own `main`, before there
//! is any other thread: only a process with one thread may make a user namespace. Each test then runs on
//! a thread with a network namespace of its own, which goes with the thread, also after `kill -9`.
//! One whose tests start programs calls [`contained`] instead.

use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use libtest_mimic::{Arguments, Failed, Trial};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce};
use nix::sys::socket::{MsgFlags, recv, setsockopt};

/// A test: its name, and what it does.
pub(crate) type Test = (&'static str, fn());

/// The names and functions of a module's tests.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        /// Every test of this module.
        pub(crate) fn all() -> Vec<$crate::sandbox::Test> {
            vec![$((concat!(module_path!(), "::", stringify!($name)), $name as fn())),*]
        }
    };
}

/// Runs the tests, or says loudly why it cannot; with `CI=true` that is a failure.
pub(crate) fn main(tests: Vec<Test>) -> ExitCode {
    let arguments = Arguments::from_args();
    let obstacle = if arguments.list { None } else { enter().err() };
    run(&arguments, tests, obstacle.as_deref())
}

fn run(arguments: &Arguments, tests: Vec<Test>, obstacle: Option<&str>) -> ExitCode {
    if let Some(obstacle) = obstacle {
        eprintln!("\n*** SKIPPED: tests on a real kernel need {obstacle} ***\n");
        if std::env::var("CI").is_ok_and(|ci| ci == "true") {
            return ExitCode::FAILURE;
        }
    }
    let trials = tests.into_iter().map(|(name, body)| {
        let name = name.split_once("::").map_or(name, |(_, name)| name);
        Trial::test(name, move || outcome(body)).with_ignored_flag(obstacle.is_some())
    });
    libtest_mimic::run(arguments, trials.collect()).exit_code()
}

/// How the inner process of [`contained`] knows that it is the inner one (and what `ps` shows).
const INSIDE: &str = "weft-tests";
/// A directory that is the tests' own, in memory, inside [`contained`].
pub(crate) const DIRECTORY: &str = "/run";

/// Like [`main`], for tests that start programs and write files: the binary runs itself again as the first
/// process of new process and mount namespaces. When it ends, however it ends, the kernel kills everything
/// that it started; and it ends when the outer one does. `at_end` runs after the last test.
pub(crate) fn contained(tests: Vec<Test>, at_end: fn()) -> ExitCode {
    let arguments = Arguments::from_args();
    if arguments.list {
        return run(&arguments, tests, None);
    }
    let outcome = if std::env::args_os().next().is_some_and(|name| name == INSIDE) {
        inside().and_then(|()| enter()).map(|()| None)
    } else {
        enter().and_then(|()| outside()).map(Some)
    };
    match outcome {
        Ok(Some(code)) => code,
        Ok(None) => {
            let code = run(&arguments, tests, None);
            at_end();
            code
        }
        Err(obstacle) => run(&arguments, tests, Some(&obstacle)),
    }
}

/// The outer process: runs itself again, and waits.
fn outside() -> Result<ExitCode, String> {
    unshare(CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS)
        .map_err(|errno| format!("process and mount namespaces, which this host refuses ({errno})"))?;
    let mut inner = Command::new("/proc/self/exe")
        .arg0(INSIDE)
        .args(std::env::args_os().skip(1))
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|error| format!("to run itself again ({error})"))?;
    // The pipe stays open as long as this process lives: see `inside`.
    let _alive = inner.stdin.take();
    let status = inner.wait().expect("the end of a child");
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// The inner process, first thing: dies with the outer one, and gets files of its own.
fn inside() -> Result<(), String> {
    let refused = |what: &'static str| move |errno: nix::errno::Errno| format!("to {what} ({errno})");
    set_pdeathsig(Signal::SIGKILL).map_err(refused("die with its parent"))?;
    // If the outer process died before that line, nobody will tell; but then the pipe has closed.
    let stdin = std::io::stdin();
    let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    if poll(&mut fds, PollTimeout::ZERO).map_err(refused("poll"))? > 0 {
        return Err("an outer process that lives".to_owned());
    }
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(refused("make mounts private"))?;
    // Programs keep state in both; the CNI plugins their leases in the second.
    for directory in [DIRECTORY, "/var/lib"] {
        mount(Some("tmpfs"), directory, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=0755"))
            .map_err(refused("mount a tmpfs"))?;
    }
    Ok(())
}

/// Gets the right to make network namespaces. Call it while the process has one thread.
///
/// # Errors
/// What is missing, as the end of a sentence.
pub(crate) fn enter() -> Result<(), String> {
    for tool in ["ip", "bridge"] {
        Command::new(tool).arg("-V").output().map_err(|_| format!("iproute2's `{tool}`"))?;
    }
    if std::thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET)).join().expect("a thread").is_ok() {
        return Ok(());
    }
    let (user, group) = (nix::unistd::getuid(), nix::unistd::getgid());
    let write = |file: &str, text: String| {
        std::fs::write(format!("/proc/self/{file}"), text).map_err(|error| format!("to write {file} ({error})"))
    };
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)
        .map_err(|errno| format!("user namespaces, which this host refuses ({errno})"))?;
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("0 {user} 1"))?;
    write("gid_map", format!("0 {group} 1"))
}

fn outcome(body: fn()) -> Result<(), Failed> {
    isolated(body).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default().into()
    })
}

/// Runs something on a thread with a network namespace of its own, loopback up.
pub(crate) fn isolated<T: Send>(body: impl FnOnce() -> T + Send) -> std::thread::Result<T> {
    untouched(|| {
        sh("ip link set lo up");
        body()
    })
}

/// Runs something on a thread with a network namespace of its own in which nothing was ever done.
pub(crate) fn untouched<T: Send>(body: impl FnOnce() -> T + Send) -> std::thread::Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
            body()
        });
        thread.join()
    })
}

/// Runs a command line (no quoting: words are split at blanks) in the thread's namespace.
pub(crate) fn try_sh(line: &str) -> Result<String, String> {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().expect("a command")).args(words).output().expect("to start a command");
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

/// Runs commands, one a line, and fails the test at the first that fails.
pub(crate) fn sh(lines: &str) {
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Err(error) = try_sh(line) {
            panic!("`{line}`: {error}");
        }
    }
}

/// What `ip -j …` or `bridge -j …` prints.
pub(crate) fn json(line: &str) -> Vec<serde_json::Value> {
    let text = try_sh(line).unwrap_or_else(|error| panic!("`{line}`: {error}"));
    if text.trim().is_empty() { Vec::new() } else { serde_json::from_str(&text).expect("JSON") }
}

/// The files of a batch for `ip -batch` or `bridge -batch`.
pub(crate) fn batch(tool: &str, commands: &str) {
    use std::io::Write as _;
    let mut words = tool.split_whitespace();
    let mut child = Command::new(words.next().expect("a command"))
        .args(words.chain(["-batch", "-"]))
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("to start a command");
    child.stdin.take().expect("a pipe").write_all(commands.as_bytes()).expect("to write the commands");
    assert!(child.wait().expect("an end").success(), "{tool} -batch");
}

/// Makes an underlay interface (one end of a veth pair, both up) with these addresses, and waits until the
/// kernel has no more to say about it: the carrier is announced late, and a link-local address would be too.
pub(crate) fn underlay(name: &str, addresses: &[&str]) {
    sh(&format!(
        "ip link add {name} type veth peer name {name}-far
         ip link set {name} addrgenmode none
         ip link set {name}-far addrgenmode none
         ip link set {name} up
         ip link set {name}-far up"
    ));
    for end in [name, &format!("{name}-far")] {
        eventually("the carrier", || json(&format!("ip -j link show {end}"))[0]["operstate"] == "UP");
    }
    for address in addresses {
        let nodad = if address.contains(':') { "nodad" } else { "" };
        sh(&format!("ip address add {address} dev {name} {nodad}"));
    }
}

/// Waits until a condition holds; fails the test if it takes longer than ten seconds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("not within ten seconds: {what}");
}

/// Hears every change in the namespace, independently of the code under test: a socket of its own that
/// subscribes when it is made and queues from then on, decoded by `netlink-packet-route`.
pub(crate) struct Listener {
    socket: Socket,
}

/// A notification: what it says (`new route`, `del fdb` …) and of what (destination, address, MAC, name).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Event(pub(crate) &'static str, pub(crate) String);

impl Listener {
    /// Listens from now on.
    pub(crate) fn start() -> Self {
        let mut socket = Socket::new(NETLINK_ROUTE).expect("a socket");
        let room = 64 << 20;
        if setsockopt(&socket, RcvBufForce, &room).is_err() {
            setsockopt(&socket, RcvBuf, &room).expect("a receive buffer");
        }
        socket.bind_auto().expect("an address");
        for group in [
            libc::RTNLGRP_LINK,
            libc::RTNLGRP_NEIGH,
            libc::RTNLGRP_IPV4_IFADDR,
            libc::RTNLGRP_IPV6_IFADDR,
            libc::RTNLGRP_IPV4_ROUTE,
            libc::RTNLGRP_IPV6_ROUTE,
        ] {
            socket.add_membership(group).expect("a group");
        }
        Self { socket }
    }

    /// Waits for a notification and for the end of the burst that it belongs to; whether one came. What
    /// was heard is forgotten.
    pub(crate) fn wait(&self, time: std::time::Duration) -> bool {
        let ready = |milliseconds: u16| {
            let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::from(milliseconds)).expect("poll") > 0
        };
        let came = ready(u16::try_from(time.as_millis()).expect("a short time"));
        let mut buffer = [0; 64];
        while ready(1) {
            // An overrun is as good as a notification.
            while !matches!(
                recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT),
                Err(nix::errno::Errno::EAGAIN)
            ) {}
        }
        came
    }

    /// What was heard since the start or the last call.
    ///
    /// # Panics
    /// If any was lost.
    pub(crate) fn heard(&self) -> Vec<Event> {
        let mut heard = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => heard.extend(event(&buffer[..length])),
                Err(nix::errno::Errno::EAGAIN) => return heard,
                Err(errno) => panic!("listening: {errno}"),
            }
        }
    }
}

fn event(message: &[u8]) -> Option<Event> {
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message).expect("a notification");
    let NetlinkPayload::InnerMessage(message) = message.payload else { return None };
    Some(match message {
        RouteNetlinkMessage::NewLink(link) => Event("new link", name(&link)),
        RouteNetlinkMessage::DelLink(link) => Event("del link", name(&link)),
        RouteNetlinkMessage::NewAddress(address) => Event("new address", local(&address)),
        RouteNetlinkMessage::DelAddress(address) => Event("del address", local(&address)),
        RouteNetlinkMessage::NewRoute(route) => Event("new route", destination(&route)),
        RouteNetlinkMessage::DelRoute(route) => Event("del route", destination(&route)),
        RouteNetlinkMessage::NewNeighbour(row) if is_fdb(&row) => Event("new fdb", mac(&row)),
        RouteNetlinkMessage::DelNeighbour(row) if is_fdb(&row) => Event("del fdb", mac(&row)),
        RouteNetlinkMessage::NewNeighbour(row) => Event("new neighbour", address(&row)),
        RouteNetlinkMessage::DelNeighbour(row) => Event("del neighbour", address(&row)),
        _ => return None,
    })
}

fn name(link: &LinkMessage) -> String {
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    });
    name.unwrap_or_default()
}

fn local(message: &AddressMessage) -> String {
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(ip) => Some(ip.to_string()),
        _ => None,
    });
    address.unwrap_or_default()
}

fn destination(route: &RouteMessage) -> String {
    let dst = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(ip.to_string()),
        RouteAttribute::Destination(RouteAddress::Inet6(ip)) => Some(ip.to_string()),
        _ => None,
    });
    format!("{}/{}", dst.unwrap_or_else(|| "default".to_owned()), route.header.destination_prefix_length)
}

fn is_fdb(row: &NeighbourMessage) -> bool {
    row.header.family == AddressFamily::Bridge
}

fn mac(row: &NeighbourMessage) -> String {
    let mac = row.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(mac) => Some(mac.clone()),
        _ => None,
    });
    mac.unwrap_or_default().iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

fn address(row: &NeighbourMessage) -> String {
    let ip = row.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(ip.to_string()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some(ip.to_string()),
        _ => None,
    });
    ip.unwrap_or_default()
}
