//! 43,094 packets that nobody of this project wrote, and an index that somebody else's parser made of them.

use std::path::Path;
use std::process::Command;

use tungate::wire::{
    Address, Checksum, Endpoint, Family, Gso, Malformed, Offload, Packet, Protocol, Translation, icmp,
};

use crate::agree::agree;
use crate::common;
use crate::exercise::exercise;
use crate::oracle;

/// A packet, and its line of the index.
struct Row {
    bytes: Vec<u8>,
    /// The number, from 1.
    n: usize,
    file: String,
    header_checksum: String,
    checksum: String,
    notes: Vec<String>,
}

impl Row {
    fn has(&self, note: &str) -> bool {
        self.notes.iter().any(|n| n == note)
    }

    /// An IPv6 packet with payload length 0: to the index (and to etherparse) a jumbogram as long as the buffer, to us a
    /// packet without payload (R87).
    fn is_jumbo(&self) -> bool {
        self.bytes.len() > 40 && self.bytes[0] >> 4 == 6 && oracle::word(&self.bytes, 4) == 0
    }
}

/// Refused by us alone: what RFC 8200 4.1 and RFC 791 3.2 forbid, and the index has no word for.
const OURS: [(usize, Malformed); 5] = [
    // Fragment header after fragment header, ten of them, all atomic.
    (7840, Malformed::ExtensionHeader),
    // Hop-by-hop options after hop-by-hop options, eight times.
    (13_387, Malformed::ExtensionHeader),
    // The last fragments of datagrams of 65,535 bytes, but for the headers before them.
    (16_183, Malformed::Fragment),
    (16_229, Malformed::Fragment),
    // A first fragment of 18 bytes: not a multiple of 8, and more to come.
    (25_287, Malformed::Fragment),
];

/// All packets with their lines, or `None` where they are not at hand.
fn rows(test: &str) -> Option<Vec<Row>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/pcaps");
    if !folder.is_dir() {
        common::skip(test, "no ../shared/pcaps", "copy the public captures that its README names there");
        return None;
    }
    let index = Command::new("gzip").arg("-dc").arg(folder.join("all-ip-raw.csv.gz")).output().unwrap();
    let index = String::from_utf8(index.stdout).unwrap();
    let mut lines = index.lines().skip(1);
    let mut rows = Vec::new();
    each_packet(&folder.join("all-ip-raw.pcap"), |bytes| {
        let fields: Vec<&str> = lines.next().unwrap().split(',').collect();
        let [n, file, .., header_checksum, checksum, notes] = fields[..] else { panic!("{fields:?}") };
        rows.push(Row {
            bytes: bytes.to_vec(),
            n: n.parse().unwrap(),
            file: file.to_owned(),
            header_checksum: header_checksum.to_owned(),
            checksum: checksum.to_owned(),
            notes: notes.split(' ').map(str::to_owned).collect(),
        });
    });
    assert!(lines.next().is_none() && rows.len() == 43_094, "{} packets", rows.len());
    Some(rows)
}

/// Reads a plain little-endian pcap file by hand: the product's reader says of packets without an IP version only that
/// they are none, and here their bytes are wanted.
fn each_packet(path: &Path, mut each: impl FnMut(&[u8])) {
    let file = std::fs::read(path).unwrap();
    assert_eq!(file[..4], [0xd4, 0xc3, 0xb2, 0xa1], "a pcap file");
    let mut rest = &file[24..];
    while !rest.is_empty() {
        let len = u32::from_le_bytes(rest[8..12].try_into().unwrap()) as usize;
        each(&rest[16..16 + len]);
        rest = &rest[16 + len..];
    }
}

/// Why the door has to refuse the packet by what the index says of it, in the order in which the door looks.
fn expected(row: &Row) -> Option<Malformed> {
    use Malformed::{ExtensionHeader, Fragment, IpChecksum, IpHeader, Transport, Truncated};
    let any = |notes: &[&str]| notes.iter().any(|note| row.has(note));
    if any(&["bad-version", "ihl<5", "totlen<ihl"]) {
        return Some(IpHeader);
    }
    if any(&["short-hdr", "ihl>buf", "truncated"]) {
        return Some(Truncated);
    }
    if row.header_checksum == "bad" {
        return Some(IpChecksum);
    }
    if let Some((_, ours)) = OURS.iter().find(|(n, _)| *n == row.n) {
        return Some(*ours);
    }
    if any(&["ext-trunc", "ext-overrun"]) {
        return Some(ExtensionHeader);
    }
    if any(&["ping-of-death"]) {
        return Some(Fragment);
    }
    any(&["tcp-short", "doff<5", "doff>len", "udp-short", "udplen<8", "udplen>len"]).then_some(Transport)
}

fn parse(bytes: &mut [u8]) -> Result<Packet<'_>, Malformed> {
    Packet::parse(bytes, Offload::default())
}

#[test]
fn the_door_refuses_what_the_index_finds_broken_and_nothing_else() {
    let Some(rows) = rows("the_door_refuses_what_the_index_finds_broken_and_nothing_else") else { return };
    let mut refused = 0;
    for row in rows.iter().filter(|row| !row.is_jumbo()) {
        let mut bytes = row.bytes.clone();
        let found = parse(&mut bytes).err();
        assert_eq!(found, expected(row), "packet {} of {}: {:?}", row.n, row.file, row.notes);
        refused += usize::from(found.is_some());
    }
    println!("{refused} refused of {}", rows.len());
    assert!(refused > 2800);
}

#[test]
fn bytes_behind_the_packet_are_cut_where_the_index_finds_some() {
    let Some(rows) = rows("bytes_behind_the_packet_are_cut_where_the_index_finds_some") else { return };
    for row in rows.iter().filter(|row| !row.is_jumbo()) {
        let mut bytes = row.bytes.clone();
        let Ok(packet) = parse(&mut bytes) else { continue };
        assert_eq!(packet.bytes().len() < row.bytes.len(), row.has("trailing"), "packet {} of {}", row.n, row.file);
    }
}

#[test]
fn transport_checksums_are_right_and_wrong_where_the_index_says_so() {
    let Some(rows) = rows("transport_checksums_are_right_and_wrong_where_the_index_says_so") else { return };
    let (mut right, mut wrong) = (0, 0);
    for row in rows.iter().filter(|row| !row.is_jumbo()) {
        let mut bytes = row.bytes.clone();
        let Ok(packet) = parse(&mut bytes) else { continue };
        // Flagged, and left alone (R26): the index computes over the addresses of the IP header.
        if packet.header().source_routed {
            continue;
        }
        let ok = packet.transport_checksum_ok();
        assert_eq!(ok, row.checksum != "bad", "packet {} of {}", row.n, row.file);
        right += usize::from(row.checksum == "ok");
        wrong += usize::from(!ok);
    }
    println!("{right} right, {wrong} wrong");
    assert!(right > 29_000 && wrong > 5000);
}

#[test]
fn r26_home_addresses_and_routes_that_are_not_done_are_flagged() {
    let Some(rows) = rows("r26_home_addresses_and_routes_that_are_not_done_are_flagged") else { return };
    let mut flagged = 0;
    for row in rows.iter().filter(|row| row.file.contains("chksums/ip6-")) {
        let other_ends = row.file.contains("ip6-hoa-") || row.file.contains("ip6-route0-");
        let mut bytes = row.bytes.clone();
        let packet = parse(&mut bytes).unwrap();
        assert_eq!(packet.header().source_routed, other_ends, "{}", row.file);
        if !other_ends {
            assert_eq!(packet.transport_checksum_ok(), row.file.contains("good"), "{}", row.file);
        }
        flagged += usize::from(other_ends);
    }
    assert_eq!(flagged, 10);
}

#[test]
fn etherparse_agrees_on_every_packet() {
    let Some(rows) = rows("etherparse_agrees_on_every_packet") else { return };
    for row in rows {
        assert_eq!(agree(&row.bytes), Ok(()), "packet {} of {}", row.n, row.file);
    }
}

#[test]
fn no_packet_makes_any_operation_panic_under_any_offload_header() {
    let Some(rows) = rows("no_packet_makes_any_operation_panic_under_any_offload_header") else { return };
    let partial = |start, offset| Checksum::Partial { start, offset };
    let checksums =
        [Checksum::Complete, partial(20, 16), partial(20, 6), partial(40, 16), partial(40, 6), partial(48, 2)];
    let kinds = [Gso::None, Gso::TcpV4 { ecn: false }, Gso::TcpV6 { ecn: true }, Gso::Udp];
    let mut passed = 0;
    for row in &rows {
        for checksum in checksums {
            for gso in kinds {
                passed +=
                    usize::from(exercise(&row.bytes, Offload { checksum, gso, segment_size: 536, header_len: 0 }));
            }
        }
    }
    assert!(passed > rows.len());
}

/// Ends for a packet to be translated to.
fn new_ends(family: Family) -> (Endpoint, Endpoint) {
    let address = |last| match family {
        Family::V4 => Address::v4([10, 99, 0, last]),
        Family::V6 => Address::v6([0xfd, 0, 0, 0x99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]),
    };
    (Endpoint::new(address(10), 40_000), Endpoint::new(address(1), 8080))
}

#[test]
fn nat_changes_addresses_ports_ttl_and_checksums_and_the_way_back_restores_them() {
    let Some(rows) = rows("nat_changes_addresses_ports_ttl_and_checksums_and_the_way_back_restores_them") else {
        return;
    };
    let mut translated = 0;
    for row in &rows {
        let mut bytes = row.bytes.clone();
        let Ok(mut packet) = parse(&mut bytes) else { continue };
        let (Some(ends), false) = (packet.endpoints(), packet.header().source_routed) else { continue };
        let (ttl, before) = (packet.ttl(), packet.bytes().to_vec());
        let (right, at) = (packet.transport_checksum_ok(), usize::from(packet.header().payload));
        let to = new_ends(packet.family());
        packet.translate(&Translation::new(ends, to));
        assert_eq!((packet.endpoints(), packet.transport_checksum_ok()), (Some(to), right), "packet {}", row.n);
        let (first, addresses) = if packet.family() == Family::V4 { (8, 10..20) } else { (7, 8..40) };
        let checksum = at + oracle::field(packet.protocol());
        let may_change = [first..first + 1, addresses, at..at + 4, checksum..checksum + 2];
        let changed = |(at, (a, b)): (usize, (&u8, &u8))| (a != b).then_some(at);
        let changed: Vec<usize> = packet.bytes().iter().zip(&before).enumerate().filter_map(changed).collect();
        assert!(changed.iter().all(|at| may_change.iter().any(|range| range.contains(at))), "packet {}", row.n);

        packet.translate(&Translation::new(to, ends));
        assert_eq!(packet.ttl(), ttl.wrapping_sub(2));
        let mut back = packet.bytes().to_vec();
        back[first] = ttl;
        oracle::fix_ipv4(&mut back);
        // Of the two zeros of one's complement the other may come back.
        assert!(oracle::same(oracle::word(&back, checksum), oracle::word(&before, checksum)), "packet {}", row.n);
        back[checksum..checksum + 2].copy_from_slice(&before[checksum..checksum + 2]);
        assert_eq!(back, before, "packet {} of {}", row.n, row.file);
        translated += 1;
    }
    println!("{translated} translated");
    assert!(translated > 34_000);
}

#[test]
fn icmp_errors_are_translated_with_their_extensions_and_a_right_checksum() {
    let Some(rows) = rows("icmp_errors_are_translated_with_their_extensions_and_a_right_checksum") else { return };
    let mut translated = 0;
    for row in &rows {
        let mut bytes = row.bytes.clone();
        let Ok(mut packet) = parse(&mut bytes) else { continue };
        let Ok(quote) = icmp::quote(&packet) else { continue };
        let (before, right) = (packet.bytes().to_vec(), packet.transport_checksum_ok());
        let (to, quoted) = (new_ends(packet.family()), (quote.source, quote.destination));
        let (source, destination) = packet.addresses();
        icmp::translate_error(&mut packet, &quote, (to.0.address, to.1.address), to);
        assert_eq!(packet.transport_checksum_ok(), right, "packet {}", row.n);
        let again = icmp::quote(&packet).unwrap();
        assert_eq!((again.source, again.destination), to);

        icmp::translate_error(&mut packet, &again, (source, destination), quoted);
        let at = usize::from(packet.header().payload);
        let field = if quote.header.protocol == Protocol::UDP { 6 } else { 16 };
        let quoted_checksum = at + 8 + usize::from(quote.header.payload) + field;
        for (n, (a, b)) in packet.bytes()[at..].iter().zip(&before[at..]).enumerate() {
            let zero = (quoted_checksum..quoted_checksum + 2).contains(&(at + n)) || (2..4).contains(&n);
            assert!(a == b || zero, "packet {} of {}, byte {n} of the message", row.n, row.file);
        }
        translated += 1;
    }
    println!("{translated} translated");
    assert!(translated > 50);
}

#[test]
fn every_sound_packet_comes_out_of_a_tunnel_as_it_went_in() {
    let Some(rows) = rows("every_sound_packet_comes_out_of_a_tunnel_as_it_went_in") else { return };
    let passed = rows.iter().filter(|row| crate::tunnel::comes_out_as_it_went_in(&row.bytes)).count();
    println!("{passed} through all tunnels, of {}", rows.len());
    assert!(passed > 35_000);
}
