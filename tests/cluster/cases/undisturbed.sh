# What may happen to the control plane and to the agents without a packet being lost.

# The control of the tests below: their pinger sees 50 ms without a way, and a route that is missing while the agent
# cannot put it back.
the_pinger_can_lose() {
    a_short_outage
    a_missing_route
}

a_short_outage() {
    start_pings short a b
    at a sh -c 'nft add table inet outage
        nft add chain inet outage packets "{ type filter hook forward priority -300; policy drop; }"
        sleep 0.05
        nft delete table inet outage'
    stop_pings short
    figure "nothing forwarded on a node for a little more than 50 ms: $LOST of $SENT pings lost, longest silence $GAP ms"
    ((LOST > 0)) || fail "nothing was lost while nothing was forwarded"
    ((GAP >= 50)) || fail "an outage of 50 ms was a silence of $GAP ms"
}

a_missing_route() {
    local agent cidr
    agent=$(agent_pid a)
    cidr=$(kubectl get node b -o jsonpath='{.spec.podCIDR}')
    start_pings lossy a b
    kill -STOP "$agent"
    at a ip route del "$cidr"
    sleep 1
    kill -CONT "$agent"
    within 30 route_is_there a "$cidr"
    stop_pings lossy
    figure "a route deleted while the agent stands still for 1 s: $LOST of $SENT pings lost, longest silence $GAP ms"
    ((LOST > 0 && GAP >= 1000)) || fail "without a route $LOST pings were lost, and the silence was $GAP ms"
}

route_is_there() {
    at "$1" ip route show "$2" | grep -q flannel.1
}

nothing_is_lost_during_a_rolling_update() {
    undisturbed_by rolling_update
}

rolling_update() {
    local began
    began=$(now)
    kubectl rollout restart daemonset weft -n weft
    within 300 agents_are_ready
    figure "rolling update of three agents: $(seconds $(($(now) - began)))"
}

nothing_is_lost_when_agents_are_killed() {
    undisturbed_by agents_are_killed
}

agents_are_killed() {
    local node
    for node in a b c; do
        agent_is_killed "$node"
    done
    within 120 agents_are_ready
}

agent_is_killed() {
    local pid began
    pid=$(agent_pid "$1")
    began=$(now)
    kill -9 "$pid"
    within 120 has_another_agent "$1" "$pid"
    figure "agent of $1 killed; its successor runs after $(seconds $(($(now) - began)))"
}

has_another_agent() {
    local pid
    pid=$(agent_pid "$1")
    [[ -n $pid && $pid != "$2" ]]
}

nothing_is_lost_while_kubelets_restart() {
    undisturbed_by kubelets_restart
}

kubelets_restart() {
    local node since
    for node in a b c; do
        stop "$node-kubelet" KILL
        since=$(date -u +%FT%TZ)
        kubelet "$node"
        within 120 has_spoken_since "$node" "$since"
    done
    within 120 nodes_are_ready a b c
    within 120 agents_are_ready
}

has_spoken_since() {
    [[ $(kubectl get lease "$1" -n kube-node-lease -o jsonpath='{.spec.renewTime}') > $2 ]]
}

nothing_is_lost_while_etcd_is_frozen() {
    undisturbed_by etcd_is_frozen
}

etcd_is_frozen() {
    signal STOP etcd
    sleep 20
    signal CONT etcd
    within 120 api_is_ready
    within 120 nodes_are_ready a b c
}

nothing_is_lost_while_the_api_server_is_away() {
    undisturbed_by the_api_server_is_away
}

the_api_server_is_away() {
    stop api-server KILL
    sleep "$AWAY"
    api_server
    within 180 nodes_are_ready a b c
    within 180 agents_are_ready
    figure "the API server was away for $AWAY s"
}
