//! Packets as a description that proptest can shrink, and the bytes they stand for.

use proptest::collection::vec;
use proptest::prelude::*;
use tungate::wire::{Address, Checksum, Endpoint, Family, Gso, Offload, Protocol};

use crate::oracle;

/// What stands in the checksum field of a generated packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// What a sender would write.
    Right,
    /// That, plus this.
    Wrong(u16),
    /// Right, and the offload header says that a device has looked.
    Verified,
    /// The pseudo-header's sum, to be finished by a device.
    Partial,
    /// UDP's "no checksum".
    Absent,
}

/// The transport header.
#[derive(Clone, Debug)]
pub(crate) enum Transport {
    /// Bytes 4 to 20 of the header, where data offset and checksum are overwritten, and whole words of options.
    Tcp { fixed: [u8; 16], options: Vec<u8> },
    /// Bytes behind the end that the length field announces.
    Udp { surplus: usize },
}

/// One TCP or UDP packet.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) ends: (Endpoint, Endpoint),
    pub(crate) ttl: u8,
    /// DSCP and ECN.
    pub(crate) traffic: u8,
    /// IPv4: reserved and DF bit, identification; IPv6: flow label.
    pub(crate) label: u32,
    /// IPv4 options, whole words.
    pub(crate) options: Vec<u8>,
    /// IPv6 extension headers: kind, and all bytes of the header but the next header's kind.
    pub(crate) extensions: Vec<(u8, Vec<u8>)>,
    pub(crate) transport: Transport,
    /// Payload bytes, drawn from `seed`.
    pub(crate) payload: usize,
    pub(crate) seed: u32,
    pub(crate) state: State,
    /// Segment size of a super-packet.
    pub(crate) segment: Option<u16>,
}

impl Spec {
    pub(crate) fn family(&self) -> Family {
        if self.ends.0.address.is_v4() { Family::V4 } else { Family::V6 }
    }

    pub(crate) fn protocol(&self) -> Protocol {
        match self.transport {
            Transport::Tcp { .. } => Protocol::TCP,
            Transport::Udp { .. } => Protocol::UDP,
        }
    }

    /// Offset of the transport header.
    pub(crate) fn transport_at(&self) -> usize {
        match self.family() {
            Family::V4 => 20 + self.options.len(),
            Family::V6 => 40 + self.extensions.iter().map(|(_, body)| 1 + body.len()).sum::<usize>(),
        }
    }

    /// Offset of the transport checksum.
    pub(crate) fn checksum_at(&self) -> usize {
        self.transport_at() + oracle::field(self.protocol())
    }

    /// Bytes of all headers.
    pub(crate) fn headers(&self) -> usize {
        self.transport_at()
            + match &self.transport {
                Transport::Tcp { options, .. } => 20 + options.len(),
                Transport::Udp { .. } => 8,
            }
    }

    /// End of what the transport checksum covers.
    pub(crate) fn checksummed_end(&self) -> usize {
        self.headers() + self.payload
    }

    /// The payload.
    pub(crate) fn payload_bytes(&self) -> Vec<u8> {
        noise(self.seed, self.payload)
    }

    /// The packet, and the offload header before it.
    pub(crate) fn build(&self) -> (Vec<u8>, Offload) {
        let at = self.transport_at();
        let mut packet = self.ip_header();
        packet.extend(self.transport_header());
        packet.extend(self.payload_bytes());
        let end = packet.len();
        if let Transport::Udp { surplus } = self.transport {
            packet.extend(noise(!self.seed, surplus));
        }
        let right = oracle::transport(&packet, at, end, self.protocol());
        let field = match self.state {
            State::Right | State::Verified => right,
            State::Wrong(error) => match oracle::sum(&[&right.to_be_bytes(), &error.to_be_bytes()]) {
                0 => 0xffff,
                wrong => wrong,
            },
            State::Partial => oracle::sum(&[&oracle::pseudo_header(&packet, self.protocol(), end - at)]),
            State::Absent => 0,
        };
        let checksum_at = self.checksum_at();
        packet[checksum_at..checksum_at + 2].copy_from_slice(&field.to_be_bytes());
        (packet, self.offload())
    }

    fn offload(&self) -> Offload {
        let start = u16::try_from(self.transport_at()).unwrap();
        let offset = u16::try_from(oracle::field(self.protocol())).unwrap();
        let checksum = match self.state {
            State::Right | State::Wrong(_) | State::Absent => Checksum::Complete,
            State::Verified => Checksum::Verified,
            State::Partial => Checksum::Partial { start, offset },
        };
        let gso = match (self.segment, self.protocol(), self.family()) {
            (None, ..) => Gso::None,
            (Some(_), Protocol::UDP, _) => Gso::Udp,
            (Some(_), _, Family::V4) => Gso::TcpV4 { ecn: false },
            (Some(_), _, Family::V6) => Gso::TcpV6 { ecn: false },
        };
        // As the kernel does, a length that is not to be trusted.
        Offload { checksum, gso, segment_size: self.segment.unwrap_or(0), header_len: 77 }
    }

    fn ip_header(&self) -> Vec<u8> {
        let (source, destination) = (self.ends.0.address, self.ends.1.address);
        let surplus = if let Transport::Udp { surplus } = self.transport { surplus } else { 0 };
        let total = u16::try_from(self.checksummed_end() + surplus).unwrap();
        let label = self.label.to_be_bytes();
        if self.family() == Family::V4 {
            let words = u8::try_from(self.options.len() / 4).unwrap();
            let [high, low] = total.to_be_bytes();
            let mut header = vec![0x45 + words, self.traffic, high, low, label[2], label[3], label[1] & 0xc0, 0];
            header.extend([self.ttl, self.protocol().0, 0, 0]);
            header.extend(source.v4_octets());
            header.extend(destination.v4_octets());
            header.extend(&self.options);
            oracle::fix_ipv4(&mut header);
            return header;
        }
        let mut header = vec![0x60 | self.traffic >> 4, self.traffic << 4 | label[1] & 0x0f, label[2], label[3]];
        header.extend((total - 40).to_be_bytes());
        let kinds: Vec<u8> = self.extensions.iter().map(|(kind, _)| *kind).chain([self.protocol().0]).collect();
        header.extend([kinds[0], self.ttl]);
        header.extend(source.octets());
        header.extend(destination.octets());
        for ((_, body), next) in self.extensions.iter().zip(&kinds[1..]) {
            header.push(*next);
            header.extend(body);
        }
        header
    }

    fn transport_header(&self) -> Vec<u8> {
        let mut header = [self.ends.0.port.to_be_bytes(), self.ends.1.port.to_be_bytes()].concat();
        match &self.transport {
            Transport::Tcp { fixed, options } => {
                header.extend(fixed);
                header.extend(options);
                header[12] = u8::try_from(header.len() / 4).unwrap() << 4;
            }
            Transport::Udp { .. } => {
                header.extend(u16::try_from(8 + self.payload).unwrap().to_be_bytes());
                header.extend([0, 0]);
            }
        }
        header
    }
}

/// Bytes that look like nothing, the same for the same seed.
pub(crate) fn noise(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_be_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

pub(crate) fn address(family: Family) -> BoxedStrategy<Address> {
    match family {
        Family::V4 => any::<[u8; 4]>().prop_map(Address::v4).boxed(),
        Family::V6 => any::<[u8; 16]>().prop_map(Address::v6).prop_filter("not mapped", |a| !a.is_v4()).boxed(),
    }
}

pub(crate) fn ends(family: Family) -> impl Strategy<Value = (Endpoint, Endpoint)> {
    let end = || (address(family), any::<u16>()).prop_map(|(address, port)| Endpoint::new(address, port));
    (end(), end())
}

pub(crate) fn family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::V4), Just(Family::V6)]
}

/// IPv4 options but for source routes: no-operation, record route, timestamp, router alert, and kinds unknown to us.
fn v4_options() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![Just(7u8), Just(68), Just(148), Just(130), Just(0x9e)];
    let option = prop_oneof![
        Just(vec![1u8]),
        (kind, 0u8..9, any::<u32>()).prop_map(|(kind, len, seed)| [
            &[kind, len + 2],
            &noise(seed, usize::from(len))[..]
        ]
        .concat()),
    ];
    vec(option, 0..5).prop_map(|options| {
        let mut bytes = options.concat();
        bytes.truncate(40);
        // A cut option would not be one: end the list where the last whole one ends.
        let mut at = 0;
        while at < bytes.len() {
            let len = if bytes[at] == 1 { 1 } else { bytes.get(at + 1).map_or(99, |len| usize::from(*len)) };
            if at + len > bytes.len() {
                bytes.truncate(at);
            }
            at += len;
        }
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    })
}

/// IPv6 extension headers in an order that is allowed: hop-by-hop first, at most one fragment header, and that atomic;
/// no segments left, no home address.
fn v6_extensions() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
    let options = (0u8..3, any::<u8>()).prop_map(|(more, fill)| {
        let len = more * 8 + 4;
        // One option that says: skip me if you do not know me.
        [&[more, 0x1e, len], &vec![fill; usize::from(len)][..]].concat()
    });
    let routing = (0u8..2, any::<u32>()).prop_map(|(addresses, seed)| {
        [&[addresses * 2, 0, 0, 0, 0, 0, 0], &noise(seed, usize::from(addresses) * 16)[..]].concat()
    });
    let atomic = any::<[u8; 4]>().prop_map(|id| [&[0, 0, 0][..], &id].concat());
    let hop = proptest::option::of(options.clone().prop_map(|body| (0u8, body)));
    let chain = vec(prop_oneof![options.prop_map(|b| (60u8, b)), routing.prop_map(|b| (43u8, b))], 0..3);
    let atomic = proptest::option::of(atomic.prop_map(|body| (44u8, body)));
    (hop, chain, atomic).prop_map(|(hop, chain, atomic)| hop.into_iter().chain(chain).chain(atomic).collect())
}

fn transport() -> impl Strategy<Value = Transport> {
    prop_oneof![
        (any::<[u8; 16]>(), vec(any::<[u8; 4]>(), 0..=10))
            .prop_map(|(fixed, options)| Transport::Tcp { fixed, options: options.concat() }),
        prop_oneof![3 => Just(0usize), 1 => 1usize..20].prop_map(|surplus| Transport::Udp { surplus }),
    ]
}

fn state() -> impl Strategy<Value = State> {
    prop_oneof![
        Just(State::Right),
        (1u16..0xffff).prop_map(State::Wrong),
        Just(State::Verified),
        Just(State::Partial),
        Just(State::Absent),
    ]
}

/// Any TCP or UDP packet of one family that a gateway forwards, a super-packet now and then.
pub(crate) fn spec_of(family: Family) -> impl Strategy<Value = Spec> {
    let ip = (ends(family), 2u8.., any::<u8>(), any::<u32>(), v4_options(), v6_extensions());
    let body = (transport(), 0usize..100, any::<u32>(), state(), proptest::option::weighted(0.3, 1u16..2000));
    (ip, body).prop_map(move |(ip, (transport, payload, seed, state, segment))| {
        let (ends, ttl, traffic, label, options, extensions) = ip;
        let v4 = family == Family::V4;
        let mut spec = Spec {
            ends,
            ttl,
            traffic,
            label,
            options: if v4 { options } else { Vec::new() },
            extensions: if v4 { Vec::new() } else { extensions },
            transport,
            payload,
            seed,
            state,
            segment,
        };
        match (&mut spec.transport, spec.segment) {
            (Transport::Tcp { .. }, _) if spec.state == State::Absent => spec.state = State::Right,
            // Nothing lies behind a partial checksum, nor behind a super-packet.
            (Transport::Udp { surplus }, segment) if segment.is_some() || spec.state == State::Partial => *surplus = 0,
            _ => {}
        }
        if let Some(size) = spec.segment {
            spec.payload = spec.payload * usize::from(size) / 10 % 20_000;
        }
        spec
    })
}

pub(crate) fn spec() -> impl Strategy<Value = Spec> {
    family().prop_flat_map(spec_of)
}

/// A packet, and where NAT sends it.
pub(crate) fn translated() -> impl Strategy<Value = (Spec, (Endpoint, Endpoint))> {
    family().prop_flat_map(|family| (spec_of(family), ends(family)))
}

/// What a kernel would never say about a packet, and what it might.
pub(crate) fn any_offload() -> impl Strategy<Value = Offload> {
    let near = || prop_oneof![3 => 0u16..130, 1 => any::<u16>()];
    let checksum = prop_oneof![
        Just(Checksum::Complete),
        Just(Checksum::Verified),
        (near(), prop_oneof![Just(16u16), Just(6), Just(2), near()])
            .prop_map(|(start, offset)| Checksum::Partial { start, offset }),
        prop_oneof![Just((20u16, 16u16)), Just((20, 6)), Just((40, 16)), Just((40, 6)), Just((20, 2)), Just((40, 2))]
            .prop_map(|(start, offset)| Checksum::Partial { start, offset }),
    ];
    let gso = prop_oneof![
        3 => Just(Gso::None),
        1 => any::<bool>().prop_map(|ecn| Gso::TcpV4 { ecn }),
        1 => any::<bool>().prop_map(|ecn| Gso::TcpV6 { ecn }),
        1 => Just(Gso::Udp),
    ];
    (checksum, gso, near(), any::<u16>()).prop_map(|(checksum, gso, segment_size, header_len)| Offload {
        checksum,
        gso,
        segment_size,
        header_len,
    })
}
