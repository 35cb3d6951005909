#!/usr/bin/env bash
# A pair of gateways, step by step: the active one is killed in the middle of a download, comes back, and is handed the
# role again.
# usage: ha.sh        needs root, a release build (or TUNGATE=PATH), and curl, python3
set -euo pipefail
cd "$(dirname "$0")"

vip=192.0.2.10 source=10.99.0.10
source common.sh
started=()
declare -A daemons=()

main() {
    check_tools "iproute2 curl python3" ip curl python3
    trap clean EXIT
    trap 'exit 130' INT TERM
    ./lab.sh up >/dev/null
    ./lab.sh pair
    step 1 "The lab: a client, two gateways, two backends; a network on each side, and a cable between the gateways"
    step 2 "The key that both share: tungate ha keygen ha.key"
    "$tungate" ha keygen "$work/ha.key" >/dev/null
    sed -E 's/^([0-9]+ [0-9a-f]{4})[0-9a-f]*/\1.../; s/^/    /' "$work/ha.key"
    step 3 "The configuration of the first; in the second's, listen and peer change places"
    write_configuration gw 1 2
    write_configuration gw2 2 1
    sed 's/^/    /' "$work/gw/tungate.toml"
    start_backends

    step 4 "Both start. The first is active; the second gets its flows, and is then ready"
    start_gateway gw
    until_true is gw SOLO
    start_gateway gw2
    until_true is gw2 STANDBY
    told gw gw2

    until_true ./lab.sh exec client curl -sf --max-time 1 -r 0-0 "http://$vip/file"

    step 5 "A download of some seconds through the first; in its middle, kill -9"
    ./lab.sh exec client curl -sS --max-time 30 --limit-rate 4M -o "$work/copy" "http://$vip/file" &
    local download=$!
    sleep 2
    kill -KILL "${daemons[gw]}"
    wait "${daemons[gw]}" 2>/dev/null || true
    wait "$download"
    cmp "$work/file" "$work/copy" && echo "    $(stat -c %s "$work/copy") bytes arrived, and they are the right ones."
    echo "    Who has the VIP now, as the client sees it: $(./lab.sh exec client ip neigh show $vip)"
    told gw2

    step 6 "The first starts again: it is the standby now, and gets all flows"
    start_gateway gw
    until_true is gw STANDBY
    told gw gw2

    step 7 "tungate ha flip: the second hands over, and a download goes on"
    ./lab.sh exec client curl -sS --max-time 30 --limit-rate 8M -o "$work/copy" "http://$vip/file" &
    download=$!
    sleep 1
    verb gw2 ha flip | sed 's/^/    /'
    wait "$download"
    cmp "$work/file" "$work/copy" && echo "    $(stat -c %s "$work/copy") bytes arrived, and they are the right ones."
    told gw gw2
}

# write_configuration HOST N OTHER
write_configuration() {
    mkdir -p "$work/$1"
    cat >"$work/$1/tungate.toml" <<END
[gateway]
name = "$1"
source-addresses = ["$source"]
announce-on = ["ext", "int"]
admin-socket = "$work/$1/sock"
state-dir = "$work/$1"

[[service]]
name = "web"
listen = "$vip:80"
backends = [{ name = "b1", address = "10.0.0.1:8080" }, { name = "b2", address = "10.0.0.2:8080" }]

[ha]
listen = ["10.0.5.$2:7946", "198.51.100.1$2:7946", "10.0.0.1$2:7946"]
peer = ["10.0.5.$3:7946", "198.51.100.1$3:7946", "10.0.0.1$3:7946"]
key-file = "$work/ha.key"
END
}

start_backends() {
    local name
    mkdir "$work/www"
    head -c 24M /dev/urandom >"$work/file"
    ln "$work/file" "$work/www/file"
    for name in b1 b2; do
        ./lab.sh exec $name python3 -m http.server 8080 -d "$work/www" >/dev/null 2>&1 &
        started+=($!)
    done
}

start_gateway() {
    ./lab.sh exec "$1" "$tungate" run -c "$work/$1/tungate.toml" >>"$work/log" 2>&1 &
    daemons[$1]=$!
    started+=($!)
    until_true verb "$1" show services
}

# verb HOST WORD...: of that gateway's daemon.
verb() {
    "$tungate" "${@:2}" --socket "$work/$1/sock"
}

is() {
    [[ $(verb "$1" ha status -o jsonl) == *"\"state\":\"$2\""* ]]
}

told() {
    local host
    for host in "$@"; do
        verb "$host" ha status | sed 's/^/    /'
    done
}

clean() {
    local pid
    for pid in "${started[@]}"; do
        kill "$pid" 2>/dev/null || true
    done
    ./lab.sh down || true
    rm -rf "$work"
}

main
