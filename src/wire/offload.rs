//! The header in front of every packet on a TUN with `IFF_VNET_HDR`: what the kernel has left for others to do.
//!
//! Layout: `struct virtio_net_hdr`, 10 bytes little endian (virtio 1.2, 5.1.6): flags, gso type, header length, gso
//! size, checksum start, checksum offset.

/// Bytes of the header.
pub const HEADER_LEN: usize = 10;

const NEEDS_CHECKSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const ECN: u8 = 0x80;

/// What stands in the transport checksum field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// The complete checksum, right or wrong: nobody has looked yet.
    #[default]
    Complete,
    /// The complete checksum, and the receiving device has found it right.
    Verified,
    /// The uncomplemented sum of the pseudo-header alone; whoever sends the packet adds the rest, from `start` on, and
    /// stores the result at `start + offset`.
    Partial {
        /// Offset of the transport header.
        start: u16,
        /// Offset of the checksum field within it.
        offset: u16,
    },
}

/// How a super-packet is to be cut into segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gso {
    /// It is one packet.
    #[default]
    None,
    /// TCP over IPv4 (`ecn`: CWR belongs to the first segment only).
    TcpV4 {
        /// The kernel's ECN bit.
        ecn: bool,
    },
    /// TCP over IPv6.
    TcpV6 {
        /// The kernel's ECN bit.
        ecn: bool,
    },
    /// UDP datagrams of equal size, both families.
    Udp,
}

/// The offload header, parsed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// State of the transport checksum.
    pub checksum: Checksum,
    /// Kind of super-packet.
    pub gso: Gso,
    /// Payload bytes of each segment; 0 if it is no super-packet.
    pub segment_size: u16,
    /// Bytes of IP and transport header. What the kernel says here is not to be trusted (it may be the whole linear
    /// part); [`super::Packet`] writes the true value before the packet leaves.
    pub header_len: u16,
}

/// The kernel used a kind of offload that was never asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownGso(pub u8);

impl Offload {
    /// Reads the ten bytes.
    pub fn parse(header: &[u8; HEADER_LEN]) -> Result<Self, UnknownGso> {
        let word = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let ecn = header[1] & ECN != 0;
        let gso = match header[1] & !ECN {
            0 => Gso::None,
            1 => Gso::TcpV4 { ecn },
            4 => Gso::TcpV6 { ecn },
            5 if !ecn => Gso::Udp,
            _ => return Err(UnknownGso(header[1])),
        };
        let checksum = if header[0] & NEEDS_CHECKSUM != 0 {
            Checksum::Partial { start: word(6), offset: word(8) }
        } else if header[0] & DATA_VALID != 0 {
            Checksum::Verified
        } else {
            Checksum::Complete
        };
        let segment_size = if gso == Gso::None { 0 } else { word(4) };
        Ok(Self { checksum, gso, segment_size, header_len: word(2) })
    }

    /// Writes the ten bytes.
    pub fn write(&self, header: &mut [u8; HEADER_LEN]) {
        let (start, offset, flags) = match self.checksum {
            Checksum::Partial { start, offset } => (start, offset, NEEDS_CHECKSUM),
            Checksum::Complete | Checksum::Verified => (0, 0, 0),
        };
        header[0] = flags;
        header[1] = match self.gso {
            Gso::None => 0,
            Gso::TcpV4 { ecn } => 1 | if ecn { ECN } else { 0 },
            Gso::TcpV6 { ecn } => 4 | if ecn { ECN } else { 0 },
            Gso::Udp => 5,
        };
        header[2..4].copy_from_slice(&self.header_len.to_le_bytes());
        header[4..6].copy_from_slice(&self.segment_size.to_le_bytes());
        header[6..8].copy_from_slice(&start.to_le_bytes());
        header[8..10].copy_from_slice(&offset.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_sends_comes_back_as_it_was() {
        // A TSO super-packet as read from a 6.18 kernel: NEEDS_CSUM, TCPV4, hdr_len 52, gso_size 1448, csum 20 + 16.
        let bytes = [1, 1, 52, 0, 0xa8, 5, 20, 0, 16, 0];
        let offload = Offload::parse(&bytes).unwrap();
        assert_eq!(offload.gso, Gso::TcpV4 { ecn: false });
        assert_eq!(offload.segment_size, 1448);
        assert_eq!(offload.checksum, Checksum::Partial { start: 20, offset: 16 });
        let mut out = [0xee; HEADER_LEN];
        offload.write(&mut out);
        assert_eq!(out, bytes);
    }

    #[test]
    fn unasked_kinds_are_refused() {
        assert_eq!(Offload::parse(&[0, 3, 0, 0, 0, 0, 0, 0, 0, 0]), Err(UnknownGso(3)));
        assert_eq!(Offload::parse(&[1, 0x21, 0, 0, 0, 0, 0, 0, 0, 0]), Err(UnknownGso(0x21)));
    }
}
