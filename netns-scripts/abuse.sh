#!/usr/bin/env bash
# 200 TCP connections through tungate, every byte of them checked, while everything that a network can do to a gateway
# goes into its TUN: 43,094 captured packets in random order, floods of SYNs and of fragments from random sources,
# forgeries in the name of the very client, random bytes. Prints memory, flows and drops at intervals, and fails if a
# connection breaks, the memory grows, or a drop has no name.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    cat >&2 <<'END'
usage: abuse.sh [--seconds N] [--rate N]

  --seconds N     how long (300)
  --rate N        packets a second, of each of the five kinds as many (20000)

needs root, ip, and the public captures in ../shared/pcaps
END
    exit 2
}

seconds=300 rate=20000
while [[ $# -gt 0 ]]; do
    case $1 in
        --seconds) seconds=${2:?} && shift 2 ;;
        --rate) rate=${2:?} && shift 2 ;;
        *) usage ;;
    esac
done
[[ $seconds$rate =~ ^[0-9]+$ ]] || usage

echo "$(nproc) CPUs, kernel $(uname -r), load average before: $(cut -d' ' -f1 /proc/loadavg)"
TUNGATE_TEST_ALL=1 TUNGATE_ABUSE=$seconds:$rate cargo test --quiet --release --test namespaces -- no_connection_breaks_under_abuse
