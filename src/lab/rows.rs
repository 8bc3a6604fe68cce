//! What a machine's tables should hold, worked out from the Node objects and nothing else, and what
//! they do hold. The lab judges by this and never by what an agent says of itself.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use serde_json::Value;

use crate::kernel::netlink::Netlink;
use crate::kernel::{Kernel, ObserveError};
use crate::model::addr::{ByFamily, Family, Mac, Subnet, Vni};
use crate::model::device::device_name;
use crate::model::host::{Host, Scope};
use crate::model::settings::Backend;
use crate::model::table::{Entry, Tables};

/// A row as an operator thinks of it, without metric and protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Row {
    /// Packets for these pods go to this VTEP.
    Route(Subnet, IpAddr),
    /// Packets for these pods go straight to this machine.
    Direct(Subnet, IpAddr),
    /// This VTEP has this MAC.
    Neighbour(IpAddr, Mac),
    /// This MAC is reached, in UDP, at this machine.
    Fdb(Mac, IpAddr),
}

impl Row {
    /// Whether an entry of the kernel's is this row.
    pub fn is(&self, entry: &Entry) -> bool {
        Self::of(*entry) == Some(*self)
    }

    /// An entry of the kernel's as a row; `None` for a route without a gateway.
    pub fn of(entry: Entry) -> Option<Self> {
        match entry {
            Entry::Route(key, route) if route.dev.is_some() => route.via.map(|via| Self::Direct(key.dst, via)),
            Entry::Route(key, route) => route.via.map(|via| Self::Route(key.dst, via)),
            Entry::Neighbour(ip, neighbour) => Some(Self::Neighbour(ip, neighbour.mac)),
            Entry::Fdb(key, fdb) => Some(Self::Fdb(key.mac, fdb.dst)),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route(dst, via) => write!(f, "route      {dst} via {via} onlink"),
            Self::Direct(dst, via) => write!(f, "route      {dst} via {via}"),
            Self::Neighbour(ip, mac) => write!(f, "neighbour  {ip} lladdr {mac} nud permanent"),
            Self::Fdb(mac, dst) => write!(f, "fdb        {mac} dst {dst} self permanent"),
        }
    }
}

/// What the lab looks at on each machine; `ways` if there is direct routing.
pub fn scope(networks: ByFamily<Option<Subnet>>, backend: Backend, ways: bool) -> Scope {
    let vni = Vni::new(1).filter(|_| backend == Backend::Vxlan);
    let device = |family| networks.get(family).and(vni).map(|vni| device_name(family, vni));
    Scope { devices: ByFamily::from_fn(device), networks, reach: None, ways: ways || backend == Backend::HostGw }
}

/// The rows that every other node's annotations ask for, on the machine of this name.
pub fn wanted(nodes: &[Value], me: &str, families: impl Iterator<Item = Family>) -> BTreeSet<Row> {
    let families: Vec<Family> = families.collect();
    let others = nodes.iter().filter(|node| node["metadata"]["name"] != me);
    let pairs = others.flat_map(|node| families.iter().filter_map(move |family| peer(node, *family)));
    pairs.flatten().collect()
}

/// A node's rows in one family: three with VXLAN, one with host-gw. `None` if it has announced nothing.
pub fn peer(node: &Value, family: Family) -> Option<Vec<Row>> {
    let (ip_key, data_key) = match family {
        Family::V4 => ("public-ip", "backend-data"),
        Family::V6 => ("public-ipv6", "backend-v6-data"),
    };
    let annotation = |key: &str| node["metadata"]["annotations"][format!("flannel.alpha.coreos.com/{key}")].as_str();
    let cidrs = node["spec"]["podCIDRs"].as_array()?;
    let cidr =
        cidrs.iter().filter_map(|cidr| cidr.as_str()?.parse::<Subnet>().ok()).find(|cidr| cidr.family() == family)?;
    let ip: IpAddr = annotation(ip_key)?.parse().ok()?;
    if annotation("backend-type") == Some(Backend::HostGw.label()) {
        return Some(vec![Row::Direct(cidr, ip)]);
    }
    let data: Value = serde_json::from_str(annotation(data_key)?).ok()?;
    let mac: Mac = data["VtepMAC"].as_str()?.parse().ok()?;
    Some(vec![Row::Route(cidr, cidr.base()), Row::Neighbour(cidr.base(), mac), Row::Fdb(mac, ip)])
}

/// The direct routes that direct routing adds on a machine that looks so: to every node whose public IP is in
/// a network of the machine's own.
pub fn direct(wanted: &BTreeSet<Row>, host: &Host) -> BTreeSet<Row> {
    let near = |ip: IpAddr| {
        let links = host.links.iter().filter(|link| link.name.as_str().starts_with("eth"));
        links.flat_map(|link| &link.addresses).any(|address| address.global && address.subnet().contains(ip))
    };
    let fdb = |of: Mac| {
        wanted.iter().find_map(|row| if let Row::Fdb(mac, ip) = row { (*mac == of).then_some(*ip) } else { None })
    };
    let mac = |of: IpAddr| {
        wanted.iter().find_map(|row| if let Row::Neighbour(ip, mac) = row { (*ip == of).then_some(*mac) } else { None })
    };
    let straight = |row: &Row| match row {
        Row::Route(cidr, via) => Some(Row::Direct(*cidr, fdb(mac(*via)?).filter(|ip| near(*ip))?)),
        Row::Direct(..) | Row::Neighbour(..) | Row::Fdb(..) => None,
    };
    wanted.iter().filter_map(straight).collect()
}

/// What is seen on a machine.
#[derive(Debug)]
pub struct Sight {
    /// Everything, as the kernel told it.
    pub host: Host,
    /// The rows of all devices.
    pub rows: BTreeSet<Row>,
    /// Whether every device is there and up.
    pub devices_up: bool,
}

/// Looks at the machine that the calling thread is in.
///
/// # Errors
/// If the kernel cannot be read.
pub fn look(kernel: &mut Netlink, scope: &Scope) -> Result<Sight, ObserveError> {
    let host = kernel.observe(scope)?;
    let rows = host
        .tables
        .iter()
        .filter_map(|(_, tables)| tables.as_ref())
        .flat_map(Tables::entries)
        .filter_map(Row::of)
        .collect();
    let devices = scope.devices.iter().filter_map(|(_, name)| name.as_ref());
    let devices_up = devices.map(|name| host.link(name)).all(|link| link.is_some_and(|link| link.up));
    Ok(Sight { host, rows, devices_up })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_asks_for_three_rows_once_it_has_announced() {
        let mut node = json!({"metadata": {"name": "a"}, "spec": {"podCIDRs": ["10.244.1.0/24"]}});
        assert_eq!(peer(&node, Family::V4), None);
        node["metadata"]["annotations"] = json!({
            "flannel.alpha.coreos.com/public-ip": "192.168.174.11",
            "flannel.alpha.coreos.com/backend-data": "{\"VNI\":1,\"VtepMAC\":\"02:00:00:00:00:01\"}",
        });
        let rows: Vec<String> =
            wanted(&[node.clone()], "b", [Family::V4].into_iter()).iter().map(ToString::to_string).collect();
        assert_eq!(
            rows,
            [
                "route      10.244.1.0/24 via 10.244.1.0 onlink",
                "neighbour  10.244.1.0 lladdr 02:00:00:00:00:01 nud permanent",
                "fdb        02:00:00:00:00:01 dst 192.168.174.11 self permanent",
            ]
        );
        assert!(wanted(&[node.clone()], "a", [Family::V4].into_iter()).is_empty(), "not for itself");
        node["metadata"]["annotations"]["flannel.alpha.coreos.com/backend-type"] = "host-gw".into();
        let rows = peer(&node, Family::V4).expect("one row");
        assert_eq!(rows[0].to_string(), "route      10.244.1.0/24 via 192.168.174.11");
        assert_eq!(rows.len(), 1);
    }
}
