#!/usr/bin/env bash
# Direct server return in figures, all ways in turn in one lab: large answers by DSR against no gateway at all, and small
# packets by DSR against the kernel's nft full NAT. Answers are measured with each congestion control that the machine
# allows, over cables without a rate and with one: BBR paces by the round trips it sees.
set -euo pipefail
cd "$(dirname "$0")"

usage() {
    cat >&2 <<'END'
usage: bench-dsr.sh [--rounds N] [--seconds N] [--size BYTES] [--workers N] [--reverse] [ROW...]

  ROW             answers        100 MB from the backend, MB/s: through the gateway and by a cable without one
                  answers-10g    the same over cables of 10 Gbit/s
                  answers-1g     the same over cables of 1 Gbit/s
                  program        datagrams that reach the backend, which drops them, a second: from one program
                  requests       the same, from a generator in 1000 flows
                  exchanges      datagrams of the generator that the backend sends back and that reach the client
                  exchanges-2    the same with two generators, so that no way has a CPU to spare
                  default: all of them
  --rounds N      rounds, each with every way once (5)
  --seconds N     how long each measurement of small packets takes (2)
  --size BYTES    payload of the datagrams (18)
  --workers N     tungate's workers (its default)
  --reverse       the ways in reverse order

Small packets go by DSR, by nft, by nft with its work spread over both CPUs (RPS), and, to see what the generator and the
backend can do, without a gateway. The backend answers within the kernel, by rules of nft that turn addresses and ports
round; what came in GRE goes back in it.

needs root, a release build with the example `traffic` (or TUNGATE=PATH, TRAFFIC=PATH), and curl, nginx, nft, python3
END
    exit 2
}

rounds=5 seconds=2 size=18 workers='' ways="dsr nft nft-rps none"
all_rows="answers answers-10g answers-1g program requests exchanges exchanges-2" rows=''
while [[ $# -gt 0 ]]; do
    case $1 in
        --rounds) rounds=${2:?} && shift 2 ;;
        --seconds) seconds=${2:?} && shift 2 ;;
        --size) size=${2:?} && shift 2 ;;
        --workers) workers=${2:?} && shift 2 ;;
        --reverse) ways="none nft-rps nft dsr" && shift ;;
        *) [[ " $all_rows " == *" $1 "* ]] || usage
            rows+=" $1" && shift ;;
    esac
done
rows=${rows:-$all_rows}
source common.sh
traffic=$(realpath "${TRAFFIC:-$(dirname "$tungate")/examples/traffic}" 2>/dev/null) || traffic=
vip=192.0.2.10 b1=10.0.0.1 client=198.51.100.2
runs=$work/runs.tsv # row, way, figure
read -ra controls < /proc/sys/net/ipv4/tcp_allowed_congestion_control
started=()

main() {
    check_tools "iproute2 curl nginx-light nftables python3" ip curl nginx nft python3
    [[ -x $traffic ]] || { echo "$script: there is no traffic; run: cargo build --release --example traffic" >&2; exit 1; }
    trap clean EXIT
    trap 'exit 130' INT TERM
    ./lab.sh up >/dev/null
    ./lab.sh direct
    count_at_client
    [[ $rows != *answers* ]] || start_nginx
    local round
    for ((round = 1; round <= rounds; round++)); do
        echo "round $round of $rounds" >&2
        [[ $rows != *answers* ]] || answers
        ! wanted_any program requests exchanges exchanges-2 || small_packets
    done
    python3 bench-dsr-table.py "$runs"
}

wanted_any() {
    local row
    for row in "$@"; do
        [[ " $rows " != *" $row "* ]] || return 0
    done
    return 1
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
${workers:+workers = $workers}
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

# spread MASK: on which CPUs the gateway's kernel handles what comes, as if from a network card with queues; 0 = where
# it comes.
spread() {
    local port
    for port in to-client to-b1; do
        ./lab.sh exec gw sh -c "echo $1 > /sys/class/net/$port/queues/rx-0/rps_cpus"
    done
}

stop() {
    ./lab.sh exec gw nft flush ruleset
    ./lab.sh exec b1 nft flush ruleset
    spread 0
    [[ ${#started[@]} -eq 0 ]] || kill -TERM "${started[@]}"
    wait "${started[@]}" 2>/dev/null || true
    started=()
}

# Straight from the backend and by DSR, in turn. The gateway has nothing to do in the first case.
answers() {
    start_dsr with-decap
    local row control
    for row in answers answers-10g answers-1g; do
        wanted_any $row || continue
        rate "${row#answers}"
        for control in "${controls[@]}"; do
            ./lab.sh exec b1 sysctl -qw "net.ipv4.tcp_congestion_control=$control"
            download "$row-$control" "$row"
        done
        rate ''
    done
    stop
}

# rate -10g|-1g|'': of every cable, in both directions, with queues of 1 MB; none without a word.
rate() {
    local at
    for at in client/eth0 gw/to-client gw/to-b1 b1/eth0 b1/direct client/from-b1; do
        if [[ -n $1 ]]; then
            ip netns exec "$LAB-${at%/*}" tc qdisc replace dev "${at#*/}" root tbf rate "${1:1:-1}gbit" burst 128kb limit 1mb
        else
            ip netns exec "$LAB-${at%/*}" tc qdisc delete dev "${at#*/}" root 2>/dev/null || true
        fi
    done
}

download() {
    local speed n how from answers=5 # of each kind a round: without a rate one takes some 40 ms
    [[ $2 != answers-1g ]] || answers=1
    for ((n = 0; n < 2 * answers; n++)); do
        how=none from=10.9.1.2
        ((n % 2 == 0)) || { how=dsr && from=$vip; }
        speed=$(./lab.sh exec client curl -sS -o /dev/null -w '%{speed_download}' "http://$from/document")
        note "$1" $how "$((speed / 1000000))"
    done
}

# note ROW WAY FIGURE
note() {
    printf '%s\t%s\t%d\n' "$@" >>"$runs"
}

# The same datagrams by each way. Where they go, and what the backend does with them, depends on the way.
small_packets() {
    local way port target=$vip next
    for way in $ways; do
        port=eth0 next=$(mac gw to-client) target=$vip
        case $way in
            dsr) start_dsr ;;
            nft) start_nft ;;
            nft-rps) start_nft && spread 3 ;;
            none) port=from-b1 next=$(mac b1 direct) target=10.9.1.2 ;;
        esac
        backend_drops
        ! wanted_any program || [[ $way == none ]] || program "$way"
        ! wanted_any requests || { flood 1 && note requests "$way" "$(came b1)"; }
        backend_answers "$way"
        ! wanted_any exchanges || { flood 1 && note exchanges "$way" "$(came client)"; }
        ! wanted_any exchanges-2 || { flood 2 && note exchanges-2 "$way" "$(came client)"; }
        stop
    done
}

# mac HOST PORT
mac() {
    ./lab.sh exec "$1" cat "/sys/class/net/$2/address"
}

# One program's datagrams, in one flow.
program() {
    came b1 >/dev/null
    ./lab.sh exec client python3 - "$vip" "$seconds" "$size" <<'END'
import socket, sys, time
to = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
to.connect((sys.argv[1], 9))
payload = (b"eighteen bytes now" + bytes(65536))[:int(sys.argv[3])]
until = time.monotonic() + int(sys.argv[2])
while time.monotonic() < until:
    for _ in range(500):
        to.send(payload)
END
    note program "$1" "$(came b1)"
}

# flood GENERATORS: to $target by $port and the neighbour $next, 1000 flows from each.
flood() {
    local n generators=()
    came b1 >/dev/null
    came client >/dev/null
    for ((n = 0; n < $1; n++)); do
        ./lab.sh exec client "$traffic" flood "$port" "$next" "$client:$((20000 + n * 10000))" "$target:9" 1000 \
            "$seconds" "$size" >/dev/null &
        generators+=($!)
    done
    wait "${generators[@]}"
}

# came HOST: how many datagrams a second have come there whole; the count begins anew.
came() {
    sleep 0.2
    ./lab.sh exec "$1" nft reset counter netdev bench came |
        awk -v seconds="$seconds" '{ for (i = 1; i < NF; i++) if ($i == "packets") printf "%.0f", $(i + 1) / seconds }'
}

# The first 16 bytes of what the generator sends, as an expression of nft: behind UDP, and behind IP, GRE, IP and UDP.
whole="0x$(printf 'eighteen bytes n' | od -An -tx1 | tr -d ' \n')"
plain="udp dport 9 @th,64,128 $whole" wrapped="ip protocol gre @nh,416,128 $whole" answer="udp sport 9 @th,64,128 $whole"

count_at_client() {
    ./lab.sh exec client nft -f - <<END
table netdev bench {
    counter came { }
    chain by-gateway { type filter hook ingress device eth0 priority 0; $answer counter name came drop; }
    chain direct {
        type filter hook ingress device from-b1 priority 0
        $answer counter name came drop
        $wrapped counter name came drop
    }
}
END
}

backend_drops() {
    ./lab.sh exec b1 nft -f - <<END
table netdev bench {
    counter came { }
    chain from-gateway { type filter hook ingress device eth0 priority 0; jump requests; }
    chain direct { type filter hook ingress device direct priority 0; jump requests; }
    chain requests {
        $plain counter name came drop
        $wrapped counter name came drop
    }
}
END
}

# backend_answers WAY: what has come by the gateway's NAT goes back there, anything else straight to the client.
backend_answers() {
    local out=direct to source=$b1 asker=$client
    to=$(mac client from-b1)
    case $1 in
        nft*) out=eth0 asker=10.0.0.254 to=$(mac gw to-b1) ;;
        none) source=10.9.1.2 ;;
    esac
    local back="ether saddr set $(mac b1 $out) ether daddr set $to" ports
    ports=$(for n in {20000..20999} {30000..30999}; do printf '%s:%s,' "$n" "$n"; done)
    ./lab.sh exec b1 nft -f - <<END
flush chain netdev bench requests
table netdev bench {
    map same { type inet_service : inet_service; elements = { ${ports%,} }; }
    chain requests {
        $plain $back udp dport set udp sport map @same udp sport set 9 ip saddr set $source ip daddr set $asker fwd to $out
        $wrapped $back ip saddr set $source ip daddr set $client fwd to $out
    }
}
END
}

clean() {
    kill "${started[@]}" "${nginx:-}" 2>/dev/null || true
    wait
    ./lab.sh down
    rm -rf "$work"
}

main
