#!/usr/bin/env bash
# Direct server return in figures, interleaved in one lab: a large answer by DSR against no gateway at all, and small
# requests by DSR against the kernel's nft full NAT. Prints the medians with least and most.
set -euo pipefail
cd "$(dirname "$0")"

usage() {
    cat >&2 <<'END'
usage: bench-dsr.sh [--rounds N]

needs root, a release build (or TUNGATE=PATH), and curl, nginx, nft, python3
END
    exit 2
}

rounds=7
while [[ $# -gt 0 ]]; do
    case $1 in
        --rounds) rounds=${2:?} && shift 2 ;;
        *) usage ;;
    esac
done
source common.sh
vip=192.0.2.10 b1=10.0.0.1 direct=10.9.1.2
runs=$work/runs.tsv # what, how, figure
started=()

main() {
    check_tools "iproute2 curl nginx-light nftables python3" ip curl nginx nft python3
    trap clean EXIT
    trap 'exit 130' INT TERM
    ./lab.sh up >/dev/null
    ./lab.sh direct
    start_nginx
    local round
    for ((round = 1; round <= rounds; round++)); do
        echo "round $round of $rounds" >&2
        download direct "$direct"
        start_dsr with-decap
        download dsr "$vip"
        stop
        start_dsr
        requests dsr
        stop
        start_nft
        requests nft
        ./lab.sh exec gw nft flush ruleset
    done
    median answers dsr direct "MB/s of a 100 MB answer"
    median requests dsr nft "requests of 18 bytes a second that reach the backend"
}

start_nginx() {
    head -c 100000000 /dev/zero >"$work/document"
    cat >"$work/nginx.conf" <<END
daemon off; user root; pid $work/pid; error_log stderr; worker_processes 1;
events { worker_connections 64; }
http { access_log off; sendfile on; server { listen 80; location / { root $work; } } }
END
    chmod 755 "$work"
    ./lab.sh exec b1 nginx -p "$work" -e stderr -c "$work/nginx.conf" 2>"$work/nginx.log" &
    nginx=$!
    until_true ./lab.sh exec b1 bash -c 'ss -Hltn sport = :80 | grep -q .'
}

start_dsr() {
    cat >"$work/tungate.toml" <<END
[gateway]
source-addresses = ["10.99.0.10"]
admin-socket = "$work/sock"
[[service]]
name = "all"
listen = "$vip:*"
protocol = "any"
mode = "dsr"
backends = [{ name = "b1", address = "$b1" }]
END
    ./lab.sh exec gw "$tungate" run -c "$work/tungate.toml" 2>"$work/log" &
    started+=($!)
    until_true ./lab.sh exec gw "$tungate" show services --socket "$work/sock"
    [[ $# -gt 0 ]] || return 0
    ./lab.sh exec b1 "$tungate" decap -c "$work/tungate.toml" 2>"$work/log-decap" &
    started+=($!)
    until_true ./lab.sh exec b1 bash -c "ip -o address show dev lo | grep -qF $vip"
}

start_nft() {
    ./lab.sh exec gw nft -f - <<END
table ip bench {
    chain pre { type nat hook prerouting priority -100; ip daddr $vip dnat to $b1; }
    chain post { type nat hook postrouting priority 100; ip daddr $b1 masquerade; }
}
END
}

stop() {
    kill -TERM "${started[@]}"
    wait "${started[@]}" 2>/dev/null || true
    started=()
}

# download HOW ADDRESS
download() {
    local speed
    speed=$(./lab.sh exec client curl -sS -o /dev/null -w '%{speed_download}' "http://$2/document")
    printf 'answers\t%s\t%d\n' "$1" "$((speed / 1000000))" >>"$runs"
}

# requests HOW: datagrams of 18 bytes for two seconds, counted where they reach the backend, which drops them.
requests() {
    ./lab.sh exec b1 nft -f - <<END
table netdev bench { chain sink { type filter hook ingress device eth0 priority 0; ip protocol { udp, gre } counter drop; }; }
END
    ./lab.sh exec client python3 - "$vip" <<'END'
import socket, sys, time
to = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
to.connect((sys.argv[1], 9))
until = time.monotonic() + 2
while time.monotonic() < until:
    for _ in range(500):
        to.send(b"eighteen bytes now")
END
    sleep 0.2
    local packets
    packets=$(./lab.sh exec b1 nft list table netdev bench | sed -n 's/.*packets \([0-9]*\).*/\1/p')
    ./lab.sh exec b1 nft delete table netdev bench
    printf 'requests\t%s\t%d\n' "$1" "$((packets / 2))" >>"$runs"
}

# median WHAT ONE OTHER UNIT
median() {
    python3 - "$runs" "$@" <<'END'
import statistics, sys
runs, what, one, other, unit = sys.argv[1:]
lines = [line.split("\t") for line in open(runs)]
figures = {how: [int(figure) for w, h, figure in lines if w == what and h == how] for how in (one, other)}
middle = {how: statistics.median(all) for how, all in figures.items()}
said = ", ".join(f"{how} {middle[how]:.0f} ({min(all)}-{max(all)})" for how, all in figures.items())
print(f"{unit}: {said}: {middle[one] / middle[other]:.2f}x")
END
}

clean() {
    kill "${started[@]}" "${nginx:-}" 2>/dev/null || true
    wait
    ./lab.sh down
    rm -rf "$work"
}

main
