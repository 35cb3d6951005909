#!/usr/bin/env bash
# Direct server return, step by step: a request in a tunnel to the backend, its answer past the gateway.
# usage: dsr.sh [4|6] [gre|ipip|gue]        needs root, a release build (or TUNGATE=PATH), and curl, socat, tcpdump
set -euo pipefail
cd "$(dirname "$0")"

family=${1:-4} encapsulation=${2:-gre}
case $family in
    4) client=198.51.100.2 vip=192.0.2.10 source=10.99.0.10 b1=10.0.0.1 b2=10.0.0.2 ;;
    6) client=2001:db8:1::2 vip=2001:db8::10 source=fd00:99::10 b1=fd00::1 b2=fd00::2 ;;
    *) echo "usage: dsr.sh [4|6] [gre|ipip|gue]" >&2; exit 2 ;;
esac
source common.sh
started=() wires=()

main() {
    check_tools "iproute2 curl socat tcpdump" ip curl socat tcpdump
    trap clean EXIT
    trap 'exit 130' INT TERM
    ./lab.sh up >/dev/null
    ./lab.sh direct
    step 1 "The lab: a client, a gateway, two backends; and a cable from each backend to the client"
    echo "    client $client  --  gateway  --  b1 $b1, b2 $b2"
    echo "    Nobody owns the VIP $vip or the source address $source yet."

    step 2 "The configuration"
    write_configuration
    sed 's/^/    /' "$work/tungate.toml"

    step 3 "The gateway: tungate run -c tungate.toml; the backends: tungate decap -c tungate.toml"
    start_gateway
    start_backend b1
    start_backend b2
    echo "    A backend has the VIP now, and a TUN for what comes out of tunnels:"
    ./lab.sh exec b1 ip -o "-$family" address show dev lo | grep -F "$vip" | sed -E 's/ +/ /g; s/^/    /; s/\\.*//'

    step 4 "The client asks the VIP: curl http://$(bracket $vip)/"
    listen_on_the_wires
    ./lab.sh exec client curl -sS --max-time 5 "http://$(bracket $vip)/" | sed 's/^/    answer: /'
    stop_listening
    show_wires

    step 5 "What the gateway knows about it: the client's half"
    ./lab.sh exec gw "$tungate" show flows --socket "$work/sock" | sed 's/^/    /'

    step 6 "The end: SIGTERM, and what they added is gone"
    stop
    ./lab.sh exec b1 ip link show tungate-decap 2>&1 | sed 's/^/    /' || true
}

write_configuration() {
    cat >"$work/tungate.toml" <<END
[gateway]
source-addresses = ["$source"]
admin-socket = "$work/sock"

[[service]]
name = "web"
listen = ["$(bracket $vip):80"]
mode = "dsr"
encapsulation = "$encapsulation"
backends = [{ name = "b1", address = "$b1" }, { name = "b2", address = "$b2" }]
END
}

start_gateway() {
    ./lab.sh exec gw "$tungate" run -c "$work/tungate.toml" 2>"$work/log" &
    started+=($!)
    until_true ./lab.sh exec gw "$tungate" show services --socket "$work/sock"
}

# A web server that says who asked, and what takes tunnels apart before it.
start_backend() {
    ./lab.sh exec "$1" "$tungate" decap -c "$work/tungate.toml" 2>"$work/decap-$1" &
    started+=($!)
    cat >"$work/$1.sh" <<END
while read -r line && [[ \$line != \$'\\r' ]]; do :; done
printf 'HTTP/1.1 200 OK\\r\\nConnection: close\\r\\n\\r\\n$1, asked by %s\\n' "\$SOCAT_PEERADDR"
END
    until_true ./lab.sh exec "$1" bash -c "ip -o address show dev lo | grep -qF $vip"
    ./lab.sh exec "$1" socat "TCP$family-LISTEN:80,bind=$(bracket $vip),reuseaddr,fork" EXEC:"bash $work/$1.sh" &
    started+=($!)
    until_true ./lab.sh exec "$1" bash -c 'ss -Hltn sport = :80 | grep -q .'
}

listen_on_the_wires() {
    listen client eth0 "tcp port 80 and host $vip"
    listen b1 eth0 "host $source"
    listen b2 eth0 "host $source"
    listen b1 direct "tcp port 80 and host $vip"
    listen b2 direct "tcp port 80 and host $vip"
}

# listen HOST PORT FILTER
listen() {
    ./lab.sh exec "$1" tcpdump -i "$2" -nn -l "$3" >"$work/$1-$2" 2>"$work/$1-$2.log" &
    wires+=($!)
    until_true grep -q "listening on" "$work/$1-$2.log"
}

stop_listening() {
    sleep 0.5
    kill -INT "${wires[@]}"
    wait "${wires[@]}" || true
    wires=()
}

show_wires() {
    local name=b1
    [[ -s $work/b1-eth0 ]] || name=b2
    echo "    The client's wire to the gateway: requests and acknowledgments, no answer."
    head -n 6 "$work/client-eth0" | shorten
    echo "    The wire from the gateway to $name: the same, wrapped."
    head -n 6 "$work/$name-eth0" | shorten
    echo "    The cable from $name to the client: the answers, from the VIP."
    head -n 6 "$work/$name-direct" | shorten
}

stop() {
    kill -TERM "${started[@]}" 2>/dev/null || true
    wait "${started[@]}" 2>/dev/null || true
    started=()
    sed -E 's/^.*msg="(stopped[^"]*)".*$/    decap: \1/; t; d' "$work"/decap-b*
}

clean() {
    kill "${started[@]}" "${wires[@]}" 2>/dev/null || true
    wait
    ./lab.sh down
    rm -rf "$work"
}

main
