//! What a correct gateway does with a packet, one sentence a rule: the list that tests cite as `rNN_`.

use std::ops::RangeInclusive;

/// How binding a rule is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Level {
    Must,
    Should,
    /// The references disagree: the sentence is what tungate does.
    Choice,
}
use Level::{Choice, Must, Should};

/// The rules that are due now, each with a test: those of NAT, of tunnels and of hostile input. The others are of the pair
/// (R110) and of termination (R111, R112).
pub(crate) const DUE: RangeInclusive<usize> = 1..=109;

/// R1 is the first.
pub(crate) const RULES: [(Level, &str); 112] = [
    // IP header and forwarding
    (Must, "IPv4 header checksum wrong: dropped, no ICMP, counted; the check cannot be switched off (RFC 1812 5.2.2)"),
    (Must, "less than a header, impossible header or total length: dropped (RFC 1812 5.2.2)"),
    (Must, "total length beyond the packet's end: dropped (RFC 1812 5.2.2)"),
    (Must, "longer than its total length: forwarded with the trailing bytes cut (RFC 1812 5.2.2)"),
    (Must, "version neither 4 nor 6: dropped (RFC 1812 5.2.2)"),
    (Must, "TTL or hop limit goes down by one, in both directions (RFC 1812 5.3.1, RFC 8200 3)"),
    (
        Must,
        "TTL 1: dropped, time exceeded to the sender, who gets the packet quoted as he sent it (RFC 1812 5.2.7.3, RFC 4443 3.3)",
    ),
    (Must, "TTL 1 for the gateway itself: taken in (RFC 1812 4.2.2.9)"),
    (
        Must,
        "no ICMP error about an ICMP error, a later fragment, multicast, or a source that is no host (RFC 1812 4.3.2.7, RFC 4443 2.4)",
    ),
    (Must, "ICMP errors of our own are limited in number (RFC 4443 2.4, RFC 1812 4.3.2.8)"),
    (Must, "an ICMP error quotes as much as fits 576 bytes, ICMPv6 1280 (RFC 1812 4.3.2.3, RFC 4443 2.4)"),
    (
        Must,
        "DSCP, ECN, DF, IPv4 identification, flow label and options pass NAT unchanged (RFC 2474, RFC 3168, RFC 6864)",
    ),
    (Must, "harmless IPv4 options are skipped to find the ports; the packet is translated (RFC 1812 4.2.2.6)"),
    (Choice, "IPv4 source routing: dropped (RFC 7126 4.3)"),
    (Must, "an option of impossible length: no hang, no over-read, dropped (RFC 791 3.1)"),
    (Should, "a source that no host has, or one of the gateway's own: dropped, counted (RFC 1812 5.3.7, RFC 2827)"),
    (Must, "land, source and destination the same: dropped, no flow to itself (RFC 1812 5.3.7)"),
    (
        Must,
        "a multicast, broadcast or loopback destination matches no service and is answered by no ICMP (RFC 1812 5.3.7)",
    ),
    // Checksums
    (Must, "incremental update by RFC 1624 equation 3: never 0xFFFF where 0x0000 is right"),
    (Must, "a UDP checksum that comes out as 0x0000 is sent as 0xFFFF (RFC 768, RFC 8200 8.1)"),
    (Must, "a UDP/IPv4 checksum of 0 stays 0 (RFC 768)"),
    (Choice, "a UDP/IPv6 checksum of 0 passes as 0 (RFC 6935)"),
    (Must, "TCP and ICMP: 0x0000 is a legal checksum and stays (RFC 9293 3.1)"),
    (Choice, "a wrong transport checksum passes and stays wrong; on a packet that opens or closes a flow: dropped"),
    (Must, "DSR: the inner packet's checksum is left alone, right or wrong"),
    (Must, "the pseudo-header has the upper-layer protocol, behind extension headers (RFC 8200 8.1)"),
    // NAT mapping
    (Must, "UDP: the first datagram makes one mapping, and all others follow it whatever changes (RFC 4787 REQ-11)"),
    (Must, "a reply comes out as VIP to client, ports restored (RFC 3022 4.1)"),
    (
        Must,
        "full NAT: two flows never share source address, port, backend and protocol (RFC 4787 REQ-3, RFC 5382 REQ-7)",
    ),
    (
        Should,
        "a source port keeps its class, below 1024 or not; one that must change is picked at random (RFC 4787 REQ-3, RFC 6056)",
    ),
    (
        Must,
        "ports exhausted: the new flow is refused and its client told, those there are unharmed, ports return (RFC 5508 REQ-8)",
    ),
    (Must, "a UDP mapping lives for 2 minutes at least, 5 by default (RFC 4787 REQ-5)"),
    (Choice, "packets from the backend refresh, ICMP errors and RSTs as answers do not (RFC 4787 REQ-6, RFC 7857 7.1)"),
    (Must, "TCP and UDP mappings of the same ports are independent (RFC 7857 5)"),
    (Must, "hairpin: a backend that connects to the VIP sees the gateway's address as its peer (RFC 4787 REQ-9)"),
    (Must, "an empty UDP datagram is translated like any other (RFC 768)"),
    (
        Must,
        "UDP length below 8 or beyond the packet: dropped; shorter than the payload: passes with the surplus (RFC 768)",
    ),
    (Choice, "port 0: opens no flow"),
    (Must, "table full: new flows are refused and counted, flows in use and ICMP go on (RFC 4787 REQ-14)"),
    // TCP
    (Must, "SYN, SYN-ACK, ACK: established; all sequences of RFC 9293 pass (RFC 5382 REQ-2)"),
    (Must, "simultaneous open becomes established; a SYN from the backend destroys nothing (RFC 5382 REQ-2)"),
    (Must, "retransmissions go to the same backend in any state, and change none"),
    (Must, "a SYN-ACK that does not acknowledge our SYN is not taken for the handshake"),
    (Must, "a RST counts only if its sequence number is the next expected (RFC 5961 3.2)"),
    (Must, "after a RST that counted the mapping stays for late packets (RFC 7857 2.2)"),
    (Must, "a SYN on an established flow goes to the same backend; flow and timer stay (RFC 5961 4.2)"),
    (Must, "a forged SYN, RST or FIN out of the window never moves an established flow (RFC 5961)"),
    (Must, "a SYN on a flow in TIME-WAIT or CLOSE begins a new one (RFC 9293 3.6.1)"),
    (Must, "draining: a new SYN on TIME-WAIT of a backend without weight goes to another"),
    (Must, "half-closed: the other side may send for as long as it is active (RFC 9293 3.6.1)"),
    (Must, "both FINs and the last ACK: TIME-WAIT; late duplicates are still translated"),
    (Must, "the established timeout can be set, and is 7,440 s at least by default; transitory 240 s (RFC 5382 REQ-5)"),
    (Choice, "a segment in the middle of no known connection: answered with a RST (RFC 9293 3.10.7.1)"),
    (Must, "flags that no TCP sends never make a flow; PSH, URG, ECE, CWR never make a segment wrong (RFC 3360)"),
    (Must, "TCP header shorter than 20 bytes, or data offset beyond the packet: dropped"),
    (
        Must,
        "window scale counts only if both SYNs have it, above 14 as 14; SACK extends what is acknowledged (RFC 7323 2.2)",
    ),
    (Must, "data in a SYN is forwarded (RFC 7413)"),
    // ICMP
    (
        Must,
        "an ICMP error from outside about a reply reaches the backend, outer addresses, quote and checksums right (RFC 5508 REQ-4)",
    ),
    (Must, "its type, code, MTU and outer source stay (RFC 5508 REQ-4)"),
    (Must, "an ICMP error from behind us reaches the client from the VIP, quote restored (RFC 5508 REQ-5)"),
    (Should, "ICMP checksum wrong: dropped (RFC 5508 REQ-3)"),
    (
        Should,
        "checksum of the quoted IP header wrong: dropped; the quoted transport checksum is not looked at (RFC 5508 REQ-3)",
    ),
    (Must, "a quote with IP options: the ports are found behind them (RFC 5508 REQ-3)"),
    (Must, "a quote with 8 bytes of transport is translated; nothing is written beyond it (RFC 792)"),
    (Must, "RFC 4884 extensions pass, and never count as quoted packet (RFC 5508 REQ-3)"),
    (Should, "a quote of no known flow: dropped silently (RFC 5508 REQ-4)"),
    (Must, "DSR: an ICMP error to the VIP goes to the backend of the quoted flow (RFC 7690)"),
    (Must, "an ICMP message never deletes or shortens a flow (RFC 4787 REQ-12, RFC 5382 REQ-10, RFC 5508 REQ-6)"),
    (Choice, "an echo request to the VIP is answered by the gateway, whatever its backends do (RFC 1812 4.3.3.6)"),
    (
        Choice,
        "ICMP queries are answered and none is mapped: identifiers of two clients cannot collide (RFC 5508 REQ-1, REQ-2)",
    ),
    (Should, "source quench, redirects, router and neighbour discovery are not forwarded (RFC 6633, RFC 6918)"),
    // Fragments
    (Must, "fragments of a datagram, in any order, all reach the same backend, translated (RFC 4787 REQ-14)"),
    (Must, "what comes before the first fragment is held, bounded in number, bytes and time; never guessed"),
    (Must, "a flood of fragments harms no unfragmented flow (RFC 4787 REQ-14)"),
    (Must, "a datagram that stays incomplete leaves nothing behind (RFC 1122 3.3.2, RFC 8200 4.5)"),
    (Must, "overlapping IPv6 fragments: the whole datagram is discarded, later ones too (RFC 5722 4)"),
    (Should, "overlapping IPv4 fragments: likewise; exact duplicates are ignored (RFC 1858)"),
    (
        Must,
        "a fragment but the last whose length is no multiple of 8: dropped, over IPv6 its sender told (RFC 791 3.2, RFC 8200 4.5)",
    ),
    (Must, "a fragment that reaches beyond 65,535 bytes: dropped, over IPv6 its sender told (RFC 791, RFC 8200 4.5)"),
    (Must, "a first fragment too small for its header, or one that rewrites it: dropped (RFC 1858, RFC 3128)"),
    (Must, "an IPv6 atomic fragment is processed by itself (RFC 6946 4)"),
    (Must, "an IPv6 first fragment without the whole header chain: dropped, its sender told (RFC 7112 5)"),
    (
        Must,
        "fragments of two clients with the same identification get distinct ones behind one source (RFC 6864 5.3.1)",
    ),
    // IPv6 extension headers
    (Must, "hop-by-hop, destination options and routing headers are walked and kept byte for byte (RFC 8200 4.1)"),
    (Must, "the walk is bounded; beyond the packet or 8 headers: dropped"),
    (Must, "a routing header with segments left: dropped, its sender told (RFC 5095, RFC 8200 4.4)"),
    (Must, "no next header, ESP, payload length 0: no ports are read (RFC 8200 4.7)"),
    (Must, "unknown hop-by-hop options are skipped, never read as transport (RFC 8200 4.2)"),
    // GRE and DSR encapsulation
    (Must, "a packet to the VIP leaves in GRE, unchanged inside (RFC 2784, RFC 7676)"),
    (Choice, "inner TTL is decremented at encapsulation, outer TTL 64 (RFC 2003 3.1)"),
    (Must, "GRE reserved bits and version 0; a key only where configured (RFC 2784 2.3, RFC 2890)"),
    (Should, "GRE checksum off by default (RFC 2784 2.5)"),
    (Must, "GRE received: version, routing bit, checksum, key, sequence and protocol are checked (RFC 2784 2.3)"),
    (Must, "outer DSCP is the inner one (RFC 2983 3)"),
    (Must, "outer ECN is the inner one; CE is never invented (RFC 6040 4.1)"),
    (Must, "decapsulation combines ECN by RFC 6040 4.2"),
    (Must, "outer IPv4 identification, checksum and lengths are right (RFC 6864 4)"),
    (Should, "outer DF 1 by default (RFC 7588 3.3.2)"),
    (Must, "inner IPv4 without DF too big: the inner packet is fragmented (RFC 7588 3.3.1)"),
    (Must, "inner IPv4 with DF too big: dropped, ICMP 3/4 with the MTU that fits (RFC 7588 3.3.1, RFC 1191)"),
    (Must, "inner IPv6 too big: dropped, packet too big, never below 1280 (RFC 7676 3.3, RFC 8201)"),
    (Must, "an outer packet with DF is never larger than the MTU; IPv6 of 1280 bytes always passes (RFC 7676 3.2)"),
    (Must, "ICMP from inside the tunnel lowers the path MTU, and the client is told (RFC 4459 3.2, RFC 2003 4.1)"),
    (Must, "ICMP about the outer packet is not passed to the client unchanged (RFC 2003 4)"),
    (Must, "no encapsulation loop (RFC 2784 3.1)"),
    (Choice, "MSS is clamped in SYNs through a tunnel (RFC 6691, RFC 9293 3.7.1)"),
    // Other protocols, hostile input
    (Choice, "other protocols to a VIP: dropped; no ports are read of them"),
    (Must, "nothing that a packet contains causes panic, endless loop, growth or a flood of the log"),
    (Must, "tunnel packets for a VIP are not services: neither unpacked nor forwarded"),
    // Termination, client address, pairs
    (Must, "after a fail-over the standby forwards synced flows to the same backend with the same translation"),
    (Must, "termination: challenge ACKs, RSTs, half-close and zero windows as RFC 9293 and RFC 5961 say"),
    (Must, "the PROXY header is sent once, first, with the original addresses"),
];
