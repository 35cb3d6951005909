#!/usr/bin/env bash
# The gateway against the kernel's nft NAT, HAProxy (TCP), nginx's stream module (UDP) and no gateway at all, in turn, so
# that what disturbs the machine disturbs all of them. Each run has a lab of its own: nobody inherits anything.
set -euo pipefail
cd "$(dirname "$0")"

usage() {
    cat >&2 <<'END'
usage: bench.sh [--rounds N] [--seconds N] [--only ROW,...] [--workers N] [--other PATH] [--json FILE] [ENGINE...]

  ROW             bulk-1, bulk-8    TCP by 1 and 8 streams, Gbit/s
                  packets           UDP packets of 18 bytes in 10,000 flows, delivered a second
                  connections       HTTP requests with a connection each, a second
                  p50, p99          time to an answer of 64 bytes at a request a millisecond, us
                  idle              CPU that the gateway takes with nothing to do, %
                  default: all of them
  ENGINE          tungate, nft, haproxy, nginx, none (the kernel forwards), generator (what the packet generator can
                  do: all it sends is counted at the gateway's door), and if asked for: tungate-plain (offloads off),
                  other (the build named by --other, to compare with)
  --rounds N      rounds, each with every engine once, in turning order (5)
  --seconds N     how long one measurement takes (2)
  --workers N     tungate's workers (its default)
  --json FILE     the same with every single run, as JSON

needs root, a release build with the example `traffic` (or TUNGATE=PATH, TRAFFIC=PATH), and iperf3, wrk, nft, haproxy,
nginx with its stream module, python3
END
    exit 2
}

number() {
    [[ $1 =~ ^[1-9][0-9]{0,3}$ ]] || { echo "bench.sh: $2 takes a number from 1 to 9999, not \`$1\`" >&2; exit 2; }
    echo "$1"
}

rounds=5 seconds=2 json='' workers='' other='' all_rows="bulk-1 bulk-8 packets connections p50 p99 idle" rows='' engines=()
while [[ $# -gt 0 ]]; do
    case $1 in
        --rounds | --seconds | --workers | --json | --only | --other) [[ $# -ge 2 ]] || usage ;;&
        --rounds) rounds=$(number "$2" "$1") || exit; shift 2 ;;
        --seconds) seconds=$(number "$2" "$1") || exit; shift 2 ;;
        --workers) workers=$(number "$2" "$1") || exit; shift 2 ;;
        --json) json=$(realpath -m "$2") && shift 2 ;;
        --other) other=$(realpath "$2") && shift 2 ;;
        --only) rows=${2//,/ } && shift 2 ;;
        tungate | nft | haproxy | nginx | none | generator | tungate-plain) engines+=("$1") && shift ;;
        other) engines+=(other) && shift ;;
        *) usage ;;
    esac
done
for row in $rows; do
    [[ " $all_rows " == *" $row "* ]] || { echo "bench.sh: there is no row \`$row\`" >&2; usage; }
done
[[ ${#engines[@]} -gt 0 ]] || engines=(tungate nft haproxy nginx none generator ${other:+other})
[[ " ${engines[*]} " != *" other "* || -n $other ]] || { echo "bench.sh: which other build? --other PATH" >&2; exit 2; }
source common.sh
traffic=$(realpath "${TRAFFIC:-$(dirname "$tungate")/examples/traffic}" 2>/dev/null) || traffic=
vip=192.0.2.10 b1=10.0.0.1 flows=10000 payload=18
runs=$work/runs.tsv # row, engine, round, figure
engine_pid='' servers=()

main() {
    check_tools "iproute2 iperf3 wrk nftables haproxy nginx libnginx-mod-stream python3" \
        ip iperf3 wrk nft haproxy nginx python3
    [[ -x $traffic ]] || { echo "bench.sh: there is no traffic; run: cargo build --release --example traffic" >&2; exit 1; }
    # Debian's nginx has the module in a package of its own.
    stream=$(find /usr/lib /usr/share -name ngx_stream_module.so 2>/dev/null | head -n 1)
    if [[ " ${engines[*]} " == *" nginx "* && -z $stream ]] && nginx -V 2>&1 | grep -q stream=dynamic; then
        echo "bench.sh: nginx has no stream module; run: apt-get install libnginx-mod-stream" >&2
        exit 1
    fi
    trap clean EXIT
    trap 'exit 130' INT TERM
    load=$(cut -d' ' -f1 /proc/loadavg)
    local round turn engine
    for ((round = 1; round <= rounds; round++)); do
        for ((turn = 0; turn < ${#engines[@]}; turn++)); do
            engine=${engines[$(((turn + round) % ${#engines[@]}))]}
            measured "$engine" || continue
            echo "round $round of $rounds: $engine" >&2
            run "$engine" "$round"
        done
    done
    python3 bench-table.py "$runs" "$rounds" "$seconds" "$load" "$json"
}

# measured ENGINE: whether any row that is wanted is one of its.
measured() {
    local row
    for row in ${rows:-$all_rows}; do
        of_engine "$1" "$row" && return 0
    done
    return 1
}

# of_engine ENGINE ROW
of_engine() {
    case $1/$2 in
        tungate*/* | other/*) ;;
        nginx/packets | generator/packets) ;;
        haproxy/packets | nginx/* | generator/* | */idle) return 1 ;;
    esac
}

# wanted ENGINE ROW
wanted() {
    [[ " ${rows:-$all_rows} " == *" $2 "* ]] && of_engine "$1" "$2"
}

# run ENGINE ROUND: one line of runs for each row.
run() {
    ./lab.sh up >/dev/null
    start_servers
    target=$vip
    "start_${1//-/_}"
    local row
    for row in bulk-1 bulk-8 packets connections; do
        ! wanted "$1" $row || note $row "$@" "$("measure_${row%-?}" "${row#*-}")"
    done
    if wanted "$1" p50 || wanted "$1" p99; then
        local both
        both=$(./lab.sh exec client "$traffic" latency "$target:7" "$seconds")
        note p50 "$@" "${both% *}"
        note p99 "$@" "${both#* }"
    fi
    ! wanted "$1" idle || note idle "$@" "$(measure_idle)"
    [[ $1 == nginx || $1 == generator ]] || ./lab.sh exec client "$traffic" intact "$target:7" 16
    stop
}

note() {
    printf '%s\t%s\t%s\t%s\n' "$@" >>"$runs"
}

start_servers() {
    cat >"$work/web.conf" <<END
daemon off; user root; pid $work/web.pid; error_log stderr crit; worker_processes 1;
events { worker_connections 4096; }
http { access_log off; server { listen 80 reuseport backlog=4096; location / { return 200 "hello"; } } }
END
    ./lab.sh exec b1 nginx -p "$work" -e stderr -c "$work/web.conf" 2>"$work/web.log" &
    servers=($!)
    ./lab.sh exec b1 "$traffic" echo 7 &
    servers+=($!)
    until_true ./lab.sh exec b1 bash -c 'ss -Hltn sport = :7 | grep -q . && ss -Hltn sport = :80 | grep -q .'
    count_at b1 eth0 "dport 9 @th,64,128 0x$(printf 'eighteen bytes n' | od -An -tx1 | tr -d ' \n')"
}

# count_at HOST PORT MATCH: packets of the generator are counted there, if they are whole, and go no further.
count_at() {
    ./lab.sh exec "$1" nft -f - <<END
table netdev bench {
    chain sink { type filter hook ingress device $2 priority 0; udp $3 counter drop; }
}
END
}

start_tungate() {
    cat >"$work/tungate.toml" <<END
[gateway]
source-addresses = ["10.99.0.10"]
admin-socket = "$work/sock"
${workers:+workers = $workers}
[[service]]
name = "tcp"
listen = ["$vip:5201", "$vip:80", "$vip:7"]
backends = [{ name = "b1", address = "$b1" }]
health = { check = "none" } # iperf3's server takes one connection
[[service]]
name = "udp"
protocol = "udp"
listen = "$vip:9"
backends = [{ name = "b1", address = "$b1" }]
END
    ./lab.sh exec gw "${build:-$tungate}" run -c "$work/tungate.toml" "$@" 2>"$work/log" &
    engine_pid=$!
    until_true ./lab.sh exec gw "$tungate" show services --socket "$work/sock"
}

start_tungate_plain() {
    start_tungate --without-offloads
}

start_other() {
    build=$other start_tungate
}

start_nft() {
    ./lab.sh exec gw nft -f - <<END
table ip bench {
    chain pre { type nat hook prerouting priority -100; ip daddr $vip dnat to $b1; }
    chain post { type nat hook postrouting priority 100; ip daddr $b1 masquerade; }
}
END
}

start_haproxy() {
    cat >"$work/haproxy.cfg" <<END
global
    nbthread $(nproc)
    maxconn 4000
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
$(for port in 5201 80 7; do printf 'listen p%s\n bind %s:%s\n server b1 %s:%s\n' $port $vip $port $b1 $port; done)
END
    ip -n "$LAB-gw" addr add $vip dev lo
    ./lab.sh exec gw haproxy -db -f "$work/haproxy.cfg" 2>"$work/log" &
    engine_pid=$!
    until_true ./lab.sh exec gw bash -c 'ss -Hltn sport = :5201 | grep -q .'
}

start_nginx() {
    cat >"$work/stream.conf" <<END
${stream:+load_module $stream;}
daemon off; user root; pid $work/stream.pid; error_log stderr crit; worker_processes $(nproc); worker_rlimit_nofile 20000;
events { worker_connections 20000; }
stream { server { listen $vip:9 udp reuseport; proxy_pass $b1:9; proxy_timeout 10s; } }
END
    ip -n "$LAB-gw" addr add $vip dev lo
    ./lab.sh exec gw nginx -p "$work" -e stderr -c "$work/stream.conf" 2>"$work/log" &
    engine_pid=$!
    until_true ./lab.sh exec gw bash -c 'ss -Hlun sport = :9 | grep -q .'
}

start_none() {
    target=$b1
}

start_generator() {
    count_at gw to-client "dport 9"
}

# measure_bulk STREAMS: Gbit/s that the receiver counted.
measure_bulk() {
    # One server a transfer: a server that still waits for the end of the last transfer refuses the next.
    ./lab.sh exec b1 iperf3 -s -1 >/dev/null 2>&1 &
    local server=$!
    until_true ./lab.sh exec b1 bash -c 'ss -Hltn sport = :5201 | grep -q .'
    ./lab.sh exec client iperf3 -c "$target" -P "$1" -t "$seconds" -J |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["end"]["sum_received"]["bits_per_second"] / 1e9)'
    kill $server 2>/dev/null || true
    wait $server || true
}

# Datagrams that arrived whole. A super-packet counts as the datagrams that it stands for: what is no header is payload.
measure_packets() {
    local mac host=b1
    mac=$(./lab.sh exec gw cat /sys/class/net/to-client/address)
    ./lab.sh exec client "$traffic" flood eth0 "$mac" 198.51.100.2:20000 "$target:9" $flows "$seconds" $payload \
        >/dev/null
    sleep 0.2
    ! ./lab.sh exec gw nft list table netdev bench >/dev/null 2>&1 || host=gw
    ./lab.sh exec "$host" nft list table netdev bench |
        awk -v seconds="$seconds" -v size=$payload '
            { for (i = 1; i <= NF; i++) if ($i == "packets") { packets = $(i + 1); bytes = $(i + 3) } }
            END { printf "%.0f", (bytes - packets * 28) / size / seconds }'
}

measure_connections() {
    ./lab.sh exec client wrk -t 1 -c 64 -d "$seconds" -H 'Connection: close' "http://$target/" |
        awk '/Requests\/sec/ { print $2 }'
}

# Per cent of a CPU, of all threads of the gateway.
measure_idle() {
    sleep 1
    local before after
    before=$(cpu_time)
    sleep "$seconds"
    after=$(cpu_time)
    awk -v ns=$((after - before)) -v s="$seconds" 'BEGIN { printf "%.3f", ns / s / 1e7 }'
}

cpu_time() {
    cat /proc/$engine_pid/task/*/schedstat | awk '{ ns += $1 } END { printf "%.0f", ns }'
}

stop() {
    kill -TERM $engine_pid "${servers[@]}" 2>/dev/null || true
    wait $engine_pid "${servers[@]}" 2>/dev/null || true
    engine_pid='' servers=()
    ./lab.sh down
}

clean() {
    stop
    rm -rf "$work"
}

main
