//! What the device needs before any row can be put on it.

use crate::model::addr::Family;
use crate::model::device::DeviceSpec;
use crate::model::host::{Address, Host, Link, LinkKind, VxlanAttributes};
use crate::model::op::{Dev, LinkOp};
use crate::model::settings::Overlay;

/// How the device compares with what is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceState {
    /// It is as wanted; its tables may be worked on.
    Ready(Dev),
    /// These changes, in this order; then look again.
    Needs(Vec<LinkOp>),
    /// Something that is not ours is in the way: a sentence for the operator.
    Blocked(String),
}

/// Compares. `recreate` asks for a new device because the kernel refused a change in place.
pub fn compare(spec: &DeviceSpec, host: &Host, recreate: bool) -> DeviceState {
    let Some(link) = host.link(&spec.name) else {
        return match rival(spec, host) {
            Some(problem) => DeviceState::Blocked(problem),
            None => DeviceState::Needs(vec![LinkOp::Create(spec.clone())]),
        };
    };
    let dev = Dev { index: link.index, name: link.name.clone() };
    let LinkKind::Vxlan(vxlan) = &link.kind else {
        return DeviceState::Blocked(format!(
            "an interface {} exists that is not a VXLAN device: remove or rename it (`ip -d link show {}`); weft \
             does not touch it and tries again",
            spec.name, spec.name
        ));
    };
    if recreate || !can_be_changed_into(vxlan, spec) {
        return DeviceState::Needs(vec![LinkOp::Delete(dev), LinkOp::Create(spec.clone())]);
    }
    let mut ops = in_place(spec, link, vxlan, &dev, host);
    ops.extend(addresses(spec, link, &dev));
    if ops.is_empty() { DeviceState::Ready(dev) } else { DeviceState::Needs(ops) }
}

/// The kernel refuses to change these on an existing device (`vxlan_nl2conf`, drivers/net/vxlan).
fn can_be_changed_into(vxlan: &VxlanAttributes, spec: &DeviceSpec) -> bool {
    let family_fits = vxlan.local.is_none_or(|local| Family::of(local) == spec.family);
    let of_flannels_kind = !vxlan.alien && !vxlan.special;
    vxlan.vni == spec.vni && vxlan.port == spec.port && vxlan.gbp == spec.gbp && of_flannels_kind && family_fits
}

/// Another device with our VNI and port: the kernel would answer EEXIST to ours.
fn rival(spec: &DeviceSpec, host: &Host) -> Option<String> {
    let rival = host.links.iter().find(|link| match &link.kind {
        LinkKind::Vxlan(vxlan) => {
            let family = vxlan.local.map_or(Family::V4, Family::of);
            vxlan.vni == spec.vni && vxlan.port == spec.port && family == spec.family && !vxlan.alien
        }
        LinkKind::Other(_) => false,
    })?;
    Some(format!(
        "VXLAN device {} already has VNI {} on UDP port {}: remove it (`ip link del {}`) or give weft another VNI or \
         Port in net-conf.json; weft tries again",
        rival.name, spec.vni, spec.port, rival.name
    ))
}

/// Devices of families that are off: a sentence for each. Whatever is on them carries traffic by old rows, which
/// nobody keeps right; but who turned a family off may turn it on again, so none is removed unasked.
pub fn left_over(overlay: &Overlay, host: &Host) -> Vec<String> {
    let off = Family::BOTH.into_iter().filter(|family| overlay.networks.get(*family).is_none());
    let links = off.filter_map(|family| Some((family, host.link(&overlay.device(family))?)));
    let ours = links.filter(|(_, link)| matches!(link.kind, LinkKind::Vxlan(_)));
    let say = |(family, link): (Family, &Link)| {
        let name = &link.name;
        format!(
            "{family} is off in net-conf.json, and {name} is still there: its rows carry packets and nobody keeps them \
             right; `ip link del {name}` removes them all, or turn {family} on again"
        )
    };
    ours.map(say).collect()
}

/// What takes the device's packets away: a bridge or VRF that it was made a port of. Not undone, for that is
/// never an accident.
pub fn enslaved(spec: &DeviceSpec, host: &Host) -> Option<String> {
    let master = host.link(&spec.name)?.master?;
    let master = host.link_at(master).map_or_else(|| format!("interface {}", master.0), |link| link.name.to_string());
    Some(format!(
        "{} is a port of {master}, which takes what comes in for pods: `ip link set {} nomaster`",
        spec.name, spec.name
    ))
}

fn in_place(spec: &DeviceSpec, link: &Link, vxlan: &VxlanAttributes, dev: &Dev, host: &Host) -> Vec<LinkOp> {
    let mut ops = Vec::new();
    let mut need = |wrong: bool, op: LinkOp| {
        if wrong {
            ops.push(op);
        }
    };
    let underlay = Dev { index: spec.underlay, name: spec.underlay_name.clone() };
    need(link.ipv6_disabled == Some(true) && spec.family == Family::V6, LinkOp::EnableIpv6(dev.clone()));
    need(!link.addrgen_none && link.ipv6_disabled.is_some(), LinkOp::AddrGenNone(dev.clone()));
    need(vxlan.underlay != Some(spec.underlay), LinkOp::SetUnderlay(dev.clone(), underlay));
    need(vxlan.local != Some(spec.local), LinkOp::SetLocal(dev.clone(), spec.local));
    need(vxlan.learning != spec.learning, LinkOp::SetLearning(dev.clone(), spec.learning));
    need(vxlan.ttl != 0, LinkOp::SetTtl(dev.clone(), 0));
    need(link.mac != Some(spec.mac), LinkOp::SetMac(dev.clone(), spec.mac));
    need(link.mtu != spec.mtu && host.link_at(spec.underlay).is_some(), LinkOp::SetMtu(dev.clone(), spec.mtu));
    need(!link.up, LinkOp::Up(dev.clone()));
    ops
}

/// Our address comes before the others go: with its last address the device loses its IPv4 routes
/// and neighbours. Addresses outside the pod network are somebody else's business, but on the IPv6
/// device flannel removes every one that is not link-local, so nobody can count on one there.
fn addresses(spec: &DeviceSpec, link: &Link, dev: &Dev) -> Vec<LinkOp> {
    let full = spec.family.bits();
    let ours = |address: &&Address| {
        let works = address.global && !address.deprecated && !address.failed;
        address.ip == spec.address && address.len == full && works
    };
    // Linux would answer EEXIST to ours beside it. Of link scope or deprecated, it is not the source of what this
    // host sends to pods: the answers would go past the overlay.
    let in_the_way = |address: &&Address| {
        address.ip == spec.address && (spec.family == Family::V6 || address.len == full) && !ours(address)
    };
    let mut ops = Vec::new();
    if !link.addresses.iter().any(|address| ours(&address)) {
        let same = link.addresses.iter().filter(in_the_way);
        ops.extend(same.map(|address| LinkOp::DelAddress(dev.clone(), address.ip, address.len)));
        ops.push(LinkOp::AddAddress(dev.clone(), spec.address, full));
    }
    let foreign = |address: &&Address| match spec.family {
        Family::V4 => !spec.network.contains(address.ip),
        Family::V6 => !address.global,
    };
    let of_family = link.addresses.iter().filter(|address| Family::of(address.ip) == spec.family);
    let extra = of_family.filter(|address| !ours(address) && !foreign(address));
    let extra = extra.filter(|address| !in_the_way(address));
    ops.extend(extra.map(|address| LinkOp::DelAddress(dev.clone(), address.ip, address.len)));
    ops
}
