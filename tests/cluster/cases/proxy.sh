# The other modes of kube-proxy.

kube_proxy_with_nftables() {
    PROXY_MODE=nftables
    export PROXY_MODE
    undisturbed_by other_proxies
    everything_answers
    [[ -e /proc/net/ip_vs ]] || figure "this kernel has no IPVS: kube-proxy's third mode is not tried"
}

other_proxies() {
    local node
    for node in a b c; do
        stop "$node-kube-proxy"
        at "$node" "$KUBE/kube-proxy" --cleanup
        kube_proxy "$node"
        within 60 has_proxy_table "$node"
    done
}

has_proxy_table() {
    at "$1" nft list table ip kube-proxy
}
