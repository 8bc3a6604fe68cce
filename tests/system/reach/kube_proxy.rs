//! What kube-proxy (1.34, with `--cluster-cidr`) keeps on a node, in its own shape, for a few Services of one endpoint
//! each. The real kube-proxy runs in `tests/cluster` only.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};

/// A Service with one endpoint.
pub(super) struct Service {
    /// Eight letters of its chains' hash.
    pub(super) tag: &'static str,
    pub(super) cluster: SocketAddr,
    pub(super) node_port: u16,
    pub(super) endpoint: SocketAddr,
}

/// kube-proxy's mode.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mode {
    Iptables,
    Nftables,
}

/// Lays the rules down in the calling thread's namespace. All addresses are of one family.
pub(super) fn lay(mode: Mode, pods: &str, services: &[Service]) {
    let six = services.iter().any(|service| service.endpoint.is_ipv6());
    let (line, text) = match (mode, six) {
        (Mode::Iptables, false) => ("iptables-nft-restore --noflush", iptables(pods, services)),
        (Mode::Iptables, true) => ("ip6tables-nft-restore --noflush", iptables(pods, services)),
        (Mode::Nftables, false) => ("nft -f -", nftables("ip", "ipv4_addr", pods, services)),
        (Mode::Nftables, true) => ("nft -f -", nftables("ip6", "ipv6_addr", pods, services)),
    };
    let mut words = line.split(' ');
    let mut program = Command::new(words.next().expect("a program"))
        .args(words)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect(line);
    program.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("to write the rules");
    let output = program.wait_with_output().expect("an end");
    assert!(output.status.success(), "{line}: {}\n{text}", String::from_utf8_lossy(&output.stderr));
}

/// kube-proxy puts its jumps first.
fn iptables(pods: &str, services: &[Service]) -> String {
    let mut text = String::from(
        "*filter
:KUBE-FORWARD - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SERVICES - [0:0]
-I FORWARD 1 -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-I FORWARD 2 -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD
-I FORWARD 3 -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
*nat
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
-I PREROUTING 1 -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-I OUTPUT 1 -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-I POSTROUTING 1 -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully
",
    );
    for service in services {
        chains(&mut text, pods, service).expect("room");
    }
    // kube-proxy's last rule of this chain.
    text.push_str("-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\nCOMMIT\n");
    text
}

fn chains(text: &mut String, pods: &str, service: &Service) -> std::fmt::Result {
    let Service { tag, cluster, node_port, endpoint } = service;
    let (svc, ext, sep) = (format!("KUBE-SVC-{tag}"), format!("KUBE-EXT-{tag}"), format!("KUBE-SEP-{tag}"));
    let to_cluster = format!("-d {} -p tcp --dport {}", host(cluster.ip()), cluster.port());
    writeln!(text, ":{svc} - [0:0]\n:{ext} - [0:0]\n:{sep} - [0:0]")?;
    writeln!(text, "-A KUBE-SERVICES {to_cluster} -j {svc}")?;
    writeln!(text, "-A KUBE-NODEPORTS -p tcp --dport {node_port} -j {ext}")?;
    writeln!(text, "-A {ext} -m comment --comment \"masquerade traffic for external destinations\" -j KUBE-MARK-MASQ")?;
    writeln!(text, "-A {ext} -j {svc}")?;
    writeln!(text, "-A {svc} ! -s {pods} {to_cluster} -j KUBE-MARK-MASQ")?;
    writeln!(text, "-A {svc} -j {sep}")?;
    writeln!(text, "-A {sep} -s {} -j KUBE-MARK-MASQ", host(endpoint.ip()))?;
    writeln!(text, "-A {sep} -p tcp -j DNAT --to-destination {endpoint}")
}

/// Its table of nftables mode: everything by way of verdict maps.
fn nftables(family: &str, kind: &str, pods: &str, services: &[Service]) -> String {
    let mut text = format!(
        "table {family} kube-proxy {{
 map service-ips {{ type {kind} . inet_proto . inet_service : verdict; }}
 map service-nodeports {{ type inet_proto . inet_service : verdict; }}
 chain nat-prerouting {{ type nat hook prerouting priority dstnat; jump services; }}
 chain nat-output {{ type nat hook output priority -100; jump services; }}
 chain nat-postrouting {{ type nat hook postrouting priority srcnat; jump masquerading; }}
 chain masquerading {{
  meta mark & 0x4000 == 0 return
  meta mark set meta mark ^ 0x4000
  masquerade fully-random
 }}
 chain mark-for-masquerade {{ meta mark set meta mark | 0x4000; }}
 chain services {{
  {family} daddr . meta l4proto . th dport vmap @service-ips
  fib daddr type local meta l4proto . th dport vmap @service-nodeports
 }}
}}
"
    );
    for Service { tag, cluster, node_port, endpoint } in services {
        let ((to, port), from) = ((cluster.ip(), cluster.port()), endpoint.ip());
        write!(
            text,
            "table {family} kube-proxy {{
 chain endpoint-{tag} {{
  {family} saddr {from} jump mark-for-masquerade
  meta l4proto tcp dnat to {endpoint}
 }}
 chain service-{tag} {{
  {family} daddr {to} tcp dport {port} {family} saddr != {pods} jump mark-for-masquerade
  numgen random mod 1 vmap {{ 0 : goto endpoint-{tag} }}
 }}
 chain external-{tag} {{
  jump mark-for-masquerade
  goto service-{tag}
 }}
}}
add element {family} kube-proxy service-ips {{ {to} . tcp . {port} : goto service-{tag} }}
add element {family} kube-proxy service-nodeports {{ tcp . {node_port} : goto external-{tag} }}
"
        )
        .expect("room");
    }
    text
}

fn host(ip: IpAddr) -> String {
    format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 })
}
