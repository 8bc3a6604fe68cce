//! What a node needs of its host besides the tables: forwarding, nobody else who manages our devices.
//!
//! The decisions are here, over [`Seen`], which [`look`] reads.

mod files;

use crate::model::addr::{ByFamily, Family};

pub use files::{Places, cure, look, unseen};

/// An interface of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its number; `None` if it is not there.
    pub index: Option<u32>,
    /// Its underlay's name.
    pub underlay: String,
}

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Whether the host forwards; `None` for a family that is off or cannot be read.
    pub forwards: ByFamily<Option<bool>>,
    /// An interface whose IPv6 default route came by router advertisement, which it will not listen to
    /// any more once the host forwards.
    pub heeds_advertisements: Option<String>,
    /// Whether bridged packets go through iptables; `None` where br_netfilter is not loaded.
    pub bridge_netfilter: ByFamily<Option<bool>>,
    /// Devices of ours that systemd-networkd manages.
    pub networkd: Vec<String>,
    /// Devices of ours that NetworkManager manages.
    pub network_manager: Vec<String>,
    /// Underlays with a strict reverse path filter although the default route leaves by another interface.
    pub strict: Vec<String>,
}

/// Something that a node lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// A metric label: one of [`LABELS`].
    pub label: &'static str,
    /// What it is and what to do, for the operator.
    pub text: String,
    /// The sysctl that cures it, if weft may set it: a path under `/proc/sys/net`, to be set to 1.
    pub cure: Option<&'static str>,
}

/// Every label.
pub const LABELS: [&str; 7] =
    ["ip_forward", "ipv6_forwarding", "bridge_netfilter", "networkd", "network_manager", "rp_filter", FORWARD_DROP];

/// A chain of somebody else's drops what pods send to other nodes: the packet filters are not looked at here.
pub const FORWARD_DROP: &str = "forward_drop";

const FORWARD: ByFamily<&str> = ByFamily { v4: "ipv4/ip_forward", v6: "ipv6/conf/all/forwarding" };
const BRIDGE: ByFamily<&str> = ByFamily { v4: "bridge/bridge-nf-call-iptables", v6: "bridge/bridge-nf-call-ip6tables" };

/// Everything that is wrong.
pub fn problems(seen: &Seen) -> Vec<Problem> {
    let mut all = Vec::new();
    for family in Family::BOTH {
        if *seen.forwards.get(family) == Some(false) {
            all.push(forwarding(seen, family));
        }
    }
    let off = |family: Family| *seen.bridge_netfilter.get(family) == Some(false) && seen.forwards.get(family).is_some();
    let bridged: Vec<&str> =
        Family::BOTH.into_iter().filter(|family| off(*family)).map(|family| *BRIDGE.get(family)).collect();
    if !bridged.is_empty() {
        let commands: Vec<String> =
            bridged.iter().map(|path| format!("sysctl -w net.{}=1", path.replace('/', "."))).collect();
        all.push(Problem {
            label: "bridge_netfilter",
            text: format!(
                "bridged packets do not pass iptables: a pod that calls a ClusterIP whose pod is on this same node gets \
                 no answer; `{}`, and the same in /etc/sysctl.d",
                commands.join("; ")
            ),
            cure: None,
        });
    }
    if !seen.networkd.is_empty() {
        all.push(Problem {
            label: "networkd",
            text: format!(
                "systemd-networkd manages {} and may remove what weft puts there; write to \
                 /etc/systemd/network/10-flannel.network the lines `[Match]`, `Name=flannel.* flannel-v6.* cni0 veth*`, \
                 `[Link]`, `Unmanaged=yes`, then `networkctl reload`",
                seen.networkd.join(", ")
            ),
            cure: None,
        });
    }
    if !seen.network_manager.is_empty() {
        all.push(Problem {
            label: "network_manager",
            text: format!(
                "NetworkManager manages {} and may remove what weft puts there; write to \
                 /etc/NetworkManager/conf.d/10-flannel.conf the lines `[keyfile]`, `unmanaged-devices=\
                 interface-name:flannel*;interface-name:cni0;interface-name:veth*`, then `nmcli general reload`",
                seen.network_manager.join(", ")
            ),
            cure: None,
        });
    }
    if !seen.strict.is_empty() {
        all.push(Problem { label: "rp_filter", text: strict(&seen.strict), cure: None });
    }
    all
}

fn strict(devices: &[String]) -> String {
    let commands: Vec<String> = devices.iter().map(|device| set_loose(device)).collect();
    format!(
        "the reverse path filter of the underlay {} is strict, and the default route leaves by another interface: packets \
         of peers that are reached by that one are dropped without a word; `{}` makes it loose",
        devices.join(", "),
        commands.join("; ")
    )
}

/// A name with a dot is written with a slash in a sysctl's name.
fn set_loose(device: &str) -> String {
    format!("sysctl -w net.ipv4.conf.{}.rp_filter=2", device.replace('.', "/"))
}

fn forwarding(seen: &Seen, family: Family) -> Problem {
    let path = *FORWARD.get(family);
    let command = format!("sysctl -w net.{}=1", path.replace('/', "."));
    let label = match family {
        Family::V4 => "ip_forward",
        Family::V6 => "ipv6_forwarding",
    };
    let held_by = seen.heeds_advertisements.as_ref().filter(|_| family == Family::V6);
    let what = match held_by {
        // net/ipv6/ndisc.c: with forwarding on, accept_ra=1 means no.
        Some(device) => format!(
            "first `sysctl -w net.ipv6.conf.{}.accept_ra=2`, or {device} loses its default route, which came by router \
             advertisement; then `{command}`, and both in /etc/sysctl.d",
            device.replace('.', "/")
        ),
        None => format!("`{command}`, and the same in /etc/sysctl.d"),
    };
    Problem {
        label,
        text: format!("this host does not forward {family} packets, so no pod reaches another node: {what}"),
        cure: held_by.is_none().then_some(path),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const BOTH: ByFamily<bool> = ByFamily { v4: true, v6: true };

    struct Tree(tempfile::TempDir);

    impl Tree {
        /// A host that lacks nothing.
        fn good() -> Self {
            let tree = Self(tempfile::tempdir().expect("a directory"));
            tree.put("sys/ipv4/ip_forward", "1\n");
            tree.put("sys/ipv6/conf/all/forwarding", "1\n");
            tree.put("sys/ipv4/conf/all/rp_filter", "0\n");
            tree.put("sys/ipv4/conf/eth1/rp_filter", "2\n");
            tree.put("net/route", "Iface\tDestination\neth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n");
            tree
        }

        fn put(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, text).expect("written");
        }

        fn places(&self) -> Places {
            let at = |name: &str| self.0.path().join(name);
            Places { sysctls: at("sys"), routes: at("net"), run: at("run") }
        }

        fn problems(&self) -> Vec<Problem> {
            let device = |name: &str, index| Device { name: name.into(), index, underlay: "eth1".into() };
            problems(&look(&self.places(), BOTH, &[device("flannel.1", Some(7)), device("flannel-v6.1", None)]))
        }

        /// The one problem.
        fn problem(&self) -> Problem {
            let all = self.problems();
            assert_eq!(all.len(), 1, "{all:?}");
            assert!(LABELS.contains(&all[0].label));
            all[0].clone()
        }
    }

    #[test]
    fn a_host_that_lacks_nothing_has_no_problem() {
        assert_eq!(Tree::good().problems(), []);
        let nothing_visible = Tree(tempfile::tempdir().expect("a directory"));
        assert_eq!(nothing_visible.problems(), [], "what cannot be seen is no problem");
    }

    #[test]
    fn what_cannot_be_seen_is_said() {
        let tree = Tree::good();
        let unseen = |tree: &Tree| unseen(&tree.places());
        assert_eq!(unseen(&tree).len(), 2);
        assert!(unseen(&tree)[0].contains("run/systemd/netif is not there"), "{:?}", unseen(&tree));
        tree.put("run/systemd/netif/links/1", "");
        assert_eq!(unseen(&tree).len(), 1);
        tree.put("run/NetworkManager/devices/1", "");
        assert_eq!(unseen(&tree), [""; 0]);
    }

    #[test]
    fn forwarding_is_set_or_the_command_is_said() {
        let tree = Tree::good();
        tree.put("sys/ipv4/ip_forward", "0\n");
        let problem = tree.problem();
        assert!(problem.text.contains("`sysctl -w net.ipv4.ip_forward=1`"), "{}", problem.text);
        assert!(cure(&tree.places(), problem.cure.expect("a cure")));
        assert_eq!(tree.problems(), []);
        assert!(!cure(&tree.places(), "missing/ip_forward"), "not writable");
    }

    #[test]
    fn ipv6_forwarding_is_not_turned_on_under_a_default_route_from_a_router() {
        let tree = Tree::good();
        tree.put("sys/ipv6/conf/all/forwarding", "0\n");
        assert_eq!(tree.problem().cure, Some("ipv6/conf/all/forwarding"));
        let none = "00000000000000000000000000000000";
        let gateway = "fe800000000000000000000000000001";
        tree.put(
            "net/ipv6_route",
            &format!("{none} 00 {none} 00 {gateway} 00000400 00000001 00000000 00450003     eth0\n"),
        );
        tree.put("sys/ipv6/conf/eth0/accept_ra", "1\n");
        let problem = tree.problem();
        assert_eq!(problem.cure, None);
        assert!(problem.text.contains("first `sysctl -w net.ipv6.conf.eth0.accept_ra=2`"), "{}", problem.text);
        tree.put("sys/ipv6/conf/eth0/accept_ra", "2\n");
        assert!(tree.problem().cure.is_some());
    }

    #[test]
    fn bridged_packets_that_pass_iptables_by_are_said_only_where_they_can_pass_it() {
        let tree = Tree::good();
        tree.put("sys/bridge/bridge-nf-call-iptables", "0\n");
        tree.put("sys/bridge/bridge-nf-call-ip6tables", "1\n");
        let problem = tree.problem();
        assert_eq!(problem.label, "bridge_netfilter");
        assert!(problem.text.contains("`sysctl -w net.bridge.bridge-nf-call-iptables=1`"), "{}", problem.text);
    }

    #[test]
    fn whoever_manages_our_device_is_named_with_the_cure() {
        let tree = Tree::good();
        tree.put("run/systemd/netif/links/7", "# private\nADMIN_STATE=unmanaged\nOPER_STATE=routable\n");
        tree.put("run/NetworkManager/devices/7", "[device]\nmanaged=false\n");
        tree.put("run/systemd/netif/links/8", "ADMIN_STATE=configured\n");
        assert_eq!(tree.problems(), []);
        tree.put("run/systemd/netif/links/7", "# private\nADMIN_STATE=configuring\n");
        let problem = tree.problem();
        assert!(problem.text.contains("manages flannel.1 ") && problem.text.contains("Unmanaged=yes"), "{problem:?}");
        tree.put("run/systemd/netif/links/7", "ADMIN_STATE=unmanaged\n");
        tree.put("run/NetworkManager/devices/7", "[device]\nconnection-uuid=1\nmanaged=true\n");
        let problem = tree.problem();
        assert_eq!(problem.label, "network_manager");
        assert!(problem.text.contains("unmanaged-devices=interface-name:flannel*"), "{problem:?}");
    }

    #[test]
    fn a_strict_filter_matters_on_an_underlay_beside_the_default_route() {
        let tree = Tree::good();
        tree.put("sys/ipv4/conf/all/rp_filter", "1\n");
        assert_eq!(tree.problems(), [], "the larger counts: 2 is loose");
        tree.put("sys/ipv4/conf/eth1/rp_filter", "0\n");
        assert!(tree.problem().text.contains("`sysctl -w net.ipv4.conf.eth1.rp_filter=2`"));
        tree.put("net/route", "Iface\neth1\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\n");
        assert_eq!(tree.problems(), []);
    }
}
