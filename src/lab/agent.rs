//! Agents as processes: this program itself, as production runs it, started in a machine's namespace.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::Mutex;

use super::topology::Machine;

/// Where each agent serves `/healthz`, `/metrics` and `/state`, in its own machine.
pub const STATUS_PORT: u16 = 8090;

/// How long an agent may take to end.
const FAREWELL: Duration = Duration::from_secs(5);

/// Lines of its log that are kept.
const KEPT: usize = 400;

/// What an agent is started with.
#[derive(Clone, Debug)]
pub struct Start<'a> {
    /// The program: weft itself.
    pub program: &'a Path,
    /// `--kube-api-url`.
    pub api_url: &'a str,
    /// A directory with `net-conf.json` in it; each agent's `subnet.env` goes there too.
    pub directory: &'a Path,
    /// Whether its log is copied to standard error as it comes.
    pub show_log: bool,
}

/// A running agent. It is killed when this is dropped.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    log: Arc<Mutex<VecDeque<String>>>,
}

impl Agent {
    /// Starts one on a machine.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub fn start(machine: &Machine, start: &Start<'_>) -> io::Result<Self> {
        let mut command = Command::new(start.program);
        command.arg("run").args(["--node-name", &machine.name, "--kube-api-url", start.api_url]);
        command.arg("--net-config-path").arg(start.directory.join("net-conf.json"));
        command.arg("--subnet-file").arg(start.directory.join(&machine.name).join("subnet.env"));
        command.args(["--healthz-ip", "127.0.0.1", "--healthz-port", &STATUS_PORT.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // Only what the lab says counts: no settings from the surroundings, no proxy.
        command.env_clear();
        let mut child = machine.network.run(|| command.spawn())??;
        let log = Arc::default();
        if let Some(stderr) = child.stderr.take() {
            let (log, name, show) = (Arc::clone(&log), machine.name.clone(), start.show_log);
            thread::Builder::new().spawn(move || keep(BufReader::new(stderr), &name, &log, show))?;
        }
        Ok(Self { child, log })
    }

    /// Its process id, as the calling process sees it.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended, and how.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// If it is gone.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = i32::try_from(self.child.id()).map_err(io::Error::other)?;
        Ok(kill(Pid::from_raw(pid), signal)?)
    }

    /// Asks it to end, as kubelet does, and waits; kills it if it takes longer than five seconds, which
    /// is an error.
    ///
    /// # Errors
    /// If it had to be killed.
    pub fn stop(mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        let asked = Instant::now();
        while asked.elapsed() < FAREWELL {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(1));
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "the agent did not end on SIGTERM"))
    }

    /// The last lines of its log.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().iter().cloned().collect()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Keeps a log's last lines until the process ends.
fn keep(log: impl BufRead, name: &str, kept: &Mutex<VecDeque<String>>, show: bool) {
    for line in log.lines().map_while(Result::ok) {
        if show {
            // Nobody is left to tell if standard error is closed.
            let _ = writeln!(io::stderr().lock(), "[{name}] {line}");
        }
        let mut kept = kept.lock();
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(line);
    }
}
