# Long-running programs: each with a name, a log, and a process number in a file.

# spawn NAME COMMAND...: EXEC is for `inside` and `at`, so that the number is the program's and not a shell's.
spawn() {
    local name=$1
    shift
    EXEC=exec "$@" >>"$LOGS/$name.log" 2>&1 </dev/null &
    echo $! >"$RUN/$name.pid"
    # Or bash would say of each in the middle of the results that it was killed.
    disown $!
}

pid_of() {
    cat "$RUN/$1.pid"
}

signal() {
    kill "-$1" "$(pid_of "$2")"
}

# stop NAME [SIGNAL]: and waits until it is gone.
stop() {
    local pid
    pid=$(pid_of "$1")
    kill "-${2:-TERM}" "$pid" 2>/dev/null || return 0
    within 30 is_gone "$pid"
}

is_gone() {
    ! kill -0 "$1" 2>/dev/null || [[ $(ps -o stat= -p "$1") == Z* ]]
}
