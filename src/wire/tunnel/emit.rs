//! Into the tunnel: one packet, or a super-packet, becomes the outer packets that leave.

use super::LEAST_V6;
use super::outer::{Cut, Outer};
use crate::wire::{Family, Packet, checksum, segment};

/// Memory for headers, kept between packets so that none is allocated for each.
#[derive(Debug, Default)]
pub struct Scratch {
    segment: Vec<u8>,
    headers: Vec<u8>,
    fragment: Vec<u8>,
}

/// Calls `send` with each outer packet in two pieces, headers and payload, in order; all checksums are complete. The
/// payload is where it was: a super-packet is cut, and a packet that is too big fragmented, without copying it.
///
/// # Panics
/// The packet has not been [put into a tunnel](Packet::enter).
pub fn emit(packet: &mut Packet<'_>, scratch: &mut Scratch, mut send: impl FnMut(&[u8], &[u8])) {
    let mut entry = *packet.tunnel().expect("it was put into a tunnel");
    let (inner, traffic_class) = (packet.family(), packet.traffic_class());
    let Scratch { segment, headers, fragment } = scratch;
    segment::cut(packet, segment, |head, payload| {
        let outer = Outer { entry: &entry, inner, traffic_class, may_fragment: false };
        if head.len() + payload.len() <= usize::from(entry.tunnel.room(entry.path_mtu)) {
            wrap(&outer, [head, payload], headers, &mut send);
        } else if inner == Family::V6 {
            debug_assert!(head.len() + payload.len() <= usize::from(LEAST_V6), "its sender was told");
            wrap_in_pieces(&outer, [head, payload], (headers, fragment), &mut send);
            entry.id = entry.id.wrapping_add(1);
        } else {
            fragment.clear();
            fragment.extend(head);
            fragment.extend(payload);
            wrap_fragments(&outer, fragment, headers, &mut send);
        }
    });
}

/// The packets that leave for one that is to be forwarded, wrapped or not: for captures and listings, which have time.
pub fn leaving(packet: &mut Packet<'_>) -> Vec<Vec<u8>> {
    if packet.tunnel().is_none() {
        return vec![packet.bytes().to_vec()];
    }
    let mut packets = Vec::new();
    emit(packet, &mut Scratch::default(), |headers, payload| packets.push([headers, payload].concat()));
    packets
}

/// One packet, one outer packet. Its headers are copied behind the outer ones, which are a whole number of words.
fn wrap(outer: &Outer<'_>, [head, payload]: [&[u8]; 2], headers: &mut Vec<u8>, send: &mut impl FnMut(&[u8], &[u8])) {
    let shim = usize::from(outer.entry.tunnel.encapsulation.shim());
    headers.clear();
    outer.push_ip(shim + head.len() + payload.len(), None, headers);
    outer.push_shim([head, payload], headers);
    headers.extend(head);
    send(headers, payload);
}

/// R101: an IPv6 packet that nobody may send smaller, on a path that takes even less. Over IPv4, routers cut the outer
/// packet where they must; over IPv6 its source does.
fn wrap_in_pieces(
    outer: &Outer<'_>,
    packet: [&[u8]; 2],
    (headers, whole): (&mut Vec<u8>, &mut Vec<u8>),
    send: &mut impl FnMut(&[u8], &[u8]),
) {
    if outer.entry.tunnel.family() == Family::V4 {
        return wrap(&Outer { may_fragment: true, ..*outer }, packet, headers, send);
    }
    whole.clear();
    outer.push_shim(packet, whole);
    whole.extend(packet[0]);
    whole.extend(packet[1]);
    let most = usize::from(outer.entry.path_mtu).saturating_sub(48) / 8 * 8;
    for (n, piece) in whole.chunks(most).enumerate() {
        let offset = u16::try_from(n * most).expect("of a packet of 1280 bytes");
        headers.clear();
        outer.push_ip(piece.len(), Some(Cut { offset, more: n * most + piece.len() < whole.len() }), headers);
        send(headers, piece);
    }
}

/// R99: the packet itself is cut, each fragment leaves wrapped. A fragment may be cut again.
fn wrap_fragments(outer: &Outer<'_>, packet: &[u8], headers: &mut Vec<u8>, send: &mut impl FnMut(&[u8], &[u8])) {
    let header_len = usize::from(packet[0] & 15) * 4;
    let (header, payload) = packet.split_at(header_len);
    let most = (usize::from(outer.entry.tunnel.room(outer.entry.path_mtu)) - header_len) / 8 * 8;
    let flags_offset = u16::from_be_bytes([header[6], header[7]]);
    let mut copy = [0; 60];
    let copy = &mut copy[..header_len];
    for (n, piece) in payload.chunks(most).enumerate() {
        copy.copy_from_slice(header);
        if n > 0 {
            blank_first_options(&mut copy[20..]);
        }
        let last = n * most + piece.len() == payload.len();
        let more = if last { flags_offset & MORE } else { MORE };
        let offset = u16::try_from(n * most / 8).expect("of an IPv4 packet");
        let word = ((flags_offset & !MORE) + offset) | more;
        copy[2..4].copy_from_slice(&u16::try_from(header_len + piece.len()).expect("of an IPv4 packet").to_be_bytes());
        copy[6..8].copy_from_slice(&word.to_be_bytes());
        copy[10..12].fill(0);
        let sum = !checksum::sum(copy);
        copy[10..12].copy_from_slice(&sum.to_be_bytes());
        wrap(outer, [copy, piece], headers, send);
    }
}

/// The flag of a fragment behind which there are others.
const MORE: u16 = 0x2000;

/// Options without the copied flag belong to the first fragment alone (RFC 791 3.1): in the others there is nothing.
fn blank_first_options(mut options: &mut [u8]) {
    const NOTHING: u8 = 1;
    while let [kind, len, ..] = *options {
        let len = match kind {
            0 => return,
            NOTHING => 1,
            _ => usize::from(len).clamp(2, options.len()),
        };
        let (option, rest) = options.split_at_mut(len);
        if kind & 0x80 == 0 {
            option.fill(NOTHING);
        }
        options = rest;
    }
}
