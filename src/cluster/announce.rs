//! What we tell the cluster of ourselves: exactly flannel's annotations on our own Node.
//!
//! Deciding is pure and repeated on every change of our Node, so that an edit by somebody else is put
//! right; sending is one request, whose repetition is the caller's.
//!
//! One subtlety. A running flanneld with both families enabled takes an update of a Node as no change if
//! the three annotations of *either* family are textually as before. If only our IPv4 address changes, it
//! keeps sending to the old one until it restarts. So when one family changes, the other's
//! `backend-data` is written in its other [`Spelling`]: the same JSON, another text.

use serde_json::{Map, Value, json};

use crate::model::addr::{ByFamily, Family, Mac, Vni};
use crate::model::node::{NodeName, OwnNode};
use crate::model::settings::Backend;

use super::annotations::{self as keys, Keys, Spelling};
use super::api::NodesApi;
use super::client::Connection;
use super::node;
use super::problem::Problem;
use super::wire::SlimNode;

use std::net::IpAddr;
use std::time::Duration;

/// Where we are reached in one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The VNI and the MAC of the device, as they are; `None` with the host-gw backend.
    pub vtep: Option<(Vni, Mac)>,
    /// The address to be reached at, unless the Node has a `public-ip-overwrite`.
    pub public_ip: IpAddr,
}

impl Place {
    const fn backend(&self) -> Backend {
        if self.vtep.is_some() { Backend::Vxlan } else { Backend::HostGw }
    }
}

/// Annotations to be written, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    annotations: Map<String, Value>,
}

impl Patch {
    /// The body of the PATCH.
    pub fn body(&self) -> Vec<u8> {
        json!({ "metadata": { "annotations": self.annotations } }).to_string().into_bytes()
    }

    /// Keys and values, for the log.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.annotations.iter().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
    }
}

/// What is to be written so that our Node says what it should; `None` if it does.
///
/// Families without a place are left as they are: flannel never takes an annotation away either.
pub fn decide(keys: &Keys, places: &ByFamily<Option<Place>>, own: &OwnNode) -> Option<Patch> {
    let differs = |family: Family| places.get(family).is_some_and(|place| !says(own, family, &place));
    let backend = places.v4.or(places.v6)?.backend();
    let common = [(keys::KUBE_SUBNET_MANAGER, "true"), (keys::BACKEND_TYPE, backend.label())];
    let changed = ByFamily::from_fn(differs);
    let mut annotations = Map::new();
    for (key, value) in common {
        if own.annotations.get(key).map(|text| &**text) != Some(value) {
            annotations.insert(keys.full(key), value.into());
        }
    }
    for family in Family::BOTH {
        let Some(place) = places.get(family) else { continue };
        let other = match family {
            Family::V4 => changed.v6,
            Family::V6 => changed.v4,
        };
        if *changed.get(family) {
            let data = keys::format_backend_data(place.vtep, Spelling::Compact);
            annotations.insert(keys.full(keys::backend_data(family)), data.into());
            annotations.insert(keys.full(keys::public_ip(family)), advertised(own, family, place).into());
        } else if other {
            let spelling = spelling(own, family, place).map_or(Spelling::Compact, Spelling::other);
            let data = keys::format_backend_data(place.vtep, spelling);
            annotations.insert(keys.full(keys::backend_data(family)), data.into());
        }
    }
    (!annotations.is_empty()).then_some(Patch { annotations })
}

/// Sends the body of a patch of our Node's status. Returns what our Node says after it, which the watch shows
/// later. The caller decides anew and tries again if it fails.
pub async fn send(
    connection: &Connection,
    keys: &Keys,
    name: &NodeName,
    patch: Vec<u8>,
    patience: Duration,
) -> Result<OwnNode, Problem> {
    let answer = NodesApi::new(connection.clone(), patience).patch_status(name, patch).await?;
    let node = SlimNode::read(keys, &answer)?;
    if node.meta.name == **name {
        Ok(node::own(name.clone(), &node))
    } else {
        Err(Problem::Garbage("something else than our Node in answer to a patch of it".to_owned()))
    }
}

/// Whether the Node says this of us, in either spelling.
fn says(own: &OwnNode, family: Family, place: &Place) -> bool {
    let address = own.annotations.get(keys::public_ip(family)).map(|text| &**text);
    spelling(own, family, place).is_some() && address == Some(&advertised(own, family, place))
}

/// How the Node spells our `backend-data`; `None` if it says something else.
fn spelling(own: &OwnNode, family: Family, place: &Place) -> Option<Spelling> {
    let text = own.annotations.get(keys::backend_data(family))?;
    let matches = |spelling: &Spelling| **text == *keys::format_backend_data(place.vtep, *spelling);
    [Spelling::Compact, Spelling::Spaced].into_iter().find(matches)
}

/// The text of `public-ip`: an overwrite is copied as it stands, as flannel does.
fn advertised(own: &OwnNode, family: Family, place: &Place) -> String {
    let overwrite = own.annotations.get(keys::public_ip_overwrite(family));
    match (own.overwrite.get(family), overwrite) {
        (Some(_), Some(text)) => text.to_string(),
        _ => place.public_ip.to_string(),
    }
}
