# Images: weft's own, as manifests/image/build makes it, and one with nothing but busybox for the pods of the tests.

# pods_image OUT: localhost/pods:1, in the form of `docker save`.
pods_image() {
    local work digest config
    work=$(mktemp -d)
    mkdir -p "$work/root/bin" "$work/image"
    cp /bin/busybox "$work/root/bin/busybox"
    tar --create --file "$work/image/layer.tar" --directory "$work/root" --owner 0 --group 0 --mtime @0 .
    digest=$(sha256sum "$work/image/layer.tar" | cut -d' ' -f1)
    # As the sandbox of a pod it only waits; the pods of the tests give it another command.
    jq --null-input --arg layer "sha256:$digest" '{architecture: "amd64", os: "linux",
        config: {Entrypoint: ["/bin/busybox", "sleep", "infinity"], Env: ["PATH=/bin"]},
        rootfs: {type: "layers", diff_ids: [$layer]}}' >"$work/config.json"
    config=$(sha256sum "$work/config.json" | cut -d' ' -f1).json
    mv "$work/config.json" "$work/image/$config"
    jq --null-input --arg config "$config" \
        '[{Config: $config, RepoTags: ["localhost/pods:1"], Layers: ["layer.tar"]}]' >"$work/image/manifest.json"
    tar --create --file "$1" --directory "$work/image" manifest.json "$config" layer.tar
    rm -rf "$work"
}
