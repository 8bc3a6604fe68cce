//! What an administrator or the kernel itself does to links and addresses, and what is dropped on
//! the way.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::net::{Interface, Net, connected};
use crate::model::addr::{Family, IfIndex, IfName, Mac};
use crate::model::host::{Address, VxlanAttributes};
use crate::model::table::PROTOCOL_KERNEL;

/// Below this many bytes IPv6 leaves a link altogether (`IPV6_MIN_MTU`).
const IPV6_MIN_MTU: u32 = 1280;

/// Nothing is asked, and nothing refused.
impl Net {
    /// Adds an address.
    pub fn add_address(&mut self, index: IfIndex, ip: IpAddr, len: u8) {
        self.had_address |= ip.is_ipv4();
        let Some(interface) = self.interface_mut(index) else { return };
        interface.link.addresses.push(address(ip, len));
        if interface.link.up {
            self.connect_for(index, |held| held.ip == ip);
        }
    }

    /// Takes an address away, with its prefix route. After the last IPv4 address of a link go its
    /// IPv4 routes and IPv4 neighbours; IPv6 has no such habit.
    pub fn del_address(&mut self, index: IfIndex, ip: IpAddr, len: u8) {
        let Some(interface) = self.interface_mut(index) else { return };
        interface.link.addresses.retain(|held| held.ip != ip || held.len != len);
        let left = interface.link.addresses.clone();
        if ip.is_ipv4() && !left.iter().any(|held| held.ip.is_ipv4()) {
            interface.neighbours.retain(|ip, _| !ip.is_ipv4());
            self.drop_routes(index, Family::V4);
            return;
        }
        let subnet = address(ip, len).subnet();
        if !left.iter().any(|held| held.subnet() == subnet) {
            self.del_routes(|key, it| {
                key.dst == subnet && it.oif == Some(index) && it.route.protocol == PROTOCOL_KERNEL
            });
        }
    }

    /// Changes what is said of an address, its lifetime for example.
    pub fn set_address(&mut self, index: IfIndex, ip: IpAddr, change: impl FnOnce(&mut Address)) {
        let addresses = self.interface_mut(index).map(|interface| &mut interface.link.addresses);
        if let Some(address) = addresses.into_iter().flatten().find(|address| address.ip == ip) {
            change(address);
        }
    }

    /// Sets a link up: prefix routes come, and a link-local address unless addrgenmode is none. The
    /// kernel gives `lo` its addresses by itself.
    pub fn set_up(&mut self, index: IfIndex) {
        let Some(interface) = self.interface_mut(index) else { return };
        if interface.link.up {
            return;
        }
        interface.link.up = true;
        interface.link.running = true;
        if interface.link.loopback {
            interface.link.addresses =
                vec![address(IpAddr::V4(Ipv4Addr::LOCALHOST), 8), address(IpAddr::V6(Ipv6Addr::LOCALHOST), 128)];
            self.had_address = true;
            return;
        }
        link_local(interface);
        self.connect(index);
    }

    /// Sets a link down: its routes and neighbours go, and its IPv6 addresses. IPv4 addresses and FDB
    /// entries stay.
    pub fn set_down(&mut self, index: IfIndex) {
        let Some(interface) = self.interface_mut(index) else { return };
        if !interface.link.up {
            return;
        }
        interface.link.up = false;
        interface.link.running = false;
        interface.neighbours.clear();
        interface.link.addresses.retain(|held| held.ip.is_ipv4());
        self.flush_routes(index);
    }

    /// Takes the carrier of a link that is up, or gives it back: the kernel keeps everything on it.
    pub fn set_carrier(&mut self, index: IfIndex, on: bool) {
        if let Some(interface) = self.interface_mut(index) {
            interface.link.running = on && interface.link.up;
        }
    }

    /// Removes a link with everything on it, and the VXLAN devices over it.
    pub fn del_link(&mut self, name: &IfName) {
        let Some(index) = self.index(name) else { return };
        self.interfaces.retain(|interface| interface.link.index != index);
        self.flush_routes(index);
        let over = |(interface, vxlan): (&Interface, &VxlanAttributes)| {
            (vxlan.underlay == Some(index)).then(|| interface.link.name.clone())
        };
        for orphan in self.vxlans().filter_map(over).collect::<Vec<_>>() {
            self.del_link(&orphan);
        }
    }

    /// Renames a link, up or not; nothing on it changes.
    pub fn rename(&mut self, index: IfIndex, name: &str) {
        if let Some(interface) = self.interface_mut(index) {
            interface.link.name = IfName::new(name);
        }
    }

    /// Changes a MAC; the neighbours go.
    pub fn set_mac(&mut self, index: IfIndex, mac: Mac) {
        if let Some(interface) = self.interface_mut(index) {
            interface.link.mac = Some(mac);
            interface.neighbours.clear();
        }
    }

    /// Changes an MTU. Below 1280 bytes the link loses IPv6; above, it comes back with its defaults.
    pub fn set_mtu(&mut self, index: IfIndex, mtu: u32) {
        if let Some(interface) = self.interface_mut(index) {
            interface.link.mtu = mtu;
            self.settle_ipv6(index);
        }
    }

    /// `disable_ipv6`: off takes the link's IPv6 addresses, routes and neighbours away; on brings
    /// only a link-local address.
    pub fn set_ipv6(&mut self, index: IfIndex, on: bool) {
        let Some(interface) = self.interface_mut(index) else { return };
        if interface.link.ipv6_disabled.is_none() {
            return;
        }
        interface.link.ipv6_disabled = Some(!on);
        if on {
            link_local(interface);
            self.connect(index);
        } else {
            self.drop_ipv6(index);
        }
    }

    /// Makes a link a port of another.
    pub fn set_master(&mut self, index: IfIndex, master: Option<IfIndex>) {
        if let Some(interface) = self.interface_mut(index) {
            interface.link.master = master;
        }
    }

    /// Changes a VXLAN device's attributes, in whatever way.
    pub fn set_vxlan(&mut self, index: IfIndex, change: impl FnOnce(&mut VxlanAttributes)) {
        if let Ok(vxlan) = self.vxlan(index) {
            change(vxlan);
        }
    }

    pub(super) fn settle_ipv6(&mut self, index: IfIndex) {
        let Some(interface) = self.interface_mut(index) else { return };
        let room = interface.link.mtu >= IPV6_MIN_MTU;
        match (room, interface.link.ipv6_disabled) {
            (false, Some(_)) => {
                interface.link.ipv6_disabled = None;
                interface.link.addrgen_none = false;
                self.drop_ipv6(index);
            }
            (true, None) => {
                interface.link.ipv6_disabled = Some(false);
                link_local(interface);
                self.connect(index);
            }
            _ => {}
        }
    }

    fn drop_ipv6(&mut self, index: IfIndex) {
        let Some(interface) = self.interface_mut(index) else { return };
        interface.link.addresses.retain(|held| held.ip.is_ipv4());
        interface.neighbours.retain(|ip, _| ip.is_ipv4());
        self.drop_routes(index, Family::V6);
    }

    fn drop_routes(&mut self, index: IfIndex, family: Family) {
        self.del_routes(|key, it| key.dst.family() == family && it.oif == Some(index));
    }

    /// Makes the prefix routes that are missing.
    fn connect(&mut self, index: IfIndex) {
        self.connect_for(index, |_| true);
    }

    /// The same, of some addresses: a new address brings nothing back that the others have lost.
    fn connect_for(&mut self, index: IfIndex, which: impl Fn(&Address) -> bool) {
        let Some(interface) = self.interface(index) else { return };
        if !interface.link.up || interface.link.loopback {
            return;
        }
        let wanted = interface.link.addresses.iter().filter(|held| which(held));
        let wanted: Vec<_> = wanted.filter_map(|held| connected(held.subnet())).collect();
        for (key, route) in wanted {
            let there = self.routes.get(&key).is_some_and(|held| held.iter().any(|it| it.oif == Some(index)));
            if !there {
                self.put_route(key, Some(index), route);
            }
        }
    }
}

/// The address that the kernel makes from the MAC (EUI-64, RFC 4291 appendix A).
fn link_local(interface: &mut Interface) {
    let link = &mut interface.link;
    let wanted = link.up && !link.addrgen_none && link.ipv6_disabled == Some(false);
    let Some(Mac(mac)) = link.mac.filter(|mac| wanted && mac.is_vtep()) else { return };
    let mut bytes = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, 0];
    bytes[8..11].copy_from_slice(&mac[..3]);
    bytes[13..].copy_from_slice(&mac[3..]);
    bytes[8] ^= 2;
    let ip = IpAddr::V6(Ipv6Addr::from(bytes));
    if !link.addresses.iter().any(|held| held.ip == ip) {
        link.addresses.push(address(ip, 64));
    }
}

fn address(ip: IpAddr, len: u8) -> Address {
    let near = match ip {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_loopback(),
    };
    Address { ip, len, global: !near, deprecated: false, permanent: true, temporary: false, failed: false }
}
