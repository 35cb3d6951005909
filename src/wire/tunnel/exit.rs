//! Out of the tunnel, for a backend whose kernel cannot do it.

use super::Encapsulation;
use crate::wire::{Family, IpHeader, Malformed, Protocol, checksum};

/// Why a tunnelled packet is not taken apart (R93, R96).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Shorter than its headers say.
    Truncated,
    /// A version of GRE or GUE that is not ours.
    Version,
    /// GRE flags that RFC 2784 2.3 forbids (routing, and the two behind sequence), or GUE flags and options.
    Flags,
    /// Another GRE key than the tunnel's, or one where it has none.
    Key,
    /// The GRE checksum is wrong.
    Checksum,
    /// Neither IPv4 nor IPv6 inside, or another one than the header says.
    Protocol,
    /// The packet inside is no IP packet that a router would forward.
    Inner(Malformed),
    /// A router has marked congestion on a packet whose sender cannot hear of it (RFC 6040 4.2).
    Congestion,
}

/// The packet inside. `payload` lies behind the outer IP header (GRE, IP in IP), or behind the UDP header (GUE); `outer`
/// is the protocol of the outer IP header.
///
/// # Errors
/// [`Refused`].
pub fn open(encapsulation: Encapsulation, outer: Protocol, payload: &mut [u8]) -> Result<&mut [u8], Refused> {
    let (family, at) = match encapsulation {
        Encapsulation::Gre => gre(payload, None)?,
        Encapsulation::KeyedGre(key) => gre(payload, Some(key))?,
        Encapsulation::Gue => gue(payload)?,
        Encapsulation::Ipip => (family(outer).ok_or(Refused::Protocol)?, 0),
    };
    let inner = payload.get_mut(at..).ok_or(Refused::Truncated)?;
    let header = IpHeader::parse(inner).map_err(Refused::Inner)?;
    if header.family != family {
        return Err(Refused::Protocol);
    }
    Ok(&mut inner[..header.total_len as usize])
}

/// What a next-header number of IP in IP stands for.
const fn family(protocol: Protocol) -> Option<Family> {
    match protocol {
        Protocol::IPV4 => Some(Family::V4),
        Protocol::IPV6 => Some(Family::V6),
        _ => None,
    }
}

/// GRE with the key that this packet has, or without. Nothing else of it is looked at.
pub fn gre_as_sent(payload: &[u8]) -> Encapsulation {
    gre_key(payload).map_or(Encapsulation::Gre, Encapsulation::KeyedGre)
}

const CHECKSUM: u16 = 0x8000;
const KEY: u16 = 0x2000;
const SEQUENCE: u16 = 0x1000;

/// The key lies behind the checksum, if there is one (RFC 2890 2).
fn gre_key(payload: &[u8]) -> Option<u32> {
    let flags = u16::from_be_bytes(*payload.first_chunk()?);
    let at = if flags & CHECKSUM == 0 { 4 } else { 8 };
    let key = payload.get(at..)?.first_chunk()?;
    (flags & KEY != 0).then(|| u32::from_be_bytes(*key))
}

/// Family and offset of the packet in GRE (RFC 2784, key and sequence number of RFC 2890).
fn gre(payload: &[u8], key: Option<u32>) -> Result<(Family, usize), Refused> {
    /// Routing, strict source route, and the first bit of recursion control.
    const FORBIDDEN: u16 = 0x4000 | 0x0800 | 0x0400;
    const VERSION: u16 = 7;
    let header = payload.first_chunk::<4>().ok_or(Refused::Truncated)?;
    let flags = u16::from_be_bytes([header[0], header[1]]);
    if flags & VERSION != 0 {
        return Err(Refused::Version);
    }
    if flags & FORBIDDEN != 0 {
        return Err(Refused::Flags);
    }
    let optional = [CHECKSUM, KEY, SEQUENCE].into_iter().filter(|flag| flags & flag != 0).count();
    let at = 4 + 4 * optional;
    if payload.len() < at {
        return Err(Refused::Truncated);
    }
    if gre_key(payload) != key {
        return Err(Refused::Key);
    }
    if flags & CHECKSUM != 0 && checksum::sum(payload) != 0xffff {
        return Err(Refused::Checksum);
    }
    match [header[2], header[3]] {
        [0x08, 0x00] => Ok((Family::V4, at)),
        [0x86, 0xdd] => Ok((Family::V6, at)),
        _ => Err(Refused::Protocol),
    }
}

/// Family and offset of the packet in GUE: variant 0 without flags, or variant 1, which is the packet itself.
fn gue(payload: &[u8]) -> Result<(Family, usize), Refused> {
    match payload.first().ok_or(Refused::Truncated)? >> 4 {
        4 => return Ok((Family::V4, 0)),
        6 => return Ok((Family::V6, 0)),
        0 | 1 => {}
        _ => return Err(Refused::Version),
    }
    let header = payload.first_chunk::<4>().ok_or(Refused::Truncated)?;
    // Options, of which none is ours: their length is in the last five bits; or a control message.
    if header[0] != 0 || header[2..4] != [0, 0] {
        return Err(Refused::Flags);
    }
    Ok((family(Protocol(header[1])).ok_or(Refused::Protocol)?, 4))
}

/// Gives the packet inside what the outer header says of congestion (RFC 6040 4.2, figure 4; R96).
///
/// # Errors
/// [`Refused::Congestion`]: the packet has to be dropped, since nothing else would tell its sender.
pub fn merge_congestion(inner: &mut [u8], outer_traffic_class: u8) -> Result<(), Refused> {
    let v4 = inner[0] >> 4 == 4;
    let traffic_class = if v4 { inner[1] } else { inner[0] << 4 | inner[1] >> 4 };
    let ecn = match (traffic_class & ECN, outer_traffic_class & ECN) {
        (NOT_ECT, CE) => return Err(Refused::Congestion),
        (_, CE) => CE,
        (ECT_0, ECT_1) => ECT_1,
        (inner, _) => inner,
    };
    if v4 {
        let old = [inner[0], inner[1]];
        inner[1] = inner[1] & !ECN | ecn;
        let sum = u16::from_be_bytes([inner[10], inner[11]]);
        let change = checksum::delta(&old, &[inner[0], inner[1]]);
        inner[10..12].copy_from_slice(&checksum::update(sum, change).to_be_bytes());
    } else {
        inner[1] = inner[1] & !(ECN << 4) | ecn << 4;
    }
    Ok(())
}

const ECN: u8 = 3;
const NOT_ECT: u8 = 0;
const ECT_1: u8 = 1;
const ECT_0: u8 = 2;
const CE: u8 = 3;
