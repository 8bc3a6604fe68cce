# Control groups: the only thing of a cluster that does not go with its namespaces. All have names that begin with
# weft-tests-; there is one cluster at a time on a machine, so that whatever has that name at the start is left over.

CGROUP=weft-tests

cgroup_roots() {
    if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
        echo /sys/fs/cgroup
    else
        find /sys/fs/cgroup -mindepth 1 -maxdepth 1 -type d
    fi
}

cgroups() {
    local root file
    while read -r root; do
        if [[ -e $root/cgroup.controllers ]]; then
            delegate "$root"
            mkdir -p "$root/$CGROUP-$1"
            delegate "$root/$CGROUP-$1"
            continue
        fi
        mkdir -p "$root/$CGROUP-$1"
        # Version 1 lets no process into a cpuset that has no CPUs yet.
        for file in cpuset.cpus cpuset.mems; do
            [[ ! -e $root/$file ]] || cat "$root/$file" >"$root/$CGROUP-$1/$file"
        done
    done < <(cgroup_roots)
}

delegate() {
    local controller
    for controller in $(cat "$1/cgroup.controllers"); do
        echo "+$controller" >"$1/cgroup.subtree_control" 2>/dev/null || true
    done
}

# kill_cgroups NAME: every process of the node's pods.
kill_cgroups() {
    local pids
    pids=$(cgroup_roots | while read -r root; do
        find "$root/$CGROUP-$1" -name cgroup.procs -exec cat {} + 2>/dev/null || true
    done | sort -u)
    [[ -z $pids ]] || kill -9 $pids 2>/dev/null || true
}

# remove_cgroups [NAME]: of one node, or of all.
remove_cgroups() {
    local attempt left
    for ((attempt = 0; attempt < 50; attempt++)); do
        left=$(cgroup_roots | while read -r root; do
            find "$root" -mindepth 1 -maxdepth 1 -type d -name "$CGROUP-${1:-*}" 2>/dev/null
        done)
        [[ -n $left ]] || return 0
        # A group is empty a moment after its last process has ended.
        while read -r root; do find "$root" -depth -type d -exec rmdir {} + 2>/dev/null; done <<<"$left"
        sleep 0.1
    done
    echo "control groups are left: $left" >&2
}
