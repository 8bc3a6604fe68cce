# Kubernetes: the program of tests/cluster/kube, built once for each content of that folder, and kept.

# Sets KUBE: a folder with etcd, kube-apiserver, …, kubectl.
build_kube() {
    local source="$HERE/kube" key cache began=$SECONDS name
    key=$(cat "$source"/{go.mod,go.sum,main.go} | sha256sum | cut -c1-16)
    cache="${XDG_CACHE_HOME:-$HOME/.cache}/weft-tests"
    KUBE="$cache/kube-$key"
    if [[ ! -x $KUBE/kube ]]; then
        find_go || return 1
        echo "building Kubernetes $(kube_version) with $("$GO" version); this is done once, into $KUBE"
        mkdir -p "$KUBE"
        (cd "$source" && CGO_ENABLED=0 "$GO" build -mod=readonly -trimpath -ldflags "$(kube_flags)" -o "$KUBE/kube.new" .) || return 1
        mv "$KUBE/kube.new" "$KUBE/kube"
        echo "built in $((SECONDS - began)) s"
        # What is left of other versions.
        find "$cache" -mindepth 1 -maxdepth 1 -name 'kube-*' ! -name "kube-$key" -exec rm -rf {} +
    fi
    for name in etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do
        ln -sf kube "$KUBE/$name"
    done
}

kube_version() {
    sed -n 's/^\tk8s.io\/kubernetes v/v/p' "$HERE/kube/go.mod"
}

kube_flags() {
    local version minor at=k8s.io/component-base/version
    version=$(kube_version)
    minor=${version#v1.}
    echo "-s -w -X $at.gitVersion=$version -X $at.gitMajor=1 -X $at.gitMinor=${minor%%.*}"
}

# Sets GO: one that is new enough, installed if need be.
find_go() {
    local candidate
    for candidate in go /usr/local/go/bin/go /usr/lib/go-1.24/bin/go; do
        GO=$(command -v "$candidate") && go_is_new_enough && return 0
    done
    install_packages golang-1.24-go ||
        install_packages -t bookworm-backports golang-1.24-go ||
        { echo "Kubernetes needs Go 1.24 or later, and there is no package golang-1.24-go: put a newer go on the PATH" >&2; return 1; }
    GO=/usr/lib/go-1.24/bin/go
}

go_is_new_enough() {
    local minor
    minor=$(GOTOOLCHAIN=local "$GO" env GOVERSION | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
    ((${minor:-0} >= 24))
}
