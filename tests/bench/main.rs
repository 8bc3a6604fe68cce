//! What weft costs, beside what the kernel makes anybody pay. `cargo bench --bench bench -- --help`;
//! `docs/performance.md` tells what was found.
//!
//! Everything happens in network namespaces of the benchmark's own; the host's interfaces are not touched.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a benchmark fails by panicking")]
#![allow(clippy::print_stdout, reason = "a benchmark prints what it measured")]

mod calm;
mod cluster;
mod filter;
mod forms;
#[path = "../support/http.rs"]
#[allow(dead_code, reason = "shared by several test binaries")]
mod http;
mod kubelet;
mod limits;
mod machine;
mod memory;
mod nexthop;
mod plot;
mod program;
mod raw;
mod samples;
#[path = "../support/sandbox.rs"]
#[allow(dead_code, reason = "shared by several test binaries")]
mod sandbox;
mod still;
mod table;
mod waiting;
mod ways;
mod witness;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

/// Measures weft's passes over a real kernel.
#[derive(Debug, Parser)]
struct Options {
    /// Small and few: shows that the benchmark works, not how fast anything is.
    #[arg(long)]
    quick: bool,
    /// Measurements of each thing.
    #[arg(long)]
    runs: Option<usize>,
    /// Numbers of peers, with commas between them.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<u32>,
    /// Numbers of routes at which their forms are compared; flannel's takes two minutes at 50,000.
    #[arg(long, value_delimiter = ',')]
    forms: Vec<u32>,
    /// Parts to run, with commas between them: program, still, ways, forms, waiting, memory, filter.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Ends with an error if a promise is not kept.
    #[arg(long)]
    check: bool,
    /// Writes what was measured to this file as JSON too.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Draws the plot of docs/performance.md into this file.
    #[arg(long)]
    svg: Option<PathBuf>,
    /// What cargo says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What to measure, and how often.
pub(crate) struct Run {
    pub(crate) runs: usize,
    pub(crate) sizes: Vec<u32>,
    /// At which the forms of routes are compared.
    pub(crate) form_sizes: Vec<u32>,
    /// Programmed while somebody else waits.
    pub(crate) wait_size: u32,
    /// Nodes that a whole agent is weighed among.
    pub(crate) nodes: u32,
    /// Before its memory is looked at.
    pub(crate) rest: Duration,
    /// How long its CPU time at rest is looked at.
    pub(crate) idle: Duration,
}

impl Run {
    fn new(options: &Options) -> Self {
        let usual = if options.quick {
            Self {
                runs: 2,
                sizes: vec![100, 300],
                form_sizes: vec![300],
                wait_size: 300,
                nodes: 100,
                rest: Duration::from_millis(100),
                idle: Duration::from_millis(200),
            }
        } else {
            let form_sizes = vec![1000, 5000, 20_000];
            Self {
                runs: 7,
                sizes: vec![100, 1000, 5000, 10_000],
                form_sizes,
                wait_size: 10_000,
                nodes: 5000,
                rest: Duration::from_secs(2),
                idle: Duration::from_secs(20),
            }
        };
        let or = |asked: &Vec<u32>, usual| if asked.is_empty() { usual } else { asked.clone() };
        Self {
            runs: options.runs.unwrap_or(usual.runs).max(1),
            sizes: or(&options.peers, usual.sizes),
            form_sizes: or(&options.forms, usual.form_sizes),
            wait_size: usual.wait_size,
            nodes: usual.nodes,
            rest: usual.rest,
            idle: usual.idle,
        }
    }

    pub(crate) fn progress(&self, what: &str) {
        eprintln!("{what} ({} runs) …", self.runs);
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Err(obstacle) = sandbox::enter() {
        eprintln!("the benchmark needs {obstacle}");
        return ExitCode::FAILURE;
    }
    calm::first();
    let machine = calm::machine();
    let run = Run::new(&options);
    let wanted = |part: &str| options.only.is_empty() || options.only.iter().any(|only| only == part);
    let mut tables = Vec::new();
    let programmed = if wanted("program") { program::run(&run) } else { Vec::new() };
    if !programmed.is_empty() {
        tables.extend(program::tables(&programmed));
    }
    if let (Some(path), Some(svg)) = (&options.svg, plot::svg(&programmed)) {
        std::fs::write(path, svg).expect("to write the SVG file");
    }
    let still = if wanted("still") { still::run(&run) } else { Vec::new() };
    if !still.is_empty() {
        tables.push(still::table(&still));
    }
    let direct = if wanted("ways") { ways::run(&run) } else { Vec::new() };
    if !direct.is_empty() {
        tables.push(ways::table(&direct));
    }
    if wanted("forms") {
        tables.push(forms::table(&forms::run(&run)));
    }
    if wanted("waiting") {
        tables.push(waiting::table(&waiting::run(&run)));
    }
    let weighed = if wanted("memory") { memory::run(&run) } else { Vec::new() };
    if !weighed.is_empty() {
        tables.push(memory::table(&weighed));
    }
    let filtered = if wanted("filter") { filter::run(&run) } else { Vec::new() };
    if !filtered.is_empty() {
        tables.push(filter::table(&filtered));
    }
    let (promises, kept) = limits::table(&programmed, &still, &direct, &weighed, &filtered);
    tables.push(promises);
    println!("{machine}");
    for table in &tables {
        println!("{}", table.markdown());
    }
    if let Some(path) = &options.json {
        let all: Vec<_> = tables.iter().map(table::Table::json).collect();
        let all = serde_json::json!({ "machine": machine, "tables": all });
        std::fs::write(path, serde_json::to_string_pretty(&all).expect("JSON")).expect("to write the JSON file");
    }
    if options.check && !kept { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
