//! A Node object becomes a [`NodeRecord`], or our [`OwnNode`]: the one place where what a node says of
//! itself is judged.
//!
//! Nothing is an error here. A node that cannot be used is a value with its reason; one that takes no
//! part is another. The rules are flannel's, and stricter where flannel would program nonsense.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

use crate::model::addr::{ByFamily, Family, NotASubnet, Subnet, Vni};
use crate::model::node::{Absence, NodeName, NodeRecord, OwnNode, Peer, Standing, Unusable};
use crate::model::settings::Backend;

use super::annotations::{self as keys, shorten};
use super::wire::SlimNode;

/// The API server takes no longer name; a longer one is garbage and not kept.
const MAX_NAME: usize = 253;
/// Our own annotations are kept up to this many characters: a longer one is wrong whatever follows.
const MAX_OWN_VALUE: usize = 1024;

/// The name, if the object has one.
pub fn name(node: &SlimNode<'_>) -> Option<NodeName> {
    let name = node.meta.name.as_str();
    (1..=MAX_NAME).contains(&name.len()).then(|| name.into())
}

/// What a node is to us. `vni` is ours: packets of another would not be taken. `None` is the host-gw backend.
pub fn record(name: NodeName, node: &SlimNode<'_>, vni: Option<Vni>) -> NodeRecord {
    NodeRecord {
        name,
        uid: shorten(&node.meta.uid),
        created: seconds(&node.meta.created).unwrap_or(i64::MAX),
        standing: match gate(node, if vni.is_some() { Backend::Vxlan } else { Backend::HostGw }) {
            Ok(()) => ByFamily::from_fn(|family| standing(node, family, vni)),
            Err(refusal) => ByFamily::from_fn(|family| refused(node, family, &refusal)),
        },
    }
}

/// Our own Node.
pub fn own(name: NodeName, node: &SlimNode<'_>) -> OwnNode {
    let mac = |family| keys::parse_backend_data(node.annotation(keys::backend_data(family))?).ok().map(|data| data.mac);
    let ip = |family, key| keys::parse_public_ip(family, node.annotation(key)?).ok();
    OwnNode {
        name,
        uid: shorten(&node.meta.uid),
        subnet: ByFamily::from_fn(|family| own_subnet(node, family)),
        annotated_mac: ByFamily::from_fn(mac),
        overwrite: ByFamily::from_fn(|family| ip(family, keys::public_ip_overwrite(family))),
        node_public_ip: ByFamily::from_fn(|family| ip(family, keys::node_public_ip(family))),
        annotations: own_annotations(node),
        network_unavailable: node.status.network_unavailable(),
    }
}

/// What a person asked for with an annotation on our own Node that cannot be done: a sentence for each.
pub fn complaints(own: &OwnNode) -> Vec<String> {
    let mut complaints = Vec::new();
    for family in Family::BOTH {
        for key in [keys::public_ip_overwrite(family), keys::node_public_ip(family)] {
            let Some(value) = own.annotations.get(key) else { continue };
            if let Err(reason) = keys::parse_public_ip(family, value) {
                let value = shorten(value);
                complaints.push(format!(
                    "annotation {key} on our own Node {:?} is {value:?}: {reason}; it is ignored until it is corrected",
                    own.name
                ));
            }
        }
    }
    complaints
}

// === Standing ===

/// Why a node is refused before its families are looked at.
enum Refusal {
    Absent(Absence),
    Unusable(Unusable),
}

/// Whether the node takes part at all, by the two annotations that say so.
fn gate(node: &SlimNode<'_>, ours: Backend) -> Result<(), Refusal> {
    if node.annotation(keys::KUBE_SUBNET_MANAGER) != Some("true") {
        return Err(Refusal::Absent(Absence::NotFlannel));
    }
    match node.annotation(keys::BACKEND_TYPE) {
        Some(theirs) if theirs == ours.label() => Ok(()),
        Some("") | None => Err(Refusal::Unusable(Unusable::Missing(keys::BACKEND_TYPE))),
        Some(other) => Err(Refusal::Absent(Absence::OtherBackend { theirs: shorten(other), ours: ours.label() })),
    }
}

fn refused(node: &SlimNode<'_>, family: Family, refusal: &Refusal) -> Standing {
    match refusal {
        Refusal::Absent(absence) => Standing::Absent(absence.clone()),
        Refusal::Unusable(reason) => match pod_cidr(node, family) {
            Ok(None) => Standing::Absent(Absence::NoPodCidr),
            Ok(subnet) => Standing::Unusable { subnet, reason: reason.clone() },
            Err(worse) => Standing::Unusable { subnet: None, reason: worse },
        },
    }
}

fn standing(node: &SlimNode<'_>, family: Family, vni: Option<Vni>) -> Standing {
    let subnet = match pod_cidr(node, family) {
        Ok(Some(subnet)) => subnet,
        Ok(None) => return Standing::Absent(Absence::NoPodCidr),
        Err(reason) => return Standing::Unusable { subnet: None, reason },
    };
    // A node that announces the other family alone is a single-family node. One that announces neither
    // has lost its annotations: what is installed for it stays.
    let announces = |family| {
        node.annotation(keys::backend_data(family)).is_some() || node.annotation(keys::public_ip(family)).is_some()
    };
    if !announces(family) && Family::BOTH.into_iter().any(announces) {
        return Standing::Absent(Absence::NoVtep);
    }
    match peer(node, family, subnet, vni) {
        Ok(peer) => Standing::Usable(peer),
        Err(reason) => Standing::Unusable { subnet: Some(subnet), reason },
    }
}

fn peer(node: &SlimNode<'_>, family: Family, subnet: Subnet, vni: Option<Vni>) -> Result<Peer, Unusable> {
    let text = |key| node.annotation(key).ok_or(Unusable::Missing(key));
    let bad =
        |key, value: &str, reason: &str| Unusable::Annotation { key, value: shorten(value), reason: reason.into() };

    let mac = match vni {
        // Nobody looks at what a host-gw node says of its backend: it says "null".
        None => None,
        Some(vni) => {
            let key = keys::backend_data(family);
            let value = text(key)?;
            let data = keys::parse_backend_data(value).map_err(|reason| bad(key, value, reason))?;
            if let Some(theirs) = data.vni.filter(|theirs| *theirs != u64::from(vni.get())) {
                return Err(Unusable::OtherVni { theirs, ours: vni.get() });
            }
            Some(data.mac)
        }
    };
    let key = keys::public_ip(family);
    let value = text(key)?;
    let public_ip = keys::parse_public_ip(family, value).map_err(|reason| bad(key, value, reason))?;
    Ok(Peer { subnet, mac, public_ip })
}

// === Pod CIDRs ===

/// The pod CIDR of a family: the first of `podCIDRs` that is of it, or `podCIDR` if there is no list.
/// One that does not parse counts for the family that it looks like, so that it costs only that one.
fn pod_cidr(node: &SlimNode<'_>, family: Family) -> Result<Option<Subnet>, Unusable> {
    let list = &node.spec.pod_cidrs;
    if list.len >= super::wire::MAX_CIDRS {
        return Err(Unusable::TooManyPodCidrs(list.len));
    }
    let single = node.spec.pod_cidr.as_str();
    let texts: Vec<&str> = match list.len {
        0 => [single].into_iter().filter(|text| !text.is_empty()).collect(),
        _ => list.first.iter().map(|text| text.0.as_str()).collect(),
    };
    let mut garbled = None;
    for text in texts {
        match text.parse::<Subnet>() {
            Ok(subnet) if subnet.family() == family => return Ok(Some(subnet)),
            Err(reason) if looks_like(text) == family => garbled = garbled.or(Some((text, reason))),
            Ok(_) | Err(_) => {}
        }
    }
    match garbled {
        Some((text, reason)) => Err(bad_cidr(text, reason)),
        None => Ok(None),
    }
}

fn bad_cidr(text: &str, reason: NotASubnet) -> Unusable {
    Unusable::PodCidr { value: shorten(text), reason }
}

fn looks_like(text: &str) -> Family {
    if text.contains(':') { Family::V6 } else { Family::V4 }
}

fn own_subnet(node: &SlimNode<'_>, family: Family) -> Result<Subnet, Box<str>> {
    let name = &node.meta.name;
    match pod_cidr(node, family) {
        Ok(Some(subnet)) => Ok(subnet),
        Ok(None) => Err(format!(
            "our Node {name:?} has no {family} pod CIDR yet (spec.podCIDRs); the controller manager gives it one if it \
             runs with --allocate-node-cidrs and a --cluster-cidr of this family"
        )
        .into()),
        Err(reason) => Err(format!("our Node {name:?}: {reason}").into()),
    }
}

fn own_annotations(node: &SlimNode<'_>) -> BTreeMap<Box<str>, Box<str>> {
    let cut = |text: &str| text.chars().take(MAX_OWN_VALUE).collect::<String>().into();
    let ours = &node.meta.annotations.ours;
    ours.iter().map(|(key, value)| (key.as_str().into(), cut(&value.0))).collect()
}

// === Time ===

/// Seconds since 1970 of a moment as the API server writes `creationTimestamp` (RFC 3339).
fn seconds(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().map(Timestamp::as_second)
}
