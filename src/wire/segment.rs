//! Cuts a super-packet into the packets it stands for, as the kernel's GSO would: for kernels that refuse a GSO write,
//! for captures, and for tunnels that no offload knows.

use super::{Checksum, Family, Gso, Packet, Protocol, TcpFlags, checksum};

/// Calls `emit` with each packet, in order, in two pieces that belong together: its headers, put together in `buffer`
/// (which is kept between calls), and its payload, which stays where it is. Checksums are complete. A packet that is no
/// super-packet comes out as it is, all of it in the second piece, its checksum completed.
pub fn cut(packet: &mut Packet<'_>, buffer: &mut Vec<u8>, mut emit: impl FnMut(&[u8], &[u8])) {
    if packet.offload().gso == Gso::None {
        packet.complete_checksum();
        emit(&[], packet.bytes());
        return;
    }
    let headers = usize::from(packet.offload().header_len);
    let size = usize::from(packet.offload().segment_size);
    let count = packet.segments();
    for n in 0..count {
        let from = headers + n * size;
        let to = (from + size).min(packet.bytes().len());
        buffer.clear();
        buffer.extend(&packet.bytes()[..headers]);
        let payload = &packet.bytes()[from..to];
        finish(packet, buffer, payload, (n, n + 1 == count));
        emit(buffer, payload);
    }
}

/// Makes a copy of the super-packet's headers those of a packet of its own, the nth, with this payload.
#[expect(clippy::cast_possible_truncation, reason = "a super-packet and its pieces are below 64 KiB")]
fn finish(packet: &Packet<'_>, bytes: &mut [u8], payload: &[u8], (n, last): (usize, bool)) {
    let at = usize::from(packet.header().payload);
    let len = bytes.len() + payload.len();
    match packet.family() {
        Family::V4 => {
            bytes[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            let id = u16::from_be_bytes([bytes[4], bytes[5]]).wrapping_add(n as u16);
            bytes[4..6].copy_from_slice(&id.to_be_bytes());
            bytes[10..12].fill(0);
            let sum = !checksum::sum(&bytes[..at]);
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        Family::V6 => bytes[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes()),
    }
    let transport = &mut bytes[at..];
    let field = if packet.protocol() == Protocol::UDP {
        let len = (transport.len() + payload.len()) as u16;
        transport[4..6].copy_from_slice(&len.to_be_bytes());
        if transport[6..8] == [0, 0] && !matches!(packet.offload().checksum, Checksum::Partial { .. }) {
            return; // No checksum is no checksum in every datagram (R21).
        }
        6
    } else {
        cut_tcp(transport, n, usize::from(packet.offload().segment_size), last);
        16
    };
    transport[field..field + 2].fill(0);
    let (source, destination) = packet.addresses();
    let pseudo = checksum::pseudo_header(source, destination, packet.protocol(), transport.len() + payload.len());
    // A transport header is a whole number of words: the sums of both pieces add up.
    let sum = !checksum::add(pseudo, checksum::add(checksum::sum(transport), checksum::sum(payload)));
    let sum = if field == 6 && sum == 0 { 0xffff } else { sum };
    transport[field..field + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Sequence number and flags of the nth segment: FIN and PSH belong to the last, CWR to the first (RFC 3168 6.1.2).
#[expect(clippy::cast_possible_truncation, reason = "sequence numbers wrap")]
fn cut_tcp(header: &mut [u8], n: usize, size: usize, last: bool) {
    const CWR: u8 = 0x80;
    let seq = u32::from_be_bytes([header[4], header[5], header[6], header[7]]).wrapping_add((n * size) as u32);
    header[4..8].copy_from_slice(&seq.to_be_bytes());
    if !last {
        header[13] &= !(TcpFlags::FIN.0 | TcpFlags::PSH.0);
    }
    if n > 0 {
        header[13] &= !CWR;
    }
}
