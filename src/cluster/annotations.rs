//! The annotations of the contract with flannel: their keys, and the text of their values.

use std::net::IpAddr;

use crate::model::addr::{Family, Mac, Vni};

use super::json::{self, Fill};

/// flannel's default for `--kube-annotation-prefix`.
pub const DEFAULT_PREFIX: &str = "flannel.alpha.coreos.com";
/// Says `true` on a node that takes part.
pub const KUBE_SUBNET_MANAGER: &str = "kube-subnet-manager";
/// Says the name of our own backend on a node that can be our peer; flannel compares it with case.
pub const BACKEND_TYPE: &str = "backend-type";

/// The key of the VTEP's MAC and VNI.
pub const fn backend_data(family: Family) -> &'static str {
    match family {
        Family::V4 => "backend-data",
        Family::V6 => "backend-v6-data",
    }
}

/// The key of the address that a node's packets are sent to.
pub const fn public_ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "public-ip",
        Family::V6 => "public-ipv6",
    }
}

/// The key with which a person or a distribution overrides `public-ip`.
pub const fn public_ip_overwrite(family: Family) -> &'static str {
    match family {
        Family::V4 => "public-ip-overwrite",
        Family::V6 => "public-ipv6-overwrite",
    }
}

/// The key with which a person sets what `--public-ip` sets.
pub const fn node_public_ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "node-public-ip",
        Family::V6 => "node-public-ipv6",
    }
}

/// The annotation keys of this cluster: all begin with one prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    prefix: Box<str>,
}

/// A prefix that flannel would refuse, or that the API server would.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "annotation prefix {0:?} is not of the form domain.name or domain.name/text (lower case letters, digits, \
     '.', '-', '_'; the domain with a dot; at most one slash)"
)]
pub struct BadPrefix(String);

impl Keys {
    /// flannel's rule: without a slash one is added; what follows a slash ends in `-`.
    pub fn new(prefix: &str) -> Result<Self, BadPrefix> {
        let (domain, text) = prefix.split_once('/').unwrap_or((prefix, ""));
        let plain = |part: &str| part.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
        let labels = domain.split('.').all(|label| !label.is_empty() && plain(label));
        if !domain.contains('.') || !labels || !plain(text) {
            return Err(BadPrefix(prefix.to_owned()));
        }
        let dash = if text.is_empty() || text.ends_with('-') { "" } else { "-" };
        Ok(Self { prefix: format!("{domain}/{text}{dash}").into() })
    }

    /// The whole key.
    pub fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// The key without the prefix, if it has it.
    pub fn strip<'a>(&self, full: &'a str) -> Option<&'a str> {
        full.strip_prefix(&*self.prefix)
    }
}

/// How `backend-data` is spelt. Both are the same JSON; see [`super::announce`] for why there are two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// As flannel writes it.
    Compact,
    /// With a space after the comma, and nowhere else: flanneld looks for its own MAC with a string
    /// splitter that a space after a colon would break.
    Spaced,
}

impl Spelling {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Compact => Self::Spaced,
            Self::Spaced => Self::Compact,
        }
    }
}

/// The text of `backend-data`, byte for byte as flannel writes it if compact. `vtep` is `None` with the
/// host-gw backend: `null`, which nobody reads.
pub fn format_backend_data(vtep: Option<(Vni, Mac)>, spelling: Spelling) -> String {
    let space = match spelling {
        Spelling::Compact => "",
        Spelling::Spaced => " ",
    };
    match vtep {
        Some((vni, mac)) => format!(r#"{{"VNI":{vni},{space}"VtepMAC":"{mac}"}}"#),
        None => format!("null{space}"),
    }
}

/// What a node says of its VTEP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendData {
    /// Absent from what old flannels and people with dummy VTEPs write.
    pub vni: Option<u64>,
    /// Fit for a VTEP.
    pub mac: Mac,
}

/// Reads `backend-data` as Go does for flannel: unknown keys ignored, case of keys ignored, the last
/// of several equal keys counts. Beyond that the MAC must be one that Linux takes for a VTEP.
///
/// # Errors
/// What is wrong, as the rest of a sentence that began with the annotation.
pub fn parse_backend_data(text: &str) -> Result<BackendData, &'static str> {
    let mut raw = RawData::default();
    if text.is_empty() {
        return Err("it is empty");
    }
    json::fill(&mut raw, text.as_bytes()).map_err(|_| "it is not JSON")?;
    if !raw.object {
        return Err("it is not a JSON object");
    }
    let vni = match raw.vni.0 {
        Scalar::Nothing => None,
        Scalar::Number(vni) => Some(vni),
        Scalar::Text(_) | Scalar::Other => return Err("VNI is not a whole number"),
    };
    let mac = match raw.mac.0 {
        Scalar::Nothing => return Err("VtepMAC is missing"),
        Scalar::Text(text) if text.is_empty() => return Err("VtepMAC is empty (not announced yet)"),
        Scalar::Text(text) => parse_mac(&text).ok_or("VtepMAC is not a MAC address")?,
        Scalar::Number(_) | Scalar::Other => return Err("VtepMAC is not a string"),
    };
    match mac {
        mac if mac.is_zero() => Err("VtepMAC is all zero"),
        mac if mac.is_multicast() => Err("VtepMAC is a multicast address"),
        mac => Ok(BackendData { vni, mac }),
    }
}

/// Six bytes in any of the three forms that Go takes: `00:00:..`, `00-00-..` and `0000.0000.0000`.
fn parse_mac(text: &str) -> Option<Mac> {
    let dotted = text.len() == 14 && text.bytes().enumerate().all(|(at, b)| (b == b'.') == (at == 4 || at == 9));
    if !dotted {
        return text.parse().ok();
    }
    let digits = text.replace('.', "");
    let pairs: Vec<&str> = (0..6).filter_map(|at| digits.get(2 * at..2 * at + 2)).collect();
    pairs.join(":").parse().ok()
}

/// `backend-data` before it is judged.
#[derive(Default)]
struct RawData {
    object: bool,
    vni: Last,
    mac: Last,
}

impl Fill for RawData {
    fn member(&mut self, key: &str) -> Option<&mut dyn Fill> {
        self.object = true;
        if key.eq_ignore_ascii_case("VNI") {
            Some(&mut self.vni)
        } else if key.eq_ignore_ascii_case("VtepMAC") {
            Some(&mut self.mac)
        } else {
            None
        }
    }
}

/// The last value that a key had.
#[derive(Default)]
struct Last(Scalar);

#[derive(Default)]
enum Scalar {
    #[default]
    Nothing,
    Number(u64),
    Text(String),
    Other,
}

impl Fill for Last {
    fn text(&mut self, text: &str) {
        self.0 = Scalar::Text(text.to_owned());
    }

    fn number(&mut self, number: u64) {
        self.0 = Scalar::Number(number);
    }

    fn other(&mut self) {
        self.0 = Scalar::Other;
    }
}

/// Reads the text of a `public-ip`: an address that a packet can be sent to.
///
/// # Errors
/// What is wrong, as the rest of a sentence that began with the annotation.
pub fn parse_public_ip(family: Family, text: &str) -> Result<IpAddr, &'static str> {
    let ip: IpAddr = text.parse().map_err(|_| "it is not an IP address")?;
    // Go reads ::ffff:10.0.0.1 as the IPv4 address that it stands for.
    let ip = match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        IpAddr::V4(_) => ip,
    };
    if Family::of(ip) != family {
        return Err("it is an address of the other family");
    }
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    match ip {
        _ if ip.is_unspecified() => Err("it is the unspecified address"),
        IpAddr::V4(v4) if v4.octets()[0] == 0 => Err("0.0.0.0/8 cannot be sent to"),
        IpAddr::V4(v4) if v4.is_broadcast() => Err("it is the broadcast address"),
        _ if ip.is_loopback() => Err("it is a loopback address"),
        _ if ip.is_multicast() => Err("it is a multicast address"),
        _ if link_local => Err("it is a link-local address"),
        _ => Ok(ip),
    }
}

/// At most this many characters of a foreign text are kept to be shown.
pub const SHOWN: usize = 64;

/// A foreign text, cut to [`SHOWN`] characters.
pub fn shorten(text: &str) -> Box<str> {
    match text.char_indices().nth(SHOWN) {
        None => text.into(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_follows_flannels_rule() {
        let full = |prefix| Keys::new(prefix).map(|keys| keys.full(BACKEND_TYPE));
        assert_eq!(full(DEFAULT_PREFIX).as_deref(), Ok("flannel.alpha.coreos.com/backend-type"));
        assert_eq!(full("a.b/").as_deref(), Ok("a.b/backend-type"));
        assert_eq!(full("a.b/c").as_deref(), Ok("a.b/c-backend-type"));
        assert_eq!(full("a.b/c-").as_deref(), Ok("a.b/c-backend-type"));
        for bad in ["", "/", "a", "a/b", "a.b/c/d", "a..b", ".a.b", "A.b", "a.b/C", "a b.c", "a.b/c.d", "a.b//"] {
            assert!(full(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_key_of_another_prefix_is_not_ours() {
        let keys = Keys::new("a.b/c").expect("a prefix");
        assert_eq!(keys.strip("a.b/c-public-ip"), Some("public-ip"));
        assert_eq!(keys.strip("a.b/public-ip"), None);
    }

    #[test]
    fn backend_data_is_written_as_flannel_writes_it() {
        let mac = "3A:1F:00:bb:cc:0d".parse().expect("a MAC");
        let vni = Vni::new(1).expect("a VNI");
        let compact = format_backend_data(Some((vni, mac)), Spelling::Compact);
        assert_eq!(compact, r#"{"VNI":1,"VtepMAC":"3a:1f:00:bb:cc:0d"}"#);
        let spaced = format_backend_data(Some((vni, mac)), Spelling::Spaced);
        assert_eq!(spaced, r#"{"VNI":1, "VtepMAC":"3a:1f:00:bb:cc:0d"}"#);
        assert_eq!(parse_backend_data(&compact), parse_backend_data(&spaced));
        assert_eq!([Spelling::Compact, Spelling::Spaced].map(|how| format_backend_data(None, how)), ["null", "null "]);
    }

    #[test]
    fn flanneld_would_find_its_own_mac_in_either_spelling() {
        // What flanneld does to find the MAC it had: trim quotes and braces, cut at `:"`, want two parts.
        let mac: Mac = "3a:1f:00:bb:cc:0d".parse().expect("a MAC");
        for spelling in [Spelling::Compact, Spelling::Spaced] {
            let text = format_backend_data(Vni::new(4096).map(|vni| (vni, mac)), spelling);
            let parts: Vec<_> = text.trim_matches(['"', '}']).split(":\"").collect();
            assert_eq!(parts.len(), 2, "{text}");
            assert_eq!(parts.last().map(|part| part.parse()), Some(Ok(mac)));
        }
    }

    #[test]
    fn backend_data_is_read_as_go_reads_it() {
        let read = |text| parse_backend_data(text).map(|data| (data.vni, data.mac.to_string()));
        let mac = || "3a:1f:00:bb:cc:0d".to_owned();
        for text in [
            r#"{"VtepMAC":"3a:1f:00:bb:cc:0d"}"#,
            r#"{"vtepmac":"3A-1F-00-BB-CC-0D"}"#,
            r#"{"VtepMAC":"3a1f.00bb.cc0d"}"#,
            r#"{"VtepMAC":"","VTEPMAC":"3a:1f:00:bb:cc:0d","Extra":{"a":[1,2,{}]}}"#,
        ] {
            assert_eq!(read(text), Ok((None, mac())), "{text}");
        }
        for text in [
            r#"{"VNI":7,"VtepMAC":"3a:1f:00:bb:cc:0d"}"#,
            r#" { "vni" : 7 , "vtepMac" : "3a:1f:00:bb:cc:0d" } "#,
            r#"{"VNI":"x","vni":7,"VtepMAC":"3a:1f:00:bb:cc:0d"}"#,
        ] {
            assert_eq!(read(text), Ok((Some(7), mac())), "{text}");
        }
    }

    #[test]
    fn an_address_that_no_packet_reaches_is_refused() {
        for text in ["0.0.0.0", "0.1.2.3", "127.0.0.1", "169.254.1.1", "224.0.0.1", "255.255.255.255", "::1", "fd00::1"]
        {
            assert!(parse_public_ip(Family::V4, text).is_err(), "{text}");
        }
        for text in ["::", "::1", "fe80::1", "ff02::1", "10.0.0.1", "::ffff:10.0.0.1", "fe80::1%eth0"] {
            assert!(parse_public_ip(Family::V6, text).is_err(), "{text}");
        }
        assert_eq!(parse_public_ip(Family::V4, "::ffff:10.0.0.1"), Ok([10, 0, 0, 1].into()));
        assert!(parse_public_ip(Family::V6, "2001:DB8::1").is_ok());
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(&*shorten("short"), "short");
        let long = "é".repeat(1000);
        assert_eq!(shorten(&long).chars().count(), SHOWN + 1);
    }
}
