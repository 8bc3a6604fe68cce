//! The values that flags may have, each with its own sentence of what is allowed.

use std::net::IpAddr;
use std::time::Duration;

use http::Uri;
use regex_lite::Regex;

use crate::cluster::annotations::Keys;
use crate::model::addr::{Family, Subnet};

/// Readers for clap: the error is what comes after "invalid value 'x' for '--flag':".
pub type Parsed<T> = Result<T, String>;

/// The name of a Node object: a DNS subdomain (RFC 1123), as the API server insists.
pub fn node_name(text: &str) -> Parsed<String> {
    let label = |label: &str| {
        !label.starts_with('-')
            && !label.ends_with('-')
            && !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if text.len() <= 253 && text.split('.').all(label) {
        return Ok(text.to_owned());
    }
    Err("a Node's name has lower-case letters, digits, '-' and '.', and at most 253 of them".to_owned())
}

/// The address of an API server.
pub fn api_url(text: &str) -> Parsed<Uri> {
    let uri: Option<Uri> = text.parse().ok();
    uri.filter(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
    })
    .ok_or_else(|| "an address such as https://10.0.0.1:6443 is expected".to_owned())
}

/// The prefix of flannel's annotations, completed as flannel completes it.
pub fn annotation_prefix(text: &str) -> Parsed<String> {
    Keys::new(text).map(|keys| keys.full("")).map_err(|error| error.to_string())
}

/// The name or an address of an interface.
pub fn interface(text: &str) -> Parsed<String> {
    // dev_valid_name() in net/core/dev.c, and IFNAMSIZ with its closing zero.
    let name = text.len() <= 15 && !text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace());
    if text.parse::<IpAddr>().is_ok() || (name && text != "." && text != "..") {
        return Ok(text.to_owned());
    }
    Err("an interface's name (at most 15 bytes) or one of its addresses is expected".to_owned())
}

/// A boolean in any of Go's spellings (`strconv.ParseBool`).
pub fn boolean(text: &str) -> Parsed<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("allowed is true or false".to_owned()),
    }
}

/// A regular expression, not anchored.
pub fn regex(text: &str) -> Parsed<Regex> {
    Regex::new(text).map_err(|error| format!("not a regular expression: {error}"))
}

/// Any address that can be routed to.
pub fn address(text: &str) -> Parsed<IpAddr> {
    let ip: Option<IpAddr> = text.parse().ok();
    ip.filter(|ip| !ip.is_unspecified() && !ip.is_multicast() && !ip.is_loopback())
        .ok_or_else(|| "a unicast IP address is expected".to_owned())
}

/// An IPv4 address to advertise.
pub fn ipv4(text: &str) -> Parsed<IpAddr> {
    of_family(text, Family::V4).ok_or_else(|| "a unicast IPv4 address is expected".to_owned())
}

/// An IPv6 address to advertise.
pub fn ipv6(text: &str) -> Parsed<IpAddr> {
    of_family(text, Family::V6).ok_or_else(|| "a unicast IPv6 address is expected".to_owned())
}

fn of_family(text: &str, family: Family) -> Option<IpAddr> {
    address(text).ok().filter(|ip| Family::of(*ip) == family)
}

/// A network of either family.
pub fn cidr(text: &str) -> Parsed<Subnet> {
    text.parse().map_err(|_| "a network such as 192.0.2.0/24 or fd00::/64 is expected".to_owned())
}

/// A time such as `60s`, `2m`, `1h`; a bare number is in seconds. One second to one hour.
pub fn period(text: &str) -> Parsed<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" | "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        _ => None,
    };
    let seconds = factor.zip(digits.parse::<u64>().ok()).and_then(|(factor, number)| number.checked_mul(factor));
    seconds
        .filter(|seconds| (1..=3600).contains(seconds))
        .map(Duration::from_secs)
        .ok_or_else(|| "a time from 1s to 1h is expected, such as 60s or 2m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_completed_as_flannel_completes_it() {
        for (given, completed) in [
            ("flannel.alpha.coreos.com", "flannel.alpha.coreos.com/"),
            ("flannel.alpha.coreos.com/", "flannel.alpha.coreos.com/"),
            ("example.org/overlay", "example.org/overlay-"),
            ("example.org/overlay-", "example.org/overlay-"),
            ("a_b.c-d/x_y", "a_b.c-d/x_y-"),
        ] {
            assert_eq!(annotation_prefix(given).as_deref(), Ok(completed), "{given}");
            assert_eq!(annotation_prefix(completed).as_deref(), Ok(completed), "{completed}");
        }
        for wrong in ["", "/", "nodots", "nodots/x", "a.b/c/d", "A.b", "a..b", ".a.b", "a.b/X", "a.b/x.y", "a.b c"] {
            assert!(annotation_prefix(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_period_has_a_unit_and_bounds() {
        assert_eq!(period("60"), Ok(Duration::from_secs(60)));
        assert_eq!(period("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(period("1h"), Ok(Duration::from_secs(3600)));
        for wrong in ["", "s", "0", "0s", "-1s", "1.5s", "61m", "2h", "1d", "1 s", "99999999999999999999h", "1é"] {
            assert!(period(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_node_name_is_a_dns_subdomain() {
        for right in ["a", "worker-1", "ip-10-0-0-1.ec2.internal"] {
            assert!(node_name(right).is_ok(), "{right}");
        }
        for wrong in ["", "Worker", "a_b", "-a", "a-", "a..b", "a/b", &"a".repeat(254)] {
            assert!(node_name(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_api_address_has_a_scheme_and_a_host() {
        for right in ["https://10.0.0.1:6443", "http://[::1]:8080", "https://api.example.org"] {
            assert!(api_url(right).is_ok(), "{right}");
        }
        for wrong in ["", "10.0.0.1:6443", "ftp://x", "https://", "/api", "https//x"] {
            assert!(api_url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_interface_is_a_name_or_an_address() {
        for right in ["eth0", "enp0s31f6", "eth0.100", "10.0.0.1", "fd00::1", "2001:db8:aaaa:bbbb::1234"] {
            assert!(interface(right).is_ok(), "{right}");
        }
        for wrong in ["eth0 ", "a/b", "..", "sixteen-bytes-xx", "eth0:1"] {
            assert!(interface(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_advertised_address_is_unicast_and_of_its_family() {
        assert!(ipv4("192.0.2.1").is_ok());
        assert!(ipv6("2001:db8::1").is_ok());
        for wrong in ["2001:db8::1", "0.0.0.0", "127.0.0.1", "224.0.0.1", "192.0.2.1/24", "host"] {
            assert!(ipv4(wrong).is_err(), "{wrong}");
        }
        for wrong in ["192.0.2.1", "::", "::1", "ff02::1"] {
            assert!(ipv6(wrong).is_err(), "{wrong}");
        }
    }
}
