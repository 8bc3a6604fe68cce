//! `weft plan` on a real kernel: what it prints is what would be done, and nothing is done.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use crate::agent::binary;
use crate::sandbox::{Listener, sh, try_sh, underlay};

crate::tests![
    what_it_prints_can_be_pasted_and_then_it_prints_nothing,
    packet_rules_can_be_pasted_too,
    it_changes_nothing_itself,
    nodes_that_get_nothing_are_listed_with_the_reason,
    what_is_missing_is_an_error,
];

const ANNOTATION: &str = "flannel.alpha.coreos.com";

/// A Node as `kubectl get node -o json` has it; `mac` empty is what a Windows node says while it starts.
fn node(name: &str, n: u8, mac: &str) -> serde_json::Value {
    serde_json::json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "uid": format!("uid-{n}"),
            "creationTimestamp": format!("2024-01-01T00:00:{n:02}Z"),
            "annotations": {
                format!("{ANNOTATION}/kube-subnet-manager"): "true",
                format!("{ANNOTATION}/backend-type"): "vxlan",
                format!("{ANNOTATION}/backend-data"): format!(r#"{{"VNI":1,"VtepMAC":"{mac}"}}"#),
                format!("{ANNOTATION}/public-ip"): format!("192.168.7.{n}"),
            },
        },
        "spec": { "podCIDR": format!("10.244.{n}.0/24"), "podCIDRs": [format!("10.244.{n}.0/24")] },
    })
}

fn list(nodes: &[serde_json::Value]) -> String {
    serde_json::json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": nodes})
        .to_string()
}

fn good() -> String {
    list(&[node("a", 1, "3a:1f:00:00:00:01"), node("b", 2, "3a:1f:00:00:00:02"), node("c", 3, "3a:1f:00:00:00:03")])
}

/// Runs it as node `a`, with the list on standard input.
fn plan(nodes: &str, more: &[&str]) -> Output {
    let mut conf = tempfile::NamedTempFile::new().expect("a file");
    conf.write_all(br#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}"#).expect("written");
    let mut command = Command::new(binary());
    command.env_clear();
    command
        .args(["plan", "--nodes=-", "--node-name=a", "--iface=eth0", "--net-config-path"])
        .arg(conf.path())
        .args(more);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("to start weft");
    // It may refuse its flags before it has read anything.
    let _ = child.stdin.take().expect("a pipe").write_all(nodes.as_bytes());
    child.wait_with_output().expect("an end")
}

fn printed(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn commands(output: &Output) -> Vec<String> {
    let text = printed(output);
    let commands = text.lines().map(|line| line.split('#').next().expect("a part").trim().to_owned());
    commands.filter(|command| !command.is_empty()).collect()
}

fn what_it_prints_can_be_pasted_and_then_it_prints_nothing() {
    underlay("eth0", &["192.168.7.1/24"]);
    let output = plan(&good(), &[]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let pasted = commands(&output);
    assert_eq!(pasted.len(), 4 + 2 * 3, "{pasted:?}");
    sh(&pasted.join("\n"));
    let output = plan(&good(), &[]);
    assert_eq!((output.status.code(), printed(&output).as_str()), (Some(0), "# nothing would change\n"));
    sh("ip neigh del 10.244.3.0 dev flannel.1");
    let output = plan(&good(), &[]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        printed(&output),
        "ip neigh replace 10.244.3.0 lladdr 3a:1f:00:00:00:03 dev flannel.1 nud permanent  # c\n"
    );
}

/// The output as it is, remarks and all, to a shell: weft's own packet rules are made, and flannel's taken away.
fn packet_rules_can_be_pasted_too() {
    underlay("eth0", &["192.168.7.1/24"]);
    sh("iptables-nft -t nat -N FLANNEL-POSTRTG");
    let jump =
        ["-t", "nat", "-A", "POSTROUTING", "-m", "comment", "--comment", "flanneld masq", "-j", "FLANNEL-POSTRTG"];
    assert!(Command::new("iptables-nft").args(jump).status().expect("iptables").success());
    let more = ["--ip-masq", "--vtep-filter=enforce"];
    let output = plan(&good(), &more);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let text = printed(&output);
    assert!(text.contains("-X FLANNEL-POSTRTG  # flannel's\n"), "{text}");
    let mut shell = Command::new("sh").arg("-e").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a shell");
    shell.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("to paste");
    let pasted = shell.wait_with_output().expect("an end");
    assert!(pasted.status.success(), "{}\n{text}", String::from_utf8_lossy(&pasted.stderr));
    let output = plan(&good(), &more);
    assert_eq!((output.status.code(), printed(&output).as_str()), (Some(0), "# nothing would change\n"));
}

fn it_changes_nothing_itself() {
    underlay("eth0", &["192.168.7.1/24"]);
    let listener = Listener::start();
    assert_eq!(plan(&good(), &[]).status.code(), Some(2));
    assert_eq!(listener.heard(), []);
    assert!(try_sh("ip link show flannel.1").is_err());
}

fn nodes_that_get_nothing_are_listed_with_the_reason() {
    underlay("eth0", &["192.168.7.1/24"]);
    let nodes = [
        node("a", 1, "3a:1f:00:00:00:01"),
        node("b", 2, "3a:1f:00:00:00:02"),
        node("c", 3, ""),
        node("d", 4, "3a:1f:00:00:00:02"),
    ];
    let text = printed(&plan(&list(&nodes), &[]));
    let remarks: Vec<&str> = text.lines().filter(|line| line.starts_with('#')).collect();
    assert_eq!(remarks.len(), 2, "{text}");
    assert!(remarks[0].starts_with("# ipv4 c cannot be used: annotation backend-data is "), "{text}");
    assert_eq!(remarks[1], "# ipv4 d is refused: VTEP MAC 3a:1f:00:00:00:02 belongs to the older node b");
}

fn what_is_missing_is_an_error() {
    underlay("eth0", &["192.168.7.1/24"]);
    let refused = |nodes: &str, more: &[&str], beginning: &str| {
        let output = plan(nodes, more);
        let text = String::from_utf8_lossy(&output.stderr).into_owned() + &printed(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.starts_with(beginning), "{text}");
    };
    refused("", &[], "error: --nodes -: not whole JSON");
    refused("{}", &[], "error: --nodes -: a list without items");
    refused(&list(&[]), &[], "error: --nodes -: none of its 0 Nodes is called \"a\"");
    refused(&good(), &["--node-name=z"], "error: the argument '--node-name <NAME>' cannot be used multiple times");
    sh("ip address del 192.168.7.1/24 dev eth0");
    refused(&good(), &[], "# no underlay interface for ipv4: looked for --iface=eth0");
}
