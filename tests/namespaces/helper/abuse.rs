//! All that a network can do to a gateway, into its TUN as if the kernel had routed it there: what others captured, floods
//! of first packets and of fragments, forgeries in a client's name, and noise.

use std::fs;
use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use tungate::io::sys;
use tungate::wire::build::{self, Tcp};
use tungate::wire::{Address, Endpoint, Protocol, TcpFlags, checksum};

use crate::corpus::{self, Chance, is_v4, readdress};

const NAMES: [&str; 5] = ["captured", "SYNs", "fragments", "forgeries", "noise"];
/// The TCP service of the case, and a client of it that really is there.
const SERVICE: u16 = 7;
const CLIENTS: [Address; 2] =
    [Address::v4([198, 51, 100, 2]), Address::v6([0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2])];
const VIPS: [Address; 2] =
    [Address::v4([192, 0, 2, 10]), Address::v6([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10])];
const SOURCES: [Address; 2] =
    [Address::v4([10, 99, 0, 10]), Address::v6([0xfd, 0, 0, 0x99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10])];
const BACKENDS: [Address; 2] =
    [Address::v4([10, 0, 0, 1]), Address::v6([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])];

/// Sends `rate` packets a second into the interface, of each kind as many, and says what it was.
pub(super) fn abuse(interface: &str, seconds: u64, rate: usize) -> io::Result<()> {
    let index = fs::read_to_string(format!("/sys/class/net/{interface}/ifindex"))?;
    let index = index.trim().parse().map_err(io::Error::other)?;
    // A socket that hears nothing: the one instruction of its filter takes 0 bytes of each packet.
    let deaf = libc::sock_filter { code: 6, jt: 0, jf: 0, k: 0 };
    let mut wire = sys::packet_socket(index, 0x0800, &[deaf])?;
    let mut attacker = Attacker::new();
    let (start, end) = (Instant::now(), Duration::from_secs(seconds));
    let (mut sent, mut too_long, mut no_room) = ([0_u64; NAMES.len()], 0_u64, 0_u64);
    let mut made = 0;
    while start.elapsed() < end {
        let due = usize::try_from(start.elapsed().as_millis()).expect("not for ever") * rate / 1_000;
        while made < due {
            let kind = made % NAMES.len();
            made += 1;
            match wire.write(&attacker.packet(kind)) {
                Ok(_) => sent[kind] += 1,
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => too_long += 1,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => no_room += 1,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => no_room += 1,
                Err(error) => return Err(error),
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
    let kinds: Vec<String> = NAMES.iter().zip(sent).map(|(name, count)| format!("{count} {name}")).collect();
    super::print(&format!(
        "sent {} packets: {}; besides, {too_long} were longer than a packet can be, for {no_room} there was no room\n",
        sent.iter().sum::<u64>(),
        kinds.join(", ")
    ));
    Ok(())
}

struct Attacker {
    chance: Chance,
    captured: Vec<Vec<u8>>,
    /// Those captured packets that are still to come this time round.
    order: Vec<usize>,
}

impl Attacker {
    fn new() -> Self {
        let captured = corpus::packets().expect("the case has seen that they are there");
        Self { chance: Chance(u64::from(std::process::id())), captured, order: Vec::new() }
    }

    fn packet(&mut self, kind: usize) -> Vec<u8> {
        match kind {
            0 => self.captured(),
            1 => self.syn(),
            2 => self.fragment(),
            3 => self.forgery(),
            _ => self.noise(),
        }
    }

    /// One of the captured packets; two of three are for us.
    fn captured(&mut self) -> Vec<u8> {
        let next = self.order.pop().unwrap_or_else(|| {
            self.order = (0..self.captured.len()).collect();
            self.chance.shuffle(&mut self.order);
            self.order.pop().expect("there are some")
        });
        let mut bytes = self.captured[next].clone();
        let family = usize::from(!is_v4(&bytes));
        let (stranger, port) = (self.stranger(family), self.port());
        match self.chance.below(6) {
            0 | 1 => {}
            2 => readdress(&mut bytes, (Endpoint::new(BACKENDS[family], 9_000), Endpoint::new(SOURCES[family], port))),
            3 => readdress(&mut bytes, (stranger, Endpoint::new(VIPS[family], port))),
            _ => readdress(&mut bytes, (stranger, Endpoint::new(VIPS[family], SERVICE))),
        }
        bytes
    }

    fn syn(&mut self) -> Vec<u8> {
        let family = self.chance.below(2);
        let syn = Tcp { seq: self.word(), flags: TcpFlags::SYN, window: 64_000, ..Tcp::default() };
        build::tcp(self.stranger(family), Endpoint::new(VIPS[family], SERVICE), &syn)
    }

    /// Half of them of a few datagrams of a few clients, so that overlaps, copies and ends occur, too.
    fn fragment(&mut self) -> Vec<u8> {
        let family = self.chance.below(2);
        let protocol = [Protocol::TCP, Protocol::UDP, Protocol::ICMP, Protocol::ICMPV6][self.chance.below(4)];
        let id = u8::try_from(self.chance.below(64)).expect("below 64");
        let offset = if self.chance.below(3) == 0 { 0 } else { self.word16() & 0x1ff8 };
        let more = self.chance.below(4) > 0;
        let mut payload = self.bytes(if more { 8 * 90 } else { 700 });
        if more {
            payload.truncate(payload.len() / 8 * 8);
        }
        if payload.len() >= 8 && offset == 0 {
            payload[2..4].copy_from_slice(&SERVICE.to_be_bytes());
        }
        let many = self.stranger(family).address;
        let few = if family == 0 { Address::v4([203, 0, 113, 1 + id % 8]) } else { CLIENTS[1] };
        let client = if self.chance.below(2) == 0 { many } else { few };
        if family == 0 {
            let mut packet = build::ip(client, VIPS[0], protocol, build::TTL, &payload);
            packet[4..6].copy_from_slice(&[0, id]);
            packet[6..8].copy_from_slice(&((offset / 8) | (u16::from(more) << 13)).to_be_bytes());
            return finished(packet);
        }
        let mut header = vec![protocol.0, 0];
        header.extend((offset | u16::from(more)).to_be_bytes());
        header.extend(u32::from(id).to_be_bytes());
        header.extend(payload);
        build::ip(client, VIPS[1], Protocol(44), build::TTL, &header)
    }

    /// In the name of a client with connections, or about what it was sent: a guess at one of its ports, and at where it
    /// has come to.
    fn forgery(&mut self) -> Vec<u8> {
        let family = self.chance.below(2);
        let flags = [0x02, 0x04, 0x11, 0x10, 0x14, 0x12][self.chance.below(6)];
        let guess =
            Tcp { seq: self.word(), ack: self.word(), flags: TcpFlags(flags), window: self.word16(), ..Tcp::default() };
        let client = Endpoint::new(CLIENTS[family], 32_768 + self.word16() % 28_232);
        let vip = Endpoint::new(VIPS[family], SERVICE);
        if self.chance.below(4) > 0 {
            return build::tcp(client, vip, &guess);
        }
        // Unreachable in all ways, too big, time exceeded, parameter problem, quench, redirect.
        let v4 = [(3, 0), (3, 1), (3, 2), (3, 3), (3, 4), (3, 13), (11, 0), (12, 0), (4, 0), (5, 1)];
        let v6 = [(1, 0), (1, 1), (1, 4), (2, 0), (3, 0), (4, 1), (137, 0)];
        let (kind, code) = if family == 0 { v4[self.chance.below(v4.len())] } else { v6[self.chance.below(v6.len())] };
        let head = vec![kind, code, 0, 0, 0, 0, 2, self.ttl()];
        let quote = build::tcp(vip, client, &guess);
        build::icmp(self.stranger(family).address, vip.address, [head, quote].concat())
    }

    /// Random bytes: pure, or behind a header that leads them in.
    fn noise(&mut self) -> Vec<u8> {
        let bytes = self.bytes(1_400);
        let protocol = [1, 6, 17, 58, 0, 43, 60, 47, 132][self.chance.below(9)];
        let family = self.chance.below(2);
        match self.chance.below(4) {
            0 => bytes,
            _ => build::ip(self.stranger(family).address, VIPS[family], Protocol(protocol), self.ttl(), &bytes),
        }
    }

    fn stranger(&mut self, family: usize) -> Endpoint {
        let [a, b, c, d, ..] = self.chance.next().to_be_bytes();
        let address = if family == 0 {
            Address::v4([20 + a % 80, b, c, d])
        } else {
            Address::v6([0x20, 0x01, 0x0d, 0xb8, 0, 9, a, b, c, d, 0, 0, 0, 0, 0, 1])
        };
        Endpoint::new(address, self.port())
    }

    fn port(&mut self) -> u16 {
        1_024 + self.word16() % 60_000
    }

    fn ttl(&mut self) -> u8 {
        if self.chance.below(8) == 0 { 1 } else { 64 }
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let len = 1 + self.chance.below(most);
        let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| self.chance.next().to_be_bytes()).collect();
        bytes.truncate(len);
        bytes
    }

    fn word(&mut self) -> u32 {
        let [a, b, c, d, ..] = self.chance.next().to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }

    fn word16(&mut self) -> u16 {
        let [a, b, ..] = self.chance.next().to_be_bytes();
        u16::from_be_bytes([a, b])
    }
}

/// The IPv4 header with its checksum.
fn finished(mut packet: Vec<u8>) -> Vec<u8> {
    packet[10..12].fill(0);
    let sum = !checksum::sum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}
