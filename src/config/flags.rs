//! The command line, for clap. Names are flannel's where they mean the same.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use http::Uri;
use regex_lite::Regex;

use super::values;
use crate::model::addr::Subnet;
use crate::model::filter::VtepFilter;
use crate::model::settings::Backend;

/// A node agent that keeps a flannel-compatible VXLAN overlay right.
#[derive(Debug, Parser)]
#[command(name = "weft", version, about, max_term_width = 110, after_help = AFTER_HELP)]
pub struct Argv {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
Every flag that takes a value can also be given in the environment: --net-config-path as
WEFT_NET_CONFIG_PATH, and so on; the command line wins. `weft run` also understands flannel's
spelling (-iface=eth0) and its FLANNELD_ variables, and accepts those of its flags that have no
meaning here with a notice.";

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent on this node
    Run(RunArgs),
    /// Print what the agent would change on this machine now, as iproute2 commands; exit 0 if nothing, 2 if something
    Plan(PlanArgs),
    /// Build three machines with agents, break them in every way, and show how they heal; needs no root and no cluster
    Lab(LabArgs),
    /// Remove from this node what weft made: devices, routes, neighbours, FDB entries, packet rules, files
    Cleanup(CleanupArgs),
    /// Print the version
    Version,
}

/// The overlay's configuration file.
#[derive(Debug, Args)]
pub struct NetConfigArgs {
    /// flannel's network configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/kube-flannel/net-conf.json")]
    pub net_config_path: PathBuf,
}

/// Who this node is and how it reaches the others.
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// This node's name in the API [env: NODE_NAME]
    #[arg(long, value_name = "NAME", value_parser = values::node_name)]
    pub node_name: Option<String>,

    /// Prefix of the Node annotations
    #[arg(long, value_name = "PREFIX", default_value = "flannel.alpha.coreos.com", value_parser = values::annotation_prefix)]
    pub kube_annotation_prefix: String,

    /// Underlay interface, by name or address; the first that fits is taken (repeatable)
    #[arg(long, value_name = "NAME|IP", value_parser = values::interface)]
    pub iface: Vec<String>,

    /// Regular expression for the underlay's addresses, then names; tried after --iface (repeatable)
    #[arg(long, value_name = "REGEX", value_parser = values::regex)]
    pub iface_regex: Vec<Regex>,

    /// Take the interface of the route to this address; tried last
    #[arg(long, value_name = "IP", value_parser = values::address)]
    pub iface_can_reach: Option<IpAddr>,

    /// IPv4 address to advertise to peers
    #[arg(long, value_name = "IP", value_parser = values::ipv4)]
    pub public_ip: Option<IpAddr>,

    /// IPv6 address to advertise to peers
    #[arg(long, value_name = "IP", value_parser = values::ipv6)]
    pub public_ipv6: Option<IpAddr>,

    /// Give an IPv4 device that is made an outer UDP checksum, as flannel does
    #[arg(long, value_name = "BOOL", default_value = "false", default_missing_value = "true", num_args = 0..=1,
          require_equals = true, value_parser = values::boolean)]
    pub udp_checksum: bool,

    /// Masquerade what pods send outside the pod network, and what comes into it from outside for other nodes' pods
    #[arg(long, value_name = "BOOL", default_value = "false", default_missing_value = "true", num_args = 0..=1,
          require_equals = true, value_parser = values::boolean)]
    pub ip_masq: bool,

    /// Destinations that see the pods' own addresses although --ip-masq is on (repeatable)
    #[arg(long, value_name = "CIDR", value_parser = values::cidr)]
    pub ip_masq_exclude: Vec<Subnet>,

    /// Do not choose a random source port for each masqueraded connection
    #[arg(long, value_name = "BOOL", default_value = "false", default_missing_value = "true", num_args = 0..=1,
          require_equals = true, value_parser = values::boolean)]
    pub ip_masq_fully_random_disable: bool,

    /// What becomes of VXLAN packets from addresses that are no node's: delivered, counted, or counted and dropped
    #[arg(long, value_enum, value_name = "MODE", default_value_t = VtepFilterArg::Off)]
    pub vtep_filter: VtepFilterArg,
}

/// `--vtep-filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum VtepFilterArg {
    /// Delivered, as Linux does.
    Off,
    /// Counted and delivered.
    Audit,
    /// Counted and dropped.
    Enforce,
}

impl From<VtepFilterArg> for VtepFilter {
    fn from(arg: VtepFilterArg) -> Self {
        match arg {
            VtepFilterArg::Off => Self::Off,
            VtepFilterArg::Audit => Self::Audit,
            VtepFilterArg::Enforce => Self::Enforce,
        }
    }
}

/// What to log.
#[derive(Clone, Copy, Debug, Args)]
pub struct LogArgs {
    /// Lines for people or for machines
    #[arg(long, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub log_format: LogFormat,

    /// The least level that is logged
    #[arg(long, value_enum, default_value_t = LogLevel::Info, value_name = "LEVEL")]
    pub log_level: LogLevel,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Log levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Somebody must act.
    Error,
    /// Something is not as it should be; weft goes on.
    Warn,
    /// Every change to the kernel, and what weft is doing.
    Info,
    /// Every pass.
    Debug,
    /// Everything, also of the libraries.
    Trace,
}

/// The CNI network configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CniConf {
    /// bridge, host-local and portmap: no plugin of flannel's is needed.
    Standard,
    /// flannel's plugin and portmap, as in its manifest.
    Flannel,
    /// None is written.
    None,
}

/// `weft run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The overlay.
    #[command(flatten)]
    pub net: NetConfigArgs,
    /// This node.
    #[command(flatten)]
    pub node: NodeArgs,

    /// kubeconfig; without it the pod's service account is used
    #[arg(long, value_name = "FILE")]
    pub kubeconfig_file: Option<PathBuf>,

    /// Address of the API server, instead of the kubeconfig's or the pod's; credentials stay theirs
    #[arg(long, value_name = "URL", value_parser = values::api_url)]
    pub kube_api_url: Option<Uri>,

    /// File that the flannel CNI plugin reads
    #[arg(long, value_name = "FILE", default_value = "/run/flannel/subnet.env")]
    pub subnet_file: PathBuf,

    /// The CNI network configuration that is written once this node can take pods
    #[arg(long, value_enum, default_value_t = CniConf::None, value_name = "FORM")]
    pub cni_conf: CniConf,

    /// Directory that the container runtime reads it from
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    pub cni_conf_dir: PathBuf,

    /// Set the Node's condition NetworkUnavailable to False once the overlay is in place
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true",
          default_missing_value = "true", action = ArgAction::Set, value_parser = values::boolean)]
    pub set_node_network_unavailable: bool,

    /// Address of the HTTP server for /healthz, /readyz, /metrics and /state
    #[arg(long, value_name = "IP", default_value = "0.0.0.0")]
    pub healthz_ip: IpAddr,

    /// Port of the HTTP server; 0 turns it off
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub healthz_port: u16,

    /// How often everything is verified although nothing was noticed (each time up to a quarter earlier)
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = values::period)]
    pub resync_period: Duration,

    /// The log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// `weft plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The nodes, as `kubectl get nodes -o json` prints them; - is standard input
    #[arg(long, value_name = "FILE|-")]
    pub nodes: PathBuf,
    /// The overlay.
    #[command(flatten)]
    pub net: NetConfigArgs,
    /// This node.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// `weft cleanup`.
#[derive(Debug, Args)]
pub struct CleanupArgs {
    /// The overlay.
    #[command(flatten)]
    pub net: NetConfigArgs,
    /// File that the flannel CNI plugin reads
    #[arg(long, value_name = "FILE", default_value = "/run/flannel/subnet.env")]
    pub subnet_file: PathBuf,
    /// Do it; without this, only print what would be done, and exit 2 if there is something
    #[arg(long)]
    pub yes: bool,
    /// Then wait for SIGTERM: for a pod, which would be started again if it ended
    #[arg(long, requires = "yes")]
    pub then_wait: bool,
    /// Where the container runtime looks for network configurations
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    pub cni_conf_dir: PathBuf,
    /// Do not remove anything: give the routes flannel's form, so that flanneld can take over; then, once flanneld
    /// has its own packet rules and CNI configuration here, remove weft's
    #[arg(long)]
    pub hand_over: bool,
    /// Also remove the packet rules that flannel has left behind
    #[arg(long, conflicts_with = "hand_over")]
    pub flannel_rules: bool,
}

/// `weft lab`.
#[derive(Clone, Copy, Debug, Args)]
pub struct LabArgs {
    /// Machines to build
    // At most 20: they know each other by ARP, and Linux keeps 1,024 such neighbours for all namespaces
    // together (net.ipv4.neigh.default.gc_thresh3).
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=20))]
    pub nodes: u8,
    /// Networks to put them on: with 2 there is a router in between, and direct routing is on
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub segments: u8,
    /// How packets get from machine to machine
    #[arg(long, value_enum, default_value_t = LabBackend::Vxlan)]
    pub backend: LabBackend,
    /// IPv4 and IPv6
    #[arg(long)]
    pub dual_stack: bool,
    /// IPv6 alone
    #[arg(long, conflicts_with = "dual_stack")]
    pub ipv6_only: bool,
    /// Keep it up afterwards, and print how to look inside
    #[arg(long)]
    pub hold: bool,
    /// Print the results as JSON
    #[arg(long)]
    pub json: bool,
    /// Show the agents' logs as they come, on standard error; otherwise they are shown only if the lab fails
    #[arg(long)]
    pub logs: bool,
}

/// The backends of the lab, called as in `net-conf.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LabBackend {
    /// In VXLAN.
    Vxlan,
    /// As they are, by routes over the underlay; all machines have to be on one network.
    HostGw,
}

impl From<LabBackend> for Backend {
    fn from(arg: LabBackend) -> Self {
        match arg {
            LabBackend::Vxlan => Self::Vxlan,
            LabBackend::HostGw => Self::HostGw,
        }
    }
}
