# What a stolen token of an agent can do; before there are nodes, so that the next test begins on a bare cluster.
a_stolen_token_is_refused() {
    control_plane_for_nodes
    inside control env PATH="$KUBE:$PATH" "$HERE/admission" "$RUN/admin.kubeconfig" | tee "$RUN/admission"
    figure "$(tail -n 1 "$RUN/admission")"
    kubectl delete -f "$ROOT/manifests/weft.yaml" --wait=false
    within 120 namespace_is_gone
}

namespace_is_gone() {
    ! kubectl get namespace weft
}
