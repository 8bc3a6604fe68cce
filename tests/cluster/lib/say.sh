# Words: what a test says, and how it waits.

# Ends the test that calls it.
fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# A measured figure: shown with the test's result, and kept in the logs.
figure() {
    echo "    $*" >>"$LOGS/figures-of-test"
    echo "figure: $*"
}

# within SECONDS COMMAND...: until it succeeds; its last words if it never does.
within() {
    local seconds=$1 until=$((SECONDS + $1)) said
    shift
    until said=$("$@" 2>&1); do
        if ((SECONDS >= until)); then
            printf '%s\n' "$said" >&2
            fail "not within $seconds s: $*"
        fi
        sleep 0.2
    done
}

# Milliseconds since some moment of the past.
now() {
    local up
    read -r up _ </proc/uptime
    echo $((${up/./} * 10))
}

# 12345 → 12.3 s
seconds() {
    printf '%d.%d s' $(($1 / 1000)) $(($1 % 1000 / 100))
}
