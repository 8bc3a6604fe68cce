//! What each subcommand is configured with, checked as a whole.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use http::Uri;

use super::argv::normalise;
use super::flags::{
    Argv, CleanupArgs, CniConf, Command, LabArgs, LabBackend, LogArgs, LogFormat, LogLevel, NetConfigArgs, NodeArgs,
    PlanArgs, RunArgs,
};
use super::netconf::{self, NetConf, NetConfError};
use crate::model::addr::{ByFamily, Family};
use crate::model::filter::{FilterRules, Masquerade, VtepFilter};
use crate::model::node::NodeName;
use crate::model::settings::{Backend, CniForm, Overlay, Settings, UnderlayRules};

/// What the command line asks for.
#[derive(Debug)]
pub enum Task {
    /// `weft run`.
    Run(Box<RunConfig>),
    /// `weft plan`.
    Plan(Box<PlanConfig>),
    /// `weft lab`.
    Lab(LabConfig),
    /// `weft cleanup`.
    Cleanup(CleanupConfig),
    /// `weft version`.
    Version,
    /// `--help` and `--version`: a text for standard output.
    Text(String),
}

/// The agent's configuration.
#[derive(Debug)]
pub struct RunConfig {
    /// Our Node's name.
    pub node_name: NodeName,
    /// `--kubeconfig-file`.
    pub kubeconfig: Option<PathBuf>,
    /// `--kube-api-url`: replaces the address that a kubeconfig or the pod's environment gives.
    pub api_url: Option<Uri>,
    /// What stands before every annotation's name, complete with its `/` or `-`.
    pub annotation_prefix: String,
    /// What a pass is configured with.
    pub settings: Settings,
    /// Where `subnet.env` goes.
    pub subnet_file: PathBuf,
    /// The CNI network configuration to keep; `None` if that is somebody else's business.
    pub cni: Option<CniConfig>,
    /// `--set-node-network-unavailable`: keep the condition `NetworkUnavailable` at `False`.
    pub set_condition: bool,
    /// Where the HTTP server listens; `None` if it is off.
    pub health: Option<SocketAddr>,
    /// The period of the slow timer, before jitter.
    pub resync: Duration,
    /// The log.
    pub log: LogConfig,
    /// What the operator should know: ignored flags and settings. One sentence each, to be logged.
    pub notices: Vec<String>,
}

/// The CNI network configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CniConfig {
    /// What it consists of.
    pub form: CniForm,
    /// Where it goes.
    pub dir: PathBuf,
}

/// The log's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// The form of a line.
    pub format: LogFormat,
    /// The least level that is logged.
    pub level: LogLevel,
}

/// The dry run's configuration.
#[derive(Debug)]
pub struct PlanConfig {
    /// A file with a Node list; `-` is standard input.
    pub nodes: PathBuf,
    /// Our Node's name.
    pub node_name: NodeName,
    /// What stands before every annotation's name, complete with its `/` or `-`.
    pub annotation_prefix: String,
    /// What a pass is configured with.
    pub settings: Settings,
    /// Ignored flags and settings, one sentence each.
    pub notices: Vec<String>,
}

/// The clean-up's configuration.
#[derive(Debug)]
pub struct CleanupConfig {
    /// The overlay whose devices go.
    pub overlay: Overlay,
    /// `subnet.env`, which goes too.
    pub subnet_file: PathBuf,
    /// Do it, and do not only say what would be done.
    pub yes: bool,
    /// Wait for SIGTERM when it is done.
    pub then_wait: bool,
    /// Where the CNI configuration is, which goes too if it is weft's.
    pub cni_conf_dir: PathBuf,
    /// Give the routes flannel's form instead of removing anything.
    pub hand_over: bool,
    /// Flannel's packet rules go too.
    pub flannel_rules: bool,
    /// Ignored flags and settings, one sentence each.
    pub notices: Vec<String>,
}

/// The lab's configuration: its flags as they are.
pub type LabConfig = LabArgs;

/// Why a command line or a file is refused: a sentence for the operator.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// clap's words, which name the flag, its value and what is allowed.
    #[error("{}", .0.trim_end())]
    Usage(String),
    /// One of flannel's flags is malformed, or flags do not go together.
    #[error("error: {0}")]
    Flag(String),
    /// Nobody said which node this is.
    #[error(
        "error: --node-name is missing: give it, or set NODE_NAME (in a pod: from the field spec.nodeName, by the \
         downward API)"
    )]
    NoNodeName,
    /// The network configuration cannot be read.
    #[error("error: --net-config-path {}: {source}; it is flannel's net-conf.json, usually mounted from the ConfigMap kube-flannel-cfg", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The network configuration cannot be used.
    #[error("error: {}: {source}", path.display())]
    NetConf {
        /// The file.
        path: PathBuf,
        /// Why.
        source: NetConfError,
    },
}

/// Reads the command line (without the program's name) and the network configuration that it names.
///
/// # Errors
/// If anything in them is not understood or not allowed.
pub fn parse(args: &[String], env: &BTreeMap<String, String>) -> Result<Task, ConfigError> {
    let normal = normalise(args, env, &Argv::command()).map_err(ConfigError::Flag)?;
    let words = std::iter::once("weft".to_owned()).chain(normal.args);
    let command = match Argv::try_parse_from(words) {
        Ok(parsed) => parsed.command,
        Err(error) if error.use_stderr() => return Err(ConfigError::Usage(error.to_string())),
        Err(text) => return Ok(Task::Text(text.to_string())),
    };
    Ok(match command {
        Command::Run(args) => Task::Run(Box::new(run(args, normal.notices)?)),
        Command::Plan(args) => Task::Plan(Box::new(plan(args, normal.notices)?)),
        Command::Cleanup(args) => Task::Cleanup(cleanup(args, normal.notices)?),
        Command::Lab(args) => Task::Lab(lab(args)?),
        Command::Version => Task::Version,
    })
}

fn run(args: RunArgs, notices: Vec<String>) -> Result<RunConfig, ConfigError> {
    let Node { name, annotation_prefix, settings, notices } = node(args.node, &args.net, notices)?;
    Ok(RunConfig {
        node_name: name,
        kubeconfig: args.kubeconfig_file,
        api_url: args.kube_api_url,
        annotation_prefix,
        settings,
        subnet_file: args.subnet_file,
        cni: cni(args.cni_conf, args.cni_conf_dir),
        set_condition: args.set_node_network_unavailable,
        health: (args.healthz_port != 0).then(|| SocketAddr::new(args.healthz_ip, args.healthz_port)),
        resync: args.resync_period,
        log: args.log.into(),
        notices,
    })
}

fn lab(args: LabArgs) -> Result<LabConfig, ConfigError> {
    if args.backend == LabBackend::HostGw && args.segments > 1 {
        return Err(ConfigError::Flag(
            "--backend host-gw does not go with --segments 2: its routes lead straight to the other machines, so all \
             of them have to be on one network; leave out one of the two"
                .to_owned(),
        ));
    }
    Ok(args)
}

fn cni(conf: CniConf, dir: PathBuf) -> Option<CniConfig> {
    let form = match conf {
        CniConf::Standard => CniForm::Standard,
        CniConf::Flannel => CniForm::Flannel,
        CniConf::None => return None,
    };
    Some(CniConfig { form, dir })
}

fn plan(args: PlanArgs, notices: Vec<String>) -> Result<PlanConfig, ConfigError> {
    let Node { name, annotation_prefix, settings, notices } = node(args.node, &args.net, notices)?;
    Ok(PlanConfig { nodes: args.nodes, node_name: name, annotation_prefix, settings, notices })
}

fn cleanup(args: CleanupArgs, mut notices: Vec<String>) -> Result<CleanupConfig, ConfigError> {
    let conf = read_net_conf(&args.net.net_config_path)?;
    notices.extend(conf.notices);
    Ok(CleanupConfig {
        overlay: conf.overlay,
        subnet_file: args.subnet_file,
        yes: args.yes,
        then_wait: args.then_wait,
        cni_conf_dir: args.cni_conf_dir,
        hand_over: args.hand_over,
        flannel_rules: args.flannel_rules,
        notices,
    })
}

struct Node {
    name: NodeName,
    annotation_prefix: String,
    settings: Settings,
    notices: Vec<String>,
}

fn node(args: NodeArgs, net: &NetConfigArgs, mut notices: Vec<String>) -> Result<Node, ConfigError> {
    let name = args.node_name.as_deref().map(Arc::from).ok_or(ConfigError::NoNodeName)?;
    let conf = read_net_conf(&net.net_config_path)?;
    notices.extend(conf.notices);
    let public_ip = ByFamily { v4: args.public_ip, v6: args.public_ipv6 };
    for (family, ip) in public_ip.iter() {
        if let (Some(ip), None) = (ip, conf.overlay.networks.get(family)) {
            let (flag, switch) = match family {
                Family::V4 => ("--public-ip", "EnableIPv4"),
                Family::V6 => ("--public-ipv6", "EnableIPv6"),
            };
            notices.push(format!("{flag} {ip} has no effect: {switch} is not true in the network configuration"));
        }
    }
    let underlay = UnderlayRules {
        iface: args.iface,
        iface_regex: args.iface_regex,
        can_reach: args.iface_can_reach,
        public_ip,
        udp_checksum: args.udp_checksum,
    };
    let masquerade = args
        .ip_masq
        .then_some(Masquerade { exclude: args.ip_masq_exclude, fully_random: !args.ip_masq_fully_random_disable });
    let vteps = match (conf.overlay.backend, args.vtep_filter.into()) {
        (Backend::HostGw, VtepFilter::Audit | VtepFilter::Enforce) => {
            notices.push("--vtep-filter has no effect with the host-gw backend: nothing is encapsulated".to_owned());
            VtepFilter::Off
        }
        (_, vteps) => vteps,
    };
    let filter = FilterRules { masquerade, vteps };
    let settings = Settings { overlay: conf.overlay, underlay, filter };
    Ok(Node { name, annotation_prefix: args.kube_annotation_prefix, settings, notices })
}

fn read_net_conf(path: &Path) -> Result<NetConf, ConfigError> {
    let bytes = std::fs::read(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    // Go takes bytes that are not UTF-8 for U+FFFD instead of refusing them.
    netconf::parse(&String::from_utf8_lossy(&bytes))
        .map_err(|source| ConfigError::NetConf { path: path.to_owned(), source })
}

impl From<LogArgs> for LogConfig {
    fn from(args: LogArgs) -> Self {
        Self { format: args.log_format, level: args.log_level }
    }
}
