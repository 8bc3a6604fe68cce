//! One family in `/state`: the device, the tables, every peer.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use crate::model::addr::{Family, IfName, Mac, Subnet};
use crate::model::device::DeviceSpec;
use crate::model::filter::VtepFilter;
use crate::model::node::{NodeName, Peer};
use crate::model::table::Kind;
use crate::reconcile::peers::peer_states;
use crate::reconcile::report::{FamilyReport, FilterReport, PeerState, Report};
use crate::status::words::state_label;

#[derive(Serialize)]
pub(super) struct OneFamily<'a> {
    ready: bool,
    waiting: Option<&'a str>,
    moving: Option<&'a str>,
    enslaved: Option<&'a str>,
    public_ip: Option<IpAddr>,
    underlay: Option<&'a str>,
    mtu: Option<u32>,
    device: Option<Device<'a>>,
    stale_bridge_addresses: &'a [String],
    entries: BTreeMap<&'static str, Rows>,
    withheld: Option<&'a str>,
    pending: Vec<Pending<'a>>,
    foreign_routes: Vec<Foreign<'a>>,
    packet_filter: Filter<'a>,
    peers: BTreeMap<NodeName, OnePeer>,
}

#[derive(Serialize)]
struct Rows {
    wanted: usize,
    present: usize,
}

#[derive(Serialize)]
struct Pending<'a> {
    change: String,
    peer: Option<&'a str>,
    reason: &'static str,
    problem: &'a str,
    times: u32,
}

#[derive(Serialize)]
struct Foreign<'a> {
    peer: &'a str,
    problem: &'a str,
}

impl<'a> OneFamily<'a> {
    pub(super) fn of(report: &'a Report, family: Family, of: &'a FamilyReport, vteps: VtepFilter) -> Self {
        let rows = |kind: Kind| (kind.label(), Rows { wanted: of.wanted.get(kind), present: of.present.get(kind) });
        let pending = of.pending.iter().map(|pending| Pending {
            change: pending.op.to_string(),
            peer: pending.peer.as_deref(),
            reason: pending.label,
            problem: &pending.problem,
            times: pending.times,
        });
        Self {
            ready: of.ready,
            waiting: of.waiting.as_deref(),
            moving: of.moving.as_deref(),
            enslaved: of.enslaved.as_deref(),
            public_ip: of.public_ip,
            underlay: of.underlay.as_ref().map(IfName::as_str),
            mtu: of.mtu,
            device: of.device.as_ref().map(|spec| Device::of(spec, of.udp_checksum)),
            stale_bridge_addresses: &of.stale_bridge,
            entries: Kind::ALL.into_iter().map(rows).collect(),
            withheld: of.withheld.as_deref(),
            pending: pending.collect(),
            foreign_routes: of.shadows.iter().map(|s| Foreign { peer: &s.peer, problem: &s.problem }).collect(),
            packet_filter: Filter::of(report.filter.get(family), vteps),
            peers: peers(report, family),
        }
    }
}

#[derive(Serialize)]
struct Filter<'a> {
    in_place: bool,
    masquerades: bool,
    rules: usize,
    known_vteps: usize,
    packets_of_strangers_are: &'static str,
    strangers: &'a [IpAddr],
    problem: Option<&'a str>,
}

impl<'a> Filter<'a> {
    fn of(report: &'a FilterReport, vteps: VtepFilter) -> Self {
        Self {
            in_place: report.in_place,
            masquerades: report.masquerades,
            rules: report.rules,
            known_vteps: report.vteps,
            packets_of_strangers_are: match vteps {
                VtepFilter::Off => "delivered",
                VtepFilter::Audit => "counted and delivered",
                VtepFilter::Enforce => "counted and dropped",
            },
            strangers: &report.strangers,
            problem: report.problem.as_deref(),
        }
    }
}

#[derive(Serialize)]
struct Device<'a> {
    name: &'a str,
    vni: u32,
    port: u16,
    underlay: &'a str,
    local: IpAddr,
    mtu: u32,
    mac: Mac,
    address: IpAddr,
    gbp: bool,
    learning: bool,
    udp_checksum: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    udp_checksum_note: Option<String>,
}

impl<'a> Device<'a> {
    fn of(spec: &'a DeviceSpec, udp_checksum: Option<bool>) -> Self {
        Self {
            name: spec.name.as_str(),
            vni: spec.vni.get(),
            port: spec.port,
            underlay: spec.underlay_name.as_str(),
            local: spec.local,
            mtu: spec.mtu,
            mac: spec.mac,
            address: spec.address,
            gbp: spec.gbp,
            learning: spec.learning,
            udp_checksum,
            udp_checksum_note: udp_checksum.and_then(|is| note(spec, is)),
        }
    }
}

/// What to do about a device that was made otherwise: nothing, mostly.
fn note(spec: &DeviceSpec, is: bool) -> Option<String> {
    (is != spec.udp_checksum).then(|| {
        let (has, would) = if is { ("has", "without one") } else { ("lacks", "with one") };
        format!(
            "this device {has} an outer UDP checksum and keeps it so: that cannot be changed in place; `ip link del {}` \
             makes weft put another in its place, {would}, at the price of a moment without traffic",
            spec.name
        )
    })
}

#[derive(Serialize)]
struct OnePeer {
    state: &'static str,
    because: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_cidr: Option<Subnet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mac: Option<Mac>,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    direct: Option<bool>,
}

fn peers(report: &Report, family: Family) -> BTreeMap<NodeName, OnePeer> {
    let wanted = report.desired.as_ref().and_then(|desired| desired.families.get(family).as_ref());
    let peers = wanted.into_iter().flat_map(|wanted| wanted.peers.values());
    let known: BTreeMap<&NodeName, &Peer> = peers.map(|(name, peer)| (name, peer)).collect();
    let one = |(name, state): (NodeName, PeerState)| {
        let peer = known.get(&name);
        let label = state_label(&state);
        let because = match state {
            PeerState::Installed => None,
            PeerState::Pending(why) | PeerState::Unusable(why) | PeerState::Rejected(why) | PeerState::Absent(why) => {
                Some(why)
            }
        };
        let one = OnePeer {
            state: label,
            because,
            pod_cidr: peer.map(|peer| peer.subnet),
            mac: peer.and_then(|peer| peer.mac),
            public_ip: peer.map(|peer| peer.public_ip),
            direct: peer.zip(wanted).map(|(peer, wanted)| wanted.is_direct(peer.subnet)),
        };
        (name, one)
    };
    peer_states(report, family).into_iter().map(one).collect()
}
