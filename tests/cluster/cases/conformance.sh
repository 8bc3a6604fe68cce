# The lab's API server promises what a real one promises: the same tests, against the real one.

# Before any controller runs: the tests delete every Node and Event.
our_api_server_promises_what_the_real_one_does() {
    # Plain HTTP, as the tests speak it.
    spawn api-proxy inside control "$KUBE/kubectl" --kubeconfig="$RUN/admin.kubeconfig" proxy --port=8001
    within 30 plain_api_answers
    printf '#!%s\nexec %q %q --forget\n' "$BASH" "$BASH" "$HERE/run" >"$RUN/forget"
    chmod +x "$RUN/forget"
    export HERE KUBE LOGS RUN
    PATH="$KUBE:$PATH" WEFT_TEST_APISERVER=127.0.0.1:8001 WEFT_TEST_APISERVER_FORGET="$RUN/forget" \
        inside control "$BINARIES/apiserver" promises kubectl --test-threads=1 | tee "$LOGS/promises.log"
    stop api-proxy
    kubectl delete nodes --all
    kubectl delete events --all
    figure "$(grep -c ' \.\.\. ok$' "$LOGS/promises.log") promises kept by the lab's API server and by $("$KUBE/kube-apiserver" --version)"
}

plain_api_answers() {
    inside control curl -sf --max-time 5 http://127.0.0.1:8001/version >/dev/null
}

# Every change so far, and every watch: etcd drops it from its history, and the API server begins anew.
forget_history() {
    local revision
    revision=$(etcd_says range '{"key":"AA=="}' | grep -o '"revision":"[0-9]*"' | grep -o '[0-9]*')
    etcd_says compaction "{\"revision\":\"$revision\",\"physical\":true}" >/dev/null
    stop api-server KILL
    api_server
}

etcd_says() {
    inside control curl -sf "http://127.0.0.1:2379/v3/kv/$1" -d "$2"
}
