#!/usr/bin/env bash
# Full NAT, step by step: one request from a client to the VIP, as the client's wire and the backend's wire see it.
# usage: nat.sh [4|6]        needs root, a release build (or TUNGATE=PATH), and curl, socat, tcpdump
set -euo pipefail
cd "$(dirname "$0")"

family=${1:-4}
case $family in
    4) client=198.51.100.2 vip=192.0.2.10 source=10.99.0.10 b1=10.0.0.1 b2=10.0.0.2 ;;
    6) client=2001:db8:1::2 vip=2001:db8::10 source=fd00:99::10 b1=fd00::1 b2=fd00::2 ;;
    *) echo "usage: nat.sh [4|6]" >&2; exit 2 ;;
esac
source common.sh
started=() wires=()

main() {
    check_tools "iproute2 curl socat tcpdump" ip curl socat tcpdump
    trap clean EXIT
    trap 'exit 130' INT TERM
    ./lab.sh up >/dev/null
    step 1 "The lab: a client, a gateway, two backends, each in a network namespace"
    echo "    client $client  --  gateway  --  b1 $b1, b2 $b2"
    echo "    Nobody owns the VIP $vip or the source address $source."

    step 2 "The configuration"
    write_configuration
    sed 's/^/    /' "$work/tungate.toml"

    step 3 "The gateway: tungate run -c tungate.toml"
    start_backend b1 "$b1"
    start_backend b2 "$b2"
    start_gateway
    echo "    It made the TUN tungate0 and routed the VIP and the source address into it:"
    ./lab.sh exec gw ip "-$family" route show dev tungate0 | sed 's/^/    /'

    step 4 "The client asks the VIP: curl http://$(bracket $vip)/"
    listen_on_the_wires
    ./lab.sh exec client curl -sS --max-time 5 "http://$(bracket $vip)/" | sed 's/^/    answer: /'
    stop_listening
    show_wires

    step 5 "What the gateway knows about it"
    ./lab.sh exec gw "$tungate" show flows --socket "$work/sock" | sed 's/^/    /'

    step 6 "The end: SIGTERM, and what it added is gone"
    stop_gateway
    ./lab.sh exec gw ip link show tungate0 2>&1 | sed 's/^/    /' || true
}

write_configuration() {
    cat >"$work/tungate.toml" <<END
[gateway]
source-addresses = ["$source"]
admin-socket = "$work/sock"

[[service]]
name = "web"
listen = ["$(bracket $vip):80"]
backends = [
  { name = "b1", address = "$(bracket $b1):8080" },
  { name = "b2", address = "$(bracket $b2):8080" },
]
END
}

start_backend() {
    cat >"$work/$1.sh" <<END
#!/bin/sh
while read -r line && [ \${#line} -gt 1 ]; do :; done
printf 'HTTP/1.0 200 OK\r\n\r\nthis is $1, and I was asked by %s port %s\n' "\$SOCAT_PEERADDR" "\$SOCAT_PEERPORT"
END
    ./lab.sh exec "$1" socat "TCP$family-LISTEN:8080,bind=$(bracket "$2"),reuseaddr,fork" EXEC:"sh $work/$1.sh" &
    started+=($!)
    until_true ./lab.sh exec "$1" bash -c 'ss -Hltn sport = :8080 | grep -q .'
}

start_gateway() {
    ./lab.sh exec gw "$tungate" run -c "$work/tungate.toml" 2>"$work/log" &
    gateway=$!
    started+=($!)
    until_true ./lab.sh exec gw "$tungate" show services --socket "$work/sock"
}

stop_gateway() {
    kill -TERM "$gateway"
    wait "$gateway"
    unset 'started[-1]'
}

listen_on_the_wires() {
    ./lab.sh exec client tcpdump -i eth0 -nn -l "tcp port 80" >"$work/client" 2>"$work/client.log" &
    wires=($!)
    local name
    for name in b1 b2; do
        ./lab.sh exec $name tcpdump -i eth0 -nn -l "tcp port 8080" >"$work/$name" 2>"$work/$name.log" &
        wires+=($!)
    done
    for name in client b1 b2; do
        until_true grep -q "listening on" "$work/$name.log"
    done
}

stop_listening() {
    # The connection is over for the client when both have said FIN and the client has acknowledged it.
    until_true fins_both_ways
    kill -INT "${wires[@]}"
    wait "${wires[@]}" || true
    wires=()
}

fins_both_ways() {
    [[ $(grep -c 'Flags \[F' "$work/client") -ge 2 ]]
}

show_wires() {
    local name=b1
    grep -q Flags "$work/b1" || name=b2
    echo "    The client's wire: it talks to the VIP, and to nobody else."
    head -n 8 "$work/client" | shorten
    echo "    The wire of $name: the same segments, destination rewritten to $name, source to the gateway's."
    head -n 8 "$work/$name" | shorten
    echo "    So the request went   $client -> $vip:80   became   $source -> $(bracket "${!name}"):8080"
    echo "    and the reply         $(bracket "${!name}"):8080 -> $source   became   $vip:80 -> $client"
}

clean() {
    kill "${started[@]}" "${wires[@]}" 2>/dev/null || true
    wait
    ./lab.sh down
    rm -rf "$work"
}

main
