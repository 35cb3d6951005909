//! Flows whose packets follow each other as a sender's do, and what may be different about one of them.
#![allow(clippy::wildcard_enum_match_arm, reason = "most twists leave most things as they are")]

use proptest::prelude::*;
use tungate::wire::{Checksum, Gso, OFFLOAD_LEN, Offload, Protocol};

use crate::oracle;

/// One direction of a flow.
pub(crate) struct Flow {
    kind: usize,
    size: usize,
    seq: u32,
    id: u16,
}

/// What is different about a packet. All but `None` last for this packet alone, but that a sender counts on from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Twist {
    None,
    // Nothing follows these.
    Push,
    Fin,
    Short,
    // These are no reason to stay alone.
    Partial,
    Verified,
    Super,
    // These are.
    Long,
    Empty,
    Syn,
    Reset,
    Urgent,
    EceFlag,
    Cwr,
    Acknowledgment,
    Window,
    UrgentPointer,
    Options,
    MoreOptions,
    Gap,
    Ttl,
    Class,
    Label,
    DontFragment,
    Reserved,
    Id,
    IpOptions,
    Fragment,
    Ping,
    WrongChecksum,
    NoChecksum,
    OtherZero,
    Surplus,
}

impl Twist {
    pub(crate) const ALL: [Self; 33] = [
        Self::None,
        Self::Push,
        Self::Fin,
        Self::Short,
        Self::Partial,
        Self::Verified,
        Self::Super,
        Self::Long,
        Self::Empty,
        Self::Syn,
        Self::Reset,
        Self::Urgent,
        Self::EceFlag,
        Self::Cwr,
        Self::Acknowledgment,
        Self::Window,
        Self::UrgentPointer,
        Self::Options,
        Self::MoreOptions,
        Self::Gap,
        Self::Ttl,
        Self::Class,
        Self::Label,
        Self::DontFragment,
        Self::Reserved,
        Self::Id,
        Self::IpOptions,
        Self::Fragment,
        Self::Ping,
        Self::WrongChecksum,
        Self::NoChecksum,
        Self::OtherZero,
        Self::Surplus,
    ];

    /// Whether a packet like this, with one before and one behind it, keeps the three from being one. Some twists mean
    /// nothing to some flows.
    pub(crate) fn keeps_apart(self, kind: usize) -> bool {
        let (udp, v6) = (Flow::is_udp(kind), Flow::is_v6(kind));
        match self {
            Self::None | Self::Partial | Self::Verified | Self::Super => false,
            Self::Push | Self::Fin | Self::Syn | Self::Reset | Self::Urgent | Self::EceFlag | Self::Cwr => !udp,
            Self::Acknowledgment | Self::Window | Self::UrgentPointer | Self::Options | Self::MoreOptions => !udp,
            Self::Gap | Self::OtherZero => !udp,
            Self::NoChecksum | Self::Surplus => udp,
            Self::DontFragment | Self::Reserved | Self::Id | Self::IpOptions => !v6,
            Self::Label => v6,
            Self::Short | Self::Long | Self::Empty | Self::Ttl | Self::Class => true,
            Self::Fragment | Self::Ping | Self::WrongChecksum => true,
        }
    }
}

/// Mostly none.
pub(crate) fn twist() -> impl Strategy<Value = Twist> {
    prop_oneof![2 => Just(Twist::None), 1 => prop::sample::select(Twist::ALL.to_vec())]
}

impl Flow {
    /// TCP and UDP over both families, and each again from another port.
    pub(crate) const KINDS: usize = 8;

    pub(crate) fn new(kind: usize) -> Self {
        // Sequence number and id wrap within a test.
        Self { kind, size: 100, seq: u32::MAX - 1000, id: u16::MAX - 10 }
    }

    pub(crate) fn of_size(self, size: usize) -> Self {
        Self { size, ..self }
    }

    pub(crate) fn is_udp(kind: usize) -> bool {
        kind % 4 >= 2
    }

    pub(crate) fn is_v6(kind: usize) -> bool {
        kind % 2 == 1
    }

    /// The next packet behind its offload header; the sender goes on from it.
    pub(crate) fn next(&mut self, twist: Twist) -> Vec<u8> {
        let payload = self.payload(twist);
        let (gap, jump) = (u32::from(twist == Twist::Gap), u16::from(twist == Twist::Id));
        self.seq = self.seq.wrapping_add(gap);
        self.id = self.id.wrapping_add(jump);
        let protocol = if Self::is_udp(self.kind) { Protocol::UDP } else { Protocol::TCP };
        let transport = match (twist, protocol) {
            (Twist::Ping, _) => vec![if Self::is_v6(self.kind) { 128 } else { 8 }, 0, 0, 0, 0, 1, 0, 1],
            (_, Protocol::UDP) => self.datagram(&payload),
            _ => self.segment(twist, &payload),
        };
        let mut packet = self.packet(twist, protocol, &transport);
        self.seq = self.seq.wrapping_add(u32::try_from(payload.len()).unwrap());
        let segments = if twist == Twist::Super { 3 } else { 1 };
        self.id = self.id.wrapping_add(segments);
        let at = packet.len() - transport.len();
        let offload = self.finish(twist, protocol, &mut packet, at);
        let mut frame = vec![0; OFFLOAD_LEN];
        offload.write(frame.first_chunk_mut().unwrap());
        if twist == Twist::Verified {
            frame[0] = 2; // what the header says on the way in alone
        }
        frame.extend(packet);
        frame
    }

    fn payload(&self, twist: Twist) -> Vec<u8> {
        let len = match twist {
            Twist::Empty | Twist::Ping => 0,
            Twist::Short => self.size - 1,
            Twist::Long => self.size + 1,
            Twist::Super => 3 * self.size,
            _ => self.size,
        };
        (0..u32::try_from(len).unwrap())
            .map(|n| (n * 37).wrapping_add(self.seq).wrapping_mul(0x9e37_79b1).to_be_bytes()[0])
            .collect()
    }

    fn ports(&self) -> [u8; 4] {
        [0x9c, 0x40 + u8::from(self.kind >= 4), 0, 80]
    }

    fn datagram(&self, payload: &[u8]) -> Vec<u8> {
        let len = u16::try_from(8 + payload.len()).unwrap().to_be_bytes();
        [&self.ports()[..], &len, &[0, 0], payload].concat()
    }

    fn segment(&self, twist: Twist, payload: &[u8]) -> Vec<u8> {
        let on = |of: Twist| u8::from(twist == of);
        let flags = 0x10
            | on(Twist::Fin)
            | on(Twist::Syn) << 1
            | on(Twist::Reset) << 2
            | on(Twist::Push) << 3
            | on(Twist::Urgent) << 5
            | on(Twist::EceFlag) << 6
            | on(Twist::Cwr) << 7;
        let mut options = vec![1, 1, 8, 10, 0, 0, 0, on(Twist::Options), 0, 0, 0, 9];
        if twist == Twist::MoreOptions {
            options.extend([1, 1, 1, 1]);
        }
        let words = u8::try_from(5 + options.len() / 4).unwrap();
        let fixed = [words << 4, flags, 0xfa, on(Twist::Window), 0, 0, 0, on(Twist::UrgentPointer)];
        let ack = [0, 0, 0, on(Twist::Acknowledgment)];
        [&self.ports()[..], &self.seq.to_be_bytes(), &ack, &fixed, &options, payload].concat()
    }

    fn packet(&self, twist: Twist, protocol: Protocol, transport: &[u8]) -> Vec<u8> {
        let on = |of: Twist| u8::from(twist == of);
        let (ttl, class) = (64 - on(Twist::Ttl), on(Twist::Class));
        if Self::is_v6(self.kind) {
            let protocol = if twist == Twist::Ping { Protocol::ICMPV6 } else { protocol };
            let fragment = if twist == Twist::Fragment { vec![protocol.0, 0, 0, 1, 0, 0, 0, 9] } else { Vec::new() };
            let next = if twist == Twist::Fragment { 44 } else { protocol.0 };
            // The first of several fragments has whole words.
            let transport = if twist == Twist::Fragment { &transport[..transport.len() / 8 * 8] } else { transport };
            let len = u16::try_from(fragment.len() + transport.len()).unwrap().to_be_bytes();
            let mut packet = vec![0x60, class << 4, 0, on(Twist::Label), len[0], len[1], next, ttl];
            let address = |last| [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
            [&address(7)[..], &address(10), &fragment, transport].iter().for_each(|part| packet.extend(*part));
            return packet;
        }
        let protocol = if twist == Twist::Ping { Protocol::ICMP } else { protocol };
        let transport = if twist == Twist::Fragment { &transport[..transport.len() / 8 * 8] } else { transport };
        let options: &[u8] = if twist == Twist::IpOptions { &[1, 1, 1, 0] } else { &[] };
        let len = u16::try_from(20 + options.len() + transport.len()).unwrap().to_be_bytes();
        let [high, low] = self.id.to_be_bytes();
        let flags = match twist {
            Twist::DontFragment => 0,
            Twist::Reserved => 0xc0,
            Twist::Fragment => 0x20,
            _ => 0x40,
        };
        let words = 0x45 + u8::try_from(options.len() / 4).unwrap();
        let mut packet = vec![words, class, len[0], len[1], high, low, flags, 0, ttl, protocol.0, 0, 0];
        packet.extend([198, 51, 100, 7, 192, 0, 2, 10]);
        packet.extend(options);
        packet.extend(transport);
        packet
    }

    /// The checksums, and what the kernel would say of them.
    fn finish(&self, twist: Twist, protocol: Protocol, packet: &mut Vec<u8>, at: usize) -> Offload {
        let whole = !matches!(twist, Twist::Fragment | Twist::Ping);
        let mut offload = Offload::default();
        if whole {
            let field = at + oracle::field(protocol);
            let right = oracle::transport(packet, at, packet.len(), protocol);
            let partial = oracle::sum(&[&oracle::pseudo_header(packet, protocol, packet.len() - at)]);
            let value = match twist {
                Twist::WrongChecksum => right ^ 0x0100,
                Twist::NoChecksum if protocol == Protocol::UDP => 0,
                Twist::OtherZero if protocol == Protocol::TCP => self.other_zero(packet, at),
                Twist::Partial | Twist::Super => partial,
                _ => right,
            };
            packet[field..field + 2].copy_from_slice(&value.to_be_bytes());
            if matches!(twist, Twist::Partial | Twist::Super) {
                let word = |n: usize| u16::try_from(n).unwrap();
                offload.checksum = Checksum::Partial { start: word(at), offset: word(oracle::field(protocol)) };
            }
        }
        if twist == Twist::Super {
            offload.segment_size = u16::try_from(self.size).unwrap();
            offload.gso = match (protocol, Self::is_v6(self.kind)) {
                (Protocol::UDP, _) => Gso::Udp,
                (_, true) => Gso::TcpV6 { ecn: false },
                (_, false) => Gso::TcpV4 { ecn: false },
            };
        }
        if twist == Twist::Surplus && protocol == Protocol::UDP {
            packet.extend([0xee; 3]);
            let (length_at, base) = if Self::is_v6(self.kind) { (4, 40) } else { (2, 0) };
            let len = u16::try_from(packet.len() - base).unwrap();
            packet[length_at..length_at + 2].copy_from_slice(&len.to_be_bytes());
        }
        oracle::fix_ipv4(packet);
        offload
    }

    /// Makes the payload one whose checksum is zero, and gives the other zero.
    fn other_zero(&self, packet: &mut [u8], at: usize) -> u16 {
        let end = packet.len();
        packet[end - 2..].fill(0);
        let sum = oracle::transport(packet, at, end, Protocol::TCP);
        let [high, low] = sum.to_be_bytes();
        let pair = if (end - at).is_multiple_of(2) { [high, low] } else { [low, high] };
        packet[end - 2..].copy_from_slice(&pair);
        assert_eq!(oracle::transport(packet, at, end, Protocol::TCP), 0);
        0xffff
    }
}
