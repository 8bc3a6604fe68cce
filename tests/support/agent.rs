//! The real binary, started in the calling thread's namespace, and what it says of itself over HTTP.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::Value;

use crate::http;

/// Log lines shown when a test fails.
const TAIL: usize = 60;

/// The binary: Cargo's, or a copy that a user without rights can reach (`tests/run nobody`).
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("WEFT_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_weft").into(), PathBuf::from)
}

/// A running agent. Dropping it kills it; so does the end of the test binary.
pub(crate) struct Agent {
    child: Child,
    http: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

/// Every sample of `/metrics` by its name with labels, as it stands in the text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics(BTreeMap<String, f64>);

impl Agent {
    /// Starts `weft run` with these arguments; it serves HTTP on this address.
    pub(crate) fn start(http: SocketAddr, arguments: &[String]) -> Self {
        let mut child = Command::new(binary())
            .arg("run")
            .args(arguments)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("to start weft");
        let log = Arc::new(Mutex::new(Vec::new()));
        collect(child.stdout.take().expect("a pipe"), &log);
        collect(child.stderr.take().expect("a pipe"), &log);
        Self { child, http, log }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().expect("a process id"))
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("to send a signal");
    }

    /// Ends it with SIGTERM, as the kubelet does, and waits.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.child.wait().expect("the end of weft")
    }

    /// Ends it with SIGKILL, and waits.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("to kill weft");
        self.child.wait().expect("the end of weft");
    }

    /// Stops it (SIGSTOP) while something happens, so that it sees only the outcome.
    pub(crate) fn paused<T>(&self, body: impl FnOnce() -> T) -> T {
        self.signal(Signal::SIGSTOP);
        let stopped = waitpid(self.pid(), Some(WaitPidFlag::WUNTRACED)).expect("to wait");
        assert!(matches!(stopped, WaitStatus::Stopped(..)), "{stopped:?}");
        let result = body();
        self.signal(Signal::SIGCONT);
        result
    }

    /// Holds one of its threads still, and nothing else of it, while something happens.
    pub(crate) fn holding<T>(&self, thread: &str, body: impl FnOnce() -> T) -> T {
        let id = self.thread(thread);
        ptrace::seize(id, ptrace::Options::empty()).expect("to trace it");
        ptrace::interrupt(id).expect("to stop it");
        let stopped = waitpid(id, Some(WaitPidFlag::__WALL)).expect("to wait");
        assert!(!matches!(stopped, WaitStatus::StillAlive), "{stopped:?}");
        let result = body();
        ptrace::detach(id, None).expect("to let it go");
        result
    }

    /// The number of one of its threads, in our own PID namespace: `/proc` may be that of another, in which we are too.
    fn thread(&self, name: &str) -> Pid {
        let field = |path: &std::path::Path, key: &str| {
            let status = std::fs::read_to_string(path.join("status")).unwrap_or_default();
            let value = status.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().last()?.parse().ok());
            value.unwrap_or(0)
        };
        let folders = |path: &std::path::Path| {
            let entries = std::fs::read_dir(path).into_iter().flatten();
            entries.filter_map(|entry| Some(entry.ok()?.path())).collect::<Vec<_>>()
        };
        let us = field("/proc/self".as_ref(), "Tgid:");
        let ours =
            |path: &std::path::PathBuf| field(path, "PPid:") == us && field(path, "NSpid:") == self.pid().as_raw();
        let agent = folders("/proc".as_ref()).into_iter().find(ours).expect("the agent in /proc");
        let named = |path: &std::path::PathBuf| {
            std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name)
        };
        let thread = folders(&agent.join("task")).into_iter().find(named).expect("a thread of that name");
        Pid::from_raw(field(&thread, "NSpid:"))
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().expect("to ask for its end").is_none()
    }

    /// The status code of `/readyz`; `None` before it listens.
    pub(crate) fn readyz(&self) -> Option<u16> {
        TcpStream::connect(self.http).ok().map(|_| http::get(self.http, "/readyz").status)
    }

    /// Waits until `/readyz` says 200.
    pub(crate) fn until_ready(&mut self) {
        let end = Instant::now() + Duration::from_secs(20);
        while self.readyz() != Some(200) {
            assert!(self.runs(), "weft has ended:\n{}", self.tail());
            assert!(Instant::now() < end, "weft is not ready after 20 s:\n{}", self.tail());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// `/state`.
    pub(crate) fn state(&self) -> Value {
        http::get(self.http, "/state").json()
    }

    /// `/metrics`.
    pub(crate) fn metrics(&self) -> Metrics {
        let answer = http::get(self.http, "/metrics");
        let text = String::from_utf8(answer.body).expect("text");
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Metrics(samples.filter_map(sample).collect())
    }

    /// The log so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().expect("the log").clone()
    }

    /// Its end.
    pub(crate) fn tail(&self) -> String {
        let log = self.log();
        log[log.len().saturating_sub(TAIL)..].join("\n")
    }
}

impl Metrics {
    /// The sum of the samples of a name whose labels include all of these.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |key: &str| {
            let (base, rest) = key.split_once('{').unwrap_or((key, ""));
            base == name && labels.iter().all(|(label, value)| rest.contains(&format!("{label}=\"{value}\"")))
        };
        self.0.iter().filter(|(key, _)| fits(key)).map(|(_, value)| value).sum()
    }

    /// The same of something that is counted.
    pub(crate) fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        // No count here comes near 2^53, where floating point loses its grip.
        format!("{:.0}", self.sum(name, labels)).parse().expect("a count")
    }

    /// Every sample that is greater than in an earlier scrape, and by how much.
    pub(crate) fn since(&self, earlier: &Self) -> BTreeMap<String, f64> {
        let grown = self.0.iter().map(|(key, value)| (key.clone(), value - earlier.0.get(key).unwrap_or(&0.0)));
        grown.filter(|(_, by)| *by > 0.0).collect()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the end of weft's log ---\n{}\n---", self.tail());
        }
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads lines on a thread that ends with the pipe.
fn collect(from: impl Read + Send + 'static, into: &Arc<Mutex<Vec<String>>>) {
    let into = Arc::clone(into);
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            into.lock().expect("the log").push(line);
        }
    });
}
