# A cluster that knows no IPv4: nodes, pods, Services and the API server have IPv6 addresses and no others. A new one, in
# the place of the one before.

a_cluster_without_ipv4() {
    local name
    for name in a b c; do remove_node "$name"; done
    for name in controllers scheduler api-server etcd; do stop "$name" KILL; done
    rm -rf "$RUN/etcd"
    FAMILIES=(6) CONTROL='[fd00:77::100]' POD_CIDRS=fd00:10:244::/56 SERVICE_CIDRS=fd00:10:96::/112 DNS=fd00:10:96::10
    inside control ip -4 address flush dev eth0
    kubeconfigs
    etcd
    api_server
    control_plane_for_nodes
    three_nodes
    comes_up -k manifests/overlays/ipv6-only
    pods_on_every_node
    everything_answers
    grep -v ' - fd00:10:244:' "$RUN/talkers" && fail "this pod has an IPv4 address, or one of another network"
    comes_off removal weft
    nodes_are_bare
}
