//! The outer headers.

use super::{Encapsulation, Entry, GUE_PORT};
use crate::wire::{Family, Protocol, build, checksum};

const V6_FRAGMENT: u8 = 44;

/// What differs from packet to packet in the outer headers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outer<'a> {
    pub(super) entry: &'a Entry,
    /// Family of the packet inside.
    pub(super) inner: Family,
    /// Its TOS or traffic class, of which the outer header has a copy (R94, R95).
    pub(super) traffic_class: u8,
    /// Whether a router may cut the outer packet: only if the path takes less than everybody may send (R98, R101).
    pub(super) may_fragment: bool,
}

/// Where a piece of an outer packet belongs that the gateway itself has cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    pub(super) offset: u16,
    pub(super) more: bool,
}

impl Outer<'_> {
    /// Appends the outer IP header for so many bytes behind it. A piece has a fragment header, too: IPv6 alone is cut
    /// here, IPv4 by whatever router finds it too big.
    pub(super) fn push_ip(&self, len: usize, cut: Option<Cut>, out: &mut Vec<u8>) {
        let protocol = self.entry.tunnel.encapsulation.protocol(self.inner);
        match self.entry.tunnel.family() {
            Family::V4 => self.push_v4(protocol, len, out),
            Family::V6 => self.push_v6(protocol, len, cut, out),
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "checked against a path MTU of 16 bits, or below 1280 + 60")]
    fn push_v4(&self, protocol: Protocol, len: usize, out: &mut Vec<u8>) {
        let at = out.len();
        let total = (20 + len) as u16;
        // RFC 6864 4.1: the identification of an atomic datagram means nothing (R97).
        let (id, flags) = if self.may_fragment { (self.entry.id as u16, 0) } else { (0, 0x40) };
        out.extend([0x45, self.traffic_class]);
        out.extend(total.to_be_bytes());
        out.extend(id.to_be_bytes());
        out.extend([flags, 0, build::TTL, protocol.0, 0, 0]);
        out.extend(self.entry.tunnel.source.v4_octets());
        out.extend(self.entry.tunnel.destination.v4_octets());
        let sum = !checksum::sum(&out[at..]);
        out[at + 10..at + 12].copy_from_slice(&sum.to_be_bytes());
    }

    #[expect(clippy::cast_possible_truncation, reason = "checked against a path MTU of 16 bits")]
    fn push_v6(&self, protocol: Protocol, len: usize, cut: Option<Cut>, out: &mut Vec<u8>) {
        let first = 6 << 28 | u32::from(self.traffic_class) << 20 | u32::from(self.entry.entropy);
        let (next, len) = if cut.is_some() { (V6_FRAGMENT, len + 8) } else { (protocol.0, len) };
        out.extend(first.to_be_bytes());
        out.extend((len as u16).to_be_bytes());
        out.extend([next, build::TTL]);
        out.extend(self.entry.tunnel.source.octets());
        out.extend(self.entry.tunnel.destination.octets());
        if let Some(cut) = cut {
            out.extend([protocol.0, 0]);
            out.extend((cut.offset | u16::from(cut.more)).to_be_bytes());
            out.extend(self.entry.id.to_be_bytes());
        }
    }

    /// Appends what stands between the outer IP header and the packet, which lies in these pieces.
    pub(super) fn push_shim(&self, packet: [&[u8]; 2], out: &mut Vec<u8>) {
        match self.entry.tunnel.encapsulation {
            Encapsulation::Ipip => {}
            // R89, R91: no option but a key that is configured, version 0. A Linux tunnel without key and checksum takes exactly this (R92).
            Encapsulation::Gre => self.push_gre(0, out),
            Encapsulation::KeyedGre(key) => {
                self.push_gre(0x20, out);
                out.extend(key.to_be_bytes());
            }
            Encapsulation::Gue => self.push_gue(packet, out),
        }
    }

    fn push_gre(&self, flags: u8, out: &mut Vec<u8>) {
        out.extend(match self.inner {
            Family::V4 => [flags, 0, 0x08, 0x00],
            Family::V6 => [flags, 0, 0x86, 0xdd],
        });
    }

    #[expect(clippy::cast_possible_truncation, reason = "checked against a path MTU of 16 bits")]
    fn push_gue(&self, packet: [&[u8]; 2], out: &mut Vec<u8>) {
        let at = out.len();
        let len = (12 + packet[0].len() + packet[1].len()) as u16;
        // In the dynamic range, so that no other service's answers are mistaken for ours.
        out.extend((self.entry.entropy | 0xc000).to_be_bytes());
        out.extend(GUE_PORT.to_be_bytes());
        out.extend(len.to_be_bytes());
        out.extend([0, 0]);
        out.extend([0, Encapsulation::Ipip.protocol(self.inner).0, 0, 0]);
        // Over IPv4 the packet's own checksums are enough; IPv6 wants one (RFC 8200 8.1).
        if self.entry.tunnel.family() == Family::V6 {
            let tunnel = &self.entry.tunnel;
            let pseudo = checksum::pseudo_header(tunnel.source, tunnel.destination, Protocol::UDP, usize::from(len));
            // The first piece is a whole number of words, so the sums of the pieces add up.
            let sum = [&out[at..], packet[0], packet[1]].map(checksum::sum).into_iter().fold(pseudo, checksum::add);
            let sum = if !sum == 0 { 0xffff } else { !sum };
            out[at + 6..at + 8].copy_from_slice(&sum.to_be_bytes());
        }
    }
}
