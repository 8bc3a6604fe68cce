# The control plane: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, in the network of `control`.

# Where it is, as in a URL.
CONTROL=192.0.2.100
POD_CIDRS=10.244.0.0/16,fd00:10:244::/56
SERVICE_CIDRS=10.96.0.0/16,fd00:10:96::/112
# Of the cluster's DNS, which nothing asks.
DNS=10.96.0.10

certificates() {
    mkdir -p "$RUN/pki"
    cd "$RUN/pki"
    openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=weft-tests -keyout ca.key -out ca.crt 2>/dev/null
    openssl req -newkey rsa:2048 -nodes -subj /CN=kube-apiserver -keyout api.key -out api.csr 2>/dev/null
    openssl x509 -req -in api.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -out api.crt -extfile \
        <(echo "subjectAltName=IP:192.0.2.100,IP:fd00:77::100,IP:127.0.0.1,IP:10.96.0.1,IP:fd00:10:96::1,DNS:kubernetes.default.svc") 2>/dev/null
    openssl genrsa -out service-accounts.key 2048 2>/dev/null
    openssl rsa -in service-accounts.key -pubout -out service-accounts.pub 2>/dev/null
    {
        echo 'admin,admin,admin,"system:masters"'
        echo 'controllers,system:kube-controller-manager,controllers'
        echo 'scheduler,system:kube-scheduler,scheduler'
        echo 'proxy,system:kube-proxy,proxy'
        for node in "${NODE_NAMES[@]}"; do echo "node-$node,system:node:$node,node-$node,\"system:nodes\""; done
    } >tokens.csv
    cd "$OLDPWD"
    kubeconfigs
}

# Of all but the nodes.
kubeconfigs() {
    local name
    for name in admin controllers scheduler proxy; do kubeconfig "$name"; done
}

api() {
    echo "https://$CONTROL:6443"
}

# kubeconfig TOKEN: made as $RUN/TOKEN.kubeconfig
kubeconfig() {
    cat >"$RUN/$1.kubeconfig" <<END
apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "$(api)", certificate-authority: $RUN/pki/ca.crt}}]
users: [{name: test, user: {token: $1}}]
contexts: [{name: test, context: {cluster: test, user: test}}]
current-context: test
END
}

etcd() {
    spawn etcd inside control "$KUBE/etcd" --data-dir "$RUN/etcd" --unsafe-no-fsync --log-level warn \
        --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
        --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
        --initial-cluster default=http://127.0.0.1:2380
}

# api_server [OPTION...]
api_server() {
    # Every request of the agents, as it was made: tests/cluster/cases/confined.sh reads it.
    cat >"$RUN/audit.yaml" <<END
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - {level: Metadata, users: ["system:serviceaccount:weft:weft"]}
  - {level: None}
END
    spawn api-server inside control "$KUBE/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 --secure-port=6443 \
        --advertise-address="$(tr -d '[]' <<<"$CONTROL")" --tls-cert-file="$RUN/pki/api.crt" --tls-private-key-file="$RUN/pki/api.key" \
        --service-account-key-file="$RUN/pki/service-accounts.pub" \
        --service-account-signing-key-file="$RUN/pki/service-accounts.key" \
        --service-account-issuer=https://kubernetes.default.svc --token-auth-file="$RUN/pki/tokens.csv" \
        --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true \
        --kubelet-preferred-address-types=InternalIP --service-cluster-ip-range="$SERVICE_CIDRS" \
        --audit-policy-file="$RUN/audit.yaml" --audit-log-path="$LOGS/audit.log" "$@"
    within 120 api_is_ready
}

api_is_ready() {
    [[ $(inside control curl -gsk --max-time 5 "$(api)/readyz") == ok ]]
}

controllers() {
    spawn controllers inside control "$KUBE/kube-controller-manager" --kubeconfig="$RUN/controllers.kubeconfig" \
        --service-account-private-key-file="$RUN/pki/service-accounts.key" --root-ca-file="$RUN/pki/ca.crt" \
        --use-service-account-credentials=true --allocate-node-cidrs=true --cluster-cidr="$POD_CIDRS" \
        --service-cluster-ip-range="$SERVICE_CIDRS" --leader-elect=false --node-monitor-grace-period=40s
    spawn scheduler inside control "$KUBE/kube-scheduler" --kubeconfig="$RUN/scheduler.kubeconfig" --leader-elect=false
}

kubectl() {
    inside control "$KUBE/kubectl" --kubeconfig="$RUN/admin.kubeconfig" "$@"
}
