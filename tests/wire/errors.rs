//! ICMP errors about translated packets: the quote is rewritten with the packet, nothing beyond it is touched.

use proptest::prelude::*;
use tungate::wire::icmp::{self, Quote};
use tungate::wire::{Address, Endpoint, Family, Malformed, Offload, Packet, Protocol, build};

use crate::generate::{Spec, State, address, ends, family, noise, spec_of};
use crate::oracle;

/// An ICMP error as it arrives, and what NAT makes of it.
#[derive(Clone, Debug)]
struct Case {
    /// Type and code.
    kind: (u8, u8),
    /// The rest of the header's second word, where no length attribute stands.
    mtu: u16,
    /// Who sends it to whom.
    outer: (Address, Address),
    /// The packet it is about.
    quoted: Spec,
    /// Bytes of that packet's transport header and payload which are quoted: 8 or more.
    kept: usize,
    /// Bytes of RFC 4884 extensions behind a quote of announced length.
    extension: Option<usize>,
    /// The new outer addresses.
    to: (Address, Address),
    /// The new ends of the quoted packet.
    quoted_to: (Endpoint, Endpoint),
}

impl Case {
    fn quote(&self) -> Vec<u8> {
        let (mut bytes, _) = self.quoted.build();
        bytes.truncate(self.quoted.transport_at() + self.kept);
        bytes
    }

    /// Offset of the quote: no options in the error itself.
    fn quote_at(&self) -> usize {
        if self.quoted.family() == Family::V4 { 28 } else { 48 }
    }

    fn message(&self) -> Vec<u8> {
        let [high, low] = self.mtu.to_be_bytes();
        let mut message = vec![self.kind.0, self.kind.1, 0, 0, 0, 0, high, low];
        let mut quote = self.quote();
        if let Some(len) = self.extension {
            // RFC 4884 4: padded with zeros to 128 bytes at least, and to whole words; the attribute counts words.
            let (unit, at) = if self.quoted.family() == Family::V4 { (4, 5) } else { (8, 4) };
            quote.resize(quote.len().max(128).next_multiple_of(unit), 0);
            message[at] = u8::try_from(quote.len() / unit).unwrap();
            quote.extend([0x20, 0, 0, 0]);
            quote.extend(noise(self.quoted.seed, len));
        }
        message.extend(quote);
        message
    }

    fn build(&self) -> Vec<u8> {
        build::icmp(self.outer.0, self.outer.1, self.message())
    }

    fn header_len(&self) -> usize {
        self.quote_at() - 8
    }

    fn protocol(&self) -> Protocol {
        if self.quoted.family() == Family::V4 { Protocol::ICMP } else { Protocol::ICMPV6 }
    }
}

/// Forwards the error, and returns what was read of the quote.
fn translate(bytes: &mut [u8], outer: (Address, Address), quoted: (Endpoint, Endpoint)) -> Quote {
    let mut packet = Packet::parse(bytes, Offload::default()).unwrap();
    assert_eq!(icmp::kind(&packet), Some(icmp::Kind::Error));
    let quote = icmp::quote(&packet).unwrap();
    icmp::translate_error(&mut packet, &quote, outer, quoted);
    quote
}

fn read_quote(bytes: &mut [u8]) -> Result<Quote, Malformed> {
    icmp::quote(&Packet::parse(bytes, Offload::default()).unwrap())
}

fn case_of(family: Family) -> impl Strategy<Value = Case> {
    let kind = match family {
        Family::V4 => prop_oneof![Just((3u8, 0u8)), Just((3, 3)), Just((3, 4)), Just((11, 0)), Just((12, 0))],
        Family::V6 => prop_oneof![Just((1u8, 0u8)), Just((2, 0)), Just((3, 0)), Just((3, 1)), Just((4, 1))],
    };
    let two = (address(family), address(family));
    let extension = proptest::option::of((0usize..8).prop_map(|words| words * 4));
    (kind, any::<u16>(), two.clone(), spec_of(family), any::<u16>(), extension, two, ends(family)).prop_map(
        |(kind, mtu, outer, mut quoted, cut, extension, to, quoted_to)| {
            if quoted.state == State::Verified || quoted.state == State::Partial {
                quoted.state = State::Right;
            }
            quoted.segment = None;
            quoted.payload %= 300;
            let most = quoted.build().0.len() - quoted.transport_at();
            // In ICMPv6 only these two types have room for the attribute; a Packet Too Big has its MTU there.
            let extension = extension.filter(|_| quoted.family() == Family::V4 || matches!(kind.0, 1 | 3));
            let mut kept = match cut % 4 {
                0 => 8,
                1 => most,
                _ => 8 + usize::from(cut) % (most - 7),
            };
            // Before extensions, a quote of less than 128 bytes is a whole packet (RFC 4884 4).
            if extension.is_some() && quoted.transport_at() + kept < 128 {
                kept = most.min(128 - quoted.transport_at());
            }
            Case { kind, mtu, outer, quoted, kept, extension, to, quoted_to }
        },
    )
}

fn case() -> impl Strategy<Value = Case> {
    family().prop_flat_map(case_of)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn the_quote_is_read_as_the_packet_was_sent(case in case()) {
        let quote = read_quote(&mut case.build()).unwrap();
        prop_assert_eq!((quote.source, quote.destination), case.quoted.ends);
        prop_assert_eq!(quote.header.protocol, case.quoted.protocol());
        prop_assert_eq!(usize::from(quote.header.payload), case.quoted.transport_at());
    }

    #[test]
    fn r58_r60_outer_and_quoted_addresses_are_rewritten_with_every_checksum_right(case in case()) {
        // R58 is the way in (VIP to backend), R60 the way out: for the bytes they are the same.
        let mut bytes = case.build();
        translate(&mut bytes, case.to, case.quoted_to);
        let packet = Packet::parse(&mut bytes, Offload::default()).unwrap();
        prop_assert_eq!(packet.addresses(), case.to);
        prop_assert_eq!(packet.ttl(), build::TTL - 1);
        let right = oracle::transport(packet.bytes(), case.header_len(), packet.bytes().len(), case.protocol());
        prop_assert_eq!(oracle::word(packet.bytes(), case.header_len() + 2), right, "outer ICMP checksum");
        // Reading the quote checks its IPv4 header checksum.
        let quote = icmp::quote(&packet).unwrap();
        prop_assert_eq!((quote.source, quote.destination), case.quoted_to);
    }

    #[test]
    fn the_quote_becomes_the_translated_packet_as_far_as_it_was_quoted(case in case()) {
        let mut bytes = case.build();
        translate(&mut bytes, case.to, case.quoted_to);
        let mut translated = Spec { ends: case.quoted_to, ..case.quoted.clone() }.build().0;
        let at = case.quoted.checksum_at();
        let quote = bytes[case.quote_at()..].iter().copied().take(case.quote().len()).collect::<Vec<_>>();
        if quote.len() >= at + 2 {
            prop_assert!(oracle::same(oracle::word(&quote, at), oracle::word(&translated, at)));
            translated[at..at + 2].copy_from_slice(&quote[at..at + 2]);
        }
        translated.truncate(quote.len());
        if quote.len() == at + 1 {
            // Half a checksum field is no checksum: it stays.
            translated[at] = case.quote()[at];
        }
        prop_assert_eq!(quote, translated);
    }

    #[test]
    fn r59_type_code_and_mtu_stay(case in case()) {
        let before = case.build();
        let mut after = before.clone();
        translate(&mut after, case.to, case.quoted_to);
        let at = case.header_len();
        prop_assert_eq!(&after[at..at + 2], &before[at..at + 2]);
        prop_assert_eq!(&after[at + 4..at + 8], &before[at + 4..at + 8]);
    }

    #[test]
    fn r59_the_outer_source_stays_if_it_is_told_to(case in case()) {
        let mut bytes = case.build();
        translate(&mut bytes, (case.outer.0, case.to.1), case.quoted_to);
        prop_assert_eq!(Packet::parse(&mut bytes, Offload::default()).unwrap().addresses().0, case.outer.0);
    }

    #[test]
    fn forward_and_back_restores_every_byte_but_the_ttl(case in case()) {
        let before = case.build();
        let mut bytes = before.clone();
        translate(&mut bytes, case.to, case.quoted_to);
        translate(&mut bytes, case.outer, case.quoted.ends);
        bytes[if case.protocol() == Protocol::ICMP { 8 } else { 7 }] += 2;
        oracle::fix_ipv4(&mut bytes);
        // A quoted checksum that was wrong by all ones may come back as the other zero; the outer one is over it.
        let at = case.quote_at() + case.quoted.checksum_at();
        let wrong = matches!(case.quoted.state, State::Wrong(_));
        if wrong && case.quote().len() >= case.quoted.checksum_at() + 2 {
            prop_assert!(oracle::same(oracle::word(&bytes, at), oracle::word(&before, at)));
            bytes[at..at + 2].copy_from_slice(&before[at..at + 2]);
        }
        prop_assert_eq!(bytes, before);
    }

    #[test]
    fn r24_r61_a_wrong_icmp_checksum_is_seen_and_never_repaired(case in case(), error in 1u16..0xffff) {
        let mut bytes = case.build();
        let at = case.header_len() + 2;
        let wrong = oracle::sum(&[&bytes[at..at + 2], &error.to_be_bytes()]);
        bytes[at..at + 2].copy_from_slice(&wrong.to_be_bytes());
        prop_assert!(!Packet::parse(&mut bytes, Offload::default()).unwrap().transport_checksum_ok());
        translate(&mut bytes, case.to, case.quoted_to);
        prop_assert!(!Packet::parse(&mut bytes, Offload::default()).unwrap().transport_checksum_ok());
    }

    #[test]
    fn r62_a_quote_with_a_wrong_header_checksum_is_refused(case in case_of(Family::V4), error in 1u16..0xffff) {
        let mut bytes = case.build();
        let at = case.quote_at() + 10;
        let wrong = oracle::sum(&[&bytes[at..at + 2], &error.to_be_bytes()]);
        bytes[at..at + 2].copy_from_slice(&wrong.to_be_bytes());
        prop_assert_eq!(read_quote(&mut bytes), Err(Malformed::IpChecksum));
    }

    #[test]
    fn r62_the_quoted_transport_checksum_is_not_verified(mut case in case(), error in 1u16..0xffff) {
        case.quoted.state = State::Wrong(error);
        prop_assert!(read_quote(&mut case.build()).is_ok());
    }

    #[test]
    fn r63_ports_are_found_behind_the_options_of_the_quote(
        case in case_of(Family::V4).prop_filter("with options", |case| !case.quoted.options.is_empty()),
    ) {
        let mut bytes = case.build();
        translate(&mut bytes, case.to, case.quoted_to);
        let options = case.quote_at() + 20;
        prop_assert_eq!(&bytes[options..options + case.quoted.options.len()], &case.quoted.options[..]);
        prop_assert_eq!(read_quote(&mut bytes).unwrap().destination, case.quoted_to.1);
    }

    #[test]
    fn r64_a_quote_of_eight_transport_bytes_is_translated_and_nothing_beyond_written(mut case in case()) {
        (case.kept, case.extension) = (8, None);
        let before = case.build();
        let mut bytes = before.clone();
        translate(&mut bytes, case.to, case.quoted_to);
        prop_assert_eq!(bytes.len(), before.len());
        let end = bytes.len();
        // TCP: the sequence number, the last thing quoted.
        if case.quoted.protocol() == Protocol::TCP {
            prop_assert_eq!(&bytes[end - 4..], &before[end - 4..]);
        }
        let quote = read_quote(&mut bytes).unwrap();
        prop_assert_eq!((quote.source, quote.destination), case.quoted_to);
    }

    #[test]
    fn fewer_than_eight_transport_bytes_are_no_quote(mut case in case(), kept in 0usize..8) {
        (case.kept, case.extension) = (kept, None);
        prop_assert_eq!(read_quote(&mut case.build()), Err(Malformed::Truncated));
    }

    #[test]
    fn what_a_quote_holds_behind_its_own_length_is_no_transport_header(mut case in case(), len in 0usize..8) {
        // Eight bytes and more are there, but the quoted header says that its packet ends before them.
        (case.kept, case.extension) = (case.kept.max(8), None);
        let (mut message, end) = (case.message(), case.quoted.transport_at() + len);
        let quote = &mut message[8..];
        let (at, len) = if case.quoted.family() == Family::V4 { (2, end) } else { (4, end - 40) };
        quote[at..at + 2].copy_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
        oracle::fix_ipv4(quote);
        let mut bytes = build::icmp(case.outer.0, case.outer.1, message);
        prop_assert_eq!(read_quote(&mut bytes), Err(Malformed::Truncated));
    }

    #[test]
    fn r65_extensions_and_padding_pass_and_the_outer_checksum_covers_them(
        case in case().prop_filter("with extensions", |case| case.extension.is_some()),
    ) {
        let before = case.build();
        let mut bytes = before.clone();
        translate(&mut bytes, case.to, case.quoted_to);
        let (at, quote_at) = (case.header_len(), case.quote_at());
        prop_assert_eq!(&bytes[at + 4..quote_at], &before[at + 4..quote_at], "length attribute");
        let behind = quote_at + case.quote().len();
        prop_assert_eq!(&bytes[behind..], &before[behind..]);
        let right = oracle::transport(&bytes, at, bytes.len(), case.protocol());
        prop_assert_eq!(oracle::word(&bytes, at + 2), right);
    }

    #[test]
    fn r65_extensions_are_never_taken_for_quoted_bytes(mut case in case(), kept in 0usize..8) {
        // A length attribute that ends the quote before the ports: behind it lie extensions that look like ports.
        case.kind = if case.quoted.family() == Family::V4 { (11, 0) } else { (3, 0) };
        (case.kept, case.extension) = (40, None);
        case.quoted.payload = 60;
        let mut message = case.message();
        let (unit, at) = if case.quoted.family() == Family::V4 { (4, 5) } else { (8, 4) };
        message[at] = u8::try_from((case.quoted.transport_at() + kept) / unit).unwrap();
        let mut bytes = build::icmp(case.outer.0, case.outer.1, message);
        prop_assert_eq!(read_quote(&mut bytes), Err(Malformed::Truncated));
    }
}

fn endpoint(text: &str) -> Endpoint {
    text.parse::<std::net::SocketAddr>().unwrap().into()
}

#[test]
fn an_error_of_our_own_quotes_the_packet_as_it_came_with_its_checksum_completed() {
    use tungate::wire::Checksum;
    let (a, b) = (endpoint("198.51.100.7:1000"), endpoint("192.0.2.10:53"));
    let whole = build::udp(a, b, b"question");
    let mut partial = whole.clone();
    let pseudo = oracle::sum(&[&oracle::pseudo_header(&whole, Protocol::UDP, 16)]);
    partial[26..28].copy_from_slice(&pseudo.to_be_bytes());
    let offload = Offload { checksum: Checksum::Partial { start: 20, offset: 6 }, ..Offload::default() };
    let about = Packet::parse(&mut partial, offload).unwrap();
    let mut error = icmp::error(&about, icmp::Error::TimeExceeded, b.address).unwrap();
    assert_eq!(error[28..], whole);
    let error = Packet::parse(&mut error, Offload::default()).unwrap();
    assert!(error.transport_checksum_ok());
    assert_eq!(error.addresses(), (b.address, a.address));
    assert_eq!(error.transport()[..2], [11, 0]);
}

#[test]
fn r11_an_error_of_our_own_fits_576_bytes_or_1280() {
    for (a, b, most) in [("198.51.100.7:1000", "192.0.2.10:80", 576), ("[2001:db8::7]:1000", "[2001:db8::10]:80", 1280)]
    {
        let (a, b) = (endpoint(a), endpoint(b));
        for (payload, expected) in [(1400, most), (0, 0)] {
            let mut bytes = build::udp(a, b, &vec![7; payload]);
            let len = bytes.len();
            let about = Packet::parse(&mut bytes, Offload::default()).unwrap();
            let error = icmp::error(&about, icmp::Error::TooBig(1400), b.address).unwrap();
            let header = if most == 576 { 28 } else { 48 };
            assert_eq!(error.len(), if expected == 0 { header + len } else { expected });
        }
    }
}

#[test]
fn r9_no_error_is_sent_about_what_must_not_be_answered() {
    let host = endpoint("198.51.100.7:1000");
    let vip = endpoint("192.0.2.10:80");
    let about = |bytes: &mut [u8]| {
        oracle::fix_ipv4(bytes);
        let packet = Packet::parse(bytes, Offload::default()).unwrap();
        icmp::error(&packet, icmp::Error::TimeExceeded, vip.address).is_some()
    };
    assert!(about(&mut build::udp(host, vip, b"12345678")), "an honest packet");
    assert!(about(&mut build::icmp(host.address, vip.address, vec![8, 0, 0, 0, 0, 1, 0, 1])), "an echo request");

    let quote = build::udp(vip, host, b"");
    let error = [&[3, 3, 0, 0, 0, 0, 0, 0], &quote[..]].concat();
    assert!(!about(&mut build::icmp(host.address, vip.address, error)), "an ICMP error");
    let mut later = build::udp(host, vip, b"12345678");
    later[7] = 10;
    assert!(!about(&mut later), "a later fragment");
    let hosts = |source: &str, destination: &str| build::udp(endpoint(source), endpoint(destination), b"");
    for destination in ["224.0.0.1:1", "255.255.255.255:1", "[ff02::1]:1"] {
        let source = if destination.starts_with('[') { "[2001:db8::7]:1" } else { "198.51.100.7:1" };
        assert!(!about(&mut hosts(source, destination)), "to {destination}");
    }
    for source in ["0.0.0.0:1", "0.1.2.3:1", "127.0.0.1:1", "224.0.0.1:1", "240.0.0.1:1", "255.255.255.255:1"] {
        assert!(!about(&mut hosts(source, "192.0.2.10:80")), "from {source}");
    }
    for source in ["[::]:1", "[::1]:1", "[ff02::1]:1"] {
        assert!(!about(&mut hosts(source, "[2001:db8::10]:80")), "from {source}");
    }
}

proptest! {
    #[test]
    fn an_echo_reply_has_the_same_identifier_sequence_and_data(
        (asker, asked) in family().prop_flat_map(|f| (address(f), address(f))), body in proptest::collection::vec(any::<u8>(), 4..200),
    ) {
        let (request, reply) = if asker.is_v4() { (8, 0) } else { (128, 129) };
        let mut bytes = build::icmp(asker, asked, [&[request, 0, 0, 0], &body[..]].concat());
        let packet = Packet::parse(&mut bytes, Offload::default()).unwrap();
        prop_assert_eq!(icmp::kind(&packet), Some(icmp::Kind::EchoRequest));
        let mut bytes = icmp::echo_reply(&packet).unwrap();
        let packet = Packet::parse(&mut bytes, Offload::default()).unwrap();
        prop_assert_eq!(packet.addresses(), (asked, asker));
        prop_assert_eq!(packet.ttl(), build::TTL);
        prop_assert_eq!(packet.transport()[0], reply);
        prop_assert_eq!(&packet.transport()[4..], &body[..]);
        prop_assert!(packet.transport_checksum_ok());
    }
}
