# The underlay: one Ethernet, and what is beyond it. All of it in a network namespace that only this run has.
#
#   192.0.2.100    fd00:77::100   control plane
#   192.0.2.N      fd00:77::N     nodes
#   192.0.2.254    fd00:77::254   everybody's default route: "outside", which also is 198.51.100.1 and fd00:51::1,
#                                 and knows no way to any pod: what it answers was masqueraded

# Of the machines that are made from now on.
FAMILIES=(4 6)

underlay() {
    mkdir -p /run/netns
    ip link set lo up
    ip link add underlay type bridge
    ip link set underlay up
    # A switch, not a firewall.
    sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0 2>/dev/null || true
    machine control 100
    machine outside 254
    inside outside ip address add 198.51.100.1/32 dev lo
    inside outside ip address add fd00:51::1/128 dev lo
    default_routes control
}

# machine NAME NUMBER: a network namespace on the underlay.
machine() {
    local name=$1 number=$2
    ip netns add "$name"
    ip link add eth0 netns "$name" type veth peer name "to-$name"
    ip link set "to-$name" master underlay up
    inside "$name" sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.eth0.accept_dad=0
    inside "$name" ip link set lo up
    inside "$name" ip link set eth0 up
    addresses "$number" | while read -r address length; do inside "$name" ip address add "$address/$length" dev eth0; done
}

# The addresses of the machine with this number, and their prefix lengths.
addresses() {
    local family
    for family in "${FAMILIES[@]}"; do
        if ((family == 4)); then echo "192.0.2.$1 24"; else echo "fd00:77::$1 64"; fi
    done
}

# default_routes MACHINE: everybody's.
default_routes() {
    addresses 254 | while read -r gateway _; do inside "$1" ip route add default via "$gateway"; done
}

# Runs a program in a machine's network. (`ip netns exec` would mount /sys anew, and hide the cgroups.)
inside() {
    local name=$1
    shift
    ${EXEC:-} nsenter --net="/run/netns/$name" -- "$@"
}

# What tells who asks, for the tests of masquerading: http://198.51.100.1/cgi-bin/who
outside_server() {
    mkdir -p "$RUN/outside/cgi-bin"
    printf '#!/bin/sh\nprintf "Content-Type: text/plain\\r\\n\\r\\n%%s\\n" "$REMOTE_ADDR"\n' >"$RUN/outside/cgi-bin/who"
    chmod +x "$RUN/outside/cgi-bin/who"
    spawn outside-http inside outside busybox httpd -f -p '[::]:80' -h "$RUN/outside"
}
