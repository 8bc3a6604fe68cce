# What a fresh Debian or Ubuntu lacks.

install_packages() {
    DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends "$@"
}

# A program that only this package brings → the package.
need_tools() {
    local -A packages=(
        [containerd]=containerd [runc]=runc [/usr/lib/cni/bridge]=containernetworking-plugins
        [iptables]=iptables [nft]=nftables [conntrack]=conntrack [ipset]=ipset [/bin/busybox]=busybox-static
        [openssl]=openssl [curl]=curl [jq]=jq [strace]=strace [python3]=python3 [ip]=iproute2 [unshare]=util-linux
        [sysctl]=procps [ps]=procps
    )
    local tool missing=()
    for tool in "${!packages[@]}"; do
        command -v "$tool" >/dev/null || missing+=("${packages[$tool]}")
    done
    # The image that the test pods run has nothing but busybox in it.
    if command -v ldd >/dev/null && ldd /bin/busybox >/dev/null 2>&1; then missing+=(busybox-static); fi
    ((${#missing[@]})) || return 0
    command -v apt-get >/dev/null || { echo "missing, and no apt-get to install them with: ${missing[*]}" >&2; return 1; }
    apt-get update -q && install_packages "${missing[@]}"
}
