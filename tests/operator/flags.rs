//! The binary's command line: what it takes, and what it says of a mistake.

use std::path::PathBuf;
use std::process::{Command, Output};

use clap::CommandFactory;
use weft::config::flags::Argv;

fn fixture(name: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/fixtures/net-conf", name].iter().collect();
    path.display().to_string()
}

fn weft(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    command.args(args).env_clear().output().expect("the binary runs")
}

/// The first line on standard error, and the exit code.
fn refusal(args: &[&str]) -> (String, Option<i32>) {
    let output = weft(args);
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    (text.lines().next().unwrap_or_default().to_owned(), output.status.code())
}

#[test]
fn a_mistake_is_refused_with_a_sentence_that_names_it() {
    let kubeadm = fixture("kubeadm.json");
    let run = |flag: &'static str| vec!["run", "--node-name=a", "--net-config-path", &kubeadm, flag];
    for (args, sentence) in [
        (
            vec!["run", "--net-config-path", &kubeadm],
            "error: --node-name is missing: give it, or set NODE_NAME (in a pod: from the field spec.nodeName, by the \
             downward API)",
        ),
        (
            vec!["run", "--node-name=Worker"],
            "error: invalid value 'Worker' for '--node-name <NAME>': a Node's name has lower-case letters, digits, '-' \
             and '.', and at most 253 of them",
        ),
        (
            run("--healthz-port=http"),
            "error: invalid value 'http' for '--healthz-port <PORT>': invalid digit found in string",
        ),
        (
            run("--healthz-port=70000"),
            "error: invalid value '70000' for '--healthz-port <PORT>': 70000 is not in 0..=65535",
        ),
        (
            run("--public-ip=fd00::1"),
            "error: invalid value 'fd00::1' for '--public-ip <IP>': a unicast IPv4 address is expected",
        ),
        (
            run("-public-ipv6=10.0.0.1"),
            "error: invalid value '10.0.0.1' for '--public-ipv6 <IP>': a unicast IPv6 address is expected",
        ),
        (
            run("--resync-period=2h"),
            "error: invalid value '2h' for '--resync-period <TIME>': a time from 1s to 1h is expected, such as 60s or 2m",
        ),
        (
            run("--kube-annotation-prefix=Flannel"),
            "error: invalid value 'Flannel' for '--kube-annotation-prefix <PREFIX>': annotation prefix \"Flannel\" is not \
             of the form domain.name or domain.name/text (lower case letters, digits, '.', '-', '_'; the domain with a \
             dot; at most one slash)",
        ),
        (
            run("--kube-api-url=10.0.0.1"),
            "error: invalid value '10.0.0.1' for '--kube-api-url <URL>': an address such as https://10.0.0.1:6443 is \
             expected",
        ),
        (run("--ifce=eth0"), "error: unexpected argument '--ifce' found"),
        (run("--ip-masq=maybe"), "error: invalid value 'maybe' for '--ip-masq[=<BOOL>]': allowed is true or false"),
        (
            vec!["run", "--node-name=a", "--net-config-path=/does/not/exist"],
            "error: --net-config-path /does/not/exist: No such file or directory (os error 2); it is flannel's \
             net-conf.json, usually mounted from the ConfigMap kube-flannel-cfg",
        ),
        (vec!["fly"], "error: unrecognized subcommand 'fly'"),
    ] {
        assert_eq!(refusal(&args), (sentence.to_owned(), Some(1)), "{args:?}");
    }
}

#[test]
fn a_wrong_regex_is_explained() {
    let (sentence, code) = refusal(&["run", "--node-name=a", "--iface-regex=("]);
    assert!(
        sentence.starts_with("error: invalid value '(' for '--iface-regex <REGEX>': not a regular expression: "),
        "{sentence}"
    );
    assert_eq!(code, Some(1));
}

#[test]
fn a_wrong_file_is_named_with_the_setting() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "VNI": 16777216}}"#)
        .expect("written");
    let path = file.path().display().to_string();
    let (sentence, code) = refusal(&["run", "--node-name=a", "--net-config-path", &path]);
    assert_eq!(
        sentence,
        format!("error: {path}: Backend.VNI is 16777216; allowed is a whole number from 0 to 16777215")
    );
    assert_eq!(code, Some(1));
}

#[test]
fn every_flag_of_the_agent_is_documented_with_its_default() {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operating.md")).expect("the document");
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| `--")).collect();
    let cli = Argv::command();
    let run = cli.find_subcommand("run").expect("a subcommand");
    let mut flags = 0;
    for argument in run.get_arguments() {
        let Some(name) = argument.get_long().filter(|name| *name != "help") else { continue };
        let row = rows.iter().find(|row| row.contains(&format!("`--{name}`")));
        let row = row.unwrap_or_else(|| panic!("--{name} is not in docs/operating.md"));
        for default in argument.get_default_values() {
            assert!(row.contains(&format!("`{}`", default.to_string_lossy())), "the default of --{name}: {row}");
        }
        flags += 1;
    }
    let documented: usize = rows.iter().map(|row| row.split('|').nth(1).expect("a cell").matches("`--").count()).sum();
    assert_eq!(documented, flags, "docs/operating.md has a flag that does not exist");
}

/// As Go's `flag` package reads flanneld's: alone, or with `=` and any of its words.
#[test]
fn every_boolean_of_the_agent_is_read_as_go_reads_it() {
    let booleans = |command: &clap::Command| -> Vec<String> {
        let is_boolean =
            |arg: &&clap::Arg| arg.get_default_values().iter().any(|default| default == "true" || default == "false");
        command.get_arguments().filter(is_boolean).filter_map(|arg| arg.get_long()).map(str::to_owned).collect()
    };
    let cli = Argv::command();
    let names = booleans(cli.find_subcommand("run").expect("a subcommand"));
    assert!(names.len() >= 4, "{names:?}");
    for name in names {
        let id = name.replace('-', "_");
        for (given, means) in
            [("", true), ("=true", true), ("=T", true), ("=1", true), ("=0", false), ("=False", false)]
        {
            let words = ["weft", "run", &format!("--{name}{given}")].map(str::to_owned);
            let parsed = Argv::command().try_get_matches_from(words).unwrap_or_else(|error| panic!("{error}"));
            let run = parsed.subcommand_matches("run").expect("a subcommand");
            assert_eq!(run.get_one::<bool>(&id), Some(&means), "--{name}{given}");
        }
    }
}

#[test]
fn the_version_and_the_help_go_to_standard_output() {
    for args in [["version"], ["--version"], ["-V"], ["-version"]] {
        let output = weft(&args);
        assert_eq!(String::from_utf8(output.stdout).expect("UTF-8"), concat!("weft ", env!("CARGO_PKG_VERSION"), "\n"));
        assert!(output.status.success() && output.stderr.is_empty());
    }
    let help = weft(&["--help"]);
    assert!(help.status.success() && help.stderr.is_empty() && help.stdout.starts_with(b"Kernel-VXLAN"));
}
