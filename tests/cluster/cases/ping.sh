# Pings between all talkers, in both families, a thousand a second in all.

PINGS=1000

# start_pings NAME [NODE...]: from and to the talkers on these nodes, or on all.
start_pings() {
    local name=$1
    shift
    talkers | only_nodes "$@" >"$RUN/$name.talkers"
    flows <"$RUN/$name.talkers" >"$RUN/$name.flows"
    # shellcheck disable=SC2046 # each line is an argument
    "$BINARIES/pinger" $PINGS $(cat "$RUN/$name.flows") >"$LOGS/pings-$name.log" 2>&1 &
    echo $! >"$RUN/$name.pid"
    within 60 grep -q '^started' "$LOGS/pings-$name.log"
}

only_nodes() {
    local wanted=" $* "
    while read -r node rest; do
        [[ $wanted == "  " || $wanted == *" $node "* ]] && echo "$node $rest"
    done
    true
}

# FROM-TO-FAMILY=PID=ADDRESS, for every ordered pair.
flows() {
    awk '{ node[NR] = $1; v4[NR] = $2; v6[NR] = $3; pid[NR] = $4 }
         END { for (i = 1; i <= NR; i++) for (j = 1; j <= NR; j++) if (i != j) {
             print node[i] "-" node[j] "-v4=" pid[i] "=" v4[j]; print node[i] "-" node[j] "-v6=" pid[i] "=" v6[j] } }'
}

# stop_pings NAME: sets SENT and LOST; the log has the flows.
stop_pings() {
    local pid
    pid=$(pid_of "$1")
    kill -TERM "$pid"
    wait "$pid" || true
    read -r _ SENT LOST _ < <(grep '^total ' "$LOGS/pings-$1.log") || fail "the pinger said nothing: $(cat "$LOGS/pings-$1.log")"
    cat "$LOGS/pings-$1.log"
}

# Pings on all pairs while something happens: nothing may be lost.
undisturbed_by() {
    local name=$1 began
    start_pings "$name"
    began=$(now)
    "$@"
    stop_pings "$name"
    figure "$name: $SENT pings in $(seconds $(($(now) - began))) on $(wc -l <"$RUN/$name.flows") flows, $LOST lost"
    ((SENT > 0)) || fail "no ping was sent"
    ((LOST == 0)) || fail "$LOST of $SENT pings lost"
}
