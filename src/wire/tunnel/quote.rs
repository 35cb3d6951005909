//! What an ICMP error from inside a tunnel says: it quotes an outer packet of ours, and in it the packet of a client.

use super::{Encapsulation, GUE_PORT, LEAST_V6, Tunnel, exit};
use crate::wire::{Endpoint, Family, IpHeader, Packet, Protocol, icmp, ip};

/// An outer packet, as far as it was quoted.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'q> {
    /// The tunnel that it was in.
    pub tunnel: Tunnel,
    /// The packet inside, if enough of it is there.
    pub inner: Option<Inner<'q>>,
}

/// The start of a packet inside a quoted one.
#[derive(Clone, Copy, Debug)]
pub struct Inner<'q> {
    /// From its IP header on.
    pub bytes: &'q [u8],
    /// Its IP header.
    pub header: IpHeader,
    /// Its source; port 0 if its protocol has none.
    pub source: Endpoint,
    /// Its destination; so, too.
    pub destination: Endpoint,
}

/// Reads an ICMP error about a packet in a tunnel; `None` if it is about anything else.
pub fn quoted<'q>(error: &'q Packet<'_>) -> Option<Quoted<'q>> {
    let (header, bytes) = icmp::quoted(error).ok()?;
    if header.fragment.is_some_and(|fragment| fragment.offset != 0) {
        return None;
    }
    let (source, destination) = ip::addresses(header.family, bytes);
    let payload = bytes.get(usize::from(header.payload)..)?;
    let encapsulation = match header.protocol {
        Protocol::GRE => exit::gre_as_sent(payload),
        Protocol::IPV4 | Protocol::IPV6 => Encapsulation::Ipip,
        Protocol::UDP if payload.get(2..4) == Some(&GUE_PORT.to_be_bytes()) => Encapsulation::Gue,
        _ => return None,
    };
    let inner = payload.get(usize::from(encapsulation.shim())..).and_then(inner);
    Some(Quoted { tunnel: Tunnel { encapsulation, source, destination }, inner })
}

fn inner(bytes: &[u8]) -> Option<Inner<'_>> {
    let header = IpHeader::parse_quote(bytes).ok()?;
    if header.fragment.is_some_and(|fragment| fragment.offset != 0) {
        return None;
    }
    let bytes = &bytes[..bytes.len().min(header.total_len as usize)];
    let (source, destination) = ip::addresses(header.family, bytes);
    let ports = if matches!(header.protocol, Protocol::TCP | Protocol::UDP) {
        *bytes.get(usize::from(header.payload)..)?.first_chunk::<4>()?
    } else {
        [0; 4]
    };
    Some(Inner {
        bytes,
        header,
        source: Endpoint::new(source, u16::from_be_bytes([ports[0], ports[1]])),
        destination: Endpoint::new(destination, u16::from_be_bytes([ports[2], ports[3]])),
    })
}

impl Inner<'_> {
    /// Its endpoints and protocol: the key of its flow.
    pub fn key(&self) -> (Endpoint, Endpoint, Protocol) {
        (self.source, self.destination, self.header.protocol)
    }

    /// The MTU that its sender is to be told if no more than `room` bytes pass: `None` if he need not send less, because
    /// it fits, or because it may be cut.
    pub fn too_big_for(&self, room: u16) -> Option<u16> {
        let mtu = match self.header.family {
            Family::V4 if self.bytes[6] & 0x40 == 0 => return None,
            Family::V4 => room,
            Family::V6 => room.max(LEAST_V6),
        };
        (self.header.total_len > u32::from(mtu)).then_some(mtu)
    }
}
