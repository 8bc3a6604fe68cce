//! After the tour: how to look inside, until somebody has seen enough.

use std::fs;
use std::io::{Read, Write};

use super::agent::STATUS_PORT;
use super::netns::Namespace;
use super::stage::Stage;

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
    let user = if in_user_namespace() { " -U --preserve-credentials" } else { "" };
    let enter = |namespace: &Namespace| format!("nsenter -t {pid}{user} --net=/proc/{pid}/fd/{}", namespace.raw());
    let mut text = String::from("It stays up until you press Ctrl-C. From another terminal:\n\n");
    text += &format!(
        "  the cluster:  nsenter -t {pid}{user} -n kubectl --server {} get nodes -o yaml\n",
        stage.server.url()
    );
    for member in stage.members.values() {
        let (machine, network) = (&member.machine, enter(&member.machine.network));
        text += &format!("\n  {}:       {network} ip route\n", machine.name);
        for command in ["ip neighbour show nud permanent", "bridge fdb show dev flannel.1", "ip monitor"] {
            text += &format!("                {network} {command}\n");
        }
        text += &format!("                {network} curl -s http://127.0.0.1:{STATUS_PORT}/state\n");
        text += &format!("  its pod:      {} ping 10.244.1.2\n", enter(&machine.pod.network));
    }
    text + "\nBreak something, and see `ip monitor` tell of its return.\n"
}

/// This process's number outside of its process namespace: `/proc` is still the outer one.
fn outer_pid() -> Option<String> {
    Some(fs::read_link("/proc/self").ok()?.to_str()?.to_owned())
}

fn in_user_namespace() -> bool {
    // The first user namespace maps everything onto itself.
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().ne(["0", "0", "4294967295"])
}
