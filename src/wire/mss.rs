//! The maximum segment size that a SYN announces.

use super::{Packet, TcpFlags, checksum};

impl Packet<'_> {
    /// Lowers the MSS option of a SYN to this, its checksum updated; never raises it, never adds one, and touches no other
    /// segment (R106).
    pub fn clamp_mss(&mut self, most: u16) {
        let Some(syn) = self.tcp().filter(|segment| segment.flags.has(TcpFlags::SYN)) else { return };
        let Some((offset, announced)) = find(syn.options).filter(|(_, announced)| *announced > most) else { return };
        let at = usize::from(self.header().payload) + 20 + offset;
        self.bytes_mut()[at..at + 2].copy_from_slice(&most.to_be_bytes());
        let delta = checksum::word_delta(announced, most);
        // An option may lie across two words of the checksum: there its bytes count the other way round (RFC 1071 2.B).
        let delta = if offset % 2 == 1 { delta.swap_bytes() } else { delta };
        self.adjust_transport_checksum(checksum::NO_CHANGE, delta);
    }
}

/// Where the MSS stands in TCP options, and what it is.
fn find(options: &[u8]) -> Option<(usize, u16)> {
    let mut at = 0;
    loop {
        match *options.get(at..)? {
            [] | [0, ..] => return None,
            [1, ..] => at += 1,
            [2, 4, a, b, ..] => return Some((at + 2, u16::from_be_bytes([a, b]))),
            [_, len, ..] if len >= 2 => at += usize::from(len),
            _ => return None,
        }
    }
}
