//! What a node needs around the tables.

use std::fmt;

use crate::status::openmetrics::{Labels, Writer};
use crate::status::{CniState, View};

/// An address of an earlier pod CIDR on the pods' bridge: the reconciler sees that one.
const STALE_BRIDGE: &str = "stale_bridge";

pub(super) fn node(view: &View, out: &mut Writer<'_>) -> fmt::Result {
    let stale = view.report.iter().flat_map(|report| report.families.iter());
    let stale = stale.filter_map(|(_, family)| Some(family.as_ref()?.stale_bridge.len() as u64)).sum();
    let count = |label: &str| view.host_problems.iter().filter(|(of, _)| *of == label).count() as u64;
    let problems = view.host_labels.iter().map(|label| (*label, count(label)));
    let problems = problems.chain([(STALE_BRIDGE, stale)]);
    out.gauges(
        "weft_host_problems",
        "What the host lacks that pods need",
        problems.map(|(label, count)| (vec![("problem", label.to_owned())], count)),
    )?;
    let in_place = view.cni.iter().map(|cni| (Labels::new(), u64::from(cni.state == CniState::InPlace)));
    out.gauges("weft_cni_conf_in_place", "1 if the CNI configuration is as weft wants it", in_place)?;
    let (written, failed) = view.cni.as_ref().map_or((0, 0), |cni| (cni.written, cni.failed));
    out.counter("weft_cni_conf_writes", "Times that the CNI configuration was written", written)?;
    out.counter("weft_cni_conf_failures", "Times that the CNI configuration could not be written", failed)?;
    let rules = &view.flannel_rules;
    let left = [(Labels::new(), rules.stays.len() as u64)];
    out.gauges("weft_flannel_rules_left", "Tables and chains of flannel's packet rules that are still there", left)?;
    out.counter("weft_flannel_rules_removed", "Tables and chains of flannel's that were removed", rules.removed)
}
