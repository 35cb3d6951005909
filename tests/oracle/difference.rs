//! What differs between the two gateways, and what is left of it when something is taken away.

use std::collections::{BTreeMap, BTreeSet};

use tungate::engine::conntrack::State;
use tungate::engine::{DropReason, Verdict};
use tungate::wire::{Offload, Packet, Protocol};

use crate::history::Earlier;
use crate::packets::{is_sound, with_length};
use crate::pair::{Departure, Side};
use crate::support::altered;

/// What both have done, where that is not the same.
#[derive(Debug)]
pub(crate) struct Difference {
    /// As it came to the engine, and what that did with it.
    pub(crate) sent: Vec<(Side, Vec<u8>, Verdict)>,
    /// Where tungate thought the connection to stand before.
    pub(crate) state: Option<State>,
    /// A segment of it begins beyond what its receiver has allowed.
    pub(crate) is_beyond: bool,
    /// What the two may have understood differently, now or earlier.
    pub(crate) earlier: BTreeSet<Earlier>,
    pub(crate) kernel: Vec<Departure>,
    pub(crate) ours: Vec<Departure>,
}

impl Difference {
    /// What the engine did with the packet, if it was one.
    pub(super) fn verdict(&self) -> Option<Verdict> {
        if let [(_, _, verdict)] = self.sent[..] { Some(verdict) } else { None }
    }

    pub(super) fn is_forwarded(&self) -> bool {
        self.verdict() == Some(Verdict::Forward)
    }

    /// One of the two sends it as it should, and the other does not.
    pub(super) fn one_drops(&self) -> bool {
        self.kernel.is_empty() != self.ours.is_empty() && !self.is_answered()
    }

    /// It is forwarded, whole or in pieces.
    pub(super) fn passes(&self) -> bool {
        !self.ours.is_empty() && !self.is_answered()
    }

    pub(super) fn is_dropped(&self, reason: DropReason) -> bool {
        self.ours.is_empty() && self.sent.iter().any(|(_, _, verdict)| *verdict == Verdict::Drop(reason))
    }

    /// What came, if it was one packet, or all fragments of one, and passes the door.
    pub(super) fn sent<T>(&self, look: impl FnOnce(&Packet<'_>) -> T) -> Option<T> {
        let mut bytes = match &self.sent[..] {
            [(_, packet, _)] => packet.clone(),
            several => reassembled(several.iter().map(|(_, packet, _)| packet))?,
        };
        Packet::parse(&mut bytes, Offload::default()).ok().as_ref().map(look)
    }

    pub(super) fn is_unsound(&self) -> bool {
        self.sent(|packet| !packet.transport_checksum_ok()) == Some(true)
    }

    pub(super) fn has_surplus(&self) -> bool {
        let surplus = |packet: &Packet<'_>| {
            let datagram = packet.transport();
            packet.protocol() == Protocol::UDP
                && usize::from(u16::from_be_bytes([datagram[4], datagram[5]])) < datagram.len()
        };
        self.sent(surplus) == Some(true)
    }

    /// A segment with all of these flags came.
    pub(super) fn has_flags(&self, flags: u8) -> bool {
        self.sent.iter().any(|(_, packet, _)| flags_of(packet).is_some_and(|got| got & flags == flags))
    }

    pub(super) fn is_syn(&self) -> bool {
        self.sent.iter().any(|(_, packet, _)| flags_of(packet).is_some_and(|got| got & 0x12 == 0x02))
    }

    /// The gateway has answered something that came.
    pub(super) fn is_answered(&self) -> bool {
        self.sent.iter().any(|(_, _, verdict)| *verdict == Verdict::Reply)
    }

    pub(super) fn is_answered_with_reset(&self) -> bool {
        let [answer] = &self.ours[..] else { return false };
        let mut bytes = answer.packet.clone();
        let Ok(packet) = Packet::parse(&mut bytes, Offload::default()) else { return false };
        self.is_answered() && packet.tcp().is_some_and(|tcp| tcp.flags.0 & 0x04 != 0)
    }

    /// The one answer is ICMP of this type and code, IPv4's or IPv6's.
    pub(super) fn is_answered_with(&self, v4: u8, code4: u8, v6: u8, code6: u8) -> bool {
        let [answer] = &self.ours[..] else { return false };
        let packet = &answer.packet;
        let matches = if packet[0] >> 4 == 4 {
            packet[9] == 1 && packet[20..22] == [v4, code4]
        } else {
            packet[6] == 58 && packet[40..42] == [v6, code6]
        };
        self.is_answered() && matches
    }

    pub(super) fn sent_icmp(&self, v4: u8, v6: u8) -> bool {
        let kind = |packet: &Packet<'_>| match packet.protocol() {
            Protocol::ICMP => packet.transport()[0] == v4,
            Protocol::ICMPV6 => packet.transport()[0] == v6,
            _ => false,
        };
        self.sent(kind) == Some(true)
    }
}

impl Difference {
    /// Nothing differs but what this takes away.
    pub(super) fn equal_but(&self, without: fn(&Departure) -> Departure) -> bool {
        let rest = |departures: &[Departure]| {
            let mut rest: Vec<Departure> = departures.iter().map(without).collect();
            rest.sort();
            rest
        };
        rest(&self.kernel) == rest(&self.ours)
    }

    /// The gateway sends parameter problems and nothing else, and the kernel but the packets themselves.
    pub(super) fn problems_only(&self) -> bool {
        let problem = |one: &Departure| one.to == Side::Clients && one.packet[6] == 58 && one.packet[40] == 4;
        self.ours.iter().all(problem) && self.kernel.len() <= 1
    }

    pub(super) fn sent_hop_by_hop(&self) -> bool {
        self.sent(|packet| packet.bytes()[0] >> 4 == 6 && packet.bytes()[6] == 0) == Some(true)
    }
}

/// The packets, and the datagrams whose fragments are all there, without their identifications.
pub(super) fn datagrams(departures: &[Departure]) -> Vec<Vec<Departure>> {
    let mut by_id: BTreeMap<Option<u32>, Vec<Departure>> = BTreeMap::new();
    for one in departures {
        by_id.entry(fragment(&one.packet).map(|(id, _, _)| id)).or_default().push(one.clone());
    }
    let mut whole: Vec<Vec<Departure>> = by_id.remove(&None).into_iter().flatten().map(|one| vec![one]).collect();
    for pieces in by_id.into_values() {
        let mut pieces: Vec<Departure> = pieces.iter().map(without_fragment_id).collect();
        pieces.sort();
        whole.extend(one_datagram(&pieces));
    }
    whole.sort();
    whole
}

/// The datagram that is among the pieces, as often as all of it is there; what else is there counts for nothing.
fn one_datagram(pieces: &[Departure]) -> Vec<Vec<Departure>> {
    let chain = chain(pieces, 0).unwrap_or_default();
    let copies = chain.iter().map(|one| pieces.iter().filter(|other| *other == one).count()).min().unwrap_or_default();
    vec![chain; copies]
}

/// Pieces that follow each other from this byte on to the last.
fn chain(pieces: &[Departure], from: usize) -> Option<Vec<Departure>> {
    pieces.iter().find_map(|one| {
        let (_, range, more) = fragment(&one.packet).filter(|(_, range, _)| range.0 == from)?;
        let rest = if more { chain(pieces, range.1)? } else { Vec::new() };
        Some([vec![one.clone()], rest].concat())
    })
}

/// All that arrives of packets and fragments, put together, without the fragment headers.
pub(super) fn arriving(departures: &[Departure]) -> Vec<Departure> {
    let whole = datagrams(departures).into_iter().filter_map(|pieces| match &pieces[..] {
        [one] => Some(one.clone()),
        pieces => {
            let packet = reassembled(pieces.iter().map(|one| &one.packet))?;
            Some(without_fragment_header(&Departure { to: pieces[0].to, packet }))
        }
    });
    let mut whole: Vec<Departure> = whole.collect();
    whole.sort();
    whole
}

/// The datagram that these fragments are, if they are all there.
fn reassembled<'a>(packets: impl Iterator<Item = &'a Vec<u8>>) -> Option<Vec<u8>> {
    let mut pieces: Vec<_> = packets.filter_map(|packet| Some((fragment(packet)?.1, packet))).collect();
    pieces.sort();
    if fragment(pieces.last()?.1)?.2 {
        return None;
    }
    pieces.dedup_by_key(|(range, _)| *range);
    let mut bytes = pieces.first()?.1.clone();
    let header = bytes.len() - (pieces[0].0.1 - pieces[0].0.0);
    for ((start, end), packet) in &pieces[1..] {
        if bytes.len() != header + start || header + end > 0xffff {
            return None;
        }
        bytes.extend(&packet[packet.len().checked_sub(end - start)?..]);
    }
    if bytes[0] >> 4 == 4 {
        bytes[6..8].fill(0);
    } else {
        bytes[header - 6..header - 4].fill(0); // an atomic fragment
    }
    Some(with_length(bytes))
}

pub(super) fn flags_of(packet: &[u8]) -> Option<u8> {
    let mut bytes = packet.to_vec();
    Some(Packet::parse(&mut bytes, Offload::default()).ok()?.tcp()?.flags.0)
}

pub(super) fn is_option_problem(packet: &[u8]) -> bool {
    let header = usize::from(packet[0] & 15) * 4;
    packet[0] >> 4 == 4 && packet[9] == 1 && packet[header..header + 2] == [12, 0]
}

pub(super) fn is_time_exceeded(packet: &[u8]) -> bool {
    if packet[0] >> 4 == 4 { packet[9] == 1 && packet[20] == 11 } else { packet[6] == 58 && packet[40] == 3 }
}

/// Identification, first byte and the one behind the last, and whether more follow.
pub(super) fn fragment(packet: &[u8]) -> Option<(u32, (usize, usize), bool)> {
    let mut bytes = packet.to_vec();
    let packet = Packet::parse(&mut bytes, Offload::default()).ok()?;
    let fragment = packet.fragment()?;
    let start = usize::from(fragment.offset);
    Some((fragment.id, (start, start + packet.transport().len()), fragment.more))
}

pub(super) fn changed(departure: &Departure, change: impl FnOnce(&mut [u8])) -> Departure {
    Departure { to: departure.to, packet: altered(departure.packet.clone(), change) }
}

/// Without DSCP, identification and flags, or flow label.
pub(super) fn without_marks(departure: &Departure) -> Departure {
    changed(departure, |bytes| {
        if bytes[0] >> 4 == 4 {
            bytes[1] = 0;
            bytes[4..8].fill(0);
        } else {
            bytes[1..4].fill(0);
        }
    })
}

pub(super) fn without_marks_and_source(departure: &Departure) -> Departure {
    without_error_source(&without_marks(departure))
}

pub(super) fn without_options(departure: &Departure) -> Departure {
    changed(departure, |bytes| {
        if bytes[0] >> 4 == 4 {
            let end = usize::from(bytes[0] & 15) * 4;
            bytes[20..end].fill(0);
        }
    })
}

/// ICMP's checksum is over it over IPv6, but must be right all the same.
pub(super) fn without_error_source(departure: &Departure) -> Departure {
    let packet = &departure.packet;
    let (kind, protocol) = if packet[0] >> 4 == 4 { (packet[20], packet[9]) } else { (packet[40], packet[6]) };
    let is_error = matches!((protocol, kind), (1, 3 | 11 | 12) | (58, 1..=4));
    if !is_error || !is_sound(packet) {
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
pub(super) fn without_quoted_checksum(departure: &Departure) -> Departure {
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

pub(super) fn without_fragment_id(departure: &Departure) -> Departure {
    let mut bytes = departure.packet.clone();
    if let Ok(mut packet) = Packet::parse(&mut bytes, Offload::default()) {
        packet.set_fragment_id(0);
    }
    Departure { to: departure.to, packet: bytes }
}

pub(super) fn without_df(departure: &Departure) -> Departure {
    changed(departure, |bytes| {
        if bytes[0] >> 4 == 4 {
            bytes[6] &= !0x40;
        }
    })
}

/// Without the fragment header of an atomic fragment, if it is the last header of the chain.
pub(super) fn without_fragment_header(departure: &Departure) -> Departure {
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
