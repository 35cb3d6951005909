//! Whether a packet is sound, in etherparse's opinion.

use etherparse::{NetSlice, SlicedPacket, TcpSlice, TransportSlice, UdpSlice};

use crate::oracle;

/// Checks one segment with etherparse, and returns its payload.
#[track_caller]
pub(crate) fn payload_of(packet: &[u8]) -> &[u8] {
    let sliced = SlicedPacket::from_ip(packet).unwrap();
    let net = sliced.net.unwrap();
    if let NetSlice::Ipv4(ip) = &net {
        assert_eq!(usize::from(ip.header().total_len()), packet.len());
        // Not by etherparse: its header has no place for the reserved bit, which has to stay (R12).
        assert_eq!(oracle::sum(&[ip.header().slice()]), 0xffff, "header checksum");
    }
    if let NetSlice::Ipv6(ip) = &net {
        assert_eq!(usize::from(ip.header().payload_length()), packet.len() - 40);
    }
    match sliced.transport.unwrap() {
        TransportSlice::Tcp(tcp) => {
            assert!(etherparse_tcp_ok(&net, &tcp), "TCP checksum");
            tcp.payload()
        }
        TransportSlice::Udp(udp) => {
            assert!(etherparse_udp_ok(&net, &udp), "UDP checksum or length");
            udp.payload()
        }
        other @ (TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_) | TransportSlice::Igmp(_)) => {
            panic!("{other:?}")
        }
    }
}

fn etherparse_tcp_ok(net: &NetSlice<'_>, tcp: &TcpSlice<'_>) -> bool {
    let right = match net {
        NetSlice::Ipv4(ip) => tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination()).unwrap(),
        NetSlice::Ipv6(ip) => tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination()).unwrap(),
        NetSlice::Arp(_) => unreachable!("an IP packet"),
    };
    tcp.checksum() == right
}

fn etherparse_udp_ok(net: &NetSlice<'_>, udp: &UdpSlice<'_>) -> bool {
    let header = udp.to_header();
    let right = match net {
        NetSlice::Ipv4(ip) => {
            header.calc_checksum_ipv4_raw(ip.header().source(), ip.header().destination(), udp.payload()).unwrap()
        }
        NetSlice::Ipv6(ip) => {
            header.calc_checksum_ipv6_raw(ip.header().source(), ip.header().destination(), udp.payload()).unwrap()
        }
        NetSlice::Arp(_) => unreachable!("an IP packet"),
    };
    udp.checksum() == right && usize::from(udp.length()) == 8 + udp.payload().len()
}
