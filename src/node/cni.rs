//! The CNI network configuration: what the container runtime reads to give a pod its interface.
//!
//! Written from the same values as [`SubnetEnv`], in one of two forms: the standard plugins, or flannel's
//! plugin, which reads `subnet.env` and calls the same ones. Both call the network `cbr0` and the
//! bridge `cni0`: then host-local's leases (`/var/lib/cni/networks/cbr0`) and the bridge are one and
//! the same, whichever file a pod was started under. No address is handed out twice, and a pod of the
//! old file can be ended under the new one.
//!
//! The rules of libcni: of the files in the directory that end in `.conf`, `.conflist` or `.json` the
//! runtime takes the first by name, and a key that it does not know means nothing to it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::{fs, io};

use serde::Serialize;
use serde_json::Value;

use super::subnet_env::SubnetEnv;
use crate::model::addr::{Family, Subnet};
use crate::model::settings::CniForm;

/// Our file's name. It comes after `10-flannel.conflist`: a node that has flannel's goes on using it
/// until somebody takes that away.
pub const FILE_NAME: &str = "10-weft.conflist";
/// Read and written by root only, as CIS benchmarks ask for; no runtime runs as anybody else.
pub const MODE: u32 = 0o600;
/// The top-level key that makes a file ours.
pub const MARK: &str = "weft";
/// flannel's name of the network; host-local keeps its leases under it.
pub const NETWORK: &str = "cbr0";
/// The pods' bridge.
pub const BRIDGE: &str = "cni0";

const NOTE: &str = "written by weft, and again whenever it is changed; see --cni-conf";
/// flannel's. Every plugin since 2018 speaks it, and nothing here needs a newer one.
const VERSION: &str = "0.3.1";
/// Where flannel's plugin looks by itself.
const DEFAULT_SUBNET_FILE: &str = "/run/flannel/subnet.env";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ConfList<'a> {
    name: &'static str,
    cni_version: &'static str,
    weft: &'static str,
    plugins: (Main<'a>, Portmap),
}

#[derive(Serialize)]
#[serde(untagged)]
enum Main<'a> {
    Bridge(BridgePlugin),
    Flannel(FlannelPlugin<'a>),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BridgePlugin {
    r#type: &'static str,
    bridge: &'static str,
    mtu: u32,
    hairpin_mode: bool,
    is_default_gateway: bool,
    ip_masq: bool,
    ipam: Ipam,
}

#[derive(Serialize)]
struct Ipam {
    r#type: &'static str,
    ranges: Vec<[Range; 1]>,
    routes: Vec<Route>,
}

#[derive(Serialize)]
struct Range {
    subnet: Subnet,
}

#[derive(Serialize)]
struct Route {
    dst: Subnet,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FlannelPlugin<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subnet_file: Option<&'a Path>,
    delegate: Delegate,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Delegate {
    hairpin_mode: bool,
    is_default_gateway: bool,
}

#[derive(Serialize)]
struct Portmap {
    r#type: &'static str,
    capabilities: Capabilities,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Capabilities {
    port_mappings: bool,
}

/// The file's content. The bridge masquerades if nobody else does (`FLANNEL_IPMASQ=false`).
pub fn render(form: CniForm, env: &SubnetEnv, subnet_file: &Path) -> String {
    let main = match form {
        CniForm::Standard => Main::Bridge(bridge(env)),
        CniForm::Flannel => Main::Flannel(FlannelPlugin {
            r#type: "flannel",
            subnet_file: Some(subnet_file).filter(|path| *path != Path::new(DEFAULT_SUBNET_FILE)),
            delegate: Delegate { hairpin_mode: true, is_default_gateway: true },
        }),
    };
    let portmap = Portmap { r#type: "portmap", capabilities: Capabilities { port_mappings: true } };
    let list = ConfList { name: NETWORK, cni_version: VERSION, weft: NOTE, plugins: (main, portmap) };
    // Nothing in it can fail to be written: the path came from the command line, which is UTF-8.
    let mut text = serde_json::to_string_pretty(&list).unwrap_or_default();
    text.push('\n');
    text
}

fn bridge(env: &SubnetEnv) -> BridgePlugin {
    let networks = || Family::BOTH.into_iter().filter_map(|family| *env.networks.get(family));
    BridgePlugin {
        r#type: "bridge",
        bridge: BRIDGE,
        mtu: env.mtu,
        hairpin_mode: true,
        is_default_gateway: true,
        ip_masq: !env.ip_masq,
        ipam: Ipam {
            r#type: "host-local",
            ranges: networks().map(|(_, subnet)| [Range { subnet }]).collect(),
            routes: networks().map(|(dst, _)| Route { dst }).collect(),
        },
    }
}

/// Where host-local keeps its leases: a file for each address, named after it.
pub const LEASES: &str = "/var/lib/cni/networks/cbr0";

/// The addresses that host-local has given out, by its directory; none if there is no directory yet.
///
/// # Errors
/// If it cannot be read, or nothing of CNI can be seen here at all.
pub fn leases(dir: &Path) -> io::Result<BTreeSet<IpAddr>> {
    match fs::read_dir(dir) {
        Ok(entries) => {
            let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
            let names: io::Result<Vec<String>> = names.collect();
            // IPv6 addresses have underscores in old versions of the plugin (on file systems without colons).
            Ok(names?.iter().filter_map(|name| name.replace('_', ":").parse().ok()).collect())
        }
        // In a container /var/lib/cni is there only if it was mounted.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let seen = dir.parent().and_then(Path::parent).is_some_and(Path::is_dir);
            if seen { Ok(BTreeSet::new()) } else { Err(error) }
        }
        Err(error) => Err(error),
    }
}

/// Whether a file is ours to replace or remove: it has our mark at its top, also if an edit has left it
/// no JSON any more.
pub fn is_ours(text: &str) -> bool {
    match serde_json::from_str::<Value>(text) {
        Ok(value) => value.get(MARK).is_some(),
        Err(_) => text.contains(NOTE),
    }
}

/// The file that a container runtime takes, of all names in its directory.
pub fn taken<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let is_conf = |name: &&str| {
        let extension = name.rsplit_once('.').map(|(_, extension)| extension);
        matches!(extension, Some("conf" | "conflist" | "json"))
    };
    names.into_iter().filter(is_conf).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::addr::ByFamily;

    fn subnet(text: &str) -> Subnet {
        text.parse().expect("a subnet")
    }

    fn env() -> SubnetEnv {
        let networks = ByFamily {
            v4: Some((subnet("10.244.0.0/16"), subnet("10.244.1.0/24"))),
            v6: Some((subnet("fd00:10:244::/56"), subnet("fd00:10:244:1::/64"))),
        };
        SubnetEnv { networks, mtu: 1430, ip_masq: false }
    }

    #[test]
    fn the_standard_form_has_both_families_the_pod_mtu_and_the_mark() {
        let text = render(CniForm::Standard, &env(), Path::new(DEFAULT_SUBNET_FILE));
        let value: Value = serde_json::from_str(&text).expect("JSON");
        let expected = serde_json::json!({
            "name": "cbr0",
            "cniVersion": "0.3.1",
            "weft": NOTE,
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": "cni0",
                    "mtu": 1430,
                    "hairpinMode": true,
                    "isDefaultGateway": true,
                    "ipMasq": true,
                    "ipam": {
                        "type": "host-local",
                        "ranges": [[{ "subnet": "10.244.1.0/24" }], [{ "subnet": "fd00:10:244:1::/64" }]],
                        "routes": [{ "dst": "10.244.0.0/16" }, { "dst": "fd00:10:244::/56" }],
                    },
                },
                { "type": "portmap", "capabilities": { "portMappings": true } },
            ],
        });
        assert_eq!(value, expected);
        assert!(text.starts_with("{\n  \"name\""), "a person reads the name first: {text}");
    }

    #[test]
    fn the_bridge_masquerades_only_if_nobody_else_does() {
        let text = render(CniForm::Standard, &SubnetEnv { ip_masq: true, ..env() }, Path::new(DEFAULT_SUBNET_FILE));
        assert!(text.contains("\"ipMasq\": false"), "{text}");
    }

    #[test]
    fn flannels_form_is_the_one_of_its_manifest() {
        let plugins = |path: &str| {
            let text = render(CniForm::Flannel, &env(), Path::new(path));
            serde_json::from_str::<Value>(&text).expect("JSON")["plugins"].clone()
        };
        let mut expected = serde_json::json!([
            { "type": "flannel", "delegate": { "hairpinMode": true, "isDefaultGateway": true } },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ]);
        assert_eq!(plugins(DEFAULT_SUBNET_FILE), expected);
        expected[0]["subnetFile"] = "/run/other.env".into();
        assert_eq!(plugins("/run/other.env"), expected);
    }

    #[test]
    fn what_is_ours_has_the_mark() {
        let ours = render(CniForm::Standard, &env(), Path::new(DEFAULT_SUBNET_FILE));
        assert!(is_ours(&ours));
        assert!(is_ours(&ours.replace("1430", "9000")), "edited");
        assert!(is_ours(&ours.replace("},", "}")), "edited so that it is no JSON");
        for foreign in ["", "{}", "[]", "7", "weft", r#"{"name":"weft","plugins":[{"type":"weft"}]}"#] {
            assert!(!is_ours(foreign), "{foreign}");
        }
    }

    #[test]
    fn the_runtime_takes_the_first_by_name() {
        let names = [
            "87-podman.conflist",
            FILE_NAME,
            "10-flannel.conflist",
            "README",
            "00-x.conflist.bak",
            ".10-weft.conflist.weft",
        ];
        assert_eq!(taken(names), Some("10-flannel.conflist"));
        assert_eq!(taken([FILE_NAME, "100-crio-bridge.conflist", "200-loopback.conf", "99.json"]), Some(FILE_NAME));
        assert_eq!(taken(["README"]), None);
    }
}
