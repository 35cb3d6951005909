//! The captures in `pcaps/`: each is a story told here, and what the gateway makes of it is committed beside it.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may fail that way, and says what it skips")]

mod common;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tungate::engine::Instant;
use tungate::io::pcap::Writer;
use tungate::wire::build::{self, Tcp};
use tungate::wire::icmp::{self, Error};
use tungate::wire::{Endpoint, Offload, Packet, Protocol, TcpFlags, checksum};

const SYN: u8 = TcpFlags::SYN.0;
const ACK: u8 = TcpFlags::ACK.0;
const FIN: u8 = TcpFlags::FIN.0;
const RST: u8 = TcpFlags::RST.0;

/// The ends of a flow: client, service, the gateway's source, backend.
#[derive(Clone, Copy)]
struct Ends {
    client: Endpoint,
    service: Endpoint,
    source: Endpoint,
    backend: Endpoint,
}

fn at(text: &str) -> Endpoint {
    text.parse::<SocketAddr>().unwrap().into()
}

fn ends(client: &str, service: &str, source: &str, backend: &str) -> Ends {
    Ends { client: at(client), service: at(service), source: at(source), backend: at(backend) }
}

fn web() -> [Ends; 2] {
    [
        ends("198.51.100.7:40000", "192.0.2.10:80", "10.99.0.10:40000", "10.0.0.1:8080"),
        ends("[2001:db8:1::7]:40000", "[2001:db8::10]:80", "[fd00:99::10]:40000", "[fd00::1]:8080"),
    ]
}

fn dns() -> [Ends; 2] {
    [
        ends("198.51.100.7:40000", "192.0.2.10:53", "10.99.0.10:40000", "10.0.0.1:5353"),
        ends("[2001:db8:1::7]:40000", "[2001:db8::10]:53", "[fd00:99::10]:40000", "[fd00::1]:5353"),
    ]
}

fn transparent() -> [Ends; 2] {
    [
        ends("198.51.100.7:40000", "192.0.2.10:443", "198.51.100.7:40000", "10.0.0.2:443"),
        ends("[2001:db8:1::7]:40000", "[2001:db8::10]:443", "[2001:db8:1::7]:40000", "[fd00::2]:443"),
    ]
}

/// Packets with the time since the one before, microseconds.
#[derive(Default)]
struct Story(Vec<(u64, Vec<u8>)>);

impl Story {
    fn then(&mut self, packet: Vec<u8>) -> &mut Self {
        self.after(1_000, packet)
    }

    fn after(&mut self, micros: u64, packet: Vec<u8>) -> &mut Self {
        self.0.push((micros, packet));
        self
    }

    /// From the client to the service.
    fn asks(&mut self, ends: Ends, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> &mut Self {
        self.then(build::tcp(ends.client, ends.service, &segment(flags, seq, ack, payload)))
    }

    /// From the backend to whom it sees.
    fn answers(&mut self, ends: Ends, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> &mut Self {
        self.then(build::tcp(ends.backend, ends.source, &segment(flags, seq, ack, payload)))
    }
}

fn segment(flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Tcp<'_> {
    // MSS 1460, SACK permitted, window scale 7, as Linux sends them.
    const OPTIONS: &[u8] = &[2, 4, 5, 0xb4, 4, 2, 1, 3, 3, 7, 0, 0];
    let options = if flags & SYN != 0 { OPTIONS } else { &[] };
    Tcp { seq, ack, flags: TcpFlags(flags), window: 502, options, payload }
}

/// A connection from its first SYN to the last ACK.
fn connection(story: &mut Story, ends: Ends) {
    let (get, page) = (&b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"[..], &b"HTTP/1.1 200 OK\r\n\r\nhello"[..]);
    let (asked, told) = (1001 + u32::try_from(get.len()).unwrap(), 9001 + u32::try_from(page.len()).unwrap());
    story
        .asks(ends, SYN, 1000, 0, b"")
        .answers(ends, SYN | ACK, 9000, 1001, b"")
        .asks(ends, ACK, 1001, 9001, b"")
        .asks(ends, ACK, 1001, 9001, get)
        .answers(ends, ACK, 9001, asked, page)
        .answers(ends, FIN | ACK, told, asked, b"")
        .asks(ends, FIN | ACK, asked, told + 1, b"")
        .answers(ends, ACK, told + 1, asked + 1, b"");
}

fn tcp() -> Story {
    let mut story = Story::default();
    web().into_iter().chain(transparent()).for_each(|ends| connection(&mut story, ends));
    // The same ports again, while the old connection is in TIME-WAIT: a new one at once.
    story.asks(web()[0], SYN, 700_000, 0, b"").answers(web()[0], SYN | ACK, 800_000, 700_001, b"");
    story
}

fn udp() -> Story {
    let mut story = Story::default();
    for ends in dns() {
        story.then(build::udp(ends.client, ends.service, b"who is there?"));
        story.then(build::udp(ends.backend, ends.source, b"nobody"));
        story.then(build::udp(ends.client, ends.service, b""));
    }
    // No checksum (IPv4 only) is no checksum on the other side.
    let mut without = build::udp(dns()[0].client, dns()[0].service, b"unchecked");
    without[26..28].fill(0);
    story.then(without);
    story
}

fn icmp_story() -> Story {
    let mut story = Story::default();
    for ends in dns() {
        story.then(build::udp(ends.client, ends.service, b"who is there?"));
        // The backend has no socket there: its error quotes what it received.
        story.then(about(
            &build::udp(ends.source, ends.backend, b"who is there?"),
            Error::PortUnreachable,
            ends.backend,
        ));
        // A router on the way to the client finds the answer too big: its error quotes what the client would have got.
        let router = at(if ends.client.address.is_v4() { "203.0.113.9:0" } else { "[2001:db8:9::9]:0" });
        let answer = build::udp(ends.service, ends.client, &[7; 600]);
        story.then(about(&answer, Error::TooBig(1280), router));
        // It may be about nobody's flow, too.
        let nobody = Endpoint::new(ends.client.address, 1);
        story.then(about(&build::udp(ends.service, nobody, b"stray"), Error::PortUnreachable, router));
    }
    for ends in web() {
        let kind = if ends.client.address.is_v4() { 8 } else { 128 };
        let ping = vec![kind, 0, 0, 0, 0x12, 0x34, 0, 1, b'p', b'i', b'n', b'g'];
        story.then(build::icmp(ends.client.address, ends.service.address, ping));
    }
    story
}

fn about(packet: &[u8], error: Error, from: Endpoint) -> Vec<u8> {
    let mut bytes = packet.to_vec();
    let packet = Packet::parse(&mut bytes, Offload::default()).unwrap();
    icmp::error(&packet, error, from.address).unwrap()
}

fn fragments() -> Story {
    let mut story = Story::default();
    let ends = dns()[0];
    let whole = build::udp(ends.client, ends.service, &[0x61; 2000]);
    let pieces: Vec<_> = [(0, 1480, true), (1480, 528, false)]
        .into_iter()
        .map(|(from, len, more)| fragment(&whole, 0x4242, from, len, more))
        .collect();
    // In order, and the last one first.
    story.then(pieces[0].clone()).then(pieces[1].clone());
    let again: Vec<_> = [(1480, 528, false), (0, 1480, true)]
        .into_iter()
        .map(|(from, len, more)| fragment(&whole, 0x4343, from, len, more))
        .collect();
    story.then(again[0].clone()).then(again[1].clone());
    // Teardrop: the second overlaps the first.
    story.then(fragment(&whole, 0x4444, 0, 1480, true)).then(fragment(&whole, 0x4444, 1472, 536, false));
    story
}

fn fragment(whole: &[u8], id: u16, from: usize, len: usize, more: bool) -> Vec<u8> {
    let mut packet = whole[..20].to_vec();
    packet.extend(&whole[20 + from..20 + from + len]);
    let offset = (u16::try_from(from).unwrap() / 8) | (u16::from(more) << 13);
    let total = u16::try_from(packet.len()).unwrap();
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    packet[6..8].copy_from_slice(&offset.to_be_bytes());
    packet[10..12].fill(0);
    let sum = !checksum::sum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// What comes from people who wish us ill, and what is only lost.
fn hostile() -> Story {
    let ends = web()[0];
    let mut story = Story::default();
    let stranger = at("198.51.100.66:6666");
    let send = |flags: u8| build::tcp(stranger, ends.service, &segment(flags, 1, 0, b""));
    story.then(send(0)).then(send(FIN | 0x28)).then(send(SYN | FIN)).then(send(SYN | RST)); // null, xmas, and worse
    story.then(build::tcp(ends.service, ends.service, &segment(SYN, 1, 0, b""))); // land
    story.then(build::tcp(at("127.0.0.1:1"), ends.service, &segment(SYN, 1, 0, b"")));
    story.then(build::tcp(at("240.0.0.1:1"), ends.service, &segment(SYN, 1, 0, b"")));
    story.then(build::tcp(at("198.51.100.66:0"), ends.service, &segment(SYN, 1, 0, b"")));
    story.then(send(ACK)); // mid-stream: reset
    story.then(build::tcp(stranger, Endpoint::new(ends.service.address, 81), &segment(SYN, 1, 0, b""))); // nobody listens
    story.then(build::tcp(stranger, at("203.0.113.5:80"), &segment(SYN, 1, 0, b""))); // not ours at all
    let mut last_hop = send(SYN);
    last_hop[8] = 1;
    last_hop[10..12].fill(0);
    let sum = !checksum::sum(&last_hop[..20]);
    last_hop[10..12].copy_from_slice(&sum.to_be_bytes());
    story.then(last_hop);
    // A live connection, and a forger who guesses wrong.
    story.asks(ends, SYN, 1000, 0, b"").answers(ends, SYN | ACK, 9000, 1001, b"").asks(ends, ACK, 1001, 9001, b"");
    story.asks(ends, RST, 4_000_000_000, 0, b"").asks(ends, RST, 1002, 0, b"").asks(ends, ACK, 1001, 9001, b"alive");
    story
}

/// Direct server return: into tunnels of each kind and both families; answers do not come by.
fn dsr() -> Story {
    let mut story = Story::default();
    for vip in ["192.0.2.20", "192.0.2.21", "192.0.2.22", "[2001:db8::20]", "[2001:db8::21]", "[2001:db8::22]"] {
        let v4 = vip.starts_with('1');
        let client = at(if v4 { "198.51.100.7:40000" } else { "[2001:db8:1::7]:40000" });
        let ends = Ends { client, service: at(&format!("{vip}:80")), source: client, backend: client };
        story.asks(ends, SYN, 1000, 0, b"").asks(ends, ACK, 1001, 9001, b"").asks(ends, ACK, 1001, 9001, b"GET /");
        story.asks(ends, ACK, 1006, 9001, &[0x62; 1440]); // too big for the tunnel
        story.asks(ends, FIN | ACK, 1006, 9005, b"").asks(ends, ACK, 1007, 9006, b"");
        story.then(build::udp(client, at(&format!("{vip}:4500")), b"a datagram"));
        // A router finds the backend's answer too big: that is for the backend to hear.
        let router = at(if v4 { "203.0.113.9:0" } else { "[2001:db8:9::9]:0" });
        story.then(about(
            &build::tcp(ends.service, client, &segment(ACK, 9001, 1006, &[7; 600])),
            Error::TooBig(1280),
            router,
        ));
    }
    // In the middle of a connection that nobody knows: picked up.
    story.then(build::tcp(at("198.51.100.8:40000"), at("192.0.2.20:80"), &segment(ACK, 5, 6, b"still here")));
    // Without DF it is cut before it is wrapped.
    let mut large = build::udp(at("198.51.100.7:40000"), at("192.0.2.22:4500"), &[0x63; 1472]);
    large[4..8].copy_from_slice(&[0x51, 0x51, 0, 0]);
    large[10..12].fill(0);
    let sum = !checksum::sum(&large[..20]);
    large[10..12].copy_from_slice(&sum.to_be_bytes());
    story.then(large);
    // A protocol without ports, with ECN and DSCP marks.
    let mut esp = build::ip(at("198.51.100.7:0").address, at("192.0.2.21:0").address, Protocol(50), 64, &[0x64; 48]);
    esp[1] = 0xba;
    esp[10..12].fill(0);
    let sum = !checksum::sum(&esp[..20]);
    esp[10..12].copy_from_slice(&sum.to_be_bytes());
    story.then(esp);
    // From inside a tunnel: the path takes 1300 bytes. The client hears of it, and the next one is told at once.
    let ends = web()[0];
    let big = build::tcp(ends.client, at("192.0.2.20:80"), &segment(ACK, 1007, 9006, &[0x65; 1300]));
    let wrapped = [&[0, 0, 8, 0], &big[..]].concat();
    let outer = build::ip(ends.source.address, ends.backend.address, Protocol::GRE, 64, &wrapped);
    story.then(big.clone()).then(about(&outer, Error::TooBig(1300), at("10.0.5.5:0"))).then(big);
    story
}

/// tshark reads every packet in every tunnel, and has nothing to complain of.
#[test]
fn tshark_decodes_what_leaves_in_tunnels() {
    if Command::new("tshark").arg("-v").output().is_err() {
        return common::skip("tshark_decodes_what_leaves_in_tunnels", "there is no tshark", "apt-get install tshark");
    }
    let mut command = Command::new("tshark");
    command.arg("-r").arg(fixture("dsr.out.pcap")).args(["-T", "fields"]);
    for option in ["ip.check_checksum", "tcp.check_checksum", "udp.check_checksum"] {
        command.args(["-o", &format!("{option}:TRUE")]);
    }
    for field in
        ["frame.protocols", "_ws.malformed", "ip.checksum.status", "tcp.checksum.status", "udp.checksum.status"]
    {
        command.args(["-e", field]);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.lines().count() > 40, "{text}");
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [protocols, malformed, checksums @ ..] = fields.as_slice() else { panic!("{line}") };
        assert!(malformed.is_empty(), "{line}");
        // 0: bad. 1: good. 2: not verified, as in a fragment. 3: none. A quote is cut, and its checksum says nothing.
        let quotes = protocols.contains("icmp");
        assert!(quotes || checksums.iter().all(|status| status.split(',').all(|one| one != "0")), "{line}");
        // It knows no GUE, and looks at its UDP alone.
        let known = ["gre", "udp:data", "ip:ip:", "ip:ipv6:", "ipv6:ip:", "ipv6:ipv6:", "icmp"];
        assert!(known.iter().any(|what| protocols.contains(what)), "{line}");
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pcaps").join(name)
}

fn capture(story: &Story) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new()).unwrap();
    let mut now = 1_767_225_600_000_000; // 2026-01-01T00:00:00Z
    for (pause, packet) in &story.0 {
        now += pause;
        writer.packet(Instant::from_micros(now), packet).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn the_gateway_makes_of_each_story_what_is_committed() {
    let update = std::env::var_os("UPDATE_FIXTURES").is_some();
    let folder = std::env::temp_dir().join(format!("tungate-fixtures-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let stories = [
        ("tcp", tcp()),
        ("udp", udp()),
        ("icmp", icmp_story()),
        ("fragments", fragments()),
        ("hostile", hostile()),
        ("dsr", dsr()),
    ];
    let mut different = Vec::new();
    let mut compare = |name: String, made: Vec<u8>| {
        if update {
            fs::write(fixture(&name), &made).unwrap();
        } else if fs::read(fixture(&name)).ok() != Some(made) {
            different.push(name);
        }
    };
    for (name, story) in stories {
        let (input, out, report) = (folder.join("in"), folder.join("out"), folder.join("report"));
        let bytes = capture(&story);
        fs::write(&input, &bytes).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tungate"));
        command.arg("replay").arg(&input).arg("-c").arg(fixture("gateway.toml")).arg("-w").arg(&out);
        let output = command.arg("--report").arg(&report).args(["--seed", "1"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        compare(format!("{name}.pcap"), bytes);
        compare(format!("{name}.out.pcap"), fs::read(&out).unwrap());
        compare(format!("{name}.jsonl"), fs::read(&report).unwrap());
    }
    fs::remove_dir_all(&folder).unwrap();
    assert!(different.is_empty(), "changed: {different:?}; see pcaps/README.md");
}
