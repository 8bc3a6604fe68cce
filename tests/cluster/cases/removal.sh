# weft is taken off the nodes, and nothing of it is left.

# Before weft has been there.
remember_bare_nodes() {
    local node
    for node in a b c; do dump "$node" >"$RUN/bare-$node"; done
}

removal_leaves_nothing() {
    comes_off removal weft
    nodes_are_bare
}

# comes_off OVERLAY NAMESPACE: weft, as docs/installing.md says it; before it, all that talks.
comes_off() {
    local overlay="$ROOT/manifests/overlays/$1" began
    kubectl delete daemonset talker --wait
    kubectl delete service talkers
    within 120 no_pods_of talker
    kubectl delete daemonset weft -n "$2"
    began=$(now)
    kubectl apply -k "$overlay"
    within 180 kubectl rollout status daemonset weft -n "$2" --timeout 1s
    figure "overlays/$1 has cleaned three nodes after $(seconds $(($(now) - began)))"
    kubectl delete -k "$overlay"
    within 120 no_pods_of weft -n "$2"
}

nodes_are_bare() {
    local node
    for node in a b c; do
        same "$RUN/bare-$node" "$node" "something of weft is left, or something else is gone"
    done
    figure "links, addresses, routes, rules, neighbours, FDB, packet rules, sysctls and files are as they were before weft"
}

no_pods_of() {
    local app=$1
    shift
    [[ -z $(kubectl get pods -l "app=$app" -o name "$@") ]]
}

# same FILE NODE WHAT [EXCEPT]: the node is again as its dump in the file says, but for lines with EXCEPT.
same() {
    dump "$2" >"$1.now"
    [[ -z ${4:-} ]] || sed -i "/$4/d" "$1" "$1.now"
    grep -q '"ifname": "eth0"' "$1.now" && grep -q '^default via' "$1.now" || fail "this is no picture of node $2: $(cat "$1.now")"
    diff "$1" "$1.now" || fail "node $2 (<: before, >: now): $3"
}

# All of a node that weft could change. Not the bridge of the pods, and what hangs on it: that is the CNI plugins';
# nor the chains of kube-proxy and the kubelet; nor counters.
dump() (
    # What is not there is no error.
    set +e +o pipefail
    echo "== links and addresses"
    at "$1" ip -d -j address show | jq -S '.[] | select(.ifname | test("^(cni0$|veth)") | not) |
        {ifname, mtu, address, operstate, flags: (.flags | sort), linkinfo,
         addresses: [.addr_info[]? | select(.scope != "link") | "\(.local)/\(.prefixlen)"]}'
    at "$1" ip -d -j link show | jq -S '.[] | select(.ifname | test("^(cni0$|veth)") | not) | {ifname, txqlen, inet6_addr_gen_mode}'
    echo "== routes, rules, neighbours, FDB"
    at "$1" sh -c 'ip route show table all; ip -6 route show table all; ip rule; ip -6 rule
        ip neigh show nud permanent; ip -6 neigh show nud permanent; bridge fdb show' |
        grep -v 'cni0\|veth\|^33:33\|^01:00:5e\|fe80::\|^multicast ff00' | sed 's/ *$//; s/ expires [0-9]*sec//' | sort
    echo "== packet rules"
    dump_rules "$1"
    echo "== sysctls"
    at "$1" sysctl -a --pattern '^net\.' 2>/dev/null | grep -v '\.\(cni0\|veth[0-9a-f]*\)\.\|_count\|_seed'
    echo "== files"
    at "$1" sh -c 'cd / && find etc/cni run/flannel run/xtables.lock -type f -exec sha256sum {} + 2>/dev/null' | sort
    # What the node's own programs have written over the machine's /etc.
    (cd "$RUN/$1/etc" && find . -type f) | sort
)

dump_rules() (
    set +e +o pipefail
    local program
    for program in {ip,ip6}tables-{nft,legacy}-save; do
        # With the table before each. A table of the kernel's chains alone is as good as none: the kernel makes it for
        # whoever looks, and keeps it.
        at "$1" "$program" 2>/dev/null | sed 's/ \[[0-9:]*\]$//' | grep -v 'KUBE-\|CNI-' |
            awk -v of="$program" '/^\*/ { table = $0 } /^-|^:/ && $2 != "ACCEPT" { print of, table, $0 }'
    done
    at "$1" nft list tables | grep -v 'table ip6\? \(nat\|filter\|mangle\|raw\|security\|kube-proxy\)$' | sort |
        while read -r _ table; do
            # shellcheck disable=SC2086 # family and name
            at "$1" nft --stateless list table $table
        done
)
