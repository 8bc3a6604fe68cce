# A cluster of flannel's moves over to weft, and back: as docs/installing.md says it, with the shipped overlays.
#
# flanneld itself is not here: what it leaves in a node is, laid down by tests/cluster/flannel-state, and a DaemonSet
# with its name and labels whose pods only wait. Each node has another form of its packet rules.

FLANNEL_RULES=([1]=iptables-nft [2]=nft [3]=iptables-legacy)
ANNOTATION=flannel.alpha.coreos.com

flannels_nodes_move_over() {
    local began node
    flannel_runs
    pods_on_every_node
    everything_answers
    for node in a b c; do dump "$node" >"$RUN/flannel-$node"; done
    start_pings moving
    began=$(now)
    kubectl patch daemonset kube-flannel-ds -n kube-flannel --patch-file "$ROOT/manifests/overlays/from-flannel/flannel-patch.yaml"
    kubectl apply -k "$ROOT/manifests/overlays/from-flannel"
    for node in a b c; do
        moves_over "$node"
    done
    everything_answers
    stop_pings moving
    undisturbed moving $(($(now) - began))
}

# NODE: flanneld leaves, weft comes and makes what it finds its own.
moves_over() {
    local began
    began=$(now)
    kubectl label node "$1" pod-network=weft
    within 180 runs_on "$1" weft
    within 60 has_our_form "$1"
    figure "node $1 (rules of flannel's: ${FLANNEL_RULES[$(number_of "$1")]}) moved over in $(seconds $(($(now) - began)))"
}

flannels_nodes_move_back() {
    local began node
    start_pings returning
    began=$(now)
    for node in a b c; do
        kubectl label node "$node" pod-network-
        within 180 runs_on "$node" flannel
        # What flanneld puts in when it starts, and takes nothing away for.
        flannel_state "$node" --no-devices
    done
    kubectl delete daemonset weft -n kube-flannel
    kubectl apply -k "$ROOT/manifests/overlays/to-flannel"
    within 120 kubectl rollout status daemonset weft -n kube-flannel --timeout 1s
    kubectl delete -k "$ROOT/manifests/overlays/to-flannel"
    everything_answers
    stop_pings returning
    undisturbed returning $(($(now) - began))
    for node in a b c; do
        same "$RUN/flannel-$node" "$node" "flannel's state and what weft handed over differ" addr_gen_mode
    done
    figure "after the way back each node is as flannel had left it, but for addrgenmode (docs/flannel-compatibility.md)"
}

# A cluster that came from flannel, and has no flannel any more: it has an overlay of its own to take weft off.
what_came_from_flannel_comes_off() {
    local node
    kubectl apply -k "$ROOT/manifests/overlays/from-flannel"
    kubectl label nodes a b c pod-network=weft
    for node in a b c; do
        within 180 runs_on "$node" weft
        within 60 has_our_form "$node"
    done
    kubectl delete daemonset kube-flannel-ds -n kube-flannel
    everything_answers
    comes_off removal-from-flannel kube-flannel
    # Flannel's configuration is flannel's, and the lock is iptables's.
    for node in a b c; do at "$node" rm /etc/cni/net.d/10-flannel.conflist /run/xtables.lock; done
    nodes_are_bare
}

# flannel's manifest, as far as others see it, and what flanneld leaves on each node.
flannel_runs() {
    local node number
    kubectl apply -f - <<END
apiVersion: v1
kind: Namespace
metadata: {name: kube-flannel, labels: {pod-security.kubernetes.io/enforce: privileged}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: kube-flannel-cfg, namespace: kube-flannel}
data:
  net-conf.json: |
    {"Network": "${POD_CIDRS%,*}", "EnableIPv6": true, "IPv6Network": "${POD_CIDRS#*,}", "Backend": {"Type": "vxlan"}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: kube-flannel-ds, namespace: kube-flannel}
spec:
  selector: {matchLabels: {app: flannel}}
  template:
    metadata: {labels: {app: flannel, tier: node}}
    spec:
      hostNetwork: true
      priorityClassName: system-node-critical
      tolerations: [{operator: Exists, effect: NoSchedule}]
      terminationGracePeriodSeconds: 0
      affinity:
        nodeAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            nodeSelectorTerms:
              - matchExpressions: [{key: kubernetes.io/os, operator: In, values: [linux]}]
      containers:
        - name: kube-flannel
          image: localhost/pods:1
          imagePullPolicy: Never
          command: [/bin/busybox, sleep, infinity]
          ports: [{name: healthz, containerPort: 8081}]
          volumeMounts: [{name: xtables-lock, mountPath: /run/xtables.lock}]
      volumes: [{name: xtables-lock, hostPath: {path: /run/xtables.lock, type: FileOrCreate}}]
END
    for node in a b c; do
        number=$(number_of "$node")
        kubectl annotate node "$node" --overwrite "$ANNOTATION/kube-subnet-manager=true" "$ANNOTATION/backend-type=vxlan" \
            "$ANNOTATION/public-ip=192.0.2.$number" "$ANNOTATION/public-ipv6=fd00:77::$number" \
            "$ANNOTATION/backend-data={\"VNI\":1,\"VtepMAC\":\"$(mac_of "$number" 4)\"}" \
            "$ANNOTATION/backend-v6-data={\"VNI\":1,\"VtepMAC\":\"$(mac_of "$number" 6)\"}"
    done
    for node in a b c; do flannel_state "$node"; done
    within 120 nodes_are_ready a b c
    within 120 kubectl rollout status daemonset kube-flannel-ds -n kube-flannel --timeout 1s
}

# flannel_state NODE [OPTION]
flannel_state() {
    local node=$1 number peer
    shift
    number=$(number_of "$node")
    for peer in a b c; do
        [[ $peer != "$node" ]] || continue
        echo "$(cidr_of "$peer" 0) $(mac_of "$(number_of "$peer")" 4) 192.0.2.$(number_of "$peer")"
        echo "$(cidr_of "$peer" 1) $(mac_of "$(number_of "$peer")" 6) fd00:77::$(number_of "$peer")"
    done >"$RUN/$node.peers"
    at "$node" "$HERE/flannel-state" --iface eth0 --rules "${FLANNEL_RULES[$number]}" --root / "$@" \
        --network "${POD_CIDRS%,*}" --subnet "$(cidr_of "$node" 0)" --public-ip "192.0.2.$number" --mac "$(mac_of "$number" 4)" \
        --network6 "${POD_CIDRS#*,}" --subnet6 "$(cidr_of "$node" 1)" --public-ip6 "fd00:77::$number" --mac6 "$(mac_of "$number" 6)" \
        <"$RUN/$node.peers"
}

number_of() {
    local v4
    IFS=, read -r v4 _ <"$RUN/$1/addresses"
    echo "${v4##*.}"
}

mac_of() {
    echo "02:00:5e:00:0$2:0$1"
}

cidr_of() {
    kubectl get node "$1" -o jsonpath="{.spec.podCIDRs[$2]}"
}

# runs_on NODE weft|flannel: the one runs there, and the other does not.
runs_on() {
    local seen
    seen=$(kubectl get pods -n kube-flannel --field-selector "spec.nodeName=$1" -o json | jq -r '.items[] | .metadata.labels.app as $app |
        .status.conditions[]? | select(.type == "Ready") | "\($app) \(.status)"')
    echo "$seen"
    [[ $seen == "$2 True" ]]
}

# The node's routes have weft's protocol, and flannel's packet rules are gone.
has_our_form() {
    [[ -z $(at "$1" ip route show proto boot dev flannel.1; at "$1" ip -6 route show proto boot dev flannel-v6.1) ]] || return 1
    ! { dump_rules "$1" | grep 'FLANNEL-\|flannel-ipv'; }
}
