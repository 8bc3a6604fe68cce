# From a bare cluster to pods that talk.

the_manifest_makes_every_node_ready() {
    three_nodes
    # From here on every request of the agents counts (cases/confined.sh).
    wc -l <"$LOGS/audit.log" >"$RUN/audit-before"
    comes_up -f manifests/weft.yaml
}

# comes_up -f|-k PATH: weft, on three bare nodes.
comes_up() {
    local began ready
    within 60 nodes_lack_a_network a b c
    remember_bare_nodes
    began=$(now)
    kubectl apply "$1" "$ROOT/$2"
    within 300 nodes_are_ready a b c
    ready=$(now)
    within 120 agents_are_ready
    figure "from kubectl apply $1 $2 until every Node is Ready: $(seconds $((ready - began)))"
    figure "… and every agent too: $(seconds $(($(now) - began))); load $(cut -d' ' -f1 /proc/loadavg)"
}

# weft.yaml is for IPv4; the overlay brings another configuration, and the same DaemonSet.
the_overlay_brings_the_other_family() {
    local began
    began=$(now)
    kubectl apply -k "$ROOT/manifests/overlays/dual-stack" | tee "$RUN/applied"
    grep -q '^configmap/weft configured$' "$RUN/applied" && grep -q '^daemonset.apps/weft unchanged$' "$RUN/applied" ||
        fail "the overlay and weft.yaml differ in something else than the ConfigMap"
    kubectl rollout restart daemonset weft -n weft
    within 180 agents_are_ready
    figure "from IPv4 to both families: $(seconds $(($(now) - began)))"
}

nodes_lack_a_network() {
    local node
    for node; do
        kubectl get node "$node" -o jsonpath='{.status.conditions[?(@.type=="Ready")].message}' | grep -q 'cni plugin not initialized' || return 1
    done
}

everybody_reaches_everybody() {
    pods_on_every_node
    undisturbed_by sleep 3
    everything_answers
}

# From every talker: every talker, every ClusterIP, and the outside, in the families that the cluster has.
everything_answers() {
    local node pid answers=0 services
    services=$(kubectl get services -o json | jq -r '.items[] | .spec.ports[0].port as $port | .spec.clusterIPs[] | "\(.) \($port)"')
    # A Service has an address of a family that no pod has.
    if pods_have 4; then grep -qv : <<<"$services"; else services=$(grep : <<<"$services"); fi || fail "no Service has IPv4"
    if pods_have 6; then grep -q : <<<"$services"; else services=$(grep -v : <<<"$services"); fi || fail "no Service has IPv6"
    talkers >"$RUN/talkers"
    while read -r node _ _ pid; do
        within 60 reaches_all "$pid"
        within 60 is_masqueraded "$node" "$pid"
        answers=$((answers + 1))
    done <"$RUN/talkers"
    ((answers >= 3)) || fail "only $answers talkers"
    figure "every one of $answers pods: every pod, $(wc -l <<<"$services") addresses of Services, the outside, from $POD_CIDRS"
}

reaches_all() {
    local pid=$1 v4 v6 address port
    while read -r _ v4 v6 _; do
        for address in "$v4" "$v6"; do
            [[ $address == - ]] || asks "$pid" "http://$(url_host "$address")/name" || return 1
        done
    done <"$RUN/talkers"
    while read -r address port; do
        # The API server answers too: that it will not let us in.
        asks "$pid" "http$([[ $port == 443 ]] && echo s)://$(url_host "$address"):$port/" || return 1
    done <<<"$services"
}

# asks PID URL: an HTTP request from a pod's network; any answer will do.
asks() {
    echo "asking $2"
    nsenter --net="/proc/$1/ns/net" curl -sgk --max-time 10 "$2"
}

# Who asks from a pod is seen outside as the pod's node, in every family that pods have.
is_masqueraded() {
    local family outside address seen
    for family in 4 6; do
        pods_have $family || continue
        if ((family == 4)); then outside=198.51.100.1; else outside=fd00:51::1; fi
        address=$(tr , '\n' <"$RUN/$1/addresses" | if ((family == 4)); then grep -v :; else grep :; fi) || return 1
        seen=$(asks "$2" "http://$(url_host "$outside")/cgi-bin/who") || return 1
        echo "$seen"
        grep -qwF "$address" <<<"$seen" || return 1
    done
}

url_host() {
    if [[ $1 == *:* ]]; then echo "[$1]"; else echo "$1"; fi
}
