# Nodes: a network, a file system and a host name of its own for each; containerd, kubelet and kube-proxy in it.
#
# What a node's programs write stays in memory and in its own mount namespace: /run, /var/lib, /var/log, /opt and /etc. What
# kubelet would set for the whole machine (vm.overcommit_memory and its like) it finds set as it wants it: those files
# are covered by the node's own.

# add_node NAME NUMBER [PLUGINS]: our_plugins, or another function that puts the CNI plugins in their place.
add_node() {
    local name=$1 number=$2 plugins=${3:-our_plugins}
    mkdir -p "$RUN/$name" "$LOGS/$name-pods"
    machine "$name" "$number"
    default_routes "$name"
    inside "$name" sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
    kubeconfig "node-$name"
    cgroups "$name"
    node_files "$name" "$number"
    export RUN LOGS HERE
    spawn "$name" nsenter --net="/run/netns/$name" unshare --mount --uts "$BASH" "$HERE/lib/node-init" "$name"
    within 30 test -e "$RUN/$name/mounted"
    "$plugins" "$name"
    spawn "$name-containerd" at "$name" containerd
    within 60 at "$name" test -S /run/containerd/containerd.sock
    at "$name" ctr --namespace k8s.io images import "$RUN/images/pods.tar" >/dev/null
    at "$name" ctr --namespace k8s.io images import "$RUN/images/weft.tar" >/dev/null
    # It only waits, as this one does.
    at "$name" ctr --namespace k8s.io images tag localhost/pods:1 registry.k8s.io/pause:3.10 >/dev/null
    kubelet "$name"
    kube_proxy "$name"
}

# The CNI plugins of all nodes: Debian's, and one in flannel's place.
cni_plugins() {
    mkdir -p "$RUN/cni"
    ln -s /usr/lib/cni/* "$RUN/cni/"
    ln -s "$HERE/flannel-cni" "$RUN/cni/flannel"
}

our_plugins() {
    at "$1" tee -a /etc/containerd/config.toml >/dev/null <<END
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$RUN/cni"
    conf_dir = "/etc/cni/net.d"
END
}

# at NODE COMMAND...: runs it on the node.
at() {
    local name=$1
    shift
    ${EXEC:-} nsenter --target "$(pid_of "$name")" --mount --net --uts -- "$@"
}

kubelet() {
    spawn "$1-kubelet" at "$1" "$KUBE/kubelet" --config="$RUN/$1/kubelet.yaml" --kubeconfig="$RUN/node-$1.kubeconfig" \
        --hostname-override="$1" --node-ip="$(cat "$RUN/$1/addresses")" --cert-dir=/run/kubelet-pki --v=2
}

kube_proxy() {
    spawn "$1-kube-proxy" at "$1" "$KUBE/kube-proxy" --kubeconfig="$RUN/proxy.kubeconfig" --hostname-override="$1" \
        --proxy-mode="${PROXY_MODE:-iptables}" --cluster-cidr="$POD_CIDRS" --conntrack-max-per-core=0 \
        --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0
}

# remove_node NAME: as if its power went.
remove_node() {
    local name=$1 pid
    for pid in "$name-kube-proxy" "$name-kubelet" "$name-containerd"; do stop "$pid" KILL; done
    kill_cgroups "$name"
    at "$name" true && kill_mount_namespace "$(readlink "/proc/$(pid_of "$name")/ns/mnt")"
    ip netns del "$name"
    remove_cgroups "$name"
    rm -rf "${RUN:?}/$name"
}

kill_mount_namespace() {
    local process
    for process in /proc/[0-9]*; do
        [[ $(readlink "$process/ns/mnt") == "$1" ]] && kill -9 "${process#/proc/}" 2>/dev/null
    done
    true
}

node_files() {
    local name=$1 number=$2
    addresses "$number" | cut -d' ' -f1 | paste -sd, >"$RUN/$name/addresses"
    cat >"$RUN/$name/kubelet.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$CGROUP-$name
failSwapOn: false
resolvConf: ""
clusterDNS: ["$DNS"]
clusterDomain: cluster.local
nodeStatusUpdateFrequency: 4s
imageGCHighThresholdPercent: 100
evictionHard: {nodefs.available: "1%", imagefs.available: "1%", memory.available: 50Mi}
END
    cat >"$RUN/$name/containerd.toml" <<END
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pods:1"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
END
}
