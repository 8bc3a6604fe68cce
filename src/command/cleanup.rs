//! `weft cleanup`: leave the node, or hand it over to flanneld. Without `--yes` it only says how.

use std::fmt::Display;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use nix::sys::signal::{SigSet, Signal};

use crate::config::CleanupConfig;
use crate::kernel::netlink::Netlink;
use crate::kernel::nft::{Names, Nft};
use crate::kernel::{Kernel, flannel, legacy};
use crate::model::addr::Family;
use crate::model::leftover::{Chain, Leftover, Seen};
use crate::model::nft::{NftChange, OUR_TABLE, TableName};
use crate::model::op::{Ack, Op};
use crate::node::{cni, file};
use crate::reconcile::{Copy, Leave, leave};

/// Exit code when `--yes` was not given and something would be done.
pub const SOMETHING_TO_DO: u8 = 2;

/// Runs the command; prints each change as the command that would do the same.
pub fn run(config: &CleanupConfig) -> ExitCode {
    let ends = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    if config.then_wait {
        // From now on: whoever ends it meanwhile ends it when the work is done. As a container's first process it would
        // not even hear of them otherwise. It cannot fail with signals that exist (sigprocmask(2)).
        let _ = ends.thread_block();
    }
    let mut steps = Steps { yes: config.yes, some: false, failed: false };
    let flannels = if config.hand_over || config.flannel_rules { flannels(&mut steps) } else { Vec::new() };
    // Flanneld brings its own of each. Until it has, pods need the ones that are there.
    let cni = config.cni_conf_dir.join(cni::FILE_NAME);
    if is_our_cni_conf(&cni) && (!config.hand_over || has_another_cni_conf(&config.cni_conf_dir)) {
        steps.remove_file(&cni);
    }
    tables(config, &mut steps);
    for family in Family::BOTH {
        if !config.hand_over || flannels.iter().any(|seen| masquerades(seen, family)) {
            our_rules(family, &mut steps);
        }
    }
    if !config.hand_over && config.subnet_file.exists() {
        steps.remove_file(&config.subnet_file);
    }
    if config.flannel_rules {
        for Seen { what, .. } in flannels {
            let remove = || flannel::remove(what, Path::new(legacy::LOCK)).map_err(|trouble| trouble.to_string());
            steps.step(&what, || remove().map(drop));
        }
    }
    if config.then_wait && !steps.failed {
        say(&mut std::io::stderr(), "done; waiting for SIGTERM");
        let _ = ends.wait();
    }
    steps.end()
}

/// What has been said and done.
struct Steps {
    yes: bool,
    some: bool,
    failed: bool,
}

impl Steps {
    /// Says what is done, and with `--yes` does it.
    fn step(&mut self, what: &dyn Display, act: impl FnOnce() -> Result<(), String>) {
        self.some = true;
        match if self.yes { act() } else { Ok(()) } {
            Ok(()) => say(&mut std::io::stdout(), &what.to_string()),
            Err(problem) => self.fail(&format!("{what}: {problem}")),
        }
    }

    fn fail(&mut self, problem: &str) {
        self.failed = true;
        say(&mut std::io::stderr(), &format!("error: {problem}"));
    }

    fn remove_file(&mut self, path: &Path) {
        let remove = || file::remove(path).map(drop).map_err(|error| error.to_string());
        self.step(&format_args!("rm {}", path.display()), remove);
    }

    fn end(self) -> ExitCode {
        if self.failed {
            ExitCode::FAILURE
        } else if self.yes || !self.some {
            ExitCode::SUCCESS
        } else {
            say(&mut std::io::stderr(), "nothing was changed; add --yes to do this");
            ExitCode::from(SOMETHING_TO_DO)
        }
    }
}

/// The devices with their tables, and routes on other interfaces.
fn tables(config: &CleanupConfig, steps: &mut Steps) {
    match tried(config) {
        Err(problem) => steps.fail(&problem),
        Ok(tried) => {
            for (op, ack) in tried {
                // Without --yes they were tried on a copy.
                let outcome = match ack {
                    Ack::Done => Ok(()),
                    Ack::Refused(refusal) => Err(refusal.to_string()),
                    Ack::Unknown(problem) => Err(format!("{problem}; run it again to see what is left")),
                };
                match outcome {
                    Ok(()) => steps.step(&op, || Ok(())),
                    Err(problem) => steps.fail(&format!("{op}: {problem}")),
                }
            }
        }
    }
}

fn tried(config: &CleanupConfig) -> Result<Vec<(Op, Ack)>, String> {
    let (how, scope) = if config.hand_over {
        (Leave::HandOver, config.overlay.scope(None))
    } else {
        (Leave::Remove, config.overlay.scope_of_all())
    };
    let mut kernel = Netlink::open().map_err(|error| format!("opening a netlink socket: {error}"))?;
    let tried = if config.yes {
        leave(&mut kernel, &scope, how)
    } else {
        let host = kernel.observe(&scope).map_err(|error| error.to_string())?;
        leave(&mut Copy::new(&host, &scope), &scope, how)
    };
    tried.map_err(|error| error.to_string())
}

/// The table of weft's own packet rules.
fn our_rules(family: Family, steps: &mut Steps) {
    // Without a socket this kernel has no nf_tables, and so no rules in it.
    let Ok(mut nft) = Nft::open() else { return };
    let table = TableName::new(family, OUR_TABLE);
    match nft.look(&table, Names { chains: &[], sets: &[] }) {
        Err(error) => steps.fail(&error.to_string()),
        Ok(None) => {}
        Ok(Some(_)) => {
            let delete = NftChange::DeleteTable(table);
            steps.step(&format_args!("nft {delete}"), || match nft.commit(std::slice::from_ref(&delete), None) {
                Ack::Done => Ok(()),
                Ack::Refused(refusal) => Err(refusal.to_string()),
                Ack::Unknown(problem) => Err(problem),
            });
        }
    }
}

/// Flannel's packet rules.
fn flannels(steps: &mut Steps) -> Vec<Seen> {
    let (seen, unread) = flannel::find_all();
    unread.iter().for_each(|(_, trouble)| steps.fail(&format!("looking for flannel's packet rules: {trouble}")));
    seen
}

/// Whether flanneld masquerades the packets of this family.
fn masquerades(seen: &Seen, family: Family) -> bool {
    let does = match seen.what {
        Leftover::Table(_) => true,
        Leftover::Chain(_, _, chain) => chain == Chain::Masquerade && seen.jumps > 0,
    };
    does && seen.what.family() == family
}

fn is_our_cni_conf(path: &Path) -> bool {
    std::fs::read(path).is_ok_and(|held| cni::is_ours(&String::from_utf8_lossy(&held)))
}

fn has_another_cni_conf(dir: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(dir) else { return false };
    let names = entries.map_while(Result::ok).map(|entry| entry.file_name().to_string_lossy().into_owned());
    let names: Vec<String> = names.filter(|name| name != cni::FILE_NAME).collect();
    cni::taken(names.iter().map(String::as_str)).is_some()
}

fn say(out: &mut impl Write, line: &str) {
    // A reader that has gone away is no failure of ours.
    let _ = writeln!(out, "{line}");
}
