//! Makes the corpora that fuzzing starts from, out of public captures and the tests' own files:
//! `cargo +nightly run --example corpus -- CAPTURES CORPUS`, in this folder.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use tungate::admin::{FlowFilter, Probe, Question, Request, hex};
use tungate::io::pcap::{Content, Reader};
use tungate::wire::{Offload, Packet, Protocol};

/// Longest seed: what is longer slows the fuzzer down more than it teaches it.
const LONGEST: usize = 4096;

fn main() {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(captures), Some(corpus)) = (args.next(), args.next()) else {
        panic!("usage: corpus CAPTURES CORPUS");
    };
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    walk(&captures, &mut files);
    let packets: Vec<Vec<u8>> = files.iter().flat_map(|file| packets(file)).collect();
    println!("{} packets of {} files", packets.len(), files.len());

    let mut pcap = Seeds::new(&corpus, "pcap");
    files.iter().filter_map(|file| fs::read(file).ok()).for_each(|bytes| pcap.add(&bytes));
    let mut parse = Seeds::new(&corpus, "parse");
    packets.iter().for_each(|packet| framed(packet).iter().for_each(|frame| parse.add(frame)));
    let mut engine = Seeds::new(&corpus, "engine");
    for (n, conversation) in (0u8..=255).cycle().zip(packets.chunks(5)) {
        engine.add(&tape(n, conversation));
    }
    let mut config = Seeds::new(&corpus, "config");
    let mut texts = Vec::new();
    ["tests/bad-configs", "tests/cli", "pcaps"].iter().for_each(|dir| walk(&repository.join(dir), &mut texts));
    texts.retain(|path| path.extension().is_some_and(|e| e == "toml"));
    texts.iter().for_each(|path| config.add(&fs::read(path).unwrap()));
    config.add(tungate::config::example().as_bytes());
    // All that is commented out there, in force.
    config.add(tungate::config::example().replace("# ", "").as_bytes());
    let mut admin = Seeds::new(&corpus, "admin");
    questions().into_iter().for_each(|request| admin.add(&Question::line(request)));
    packets.iter().step_by(50).for_each(|packet| admin.add(&[&[0], &packet[..]].concat()));
}

/// The folder of one target.
struct Seeds {
    folder: PathBuf,
    count: usize,
}

impl Seeds {
    fn new(corpus: &Path, target: &str) -> Self {
        let folder = corpus.join(target);
        fs::create_dir_all(&folder).unwrap();
        Self { folder, count: 0 }
    }

    fn add(&mut self, bytes: &[u8]) {
        if bytes.len() <= LONGEST {
            self.count += 1;
            let path = self.folder.join(format!("seed-{:05}", self.count));
            File::create(path).unwrap().write_all(bytes).unwrap();
        }
    }
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() { walk(&path, found) } else { found.push(path) }
    }
}

/// Every tenth IP packet of a capture: neighbours are alike.
fn packets(path: &Path) -> Vec<Vec<u8>> {
    let Ok(mut reader) = Reader::new(File::open(path).unwrap()) else { return Vec::new() };
    let mut packets = Vec::new();
    while let Ok(Some(frame)) = reader.next_frame() {
        if let Content::Ip(packet) = frame.content {
            packets.push(packet.to_vec());
        }
    }
    packets.into_iter().step_by(10).filter(|packet| (1..LONGEST).contains(&packet.len())).collect()
}

/// The packet as a TUN could deliver it: plain, and as a super-packet with a partial checksum where it may be one.
fn framed(packet: &[u8]) -> Vec<Vec<u8>> {
    let plain = [&[0; 10], packet].concat();
    let mut copy = packet.to_vec();
    let Ok(parsed) = Packet::parse(&mut copy, Offload::default()) else { return vec![plain] };
    let (gso, field) = match parsed.protocol() {
        Protocol::TCP => (if packet[0] >> 4 == 4 { 1 } else { 4 }, 16),
        Protocol::UDP => (5, 6),
        _ => return vec![plain],
    };
    let start = u8::try_from(parsed.header().payload).unwrap_or(0);
    vec![plain, [&[1, gso, 0, 0, 100, 0, start, 0, field, 0], packet].concat()]
}

/// A tape for the engine target: a connection is opened, then packets of a capture come, each re-addressed to a service
/// of its family and protocol, or as it is; and what a capture has not.
fn tape(n: u8, packets: &[Vec<u8>]) -> Vec<u8> {
    const SYN: [u8; 8] = [0x02, 0, 0, 0xff, 0, 1, 0, 0];
    const SYN_ACK: [u8; 8] = [0x12, 0, 0, 0xff, 0, 1, 0, 0];
    const PSH_ACK: [u8; 8] = [0x18, 0, 0, 0xff, 0, 0, 100, 0];
    const SUPER: [u8; 8] = [0x18, 0, 0, 0xff, 0, 0, 200, 2];
    const FIN_ACK: [u8; 8] = [0x11, 0, 0, 0xff, 0, 0, 0, 0];
    // The gateway; a client's SYN, answered, and answered again; more of it both ways.
    let mut tape = vec![n, n / 4];
    for (step, segment) in
        [(&[0, n % 8, n / 8 % 2][..], SYN), (&[2, 0], SYN_ACK), (&[2, 1], PSH_ACK), (&[2, 2], SUPER), (&[4, 2], SUPER)]
    {
        tape.extend(step);
        tape.extend(segment);
    }
    for (client, packet) in (n % 128..).zip(packets) {
        let tcp = packet.get(if packet[0] >> 4 == 4 { 9 } else { 6 }) == Some(&6);
        let service = u8::from(!tcp) * 2 + u8::from(packet[0] >> 4 != 4);
        let len = u16::try_from(packet.len()).unwrap().to_le_bytes();
        match client % 4 {
            0 => tape.extend([&[5][..], &[0; 10], &len, packet].concat()),
            _ => tape.extend([&[6, client & 31, service][..], &len, packet].concat()),
        }
    }
    // Fragments, the last one first; an ICMP error; time; another configuration; an end.
    tape.extend([8, 0, n, 7, 8, 60, 8, 4, n, 7, 0, 7]);
    tape.extend([10, 2, n, 0, 40, 0, n & 1, 11, n, n / 2, 64, 12, n % 10, 13, n % 6, 2, 3]);
    tape.extend(FIN_ACK);
    tape
}

fn questions() -> Vec<Request> {
    let filter = FlowFilter {
        service: Some("web".into()),
        backend: Some("web/b1".into()),
        client: Some("198.51.100.0/24".parse().unwrap()),
        state: Some("established".into()),
    };
    vec![
        Request::ShowServices,
        Request::ShowBackends { service: None },
        Request::ShowBackends { service: Some("dns".into()) },
        Request::ShowFlows(FlowFilter::default()),
        Request::ShowFlows(filter.clone()),
        Request::CountFlows(filter.clone()),
        Request::ShowWorkers,
        Request::ShowDrops,
        Request::ShowSources,
        Request::ShowConfig,
        Request::KillFlows(filter),
        Request::Explain(Probe { packet: hex::encode(&[0x45, 0, 0, 20]) }),
    ]
}
