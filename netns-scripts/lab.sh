#!/usr/bin/env bash
# A client, a gateway and two backends on one machine, each in a network namespace of its own, with no way out of them.
#
#                          LAB-gw
#   LAB-client     to-client      to-b1     LAB-b1
#   198.51.100.2 -- 198.51.100.1  10.0.0.254 -- 10.0.0.1
#   2001:db8:1::2   2001:db8:1::1 fd00::fe      fd00::1
#                                 to-b2     LAB-b2
#                                 10.0.0.254 -- 10.0.0.2
#                                 fd00::fe      fd00::2
#
# Nobody owns the VIPs (192.0.2.10, 2001:db8::10) or the gateway's source addresses (10.99.0.10, fd00:99::10): the client
# has a route for the first, the backends for the second, both to the gateway, and what answers there is the experiment.
set -euo pipefail

usage() {
    cat >&2 <<'END'
usage: lab.sh up                    build a lab, print its name as `export LAB=NAME`
       lab.sh down                  end what runs in the lab, remove it
       lab.sh router MTU            put a router before b1; the link behind it takes packets up to MTU
       lab.sh direct                give b1 and b2 cables of their own to the client, and send answers that way
       lab.sh pair                  make it a lab of two gateways, gw and gw2, on two switches, with a cable between them
       lab.sh exec NAME CMD...      run CMD in NAME: client, gw, b1, b2 or gw2
       lab.sh run CMD...            build a lab, run CMD with LAB set, remove the lab whatever happens

`up` calls the lab $LAB, or tgPID when LAB is unset; `down` and `exec` work on $LAB, or on the only lab there is.
END
    exit 2
}

main() {
    [[ $# -ge 1 ]] || usage
    local verb=$1
    shift
    case $verb in
        up) [[ $# -eq 0 ]] || usage; need_root; new_lab; up ;;
        down) [[ $# -eq 0 ]] || usage; need_root; find_lab; down ;;
        router) [[ $# -eq 1 ]] || usage; need_root; find_lab; router "$1" ;;
        direct) [[ $# -eq 0 ]] || usage; need_root; find_lab; direct ;;
        pair) [[ $# -eq 0 ]] || usage; need_root; find_lab; pair ;;
        exec) [[ $# -ge 2 ]] || usage; need_root; find_lab; find_host "$1"; exec ip netns exec "$lab-$1" "${@:2}" ;;
        run) [[ $# -ge 1 ]] || usage; need_root; new_lab; run "$@" ;;
        *) usage ;;
    esac
}

need_root() {
    if [[ $EUID -ne 0 ]]; then
        echo "lab.sh: network namespaces need root; run it with sudo" >&2
        exit 1
    fi
    if ! command -v ip >/dev/null; then
        echo "lab.sh: there is no ip command; install it with: apt-get install iproute2" >&2
        exit 1
    fi
}

# A lab that is up is somebody's: to fail half-way would remove it.
new_lab() {
    lab=${LAB:-tg$$}
    if [[ -e /run/netns/$lab-gw ]]; then
        echo "lab.sh: the lab $lab is up already; remove it (LAB=$lab lab.sh down), or take another name (LAB=NAME)" >&2
        exit 1
    fi
}

find_lab() {
    lab=${LAB:-}
    [[ -z $lab ]] || return 0
    local labs
    mapfile -t labs < <(ip netns list | sed -n 's/^\(tg[0-9]*\)-gw\b.*/\1/p')
    if [[ ${#labs[@]} -ne 1 ]]; then
        echo "lab.sh: ${#labs[@]} labs are up (${labs[*]-}); say which: LAB=NAME lab.sh ..." >&2
        exit 1
    fi
    lab=${labs[0]}
}

find_host() {
    [[ ! -e /run/netns/$lab-$1 ]] || return 0
    local hosts
    mapfile -t hosts < <(ip netns list | cut -d' ' -f1 | sed -n "s/^$lab-//p" | sort)
    echo "lab.sh: there is no $1 in the lab $lab, but: ${hosts[*]:-nothing, it is not up}" >&2
    exit 1
}

up() {
    trap down EXIT
    trap 'exit 130' INT TERM
    local name
    for name in client gw b1 b2; do
        ip netns add "$lab-$name"
        quiet_host "$lab-$name"
    done
    forwarding_on "$lab-gw"
    cable gw to-client 198.51.100.1/24 2001:db8:1::1/64 client eth0 198.51.100.2/24 2001:db8:1::2/64
    # One address on both backend ports: a router with unnumbered links, instead of a bridge that costs time.
    cable gw to-b1 10.0.0.254/32 fd00::fe/128 b1 eth0 10.0.0.1/24 fd00::1/64
    cable gw to-b2 10.0.0.254/32 fd00::fe/128 b2 eth0 10.0.0.2/24 fd00::2/64
    routes gw "10.0.0.1 dev to-b1" "10.0.0.2 dev to-b2" "fd00::1 dev to-b1" "fd00::2 dev to-b2"
    local gw4=198.51.100.1 gw6=2001:db8:1::1
    routes client "192.0.2.0/24 via $gw4" "10.0.0.0/24 via $gw4" "2001:db8::/64 via $gw6" "fd00::/64 via $gw6"
    backend_routes b1 10.0.0.254 fd00::fe
    backend_routes b2 10.0.0.254 fd00::fe
    trap - EXIT INT TERM
    echo "export LAB=$lab"
}

# No reverse-path filter, no address detection to wait for, no router to look for, and ICMP errors without a limit, so
# that a missing answer means that the gateway lost it.
quiet_host() {
    ip -n "$1" link set lo up
    ip netns exec "$1" sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 \
        net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.default.accept_ra=0 net.ipv6.conf.default.router_solicitations=0 \
        net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0
}

forwarding_on() {
    ip netns exec "$1" sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
        net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0
}

# cable HOST PORT ADDRESS4 ADDRESS6 HOST PORT ADDRESS4 ADDRESS6: a cable between two ports.
cable() {
    ip link add "$2" netns "$lab-$1" type veth peer name "$6" netns "$lab-$5"
    port "${@:1:4}"
    port "${@:5:4}"
}

port() {
    ip -n "$lab-$1" -b - <<END
addr add $3 dev $2
addr add $4 dev $2 nodad
link set $2 up
END
}

# routes HOST ROUTE...: each in one word, of either family.
routes() {
    printf 'route add %s\n' "${@:2}" | ip -n "$lab-$1" -b -
}

# backend_routes HOST VIA4 VIA6: to the clients and to the gateway's source addresses.
backend_routes() {
    routes "$1" "198.51.100.0/24 via $2" "10.99.0.0/24 via $2" "2001:db8:1::/64 via $3" "fd00:99::/64 via $3"
}

# b1 goes on promising the segments of a full Ethernet frame: the sender has to be told by the router.
router() {
    ip netns add "$lab-r"
    quiet_host "$lab-r"
    forwarding_on "$lab-r"
    ip -n "$lab-gw" link del to-b1
    cable gw to-b1 10.0.0.254/32 fd00::fe/128 r to-gw 10.0.0.253/32 fd00::fd/128
    cable r to-b1 10.0.0.253/32 fd00::fd/128 b1 eth0 10.0.0.1/24 fd00::1/64
    ip -n "$lab-r" link set to-b1 mtu "$1"
    ip -n "$lab-b1" link set eth0 mtu "$1"
    routes gw "10.0.0.253 dev to-b1" "10.0.0.1 via 10.0.0.253" "fd00::fd dev to-b1" "fd00::1 via fd00::fd"
    routes r "10.0.0.254 dev to-gw" "10.0.0.1 dev to-b1" "fd00::fe dev to-gw" "fd00::1 dev to-b1"
    backend_routes r 10.0.0.254 fd00::fe
    backend_routes b1 "10.0.0.253 advmss 1460" "fd00::fd advmss 1440"
}

# For direct server return: what goes from a backend to the client does not pass the gateway's machine.
direct() {
    local n
    for n in 1 2; do
        cable client "from-b$n" "10.9.$n.1/24" "fd00:9:$n::1/64" "b$n" direct "10.9.$n.2/24" "fd00:9:$n::2/64"
        ip -n "$lab-b$n" -4 route replace 198.51.100.0/24 via "10.9.$n.1"
        ip -n "$lab-b$n" -6 route replace 2001:db8:1::/64 via "fd00:9:$n::1"
    done
}

# Two gateways at the same two switches:
#
#   LAB-client -- switch ext -- ext LAB-gw  int -- switch int -- LAB-b1, LAB-b2
#                            \\ ext LAB-gw2 int //                 LAB-gw hb -- hb LAB-gw2
#
# The VIPs lie in the client's network, the source addresses in the backends': who has them is asked by ARP and ND.
pair() {
    local host link
    for link in to-client to-b1 to-b2; do
        ip -n "$lab-gw" link del "$link"
    done
    for host in gw2 sw; do
        ip netns add "$lab-$host"
        quiet_host "$lab-$host"
    done
    forwarding_on "$lab-gw2"
    for link in ext int; do
        ip -n "$lab-sw" link add "$link" type bridge forward_delay 0 mcast_snooping 0
        ip -n "$lab-sw" link set "$link" up
    done
    plug ext client eth0 198.51.100.2/24 2001:db8:1::2/64
    plug int b1 eth0 10.0.0.1/24 fd00::1/64
    plug int b2 eth0 10.0.0.2/24 fd00::2/64
    local n=1
    for host in gw gw2; do
        plug ext "$host" ext "198.51.100.1$n/24" "2001:db8:1::1$n/64"
        plug int "$host" int "10.0.0.1$n/24" "fd00::1$n/64"
        n=2
    done
    cable gw hb 10.0.5.1/24 fd00:5::1/64 gw2 hb 10.0.5.2/24 fd00:5::2/64
    routes client "192.0.2.0/24 dev eth0" "2001:db8::/64 dev eth0"
    for host in b1 b2; do
        routes "$host" "10.99.0.0/24 dev eth0" "fd00:99::/64 dev eth0"
    done
}

# plug SWITCH HOST PORT ADDRESS4 ADDRESS6: a port of a host into a switch.
plug() {
    ip link add "$3" netns "$lab-$2" type veth peer name "$2-$3" netns "$lab-sw"
    ip -n "$lab-sw" link set "$2-$3" master "$1" up
    port "${@:2}"
}

# Whatever runs in these namespaces was started in them, so it is ours to end.
down() {
    local name pids
    for name in client gw b1 b2 r gw2 sw; do
        [[ -e /run/netns/$lab-$name ]] || continue
        mapfile -t pids < <(ip netns pids "$lab-$name")
        [[ ${#pids[@]} -eq 0 ]] || end "$lab-$name" "${pids[@]}"
        ip netns del "$lab-$name"
    done
}

# end NAMESPACE PID...: asks first, so that whoever has something to put away does; after two seconds asks no more.
end() {
    kill -TERM "${@:2}" 2>/dev/null || true
    local tries left
    for ((tries = 0; tries < 40; tries++)); do
        mapfile -t left < <(ip netns pids "$1")
        [[ ${#left[@]} -gt 0 ]] || return 0
        sleep 0.05
    done
    kill -KILL "${left[@]}" 2>/dev/null || true
}

run() {
    trap down EXIT
    trap 'exit 130' INT TERM
    LAB=$lab "$0" up >/dev/null
    LAB=$lab "$@"
}

main "$@"
