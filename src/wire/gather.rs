//! The way back from [`super::segment`]: packets of one flow, one behind the other, become a super-packet.
//!
//! The rules are those of the kernel's own GRO (`tcp_gro_receive`, `udp_gro_receive_segment`, `inet_gro_receive`), and
//! where it is generous, stricter: what [`super::segment::cut`] makes of the super-packet is, byte for byte, what went
//! in. So the headers must be equal but for length, checksums, sequence number and, over IPv4, an id that counts up by
//! one; all payloads must be of one length, but for a shorter last one; FIN and PSH end the super-packet. Nothing that
//! may be broken joins: a partial checksum is finished by whoever sends the segments, and would bless what it covers.

use super::{Checksum, Family, Gso, OFFLOAD_LEN, Offload, Packet, Protocol, TcpFlags, checksum};

/// Most datagrams of a UDP super-packet (`UDP_MAX_SEGMENTS` of kernels before 6.10).
const MAX_DATAGRAMS: usize = 64;
/// Most bytes of a packet.
const MAX_BYTES: usize = 0xffff;
const CWR: u8 = 0x80;
/// Flags that may differ between a packet and the one that follows it; with one of them set nothing follows.
const LAST: u8 = TcpFlags::FIN.0 | TcpFlags::PSH.0;
/// Flags of packets that stay alone.
const ALONE: u8 = TcpFlags::SYN.0 | TcpFlags::RST.0 | TcpFlags::URG.0 | CWR;

/// What of a TCP or UDP packet without IP options decides about its company.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Equal for all packets of a flow and direction, and for few others.
    pub flow: u32,
    /// The kind of super-packet that it may be part of; none, if it stays alone.
    gso: Gso,
    /// Bytes of IP and transport header.
    headers: usize,
    payload: usize,
    /// Payload bytes of each of its segments, of which an ordinary packet is one.
    segment: usize,
    segments: usize,
    /// Whether nothing may follow.
    last: bool,
    checksum: Trust,
}

/// Whether a transport checksum is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// Its sender's kernel, or a device, says so.
    Known,
    /// To be seen.
    Unknown,
    /// It has been looked at, and is not.
    Wrong,
}

impl Part {
    /// `None` for packets whose flow is not known here (fragments, other protocols) or that have IP options: no packet
    /// behind it may overtake it.
    #[inline]
    pub fn of(packet: &Packet<'_>) -> Option<Self> {
        let (header, bytes) = (packet.header(), packet.bytes());
        let at = ip_header_len(header.family);
        if usize::from(header.payload) != at || header.fragment.is_some() {
            return None;
        }
        let transport = packet.transport();
        let gso = match (header.protocol, header.family) {
            (Protocol::TCP, _) if transport[13] & ALONE != 0 => Gso::None,
            (Protocol::TCP, Family::V4) => Gso::TcpV4 { ecn: false },
            (Protocol::TCP, Family::V6) => Gso::TcpV6 { ecn: false },
            (Protocol::UDP, _) if usize::from(word(transport, 4)) != transport.len() => Gso::None,
            (Protocol::UDP, _) => Gso::Udp,
            _ => return None,
        };
        let offload = packet.offload();
        let headers = usize::from(offload.header_len);
        let payload = bytes.len() - headers;
        let (segment, segments) = match offload.gso {
            Gso::None => (payload, 1),
            Gso::TcpV4 { .. } | Gso::TcpV6 { .. } | Gso::Udp => (usize::from(offload.segment_size), packet.segments()),
        };
        let trust = trust(transport, header.protocol, offload);
        // An IPv4 flag other than DF is nobody's to copy.
        let plain = header.family == Family::V6 || bytes[6] & 0x80 == 0;
        let gso = if payload > 0 && plain && trust != Trust::Wrong { gso } else { Gso::None };
        let last = header.protocol == Protocol::TCP && transport[13] & LAST != 0;
        // The last words of both addresses, the second of which ends the IP header, and the ports.
        let source = long(bytes, if header.family == Family::V4 { 12 } else { 20 });
        let ends = source ^ long(bytes, at - 4).rotate_left(8) ^ long(bytes, at);
        let flow = ends.wrapping_add(u32::from(header.protocol.0).wrapping_mul(0x85eb_ca6b));
        Some(Self { flow, gso, headers, payload, segment, segments, last, checksum: trust })
    }

    /// The kind of super-packet that it may be part of.
    pub fn kind(&self) -> Gso {
        self.gso
    }
}

/// What is known of the checksum without a look at the payload. What has another form than a sender would give it, or
/// none, could not be restored, and counts as wrong.
#[inline]
fn trust(transport: &[u8], protocol: Protocol, offload: &Offload) -> Trust {
    let odd = if protocol == Protocol::UDP { word(transport, 6) == 0 } else { word(transport, 16) == 0xffff };
    match offload.checksum {
        Checksum::Partial { .. } => Trust::Known,
        Checksum::Complete | Checksum::Verified if odd || offload.gso != Gso::None => Trust::Wrong,
        Checksum::Verified => Trust::Known,
        Checksum::Complete => Trust::Unknown,
    }
}

/// One packet, or several that can leave as one super-packet.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// The first packet.
    first: Part,
    /// Whether another may join.
    open: bool,
    payload: usize,
    segments: usize,
}

impl Run {
    /// A run that begins with this packet.
    #[inline]
    pub fn new(first: Part) -> Self {
        let mut run = Self { first, open: first.gso != Gso::None, payload: 0, segments: 0 };
        run.append(&first);
        run
    }

    /// Lets a packet join if it may; false if it may not. `first` are the bytes of the run's first packet, `bytes` those of
    /// the packet that `part` is of.
    #[inline]
    pub fn join(&mut self, first: &[u8], bytes: &[u8], part: &Part) -> bool {
        if !self.has_place_for(part) || !self.follows(first, bytes) {
            return false;
        }
        if self.first.checksum == Trust::Unknown {
            self.first.checksum = looked_at(first);
            self.open = self.first.checksum == Trust::Known;
        }
        if !self.open || part.checksum == Trust::Unknown && looked_at(bytes) == Trust::Wrong {
            return false;
        }
        self.append(part);
        true
    }

    /// Appends what stands before all payloads to `header`: the offload header, and the headers of the super-packet.
    /// `first` and `last` are the bytes of the first and last packet of the run.
    #[expect(clippy::cast_possible_truncation, reason = "no more than 64 KiB have joined")]
    pub fn write_headers(&self, first: &[u8], last: &[u8], header: &mut Vec<u8>) {
        let Part { gso, headers, segment, .. } = self.first;
        let family = family(first);
        let (at, total) = (ip_header_len(family), headers + self.payload);
        let field = if gso == Gso::Udp { 6 } else { 16 };
        let checksum = Checksum::Partial { start: at as u16, offset: field as u16 };
        let offload = Offload { checksum, gso, segment_size: segment as u16, header_len: headers as u16 };
        let mut bytes = [0; OFFLOAD_LEN];
        offload.write(&mut bytes);
        header.extend(bytes);
        let begin = header.len();
        header.extend(&first[..headers]);
        let header = &mut header[begin..];
        let (length, addresses) = match family {
            Family::V4 => (2, 12..20),
            Family::V6 => (4, 8..40),
        };
        let announced = if family == Family::V6 { total - at } else { total };
        header[length..length + 2].copy_from_slice(&(announced as u16).to_be_bytes());
        if family == Family::V4 {
            let change = checksum::word_delta(word(first, 2), total as u16);
            let sum = checksum::update(word(first, 10), change);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        let protocol = if gso == Gso::Udp { Protocol::UDP } else { Protocol::TCP };
        let pseudo = u64::from(checksum::sum(&header[addresses])) + u64::from(protocol.0) + (total - at) as u64;
        header[at + field..at + field + 2].copy_from_slice(&checksum::fold(pseudo).to_be_bytes());
        if gso == Gso::Udp {
            header[at + 4..at + 6].copy_from_slice(&((total - at) as u16).to_be_bytes());
        } else {
            header[at + 13] |= last[at + 13] & LAST;
        }
    }

    /// Bytes of the headers of each packet of a run of several.
    pub fn headers(&self) -> usize {
        self.first.headers
    }

    #[inline]
    fn append(&mut self, part: &Part) {
        self.payload += part.payload;
        self.segments += part.segments;
        let short = part.payload != part.segments * self.first.segment;
        self.open &= !(part.last || short);
    }

    /// Whether number and lengths allow for it.
    #[inline]
    fn has_place_for(&self, part: &Part) -> bool {
        let size = self.first.segment;
        self.open
            && self.first.gso == part.gso
            && self.first.headers == part.headers
            && (part.segment == size || part.segments == 1 && part.payload < size)
            && self.first.headers + self.payload + part.payload <= MAX_BYTES
            && (part.gso != Gso::Udp || self.segments + part.segments <= MAX_DATAGRAMS)
    }

    /// Whether these are the headers that the next segment has.
    #[inline]
    fn follows(&self, first: &[u8], next: &[u8]) -> bool {
        let family = family(first);
        let at = ip_header_len(family);
        let same = |range: std::ops::Range<usize>| first[range.clone()] == next[range];
        let ip = match family {
            Family::V4 => {
                let id = u64::from(word(first, 4)) + self.segments as u64;
                same(12..20) && same(0..2) && same(6..10) && u64::from(word(next, 4)) == id & 0xffff
            }
            Family::V6 => same(8..40) && same(0..4) && same(6..8),
        };
        if !ip || !same(at..at + 4) {
            return false;
        }
        if self.first.gso == Gso::Udp {
            return true;
        }
        // Acknowledgment number, data offset, window, urgent pointer and options; then flags and sequence number.
        let expected = u64::from(long(first, at + 4)) + self.payload as u64;
        same(at + 8..at + 13)
            && same(at + 14..at + 16)
            && same(at + 18..self.first.headers)
            && (first[at + 13] ^ next[at + 13]) & !LAST == 0
            && u64::from(long(next, at + 4)) == expected & 0xffff_ffff
    }
}

/// Sums up a packet with a complete checksum.
fn looked_at(bytes: &[u8]) -> Trust {
    let family = family(bytes);
    let at = ip_header_len(family);
    let (protocol, addresses) = match family {
        Family::V4 => (bytes[9], 12..20),
        Family::V6 => (bytes[6], 8..40),
    };
    let length = (bytes.len() - at) as u64;
    let pseudo = u64::from(checksum::sum(&bytes[addresses])) + u64::from(protocol) + length;
    let sum = checksum::fold(pseudo + u64::from(checksum::sum(&bytes[at..])));
    if sum == 0xffff { Trust::Known } else { Trust::Wrong }
}

#[inline]
fn family(bytes: &[u8]) -> Family {
    if bytes[0] >> 4 == 4 { Family::V4 } else { Family::V6 }
}

#[inline]
fn ip_header_len(family: Family) -> usize {
    match family {
        Family::V4 => 20,
        Family::V6 => 40,
    }
}

#[inline]
fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[inline]
fn long(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
