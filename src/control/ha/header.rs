//! The header of every datagram between the two gateways: 32 bytes in the clear, authenticated with what follows.
//!
//! ```text
//!  0 magic 0x5447 (2)   2 major (1)   3 minor (1)   4 kind (1)   5 flags (1)   6 path (1)   7 key (1)
//!  8 cluster (4)       12 node (1)   13 zero (1)   14 length of the text (2)  16 boot (8)  24 counter (8)
//! 32 text, encrypted   .. tag (16)
//! ```
//!
//! All numbers are big-endian. The text begins with the receiver's boot id as the sender knows it.

/// Bytes of a header.
pub const LEN: usize = 32;

const MAGIC: u16 = 0x5447;
/// A gateway speaks to no other major version.
pub const MAJOR: u8 = 1;
/// What a newer minor version adds, an older one passes over.
pub const MINOR: u8 = 0;

/// What a datagram is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Who are you? Sent while the peer's boot is not known.
    Hello = 1,
    /// Answers a [`Self::Hello`], and proves to have heard it.
    HelloAck = 2,
    /// How the sender is.
    Heartbeat = 3,
    /// Changes of flows.
    Sync = 4,
    /// Which of them have come.
    Ack = 5,
    /// A part of all flows.
    Bulk = 6,
    /// Sums over all flows.
    Digest = 7,
    /// A step of a planned handover.
    Handoff = 8,
    /// A packet that came to the wrong one of the two.
    Relay = 9,
    /// The sender serves no more.
    Goodbye = 10,
    /// Of the third voice.
    Witness = 11,
}

impl Kind {
    /// All of them, in the order of their numbers, which begin with 1.
    pub const ALL: [Self; 11] = [
        Self::Hello,
        Self::HelloAck,
        Self::Heartbeat,
        Self::Sync,
        Self::Ack,
        Self::Bulk,
        Self::Digest,
        Self::Handoff,
        Self::Relay,
        Self::Goodbye,
        Self::Witness,
    ];

    fn of(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }
}

/// The header, as far as it differs from datagram to datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is for.
    pub kind: Kind,
    /// [`REPLY_REQUESTED`] and [`URGENT`].
    pub flags: u8,
    /// On which of the heartbeat paths it was sent, from 0.
    pub path: u8,
    /// Which key of the file it is sealed with.
    pub key: u8,
    /// Which pair the sender belongs to.
    pub cluster: u32,
    /// Which of the two the sender is.
    pub node: u8,
    /// Bytes of text, the tag not counted.
    pub len: u16,
    /// The sender's boot: random for each start of the process.
    pub boot: u64,
    /// Counts what the sender has sent since its boot, on all paths together.
    pub counter: u64,
}

/// Flag: the sender wants an answer.
pub const REPLY_REQUESTED: u8 = 1;
/// Flag: somebody waits for what it carries.
pub const URGENT: u8 = 1 << 1;

/// Why 32 bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoHeader {
    /// They begin with something else.
    Magic,
    /// Of another major version.
    Version,
    /// Of a kind that is not known.
    Kind,
}

impl Header {
    /// Reads it.
    ///
    /// # Errors
    /// [`NoHeader`].
    pub fn read(bytes: &[u8; LEN]) -> Result<Self, NoHeader> {
        if number(bytes, 0..2) != u64::from(MAGIC) {
            return Err(NoHeader::Magic);
        }
        if bytes[2] != MAJOR {
            return Err(NoHeader::Version);
        }
        Ok(Self {
            kind: Kind::of(bytes[4]).ok_or(NoHeader::Kind)?,
            flags: bytes[5],
            path: bytes[6],
            key: bytes[7],
            cluster: u32::from_be_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]),
            node: bytes[12],
            len: u16::from_be_bytes([bytes[14], bytes[15]]),
            boot: number(bytes, 16..24),
            counter: number(bytes, 24..32),
        })
    }

    /// Its bytes.
    pub fn bytes(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[0..2].copy_from_slice(&MAGIC.to_be_bytes());
        bytes[2..8].copy_from_slice(&[MAJOR, MINOR, self.kind as u8, self.flags, self.path, self.key]);
        bytes[8..12].copy_from_slice(&self.cluster.to_be_bytes());
        bytes[12] = self.node;
        bytes[14..16].copy_from_slice(&self.len.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.boot.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.counter.to_be_bytes());
        bytes
    }
}

fn number(bytes: &[u8; LEN], at: std::ops::Range<usize>) -> u64 {
    bytes[at].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header {
        kind: Kind::Goodbye,
        flags: URGENT,
        path: 2,
        key: 7,
        cluster: 0x0102_0304,
        node: 1,
        len: 0x1122,
        boot: 0xa1a2_a3a4_a5a6_a7a8,
        counter: 0xb1b2_b3b4_b5b6_b7b8,
    };

    #[test]
    fn a_header_has_these_bytes() {
        let bytes = [
            0x54, 0x47, 1, 0, 10, 2, 2, 7, 1, 2, 3, 4, 1, 0, 0x11, 0x22, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7,
            0xa8, 0xb1, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8,
        ];
        assert_eq!(HEADER.bytes(), bytes);
        assert_eq!(Header::read(&bytes), Ok(HEADER));
    }

    #[test]
    fn kinds_are_numbered_from_one_on_without_a_gap() {
        for (n, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(kind as u8), n + 1);
        }
        assert_eq!((Kind::of(0), Kind::of(12)), (None, None));
    }

    #[test]
    fn what_is_no_header_is_told_apart() {
        let with = |at: usize, byte| {
            let mut bytes = HEADER.bytes();
            bytes[at] = byte;
            Header::read(&bytes)
        };
        assert_eq!(with(0, 0), Err(NoHeader::Magic));
        assert_eq!(with(2, 2), Err(NoHeader::Version));
        assert_eq!(with(4, 0), Err(NoHeader::Kind));
        assert_eq!(with(3, 9), Ok(HEADER), "a newer minor version is understood");
    }
}
