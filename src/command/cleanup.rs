//! `weft cleanup`: leave the node, or hand it over to flanneld. Without `--yes` it only says how.

use std::io::Write;
use std::process::ExitCode;

use crate::config::CleanupConfig;
use crate::kernel::Kernel;
use crate::kernel::netlink::Netlink;
use crate::model::op::{Ack, Op};
use crate::node::file;
use crate::reconcile::{Copy, Leave, leave};

/// Exit code when `--yes` was not given and something would be done.
pub const SOMETHING_TO_DO: u8 = 2;

/// Runs the command; prints each change as the iproute2 command that would do the same.
pub fn run(config: &CleanupConfig) -> ExitCode {
    match tried(config) {
        Ok(tried) => finish(config, &tried),
        Err(problem) => {
            say(&mut std::io::stderr(), &format!("error: {problem}"));
            ExitCode::FAILURE
        }
    }
}

fn tried(config: &CleanupConfig) -> Result<Vec<(Op, Ack)>, String> {
    let scope = config.overlay.scope(None);
    let how = if config.hand_over { Leave::HandOver } else { Leave::Remove };
    let mut kernel = Netlink::open().map_err(|error| format!("opening a netlink socket: {error}"))?;
    let tried = if config.yes {
        leave(&mut kernel, &scope, how)
    } else {
        let host = kernel.observe(&scope).map_err(|error| error.to_string())?;
        leave(&mut Copy::new(&host, &scope), &scope, how)
    };
    tried.map_err(|error| error.to_string())
}

fn finish(config: &CleanupConfig, tried: &[(Op, Ack)]) -> ExitCode {
    let mut out = std::io::stdout();
    let mut failed = false;
    for (op, ack) in tried {
        match ack {
            Ack::Done => say(&mut out, &op.to_string()),
            Ack::Refused(refusal) => {
                failed = true;
                say(&mut std::io::stderr(), &format!("error: {op}: {refusal}"));
            }
            Ack::Unknown(problem) => {
                failed = true;
                say(&mut std::io::stderr(), &format!("error: {op}: {problem}; run it again to see what is left"));
            }
        }
    }
    // Flanneld writes the file anew; while the node is handed over, pods still need the one that is there.
    let file = (!config.hand_over && config.subnet_file.exists()).then_some(&config.subnet_file);
    if let Some(path) = file {
        if config.yes
            && let Err(error) = file::remove(path)
        {
            failed = true;
            say(&mut std::io::stderr(), &format!("error: {}: {error}", path.display()));
        }
        say(&mut out, &format!("rm {}", path.display()));
    }
    if failed {
        ExitCode::FAILURE
    } else if config.yes || (tried.is_empty() && file.is_none()) {
        ExitCode::SUCCESS
    } else {
        say(&mut std::io::stderr(), "nothing was changed; add --yes to do this");
        ExitCode::from(SOMETHING_TO_DO)
    }
}

fn say(out: &mut impl Write, line: &str) {
    // A reader that has gone away is no failure of ours.
    let _ = writeln!(out, "{line}");
}
