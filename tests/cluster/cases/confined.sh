# What the agent may do, and what it does with that.

the_container_may_only_administer_the_network() {
    local pid
    pid=$(agent_pid a)
    expect_status "$pid" CapEff 0000000000001000
    expect_status "$pid" CapPrm 0000000000001000
    expect_status "$pid" CapBnd 0000000000001000
    expect_status "$pid" CapAmb 0000000000000000
    expect_status "$pid" NoNewPrivs 1
    expect_status "$pid" Seccomp 2
    awk '$5 == "/" { found = 1; if ($6 !~ /(^|,)ro(,|$)/) bad = 1 } END { exit !found || bad }' "/proc/$pid/mountinfo" ||
        fail "the root of the container can be written: $(cat "/proc/$pid/mountinfo")"
    figure "capabilities: CAP_NET_ADMIN alone; root read-only, no new privileges, seccomp on"
    watch_a_start a
    used_files
    used_system_calls
}

expect_status() {
    local is
    is=$(awk -v key="$2:" '$1 == key { print $2 }' "/proc/$1/status")
    [[ $is == "$3" ]] || fail "$2 of the agent is $is, not $3"
}

# Follows a life of the agent from its first instruction: the shim starts it, so the shim is what strace holds.
watch_a_start() {
    local pid shim tracer
    pid=$(agent_pid "$1")
    shim=$(ps -o ppid= -p "$pid")
    rm -rf "$RUN/strace" && mkdir "$RUN/strace"
    strace --seccomp-bpf -ff -y -qq -s 200 -o "$RUN/strace/of" -p "${shim// /}" 2>"$LOGS/strace.log" &
    tracer=$!
    sleep 1
    kill -9 "$pid"
    # For its successor to write.
    at "$1" rm -f /run/flannel/subnet.env /etc/cni/net.d/10-weft.conflist
    # Not the shim of the new container: it is of the same pod, and a pod has one shim.
    within 120 has_another_agent "$1" "$pid"
    within 120 agents_are_ready
    # Something to heal, and time to do it and what the timers bring.
    at "$1" ip route flush proto 119
    sleep 15
    kill -INT "$tracer"
    wait "$tracer" || true
    find "$RUN/strace" -type f -exec grep -l 'execve("/weft"' {} + | head -n 1 >"$RUN/strace-of"
    [[ -s $RUN/strace-of ]] || fail "strace did not see the agent start: $(ls "$RUN/strace")"
    agents_calls >"$LOGS/agent.strace"
}

# The lines of the agent's process, from its execve on, and of its threads.
agents_calls() {
    local file threads
    file=$(cat "$RUN/strace-of")
    sed -n '/execve("\/weft"/,$p' "$file"
    threads=$(sed -n '/execve("\/weft"/,$p' "$file" | sed -n 's/^clone3\?(.* = \([0-9]*\)$/\1/p')
    for thread in $threads; do
        cat "$RUN/strace/of.$thread" 2>/dev/null || true
    done
}

used_system_calls() {
    local calls
    calls=$(sed -n 's/^\([a-z0-9_]*\)(.*/\1/p' "$LOGS/agent.strace" | sort -u | tr '\n' ' ')
    figure "system calls: $calls"
    grep -qw execve <<<"$calls" && grep -qwE 'sendmsg|sendto' <<<"$calls" || fail "strace saw no netlink"
}

# Files it opened; those opened to write, made, renamed or removed must be in the two folders that are meant for that.
used_files() {
    local written
    grep -E '^(open|openat|creat|mkdir|mkdirat|rename|renameat|renameat2|unlink|unlinkat|chmod|fchmodat|symlink|symlinkat|link|linkat)\(' \
        "$LOGS/agent.strace" >"$RUN/file-calls"
    figure "files read: $(grep -v 'O_WRONLY\|O_RDWR\|O_CREAT' "$RUN/file-calls" | grep -v ENOENT | quoted | tr '\n' ' ')"
    written=$(grep 'O_WRONLY\|O_RDWR\|O_CREAT\|^mkdir\|^rename\|^unlink\|^chmod\|^fchmod\|^symlink\|^link' "$RUN/file-calls" | quoted) || fail "strace saw it write nothing"
    figure "files written: $(tr '\n' ' ' <<<"$written")"
    ! grep -vE '^(/run/flannel|/etc/cni/net\.d|/proc/sys/net)(/|$)' <<<"$written" || fail "written elsewhere"
}

quoted() {
    grep -o '"[^"]*"' | tr -d '"' | sort -u
}

# Every right of the agents' roles was used: the API server's own log of this run shows it.
rbac_allows_what_is_asked_for() {
    # Something that a person must hear of: one agent makes the Event, the next goes on with it.
    kubectl annotate node a flannel.alpha.coreos.com/public-ip-overwrite=nonsense
    within 120 has_asked 'create events'
    starts_anew a
    within 120 has_asked 'patch events'
    kubectl annotate node a flannel.alpha.coreos.com/public-ip-overwrite-
    within 120 agents_are_ready
    # As before Kubernetes 1.34, where a list does not come with the watch.
    stop api-server KILL
    api_server --feature-gates=WatchList=false
    # Only an agent that starts has to have the whole list. Another pod would come later: the kubelet has to find the API
    # server again first, for which it takes up to a minute.
    agent_is_killed b
    within 120 has_asked 'list nodes'
    within 120 nodes_are_ready a b c
    allowed | sort -u >"$RUN/allowed"
    asked | sort -u >"$RUN/asked"
    figure "asked of the API server: $(paste -sd, "$RUN/asked" | sed 's/,/, /g')"
    diff "$RUN/allowed" "$RUN/asked" || fail "the roles and what is asked for differ: < allowed, > asked"
}

# The pod of the agent goes, and another comes: for one whose program is killed again the kubelet waits longer each time.
starts_anew() {
    local pid
    pid=$(agent_pid "$1")
    kubectl delete pod -n weft -l app=weft --field-selector "spec.nodeName=$1"
    within 120 has_another_agent "$1" "$pid"
}

has_asked() {
    asked | grep -x "$1" >/dev/null
}

allowed() {
    kubectl get clusterrole weft -o json | jq -r "$GRANTS"
    kubectl get roles -A -o json | jq -r ".items[] | select(.metadata.name | startswith(\"weft\")) | $GRANTS"
}

GRANTS='.rules[] | . as $rule | .apiGroups[] as $group | .resources[] as $resource | $rule.verbs[] | "\(.) \($resource)\(if $group == "" then "" else "." + $group end)"'

asked() {
    tail -n "+$(($(cat "$RUN/audit-before") + 1))" "$LOGS/audit.log" | jq -r 'select(.responseStatus.code < 400 and .objectRef) | .objectRef as $of |
        "\(.verb) \($of.resource)\(if $of.subresource then "/" + $of.subresource else "" end)\(if $of.apiGroup then "." + $of.apiGroup else "" end)"'
}
