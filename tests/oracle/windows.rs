//! How far each end of a connection may send, told by the other: what a decision about windows is about.

use tungate::wire::{Offload, Packet, TcpSegment};

use crate::pair::Side;

/// What is known of both senders, the client first.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    /// Behind the last byte that it may send.
    limits: [Option<u32>; 2],
    /// The window scale that it has offered.
    scales: [Option<u8>; 2],
    /// The number of the SYN and that of the SYN-ACK.
    isns: [Option<u32>; 2],
    /// Has sent a FIN.
    finished: [bool; 2],
    /// How much of the handshake has come again since both have: SYN, SYN-ACK.
    repeated: [bool; 2],
}

impl Windows {
    /// Takes note of a packet; whether it is a segment that begins beyond what its sender may send.
    pub(crate) fn note(&mut self, from: Side, packet: &[u8]) -> bool {
        let mut bytes = packet.to_vec();
        let packet = Packet::parse(&mut bytes, Offload::default()).ok();
        packet.as_ref().and_then(Packet::tcp).is_some_and(|segment| self.note_segment(from, &segment))
    }

    /// The connection is over, and its handshake has come again.
    pub(crate) fn is_repeated(&self) -> bool {
        self.repeated == [true; 2]
    }

    fn note_segment(&mut self, from: Side, segment: &TcpSegment<'_>) -> bool {
        let (own, other) = (from as usize, 1 - from as usize);
        let (syn, acks) = (segment.flags.0 & 0x02 != 0, segment.flags.0 & 0x10 != 0);
        self.finished[own] |= segment.flags.0 & 0x01 != 0;
        if syn {
            let again = self.finished == [true; 2] && self.isns[own] == Some(segment.seq);
            if !acks && !again {
                *self = Self::default();
            }
            self.repeated[own] = again;
            self.isns[own] = Some(segment.seq);
            self.scales[own] = segment.options().find(|(kind, _)| *kind == 3).map(|(_, value)| value[0].min(14));
        }
        let is_beyond = self.limits[own].is_some_and(|limit| before(limit, segment.seq));
        if acks {
            let scale = match self.scales {
                [Some(_), Some(_)] if !syn => self.scales[own].unwrap_or_default(),
                _ => 0,
            };
            let limit = segment.ack.wrapping_add(u32::from(segment.window) << scale);
            self.limits[other] = Some(self.limits[other].filter(|old| before(limit, *old)).unwrap_or(limit));
        }
        is_beyond
    }
}

/// In sequence space.
fn before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) > 1 << 31
}
