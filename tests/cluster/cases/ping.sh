# Pings between all talkers, in both families: each flow one in a millisecond.

PINGS=1000
# Milliseconds without any answer on a flow that pass for a busy machine and not for an outage. Seen: up to 31, at a load of 16
# on two cores. An outage of 50 is seen as such (the_pinger_can_lose).
SILENCE=250
# Pings a second and flow below which a test says too little. One thread sends them all, and carries most of them to
# the other end and back within its own system call; on a crowded machine that is all that one core gives: 265 a second and flow at a load of 34.
ENOUGH=100

# start_pings NAME [NODE...]: from and to the talkers on these nodes, or on all.
start_pings() {
    local name=$1
    shift
    talkers | only_nodes "$@" >"$RUN/$name.talkers"
    flows <"$RUN/$name.talkers" >"$RUN/$name.flows"
    # What measures goes before what is measured, on a machine that has more to do than it can.
    # shellcheck disable=SC2046 # each line is an argument
    nice -n -15 "$BINARIES/pinger" $PINGS $(cat "$RUN/$name.flows") >"$LOGS/pings-$name.log" 2>&1 &
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

# stop_pings NAME: sets SENT, LOST, GAP (ms) and RATE; the log has the flows.
stop_pings() {
    local pid
    pid=$(pid_of "$1")
    kill -TERM "$pid"
    wait "$pid" || true
    read -r _ SENT LOST GAP RATE < <(grep '^total ' "$LOGS/pings-$1.log") || fail "the pinger said nothing: $(cat "$LOGS/pings-$1.log")"
    cat "$LOGS/pings-$1.log"
}

# Pings on all pairs while something happens: nothing may be lost.
undisturbed_by() {
    local name=$1 began
    start_pings "$name"
    began=$(now)
    "$@"
    stop_pings "$name"
    undisturbed "$name" "$(($(now) - began))"
}

# undisturbed NAME MILLISECONDS: judges what stop_pings found.
undisturbed() {
    figure "$1: $SENT pings in $(seconds "$2") on $(wc -l <"$RUN/$1.flows") flows, each $RATE a second: $LOST lost, longest silence $GAP ms; load $(cut -d' ' -f1 /proc/loadavg)"
    ((LOST == 0)) || fail "$LOST of $SENT pings lost"
    ((GAP < SILENCE)) || fail "a flow heard nothing for $GAP ms"
    ((RATE >= ENOUGH)) || fail "only $RATE pings a second were sent on a flow"
}
