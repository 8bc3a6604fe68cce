//! After the tour: how to look inside, until somebody has seen enough.

use std::fs;
use std::io::{Read, Write};

use super::agent::STATUS_PORT;
use super::netns::Namespace;
use super::sandbox;
use super::stage::{Member, Stage};
use crate::model::addr::Family;
use crate::model::settings::Backend;

/// Prints how to look inside, and waits for the end of the outer process.
pub(super) fn hold(stage: &Stage) {
    let mut out = std::io::stdout().lock();
    // Nobody is left to read if standard output is closed.
    let _ = out.write_all(guide(stage).as_bytes());
    let _ = out.flush();
    drop(out);
    // The outer process never writes; it holds the other end, and Ctrl-C ends it, and so this.
    let _ = std::io::stdin().read(&mut [0]);
}

fn guide(stage: &Stage) -> String {
    let Some(pid) = outer_pid() else { return "(no /proc: no way in)\n".to_owned() };
    let user = if sandbox::has_own_users() { " -U --preserve-credentials" } else { "" };
    let enter = |namespace: &Namespace| format!("nsenter -t {pid}{user} --net=/proc/{pid}/fd/{}", namespace.raw());
    let url = stage.server.url();
    let mut lines = vec![
        "It stays up until you press Ctrl-C. From another terminal:".to_owned(),
        format!(
            "\n  the cluster:  nsenter -t {pid}{user} -n kubectl --kubeconfig /dev/null --server {url} get nodes -o yaml"
        ),
    ];
    let commands = looks(stage);
    let others = stage.members.values().cycle().skip(1);
    for (Member { machine, .. }, other) in stage.members.values().zip(others) {
        let commands = commands.iter().map(|command| format!("{} {command}", enter(&machine.network)));
        let pings = other.machine.pod.addresses.iter().map(|to| format!("{} ping {to}", enter(&machine.pod.network)));
        lines.push(String::new());
        lines.extend(below(&format!("{}:", machine.name), commands));
        lines.extend(below("its pod:", pings));
    }
    lines.push("\nBreak something, and see `ip monitor` tell of its return.\n".to_owned());
    lines.join("\n")
}

/// Commands, with a word before the first.
fn below(word: &str, commands: impl Iterator<Item = String>) -> impl Iterator<Item = String> {
    let words = std::iter::once(word).chain(std::iter::repeat(""));
    words.zip(commands).map(|(word, command)| format!("  {word:14}{command}"))
}

/// What shows a machine's tables and its agent.
fn looks(stage: &Stage) -> Vec<String> {
    let [four, six] = Family::BOTH.map(|family| stage.underlay.addressing().stack.has(family));
    let vxlan = stage.backend() == Backend::Vxlan;
    let looks = [
        (four, "ip route"),
        (six, "ip -6 route"),
        (vxlan, "ip neighbour show nud permanent"),
        (vxlan && four, "bridge fdb show dev flannel.1"),
        (vxlan && six, "bridge fdb show dev flannel-v6.1"),
        (true, "ip monitor"),
    ];
    let looks = looks.into_iter().filter(|(there, _)| *there).map(|(_, command)| command.to_owned());
    looks.chain([format!("curl -s http://127.0.0.1:{STATUS_PORT}/state")]).collect()
}

/// This process's number outside of its process namespace: `/proc` is still the outer one.
fn outer_pid() -> Option<String> {
    Some(fs::read_link("/proc/self").ok()?.to_str()?.to_owned())
}
