//! What the sender of a broken IPv6 packet is told: a parameter problem that points at what is wrong (RFC 8200 4.4, 4.5).

use super::icmp::{self, Error};
use super::ip::{self, FRAGMENT, Family, MAX_EXTENSIONS, ROUTING, V6_LEN, is_extension};
use super::{Address, Protocol};

/// A fault of an IPv6 packet that its sender is to be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Problem<'a> {
    packet: &'a [u8],
    /// Whom the packet was for: the error comes from there.
    pub destination: Address,
    /// Whom the error goes to.
    pub sender: Address,
    error: Error,
}

impl<'a> Problem<'a> {
    /// Looks for such a fault in the bytes of a packet that was refused; `None` if there is none, if the packet is IPv4,
    /// or if no error may be sent about it (R9). The RFC wants to hear of a later fragment, too.
    pub fn find(bytes: &'a [u8]) -> Option<Self> {
        let header = bytes.first_chunk::<V6_LEN>().filter(|header| header[0] >> 4 == 6)?;
        let len = V6_LEN + usize::from(u16::from_be_bytes([header[4], header[5]]));
        let packet = bytes.get(..len)?;
        let (sender, destination) = ip::addresses(Family::V6, packet);
        if [sender, destination].iter().any(|address| address.is_v4() || !address.is_host()) {
            return None;
        }
        let (code, pointer) = fault(packet)?;
        Some(Self { packet, destination, sender, error: Error::ParameterProblem { code, pointer } })
    }

    /// The error, quoting as much of the packet as fits 1280 bytes.
    pub fn answer(&self) -> Vec<u8> {
        let message = icmp::quoting(self.error, Family::V6, self.packet);
        super::build::icmp(self.destination, self.sender, message)
    }
}

/// RFC 8200 4.4, 4.5: a field that makes no sense.
const ERRONEOUS: u8 = 0;
/// RFC 7112 5: the first fragment does not hold the whole header chain.
const INCOMPLETE_CHAIN: u8 = 3;

/// Code and pointer of the first fault in the chain of extension headers; none if it carries an ICMPv6 error.
fn fault(packet: &[u8]) -> Option<(u8, u32)> {
    let (mut kind, mut at) = (packet[6], V6_LEN);
    let (mut found, mut first_fragment) = (None, false);
    for _ in 0..MAX_EXTENSIONS {
        if !is_extension(kind) {
            break;
        }
        let Some(header) = packet.get(at..).and_then(<[u8]>::first_chunk::<8>) else {
            return found.or(first_fragment.then_some((INCOMPLETE_CHAIN, 0)));
        };
        let payload = packet.len() - at - header.len();
        found = found.or(match kind {
            ROUTING => (header[3] != 0).then(|| (ERRONEOUS, pointer(at + 2))), // the type: we know none
            FRAGMENT => fragment_fault(header, at, payload),
            _ => None,
        });
        if kind == FRAGMENT {
            let word = u16::from_be_bytes([header[2], header[3]]);
            if word & !7 != 0 {
                return found; // in the middle of a datagram, where no headers are
            }
            first_fragment = word & 1 != 0;
        }
        at += if kind == FRAGMENT { 8 } else { (usize::from(header[1]) + 1) * 8 };
        kind = header[0];
    }
    let upper = packet.get(at..);
    if Protocol(kind) == Protocol::ICMPV6 && upper.and_then(<[u8]>::first).is_some_and(|kind| is_error(*kind)) {
        return None;
    }
    let whole = upper.is_some_and(|upper| is_extension(kind) || holds_header(Protocol(kind), upper));
    found.or((first_fragment && !whole).then_some((INCOMPLETE_CHAIN, 0)))
}

/// What is wrong with the length or the place of a fragment whose header stands at `at`.
fn fragment_fault(header: &[u8; 8], at: usize, payload: usize) -> Option<(u8, u32)> {
    const PAYLOAD_LENGTH: u32 = 4;
    let word = u16::from_be_bytes([header[2], header[3]]);
    if word & 1 != 0 && !payload.is_multiple_of(8) {
        return Some((ERRONEOUS, PAYLOAD_LENGTH));
    }
    let end = at - V6_LEN + usize::from(word & !7) + payload;
    (end > 0xffff).then(|| (ERRONEOUS, pointer(at + 2))) // the fragment offset
}

/// Whether the bytes hold the whole header of this protocol. What we do not know has a header of no length.
fn holds_header(protocol: Protocol, upper: &[u8]) -> bool {
    match protocol {
        Protocol::TCP => upper.get(12).is_some_and(|offset| upper.len() >= 20.max(usize::from(offset >> 4) * 4)),
        Protocol::UDP | Protocol::ICMPV6 => upper.len() >= 8,
        _ => true,
    }
}

/// RFC 4443 2.4: errors, and redirects, get no error in answer.
const fn is_error(kind: u8) -> bool {
    kind < 128 || kind == 137
}

fn pointer(at: usize) -> u32 {
    u32::try_from(at).expect("within an IP packet")
}
