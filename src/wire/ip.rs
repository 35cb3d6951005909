//! IPv4 and IPv6 headers: one pass that finds the upper layer and refuses what RFC 1812 5.2.2 and RFC 8200 forbid.

use super::{Address, Protocol, address, checksum};

/// Why a packet is refused at the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// What was received is no IP packet at all.
    NotIp,
    /// Fewer bytes than the header announces.
    Truncated,
    /// Version, header length or total length make no sense, or an IPv6 header carries an IPv4-mapped address.
    IpHeader,
    /// IPv4 header checksum wrong.
    IpChecksum,
    /// IPv4 option of impossible length.
    IpOption,
    /// IPv6 extension headers cut off, too many, or in an order that RFC 8200 4.1 forbids.
    ExtensionHeader,
    /// Fragment of impossible offset or length.
    Fragment,
    /// TCP, UDP or ICMP header cut off or of impossible length.
    Transport,
    /// The offload header contradicts the packet, or is of a kind never asked for.
    Offload,
}

/// The two families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Where a fragment belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Identification: 16 bits of IPv4, 32 of IPv6.
    pub id: u32,
    /// Offset of its first payload byte in the datagram, a multiple of 8.
    pub offset: u16,
    /// Whether more follow.
    pub more: bool,
    /// Where in the packet the identification stands.
    pub(super) id_at: u16,
}

impl Fragment {
    /// Where the fragmentable part begins, of which extension headers of IPv6 may be the start.
    pub(super) const fn begins_at(&self, header: &IpHeader) -> u16 {
        match header.family {
            Family::V4 => header.payload,
            Family::V6 => self.id_at + 4,
        }
    }
}

/// What the IP header and its options or extension headers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpHeader {
    /// Family.
    pub family: Family,
    /// Length of the whole packet as the header says.
    pub total_len: u32,
    /// Offset of the upper layer: header and options or extension headers end here.
    pub payload: u16,
    /// Upper-layer protocol.
    pub protocol: Protocol,
    /// Set for a fragment; an atomic fragment (RFC 6946) is none.
    pub fragment: Option<Fragment>,
    /// The addresses of the header are not those of the two ends: LSRR or SSRR, a routing header with segments left, or a
    /// home address option (RFC 6275 6.3). The transport checksum is over others (R26), so such a packet cannot be
    /// translated.
    pub source_routed: bool,
}

const V4_MIN: usize = 20;
/// IPv4 with a header of 20 bytes.
const PLAIN_V4: u8 = 0x45;
const DONT_FRAGMENT: u8 = 0x40;
pub(super) const V6_LEN: usize = 40;
/// RFC 8200 orders at most seven extension headers; one more for a second destination options header.
pub(super) const MAX_EXTENSIONS: usize = 8;

impl IpHeader {
    /// Reads the header of a packet that lies wholly in `bytes` (more bytes may follow it).
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        match bytes.first().map(|b| b >> 4) {
            Some(4) => parse_v4(bytes, Whole::Yes),
            Some(6) => parse_v6(bytes, Whole::Yes),
            _ => Err(Malformed::IpHeader),
        }
    }

    /// Reads the header that most packets have: of IPv4, sound, without options, and of no fragment. `None` for any other.
    #[inline(always)]
    pub(super) fn parse_plain(bytes: &[u8]) -> Option<Self> {
        let header = bytes.first_chunk::<V4_MIN>()?;
        let total_len = u16::from_be_bytes([header[2], header[3]]);
        let has_options_or_is_fragment = header[0] != PLAIN_V4 || header[6] & !DONT_FRAGMENT != 0 || header[7] != 0;
        if has_options_or_is_fragment || usize::from(total_len) > bytes.len() || usize::from(total_len) < V4_MIN {
            return None;
        }
        (checksum::sum_of_header(header) == 0xffff).then_some(Self {
            family: Family::V4,
            total_len: total_len.into(),
            payload: 20,
            protocol: Protocol(header[9]),
            fragment: None,
            source_routed: false,
        })
    }

    /// Source and destination in the packet that this is the header of.
    pub fn addresses(&self, packet: &[u8]) -> (Address, Address) {
        addresses(self.family, packet)
    }

    /// Reads the header of a packet quoted in an ICMP error, which may be cut anywhere behind its headers.
    pub fn parse_quote(bytes: &[u8]) -> Result<Self, Malformed> {
        match bytes.first().map(|b| b >> 4) {
            Some(4) => parse_v4(bytes, Whole::No),
            Some(6) => parse_v6(bytes, Whole::No),
            _ => Err(Malformed::IpHeader),
        }
    }
}

/// Whether the packet must be there to its last byte.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whole {
    Yes,
    No,
}

fn parse_v4(bytes: &[u8], whole: Whole) -> Result<IpHeader, Malformed> {
    let Some(header) = bytes.first_chunk::<V4_MIN>() else { return Err(Malformed::Truncated) };
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let total_len = u16::from_be_bytes([header[2], header[3]]);
    if header_len < V4_MIN || usize::from(total_len) < header_len {
        return Err(Malformed::IpHeader);
    }
    if bytes.len() < header_len || (whole == Whole::Yes && bytes.len() < usize::from(total_len)) {
        return Err(Malformed::Truncated);
    }
    let has_options = header_len > V4_MIN;
    let sum = if has_options { checksum::sum(&bytes[..header_len]) } else { checksum::sum_of_header(header) };
    if sum != 0xffff {
        return Err(Malformed::IpChecksum);
    }
    let source_routed = has_options && scan_options(&bytes[V4_MIN..header_len])?;

    let flags_offset = u16::from_be_bytes([header[6], header[7]]);
    let (offset, more) = ((flags_offset & 0x1fff) * 8, flags_offset & 0x2000 != 0);
    let id = u32::from(u16::from_be_bytes([header[4], header[5]]));
    let fragment = (offset != 0 || more).then_some(Fragment { id, offset, more, id_at: 4 });
    if let Some(fragment) = fragment {
        check_fragment(fragment, header_len, usize::from(total_len) - header_len)?;
    }
    Ok(IpHeader {
        family: Family::V4,
        total_len: u32::from(total_len),
        payload: u16::from(header[0] & 0x0f) * 4,
        protocol: Protocol(header[9]),
        fragment,
        source_routed,
    })
}

/// Walks the options of an IPv4 header; true if one of them is a source route (LSRR 131, SSRR 137).
fn scan_options(mut options: &[u8]) -> Result<bool, Malformed> {
    let mut source_routed = false;
    while let [kind, rest @ ..] = options {
        match (*kind, rest) {
            (0, _) => break,
            (1, _) => options = rest,
            (kind, [len, ..]) if *len >= 2 && usize::from(*len) <= options.len() => {
                source_routed |= kind == 131 || kind == 137;
                options = &options[usize::from(*len)..];
            }
            _ => return Err(Malformed::IpOption),
        }
    }
    Ok(source_routed)
}

/// A fragment but the last carries a multiple of 8 bytes, and none reaches beyond 65,535 of the datagram, of which
/// `before` bytes lie before all fragments: the IPv4 header, but not that of IPv6 (RFC 791 3.2, RFC 8200 4.5).
fn check_fragment(fragment: Fragment, before: usize, payload: usize) -> Result<(), Malformed> {
    let ragged = fragment.more && !payload.is_multiple_of(8);
    if ragged || payload == 0 || before + usize::from(fragment.offset) + payload > 0xffff {
        return Err(Malformed::Fragment);
    }
    Ok(())
}

#[inline]
fn parse_v6(bytes: &[u8], whole: Whole) -> Result<IpHeader, Malformed> {
    let Some(header) = bytes.first_chunk::<V6_LEN>() else { return Err(Malformed::Truncated) };
    let total_len = V6_LEN + usize::from(u16::from_be_bytes([header[4], header[5]]));
    if whole == Whole::Yes && bytes.len() < total_len {
        return Err(Malformed::Truncated);
    }
    if is_mapped(&header[8..24]) || is_mapped(&header[24..40]) {
        return Err(Malformed::IpHeader);
    }
    let packet = &bytes[..total_len.min(bytes.len())];
    let mut parsed = IpHeader {
        family: Family::V6,
        total_len: u32::from(u16::from_be_bytes([header[4], header[5]])) + 40,
        payload: 40,
        protocol: Protocol(header[6]),
        fragment: None,
        source_routed: false,
    };
    if is_extension(header[6]) {
        walk_extensions(packet, &mut parsed)?;
    }
    Ok(parsed)
}

/// Whether an IPv4 address stands in an IPv6 header in the form that [`Address`] keeps for IPv4: it never belongs on a
/// network (RFC 4291 2.5.5.2 gives it to the socket interface alone), and would pass for the IPv4 packet it is not.
#[inline]
fn is_mapped(address: &[u8]) -> bool {
    address.starts_with(&address::MAPPED)
}

const HOP_BY_HOP: u8 = 0;
pub(super) const ROUTING: u8 = 43;
pub(super) const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

pub(super) const fn is_extension(next_header: u8) -> bool {
    matches!(next_header, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION)
}

/// Walks the chain to the upper layer. Only the first fragment of a datagram has one to be found.
fn walk_extensions(packet: &[u8], parsed: &mut IpHeader) -> Result<(), Malformed> {
    let mut fragment_seen = false;
    for n in 0..MAX_EXTENSIONS {
        let kind = parsed.protocol.0;
        if !is_extension(kind) {
            return Ok(());
        }
        // Hop-by-hop options come first or not at all, and nothing is fragmented twice (RFC 8200 4.1).
        if (kind == HOP_BY_HOP && n > 0) || (kind == FRAGMENT && fragment_seen) {
            return Err(Malformed::ExtensionHeader);
        }
        fragment_seen |= kind == FRAGMENT;
        let rest = packet.get(usize::from(parsed.payload)..).ok_or(Malformed::ExtensionHeader)?;
        let header = rest.first_chunk::<8>().ok_or(Malformed::ExtensionHeader)?;
        let len = if kind == FRAGMENT { 8 } else { (u16::from(header[1]) + 1) * 8 };
        let body = rest.get(2..usize::from(len)).ok_or(Malformed::ExtensionHeader)?;
        parsed.source_routed |= match kind {
            ROUTING => header[3] != 0,
            DESTINATION => has_home_address(body),
            _ => false,
        };
        parsed.protocol = Protocol(header[0]);
        parsed.payload += len;
        if kind == FRAGMENT {
            let payload = parsed.total_len as usize - usize::from(parsed.payload);
            parsed.fragment = read_fragment(header, parsed.payload, payload)?;
            if parsed.fragment.is_some_and(|f| f.offset != 0) {
                return Ok(());
            }
        }
    }
    if is_extension(parsed.protocol.0) { Err(Malformed::ExtensionHeader) } else { Ok(()) }
}

/// Reads a fragment header that ends at `at`. What lies behind it, `payload` bytes, belongs to the datagram; an atomic
/// fragment is whole and stands for itself (RFC 6946 4).
fn read_fragment(header: &[u8; 8], at: u16, payload: usize) -> Result<Option<Fragment>, Malformed> {
    let word = u16::from_be_bytes([header[2], header[3]]);
    let id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    let fragment = Fragment { id, offset: word & !7, more: word & 1 != 0, id_at: at - 4 };
    if fragment.offset == 0 && !fragment.more {
        return Ok(None);
    }
    check_fragment(fragment, usize::from(at) - V6_LEN - 8, payload)?;
    Ok(Some(fragment))
}

/// Whether the options of a destination options header, as far as they are well-formed, hold a home address.
fn has_home_address(mut options: &[u8]) -> bool {
    const PAD1: u8 = 0;
    const HOME_ADDRESS: u8 = 201;
    while let [kind, rest @ ..] = options {
        match (*kind, rest) {
            (PAD1, _) => options = rest,
            (HOME_ADDRESS, _) => return true,
            (_, [len, value @ ..]) => options = value.get(usize::from(*len)..).unwrap_or_default(),
            _ => return false,
        }
    }
    false
}

/// What both addresses add to a checksum.
pub(super) fn sum_of_addresses(family: Family, bytes: &[u8]) -> u16 {
    checksum::sum(match family {
        Family::V4 => &bytes[12..20],
        Family::V6 => &bytes[8..40],
    })
}

/// Source and destination address as they stand in the header.
#[inline]
pub(super) fn addresses(family: Family, bytes: &[u8]) -> (Address, Address) {
    match family {
        Family::V4 => {
            let both = bytes[12..20].first_chunk::<8>().expect("a parsed IPv4 header has 20 bytes");
            let [a, b, c, d, e, f, g, h] = *both;
            (Address::v4([a, b, c, d]), Address::v4([e, f, g, h]))
        }
        Family::V6 => {
            let source = bytes[8..24].first_chunk().expect("a parsed IPv6 header has 40 bytes");
            let destination = bytes[24..40].first_chunk().expect("a parsed IPv6 header has 40 bytes");
            (Address::v6(*source), Address::v6(*destination))
        }
    }
}
