//! One IP packet, parsed once and rewritten in place.

mod translate;

use super::checksum;
use super::ip::{self, Family, Fragment, IpHeader, Malformed};
use super::transport::{self, TcpSegment};
use super::tunnel::Entry;
use super::{Address, Checksum, Endpoint, Gso, Offload, Protocol};

pub use translate::Translation;

/// An IP packet that passed the door: its IP header is sound, and if it carries the start of a TCP, UDP or ICMP message,
/// that header is there to its last byte. A packet may be a *super-packet* of up to 64 KiB ([`Offload::gso`]).
#[derive(Debug)]
pub struct Packet<'a> {
    bytes: &'a mut [u8],
    offload: Offload,
    header: IpHeader,
    tunnel: Option<Entry>,
}

impl<'a> Packet<'a> {
    /// Parses the packet at the start of `bytes`; what follows its announced length is cut off (R4).
    ///
    /// # Errors
    /// [`Malformed`] for a packet that no router may forward, or an offload header that contradicts it.
    #[inline(always)]
    pub fn parse(bytes: &'a mut [u8], offload: Offload) -> Result<Self, Malformed> {
        let header = match IpHeader::parse_plain(bytes) {
            Some(header) => header,
            None => IpHeader::parse(bytes)?,
        };
        let bytes = &mut bytes[..header.total_len as usize];
        let mut packet = Self { bytes, offload, header, tunnel: None };
        packet.check_checksum()?;
        packet.offload.header_len = header.payload + packet.check_transport()?;
        packet.check_super_packet()?;
        Ok(packet)
    }

    /// The whole packet.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// What the offload header says, corrected.
    #[inline]
    pub fn offload(&self) -> &Offload {
        &self.offload
    }

    /// The parsed IP header.
    #[inline]
    pub fn header(&self) -> &IpHeader {
        &self.header
    }

    /// Family of the IP header.
    #[inline]
    pub fn family(&self) -> Family {
        self.header.family
    }

    /// Upper-layer protocol, behind any extension headers.
    #[inline]
    pub fn protocol(&self) -> Protocol {
        self.header.protocol
    }

    /// Set for a fragment.
    #[inline]
    pub fn fragment(&self) -> Option<Fragment> {
        self.header.fragment
    }

    /// Source and destination address.
    #[inline]
    pub fn addresses(&self) -> (Address, Address) {
        ip::addresses(self.header.family, self.bytes)
    }

    /// TTL or hop limit.
    #[inline]
    pub fn ttl(&self) -> u8 {
        self.bytes[self.ttl_at()]
    }

    /// TOS or traffic class: DSCP and ECN.
    #[inline]
    pub fn traffic_class(&self) -> u8 {
        match self.header.family {
            Family::V4 => self.bytes[1],
            Family::V6 => self.bytes[0] << 4 | self.bytes[1] >> 4,
        }
    }

    /// Whether routers may not cut it: IPv4 with DF, and IPv6.
    #[inline]
    pub fn dont_fragment(&self) -> bool {
        self.header.family == Family::V6 || self.bytes[6] & 0x40 != 0
    }

    /// Bytes of the largest packet that this one stands for: its own, unless it is a super-packet.
    #[inline]
    pub fn largest_segment(&self) -> usize {
        let whole = self.bytes.len();
        if self.offload.gso == Gso::None {
            return whole;
        }
        whole.min(usize::from(self.offload.header_len) + usize::from(self.offload.segment_size))
    }

    /// How many packets it stands for: one, unless it is a super-packet.
    #[inline]
    pub fn segments(&self) -> usize {
        if self.offload.gso == Gso::None {
            return 1;
        }
        let payload = self.bytes.len() - usize::from(self.offload.header_len);
        payload.div_ceil(usize::from(self.offload.segment_size)).max(1)
    }

    /// Where it is to leave by, if it is wrapped: [`tunnel::emit`](super::tunnel::emit) sends it.
    #[inline]
    pub fn tunnel(&self) -> Option<&Entry> {
        self.tunnel.as_ref()
    }

    /// Everything behind the IP header.
    #[inline]
    pub fn transport(&self) -> &[u8] {
        &self.bytes[usize::from(self.header.payload)..]
    }

    /// What a fragment has of its datagram: all behind its fragment header, extension headers there included. Of a packet
    /// that is none, what [`Self::transport`] is.
    #[inline]
    pub fn piece(&self) -> &[u8] {
        let begin = self.header.fragment.map_or(self.header.payload, |fragment| fragment.begins_at(&self.header));
        &self.bytes[usize::from(begin)..]
    }

    /// Source and destination endpoint of a TCP or UDP packet that is no later fragment.
    #[inline]
    pub fn endpoints(&self) -> Option<(Endpoint, Endpoint)> {
        if !self.has_ports() {
            return None;
        }
        let ports = self.transport().first_chunk::<4>().expect("a transport header was found whole at the door");
        let (source, destination) = self.addresses();
        Some((
            Endpoint::new(source, u16::from_be_bytes([ports[0], ports[1]])),
            Endpoint::new(destination, u16::from_be_bytes([ports[2], ports[3]])),
        ))
    }

    /// The TCP segment, if it is one and no later fragment.
    #[inline(always)]
    pub fn tcp(&self) -> Option<TcpSegment<'_>> {
        let is_tcp = self.header.protocol == Protocol::TCP && self.has_transport();
        if is_tcp { Some(TcpSegment::read(self.transport())) } else { None }
    }

    /// Whether the transport header is in this packet: always, but for later fragments.
    #[inline(always)]
    pub fn has_transport(&self) -> bool {
        self.header.fragment.is_none_or(|f| f.offset == 0)
    }

    #[inline(always)]
    pub(super) fn has_ports(&self) -> bool {
        matches!(self.header.protocol, Protocol::TCP | Protocol::UDP) && self.has_transport()
    }

    /// For rooms of this floor that rewrite what lies behind the IP header.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes
    }

    /// Whether the transport checksum is right, as far as anybody can tell: partial and verified ones are, a UDP
    /// checksum of zero claims nothing, a fragment cannot be checked alone, and that of a source-routed packet is over
    /// addresses which are not in its IP header.
    pub fn transport_checksum_ok(&self) -> bool {
        if self.offload.checksum != Checksum::Complete || self.header.fragment.is_some() || self.header.source_routed {
            return true;
        }
        let Some(at) = self.checksum_at() else { return true };
        if self.header.protocol == Protocol::UDP && self.bytes[at..at + 2] == [0, 0] {
            return true;
        }
        checksum::add(self.pseudo_header(), checksum::sum(self.checksummed())) == 0xffff
    }

    /// Sum of the pseudo-header over what the transport checksum covers.
    fn pseudo_header(&self) -> u16 {
        if self.header.protocol == Protocol::ICMP {
            return 0;
        }
        let addresses = ip::sum_of_addresses(self.header.family, self.bytes);
        checksum::fold(u64::from(addresses) + u64::from(self.header.protocol.0) + self.checksummed().len() as u64)
    }

    /// The bytes under the transport checksum: a UDP datagram may be shorter than the IP payload (R37).
    fn checksummed(&self) -> &[u8] {
        let transport = self.transport();
        if self.header.protocol == Protocol::UDP && self.offload.gso == Gso::None && self.header.fragment.is_none() {
            let len = usize::from(u16::from_be_bytes([transport[4], transport[5]]));
            return &transport[..len.min(transport.len())];
        }
        transport
    }

    /// Where the transport checksum stands, if this packet has one.
    #[inline(always)]
    fn checksum_at(&self) -> Option<usize> {
        if !self.has_transport() {
            return None;
        }
        let offset = match self.header.protocol {
            Protocol::TCP => 16,
            Protocol::UDP => 6,
            _ if self.carries_icmp() => 2,
            _ => return None,
        };
        Some(usize::from(self.header.payload) + offset)
    }

    /// Whether the protocol is the ICMP of this packet's family; that of the other means nothing in it.
    #[inline]
    pub(super) fn carries_icmp(&self) -> bool {
        self.header.protocol
            == match self.header.family {
                Family::V4 => Protocol::ICMP,
                Family::V6 => Protocol::ICMPV6,
            }
    }

    #[inline]
    fn ttl_at(&self) -> usize {
        match self.header.family {
            Family::V4 => 8,
            Family::V6 => 7,
        }
    }

    /// The transport header must be there to its last byte, unless this is a later fragment. How long it is, as far as
    /// it is known.
    #[inline(always)]
    fn check_transport(&self) -> Result<u16, Malformed> {
        if !self.has_transport() {
            return Ok(0);
        }
        let transport = self.transport();
        match self.header.protocol {
            Protocol::TCP => transport::check_tcp(transport),
            Protocol::UDP if self.offload.gso == Gso::None => {
                transport::check_udp(transport, self.header.fragment.is_none()).map(|()| 8)
            }
            Protocol::UDP if transport.len() < 8 => Err(Malformed::Transport),
            Protocol::UDP => Ok(8),
            _ if self.carries_icmp() && transport.len() < 8 => Err(Malformed::Transport),
            _ => Ok(0),
        }
    }

    /// A partial checksum stands where that of the protocol stands, or is finished here. Before the transport header is
    /// looked at: nothing says that an unusual place lies outside it.
    #[inline(always)]
    fn check_checksum(&mut self) -> Result<(), Malformed> {
        let Checksum::Partial { start, offset } = self.offload.checksum else { return Ok(()) };
        let payload = self.header.payload;
        if start < payload || !self.is_whole() {
            return Err(Malformed::Offload);
        }
        if start == payload && self.checksum_at() == Some(usize::from(payload) + usize::from(offset)) {
            return Ok(());
        }
        self.finish_checksum(usize::from(start), usize::from(offset))
    }

    /// A super-packet must be what its offload header says.
    #[inline(always)]
    fn check_super_packet(&self) -> Result<(), Malformed> {
        if self.offload.gso == Gso::None {
            return Ok(());
        }
        let consistent = match self.offload.gso {
            Gso::None => true,
            Gso::TcpV4 { .. } => self.header.protocol == Protocol::TCP && self.header.family == Family::V4,
            Gso::TcpV6 { .. } => self.header.protocol == Protocol::TCP && self.header.family == Family::V6,
            Gso::Udp => self.header.protocol == Protocol::UDP,
        };
        if consistent && self.offload.segment_size > 0 && self.is_whole() { Ok(()) } else { Err(Malformed::Offload) }
    }

    fn is_whole(&self) -> bool {
        self.header.fragment.is_none()
    }

    /// Finishes a partial checksum in an unusual place, as the kernel would: zero becomes all ones whatever it stands in,
    /// since UDP needs that and to all others the two are equal.
    fn finish_checksum(&mut self, start: usize, offset: usize) -> Result<(), Malformed> {
        let field = start + offset;
        if self.offload.gso != Gso::None || field + 2 > self.bytes.len() {
            return Err(Malformed::Offload);
        }
        let sum = !checksum::sum(&self.bytes[start..]);
        let sum = if sum == 0 { 0xffff } else { sum };
        self.bytes[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        self.offload.checksum = Checksum::Complete;
        Ok(())
    }

    /// Completes a partial checksum in its usual place: for the kernel's eyes it was optional, for a capture, a tunnel
    /// or another host it is not. No effect on a super-packet, whose segments get theirs when it is cut.
    pub fn complete_checksum(&mut self) {
        let Some((at, sum)) = self.completed_checksum() else { return };
        self.bytes[at..at + 2].copy_from_slice(&sum);
        self.offload.checksum = Checksum::Complete;
    }

    /// Where the completed checksum of a packet with a partial one goes, and what it is.
    pub(super) fn completed_checksum(&self) -> Option<(usize, [u8; 2])> {
        let Checksum::Partial { start, .. } = self.offload.checksum else { return None };
        let (Gso::None, Some(at)) = (self.offload.gso, self.checksum_at()) else { return None };
        let sum = !checksum::sum(&self.bytes[usize::from(start)..]);
        let sum = if self.header.protocol == Protocol::UDP && sum == 0 { 0xffff } else { sum };
        Some((at, sum.to_be_bytes()))
    }
}
