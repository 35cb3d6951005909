//! TCP and UDP headers: reads at fixed offsets of a header that was found whole at the door.

use super::Malformed;

/// TCP control bits (RFC 9293 3.1, RFC 3168).
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronize sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push.
    pub const PSH: Self = Self(0x08);
    /// Acknowledgment field is significant.
    pub const ACK: Self = Self(0x10);
    /// Urgent pointer is significant.
    pub const URG: Self = Self(0x20);

    /// Whether all bits of `other` are set.
    #[inline]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Neither opens, closes nor resets: ACK, and perhaps PSH, URG or ECN's bits.
    #[inline]
    pub const fn is_plain_ack(self) -> bool {
        self.0 & (Self::FIN.0 | Self::SYN.0 | Self::RST.0 | Self::ACK.0) == Self::ACK.0
    }

    /// A combination that some state of TCP sends (RFC 9293; nf_conntrack's list). PSH, URG, ECE and CWR never make a
    /// segment invalid (R54, RFC 3360).
    pub const fn valid(self) -> bool {
        const FIN: u8 = TcpFlags::FIN.0;
        const SYN: u8 = TcpFlags::SYN.0;
        const RST: u8 = TcpFlags::RST.0;
        const ACK: u8 = TcpFlags::ACK.0;
        let control = self.0 & (FIN | SYN | RST | ACK);
        control == SYN
            || control == SYN | ACK
            || control == RST
            || control == RST | ACK
            || control == FIN | ACK
            || control == ACK
    }
}

impl std::fmt::Display for TcpFlags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
        let mut separator = "";
        for (bit, name) in names.iter().enumerate() {
            if self.0 >> bit & 1 == 1 {
                write!(f, "{separator}{name}")?;
                separator = ",";
            }
        }
        if self.0 == 0 { f.write_str("none") } else { Ok(()) }
    }
}

impl std::fmt::Debug for TcpFlags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// What the tracker and the guard want to know of a TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpSegment<'a> {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgment number; meaningless without [`TcpFlags::ACK`].
    pub ack: u32,
    /// Window, unscaled.
    pub window: u16,
    /// Control bits.
    pub flags: TcpFlags,
    /// The options, raw.
    pub options: &'a [u8],
    /// Payload bytes.
    pub payload_len: u32,
}

impl<'a> TcpSegment<'a> {
    /// Reads a segment whose header `check_tcp` accepted.
    #[inline(always)]
    pub fn read(segment: &'a [u8]) -> Self {
        let header: &[u8; 20] = segment.first_chunk().expect("a TCP header was found whole at the door");
        let options_end = usize::from(header[12] >> 4) * 4;
        let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        Self {
            seq: word(4),
            ack: word(8),
            window: u16::from_be_bytes([header[14], header[15]]),
            flags: TcpFlags(header[13]),
            options: &segment[20..options_end],
            #[expect(clippy::cast_possible_truncation, reason = "an IP packet is below 2^17 bytes")]
            payload_len: (segment.len() - options_end) as u32,
        }
    }

    /// Sequence space it takes: payload, SYN and FIN (RFC 9293 3.4).
    #[inline]
    pub fn seq_len(&self) -> u32 {
        self.payload_len + u32::from(self.flags.has(TcpFlags::SYN)) + u32::from(self.flags.has(TcpFlags::FIN))
    }

    /// The options one by one, as far as they are well-formed.
    pub fn options(&self) -> impl Iterator<Item = (u8, &'a [u8])> + use<'a> {
        tcp_options(self.options)
    }
}

/// The options of a TCP header one by one, as far as they are well-formed: kind and value.
pub fn tcp_options(raw: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = raw;
    std::iter::from_fn(move || {
        loop {
            match *rest {
                [] | [0, ..] => return None,
                [1, ref tail @ ..] => rest = tail,
                [kind, len, ..] if len >= 2 && usize::from(len) <= rest.len() => {
                    let value = &rest[2..usize::from(len)];
                    rest = &rest[usize::from(len)..];
                    return Some((kind, value));
                }
                _ => return None,
            }
        }
    })
}

/// A TCP header of at least 20 bytes whose data offset lies within the segment (R55): that offset.
#[inline(always)]
pub(super) fn check_tcp(segment: &[u8]) -> Result<u16, Malformed> {
    let offset = segment.get(12).map_or(0, |byte| u16::from(byte >> 4) * 4);
    if offset < 20 || usize::from(offset) > segment.len() { Err(Malformed::Transport) } else { Ok(offset) }
}

/// A UDP header whose length covers itself and lies within the payload (R37). `whole` is false for a first fragment, of
/// which the length field describes the datagram to come.
#[inline(always)]
pub(super) fn check_udp(datagram: &[u8], whole: bool) -> Result<(), Malformed> {
    let Some(header) = datagram.first_chunk::<8>() else { return Err(Malformed::Transport) };
    let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    if len < 8 || (whole && len > datagram.len()) { Err(Malformed::Transport) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r54_only_combinations_that_a_tcp_sends_are_valid() {
        let valid = |bits: u8| TcpFlags(bits).valid();
        assert!(valid(0x02) && valid(0x12) && valid(0x10) && valid(0x11) && valid(0x04) && valid(0x14));
        assert!(!valid(0x00) && !valid(0x01) && !valid(0x03) && !valid(0x06) && !valid(0x29) && !valid(0x3f));
        for extra in [0x08, 0x20, 0x40, 0x80, 0xe8] {
            assert!(valid(0x10 | extra) && valid(0x02 | extra), "{extra:#x} never makes a segment invalid");
        }
    }

    #[test]
    fn options_end_at_the_first_impossible_length() {
        let mut segment = vec![0u8; 32];
        segment[12] = 8 << 4;
        segment[20..32].copy_from_slice(&[1, 2, 4, 5, 0xb4, 3, 3, 7, 8, 0, 0, 0]);
        let parsed = TcpSegment::read(&segment);
        assert_eq!(parsed.options().collect::<Vec<_>>(), [(2, &[5, 0xb4][..]), (3, &[7][..])]);
    }
}
