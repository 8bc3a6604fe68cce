//! Pings from many network namespaces at once, for `tests/cluster/run`: `pinger RATE NAME=PID=ADDRESS...`
//!
//! Each flow is a stream from the namespace of a process to an address; all together make `RATE` pings a second.
//! It says `started` once every flow has been answered, runs until SIGTERM, and prints `NAME SENT LOST LONGEST-GAP-MS`
//! for each flow and in all. A ping counts as lost if its answer has not come when all is over: late ones are not lost.

#![expect(clippy::print_stdout, reason = "its output")]

use std::error::Error;
use std::fs::File;
use std::net::IpAddr;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, Signal};
use weft::lab::netns::{Namespace, prepare};
use weft::lab::ping::{Stream, Tally, once};

/// How long the first ping of a flow may take: neighbours are resolved, on a machine that may be busy.
const FIRST: Duration = Duration::from_secs(30);

/// How long an answer may take that is outstanding at the end.
const LAST: Duration = Duration::from_secs(5);

struct Flow {
    name: String,
    from: Namespace,
    to: IpAddr,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut ends = SigSet::empty();
    ends.add(Signal::SIGTERM);
    ends.thread_block()?;
    let mut arguments = std::env::args().skip(1);
    let rate: u32 = arguments.next().ok_or("usage: pinger RATE NAME=PID=ADDRESS...")?.parse()?;
    let flows = arguments.map(|text| flow(&text)).collect::<Result<Vec<_>, _>>()?;
    let interval = Duration::from_secs(1) * u32::try_from(flows.len())? / rate;
    for flow in &flows {
        flow.from.run(|| once(flow.to, FIRST))??.ok_or_else(|| format!("{} is not answered", flow.name))?;
    }
    let streams = flows
        .iter()
        .map(|flow| Ok((&flow.name, Stream::start(&flow.from, flow.to, interval)?)))
        .collect::<Result<Vec<_>, std::io::Error>>()?;
    println!("started");
    ends.wait()?;
    let mut total = Tally::default();
    for (name, stream) in streams {
        let tally = stream.stop_patiently(LAST);
        show(name, &tally);
        total.sent += tally.sent;
        total.lost += tally.lost;
        total.longest_gap = total.longest_gap.max(tally.longest_gap);
    }
    show("total", &total);
    Ok(())
}

fn flow(text: &str) -> Result<Flow, Box<dyn Error>> {
    let mut parts = text.splitn(3, '=');
    let mut part = || parts.next().ok_or_else(|| format!("{text} is no NAME=PID=ADDRESS"));
    let (name, process, to) = (part()?.to_owned(), part()?.to_owned(), part()?.parse()?);
    Ok(Flow { name, from: of_process(&process)?, to })
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

fn show(name: &str, tally: &Tally) {
    println!("{name} {} {} {}", tally.sent, tally.lost, tally.longest_gap.as_millis());
}
