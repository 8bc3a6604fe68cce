//! Operations on links and addresses, as Linux accepts or refuses them.

use std::net::IpAddr;

use super::net::{Interface, Net};
use super::rows::{errno, refuse};
use crate::model::addr::{Family, IfIndex, IfName, Mac};
use crate::model::device::DeviceSpec;
use crate::model::host::{Address, LinkKind, VxlanAttributes};
use crate::model::op::{LinkOp, Refusal};

use errno::{EACCES, EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT, EEXIST, EINVAL, ENODEV, ENOENT, ENXIO, EOPNOTSUPP};

/// The least MTU of a VXLAN device in bytes (`ETH_MIN_MTU`).
const MIN_MTU: u32 = 68;

impl Net {
    pub(super) fn apply_link(&mut self, op: &LinkOp) -> Result<(), Refusal> {
        match op {
            LinkOp::Create(spec) => self.create(spec),
            LinkOp::Delete(dev) => {
                let name = self.device(dev.index)?.link.name.clone();
                self.del_link(&name);
                Ok(())
            }
            LinkOp::AddrGenNone(dev) => {
                let link = &mut self.device(dev.index)?.link;
                if link.ipv6_disabled.is_none() {
                    return refuse(EAFNOSUPPORT, "");
                }
                link.addrgen_none = true;
                Ok(())
            }
            LinkOp::SetMac(dev, mac) => self.change_mac(dev.index, *mac),
            LinkOp::SetMtu(dev, mtu) => self.change_mtu(dev.index, *mtu),
            LinkOp::SetLocal(dev, ip) => self.change_local(dev.index, *ip),
            LinkOp::SetUnderlay(dev, to) => {
                self.device(to.index)?;
                self.vxlan(dev.index)?.underlay = Some(to.index);
                Ok(())
            }
            LinkOp::SetLearning(dev, on) => {
                self.vxlan(dev.index)?.learning = *on;
                Ok(())
            }
            LinkOp::SetTtl(dev, ttl) => {
                self.vxlan(dev.index)?.ttl = *ttl;
                Ok(())
            }
            LinkOp::EnableIpv6(dev) => self.enable_ipv6(&dev.name),
            LinkOp::Up(dev) => self.bring_up(dev.index),
            LinkOp::AddAddress(dev, ip, len) => self.new_address(dev.index, *ip, *len),
            LinkOp::DelAddress(dev, ip, len) => self.delete_address(dev.index, *ip, *len),
        }
    }

    pub(super) fn vxlan(&mut self, index: IfIndex) -> Result<&mut VxlanAttributes, Refusal> {
        match &mut self.device(index)?.link.kind {
            LinkKind::Vxlan(vxlan) => Ok(vxlan),
            LinkKind::Other(_) => refuse(EINVAL, ""),
        }
    }

    /// Down, with the MTU cut to what the underlay carries. The same VNI on the same port in the same
    /// family is refused with the errno of a name that is taken.
    fn create(&mut self, spec: &DeviceSpec) -> Result<(), Refusal> {
        // What can be said of the message alone comes first (`vxlan_validate`).
        if !spec.mac.is_vtep() {
            return refuse(EADDRNOTAVAIL, "Provided Ethernet address is not unicast");
        }
        if spec.mtu < MIN_MTU {
            return refuse(EINVAL, "MTU must be between 68 and 65535");
        }
        if self.link(&spec.name).is_some() {
            return refuse(EEXIST, "");
        }
        let Some(room) = self.room(Some(spec.underlay), Family::of(spec.local)) else {
            return refuse(ENODEV, "Invalid local interface");
        };
        let attributes = VxlanAttributes {
            vni: spec.vni,
            port: spec.port,
            underlay: Some(spec.underlay),
            local: Some(spec.local),
            learning: spec.learning,
            gbp: spec.gbp,
            udp_checksum: spec.udp_checksum,
            ttl: 0,
            special: false,
            alien: false,
        };
        if self.vxlans().any(|(_, other)| other.vni == spec.vni && meets(other, &attributes) && other.gbp == spec.gbp) {
            return refuse(EEXIST, "A VXLAN device with the specified VNI already exists");
        }
        let index = self.push_link(spec.name.clone(), LinkKind::Vxlan(attributes), spec.mac, spec.mtu.min(room));
        self.settle_ipv6(index);
        Ok(())
    }

    pub(super) fn vxlans(&self) -> impl Iterator<Item = (&Interface, &VxlanAttributes)> {
        self.interfaces.iter().filter_map(|interface| match &interface.link.kind {
            LinkKind::Vxlan(vxlan) => Some((interface, vxlan)),
            LinkKind::Other(_) => None,
        })
    }

    /// Bytes that a VXLAN device over this underlay may carry; `None` if the underlay is not there.
    fn room(&self, underlay: Option<IfIndex>, family: Family) -> Option<u32> {
        let carrier = match underlay {
            Some(index) => self.interface(index)?.link.mtu,
            None => 65535,
        };
        Some(carrier.saturating_sub(family.vxlan_overhead()).max(MIN_MTU))
    }

    /// Drops every neighbour of the link, permanent ones too, even if the MAC stays the same.
    fn change_mac(&mut self, index: IfIndex, mac: Mac) -> Result<(), Refusal> {
        let interface = self.device(index)?;
        if !mac.is_vtep() {
            return refuse(EADDRNOTAVAIL, "");
        }
        interface.link.mac = Some(mac);
        interface.neighbours.clear();
        Ok(())
    }

    fn change_mtu(&mut self, index: IfIndex, mtu: u32) -> Result<(), Refusal> {
        let vxlan = self.vxlan(index)?;
        let (underlay, family) = (vxlan.underlay, vxlan.local.map_or(Family::V4, Family::of));
        let room = self.room(underlay, family).unwrap_or(u32::MAX);
        if mtu < MIN_MTU || mtu > room {
            return refuse(EINVAL, "");
        }
        self.set_mtu(index, mtu);
        Ok(())
    }

    fn change_local(&mut self, index: IfIndex, ip: IpAddr) -> Result<(), Refusal> {
        let vxlan = self.vxlan(index)?;
        if vxlan.local.is_some_and(|old| Family::of(old) != Family::of(ip)) {
            return refuse(EOPNOTSUPP, "New local address family does not match old");
        }
        vxlan.local = Some(ip);
        Ok(())
    }

    /// A sysctl: it goes by the name.
    fn enable_ipv6(&mut self, name: &IfName) -> Result<(), Refusal> {
        let Some(index) = self.index(name) else { return refuse(ENOENT, "") };
        match self.device(index)?.link.ipv6_disabled {
            None => refuse(ENOENT, ""),
            Some(disabled) => {
                if disabled {
                    self.set_ipv6(index, true);
                }
                Ok(())
            }
        }
    }

    /// Two VXLAN devices share the socket of a port only if they agree on the extensions.
    fn bring_up(&mut self, index: IfIndex) -> Result<(), Refusal> {
        let interface = self.device(index)?.clone();
        if let LinkKind::Vxlan(ours) = &interface.link.kind {
            let clash = |(other, theirs): (&Interface, &VxlanAttributes)| {
                other.link.index != index && other.link.up && meets(theirs, ours) && theirs.gbp != ours.gbp
            };
            if !interface.link.up && self.vxlans().any(clash) {
                return refuse(EADDRINUSE, "");
            }
        }
        self.set_up(index);
        Ok(())
    }

    fn new_address(&mut self, index: IfIndex, ip: IpAddr, len: u8) -> Result<(), Refusal> {
        let link = &self.device(index)?.link;
        match (ip, link.ipv6_disabled) {
            (IpAddr::V6(_), None) => return refuse(EINVAL, ""),
            (IpAddr::V6(_), Some(true)) => return refuse(EACCES, "IPv6 is disabled on this device"),
            _ => {}
        }
        let same = |held: &Address| held.ip == ip && (ip.is_ipv6() || held.len == len);
        if link.addresses.iter().any(same) {
            return refuse(EEXIST, "Address already assigned");
        }
        self.add_address(index, ip, len);
        Ok(())
    }

    fn delete_address(&mut self, index: IfIndex, ip: IpAddr, len: u8) -> Result<(), Refusal> {
        if ip.is_ipv6() && self.device(index)?.link.ipv6_disabled.is_none() {
            return refuse(ENXIO, "IPv6 is disabled on this device");
        }
        if !self.device(index)?.link.addresses.iter().any(|held| held.ip == ip && held.len == len) {
            return refuse(EADDRNOTAVAIL, "Address not found");
        }
        self.del_address(index, ip, len);
        Ok(())
    }
}

/// Whether two VXLAN devices receive on the same port of the same family.
fn meets(a: &VxlanAttributes, b: &VxlanAttributes) -> bool {
    let six = |vxlan: &VxlanAttributes| vxlan.local.is_some_and(|ip| ip.is_ipv6());
    a.port == b.port && six(a) == six(b)
}
