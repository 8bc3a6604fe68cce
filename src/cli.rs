//! The command line's end: one task, one exit code.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;

use crate::config::{self, Task};
use crate::lab::addressing::Stack;
use crate::{agent, command, lab, logging};

/// The version, as `weft version` prints it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Does what the command line asks for. Every mistake ends with exit code 1 and a sentence on
/// standard error; `weft plan` keeps 2 for "something would change".
pub fn main() -> ExitCode {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    let args: Vec<String> = std::env::args_os().skip(1).map(text).collect();
    let env: BTreeMap<String, String> = std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect();
    match config::parse(&args, &env) {
        Ok(task) => dispatch(task),
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn dispatch(task: Task) -> ExitCode {
    match task {
        Task::Text(text) => print(&text),
        Task::Version => print(&format!("weft {VERSION}\n")),
        Task::Plan(config) => command::plan::run(&config),
        Task::Run(config) => {
            logging::init(config.log);
            for notice in &config.notices {
                tracing::info!("{notice}");
            }
            match agent::run(*config) {
                Ok(()) => ExitCode::SUCCESS,
                Err(problem) => {
                    complain(&format!("error: {problem}"));
                    ExitCode::FAILURE
                }
            }
        }
        Task::Cleanup(config) => command::cleanup::run(&config),
        Task::Lab(config) => lab::main(lab::Options {
            nodes: config.nodes,
            segments: config.segments,
            backend: config.backend.into(),
            stack: match (config.dual_stack, config.ipv6_only) {
                (true, _) => Stack::Dual,
                (false, true) => Stack::V6,
                (false, false) => Stack::V4,
            },
            hold: config.hold,
            json: config.json,
            logs: config.logs,
        }),
    }
}

/// Writes to standard output; a reader that has gone away is no failure of ours.
fn print(text: &str) -> ExitCode {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

fn complain(text: &str) {
    // Nobody is left to tell if standard error is closed.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
