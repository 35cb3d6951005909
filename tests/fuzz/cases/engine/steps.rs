//! What may happen, read from the fuzzer's bytes front to back, so that a tape can also be written.

use arbitrary::{Arbitrary, Result, Unstructured};

/// One thing that happens to the gateway.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A client sends to a service.
    Client { client: u8, service: u8, segment: Segment },
    /// Whoever got the nth packet that left answers it.
    Answer { to: u8, segment: Segment },
    /// Whoever sent the nth packet that left goes on.
    Next { after: u8, segment: Segment },
    /// A frame as a TUN would deliver it.
    Frame { offload: [u8; 10], packet: Vec<u8> },
    /// A packet of a capture, as if this client had sent it to this service.
    Readdressed { client: u8, service: u8, packet: Vec<u8> },
    /// The nth packet that came comes again, with a byte of it changed.
    Again { nth: u8, at: u8, value: u8 },
    /// A fragment of a datagram that a client sends, or that answers the nth packet that left.
    Fragment { client: u8, answer: bool, tcp: bool, id: u8, offset: u8, len: u8, more: bool },
    /// An ICMP error about the nth packet that left.
    IcmpError { about: u8, kind: u8, code: u8, len: u8, quoted: u8, from_elsewhere: bool },
    /// A client asks whether an address is there.
    Echo { client: u8, service: u8, ttl: u8 },
    /// Time passes.
    Wait { how_long: u8 },
    /// Another configuration comes into force.
    Adopt { which: u8 },
    /// An operator ends a flow.
    Kill { nth: u8 },
    /// The next packets come to this worker's queue.
    Queue { worker: u8 },
}

/// What changes from segment to segment; a UDP service gets the payload alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) flags: u8,
    /// How far from what would be right.
    pub(crate) seq: u8,
    pub(crate) ack: u8,
    pub(crate) window: u16,
    pub(crate) options: u8,
    /// Payload bytes; of a large packet times eight, of a super-packet times sixteen.
    pub(crate) payload: u8,
    /// 0 a packet with a whole checksum, 1 with a partial one, 2 a super-packet, 3 a wrong checksum, 4 TTL 1, 5 a checksum
    /// that a device has found right, 6 a large packet, 7 one that may be cut.
    pub(crate) form: u8,
}

impl<'a> Arbitrary<'a> for Step {
    fn arbitrary(tape: &mut Unstructured<'a>) -> Result<Self> {
        Ok(match u8::arbitrary(tape)? % 16 {
            0 | 1 => Self::Client { client: byte(tape)?, service: byte(tape)?, segment: Segment::arbitrary(tape)? },
            2 | 3 => Self::Answer { to: byte(tape)?, segment: Segment::arbitrary(tape)? },
            4 => Self::Next { after: byte(tape)?, segment: Segment::arbitrary(tape)? },
            5 => Self::Frame { offload: <[u8; 10]>::arbitrary(tape)?, packet: packet(tape)? },
            6 => Self::Readdressed { client: byte(tape)?, service: byte(tape)?, packet: packet(tape)? },
            7 => Self::Again { nth: byte(tape)?, at: byte(tape)?, value: byte(tape)? },
            8 | 9 => {
                let kind = byte(tape)?;
                Self::Fragment {
                    answer: kind & 1 != 0,
                    tcp: kind & 2 != 0,
                    more: kind & 4 != 0,
                    client: byte(tape)?,
                    id: byte(tape)?,
                    offset: byte(tape)?,
                    len: byte(tape)?,
                }
            }
            10 => Self::IcmpError {
                about: byte(tape)?,
                kind: byte(tape)?,
                code: byte(tape)?,
                len: byte(tape)?,
                quoted: byte(tape)?,
                from_elsewhere: bool::arbitrary(tape)?,
            },
            11 => Self::Echo { client: byte(tape)?, service: byte(tape)?, ttl: byte(tape)? },
            12 => Self::Wait { how_long: byte(tape)? },
            13 => Self::Adopt { which: byte(tape)? },
            14 => Self::Kill { nth: byte(tape)? },
            _ => Self::Queue { worker: byte(tape)? },
        })
    }
}

impl<'a> Arbitrary<'a> for Segment {
    fn arbitrary(tape: &mut Unstructured<'a>) -> Result<Self> {
        let [flags, seq, ack, high, low, options, payload, form] = <[u8; 8]>::arbitrary(tape)?;
        Ok(Self { flags, seq, ack, window: u16::from_be_bytes([high, low]), options, payload, form })
    }
}

fn byte(tape: &mut Unstructured<'_>) -> Result<u8> {
    u8::arbitrary(tape)
}

/// Two bytes of length, low one first, and as many bytes as there are of that.
fn packet(tape: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let len = usize::from(u16::arbitrary(tape)?).min(tape.len());
    tape.bytes(len).map(<[u8]>::to_vec)
}
