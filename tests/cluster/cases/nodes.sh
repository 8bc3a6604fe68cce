# Nodes that come, go, and come again as somebody else.

a_node_comes_and_goes_alone() {
    local first second began
    start_pings others a b c
    began=$(now)
    add_node d 4
    joins d
    first=$(traces d 192.0.2.4 fd00:77::4)
    leaves d
    within 60 no_trace "$first"
    add_node d 14
    joins d
    second=$(traces d 192.0.2.14 fd00:77::14)
    no_trace "$first"
    leaves d
    within 60 no_trace "$second"
    # Kubernetes does it too, a minute later: until then they pass for pods that run, and the next tests talk to such.
    kubectl delete pods --all-namespaces --field-selector spec.nodeName=d --force --grace-period=0
    stop_pings others
    figure "a node added, drained, deleted, re-added with another address and CIDR, deleted; the others meanwhile:"
    undisturbed others "$(($(now) - began))"
}

joins() {
    local began
    began=$(now)
    within 120 nodes_are_there "$1"
    within 300 nodes_are_ready "$1"
    talkers_run
    everything_answers
    figure "node $1: there, and all pods reach all, $(seconds $(($(now) - began))) after its programs were started"
}

leaves() {
    kubectl drain "$1" --ignore-daemonsets --force --timeout=60s
    remove_node "$1"
    kubectl delete node "$1"
}

# What of a node stands in the others' tables: its addresses, its pod CIDRs, the MACs of its devices.
traces() {
    local node=$1
    shift
    printf '%s\n' "$@"
    kubectl get node "$node" -o json | jq -r '.spec.podCIDRs[],
        (.metadata.annotations | to_entries[] | select(.key | test("backend.*data$")) | .value | fromjson | .VtepMAC)'
}

# no_trace TRACES: none of them is on a, b or c.
no_trace() {
    local node
    for node in a b c; do
        if at "$node" sh -c 'ip route; ip -6 route; ip neigh show dev flannel.1; ip -6 neigh show dev flannel.1
            bridge fdb show dev flannel.1; ip neigh show dev flannel-v6.1; ip -6 neigh show dev flannel-v6.1
            bridge fdb show dev flannel-v6.1' 2>/dev/null | grep -wF "$1"; then
            echo "these are left on node $node"
            return 1
        fi
    done
}
