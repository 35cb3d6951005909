//! ICMP and ICMPv6: echo, errors that quote a packet, and errors of our own.

use super::ip::{self, Family, IpHeader, Malformed};
use super::{Address, Endpoint, Gso, Packet, Protocol, Translation, build, checksum};

/// What a gateway has to know of an ICMP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Somebody asks whether we are there.
    EchoRequest,
    /// An answer to such a question.
    EchoReply,
    /// An error that quotes the packet it is about, and that routers pass on.
    Error,
    /// Anything else: redirects, source quench, router and neighbour discovery, multicast listeners, timestamps. None
    /// of it passes a gateway (R71).
    Other,
}

/// Kind of the ICMP message in this packet, or `None` if it carries none.
pub fn kind(packet: &Packet<'_>) -> Option<Kind> {
    if !packet.has_transport() || !packet.carries_icmp() {
        return None;
    }
    Some(match (packet.family(), packet.transport()[0]) {
        (Family::V4, 8) | (Family::V6, 128) => Kind::EchoRequest,
        (Family::V4, 0) | (Family::V6, 129) => Kind::EchoReply,
        (Family::V4, 3 | 11 | 12) | (Family::V6, 1..=4) => Kind::Error,
        _ => Kind::Other,
    })
}

/// The packet an ICMP error is about, as far as it was quoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Its IP header.
    pub header: IpHeader,
    /// Its source.
    pub source: Endpoint,
    /// Its destination.
    pub destination: Endpoint,
    /// Offset of the quote in the packet that carries it.
    at: usize,
    /// End of the quoted bytes there: extensions and padding (RFC 4884) lie behind it.
    end: usize,
}

/// Bytes of an ICMP header before the quote.
const HEADER: usize = 8;

/// Reads the quote of an ICMP error. Only TCP and UDP quotes with their ports are of use to a NAT.
///
/// # Errors
/// [`Malformed`] if the packet is no [`Kind::Error`], the quote's header makes no sense, its IPv4 header checksum is wrong
/// (R62), or the ports are cut off. Its transport checksum is not looked at: it may be cut off (RFC 5508 REQ-3).
pub fn quote(packet: &Packet<'_>) -> Result<Quote, Malformed> {
    let at = usize::from(packet.header().payload) + HEADER;
    let (header, quoted) = quoted(packet)?;
    let has_ports = matches!(header.protocol, Protocol::TCP | Protocol::UDP);
    if !has_ports || header.fragment.is_some_and(|f| f.offset != 0) {
        return Err(Malformed::Transport);
    }
    let transport = quoted.get(usize::from(header.payload)..).and_then(|t| t.first_chunk::<8>());
    let ports = transport.ok_or(Malformed::Truncated)?;
    let (source, destination) = ip::addresses(header.family, quoted);
    Ok(Quote {
        header,
        source: Endpoint::new(source, u16::from_be_bytes([ports[0], ports[1]])),
        destination: Endpoint::new(destination, u16::from_be_bytes([ports[2], ports[3]])),
        at,
        end: at + quoted.len(),
    })
}

/// The packet that an ICMP error quotes, whatever it carries: its header, and what there is of it from that on.
///
/// # Errors
/// As [`quote`].
pub fn quoted<'q>(packet: &'q Packet<'_>) -> Result<(IpHeader, &'q [u8]), Malformed> {
    if kind(packet) != Some(Kind::Error) {
        return Err(Malformed::Transport);
    }
    let message = packet.transport();
    let quoted = message.get(HEADER..).ok_or(Malformed::Transport)?;
    let quoted = &quoted[..quoted_len(packet.family(), message).min(quoted.len())];
    let header = IpHeader::parse_quote(quoted)?;
    if header.family != packet.family() {
        return Err(Malformed::IpHeader);
    }
    // What lies behind the end of the quoted packet is none of it, be it the length that lies.
    Ok((header, &quoted[..quoted.len().min(header.total_len as usize)]))
}

/// Whether an ICMP error says that its packet did not get there, for another reason than its size: 3/x, ICMPv6 1; and
/// ICMPv6 4/1, which says what IPv4 says with 3/2.
pub fn is_unreachable(packet: &Packet<'_>) -> bool {
    let message = packet.transport();
    match (packet.family(), message[0], message[1]) {
        (Family::V4, 3, code) => code != 4,
        (Family::V6, kind, code) => kind == 1 || (kind, code) == (4, 1),
        (Family::V4, ..) => false,
    }
}

/// The MTU that an ICMP error tells of, if it is about a packet that was too big: 3/4, ICMPv6 2.
pub fn told_mtu(packet: &Packet<'_>) -> Option<u32> {
    let message = packet.transport();
    match (packet.family(), message[0], message[1]) {
        (Family::V4, 3, 4) => Some(u32::from(u16::from_be_bytes([message[6], message[7]]))),
        (Family::V6, 2, _) => Some(u32::from_be_bytes([message[4], message[5], message[6], message[7]])),
        _ => None,
    }
}

/// RFC 4884 4: where the length attribute is set, the quote ends there and extensions follow.
fn quoted_len(family: Family, message: &[u8]) -> usize {
    // Only these types carry the attribute; elsewhere the byte is unused, or part of an MTU or pointer.
    let len = match (family, message[0]) {
        (Family::V4, 3 | 11 | 12) => usize::from(message[5]) * 4,
        (Family::V6, 1 | 3) => usize::from(message[4]) * 8,
        _ => 0,
    };
    if len > 0 { len } else { usize::MAX }
}

/// Rewrites an ICMP error of a translated flow: its own addresses, the endpoints of the packet it quotes, every checksum
/// in reach; lowers the TTL (RFC 5508 REQ-4, REQ-5). Type, code, MTU and extensions stay (R59, R65).
pub fn translate_error(
    packet: &mut Packet<'_>,
    quote: &Quote,
    outer: (Address, Address),
    quoted: (Endpoint, Endpoint),
) {
    let from = (quote.source, quote.destination);
    let change = Translation::new(from, quoted);
    let bytes = &mut packet.bytes_mut()[quote.at..quote.end];
    let before = checksum::sum(bytes);
    rewrite_quote(bytes, &quote.header, &change);
    let delta = checksum::word_delta(before, checksum::sum(bytes));
    packet.route_to(outer.0, outer.1, delta);
}

fn rewrite_quote(bytes: &mut [u8], header: &IpHeader, to: &Translation) {
    let (source, destination) = (to.to.source(), to.to.destination());
    match header.family {
        Family::V4 => {
            let sum = u16::from_be_bytes([bytes[10], bytes[11]]);
            bytes[10..12].copy_from_slice(&checksum::update(sum, to.address_delta).to_be_bytes());
            bytes[12..16].copy_from_slice(&source.address.v4_octets());
            bytes[16..20].copy_from_slice(&destination.address.v4_octets());
        }
        Family::V6 => {
            bytes[8..24].copy_from_slice(source.address.octets());
            bytes[24..40].copy_from_slice(destination.address.octets());
        }
    }
    let transport = &mut bytes[usize::from(header.payload)..];
    transport[..4].copy_from_slice(&to.to.ports().to_ne_bytes());
    let udp = header.protocol == Protocol::UDP;
    let at = if udp { 6 } else { 16 };
    let Some(field) = transport.get_mut(at..at + 2) else { return };
    let old = u16::from_be_bytes([field[0], field[1]]);
    if udp && old == 0 {
        return;
    }
    let new = checksum::update(old, checksum::add(to.address_delta, to.port_delta));
    field.copy_from_slice(&if udp && new == 0 { 0xffff } else { new }.to_be_bytes());
}

/// An ICMP error that the gateway itself sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// TTL or hop limit ran out: 11/0, ICMPv6 3/0.
    TimeExceeded,
    /// Does not fit, and may not be cut: 3/4 (RFC 1191), ICMPv6 2/0. The MTU that would fit, bytes.
    TooBig(u16),
    /// No socket there: 3/3, ICMPv6 1/4.
    PortUnreachable,
    /// Somebody is there who will not: 3/13, ICMPv6 1/1.
    Prohibited,
    /// A field makes no sense: 12, ICMPv6 4. Where it lies, bytes from the start of the IP header.
    ParameterProblem {
        /// Which kind of nonsense (RFC 4443 3.4).
        code: u8,
        /// Offset of the field.
        pointer: u32,
    },
}

impl Error {
    /// Type, code and the second word of the header.
    fn header(self, family: Family) -> (u8, u8, u32) {
        match (self, family) {
            (Self::TimeExceeded, Family::V4) => (11, 0, 0),
            (Self::TimeExceeded, Family::V6) => (3, 0, 0),
            (Self::TooBig(mtu), Family::V4) => (3, 4, u32::from(mtu)),
            (Self::TooBig(mtu), Family::V6) => (2, 0, u32::from(mtu)),
            (Self::PortUnreachable, Family::V4) => (3, 3, 0),
            (Self::PortUnreachable, Family::V6) => (1, 4, 0),
            (Self::Prohibited, Family::V4) => (3, 13, 0),
            (Self::Prohibited, Family::V6) => (1, 1, 0),
            (Self::ParameterProblem { code, pointer }, Family::V4) => (12, code, pointer << 24),
            (Self::ParameterProblem { code, pointer }, Family::V6) => (4, code, pointer),
        }
    }
}

/// The error about a packet, from `source` to the packet's sender, quoting it as it was received, a partial checksum
/// completed: as much as fits 576 bytes (RFC 1812 4.3.2.3) or 1280 (RFC 4443 2.4). `None` where no error may be sent
/// (R9): about an ICMP error, a later fragment, a multicast destination, or to a source that is no host.
pub fn error(about: &Packet<'_>, error: Error, source: Address) -> Option<Vec<u8>> {
    let (sender, destination) = about.addresses();
    let about_icmp = matches!(kind(about), Some(Kind::Error | Kind::Other));
    if about_icmp || !about.has_transport() || !sender.is_host() || !destination.is_host() {
        return None;
    }
    let mut message = quoting(error, about.family(), about.bytes());
    if about.offload().gso != Gso::None {
        shorten(&mut message[HEADER..], about);
    }
    if let Some((at, sum)) = about.completed_checksum()
        && let Some(field) = message.get_mut(HEADER + at..HEADER + at + 2)
    {
        field.copy_from_slice(&sum);
    }
    Some(build::icmp(source, sender, message))
}

/// Of a super-packet, the error is about the first segment.
#[expect(clippy::cast_possible_truncation, reason = "a segment is below 64 KiB")]
fn shorten(quote: &mut [u8], about: &Packet<'_>) {
    let len = about.largest_segment() as u16;
    match about.family() {
        Family::V4 => {
            let change = checksum::delta(&quote[2..4], &len.to_be_bytes());
            let sum = u16::from_be_bytes([quote[10], quote[11]]);
            quote[2..4].copy_from_slice(&len.to_be_bytes());
            quote[10..12].copy_from_slice(&checksum::update(sum, change).to_be_bytes());
        }
        Family::V6 => quote[4..6].copy_from_slice(&(len - 40).to_be_bytes()),
    }
}

/// An error about a packet of which this is known, from its IP header on; `source` tells it to `sender`.
pub fn error_quoting(quote: &[u8], error: Error, source: Address, sender: Address) -> Vec<u8> {
    let family = if source.is_v4() { Family::V4 } else { Family::V6 };
    build::icmp(source, sender, quoting(error, family, quote))
}

/// The message of an error about this packet, its checksum not computed yet.
pub(super) fn quoting(error: Error, family: Family, about: &[u8]) -> Vec<u8> {
    let (kind, code, word) = error.header(family);
    let mut message = vec![kind, code, 0, 0];
    message.extend(word.to_be_bytes());
    let room = match family {
        Family::V4 => 576 - 20 - HEADER,
        Family::V6 => 1280 - 40 - HEADER,
    };
    message.extend(&about[..about.len().min(room)]);
    message
}

/// The identifier of an echo or its answer.
pub fn echo_id(echo: &Packet<'_>) -> Option<u16> {
    let id = echo.transport().get(4..6)?;
    Some(u16::from_be_bytes([id[0], id[1]]))
}

/// The answer to an [echo request](Kind::EchoRequest): same identifier, sequence and data, from the address that was
/// asked (RFC 792, 4443).
///
/// A fragment of a request is answered with the fragment of the reply that covers the same bytes, under the same
/// identification. The checksum is over all of them, but what differs between request and reply is the type alone, which
/// is in the first; a wrong one stays wrong. `None` where an extension header stands between the fragment header and the
/// message: the reply would not have it.
pub fn echo_reply(request: &Packet<'_>) -> Option<Vec<u8>> {
    let (sender, asked) = request.addresses();
    let mut message = request.transport().to_vec();
    let kind = if request.family() == Family::V4 { 0 } else { 129 };
    let Some(fragment) = request.fragment() else {
        message[0] = kind;
        message[2..4].fill(0);
        return Some(build::icmp(asked, sender, message));
    };
    if fragment.begins_at(request.header()) != request.header().payload {
        return None;
    }
    if request.has_transport() {
        let change = checksum::delta(&[message[0], 0], &[kind, 0]);
        let sum = checksum::update(u16::from_be_bytes([message[2], message[3]]), change);
        message[0] = kind;
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    Some(build::fragment(asked, sender, request.protocol(), fragment, &message))
}
