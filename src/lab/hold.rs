//! After the tour: how to look inside, until somebody has seen enough.

use std::fs;
use std::io::{Read, Write};

use super::agent::STATUS_PORT;
use super::netns::Namespace;
use super::sandbox;
use super::stage::Stage;
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
    let pods: Vec<_> = stage.members.values().filter_map(|member| member.machine.pod.addresses.first()).collect();
    for (member, other) in stage.members.values().zip(pods.iter().cycle().skip(1)) {
        let (machine, network) = (&member.machine, enter(&member.machine.network));
        lines.push(format!("\n  {:12}  {network} ip route", format!("{}:", machine.name)));
        let tables = ["ip neighbour show nud permanent", "bridge fdb show dev flannel.1"];
        let tables = tables.iter().filter(|_| stage.backend() == Backend::Vxlan);
        for command in tables.chain(&["ip monitor"]) {
            lines.push(format!("                {network} {command}"));
        }
        lines.push(format!("                {network} curl -s http://127.0.0.1:{STATUS_PORT}/state"));
        lines.push(format!("  its pod:      {} ping {other}", enter(&machine.pod.network)));
    }
    lines.push("\nBreak something, and see `ip monitor` tell of its return.\n".to_owned());
    lines.join("\n")
}

/// This process's number outside of its process namespace: `/proc` is still the outer one.
fn outer_pid() -> Option<String> {
    Some(fs::read_link("/proc/self").ok()?.to_str()?.to_owned())
}
