//! kubectl, as an operator uses it.

use std::io::BufReader;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::server::{Server, lab, names, seen};

/// Runs kubectl with a home of its own; `None`, loudly, if it is not installed (an error in CI).
fn kubectl(url: &str, home: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("kubectl")
        .args(["--server", url, "--cache-dir"])
        .arg(home)
        .args(args)
        .env("HOME", home)
        .env_remove("KUBECONFIG")
        .output();
    match output {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "kubectl {args:?}: {text} {}", String::from_utf8_lossy(&output.stderr));
            Some(text)
        }
        Err(error) if std::env::var_os("CI").is_some_and(|ci| ci == "true") => panic!("kubectl: {error}"),
        Err(error) => {
            eprintln!("SKIPPED: kubectl cannot be run ({error})");
            None
        }
    }
}

#[test]
fn it_finds_a_server_it_knows() {
    let server = Server::with_nodes(2);
    let home = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| kubectl(&server.url(), home.path(), args);
    let Some(_version) = run(&["version"]) else { return };
    let patch = r#"{"status":{"conditions":[{"type":"Ready","status":"True"}],"addresses":[{"type":"InternalIP","address":"192.168.174.10"}]}}"#;
    run(&["patch", "node", "n0", "--subresource", "status", "-p", patch]);
    let wide = run(&["get", "nodes", "-o", "wide"]).unwrap();
    let first: Vec<&str> = wide.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!((first[0], first[1], first[2]), ("n0", "Ready", "<none>"), "{wide}");
    assert!(wide.contains("INTERNAL-IP") && wide.contains("192.168.174.10"), "{wide}");
    run(&["annotate", "node", "n0", "flannel.alpha.coreos.com/public-ip=192.168.174.10"]);
    run(&["label", "node", "n0", "zone=a"]);
    let yaml = run(&["get", "nodes", "-o", "yaml"]).unwrap();
    assert!(yaml.contains("flannel.alpha.coreos.com/public-ip: 192.168.174.10"), "{yaml}");
    let json: Value = serde_json::from_str(&run(&["get", "nodes", "-l", "zone=a", "-o", "json"]).unwrap()).unwrap();
    assert_eq!(names(&json), ["n0"]);
    std::fs::write(home.path().join("n.json"), r#"{"kind":"Node","apiVersion":"v1","metadata":{"name":"new"}}"#)
        .unwrap();
    run(&["create", "-f", home.path().join("n.json").to_str().unwrap()]);
    run(&["taint", "node", "new", "a=b:NoSchedule"]);
    run(&["cordon", "new"]);
    assert_eq!(server.get("/api/v1/nodes/new").json()["spec"]["unschedulable"], true);
    run(&["delete", "node", "new"]);
    assert_eq!(server.get("/api/v1/nodes/new").status, 404);
    let event = json!({ "kind": "Event", "apiVersion": "v1", "metadata": { "name": "n0.1", "namespace": "default" },
        "involvedObject": { "kind": "Node", "name": "n0", "uid": "n0" }, "reason": "Test", "message": "what happened",
        "type": "Warning", "source": { "component": "weft" }, "lastTimestamp": "2026-01-01T00:00:00Z", "count": 3 });
    assert_eq!(server.send("POST", "/api/v1/namespaces/default/events", &[], &event).status, 201);
    let about = run(&["describe", "node", "n0"]).unwrap();
    assert!(about.contains("what happened") && about.contains("weft"), "{about}");
    let events = run(&["get", "events", "-A"]).unwrap();
    assert!(events.contains("node/n0") && events.contains("what happened"), "{events}");
}

#[test]
fn it_is_told_that_this_is_the_lab() {
    let (server, _) = lab();
    let home = tempfile::tempdir().unwrap();
    let Some(version) = kubectl(&server.url(), home.path(), &["version"]) else { return };
    assert!(version.contains("weft-lab"), "{version}");
}

#[test]
fn it_watches() {
    let server = Server::with_nodes(1);
    let home = tempfile::tempdir().unwrap();
    if kubectl(&server.url(), home.path(), &["get", "nodes"]).is_none() {
        return;
    }
    let mut child = Command::new("kubectl")
        .args(["--server", &server.url(), "get", "nodes", "-w", "-o", "json", "--output-watch-events"])
        .env("HOME", home.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let mut events = serde_json::Deserializer::from_reader(stdout).into_iter::<Value>();
    assert_eq!(seen(&events.next().unwrap().unwrap()), ("ADDED", "n0"));
    // It watches from the list that it began with, so nothing is missed however late it comes.
    server.create("n1", "10.244.1.0/24");
    assert_eq!(seen(&events.next().unwrap().unwrap()), ("ADDED", "n1"));
    child.kill().unwrap();
    child.wait().unwrap();
}
