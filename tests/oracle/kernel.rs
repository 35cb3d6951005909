//! The kernel as a gateway: two TUNs in a network namespace of its own, and nft's NAT between them.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use tungate::io::namespace::Namespace;
use tungate::io::netlink::{LocalAddress, Netlink, Prefix, Route, Target};
use tungate::io::tun::{Offloads, Tun, TunConfig, TunQueue};
use tungate::wire::OFFLOAD_LEN;

use crate::common;
use crate::pair::{Departure, Side};

/// What the kernel is told, below `/proc/sys/net`, and why.
pub(crate) const SETTINGS: &[(&str, &str)] = &[
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/forwarding", "1"),
    // Packets come in from anywhere; who may come from where is not what is compared.
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/all/accept_local", "1"),
    // A segment of no known connection opens none (R53).
    ("netfilter/nf_conntrack_tcp_loose", "0"),
    ("netfilter/nf_conntrack_tcp_be_liberal", "0"),
    ("netfilter/nf_conntrack_checksum", "1"),
    // The kernel's time is real: whatever it takes, nothing is forgotten.
    ("netfilter/nf_conntrack_udp_timeout", "3600"),
    ("netfilter/nf_conntrack_udp_timeout_stream", "3600"),
    ("netfilter/nf_conntrack_tcp_timeout_syn_sent", "3600"),
    ("netfilter/nf_conntrack_tcp_timeout_syn_recv", "3600"),
    ("netfilter/nf_conntrack_tcp_timeout_fin_wait", "3600"),
    ("netfilter/nf_conntrack_tcp_timeout_close_wait", "3600"),
    ("netfilter/nf_conntrack_tcp_timeout_last_ack", "3600"),
    ("netfilter/nf_conntrack_tcp_timeout_time_wait", "3600"),
    ("netfilter/nf_conntrack_tcp_timeout_close", "3600"),
    ("netfilter/nf_conntrack_tcp_timeout_max_retrans", "3600"),
    ("netfilter/nf_conntrack_tcp_timeout_unacknowledged", "3600"),
    // Nor given up for want of memory: many a datagram here never becomes whole.
    ("ipv4/ipfrag_high_thresh", "1000000000"),
    ("netfilter/nf_conntrack_frag6_high_thresh", "1000000000"),
    ("ipv4/ipfrag_time", "3600"),
    ("netfilter/nf_conntrack_frag6_timeout", "3600"),
    // Errors are compared, not how many of them are sent.
    ("ipv4/icmp_ratelimit", "0"),
    ("ipv4/icmp_ratemask", "0"),
    ("ipv4/icmp_msgs_per_sec", "1000000"),
    ("ipv4/icmp_msgs_burst", "1000000"),
    ("ipv6/icmp/ratelimit", "0"),
];

/// Nothing is forwarded that is not part of a translated flow: what else comes for a VIP or a source address ends here.
const RULES: &str = "
table inet gateway {
    chain pre {
        type nat hook prerouting priority -100
        ip daddr 192.0.2.10 tcp dport 80 dnat ip to 10.0.0.1:8080
        ip daddr 192.0.2.10 udp dport 53 dnat ip to 10.0.0.1:5353
        ip daddr 192.0.2.20 meta l4proto { tcp, udp } dnat ip to 10.0.0.2
        ip6 daddr 2001:db8::10 tcp dport 80 dnat ip6 to [fd00::1]:8080
        ip6 daddr 2001:db8::10 udp dport 53 dnat ip6 to [fd00::1]:5353
        ip6 daddr 2001:db8::20 meta l4proto { tcp, udp } dnat ip6 to fd00::2
    }
    chain forward {
        type filter hook forward priority 0; policy drop
        ct status dnat accept
    }
}";

const SOURCE_NAT: &str = "
table inet gateway {
    chain post {
        type nat hook postrouting priority 100
        ip daddr 10.0.0.0/24 snat ip to 10.99.0.10
        ip6 daddr fd00::/64 snat ip6 to fd00:99::10
    }
}";

/// Both interfaces vanish with their namespace.
pub(crate) struct Kernel {
    sides: [TunQueue; 2],
    _interfaces: [Tun; 2],
}

impl Kernel {
    /// Builds it, or says why the test is skipped.
    pub(crate) fn build(test: &str, source_nat: bool) -> Option<Self> {
        let rerun = "sudo -E cargo test --test oracle";
        if Command::new("nft").arg("--version").stdout(Stdio::null()).status().is_err() {
            common::skip(test, "there is no nft", "apt-get install nftables");
            return None;
        }
        let namespace = match Namespace::new() {
            Ok(namespace) => namespace,
            Err(error) => {
                common::skip(test, &error.to_string(), rerun);
                return None;
            }
        };
        match namespace.run(|| Self::inside(source_nat)).unwrap() {
            Ok(kernel) => Some(kernel),
            Err(error) => {
                common::skip(test, &error, rerun);
                None
            }
        }
    }

    /// On a thread inside the namespace.
    fn inside(source_nat: bool) -> Result<Self, String> {
        let (clients, to_clients) = tun("clients", "203.0.113.1", "2001:db8:ffff::1")?;
        let (backends, to_backends) = tun("backends", "10.0.0.254", "fd00::fe")?;
        nft(RULES)?;
        if source_nat {
            nft(SOURCE_NAT)?;
        }
        // Not before the first rule: that is what brings connection tracking into the namespace.
        for (setting, value) in SETTINGS {
            fs::write(format!("/proc/sys/net/{setting}"), value).unwrap_or_else(|e| panic!("{setting}: {e}"));
        }
        let routes = [
            ("0.0.0.0/0", Target::Device(clients.index())),
            ("::/0", Target::Device(clients.index())),
            ("10.0.0.0/24", Target::Device(backends.index())),
            ("fd00::/64", Target::Device(backends.index())),
            ("192.0.2.0/24", Target::Blackhole),
            ("2001:db8::/64", Target::Blackhole),
            ("10.99.0.10/32", Target::Blackhole),
            ("fd00:99::10/128", Target::Blackhole),
        ];
        let mut netlink = Netlink::open().unwrap();
        for (destination, target) in routes {
            let (address, length) = destination.split_once('/').unwrap();
            let destination = Prefix::new(address.parse().unwrap(), length.parse().unwrap());
            netlink.add_route(&Route { destination, target, metric: None, table: None }).unwrap();
        }
        Ok(Self { sides: [to_clients, to_backends], _interfaces: [clients, backends] })
    }

    /// A packet arrives. The kernel has done with it what it will do when the write returns, so what it sends is there.
    pub(crate) fn receives(&self, from: Side, packet: &[u8]) -> Vec<Departure> {
        let mut frame = vec![0; OFFLOAD_LEN];
        frame.extend(packet);
        // The driver itself refuses what is too short to have an IP version, or has an impossible one.
        match self.sides[from as usize].write(&frame) {
            Err(error) if error.kind() == ErrorKind::InvalidInput => {}
            written => assert_eq!(written.unwrap(), frame.len()),
        }
        let mut departures = Vec::new();
        for to in [Side::Clients, Side::Backends] {
            let mut buffer = vec![0; 1 << 17];
            loop {
                match self.sides[to as usize].read(&mut buffer) {
                    Ok(len) => departures.push(Departure { to, packet: buffer[OFFLOAD_LEN..len].to_vec() }),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{to:?}: {error}"),
                }
            }
        }
        departures
    }
}

/// An interface with an address in each family, for the kernel's own errors.
fn tun(name: &str, v4: &str, v6: &str) -> Result<(Tun, TunQueue), String> {
    let config = TunConfig { name, mtu: u16::MAX, queues: 1, offloads: Offloads::None };
    let (tun, mut queues) = Tun::create(&config).map_err(|error| error.to_string())?;
    let mut netlink = Netlink::open().unwrap();
    for (address, prefix_length) in [(v4, 32), (v6, 128)] {
        let address: IpAddr = address.parse().unwrap();
        netlink.add_address(&LocalAddress { interface: tun.index(), address, prefix_length }).unwrap();
    }
    Ok((tun, queues.pop().unwrap()))
}

fn nft(rules: &str) -> Result<(), String> {
    // A child of this thread is in its namespace.
    let output = Command::new("nft").arg(rules).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("this kernel or nft does not do NAT: {error}")) }
}
