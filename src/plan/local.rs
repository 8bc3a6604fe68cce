//! Our own node: what its device should be and what it announces, in one family.

use std::net::IpAddr;
use std::time::Duration;

use super::claims::Ground;
use super::direct::{OnLink, Routing};
use super::tenure::Tenure;
use super::underlay::Underlay;
use crate::model::addr::{ByFamily, Family, IfName, Mac, Subnet};
use crate::model::device::DeviceSpec;
use crate::model::hash;
use crate::model::host::{Address, Host, LinkKind};
use crate::model::node::OwnNode;
use crate::model::settings::{Backend, Settings};

/// Bytes of a packet that every link with IPv6 must carry (RFC 8200, section 5).
const IPV6_MIN_MTU: u32 = 1280;

/// Our own node in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// The device; `None` with the host-gw backend, which needs none.
    pub device: Option<DeviceSpec>,
    /// The interface that packets leave by.
    pub underlay: Underlay,
    /// Bytes of a pod's IP packet.
    pub mtu: u32,
    /// Our pod CIDR.
    pub subnet: Subnet,
    /// The address to announce.
    pub public_ip: IpAddr,
    /// What peers may not claim.
    pub ground: Ground,
}

/// What of earlier passes is still in force.
#[derive(Debug)]
pub struct Before<'a> {
    /// The MAC that was chosen before in this process: once announced it does not change.
    pub mac: Option<Mac>,
    /// The underlay.
    pub tenure: &'a mut Tenure,
}

/// Works out one family from the configuration, our Node and the host. `now` is the time since the agent
/// started.
///
/// # Errors
/// What is missing, as a sentence for the operator: weft waits for it.
pub fn local(
    settings: &Settings,
    own: &OwnNode,
    host: &Host,
    family: Family,
    before: &mut Before<'_>,
    now: Duration,
) -> Result<Local, String> {
    let overlay = &settings.overlay;
    let network = (*overlay.networks.get(family)).ok_or_else(|| format!("{family} is not enabled"))?;
    let subnet = own_subnet(own, family, network)?;
    let configured = own.node_public_ip.get(family).or(*settings.underlay.public_ip.get(family));
    let ours: Vec<IfName> = overlay.families().map(|family| overlay.device(family)).collect();
    let name = overlay.device(family);
    let underlay = before.tenure.choose(&settings.underlay, (host, family), (&name, &ours), configured, now)?;
    let public_ip = own.overwrite.get(family).or(configured).unwrap_or(underlay.local);
    let (device, routing) = match overlay.backend {
        Backend::HostGw => {
            gateway(configured, &underlay)?;
            let on_link = OnLink::of(host, family, underlay.index);
            (None, Routing::Direct { on_link, underlay: underlay.name.clone() })
        }
        Backend::Vxlan => {
            let place = Place { family, network, subnet, pinned: before.mac };
            let device = device(settings, own, host, &underlay, place)?;
            let either = overlay.direct_routing.then(|| Routing::Either(OnLink::new(host, family, &ours)));
            (Some(device), either.unwrap_or(Routing::Encapsulated))
        }
    };
    let mac = device.as_ref().map(|device| device.mac);
    let ground = Ground { mac, routing, ..ground(host, &underlay, Claimed { network, subnet, public_ip }, &ours)? };
    let mtu = device.as_ref().map_or(underlay.mtu, |device| device.mtu);
    Ok(Local { device, underlay, mtu, subnet, public_ip, ground })
}

/// Peers send to the address that we announce as to a neighbour: it has to be on the underlay.
fn gateway(configured: Option<IpAddr>, underlay: &Underlay) -> Result<(), String> {
    match configured {
        Some(ip) if ip != underlay.local => Err(format!(
            "the public IP {ip} is not an address of {}: the host-gw backend does not work behind NAT, since peers \
             route to that address as to a neighbour; weft waits: give {} that address, or choose another \
             (--public-ip, --iface)",
            underlay.name, underlay.name
        )),
        _ => Ok(()),
    }
}

/// Where a device belongs.
#[derive(Clone, Copy)]
struct Place {
    family: Family,
    network: Subnet,
    subnet: Subnet,
    pinned: Option<Mac>,
}

fn device(
    settings: &Settings,
    own: &OwnNode,
    host: &Host,
    underlay: &Underlay,
    place: Place,
) -> Result<DeviceSpec, String> {
    let Place { family, network, subnet, pinned } = place;
    let overlay = &settings.overlay;
    let name = overlay.device(family);
    let mac = pinned.or(*own.annotated_mac.get(family)).or_else(|| device_mac(host, &name));
    // The kernel refuses more than the underlay can carry, so a larger configured MTU is cut.
    let outer = overlay.mtu.map_or(underlay.mtu, |mtu| mtu.min(underlay.mtu));
    Ok(DeviceSpec {
        name,
        family,
        vni: overlay.vni,
        port: overlay.port,
        gbp: overlay.gbp,
        learning: overlay.learning,
        // IPv6 packets without one are dropped by receivers (RFC 8200, section 8.1), unless told otherwise.
        udp_checksum: settings.underlay.udp_checksum || family == Family::V6,
        underlay: underlay.index,
        underlay_name: underlay.name.clone(),
        local: underlay.local,
        mtu: mtu(underlay, outer, family)?,
        mac: mac.unwrap_or_else(|| mac_of(&own.uid, family)),
        address: subnet.base(),
        network,
    })
}

/// What VXLAN leaves of the outer MTU. Linux turns IPv6 off on a device with less than it needs, and then refuses
/// every address and neighbour there.
fn mtu(underlay: &Underlay, outer: u32, family: Family) -> Result<u32, String> {
    let mtu = outer.saturating_sub(family.vxlan_overhead());
    if family == Family::V6 && mtu < IPV6_MIN_MTU {
        return Err(format!(
            "the MTU of {} leaves {mtu} bytes for the IPv6 of pods, which needs {IPV6_MIN_MTU} (RFC 8200, section 5); \
             weft waits for at least {} there: ip link set {} mtu {}",
            underlay.name,
            IPV6_MIN_MTU + family.vxlan_overhead(),
            underlay.name,
            IPV6_MIN_MTU + family.vxlan_overhead(),
        ));
    }
    Ok(mtu)
}

fn own_subnet(own: &OwnNode, family: Family, network: Subnet) -> Result<Subnet, String> {
    let subnet = own.subnet.get(family).as_ref().map_err(|reason| {
        format!(
            "node {} has no {family} pod CIDR yet ({reason}); weft waits for it: does the controller manager run \
             with --allocate-node-cidrs and a --cluster-cidr?",
            own.name
        )
    })?;
    if network.contains_subnet(*subnet) {
        Ok(*subnet)
    } else {
        Err(format!(
            "pod CIDR {subnet} of our node {} is outside Network {network} of net-conf.json: make the two agree",
            own.name
        ))
    }
}

/// The MAC of a device of ours that is there already.
fn device_mac(host: &Host, name: &IfName) -> Option<Mac> {
    let link = host.link(name).filter(|link| matches!(link.kind, LinkKind::Vxlan(_)))?;
    link.mac.filter(|mac| mac.is_vtep())
}

/// A MAC that a node without an announced one gets: the same at every start, locally administered,
/// unicast.
fn mac_of(uid: &str, family: Family) -> Mac {
    let hash = hash::of(uid.bytes().chain(family.label().bytes()));
    let [a, b, c, d, e, f, ..] = hash::spread(hash).to_be_bytes();
    Mac([(a | 0x02) & 0xfe, b, c, d, e, f])
}

/// What of an address of the underlay no pod CIDR may overlap. Over IPv4 a pod CIDR may lie in a wider network: the
/// longer prefix wins, and a node with an address in a pod CIDR is refused as such. Over IPv6 it may not: Linux
/// takes no gateway as onlink that it would reach through another interface
/// (`an_ipv6_onlink_gateway_must_not_be_reachable_through_another_device`).
fn taken(address: &Address) -> Subnet {
    match address.ip {
        IpAddr::V4(_) => Subnet::host(address.ip),
        IpAddr::V6(_) => address.subnet(),
    }
}

/// What we claim ourselves.
#[derive(Clone, Copy)]
struct Claimed {
    network: Subnet,
    subnet: Subnet,
    public_ip: IpAddr,
}

fn ground(host: &Host, underlay: &Underlay, claimed: Claimed, ours: &[IfName]) -> Result<Ground, String> {
    let Claimed { network, subnet: own, public_ip } = claimed;
    let of_family = |ip: &IpAddr| Family::of(*ip) == own.family();
    let others = host.links.iter().filter(|link| !ours.contains(&link.name));
    let addresses = others.flat_map(|link| &link.addresses).map(|address| address.ip).filter(of_family).collect();
    let on_underlay = host.link_at(underlay.index).map_or(&[][..], |link| &link.addresses);
    let global = on_underlay.iter().filter(|address| address.global && of_family(&address.ip));
    let networks: Vec<Subnet> = global.map(taken).collect();
    if let Some(clash) = networks.iter().find(|taken| taken.overlaps(own)) {
        return Err(format!(
            "our own pod CIDR {own} overlaps {clash} of the underlay {}: choose another --cluster-cidr",
            underlay.name
        ));
    }
    let (mac, routing) = (None, Routing::Encapsulated);
    Ok(Ground { network, own, mac, public_ip, underlay: networks, addresses, routing })
}

/// What the host takes up in each family.
pub fn grounds(locals: &ByFamily<Option<Result<Local, String>>>) -> ByFamily<Option<Ground>> {
    ByFamily::from_fn(|family| match locals.get(family) {
        Some(Ok(local)) => Some(local.ground.clone()),
        Some(Err(_)) | None => None,
    })
}
