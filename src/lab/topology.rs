//! Machines, pods and the wires between them.
//!
//! ```text
//!   lab namespace:   bridge lab0  192.168.174.1        the API server listens here
//!                      │        │
//!                    eth0     eth0                     the underlay: 192.168.174.0/24
//!   machine:         .11      .12                      node-1, node-2, …: agent, flannel.1
//!                      │        │
//!                    cni0     cni0                     10.244.1.1, 10.244.2.1, …
//!                      │        │
//!   pod:             eth0     eth0                     10.244.1.2, 10.244.2.2, …
//! ```
//!
//! With two segments there is a second bridge, lab1 with 192.168.175.1, for the machines of even number,
//! and the lab's own namespace routes between the two.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use super::addressing::{Addressing, Prefixed, name};
use super::link::Links;
use super::netns::{Namespace, sysctl};
use super::ready::{until_running, until_usable};
use crate::model::addr::{Family, Mac};

/// A segment's bridge, in the lab's own namespace.
fn bridge(segment: u8) -> String {
    format!("lab{}", segment.saturating_sub(1))
}

/// The metric of default routes; each move of a machine makes a better one.
const METRIC: u32 = 1024;

/// The underlay: a bridge for each segment, in the calling thread's namespace.
#[derive(Debug)]
pub struct Underlay {
    namespace: Namespace,
    addressing: Addressing,
}

/// A machine: a namespace on the underlay, with a bridge for its pods.
#[derive(Debug)]
pub struct Machine {
    /// From 1.
    pub number: u8,
    /// Its Node's name.
    pub name: String,
    /// Its network.
    pub network: Namespace,
    /// Its one pod.
    pub pod: Pod,
    /// The segment that it is on.
    pub segment: u8,
    /// How often it has changed that.
    pub moves: u32,
}

/// A pod: a namespace on its machine's bridge.
#[derive(Debug)]
pub struct Pod {
    /// Its network.
    pub network: Namespace,
    /// Its addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
}

impl Underlay {
    /// Makes the bridges in the calling thread's namespace.
    ///
    /// # Errors
    /// What the kernel refuses, as the iproute2 command that would have met the same.
    pub fn build(addressing: Addressing) -> io::Result<Self> {
        let namespace = Namespace::current()?;
        super::netns::prepare()?;
        let mut links = Links::open()?;
        links.up("lo")?;
        for segment in 1..=addressing.segments {
            links.bridge(&bridge(segment))?;
            // Otherwise it is that of some port, and changes as they come and go.
            links.set_mac(&bridge(segment), mac(segment, 0))?;
            for (ip, len) in addressing.gateway(segment) {
                links.address(&bridge(segment), ip, len)?;
            }
        }
        if addressing.segments > 1 {
            forward(addressing)?;
        }
        Ok(Self { namespace, addressing })
    }

    /// The namespace that the bridges are in.
    pub const fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The addressing.
    pub const fn addressing(&self) -> Addressing {
        self.addressing
    }

    /// The first bridge's address, IPv4 if it has one, where the API server listens.
    pub fn address(&self) -> IpAddr {
        self.addressing.gateway(1).first().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |(ip, _)| *ip)
    }

    /// Adds the n-th machine, with its pod: everything but the agent and what the agent makes.
    ///
    /// # Errors
    /// As [`Self::build`].
    pub fn add(&self, number: u8) -> io::Result<Machine> {
        let network = Namespace::new()?;
        let segment = self.addressing.home(number);
        self.wire(number, segment, &network)?;
        network.run(|| self.configure(number))??;
        let pod = self.add_pod(number, &network)?;
        Ok(Machine { number, name: name(number), network, pod, segment, moves: 0 })
    }

    /// Lays a wire from a machine to a segment.
    fn wire(&self, number: u8, segment: u8, network: &Namespace) -> io::Result<()> {
        let port = port(number, segment);
        self.namespace.run(|| {
            let mut links = Links::open()?;
            links.veth(&port, self.uplink(number, segment), network)?;
            links.enslave(&port, &bridge(segment))
        })??;
        // The same each time: neighbours remember it.
        network.run(|| Links::open()?.set_mac(self.uplink(number, segment), mac(segment, number)))?
    }

    /// What a machine calls its interface to a segment.
    pub const fn uplink(&self, number: u8, segment: u8) -> &'static str {
        if self.addressing.home(number) == segment { "eth0" } else { "eth1" }
    }

    /// Gives a machine another wire, to another segment, with an address there, and has its default route
    /// go that way. The old wire stays: see [`Self::cut`].
    ///
    /// # Errors
    /// As [`Self::build`].
    pub fn plug_in(&self, machine: &Machine, segment: u8) -> io::Result<()> {
        let (number, addressing) = (machine.number, self.addressing);
        self.wire(number, segment, &machine.network)?;
        let uplink = self.uplink(number, segment);
        machine.network.run(|| Links::open()?.up(uplink))??;
        // What a bridge does not forward yet would be lost, the search for neighbours first of all.
        self.namespace.run(|| until_running(&port(number, segment)))??;
        let six = addressing.stack.has(Family::V6);
        let ready = || until_running(uplink).and_then(|()| if six { until_usable(uplink) } else { Ok(()) });
        machine.network.run(ready)??;
        machine.network.run(|| {
            let mut links = Links::open()?;
            for (ip, len) in addressing.machine_on(number, segment) {
                links.address(uplink, ip, len)?;
            }
            // The one over the old wire stays as long as the wire does: a VXLAN device is bound to it.
            let metric = METRIC.saturating_sub(machine.moves + 1);
            addressing.gateway(segment).iter().try_for_each(|(ip, _)| links.default_route(*ip, metric))
        })?
    }

    /// Takes a machine's addresses off the wire to the segment that it was on, so that nothing is sent there any more.
    ///
    /// # Errors
    /// As [`Self::build`].
    pub fn quiet(&self, machine: &Machine) -> io::Result<()> {
        let (addressing, number, segment) = (self.addressing, machine.number, machine.segment);
        machine.network.run(|| {
            let mut links = Links::open()?;
            let mut addresses = addressing.machine_on(number, segment).into_iter();
            addresses.try_for_each(|(ip, len)| links.no_address(self.uplink(number, segment), ip, len))
        })?
    }

    /// Cuts a machine's wire to the segment that it was on: now it is on `segment`.
    ///
    /// # Errors
    /// As [`Self::build`].
    pub fn cut(&self, machine: &mut Machine, segment: u8) -> io::Result<()> {
        let old = port(machine.number, machine.segment);
        machine.segment = segment;
        machine.moves += 1;
        self.namespace.run(|| Links::open()?.delete(&old))?
    }

    /// In the machine's namespace: addresses, a default route, forwarding and the pods' bridge.
    fn configure(&self, number: u8) -> io::Result<()> {
        forward(self.addressing)?;
        let mut links = Links::open()?;
        let gateway = self.addressing.gateway(self.addressing.home(number));
        plug(&mut links, "eth0", &self.addressing.machine(number), &gateway)?;
        links.bridge("cni0")?;
        for (ip, len) in self.addressing.inside(number, 1) {
            links.address("cni0", ip, len)?;
        }
        Ok(())
    }

    fn add_pod(&self, number: u8, machine: &Namespace) -> io::Result<Pod> {
        let network = Namespace::new()?;
        machine.run(|| {
            let mut links = Links::open()?;
            links.veth("pod", "eth0", &network)?;
            links.set_mtu("pod", self.addressing.pod_mtu())?;
            links.enslave("pod", "cni0")
        })??;
        let addresses = self.addressing.inside(number, 2);
        network.run(|| {
            let mut links = Links::open()?;
            links.set_mtu("eth0", self.addressing.pod_mtu())?;
            plug(&mut links, "eth0", &addresses, &self.addressing.inside(number, 1))
        })??;
        Ok(Pod { network, addresses: addresses.into_iter().map(|(ip, _)| ip).collect() })
    }

    /// Takes a machine off the underlay.
    ///
    /// # Errors
    /// As [`Self::build`].
    pub fn remove(&self, machine: &Machine) -> io::Result<()> {
        let port = port(machine.number, machine.segment);
        self.namespace.run(|| Links::open()?.delete(&port))?
    }
}

/// The MAC of a machine's interface to a segment; 0 is the router.
const fn mac(segment: u8, number: u8) -> Mac {
    Mac([2, 0, 0, 0x17, segment, number])
}

/// The bridge's end of a machine's wire to a segment.
fn port(number: u8, segment: u8) -> String {
    if segment == 1 { format!("to-{}", name(number)) } else { format!("to-{}-{segment}", name(number)) }
}

/// Lets the calling thread's namespace forward packets, whichever way the answers come back.
fn forward(addressing: Addressing) -> io::Result<()> {
    sysctl("net/ipv4/ip_forward", "1")?;
    for conf in ["all", "default"] {
        sysctl(&format!("net/ipv4/conf/{conf}/rp_filter"), "0")?;
    }
    if addressing.stack.has(Family::V6) {
        sysctl("net/ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}

/// Sets an interface up with its addresses and default routes.
fn plug(links: &mut Links, name: &str, addresses: &[Prefixed], gateways: &[Prefixed]) -> io::Result<()> {
    links.up(name)?;
    for (ip, len) in addresses {
        links.address(name, *ip, *len)?;
    }
    gateways.iter().try_for_each(|(ip, _)| links.default_route(*ip, METRIC))
}
