//! Where tungate is meant to differ from the kernel: the one list, and what the manual says of it.

use std::collections::BTreeMap;

use tungate::engine::{DropReason, Verdict};
use tungate::wire::{Offload, Packet, Protocol};

use crate::packets::{is_tiny, with_length};
use crate::pair::{Departure, Difference, Side};
use crate::support::altered;

/// One thing that tungate does otherwise.
#[derive(Debug)]
pub(crate) struct Decision {
    /// What comes.
    pub(crate) what: &'static str,
    /// The rule that says what is to be done with it.
    pub(crate) rules: &'static [u8],
    pub(crate) kernel: &'static str,
    pub(crate) tungate: &'static str,
    pub(crate) why: &'static str,
    /// Whether a difference is this one.
    pub(crate) covers: fn(&Difference) -> bool,
}

pub(crate) const DECISIONS: &[Decision] = &[
    Decision {
        what: "a ping to a VIP",
        rules: &[69],
        kernel: "translates or drops it, as its rules say",
        tungate: "answers it",
        why: "it says that the gateway is there; whether a service works is a question for the service",
        covers: |d| d.kernel.is_empty() && d.verdict() == Some(Verdict::Reply) && d.sent_icmp(8, 128),
    },
    Decision {
        what: "a segment of a connection that is not known",
        rules: &[53],
        kernel: "drops it, or takes it for an open connection (`nf_conntrack_tcp_loose`)",
        tungate: "answers with a RST",
        why: "the client finds out at once and connects anew",
        covers: |d| d.kernel.is_empty() && d.is_answered_with_reset() && !d.is_syn(),
    },
    Decision {
        what: "a port of a VIP where nobody listens",
        rules: &[],
        kernel: "drops it, or refuses it, as its rules say",
        tungate: "answers with a RST or port unreachable",
        why: "as a host does (RFC 9293 3.10.7.1, RFC 1122 4.1.3.1): clients fail at once, traceroute ends",
        covers: |d| d.kernel.is_empty() && (d.is_answered_with_reset() && d.is_syn() || d.is_answered_with(3, 3, 1, 4)),
    },
    Decision {
        what: "a wrong checksum on a packet of an open flow",
        rules: &[24],
        kernel: "verifies each and drops it",
        tungate: "forwards it, still wrong",
        why: "the receiver verifies it, too; a packet that would open or close a flow is verified here as well",
        covers: |d| d.kernel.is_empty() && d.is_forwarded() && d.is_unsound(),
    },
    Decision {
        what: "a datagram that is shorter than its packet",
        rules: &[37],
        kernel: "takes the checksum over all of the packet, finds it wrong, and drops it",
        tungate: "forwards it with the surplus; the checksum is over the datagram",
        why: "RFC 768 does not forbid it",
        covers: |d| d.kernel.is_empty() && d.is_forwarded() && d.has_surplus(),
    },
    Decision {
        what: "a flow from or to port 0",
        rules: &[38],
        kernel: "translates it",
        tungate: "drops it",
        why: "no program listens there",
        covers: |d| d.is_dropped(DropReason::PortZero),
    },
    Decision {
        what: "a SYN-ACK that does not acknowledge the SYN",
        rules: &[43],
        kernel: "drops it",
        tungate: "forwards it, and believes nothing",
        why: "the client's RST clears the way for its SYN, as between two hosts (RFC 9293 3.5.2)",
        covers: |d| d.kernel.is_empty() && d.is_forwarded() && d.has_flags(0x12),
    },
    Decision {
        what: "a RST that ends no connection",
        rules: &[43, 44],
        kernel: "drops it if it lies outside the window, and believes it else",
        tungate: "forwards it unless the connection is open, and believes nothing",
        why: "the end hosts may know more: it may clear the way for a SYN that is sent again",
        covers: |d| d.kernel.is_empty() && d.is_forwarded() && d.has_flags(0x04),
    },
    Decision {
        what: "a RST beyond the window",
        rules: &[44],
        kernel: "forwards it up to a window further",
        tungate: "drops it",
        why: "no host sends one, and who guesses is to have but one window to guess in (RFC 5961 3.2)",
        covers: |d| d.is_dropped(DropReason::TcpWindow) && d.has_flags(0x04),
    },
    Decision {
        what: "the IP header of an error that the gateway sends",
        rules: &[],
        kernel: "internetwork control as DSCP, a random identification, over IPv6 a flow label",
        tungate: "DSCP 0, DF, identification and flow label 0",
        why: "it needs no precedence, and who may not be cut needs no identification (RFC 6864 4.1)",
        covers: |d| d.verdict() == Some(Verdict::Reply) && d.equal_but(without_marks),
    },
    Decision {
        what: "the source of an error to a backend, without source NAT",
        rules: &[7],
        kernel: "an address of its interface",
        tungate: "the VIP",
        why: "the gateway has no other address",
        covers: |d| d.verdict() == Some(Verdict::Reply) && d.equal_but(without_marks_and_source),
    },
    Decision {
        what: "an IPv4 option that routers write into",
        rules: &[13],
        kernel: "writes its address or the time into it, and clears what lies behind the end of the options",
        tungate: "leaves options as they are",
        why: "a gateway that shows nobody who is behind it does not record the way there",
        covers: |d| d.is_forwarded() && d.equal_but(without_options),
    },
    Decision {
        what: "a broken IPv4 option",
        rules: &[15],
        kernel: "answers with a parameter problem",
        tungate: "drops it",
        why: "the answer is optional, and few who send such a thing would read it",
        covers: |d| d.is_dropped(DropReason::BadIpOption),
    },
    Decision {
        what: "a broken IPv6 packet for a VIP",
        rules: &[78, 79, 82, 86],
        kernel: "drops it; a route that is not done it follows",
        tungate: "answers with a parameter problem",
        why: "RFC 8200 4.4 and 4.5 want the sender to be told, and the VIP is ours",
        covers: |d| {
            d.sent.iter().any(|(_, packet, verdict)| packet[0] >> 4 == 6 && *verdict == Verdict::Reply)
                && d.problems_only()
        },
    },
    Decision {
        what: "a home address",
        rules: &[26],
        kernel: "forwards it",
        tungate: "drops it",
        why: "the checksum is over another address than the one in the header, so the packet cannot be translated",
        covers: |d| d.is_dropped(DropReason::SourceRouting) && d.kernel.len() == 1,
    },
    Decision {
        what: "IPv6 extension headers in a wrong order, or too many",
        rules: &[85],
        kernel: "does not mind",
        tungate: "drops it",
        why: "RFC 8200 4.1: hop-by-hop options come first; the walk has an end",
        covers: |d| d.is_dropped(DropReason::BadExtensionHeader) && d.kernel.len() == 1,
    },
    Decision {
        what: "a hop-by-hop option that is to be refused",
        rules: &[88],
        kernel: "drops it, and says so where the option wants that",
        tungate: "forwards it",
        why: "RFC 8200 4.3: who does not look at hop-by-hop options passes them on",
        covers: |d| d.is_forwarded() && d.sent_hop_by_hop() && d.kernel.iter().all(|one| one.to == Side::Clients),
    },
    Decision {
        what: "a source that cannot be",
        rules: &[16, 17],
        kernel: "takes 0/8 but for 0.0.0.0, 240/4 and own addresses for sources like others",
        tungate: "drops it",
        why: "it is forged, or a loop",
        covers: |d| d.is_dropped(DropReason::Martian) || d.is_dropped(DropReason::SpoofedSource),
    },
    Decision {
        what: "the source of an ICMP error from outside, with source NAT",
        rules: &[59],
        kernel: "hides it behind the source address, as all that goes that way",
        tungate: "leaves it: the router that reports shows",
        why: "RFC 5508 REQ-4: who reads the error wants to know where the fault lies",
        covers: |d| d.is_forwarded() && d.equal_but(without_error_source),
    },
    Decision {
        what: "an ICMP error with a broken quote",
        rules: &[62],
        kernel: "looks neither at the version nor at the header checksum of the quote",
        tungate: "drops it",
        why: "RFC 5508 REQ-3: what it quotes was never sent like that",
        covers: |d| d.is_dropped(DropReason::IcmpQuote) && d.kernel.len() == 1,
    },
    Decision {
        what: "a quoted TCP header that ends behind its checksum",
        rules: &[64],
        kernel: "translates the checksum only if the header is whole",
        tungate: "translates it if it is there",
        why: "who compares it with what he has sent finds it right",
        covers: |d| d.is_forwarded() && d.equal_but(without_quoted_checksum),
    },
    Decision {
        what: "source quench",
        rules: &[71],
        kernel: "translates it",
        tungate: "drops it",
        why: "RFC 6633: routers must not send it, and hosts have to ignore it",
        covers: |d| d.is_dropped(DropReason::IcmpType) && d.sent_icmp(4, 0),
    },
    Decision {
        what: "an ICMPv6 error of a kind that is not known",
        rules: &[71],
        kernel: "translates it",
        tungate: "drops it",
        why: "none has been defined beyond 4, so none is sent by a router that means well",
        covers: |d| d.is_dropped(DropReason::IcmpType) && (5..=127).any(|kind| d.sent_icmp(255, kind)),
    },
    Decision {
        what: "the identification of fragments",
        rules: &[83],
        kernel: "keeps it over IPv4, takes a new one over IPv6",
        tungate: "takes a new one if the source changes, else keeps it",
        why: "two clients with the same one must not meet behind a source address (RFC 6864 5.3.1)",
        covers: |d| datagrams(&d.kernel) == datagrams(&d.ours) && d.ours.len() == d.kernel.len(),
    },
    Decision {
        what: "a datagram that never becomes whole",
        rules: &[72, 75, 76, 77],
        kernel: "puts fragments together before it sends any",
        tungate: "sends fragments as soon as it has the first; of a datagram whose fragments overlap, no more",
        why: "it need not keep datagrams, only what comes before the first fragment",
        covers: |d| datagrams(&d.kernel) == datagrams(&d.ours) && d.ours.len() > d.kernel.len(),
    },
    Decision {
        what: "a fragment that lies within another",
        rules: &[76, 77],
        kernel: "ignores it",
        tungate: "takes it for an overlap, and drops the datagram",
        why: "only an exact copy is harmless: which of two contents the receiver would take is not ours to guess",
        covers: |d| {
            let overlap = Verdict::Drop(DropReason::FragmentOverlap);
            d.sent.iter().any(|(_, _, verdict)| *verdict == overlap) && datagrams(&d.ours).is_empty()
        },
    },
    Decision {
        what: "a TCP header in pieces",
        rules: &[80],
        kernel: "puts it together",
        tungate: "drops it",
        why: "RFC 3128: it is made to get past a filter",
        covers: |d| d.ours.is_empty() && d.sent.iter().any(|(_, packet, _)| is_tiny(packet)),
    },
    Decision {
        what: "an atomic fragment",
        rules: &[81, 84],
        kernel: "takes the fragment header out",
        tungate: "keeps it",
        why: "extension headers pass as they are",
        covers: |d| d.is_forwarded() && d.equal_but(without_fragment_header),
    },
];

impl Difference {
    /// What the engine did with the packet, if it was one.
    fn verdict(&self) -> Option<Verdict> {
        if let [(_, _, verdict)] = self.sent[..] { Some(verdict) } else { None }
    }

    fn is_forwarded(&self) -> bool {
        self.verdict() == Some(Verdict::Forward)
    }

    fn is_dropped(&self, reason: DropReason) -> bool {
        self.verdict() == Some(Verdict::Drop(reason)) && self.ours.is_empty()
    }

    /// What came, if it was one packet, and sound.
    fn sent<T>(&self, look: impl FnOnce(&Packet<'_>) -> T) -> Option<T> {
        let [(_, packet, _)] = &self.sent[..] else { return None };
        let mut bytes = packet.clone();
        Packet::parse(&mut bytes, Offload::default()).ok().as_ref().map(look)
    }

    fn is_unsound(&self) -> bool {
        self.sent(|packet| !packet.transport_checksum_ok()) == Some(true)
    }

    fn has_surplus(&self) -> bool {
        let surplus = |packet: &Packet<'_>| {
            let datagram = packet.transport();
            packet.protocol() == Protocol::UDP
                && usize::from(u16::from_be_bytes([datagram[4], datagram[5]])) < datagram.len()
        };
        self.sent(surplus) == Some(true)
    }

    /// It was a segment with all of these flags.
    fn has_flags(&self, flags: u8) -> bool {
        self.sent(|packet| packet.tcp().is_some_and(|tcp| tcp.flags.0 & flags == flags)) == Some(true)
    }

    fn is_syn(&self) -> bool {
        self.sent(|packet| packet.tcp().is_some_and(|tcp| tcp.flags.0 & 0x12 == 0x02)) == Some(true)
    }

    fn is_answered_with_reset(&self) -> bool {
        let [answer] = &self.ours[..] else { return false };
        let mut bytes = answer.packet.clone();
        let Ok(packet) = Packet::parse(&mut bytes, Offload::default()) else { return false };
        self.verdict() == Some(Verdict::Reply) && packet.tcp().is_some_and(|tcp| tcp.flags.0 & 0x04 != 0)
    }

    /// The one answer is ICMP of this type and code, IPv4's or IPv6's.
    fn is_answered_with(&self, v4: u8, code4: u8, v6: u8, code6: u8) -> bool {
        let [answer] = &self.ours[..] else { return false };
        let packet = &answer.packet;
        let matches = if packet[0] >> 4 == 4 {
            packet[9] == 1 && packet[20..22] == [v4, code4]
        } else {
            packet[6] == 58 && packet[40..42] == [v6, code6]
        };
        self.verdict() == Some(Verdict::Reply) && matches
    }

    fn sent_icmp(&self, v4: u8, v6: u8) -> bool {
        let [(_, packet, _)] = &self.sent[..] else { return false };
        if packet[0] >> 4 == 4 { packet[9] == 1 && packet[20] == v4 } else { packet[6] == 58 && packet[40] == v6 }
    }
}

impl Difference {
    /// Nothing differs but what this takes away.
    fn equal_but(&self, without: fn(&Departure) -> Departure) -> bool {
        let rest = |departures: &[Departure]| {
            let mut rest: Vec<Departure> = departures.iter().map(without).collect();
            rest.sort();
            rest
        };
        rest(&self.kernel) == rest(&self.ours)
    }

    /// The gateway sends parameter problems and nothing else, and the kernel but the packets themselves.
    fn problems_only(&self) -> bool {
        let problem = |one: &Departure| one.to == Side::Clients && one.packet[6] == 58 && one.packet[40] == 4;
        self.ours.iter().all(problem) && self.kernel.len() <= 1
    }

    fn sent_hop_by_hop(&self) -> bool {
        self.sent(|packet| packet.bytes()[0] >> 4 == 6 && packet.bytes()[6] == 0) == Some(true)
    }
}

/// The packets, and the datagrams whose fragments are all there, without their identifications.
fn datagrams(departures: &[Departure]) -> Vec<Vec<Departure>> {
    let mut by_id: BTreeMap<Option<u32>, Vec<Departure>> = BTreeMap::new();
    for one in departures {
        by_id.entry(fragment(&one.packet).map(|(id, _, _)| id)).or_default().push(one.clone());
    }
    let mut whole: Vec<Vec<Departure>> = by_id.remove(&None).into_iter().flatten().map(|one| vec![one]).collect();
    whole.extend(by_id.into_values().filter(|pieces| is_whole(pieces)).map(|pieces| {
        let mut pieces: Vec<Departure> = pieces.iter().map(without_fragment_id).collect();
        pieces.sort();
        pieces
    }));
    whole.sort();
    whole
}

fn is_whole(pieces: &[Departure]) -> bool {
    let mut pieces: Vec<_> = pieces.iter().filter_map(|one| fragment(&one.packet)).collect();
    pieces.sort_unstable();
    let gapless = pieces.windows(2).all(|pair| pair[0].1.1 == pair[1].1.0 && pair[0].2);
    pieces.first().is_some_and(|first| first.1.0 == 0) && gapless && pieces.last().is_some_and(|last| !last.2)
}

/// Identification, first byte and the one behind the last, and whether more follow.
fn fragment(packet: &[u8]) -> Option<(u32, (usize, usize), bool)> {
    let mut bytes = packet.to_vec();
    let packet = Packet::parse(&mut bytes, Offload::default()).ok()?;
    let fragment = packet.fragment()?;
    let start = usize::from(fragment.offset);
    Some((fragment.id, (start, start + packet.transport().len()), fragment.more))
}

fn changed(departure: &Departure, change: impl FnOnce(&mut [u8])) -> Departure {
    Departure { to: departure.to, packet: altered(departure.packet.clone(), change) }
}

/// Without DSCP, identification and flags, or flow label.
fn without_marks(departure: &Departure) -> Departure {
    changed(departure, |bytes| {
        if bytes[0] >> 4 == 4 {
            bytes[1] = 0;
            bytes[4..8].fill(0);
        } else {
            bytes[1..4].fill(0);
        }
    })
}

fn without_marks_and_source(departure: &Departure) -> Departure {
    without_error_source(&without_marks(departure))
}

fn without_options(departure: &Departure) -> Departure {
    changed(departure, |bytes| {
        if bytes[0] >> 4 == 4 {
            let end = usize::from(bytes[0] & 15) * 4;
            bytes[20..end].fill(0);
        }
    })
}

/// ICMP's checksum is over it over IPv6, but must be right all the same.
fn without_error_source(departure: &Departure) -> Departure {
    let packet = &departure.packet;
    let (kind, protocol) = if packet[0] >> 4 == 4 { (packet[20], packet[9]) } else { (packet[40], packet[6]) };
    let is_error = matches!((protocol, kind), (1, 3 | 11 | 12) | (58, 1..=4));
    if !is_error || !crate::packets::is_sound(packet) {
        return departure.clone();
    }
    changed(departure, |bytes| {
        if bytes[0] >> 4 == 4 {
            bytes[12..16].fill(0);
        } else {
            bytes[8..24].fill(0);
            bytes[42..44].fill(0);
        }
    })
}

/// Of an error, without what else may differ in it: its source, the checksum of the quoted segment, its own.
fn without_quoted_checksum(departure: &Departure) -> Departure {
    let Departure { to, packet } = without_error_source(departure);
    let quote = if packet[0] >> 4 == 4 { 20 + 8 } else { 40 + 8 };
    let transport = quote + if packet[0] >> 4 == 4 { 20 } else { 40 };
    let is_cut_tcp = matches!(packet.len().checked_sub(transport), Some(18 | 19));
    changed(&Departure { to, packet }, |bytes| {
        if is_cut_tcp {
            bytes[quote - 6..quote - 4].fill(0);
            bytes[transport + 16..transport + 18].fill(0);
        }
    })
}

fn without_fragment_id(departure: &Departure) -> Departure {
    let mut bytes = departure.packet.clone();
    if let Ok(mut packet) = Packet::parse(&mut bytes, Offload::default()) {
        packet.set_fragment_id(0);
    }
    Departure { to: departure.to, packet: bytes }
}

/// Without the fragment header of an atomic fragment, if it is the last header of the chain.
fn without_fragment_header(departure: &Departure) -> Departure {
    let bytes = &departure.packet;
    let mut at = 6;
    let mut next = 40;
    while bytes[0] >> 4 == 6 && matches!(bytes[at], 0 | 43 | 60) {
        at = next;
        next += 8 + usize::from(bytes[next + 1]) * 8;
    }
    if bytes[0] >> 4 != 6 || bytes[at] != 44 {
        return departure.clone();
    }
    let mut rest = [&bytes[..next], &bytes[next + 8..]].concat();
    rest[at] = bytes[next];
    Departure { to: departure.to, packet: with_length(rest) }
}
