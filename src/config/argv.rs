//! The command line and the environment, as flannel's users write them, to what clap reads.
//!
//! Go's `flag` package takes `-iface` for `--iface`; flanneld reads `FLANNELD_IFACE` where `--iface` is
//! not given; and a flannel DaemonSet has arguments that mean nothing to weft. All of that is turned
//! into plain long options here, and said in notices where something has no effect.

use std::collections::{BTreeMap, BTreeSet};

use clap::ArgAction;

/// Arguments that clap can read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Normal {
    /// Without the program's name.
    pub args: Vec<String>,
    /// What was accepted without effect: one sentence each.
    pub notices: Vec<String>,
}

/// Rewrites the arguments (without the program's name) and adds those that the environment gives.
///
/// # Errors
/// A sentence, if a flag of flannel's that has no effect is not even well-formed.
pub fn normalise(args: &[String], env: &BTreeMap<String, String>, cli: &clap::Command) -> Result<Normal, String> {
    let mut out = Normal::default();
    let mut args = args.iter().peekable();
    // flanneld has no subcommands: its arguments alone mean `run`.
    if args.peek().is_some_and(|first| first.starts_with('-') && !for_clap(first)) {
        out.args.push("run".to_owned());
    }
    let mut given = BTreeSet::new();
    while let Some(arg) = args.next() {
        let Some(flag) = long_flag(arg) else {
            out.args.push(if arg == "-version" { "--version".to_owned() } else { arg.clone() });
            if arg == "--" {
                out.args.extend(args.by_ref().cloned());
            }
            continue;
        };
        let (name, value) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
        given.insert(name.to_owned());
        if let Some(ignored) = IGNORED.iter().find(|ignored| ignored.name == name) {
            let value = match (value, ignored.takes_value) {
                (None, true) => Some(args.next().ok_or_else(|| format!("--{name} needs a value"))?.as_str()),
                (value, _) => value,
            };
            out.notices.push(ignored.notice(&format!("--{name}"), value)?);
        } else if value == Some("") || (value.is_none() && args.next_if(|next| next.is_empty()).is_some()) {
            // `--public-ip=` is how manifests write "not set".
        } else {
            out.args.push(format!("--{flag}"));
        }
    }
    let command = out.args.first().and_then(|name| cli.find_subcommand(name)).cloned();
    if let Some(command) = command {
        environment(&command, &given, env, &mut out)?;
        out.notices.extend(strays(cli, env));
    }
    Ok(out)
}

fn for_clap(arg: &str) -> bool {
    matches!(arg, "-h" | "--help" | "-V" | "--version" | "-version")
}

/// The name (and value) of `--name` or of Go's `-name`, and of klog's `-v`.
fn long_flag(arg: &str) -> Option<&str> {
    let flag = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-'))?;
    let is_name = flag.starts_with(|c: char| c.is_ascii_alphabetic()) && !for_clap(arg);
    let short = !arg.starts_with("--") && flag.split('=').next().is_some_and(|name| name.len() == 1 && name != "v");
    (is_name && !short).then_some(flag)
}

/// Adds an option for each variable that stands for one that was not given: `WEFT_` first, then the
/// names that Kubernetes manifests use, then flannel's.
fn environment(
    command: &clap::Command,
    given: &BTreeSet<String>,
    env: &BTreeMap<String, String>,
    out: &mut Normal,
) -> Result<(), String> {
    let variable = |prefix: &str, name: &str| {
        let value = env.get(&variable_name(prefix, name))?;
        // The kubelet sets WEFT_HEALTHZ_PORT=tcp://… in every pod beside a Service named weft-healthz.
        (!value.is_empty() && !value.starts_with("tcp://") && !value.starts_with("udp://")).then_some(value)
    };
    let run = command.get_name() == "run";
    let with_value =
        command.get_arguments().filter(|arg| matches!(arg.get_action(), ArgAction::Set | ArgAction::Append));
    for name in with_value.filter_map(|arg| arg.get_long()).filter(|name| !given.contains(*name)) {
        let value = variable("WEFT_", name)
            .or_else(|| if name == "node-name" { variable("", name) } else { None })
            .or_else(|| if run { variable("FLANNELD_", name) } else { None });
        out.args.extend(value.map(|value| format!("--{name}={value}")));
    }
    for ignored in IGNORED.iter().filter(|ignored| run && !given.contains(ignored.name)) {
        if let Some(value) = variable("FLANNELD_", ignored.name) {
            out.notices.push(ignored.notice(&variable_name("FLANNELD_", ignored.name), Some(value))?);
        }
    }
    let set = VARIABLES.iter().filter(|(name, _)| run && env.get(*name).is_some_and(|value| !value.is_empty()));
    out.notices.extend(set.map(|(name, why)| format!("{name} has no effect: {why}")));
    Ok(())
}

fn variable_name(prefix: &str, flag: &str) -> String {
    format!("{prefix}{}", flag.to_uppercase().replace('-', "_"))
}

/// Variables that look like ours and are not: a slip of the pen, unless the kubelet made them from a
/// Service whose name begins with `weft`.
fn strays(cli: &clap::Command, env: &BTreeMap<String, String>) -> Vec<String> {
    let flags = || cli.get_subcommands().flat_map(clap::Command::get_arguments).filter_map(clap::Arg::get_long);
    let known: BTreeSet<String> = flags().map(|flag| variable_name("WEFT_", flag)).collect();
    let ours = env.keys().filter(|name| name.starts_with("WEFT_") && !known.contains(*name));
    let strays = ours.filter(|name| !name.contains("_SERVICE_") && !name.contains("_PORT"));
    strays.map(|name| format!("{name} is set, but weft has no flag of that name; it is ignored")).collect()
}

/// A flag of flannel's that is accepted and does nothing.
struct Ignored {
    name: &'static str,
    takes_value: bool,
    why: &'static str,
}

impl Ignored {
    /// What to tell the operator. A boolean must at least be one.
    fn notice(&self, name: &str, value: Option<&str>) -> Result<String, String> {
        // strconv.ParseBool
        const GO_BOOLEANS: [&str; 12] =
            ["1", "t", "T", "true", "TRUE", "True", "0", "f", "F", "false", "FALSE", "False"];
        match value {
            Some(value) if !self.takes_value && !GO_BOOLEANS.contains(&value) => {
                Err(format!("{name} is {value:?}; allowed is true or false"))
            }
            _ => Ok(format!("{name} has no effect: {}", self.why)),
        }
    }
}

const fn switch(name: &'static str, why: &'static str) -> Ignored {
    Ignored { name, takes_value: false, why }
}

const fn option(name: &'static str, why: &'static str) -> Ignored {
    Ignored { name, takes_value: true, why }
}

const ALWAYS: &str = "weft always reads nodes from the Kubernetes API";
const FORWARD: &str =
    "no table of weft's own can accept what another table drops; see `forwarding` in docs/operating.md";
const ETCD: &str = "weft reads nodes from the Kubernetes API, not from etcd";
const KLOG: &str = "use --log-level and --log-format";

/// Variables of flannel's manifest that are no flag's, and why they have no effect.
const VARIABLES: [(&str, &str); 2] = [
    ("EVENT_QUEUE_DEPTH", "weft queues no events: it always compares with the latest state"),
    ("CONT_WHEN_CACHE_NOT_READY", "weft waits for the API server for as long as it takes, and goes on meanwhile"),
];

/// flanneld's other flags, of its releases up to v0.28. docs/flannel-compatibility.md lists them.
const IGNORED: &[Ignored] = &[
    switch("kube-subnet-mgr", ALWAYS),
    switch("ip-masq-random-fully", "weft masquerades with random ports unless --ip-masq-fully-random-disable is given"),
    option("iptables-resync", "weft hears at once when its packet filter is changed"),
    switch("iptables-forward-rules", FORWARD),
    switch("ip-blackhole-route", "this version of weft makes no blackhole route for its own pod CIDR"),
    option("subnet-lease-renew-margin", ETCD),
    option("etcd-endpoints", ETCD),
    option("etcd-prefix", ETCD),
    option("etcd-keyfile", ETCD),
    option("etcd-certfile", ETCD),
    option("etcd-cafile", ETCD),
    option("etcd-username", ETCD),
    option("etcd-password", ETCD),
    option("v", KLOG),
    option("vmodule", KLOG),
    option("log_backtrace_at", KLOG),
    switch("logtostderr", KLOG),
    switch("alsologtostderr", KLOG),
    option("stderrthreshold", KLOG),
    option("log_dir", KLOG),
];

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::config::flags::Argv;

    fn normal(args: &[&str], env: &[(&str, &str)]) -> Result<Normal, String> {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        let env = env.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        normalise(&args, &env, &Argv::command())
    }

    fn args(given: &[&str], env: &[(&str, &str)]) -> Vec<String> {
        normal(given, env).expect("arguments").args
    }

    #[test]
    fn gos_single_dash_becomes_two() {
        assert_eq!(
            args(&["run", "-iface=eth0", "-public-ip", "192.0.2.1"], &[]),
            ["run", "--iface=eth0", "--public-ip", "192.0.2.1"]
        );
        assert_eq!(args(&["plan", "--nodes", "-"], &[]), ["plan", "--nodes", "-"]);
        assert_eq!(args(&["-h"], &[]), ["-h"]);
        assert_eq!(args(&["-version"], &[]), ["--version"]);
    }

    #[test]
    fn the_arguments_of_flannels_daemonset_start_weft_with_notices() {
        let normal =
            normal(&["--ip-masq", "--kube-subnet-mgr", "--healthz-port=8081", "-v", "4"], &[]).expect("arguments");
        assert_eq!(normal.args, ["run", "--ip-masq", "--healthz-port=8081"]);
        assert_eq!(
            normal.notices,
            [
                "--kube-subnet-mgr has no effect: weft always reads nodes from the Kubernetes API",
                "--v has no effect: use --log-level and --log-format",
            ]
        );
    }

    #[test]
    fn the_command_line_wins_over_the_environment_and_weft_over_flannel() {
        let env = [
            ("WEFT_SUBNET_FILE", "/w"),
            ("FLANNELD_SUBNET_FILE", "/f"),
            ("FLANNELD_IFACE", "eth1"),
            ("NODE_NAME", "n1"),
            ("WEFT_HEALTHZ_PORT", ""),
        ];
        assert_eq!(args(&["run"], &env), ["run", "--node-name=n1", "--iface=eth1", "--subnet-file=/w"]);
        let given = ["run", "--subnet-file=/c", "--iface", "eth0", "--node-name=n2"];
        assert_eq!(args(&given, &env), given);
        assert_eq!(args(&["lab"], &env), ["lab"]);
    }

    #[test]
    fn a_misspelt_variable_is_said_and_a_services_is_not_taken_for_a_flag() {
        let env = [
            ("WEFT_IFCE", "eth0"),
            ("WEFT_SERVICE_HOST", "10.0.0.7"),
            ("WEFT_PORT_8081_TCP", "tcp://10.0.0.7:8081"),
            ("WEFT_HEALTHZ_PORT", "tcp://10.0.0.8:8081"),
        ];
        let normal = normal(&["run"], &env).expect("arguments");
        assert_eq!(normal.args, ["run"]);
        assert_eq!(normal.notices, ["WEFT_IFCE is set, but weft has no flag of that name; it is ignored"]);
    }

    #[test]
    fn an_empty_value_is_a_flag_that_was_not_given() {
        assert_eq!(args(&["run", "--public-ip="], &[]), ["run"]);
        assert_eq!(args(&["run", "--public-ip", "", "--iface=eth0"], &[]), ["run", "--iface=eth0"]);
    }

    #[test]
    fn a_malformed_flag_without_effect_is_still_refused() {
        assert_eq!(
            normal(&["run", "--kube-subnet-mgr=maybe"], &[]),
            Err("--kube-subnet-mgr is \"maybe\"; allowed is true or false".to_owned())
        );
        assert_eq!(normal(&["run", "--etcd-prefix"], &[]), Err("--etcd-prefix needs a value".to_owned()));
        assert_eq!(
            normal(&["run"], &[("FLANNELD_KUBE_SUBNET_MGR", "maybe")]),
            Err("FLANNELD_KUBE_SUBNET_MGR is \"maybe\"; allowed is true or false".to_owned())
        );
    }

    #[test]
    fn the_variables_of_flannels_manifest_are_said_too() {
        let env = [
            ("POD_NAME", "kube-flannel-ds-x"),
            ("POD_NAMESPACE", "kube-flannel"),
            ("EVENT_QUEUE_DEPTH", "5000"),
            ("CONT_WHEN_CACHE_NOT_READY", "false"),
        ];
        let names = |normal: Normal| -> Vec<String> {
            normal
                .notices
                .iter()
                .filter_map(|notice| Some(notice.split_once(" has no effect: ")?.0.to_owned()))
                .collect()
        };
        let given = normal(&["run"], &env).expect("arguments");
        assert_eq!(names(given), ["EVENT_QUEUE_DEPTH", "CONT_WHEN_CACHE_NOT_READY"]);
        assert!(names(normal(&["cleanup"], &env).expect("arguments")).is_empty());
    }

    #[test]
    fn what_has_no_effect_is_in_one_table_of_the_documentation() {
        let text = include_str!("../../docs/flannel-compatibility.md");
        let (_, table) = text.split_once("## Flags and variables\n").expect("the section");
        let (table, _) = table.split_once("\n## ").expect("its end");
        let cells = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" | "));
        let mut documented: Vec<String> = Vec::new();
        for (names, _) in cells {
            documented.extend(format!("`{names}").split('`').skip(1).step_by(2).map(str::to_owned));
        }
        let dashes = |name: &str| if name.len() == 1 { format!("-{name}") } else { format!("--{name}") };
        let mut known: Vec<String> = IGNORED.iter().map(|ignored| dashes(ignored.name)).collect();
        known.extend(VARIABLES.map(|(name, _)| name.to_owned()));
        documented.sort();
        known.sort();
        assert_eq!(documented, known);
    }

    #[test]
    fn no_flag_is_both_ignored_and_known() {
        let cli = Argv::command();
        for command in cli.get_subcommands() {
            for name in command.get_arguments().filter_map(clap::Arg::get_long) {
                assert!(IGNORED.iter().all(|ignored| ignored.name != name), "{name}");
            }
        }
    }
}
