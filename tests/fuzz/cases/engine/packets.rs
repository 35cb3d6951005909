//! From a step to the packet that it is.

use tungate::wire::build::{self, Tcp};
use tungate::wire::{
    Address, Checksum, Endpoint, Family, Gso, Offload, Packet, Protocol, TcpFlags, Translation, checksum,
};

use super::super::oracle;
use super::super::support::{at, with_ttl};
use super::steps::{Segment, Step};
use super::world::Sent;

/// Where clients go: services, a port and addresses where nobody listens, and what is not the gateway's at all.
const SERVICES: [(&str, Protocol); 14] = [
    ("192.0.2.10:80", Protocol::TCP),
    ("[2001:db8::10]:80", Protocol::TCP),
    ("192.0.2.10:53", Protocol::UDP),
    ("[2001:db8::10]:53", Protocol::UDP),
    ("192.0.2.20:8003", Protocol::TCP),
    ("192.0.2.10:81", Protocol::TCP),
    ("192.0.2.10:81", Protocol::UDP),
    ("10.99.0.10:40000", Protocol::TCP),
    ("[fd00:99::10]:40000", Protocol::UDP),
    ("203.0.113.77:80", Protocol::TCP),
    ("192.0.2.31:4000", Protocol::UDP),
    ("[2001:db8::31]:4000", Protocol::TCP),
    ("192.0.2.31:4001", Protocol::TCP),
    ("[2001:db8::31]:53", Protocol::UDP),
];

/// The packet of a step that is one, with its offload header.
pub(super) fn of(step: &Step, received: &[Vec<u8>], sent: &[Sent]) -> Option<(Vec<u8>, Offload)> {
    let nth = |n: u8| sent.get(usize::from(n).checked_rem(sent.len())?);
    let plain = |packet| (packet, Offload::default());
    Some(match *step {
        Step::Client { client, service, segment } => {
            let (to, protocol) = service_at(service);
            let ends = (client_at(client, to), to);
            segment.packet(ends, protocol, (1_000, 0))
        }
        Step::Answer { to, segment } => {
            let mut packet = nth(to)?.packet.clone();
            let Heard { ends, protocol, seq, ack } = hear(&mut packet)?;
            segment.packet((ends.1, ends.0), protocol, (ack, seq))
        }
        Step::Next { after, segment } => {
            let mut packet = nth(after)?.came.clone();
            let Heard { ends, protocol, seq, ack } = hear(&mut packet)?;
            segment.packet(ends, protocol, (seq, ack))
        }
        Step::Frame { offload, ref packet } => (packet.clone(), Offload::parse(&offload).ok()?),
        Step::Readdressed { client, service, ref packet } => {
            let to = service_at(service).0;
            plain(readdressed(packet.clone(), (client_at(client, to), to)))
        }
        Step::Again { nth, at, value } => {
            let mut packet = received.get(usize::from(nth).checked_rem(received.len())?)?.clone();
            let at = usize::from(at).checked_rem(packet.len())?;
            packet[at] = value;
            oracle::fix_ipv4(&mut packet);
            plain(packet)
        }
        Step::Fragment { client, answer, tcp, id, offset, len, more } => {
            let service = u8::from(!tcp) * 2 + (id >> 7);
            let to = service_at(service).0;
            let mut datagram = match (answer, tcp) {
                (true, _) => nth(client)?.packet.clone(),
                (false, true) => build::tcp(client_at(client, to), to, &Tcp { flags: TcpFlags::SYN, ..Tcp::default() }),
                (false, false) => build::udp(client_at(client, to), to, &[0x5a; 64]),
            };
            let ends = if answer { None } else { Some(hear(&mut datagram)?.ends) };
            plain(fragment(&mut datagram, ends, id, (offset, len, more))?)
        }
        Step::IcmpError { about, kind, code, len, quoted, from_elsewhere } => {
            plain(icmp_error(&nth(about)?.packet, [kind, code, len, quoted], from_elsewhere)?)
        }
        Step::Echo { client, service, ttl } => {
            let (asked, client) = (service_at(service).0, client_at(client, service_at(service).0));
            let kind = if asked.address.is_v4() { 8 } else { 128 };
            let message = vec![kind, 0, 0, 0, 1, 2, 3, 4, 5];
            plain(with_ttl(build::icmp(client.address, asked.address, message), ttl))
        }
        Step::Wait { .. } | Step::Adopt { .. } | Step::Kill { .. } | Step::Queue { .. } => return None,
    })
}

fn service_at(n: u8) -> (Endpoint, Protocol) {
    let (text, protocol) = SERVICES[usize::from(n) % SERVICES.len()];
    (at(text), protocol)
}

/// A client of the service's family; some of them cannot be.
fn client_at(n: u8, service: Endpoint) -> Endpoint {
    let v4 = service.address.is_v4();
    let port = [40_000, 40_001, 1_023, 0][usize::from(n >> 3 & 3)];
    let odd = match (n >> 5, v4) {
        (7, _) => Some(service),
        (6, true) => Some(at("127.0.0.1:0")),
        (6, false) => Some(at("[ff02::1]:0")),
        (5, true) => Some(at("10.0.0.1:0")),
        (5, false) => Some(at("[fd00::1]:0")),
        _ => None,
    };
    let low = 1 + (n & 7);
    let address = odd.map_or_else(
        || if v4 { Address::v4([198, 51, 100, low]) } else { at(&format!("[2001:db8:1::{low}]:0")).address },
        |odd| odd.address,
    );
    Endpoint::new(address, port)
}

/// What one has to know of a packet to go on from it.
struct Heard {
    ends: (Endpoint, Endpoint),
    protocol: Protocol,
    /// Where its sender goes on, and what it has acknowledged.
    seq: u32,
    ack: u32,
}

fn hear(packet: &mut [u8]) -> Option<Heard> {
    let packet = Packet::parse(packet, Offload::default()).ok()?;
    let (seq, ack) = packet.tcp().map_or((0, 0), |tcp| (tcp.seq.wrapping_add(tcp.seq_len()), tcp.ack));
    Some(Heard { ends: packet.endpoints()?, protocol: packet.protocol(), seq, ack })
}

impl Segment {
    /// With sequence and acknowledgment number near these, in one of the forms.
    fn packet(&self, ends: (Endpoint, Endpoint), protocol: Protocol, (seq, ack): (u32, u32)) -> (Vec<u8>, Offload) {
        const PARTIAL: u8 = 1;
        const SUPER: u8 = 2;
        const WRONG: u8 = 3;
        const LAST_HOP: u8 = 4;
        const VERIFIED: u8 = 5;
        const LARGE: u8 = 6;
        const LARGE_TO_BE_CUT: u8 = 7;
        let form = self.form % 8;
        let size = usize::from(self.payload)
            * match form {
                SUPER => 16,
                LARGE | LARGE_TO_BE_CUT => 8,
                _ => 1,
            };
        let payload = vec![0x5a; size];
        let tcp = Tcp {
            seq: near(seq, self.seq),
            ack: near(ack, self.ack),
            flags: TcpFlags(self.flags),
            window: self.window,
            options: OPTIONS[usize::from(self.options) % OPTIONS.len()],
            payload: &payload,
        };
        let mut packet = if protocol == Protocol::TCP {
            build::tcp(ends.0, ends.1, &tcp)
        } else {
            build::udp(ends.0, ends.1, &payload)
        };
        let at = if ends.0.address.is_v4() { 20 } else { 40 };
        let field = at + oracle::field(protocol);
        let mut offload = Offload::default();
        match form {
            PARTIAL | SUPER => {
                let len = packet.len() - at;
                let sum = checksum::pseudo_header(ends.0.address, ends.1.address, protocol, len);
                packet[field..field + 2].copy_from_slice(&sum.to_be_bytes());
                let [start, offset] = [at, field - at].map(|n| u16::try_from(n).unwrap());
                offload.checksum = Checksum::Partial { start, offset };
            }
            WRONG => packet[field] ^= 1,
            LAST_HOP => packet = with_ttl(packet, 1),
            VERIFIED => offload.checksum = Checksum::Verified,
            LARGE_TO_BE_CUT if at == 20 => {
                packet[6] = 0; // DF
                oracle::fix_ipv4(&mut packet);
            }
            _ => {}
        }
        if form == SUPER {
            offload.segment_size = 500;
            offload.gso = match (protocol, ends.0.address.is_v4()) {
                (Protocol::TCP, true) => Gso::TcpV4 { ecn: false },
                (Protocol::TCP, false) => Gso::TcpV6 { ecn: true },
                _ => Gso::Udp,
            };
        }
        (packet, offload)
    }
}

/// TCP options: none; scaling, selective acknowledgments and timestamps; the most scaling; more than that; nonsense.
const OPTIONS: [&[u8]; 5] = [
    &[],
    &[2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7],
    &[3, 3, 14, 0],
    &[3, 3, 15, 0],
    &[3, 0, 3, 2],
];

/// The number itself for most values, or one at a distance that means something to a window.
fn near(number: u32, distance: u8) -> u32 {
    const DISTANCES: [i32; 8] = [1, -1, 1_000, -1_000, 70_000, -70_000, i32::MIN, 1 << 30];
    let n = usize::from(distance);
    if n < 128 { number } else { number.wrapping_add_signed(DISTANCES[n % DISTANCES.len()]) }
}

/// The packet between these ends, if it has ends of their family.
fn readdressed(mut bytes: Vec<u8>, to: (Endpoint, Endpoint)) -> Vec<u8> {
    if let Ok(mut packet) = Packet::parse(&mut bytes, Offload::default())
        && let Some(ends) = packet.endpoints()
        && ends.0.address.is_v4() == to.0.address.is_v4()
    {
        packet.translate(&Translation::new(ends, to));
    }
    bytes
}

/// A piece of a datagram: from so many eight bytes on, so long. Without ends it is an answer.
fn fragment(
    datagram: &mut [u8],
    ends: Option<(Endpoint, Endpoint)>,
    id: u8,
    (offset, len, more): (u8, u8, bool),
) -> Option<Vec<u8>> {
    let packet = Packet::parse(datagram, Offload::default()).ok()?;
    let (protocol, mut message) = (packet.protocol(), packet.transport().to_vec());
    let (source, destination) = packet.addresses();
    let (source, destination) = if ends.is_some() { (source, destination) } else { (destination, source) };
    if ends.is_none() {
        let (low, high) = message.get_mut(..4)?.split_at_mut(2);
        low.swap_with_slice(high);
    }
    message.resize(400, 0xa5);
    let start = usize::from(offset % 16) * 8;
    let len = if more { usize::from(len % 16 + 1) * 8 } else { usize::from(len) + 1 };
    let place = offset_word(start, more, source.is_v4());
    let piece = &message[start..start + len];
    if !source.is_v4() {
        let header = [&[protocol.0, 0], &place.to_be_bytes()[..], &[0, 0, 0, id]].concat();
        return Some(build::ip(source, destination, Protocol(44), build::TTL, &[&header, piece].concat()));
    }
    let mut packet = build::ip(source, destination, protocol, build::TTL, piece);
    packet[4..6].copy_from_slice(&u16::from(id).to_be_bytes());
    packet[6..8].copy_from_slice(&place.to_be_bytes());
    oracle::fix_ipv4(&mut packet);
    Some(packet)
}

/// Offset and "more" as they stand in the header.
fn offset_word(start: usize, more: bool, v4: bool) -> u16 {
    let start = u16::try_from(start).unwrap();
    if v4 { (start / 8) | (u16::from(more) << 13) } else { start | u16::from(more) }
}

fn icmp_error(about: &[u8], [kind, code, len, quoted]: [u8; 4], from_elsewhere: bool) -> Option<Vec<u8>> {
    let mut copy = about.to_vec();
    let packet = Packet::parse(&mut copy, Offload::default()).ok()?;
    let (sender, destination) = packet.addresses();
    let v4 = packet.family() == Family::V4;
    let kinds: [u8; 8] = if v4 { [3, 3, 11, 12, 4, 5, 8, 13] } else { [1, 2, 3, 4, 128, 129, 135, 137] };
    let from = match (from_elsewhere, v4) {
        (false, _) => destination,
        (true, true) => at("203.0.113.1:0").address,
        (true, false) => at("[2001:db8:9::1]:0").address,
    };
    let quote = &about[..about.len().min(usize::from(len) * 2)];
    // An MTU of 1024 to 2047 bytes, where the message has one.
    let mut message = vec![kinds[usize::from(kind) % kinds.len()], code, 0, 0, 0, 0, 4 | (code & 3), len];
    message[if v4 { 5 } else { 4 }] = quoted;
    message.extend(quote);
    Some(build::icmp(from, sender, message))
}
