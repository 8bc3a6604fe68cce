//! What a container runtime does with a CNI configuration, as libcni does it: picks the file, calls each plugin
//! with its part of the list, and hands on results.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use weft::lab::netns::Namespace;
use weft::node::cni::taken;

/// Where Debian and the CNI project put the plugins.
const PLACES: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];
/// The plugins that are called.
const NEEDED: [&str; 3] = ["bridge", "host-local", "portmap"];

/// A container runtime on one node: its network, its configuration, and its own `/var/lib/cni`.
pub(crate) struct Runtime<'a> {
    pub(crate) network: &'a Namespace,
    pub(crate) conf_dir: PathBuf,
    /// Stands in the place of `/var/lib`, where host-local keeps its leases.
    pub(crate) var_lib: PathBuf,
    pub(crate) plugins: PathBuf,
}

/// The plugins' directory; `None` if they are not installed, which is loud, and a failure in CI.
pub(crate) fn plugins() -> Option<PathBuf> {
    let found = PLACES.iter().map(Path::new).find(|place| NEEDED.iter().all(|name| place.join(name).exists()));
    if found.is_none() {
        eprintln!("\n*** SKIPPED: the CNI plugins are not installed (Debian: containernetworking-plugins) ***\n");
        assert!(std::env::var("CI").is_ok_and(|ci| ci == "true").then_some(()).is_none(), "CI allows no skips");
    }
    found.map(Path::to_owned)
}

impl Runtime<'_> {
    /// The configuration that is in force.
    pub(crate) fn conf(&self) -> Option<Value> {
        let names: Vec<String> = std::fs::read_dir(&self.conf_dir)
            .ok()?
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
            .collect();
        let name = taken(names.iter().map(String::as_str))?;
        let text = std::fs::read_to_string(self.conf_dir.join(name)).expect("to read");
        Some(serde_json::from_str(&text).expect("JSON, never half of it"))
    }

    /// Starts a pod: the result of the last plugin.
    pub(crate) fn add(&self, id: &str, pod: &Namespace, ports: &Value) -> Result<Value, String> {
        let conf = self.conf().ok_or("no network configuration")?;
        let mut result = None;
        for plugin in conf["plugins"].as_array().expect("a list") {
            let input = one(&conf, plugin, ports, result.as_ref());
            result = Some(serde_json::from_str(&self.call("ADD", id, pod, &input)?).expect("a result"));
        }
        result.ok_or_else(|| "an empty list".to_owned())
    }

    /// Ends a pod: the plugins in the other order. Below CNI 0.4 they are told no result.
    pub(crate) fn del(&self, id: &str, pod: &Namespace, ports: &Value) -> Result<(), String> {
        let conf = self.conf().ok_or("no network configuration")?;
        for plugin in conf["plugins"].as_array().expect("a list").iter().rev() {
            self.call("DEL", id, pod, &one(&conf, plugin, ports, None))?;
        }
        Ok(())
    }

    /// The addresses that host-local has given out.
    pub(crate) fn leases(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.var_lib.join("cni/networks/cbr0")) else { return Vec::new() };
        let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
        let mut leases: Vec<String> = names.filter(|name| name.parse::<std::net::IpAddr>().is_ok()).collect();
        leases.sort();
        leases
    }

    fn call(&self, command: &str, id: &str, pod: &Namespace, conf: &Value) -> Result<String, String> {
        let name = conf["type"].as_str().expect("a plugin's name");
        let netns = format!("/proc/{}/fd/{}", std::process::id(), pod.raw());
        let run = || {
            // This thread's mounts go with it.
            unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
            let none = None::<&str>;
            mount(Some(&self.var_lib), "/var/lib", none, MsFlags::MS_BIND, none).expect("a mount");
            // The plugins look for themselves in it, by the number that they have among the tests' processes.
            mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none).expect("/proc");
            let mut child = Command::new(self.plugins.join(name))
                .env_clear()
                .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
                .env("CNI_COMMAND", command)
                .env("CNI_CONTAINERID", id)
                .env("CNI_NETNS", netns)
                .env("CNI_IFNAME", "eth0")
                .env("CNI_PATH", &self.plugins)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("to start a plugin");
            child.stdin.take().expect("a pipe").write_all(conf.to_string().as_bytes()).expect("to write");
            child.wait_with_output().expect("its end")
        };
        let output = self.network.run(run).expect("a thread");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(format!("{command} {name}: {}{}", text(&output.stdout), text(&output.stderr)))
        }
    }
}

/// What one plugin of a list is called with.
fn one(list: &Value, plugin: &Value, ports: &Value, before: Option<&Value>) -> Value {
    let mut conf = plugin.clone();
    conf["name"] = list["name"].clone();
    conf["cniVersion"] = list["cniVersion"].clone();
    if plugin["capabilities"]["portMappings"] == true && !ports.is_null() {
        conf["runtimeConfig"] = json!({ "portMappings": ports });
    }
    if let Some(before) = before {
        conf["prevResult"] = before.clone();
    }
    conf
}
