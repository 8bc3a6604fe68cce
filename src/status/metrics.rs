//! `/metrics`: OpenMetrics text. `docs/operating.md` explains each; a test compares the two.
//!
//! Label values that are known beforehand are there from the start, at zero: a rate over a counter
//! that appears with its first event would miss that event.

mod node;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::{Registry, Unit};

use super::View;
use super::openmetrics::{Labels, Writer};
use super::totals::BUCKETS;
use super::words::{Outcome, STATES, Target, VERDICTS, state_label};
use crate::model::addr::Family;
use crate::model::node::Unusable;
use crate::model::table::Kind;
use crate::plan::cause::Cause;
use crate::plan::claims::Refused;
use crate::plan::desired::{Wanted, Without};
use crate::reconcile::peers::peer_states;
use crate::reconcile::report::{FamilyReport, FilterReport};

/// What the text is, for the header of an answer.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The whole page.
pub fn render(view: &View) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Page(view.clone())));
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = encode(&mut text, &registry);
    text
}

/// One scrape.
#[derive(Debug)]
struct Page(View);

impl Collector for Page {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let view = &self.0;
        let mut out = Writer::new(encoder);
        process(view, &mut out)?;
        tables(view, &mut out)?;
        nodes(view, &mut out)?;
        changes(view, &mut out)?;
        passes(view, &mut out)?;
        netlink(view, &mut out)?;
        node::node(view, &mut out)?;
        api(view, &mut out)
    }
}

fn process(view: &View, out: &mut Writer<'_>) -> fmt::Result {
    let version = vec![("version", view.identity.version.to_owned())];
    out.info("weft_build", "What runs", &version)?;
    let started = view.process.started_at;
    out.measure("process_start_time", "When the process started, since 1970", &Unit::Seconds, started)?;
    let resident = view.process.resident_bytes.map(to_float);
    out.measure("process_resident_memory", "Memory that is resident", &Unit::Bytes, resident)?;
    let ages = view.beats.iter().map(|beat| (vec![("loop", beat.name.to_owned())], beat.age.as_secs_f64()));
    out.measures("weft_heartbeat_age", "Time since a loop last went round", &Unit::Seconds, ages)?;
    let ready = u64::from(super::health::ready(view).is_ok());
    out.gauges("weft_ready", "1 if this node takes part, as /readyz says", [(Labels::new(), ready)])
}

fn families(view: &View) -> impl Iterator<Item = Family> + '_ {
    view.identity.settings.overlay.families()
}

fn family_report(view: &View, family: Family) -> Option<&FamilyReport> {
    view.report.as_ref().and_then(|report| report.families.get(family).as_ref())
}

fn label(family: Family) -> (&'static str, String) {
    ("family", family.label().to_owned())
}

fn tables(view: &View, out: &mut Writer<'_>) -> fmt::Result {
    let of = |value: fn(&FamilyReport) -> u64| {
        families(view)
            .map(move |family| (vec![label(family)], family_report(view, family).map_or(0, value)))
            .collect::<Vec<_>>()
    };
    out.gauges(
        "weft_device_ready",
        "1 if the device stands as wanted and is up",
        of(|family| u64::from(family.ready)),
    )?;
    out.gauges(
        "weft_removals_withheld",
        "1 if a mass removal waits for another list of Nodes",
        of(|family| u64::from(family.withheld.is_some())),
    )?;
    out.gauges(
        "weft_foreign_routes",
        "Routes of others that win over a peer's",
        of(|family| family.shadows.len() as u64),
    )?;
    filter(view, out)?;
    let rows = |value: fn(&FamilyReport, Kind) -> usize| {
        let cells = families(view).flat_map(|family| Kind::ALL.map(|kind| (family, kind)));
        let cell = move |(family, kind): (Family, Kind)| {
            let count = family_report(view, family).map_or(0, |report| value(report, kind));
            (vec![label(family), ("table", kind.label().to_owned())], count as u64)
        };
        cells.map(cell).collect::<Vec<_>>()
    };
    out.gauges(
        "weft_entries_wanted",
        "Rows that the kernel should hold",
        rows(|family, kind| family.wanted.get(kind)),
    )?;
    out.gauges(
        "weft_entries_present",
        "Rows of those that it held at the last look",
        rows(|family, kind| family.present.get(kind)),
    )?;
    let pending = families(view).flat_map(|family| {
        let mut counts: BTreeMap<&str, u64> = PENDING.iter().map(|label| (*label, 0)).collect();
        let all = family_report(view, family).into_iter().flat_map(|report| &report.pending);
        all.for_each(|pending| *counts.entry(pending.label).or_default() += 1);
        counts.into_iter().map(move |(reason, count)| (vec![label(family), ("reason", reason.to_owned())], count))
    });
    out.gauges("weft_entries_pending", "Changes that could not be made yet", pending)
}

fn filter(view: &View, out: &mut Writer<'_>) -> fmt::Result {
    let of = |value: fn(&FilterReport) -> u64| {
        let report = |family| view.report.as_ref().map_or(0, |report| value(report.filter.get(family)));
        families(view).map(|family| (vec![label(family)], report(family))).collect::<Vec<_>>()
    };
    out.gauges(
        "weft_filter_in_place",
        "1 if our table of the packet filter is as wanted, or none is",
        of(|filter| u64::from(filter.in_place)),
    )?;
    out.gauges("weft_known_vteps", "Addresses in the set of known VTEPs", of(|filter| filter.vteps as u64))?;
    out.counters(
        "weft_unknown_vtep_packets",
        "VXLAN packets of ours from addresses that are no known VTEP's",
        of(|filter| filter.from_strangers.0),
    )?;
    out.counters("weft_unknown_vtep_bytes", "Bytes of such packets", of(|filter| filter.from_strangers.1))
}

/// The labels of [`crate::reconcile::report::Pending`] that are there from the start.
const PENDING: [&str; 3] = ["refused", "fight", "waiting"];

fn nodes(view: &View, out: &mut Writer<'_>) -> fmt::Result {
    let total = view.report.as_ref().map_or(0, |report| report.nodes as u64);
    out.gauges("weft_nodes", "Node objects that the last pass worked from", [(Labels::new(), total)])?;
    let states = families(view).flat_map(|family| {
        let mut counts: BTreeMap<&str, u64> = STATES.iter().map(|state| (*state, 0)).collect();
        let peers = view.report.as_ref().map(|report| peer_states(report, family)).unwrap_or_default();
        for state in peers.values() {
            *counts.entry(state_label(state)).or_default() += 1;
        }
        counts.into_iter().map(move |(state, count)| (vec![label(family), ("state", state.to_owned())], count))
    });
    out.gauges("weft_peers", "Other nodes by what they are to us", states)?;
    let reasons = |known: &'static [&'static str], reason: fn(&Without) -> Option<&'static str>| {
        let count = move |family| {
            let mut counts: BTreeMap<&str, u64> = known.iter().map(|label| (*label, 0)).collect();
            let without = wanted(view, family).into_iter().flat_map(|wanted| wanted.without.values());
            without.filter_map(reason).for_each(|label| *counts.entry(label).or_default() += 1);
            counts.into_iter().map(move |(reason, count)| (vec![label(family), ("reason", reason.to_owned())], count))
        };
        families(view).flat_map(count).collect::<Vec<_>>()
    };
    let unusable = reasons(&Unusable::LABELS, |without| match without {
        Without::Unusable(label, _) => Some(label),
        Without::Absent(_) | Without::Rejected(..) => None,
    });
    out.gauges("weft_peers_unusable", "Nodes whose annotations or pod CIDR cannot be used", unusable)?;
    let rejected = reasons(&Refused::LABELS, |without| match without {
        Without::Rejected(label, _) => Some(label),
        Without::Absent(_) | Without::Unusable(..) => None,
    });
    out.gauges("weft_peers_rejected", "Nodes that claim what is not theirs", rejected)
}

fn wanted(view: &View, family: Family) -> Option<&Wanted> {
    view.report.as_ref()?.desired.as_ref()?.families.get(family).as_ref()
}

fn changes(view: &View, out: &mut Writer<'_>) -> fmt::Result {
    let totals = &view.totals;
    let cells = || families(view).flat_map(|family| Target::ALL.map(|target| (family, target)));
    let labels = |family, target: Target| vec![label(family), ("table", target.label().to_owned())];
    let count = |family, target, cause| totals.changes.get(&(family, target, cause)).copied().unwrap_or_default();
    let changes = cells().flat_map(|(family, target)| {
        Cause::ALL.map(|cause| {
            let mut labels = labels(family, target);
            labels.push(("cause", cause.label().to_owned()));
            (labels, count(family, target, cause))
        })
    });
    out.counters("weft_changes", "Changes that the kernel acknowledged", changes)?;
    let repairs = cells().map(|(family, target)| {
        let drift = Cause::ALL.into_iter().filter(|cause| cause.is_drift());
        (labels(family, target), drift.map(|cause| count(family, target, cause)).sum())
    });
    out.counters("weft_repairs", "Changes that put right what somebody else had changed", repairs)?;
    let failures = cells().flat_map(|(family, target)| {
        Outcome::FAILURES.map(|outcome| {
            let mut labels = labels(family, target);
            labels.push(("outcome", outcome.label().to_owned()));
            (labels, totals.failures.get(&(family, target, outcome)).copied().unwrap_or_default())
        })
    });
    out.counters("weft_change_failures", "Changes that came to nothing", failures)
}

fn passes(view: &View, out: &mut Writer<'_>) -> fmt::Result {
    let totals = &view.totals;
    let count = |verdict: &str| totals.passes.get(verdict).copied().unwrap_or_default();
    let verdicts = VERDICTS.map(|verdict| (vec![("verdict", verdict.to_owned())], count(verdict)));
    out.counters("weft_passes", "Passes by how they ended", verdicts)?;
    let buckets: Vec<(f64, u64)> = BUCKETS.into_iter().zip(totals.buckets).collect();
    out.histogram("weft_pass_duration", "How long passes took", totals.seconds, &buckets)?;
    let age = totals.verified.map(|at| since(view.now, at));
    out.measure("weft_last_verified_age", "Time since a pass last saw the kernel whole", &Unit::Seconds, age)?;
    // The process's start is the only moment that is known on the calendar.
    let moment = totals.verified.zip(view.process.started_at).map(|(at, started)| started + at.as_secs_f64());
    out.measure(
        "weft_last_verified_timestamp",
        "When a pass last saw the kernel whole, since 1970",
        &Unit::Seconds,
        moment,
    )
}

fn netlink(view: &View, out: &mut Writer<'_>) -> fmt::Result {
    let netlink = &view.netlink;
    out.counter("weft_netlink_batches", "Batches of changes sent", netlink.batches)?;
    out.counter("weft_netlink_messages", "Changes sent", netlink.messages)?;
    out.counter("weft_netlink_answers_lost", "Changes whose answer was lost", netlink.answers_lost)?;
    out.counter(
        "weft_netlink_dumps_repeated",
        "Dumps repeated because the table changed under them",
        netlink.dumps_repeated,
    )?;
    out.counter("weft_netlink_dumps_failed", "Dumps given up", netlink.dumps_failed)?;
    out.counter("weft_netlink_overruns", "Times that notifications were lost to a full buffer", netlink.overruns)?;
    out.counter("weft_netlink_socket_errors", "Failures to wait for or read notifications", netlink.socket_errors)
}

fn api(view: &View, out: &mut Writer<'_>) -> fmt::Result {
    let api = &view.api;
    out.counter("weft_api_lists", "Node lists that came in whole", api.lists)?;
    out.counter("weft_api_list_pages", "Requests for a page of a list", api.pages)?;
    out.counter("weft_api_watches", "Requests for a watch", api.watches)?;
    out.counter("weft_api_events", "Node events received", api.events)?;
    out.counter("weft_api_bookmarks", "Bookmarks received", api.bookmarks)?;
    let errors = api.errors.iter().map(|(kind, count)| (vec![("kind", (*kind).to_owned())], *count));
    out.counters("weft_api_errors", "Problems with the API server", errors)?;
    let age = api.last_heard.map(|at| since(view.now, at));
    out.measure("weft_watch_age", "Time since the API server was last heard", &Unit::Seconds, age)?;
    let failing = api.failing_since.map_or(0.0, |at| since(view.now, at));
    out.measure("weft_api_failing", "How long nothing has worked with the API server", &Unit::Seconds, Some(failing))?;
    let announcements = &view.announcements;
    out.counter("weft_announcements", "Patches of our annotations that were accepted", announcements.sent)?;
    out.counter("weft_announcement_failures", "Patches of our annotations that failed", announcements.failed)?;
    out.counter(
        "weft_condition_patches",
        "Patches of our Node's condition that were accepted",
        announcements.conditions_sent,
    )?;
    out.counter(
        "weft_condition_failures",
        "Patches of our Node's condition that failed",
        announcements.conditions_failed,
    )?;
    out.counter("weft_node_events", "Events about our Node that were accepted", announcements.events_sent)?;
    out.counter("weft_node_event_failures", "Events about our Node that failed", announcements.events_failed)?;
    out.counter("weft_subnet_env_writes", "Times that subnet.env was written", announcements.subnet_env_written)?;
    out.counter(
        "weft_subnet_env_failures",
        "Times that subnet.env could not be written",
        announcements.subnet_env_failed,
    )
}

fn since(now: Duration, then: Duration) -> f64 {
    now.saturating_sub(then).as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "2^53 bytes of memory are not in sight")]
fn to_float(number: u64) -> f64 {
    number as f64
}
