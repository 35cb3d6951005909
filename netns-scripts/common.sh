# What the scripts that run a gateway in a lab of their own share; they source it, in this folder.

script=${0##*/}
tungate=$(realpath "${TUNGATE:-../target/release/tungate}" 2>/dev/null) || tungate=
export LAB=tg$$ NO_COLOR=1
work=$(mktemp -d)

# check_tools "PACKAGE..." TOOL...: the tools, and a release build, are there.
check_tools() {
    local tool
    for tool in "${@:2}"; do
        command -v "$tool" >/dev/null && continue
        echo "$script: there is no $tool; run: apt-get install $1" >&2
        exit 1
    done
    [[ -x $tungate ]] || { echo "$script: there is no release build; run: cargo build --release" >&2; exit 1; }
}

# Asks until the answer is yes, for ten seconds.
until_true() {
    local tries
    for ((tries = 0; tries < 200; tries++)); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.05
    done
    echo "$script: gave up waiting for: $*" >&2
    [[ ! -s $work/log ]] || cat "$work/log" >&2
    exit 1
}

# step NUMBER TITLE: heads a step of a walk.
step() {
    printf '\n%s. %s\n' "$1" "$2"
}

# An IPv6 address in brackets, as in URLs and configurations.
bracket() {
    [[ $1 == *:* ]] && echo "[$1]" || echo "$1"
}

# A line of tcpdump without time, numbers and options: FROM > TO: Flags [...], length N
shorten() {
    sed -E 's/^[0-9:.]+ IP6? /        /; s/, (seq|ack|win|options) [^,]*(\[[^]]*\])?//g; s/: HTTP.*$//'
}
