//! Pings from many network namespaces at once, for `tests/cluster/run`: `pinger RATE NAME=PID=ADDRESS...`
//!
//! Each flow is `RATE` pings a second from the namespace of a process to an address. One thread sends them all, and sends
//! the rest at the next moment when it was kept from running: it makes up for nothing. It says `started` once every
//! flow has been answered, runs until SIGTERM, and then prints for each flow and in all
//!
//!     NAME SENT LOST GAP RATE
//!
//! LOST has no answer within a second. GAP is the longest silence in milliseconds: from the first ping after an answer
//! until the next answer, by the kernel's clock at the socket, so that a pinger that does not get to run makes no gap.
//! RATE is what was reached, in pings a second and flow.

#![expect(clippy::print_stdout, reason = "its output")]

use std::collections::VecDeque;
use std::error::Error;
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use nix::sys::time::TimeSpec;
use weft::lab::netns::{Namespace, prepare};
use weft::lab::ping::{Answer, Echo, once};

/// How long the first ping of a flow may take: neighbours are resolved, on a machine that may be busy.
const FIRST: Duration = Duration::from_secs(30);

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(1);

fn main() -> Result<(), Box<dyn Error>> {
    let mut ends = SigSet::empty();
    ends.add(Signal::SIGTERM);
    ends.thread_block()?;
    let end = SignalFd::new(&ends)?;
    let mut arguments = std::env::args().skip(1);
    let rate: u32 = arguments.next().ok_or("usage: pinger RATE NAME=PID=ADDRESS...")?.parse()?;
    let mut flows = arguments.map(|text| Flow::parse(&text)).collect::<Result<Vec<_>, _>>()?;
    println!("started");
    let begun = Instant::now();
    ping(&mut flows, Duration::from_secs(1) / rate, &end)?;
    let took = begun.elapsed();
    collect(&mut flows);
    let mut total = Tally::default();
    for flow in &flows {
        show(&flow.name, flow.tally, took, 1);
        total.sent += flow.tally.sent;
        total.lost += flow.tally.lost;
        total.gap = total.gap.max(flow.tally.gap);
    }
    show("total", total, took, flows.len());
    Ok(())
}

/// Sends on every flow at each beat, until it is told to end.
fn ping(flows: &mut [Flow], interval: Duration, end: &SignalFd) -> Result<(), Box<dyn Error>> {
    let mut next = Instant::now();
    loop {
        let mut ends = [PollFd::new(end.as_fd(), PollFlags::POLLIN)];
        let pause = next.saturating_duration_since(Instant::now());
        if ppoll(&mut ends, Some(TimeSpec::from_duration(pause)), None)? > 0 {
            return Ok(());
        }
        for flow in &mut *flows {
            flow.hear();
            flow.ask();
        }
        next = (next + interval).max(Instant::now());
    }
}

/// Waits for the answers that are outstanding at the end.
fn collect(flows: &mut [Flow]) {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until && flows.iter().any(|flow| flow.pings.iter().any(|ping| !ping.answered)) {
        std::thread::sleep(Duration::from_millis(1));
        flows.iter_mut().for_each(Flow::hear);
    }
    flows.iter_mut().for_each(Flow::end);
}

fn show(name: &str, tally: Tally, took: Duration, flows: usize) {
    let Tally { sent, lost, gap } = tally;
    let per_second = sent * 1000 / flows / usize::try_from(took.as_millis()).unwrap_or(usize::MAX).max(1);
    println!("{name} {sent} {lost} {} {per_second}", gap.as_millis());
}

#[derive(Clone, Copy, Default)]
struct Tally {
    sent: usize,
    lost: usize,
    gap: Duration,
}

#[derive(Clone, Copy)]
struct Ping {
    asked: Instant,
    answered: bool,
}

struct Flow {
    name: String,
    echo: Echo,
    /// Those that may still be answered in time, and the number of the first of them.
    pings: VecDeque<Ping>,
    first: u32,
    /// When the first ping after the last answer was sent.
    since: Option<Instant>,
    tally: Tally,
}

impl Flow {
    fn parse(text: &str) -> Result<Self, Box<dyn Error>> {
        let mut parts = text.splitn(3, '=');
        let mut part = || parts.next().ok_or_else(|| format!("{text} is no NAME=PID=ADDRESS"));
        let (name, process, to): (_, _, IpAddr) = (part()?.to_owned(), part()?.to_owned(), part()?.parse()?);
        let from = of_process(&process)?;
        from.run(|| once(to, FIRST))??.ok_or_else(|| format!("{name} is not answered"))?;
        let echo = from.run(|| Echo::open(to))??;
        Ok(Self { name, echo, pings: VecDeque::new(), first: 0, since: None, tally: Tally::default() })
    }

    fn ask(&mut self) {
        let asked = Instant::now();
        let number = self.first.wrapping_add(u32::try_from(self.pings.len()).unwrap_or(0));
        // A ping that cannot even be sent is a lost one.
        let _ = self.echo.ask(number);
        self.tally.sent += 1;
        self.pings.push_back(Ping { asked, answered: false });
        self.since.get_or_insert(asked);
    }

    /// Takes the answers that have come, and gives up on what is too old by now.
    fn hear(&mut self) {
        let now = Instant::now();
        while let Some(answer) = self.echo.hear() {
            self.answered(answer);
        }
        while let Some(ping) = self.pings.front().filter(|ping| ping.answered || now - ping.asked > PATIENCE) {
            self.tally.lost += usize::from(!ping.answered);
            self.pings.pop_front();
            self.first = self.first.wrapping_add(1);
        }
    }

    fn answered(&mut self, Answer { number, arrived }: Answer) {
        let place = usize::try_from(number.wrapping_sub(self.first)).ok();
        if let Some(ping) = place.and_then(|place| self.pings.get_mut(place)) {
            ping.answered = arrived.saturating_duration_since(ping.asked) <= PATIENCE;
        }
        if let Some(since) = self.since {
            self.tally.gap = self.tally.gap.max(arrived.saturating_duration_since(since));
        }
        let next = self.pings.partition_point(|ping| ping.asked <= arrived);
        self.since = self.pings.get(next).map(|ping| ping.asked);
    }

    fn end(&mut self) {
        self.tally.lost += self.pings.iter().filter(|ping| !ping.answered).count();
        if let (Some(since), Some(last)) = (self.since, self.pings.back()) {
            self.tally.gap = self.tally.gap.max(last.asked - since);
        }
    }
}

/// The namespace of a process; whoever is in it may ping from now on.
fn of_process(process: &str) -> Result<Namespace, Box<dyn Error>> {
    let there = File::open(format!("/proc/{process}/ns/net"))?;
    let entered = std::thread::spawn(move || {
        setns(there, CloneFlags::CLONE_NEWNET)?;
        prepare()?;
        Namespace::current()
    });
    Ok(entered.join().map_err(|_| "the thread that enters a namespace panicked")??)
}
