# The cluster of the tests, and questions to it.

control_plane_for_nodes() {
    controllers
    within 120 service_accounts_are_made
}

service_accounts_are_made() {
    kubectl get serviceaccount default --namespace default
}

# three_nodes [PLUGINS]: as add_node takes it.
three_nodes() {
    add_node a 1 "$@"
    add_node b 2 "$@"
    add_node c 3 "$@"
    # kube-proxy is no part of this project: it may what it asks for.
    kubectl create clusterrolebinding kube-proxy --clusterrole=system:node-proxier --user=system:kube-proxy 2>/dev/null || true
    within 120 nodes_are_there a b c
}

nodes_are_there() {
    kubectl get nodes "$@"
}

nodes_are_ready() {
    local node
    for node; do
        [[ $(kubectl get node "$node" -o jsonpath='{.status.conditions[?(@.type=="Ready")].status}') == True ]] || return 1
    done
}

# The pods that talk: one on every node, with a Service for all of them in every family that Services have.
pods_on_every_node() {
    kubectl apply -f - <<'END'
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: talker}
spec:
  selector: {matchLabels: {app: talker}}
  template:
    metadata: {labels: {app: talker}}
    spec:
      terminationGracePeriodSeconds: 0
      tolerations: [{operator: Exists, effect: NoSchedule}]
      containers:
        - name: talker
          image: localhost/pods:1
          imagePullPolicy: Never
          command: [/bin/busybox, sh, -c]
          args: ['mkdir -p /www && echo $NAME >/www/name && exec /bin/busybox httpd -f -p [::]:80 -h /www']
          env: [{name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
---
apiVersion: v1
kind: Service
metadata: {name: talkers}
spec:
  ipFamilyPolicy: PreferDualStack
  selector: {app: talker}
  ports: [{port: 80}]
END
    talkers_run
}

talkers_run() {
    within 180 kubectl rollout status daemonset talker --timeout 1s
}

# Whether pods have addresses of a family: 4 or 6.
pods_have() {
    if (($1 == 4)); then [[ $POD_CIDRS == *.* ]]; else [[ $POD_CIDRS == *:* ]]; fi
}

# NODE IPv4 IPv6 PID, a line for each talker; an address that it has not is "-".
talkers() {
    local node v4 v6 container
    kubectl get pods -l app=talker --field-selector status.phase=Running -o json |
        jq -r 'def ip(six): [.status.podIPs[].ip | select(contains(":") == six)][0] // "-";
            .items[] | select(.metadata.deletionTimestamp == null) | [.spec.nodeName, ip(false), ip(true),
            (.status.containerStatuses[0].containerID | ltrimstr("containerd://"))] | join(" ")' |
        while read -r node v4 v6 container; do
            echo "$node $v4 $v6 $(container_pid "$node" "$container")"
        done
}

container_pid() {
    at "$1" ctr --namespace k8s.io tasks list | awk -v id="$2" '$1 == id { print $2 }'
}

# The first process of the agent's container on a node.
agent_pid() {
    local container
    container=$(kubectl get pods -n weft --field-selector "spec.nodeName=$1,status.phase=Running" -o json |
        jq -r '.items[] | select(.metadata.deletionTimestamp == null) | .status.containerStatuses[0].containerID | ltrimstr("containerd://")')
    container_pid "$1" "$container"
}

# Whether every agent of the DaemonSet is ready.
agents_are_ready() {
    kubectl rollout status daemonset weft -n weft --timeout 1s
}
