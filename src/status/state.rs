//! `/state`: everything that weft knows of itself and its peers, as JSON, worked out when asked for.

mod family;
mod node;
mod problems;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;

use self::family::OneFamily;
use self::node::{CniConf, Flannels, HostProblem};
use self::problems::Last;
use super::words::verdict_label;
use super::{View, health};
use crate::model::addr::Subnet;
use crate::model::filter::{FilterRules, Masquerade};
use crate::model::node::OwnNode;
use crate::model::settings::{Overlay, Settings, UnderlayRules};
use crate::reconcile::report::{Report, Verdict};

/// The whole text.
pub fn render(view: &View) -> String {
    // Nothing in it can fail to be written: keys are strings, numbers are finite.
    let mut text = serde_json::to_string_pretty(&State::of(view)).unwrap_or_default();
    text.push('\n');
    text
}

#[derive(Serialize)]
struct State<'a> {
    version: &'static str,
    node: &'a str,
    uptime_seconds: f64,
    ready: bool,
    not_ready_because: Vec<String>,
    config: Config<'a>,
    own_node: Option<Own<'a>>,
    last_pass: Option<Pass<'a>>,
    families: BTreeMap<&'static str, OneFamily<'a>>,
    host_problems: Vec<HostProblem<'a>>,
    host_unseen: &'a [String],
    cni_conf: Option<CniConf<'a>>,
    flannel_rules: Flannels<'a>,
    api_problems: Vec<Last<'a>>,
    counters: Counters,
}

impl<'a> State<'a> {
    fn of(view: &'a View) -> Self {
        let not_ready_because = health::ready(view).err().unwrap_or_default();
        let vteps = view.identity.settings.filter.vteps;
        let families = view.report.iter().flat_map(|report| {
            let enabled = report.families.iter().filter_map(|(family, of)| Some((family, of.as_ref()?)));
            enabled.map(|(family, of)| (family.label(), OneFamily::of(report, family, of, vteps)))
        });
        Self {
            version: view.identity.version,
            node: &view.identity.node_name,
            uptime_seconds: seconds(view.now),
            ready: not_ready_because.is_empty(),
            not_ready_because,
            config: Config::of(view),
            own_node: view.own.as_deref().map(|own| Own::of(own, &view.complaints)),
            last_pass: view.report.as_deref().map(|report| Pass::of(view, report)),
            families: families.collect(),
            host_problems: view.host_problems.iter().map(HostProblem::of).collect(),
            host_unseen: &view.host_unseen,
            cni_conf: view.cni.as_ref().map(CniConf::of),
            flannel_rules: Flannels::of(&view.flannel_rules),
            api_problems: view.api_problems.iter().map(|problem| Last::of(problem, view.now)).collect(),
            counters: Counters::of(view),
        }
    }
}

/// To the millisecond: what is finer is noise.
#[expect(clippy::cast_precision_loss, reason = "milliseconds of any uptime fit into 53 bits")]
fn seconds(time: Duration) -> f64 {
    time.as_millis() as f64 / 1000.0
}

#[derive(Serialize)]
struct Config<'a> {
    networks: BTreeMap<&'static str, Subnet>,
    backend: &'static str,
    vni: u32,
    port: u16,
    outer_mtu: Option<u32>,
    gbp: bool,
    learning: bool,
    direct_routing: bool,
    iface: &'a [String],
    iface_regex: Vec<&'a str>,
    iface_can_reach: Option<IpAddr>,
    public_ip: BTreeMap<&'static str, IpAddr>,
    udp_checksum: bool,
    ip_masq: Option<IpMasq<'a>>,
    vtep_filter: &'static str,
    annotation_prefix: &'a str,
    subnet_file: String,
    resync_seconds: f64,
    notices: &'a [String],
}

/// Masquerading; null while it is off.
#[derive(Serialize)]
struct IpMasq<'a> {
    exclude: &'a [Subnet],
    fully_random: bool,
}

impl<'a> Config<'a> {
    fn of(view: &'a View) -> Self {
        let identity = &view.identity;
        // Each field by its name: a setting that is added has to be shown.
        let Settings { overlay, underlay, filter: FilterRules { masquerade, vteps } } = &identity.settings;
        let Overlay { networks, backend, vni, port, mtu, gbp, learning, direct_routing } = overlay;
        let UnderlayRules { iface, iface_regex, can_reach, public_ip, udp_checksum } = underlay;
        let networks = networks.iter().filter_map(|(family, network)| Some((family.label(), (*network)?)));
        let public_ip = public_ip.iter().filter_map(|(family, ip)| Some((family.label(), (*ip)?)));
        let ip_masq = masquerade
            .as_ref()
            .map(|Masquerade { exclude, fully_random }| IpMasq { exclude, fully_random: *fully_random });
        Self {
            networks: networks.collect(),
            backend: backend.label(),
            vni: vni.get(),
            port: *port,
            outer_mtu: *mtu,
            gbp: *gbp,
            learning: *learning,
            direct_routing: *direct_routing,
            iface,
            iface_regex: iface_regex.iter().map(regex_lite::Regex::as_str).collect(),
            iface_can_reach: *can_reach,
            public_ip: public_ip.collect(),
            udp_checksum: *udp_checksum,
            ip_masq,
            vtep_filter: vteps.label(),
            annotation_prefix: &identity.annotation_prefix,
            subnet_file: identity.subnet_file.display().to_string(),
            resync_seconds: seconds(identity.resync),
            notices: &identity.notices,
        }
    }
}

#[derive(Serialize)]
struct Own<'a> {
    uid: &'a str,
    pod_cidr: BTreeMap<&'static str, String>,
    annotations: &'a BTreeMap<Box<str>, Box<str>>,
    problems: &'a [String],
}

impl<'a> Own<'a> {
    fn of(own: &'a OwnNode, problems: &'a [String]) -> Self {
        let text = |subnet: &Result<Subnet, Box<str>>| match subnet {
            Ok(subnet) => subnet.to_string(),
            Err(problem) => format!("none: {problem}"),
        };
        let pod_cidr = own.subnet.iter().map(|(family, subnet)| (family.label(), text(subnet)));
        Self { uid: &own.uid, pod_cidr: pod_cidr.collect(), annotations: &own.annotations, problems }
    }
}

#[derive(Serialize)]
struct Pass<'a> {
    number: u64,
    ended_seconds_ago: f64,
    took_seconds: f64,
    verdict: &'static str,
    because: Option<&'a str>,
    nodes: usize,
    changes: usize,
    waits_for_another_list: bool,
    next_try_in_seconds: Option<f64>,
}

impl<'a> Pass<'a> {
    fn of(view: &View, report: &'a Report) -> Self {
        Self {
            number: report.pass,
            ended_seconds_ago: seconds(view.now.saturating_sub(report.at + report.took)),
            took_seconds: report.took.as_secs_f64(),
            verdict: verdict_label(&report.verdict),
            because: match &report.verdict {
                Verdict::Waiting(why) | Verdict::Blind(why) => Some(why),
                Verdict::Converged | Verdict::Incomplete => None,
            },
            nodes: report.nodes,
            changes: report.changes.len(),
            waits_for_another_list: report.wants_list,
            next_try_in_seconds: report.next_try.map(|at| seconds(at.saturating_sub(view.now))),
        }
    }
}

#[derive(Serialize)]
struct Counters {
    passes: u64,
    last_verified_seconds_ago: Option<f64>,
    api_lists: u64,
    api_watches: u64,
    api_errors: BTreeMap<&'static str, u64>,
    api_last_heard_seconds_ago: Option<f64>,
    api_failing_for_seconds: Option<f64>,
    announcements: u64,
    announcement_failures: u64,
    netlink_messages: u64,
    netlink_overruns: u64,
    netlink_dumps_repeated: u64,
}

impl Counters {
    fn of(view: &View) -> Self {
        let ago = |then: Option<Duration>| then.map(|then| seconds(view.now.saturating_sub(then)));
        Self {
            passes: view.totals.passes(),
            last_verified_seconds_ago: ago(view.totals.verified()),
            api_lists: view.api.lists,
            api_watches: view.api.watches,
            api_errors: view.api.errors.iter().copied().collect(),
            api_last_heard_seconds_ago: ago(view.api.last_heard),
            api_failing_for_seconds: ago(view.api.failing_since),
            announcements: view.announcements.sent,
            announcement_failures: view.announcements.failed,
            netlink_messages: view.netlink.messages,
            netlink_overruns: view.netlink.overruns,
            netlink_dumps_repeated: view.netlink.dumps_repeated,
        }
    }
}
