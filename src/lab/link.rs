//! The few things that `ip link`, `ip addr` and `ip route` do for the lab, over a netlink socket.
//!
//! Blocking, one request at a time, in the namespace of the thread that opened it. The agent has an
//! engine of its own; this is what an operator's hands do.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec};

use super::netns::Namespace;
use crate::model::addr::Mac;

/// An open socket.
#[derive(Debug)]
pub struct Links {
    socket: Socket,
    sequence: u32,
}

impl Links {
    /// Opens one in the calling thread's network namespace.
    ///
    /// # Errors
    /// If the kernel gives none.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// `ip link add NAME type bridge`, and up.
    ///
    /// # Errors
    /// What the kernel answers, as everywhere here.
    pub fn bridge(&mut self, name: &str) -> io::Result<()> {
        self.create(LinkBridge::new(name).up().build(), &format!("ip link add {name} type bridge"))
    }

    /// `ip link add NAME type veth peer name PEER netns NAMESPACE`, both ends down.
    pub fn veth(&mut self, name: &str, peer: &str, namespace: &Namespace) -> io::Result<()> {
        let mut far = named(peer);
        far.attributes.push(LinkAttribute::NetNsFd(namespace.raw()));
        let data = LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(far)));
        let mut message = named(name);
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), data]));
        self.create(message, &format!("ip link add {name} type veth peer name {peer} netns …"))
    }

    /// `ip link del NAME`.
    pub fn delete(&mut self, name: &str) -> io::Result<()> {
        let message = numbered(index(name)?);
        self.request(RouteNetlinkMessage::DelLink(message), 0, &format!("ip link del {name}"))
    }

    /// `ip link set NAME up`.
    pub fn up(&mut self, name: &str) -> io::Result<()> {
        self.change(name, LinkMessageBuilder::up, "up")
    }

    /// `ip link set NAME down`.
    pub fn down(&mut self, name: &str) -> io::Result<()> {
        self.change(name, LinkMessageBuilder::down, "down")
    }

    /// `ip link set NAME master BRIDGE`, and up.
    pub fn enslave(&mut self, name: &str, bridge: &str) -> io::Result<()> {
        let bridge_index = index(bridge)?;
        self.change(name, |link| link.controller(bridge_index).up(), &format!("master {bridge} up"))
    }

    /// `ip link set NAME address MAC`.
    pub fn set_mac(&mut self, name: &str, mac: Mac) -> io::Result<()> {
        self.change(name, |link| link.address(mac.0.to_vec()), &format!("address {mac}"))
    }

    /// `ip link set NAME mtu BYTES`.
    pub fn set_mtu(&mut self, name: &str, bytes: u32) -> io::Result<()> {
        self.change(name, |link| link.mtu(bytes), &format!("mtu {bytes}"))
    }

    /// `ip addr add IP/LEN dev NAME nodad`.
    pub fn address(&mut self, name: &str, ip: IpAddr, len: u8) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = family(ip);
        message.header.prefix_len = len;
        message.header.index = index(name)?;
        message.attributes = vec![
            AddressAttribute::Local(ip),
            AddressAttribute::Address(ip),
            AddressAttribute::Flags(AddressFlags::Nodad),
        ];
        let said = format!("ip addr add {ip}/{len} dev {name}");
        self.request(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE, &said)
    }

    /// `ip addr del IP/LEN dev NAME`.
    pub fn no_address(&mut self, name: &str, ip: IpAddr, len: u8) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = family(ip);
        message.header.prefix_len = len;
        message.header.index = index(name)?;
        message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
        self.request(RouteNetlinkMessage::DelAddress(message), 0, &format!("ip addr del {ip}/{len} dev {name}"))
    }

    /// `ip route add default via GATEWAY metric METRIC`; 0 is the kernel's default.
    pub fn default_route(&mut self, gateway: IpAddr, metric: u32) -> io::Result<()> {
        let said = format!("ip route add default via {gateway} metric {metric}");
        let message = RouteNetlinkMessage::NewRoute(default_via(gateway, metric));
        self.request(message, NLM_F_CREATE | NLM_F_EXCL, &said)
    }

    fn create(&mut self, message: LinkMessage, said: &str) -> io::Result<()> {
        self.request(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL, said)
    }

    fn change(
        &mut self,
        name: &str,
        how: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec>,
        said: &str,
    ) -> io::Result<()> {
        let message = how(LinkUnspec::new_with_index(index(name)?)).build();
        self.request(RouteNetlinkMessage::NewLink(message), 0, &format!("ip link set {name} {said}"))
    }

    /// Sends one request and waits for its ack.
    fn request(&mut self, message: RouteNetlinkMessage, flags: u16, said: &str) -> io::Result<()> {
        let explain = |error: io::Error| io::Error::new(error.kind(), format!("`{said}`: {error}"));
        self.exchange(message, flags).map_err(explain)
    }

    fn exchange(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        loop {
            let (answer, _) = self.socket.recv_from_full()?;
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?;
            match answer.payload {
                NetlinkPayload::Error(error) if answer.header.sequence_number == self.sequence => {
                    return error.code.map_or(Ok(()), |_| Err(error.to_io()));
                }
                _ => {}
            }
        }
    }
}

fn default_via(gateway: IpAddr, metric: u32) -> RouteMessage {
    let address = match gateway {
        IpAddr::V4(ip) => RouteAddress::Inet(ip),
        IpAddr::V6(ip) => RouteAddress::Inet6(ip),
    };
    let mut message = RouteMessage::default();
    message.header.address_family = family(gateway);
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![RouteAttribute::Gateway(address), RouteAttribute::Priority(metric)];
    message
}

fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}

fn numbered(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

const fn family(ip: IpAddr) -> AddressFamily {
    match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// An interface's number in the calling thread's namespace.
fn index(name: &str) -> io::Result<u32> {
    nix::net::if_::if_nametoindex(name).map_err(|errno| io::Error::other(format!("interface {name}: {errno}")))
}
