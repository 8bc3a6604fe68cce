# weft on nodes such as k3s has without its own flannel: containerd looks where it always does, and finds there what
# docs/installing.md says to put there. k3s itself is not here.

k3ss_overlay_on_nodes_like_k3ss() {
    local node
    POD_CIDRS=10.42.0.0/16
    for node in a b c; do
        remove_node "$node"
        kubectl delete node "$node"
    done
    stop controllers
    stop scheduler
    controllers
    three_nodes k3ss_plugins
    comes_up -k manifests/overlays/k3s
    pods_on_every_node
    talkers >"$RUN/talkers"
    [[ -s $RUN/talkers ]] || fail "nobody to talk to"
    grep -v ' 10\.42\.' "$RUN/talkers" && fail "this pod has an address of another network"
    everything_answers
    comes_off removal weft
    nodes_are_bare
}

# The programs are Debian's, where k3s unpacks its own; the links are made with the commands of the documentation.
k3ss_plugins() {
    sed -n '/^mkdir -p \/opt\/cni\/bin$/,/^```$/{/^```$/!p}' "$ROOT/docs/installing.md" >"$RUN/k3s-links"
    grep -q '^ln -s /var/lib/rancher/k3s/' "$RUN/k3s-links" || fail "docs/installing.md no longer says where k3s's plugins are"
    at "$1" sh -c 'mkdir -p /var/lib/rancher/k3s/data/current && ln -s /usr/lib/cni /var/lib/rancher/k3s/data/current/bin'
    at "$1" bash -e "$RUN/k3s-links"
}
