//! flannel's `net-conf.json`, as it stands in clusters, to [`Overlay`].
//!
//! The rules are those of flannel's `pkg/subnet/config.go` and `pkg/backend/vxlan`, in Kubernetes
//! mode; where flannel takes what it is given and breaks later, weft says what is allowed at once.

use std::ops::RangeInclusive;

use serde_json::Value;

use super::json::{Fields, Json};
use crate::model::addr::{ByFamily, Family, Subnet, Vni};
use crate::model::settings::{Backend, DEFAULT_PORT, Overlay};

/// The file, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetConf {
    /// What it says.
    pub overlay: Overlay,
    /// What an operator should know about it: settings that were ignored or filled in. One sentence each.
    pub notices: Vec<String>,
}

/// Why the file cannot be used. Each reads as a sentence after the file's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetConfError {
    /// It is not JSON.
    #[error("line {line}, column {column}: {reason}")]
    Syntax {
        /// Counts from 1.
        line: usize,
        /// Counts from 1, in bytes.
        column: usize,
        /// In the parser's words.
        reason: String,
    },
    /// It is JSON, but not an object.
    #[error("the file holds {0}; an object with \"Network\" and \"Backend\" is expected")]
    NotAnObject(String),
    /// A setting has a value that it may not have.
    #[error("{key} is {value}; allowed is {allowed}")]
    Value {
        /// The setting.
        key: String,
        /// What stands there, shortened.
        value: String,
        /// What may.
        allowed: String,
    },
    /// A setting that must be there is not.
    #[error("{key} is missing: {why}")]
    Missing {
        /// The setting.
        key: &'static str,
        /// Why it must be there and what to do.
        why: &'static str,
    },
    /// `EnableIPv4` and `EnableIPv6` are both false.
    #[error("EnableIPv4 and EnableIPv6 are both false; at least one must be true")]
    NoFamily,
    /// Another backend of flannel's.
    #[error(
        "Backend.Type is {0:?}; weft has \"vxlan\" and \"host-gw\": a cluster on another backend stays with flannel"
    )]
    OtherBackend(String),
}

/// The smallest inner MTU that IPv6 works with (RFC 8200 section 5).
const IPV6_MIN_MTU: u32 = 1280;
/// The smallest MTU of an IPv4 link (RFC 791); Linux refuses a VXLAN device with less.
const IPV4_MIN_MTU: u32 = 68;
/// The largest IP packet, in bytes.
const MAX_MTU: u32 = 65535;

/// Reads the text of the file.
///
/// # Errors
/// If it is not JSON, or a setting that weft knows has a value that it may not have.
pub fn parse(text: &str) -> Result<NetConf, NetConfError> {
    let mut notices = Vec::new();
    let mut top = match serde_json::from_str(text).map_err(|error| syntax(&error))? {
        Json::Object(members) => Fields::new("", members),
        Json::Plain(value) => return Err(NetConfError::NotAnObject(Json::Plain(value).to_string())),
    };
    let networks = networks(&mut top, &mut notices)?;
    ignore_known(&mut top, &mut notices)?;
    let backend = top.take("Backend", &mut notices);
    notices.extend(top.leftovers().map(|key| format!("{key} is not a setting that weft knows; it is ignored")));
    let overlay = backend_overlay(backend, networks, &mut notices)?;
    Ok(NetConf { overlay, notices })
}

fn syntax(error: &serde_json::Error) -> NetConfError {
    let text = error.to_string();
    let reason = text.rsplit_once(" at line ").map_or(text.as_str(), |(reason, _)| reason);
    NetConfError::Syntax { line: error.line(), column: error.column(), reason: reason.to_owned() }
}

fn networks(top: &mut Fields, notices: &mut Vec<String>) -> Result<ByFamily<Option<Subnet>>, NetConfError> {
    let v4 = network(top, Family::V4, notices)?;
    let v6 = network(top, Family::V6, notices)?;
    if v4.is_none() && v6.is_none() {
        return Err(NetConfError::NoFamily);
    }
    Ok(ByFamily { v4, v6 })
}

/// The pod network of a family, if the family is on. The network of a family that is off is not
/// looked at: K3s leaves `::/0` there.
fn network(top: &mut Fields, family: Family, notices: &mut Vec<String>) -> Result<Option<Subnet>, NetConfError> {
    let (switch, default, key, missing) = match family {
        Family::V4 => {
            ("EnableIPv4", true, "Network", "it is the IPv4 pod network, and EnableIPv4 is true unless set to false")
        }
        Family::V6 => ("EnableIPv6", false, "IPv6Network", "it is the IPv6 pod network, and EnableIPv6 is true"),
    };
    let enabled = boolean(top, switch, notices)?.unwrap_or(default);
    let value = top.take(key, notices).filter(|value| *value != Json::Plain("".into()));
    match (enabled, value) {
        (true, Some(value)) => pod_network(key, &value, family).map(Some),
        (true, None) => Err(NetConfError::Missing { key, why: missing }),
        (false, _) => Ok(None),
    }
}

fn pod_network(key: &str, value: &Json, family: Family) -> Result<Subnet, NetConfError> {
    let example = match family {
        Family::V4 => "an IPv4 CIDR such as \"10.244.0.0/16\", of unicast addresses",
        Family::V6 => "an IPv6 CIDR such as \"fd00:10:244::/56\", of unicast addresses",
    };
    let subnet = match value {
        Json::Plain(Value::String(text)) => text.parse::<Subnet>().ok(),
        _ => None,
    };
    subnet
        .filter(|subnet| subnet.family() == family)
        .filter(|subnet| {
            // 0.0.0.0/0 is unspecified as well.
            let base = subnet.base();
            !base.is_unspecified() && !base.is_loopback() && !base.is_multicast()
        })
        .ok_or_else(|| wrong(key.to_owned(), value, example))
}

/// Settings of flannel's that mean nothing here, but whose presence is no mistake.
fn ignore_known(top: &mut Fields, notices: &mut Vec<String>) -> Result<(), NetConfError> {
    for key in ["SubnetLen", "SubnetMin", "SubnetMax", "IPv6SubnetLen", "IPv6SubnetMin", "IPv6SubnetMax"] {
        if top.take(key, notices).is_some() {
            notices.push(format!("{key} has no effect: a node's pod CIDR comes from its Node object"));
        }
    }
    if boolean(top, "EnableNFTables", notices)? == Some(true) {
        notices.push(
            "EnableNFTables has no effect: weft's packet rules are always of nftables, and --ip-masq turns them on"
                .to_owned(),
        );
    }
    Ok(())
}

fn backend_overlay(
    backend: Option<Json>,
    networks: ByFamily<Option<Subnet>>,
    notices: &mut Vec<String>,
) -> Result<Overlay, NetConfError> {
    let mut overlay = Overlay {
        networks,
        backend: Backend::Vxlan,
        vni: DEFAULT_VNI,
        port: DEFAULT_PORT,
        mtu: None,
        gbp: false,
        learning: false,
        direct_routing: false,
    };
    let mut fields = match backend {
        None => {
            notices
                .push("Backend is missing; weft takes it as {\"Type\": \"vxlan\"} (flannel would use udp)".to_owned());
            return Ok(overlay);
        }
        Some(Json::Object(members)) => Fields::new("Backend.", members),
        Some(other) => return Err(wrong("Backend".to_owned(), &other, "an object such as {\"Type\": \"vxlan\"}")),
    };
    overlay.backend = backend_type(&mut fields, notices)?;
    if let Some(vni) = number(&mut fields, "VNI", 0..=Vni::MAX, "", notices)? {
        overlay.vni = Vni::new(vni).unwrap_or(DEFAULT_VNI);
    }
    match overlay.backend {
        Backend::Vxlan => vxlan(&mut overlay, &mut fields, notices)?,
        // The VNI still says which device of before is to go. flannel takes the underlay's MTU here whatever is set.
        Backend::HostGw => {}
    }
    for key in ["Name", "MacPrefix"] {
        if fields.take(key, notices).is_some() {
            notices.push(format!("Backend.{key} is for Windows nodes; it is ignored here"));
        }
    }
    let backend = overlay.backend.label();
    notices.extend(
        fields.leftovers().map(|key| format!("{key} is not a setting of the {backend} backend; it is ignored")),
    );
    Ok(overlay)
}

fn vxlan(overlay: &mut Overlay, fields: &mut Fields, notices: &mut Vec<String>) -> Result<(), NetConfError> {
    if let Some(port) = number(fields, "Port", 0..=u32::from(u16::MAX), ", 0 meaning 8472", notices)? {
        overlay.port = u16::try_from(port).ok().filter(|port| *port != 0).unwrap_or(DEFAULT_PORT);
    }
    overlay.mtu = outer_mtu(fields, &overlay.networks, notices)?;
    overlay.gbp = boolean(fields, "GBP", notices)?.unwrap_or(false);
    overlay.learning = boolean(fields, "Learning", notices)?.unwrap_or(false);
    overlay.direct_routing = boolean(fields, "DirectRouting", notices)?.unwrap_or(false);
    Ok(())
}

/// flannel's `defaultVNI`.
const DEFAULT_VNI: Vni = match Vni::new(1) {
    Some(vni) => vni,
    None => unreachable!(),
};

fn backend_type(fields: &mut Fields, notices: &mut Vec<String>) -> Result<Backend, NetConfError> {
    match fields.take("Type", notices) {
        Some(Json::Plain(Value::String(name))) => {
            let mut known = [Backend::Vxlan, Backend::HostGw].into_iter();
            known.find(|known| name.eq_ignore_ascii_case(known.label())).ok_or(NetConfError::OtherBackend(name))
        }
        Some(other) => Err(wrong(fields.name("Type"), &other, "\"vxlan\" or \"host-gw\"")),
        None => Err(NetConfError::Missing {
            key: "Backend.Type",
            why: "a Backend must say what it is; weft knows \"vxlan\" and \"host-gw\"",
        }),
    }
}

/// `Backend.MTU` is the outer MTU: what VXLAN adds comes off it.
fn outer_mtu(
    fields: &mut Fields,
    networks: &ByFamily<Option<Subnet>>,
    notices: &mut Vec<String>,
) -> Result<Option<u32>, NetConfError> {
    let (least, why) = match networks.v6 {
        Some(_) => (IPV6_MIN_MTU + Family::V6.vxlan_overhead(), " (IPv6 needs 1280 after VXLAN's 70 bytes)"),
        None => (IPV4_MIN_MTU + Family::V4.vxlan_overhead(), " (the underlay's MTU, before VXLAN's 50 bytes)"),
    };
    number(fields, "MTU", least..=MAX_MTU, why, notices)
}

fn number(
    fields: &mut Fields,
    key: &'static str,
    range: RangeInclusive<u32>,
    remark: &str,
    notices: &mut Vec<String>,
) -> Result<Option<u32>, NetConfError> {
    let Some(value) = fields.take(key, notices) else { return Ok(None) };
    let number = match &value {
        Json::Plain(value) => value.as_u64().and_then(|number| u32::try_from(number).ok()),
        Json::Object(_) => None,
    };
    let allowed = || format!("a whole number from {} to {}{remark}", range.start(), range.end());
    let in_range = number.filter(|number| range.contains(number));
    in_range.map(Some).ok_or_else(|| wrong(fields.name(key), &value, &allowed()))
}

fn boolean(fields: &mut Fields, key: &'static str, notices: &mut Vec<String>) -> Result<Option<bool>, NetConfError> {
    match fields.take(key, notices) {
        None => Ok(None),
        Some(Json::Plain(Value::Bool(value))) => Ok(Some(value)),
        Some(other) => Err(wrong(fields.name(key), &other, "true or false, without quotes")),
    }
}

fn wrong(key: String, value: &Json, allowed: &str) -> NetConfError {
    NetConfError::Value { key, value: value.to_string(), allowed: allowed.to_owned() }
}
