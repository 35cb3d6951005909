#!/usr/bin/env bash
# Direct server return in figures, interleaved in one lab: large answers by DSR against no gateway at all, and small
# requests by DSR against the kernel's nft full NAT. Prints the medians with least and most. Answers are measured with
# each congestion control that the machine allows: BBR paces by the round trips it sees, which are longer by DSR.
set -euo pipefail
cd "$(dirname "$0")"

usage() {
    cat >&2 <<'END'
usage: bench-dsr.sh [--rounds N]

needs root, a release build with the example `traffic` (or TUNGATE=PATH, TRAFFIC=PATH), and curl, nginx, nft, python3
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
traffic=$(realpath "${TRAFFIC:-$(dirname "$tungate")/examples/traffic}" 2>/dev/null) || traffic=
vip=192.0.2.10 b1=10.0.0.1 direct=10.9.1.2
runs=$work/runs.tsv # what, how, figure
read -ra controls < /proc/sys/net/ipv4/tcp_allowed_congestion_control
answers=5 # of each kind a round: one takes some 40 ms
started=()

main() {
    check_tools "iproute2 curl nginx-light nftables python3" ip curl nginx nft python3
    [[ -x $traffic ]] || { echo "$script: there is no traffic; run: cargo build --release --example traffic" >&2; exit 1; }
    trap clean EXIT
    trap 'exit 130' INT TERM
    ./lab.sh up >/dev/null
    ./lab.sh direct
    start_nginx
    local round control
    for ((round = 1; round <= rounds; round++)); do
        echo "round $round of $rounds" >&2
        start_dsr with-decap
        for control in "${controls[@]}"; do
            ./lab.sh exec b1 sysctl -qw "net.ipv4.tcp_congestion_control=$control"
            download "$control"
        done
        stop
        start_dsr
        requests dsr
        stop
        start_nft
        requests nft
        ./lab.sh exec gw nft flush ruleset
    done
    for control in "${controls[@]}"; do
        median "$control" dsr direct "MB/s of a 100 MB answer, $control"
    done
    median program dsr nft "requests of 18 bytes a second that reach the backend, from one program"
    median generator dsr nft "requests of 18 bytes a second that reach the backend, from a generator"
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
health = { check = "none" } # requests are counted where nobody would answer a check
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

# download CONTROL: straight from the backend and by DSR, in turn. The gateway has nothing to do in the first case.
download() {
    local speed n
    for ((n = 0; n < 2 * answers; n++)); do
        local how=direct from=$direct
        ((n % 2 == 0)) || { how=dsr && from=$vip; }
        speed=$(./lab.sh exec client curl -sS -o /dev/null -w '%{speed_download}' "http://$from/document")
        printf '%s\t%s\t%d\n' "$1" "$how" "$((speed / 1000000))" >>"$runs"
    done
}

# requests HOW: datagrams of 18 bytes for two seconds, counted where they reach the backend, which drops them: as one
# program sends them, in one flow, and as many as a generator can, in 1000 flows.
requests() {
    ./lab.sh exec b1 nft -f - <<END
table netdev bench { counter came { }; chain sink { type filter hook ingress device eth0 priority 0; ip protocol { udp, gre } counter name "came" drop; }; }
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
    arrived program "$1"
    local mac
    mac=$(./lab.sh exec gw cat /sys/class/net/to-client/address)
    ./lab.sh exec client "$traffic" flood eth0 "$mac" 198.51.100.2:20000 "$vip:9" 1000 2 >/dev/null
    arrived generator "$1"
    ./lab.sh exec b1 nft delete table netdev bench
}

# arrived SENDER HOW: notes what has arrived a second, and begins to count anew.
arrived() {
    sleep 0.2
    local packets
    packets=$(./lab.sh exec b1 nft reset counter netdev bench came | sed -n 's/.*packets \([0-9]*\).*/\1/p')
    printf '%s\t%s\t%d\n' "$1" "$2" "$((packets / 2))" >>"$runs"
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
