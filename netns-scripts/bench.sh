#!/usr/bin/env bash
# Bulk TCP through tungate, the kernel's nft NAT and HAProxy, interleaved in one lab, so that what disturbs the machine
# disturbs all of them. Prints a table; --json FILE writes the same with every single run.
set -euo pipefail
cd "$(dirname "$0")"

usage() {
    cat >&2 <<'END'
usage: bench.sh [--rounds N] [--seconds N] [--json FILE] [ENGINE...]

  ENGINE          tungate, nft, haproxy, tungate-plain (its offloads off); default: all four
  --rounds N      rounds, each with every engine once, in turning order (5)
  --seconds N     how long one transfer takes (4)

needs root, a release build (or TUNGATE=PATH), and iperf3, nft, haproxy
END
    exit 2
}

rounds=5 seconds=4 json='' engines=()
while [[ $# -gt 0 ]]; do
    case $1 in
        --rounds) rounds=${2:?} && shift 2 ;;
        --seconds) seconds=${2:?} && shift 2 ;;
        --json) json=$(realpath -m "${2:?}") && shift 2 ;;
        tungate | nft | haproxy | tungate-plain) engines+=("$1") && shift ;;
        *) usage ;;
    esac
done
[[ ${#engines[@]} -gt 0 ]] || engines=(tungate nft haproxy tungate-plain)
source common.sh
vip=192.0.2.10 b1=10.0.0.1 streams=(1 8)
runs=$work/runs.tsv # engine, streams, round, Mbit/s
engine_pid='' server_pid=''

main() {
    check_tools "iproute2 iperf3 nftables haproxy" ip iperf3 nft haproxy
    trap clean EXIT
    trap 'exit 130' INT TERM
    ./lab.sh up >/dev/null
    load=$(cut -d' ' -f1 /proc/loadavg)
    local round turn engine
    for ((round = 1; round <= rounds; round++)); do
        for ((turn = 0; turn < ${#engines[@]}; turn++)); do
            engine=${engines[$(((turn + round) % ${#engines[@]}))]}
            echo "round $round of $rounds: $engine" >&2
            "start_${engine//-/_}"
            transfer "$engine" "$round"
            stop_engine
        done
    done
    print_table
    [[ -z $json ]] || print_json >"$json"
}

start_tungate() {
    cat >"$work/tungate.toml" <<END
[gateway]
source-addresses = ["10.99.0.10"]
admin-socket = "$work/sock"
[[service]]
name = "bulk"
listen = "$vip:5201"
backends = [{ name = "b1", address = "$b1:5201" }]
END
    ./lab.sh exec gw "$tungate" run -c "$work/tungate.toml" "$@" 2>"$work/log" &
    engine_pid=$!
    until_true ./lab.sh exec gw "$tungate" show services --socket "$work/sock"
}

start_tungate_plain() {
    start_tungate --without-offloads
}

start_nft() {
    ./lab.sh exec gw nft -f - <<END
table ip bench {
    chain pre {
        type nat hook prerouting priority -100
        ip daddr $vip tcp dport 5201 dnat ip addr . port to numgen inc mod 1 map { 0 : $b1 . 5201 }
    }
    chain post {
        type nat hook postrouting priority 100
        ip daddr $b1 masquerade
    }
}
END
}

start_haproxy() {
    cat >"$work/haproxy.cfg" <<END
global
    nbthread $(nproc)
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen bulk
    bind $vip:5201
    server b1 $b1:5201
END
    ip -n "$LAB-gw" addr add $vip dev lo
    ./lab.sh exec gw haproxy -db -f "$work/haproxy.cfg" 2>"$work/log" &
    engine_pid=$!
    until_true ./lab.sh exec gw bash -c 'ss -Hltn sport = :5201 | grep -q .'
}

stop_engine() {
    if [[ -n $engine_pid ]]; then
        kill -TERM "$engine_pid"
        wait "$engine_pid" 2>/dev/null || true
        engine_pid=''
    fi
    ip -n "$LAB-gw" addr del $vip dev lo 2>/dev/null || true
    ./lab.sh exec gw nft flush ruleset
}

# transfer ENGINE ROUND: one line of runs for each number of streams.
transfer() {
    local n rate
    for n in "${streams[@]}"; do
        # One server a transfer: a server that still waits for the end of the last transfer refuses the next.
        ./lab.sh exec b1 iperf3 -s -1 >/dev/null 2>&1 &
        server_pid=$!
        until_true ./lab.sh exec b1 bash -c 'ss -Hltn sport = :5201 | grep -q .'
        rate=$(./lab.sh exec client iperf3 -c $vip -P "$n" -t "$seconds" -f m | receiver_rate "$n")
        printf '%s\t%s\t%s\t%s\n' "$1" "$n" "$2" "$rate" >>"$runs"
        kill $server_pid 2>/dev/null || true
        wait $server_pid || true
    done
}

# The Mbit/s that the receiver counted: its line for one stream, the sum for several.
receiver_rate() {
    awk -v sum="$(($1 > 1))" '
        /receiver/ && (!sum || /SUM/) { for (i = 2; i <= NF; i++) if ($i == "Mbits/sec") rate = $(i - 1) }
        END { if (rate == "") exit 1; print rate }'
}

# Medians, and the ratio to nft: the median of the rounds' ratios, since the runs of a round lie side by side in time.
read -r -d '' statistics <<'END' || true
function median(list, n,    i, j, swap) {
    for (i = 2; i <= n; i++) for (j = i; j > 1 && list[j - 1] > list[j]; j--) {
        swap = list[j]; list[j] = list[j - 1]; list[j - 1] = swap
    }
    return n % 2 ? list[(n + 1) / 2] : (list[n / 2] + list[n / 2 + 1]) / 2
}
function of(engine, streams,    n, list) {
    for (n = 1; n <= rounds; n++) list[n] = rate[engine, streams, n]
    middle = median(list, rounds); low = list[1]; high = list[rounds]
}
function ratio(a, b, streams,    n, list) {
    for (n = 1; n <= rounds; n++) {
        if (!rate[b, streams, n]) return ""
        list[n] = rate[a, streams, n] / rate[b, streams, n]
    }
    return sprintf("%.2f", median(list, rounds))
}
BEGIN { FS = "\t"; engines = split(names, engine, " "); counts = split(streams, count, " ") }
{ rate[$1, $2, $3] = $4 }
END

print_table() {
    echo
    echo "bulk TCP, Gbit/s, $rounds rounds of $seconds s, $(nproc) CPUs, kernel $(uname -r), $(sysctl -n net.ipv4.tcp_congestion_control)"
    echo "load average before the first: $load (of anything above 0.5, believe neither column)"
    awk -v rounds="$rounds" -v names="${engines[*]}" -v streams="${streams[*]}" "$statistics"'
        END {
            format = "%-8s %-14s %8s %8s %8s %8s %11s %8s\n"
            printf format, "streams", "engine", "median", "min", "max", "x nft", "x haproxy", "x plain"
            for (c = 1; c <= counts; c++) for (e = 1; e <= engines; e++) {
                of(engine[e], count[c])
                printf format, count[c], engine[e], sprintf("%.2f", middle / 1000), sprintf("%.2f", low / 1000),
                    sprintf("%.2f", high / 1000), ratio(engine[e], "nft", count[c]),
                    ratio(engine[e], "haproxy", count[c]), ratio(engine[e], "tungate-plain", count[c])
            }
        }' "$runs"
}

print_json() {
    awk -v rounds="$rounds" -v names="${engines[*]}" -v streams="${streams[*]}" -v seconds="$seconds" "$statistics"'
        function number(text) { return text == "" ? "null" : text }
        END {
            printf "{\"schema\":\"tungate/v1\",\"kind\":\"LabBench\",\"items\":["
            for (c = 1; c <= counts; c++) for (e = 1; e <= engines; e++) {
                of(engine[e], count[c])
                printf "%s\n{\"name\":\"bulk-tcp\",\"engine\":\"%s\",\"streams\":%d,\"seconds\":%d", sep, engine[e], count[c], seconds
                printf ",\"median_bits_per_second\":%.0f,\"min_bits_per_second\":%.0f,\"max_bits_per_second\":%.0f",
                    middle * 1e6, low * 1e6, high * 1e6
                printf ",\"ratio_to_nft\":%s,\"ratio_to_haproxy\":%s,\"ratio_to_plain\":%s,\"runs\":[",
                    number(ratio(engine[e], "nft", count[c])), number(ratio(engine[e], "haproxy", count[c])),
                    number(ratio(engine[e], "tungate-plain", count[c]))
                for (n = 1; n <= rounds; n++) printf "%s%.0f", (n > 1 ? "," : ""), rate[engine[e], count[c], n] * 1e6
                printf "]}"
                sep = ","
            }
            print "\n]}"
        }' "$runs"
}

clean() {
    kill $server_pid $engine_pid 2>/dev/null || true
    wait
    ./lab.sh down
    rm -rf "$work"
}

main
