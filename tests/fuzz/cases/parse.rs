//! A frame as a TUN delivers it: ten bytes of offload header, and what may be an IP packet.

use tungate::wire::tunnel::{self, Encapsulation, Entry, Fit, Tunnel};
use tungate::wire::{
    Address, Checksum, Endpoint, Family, Gso, OFFLOAD_LEN, Offload, Packet, Protocol, Translation, Tuple, icmp, segment,
};

use super::agree::agree;
use super::exercise::exercise;
use super::oracle;

/// Offload header and packet.
pub(crate) fn run(data: &[u8]) {
    let Some((header, bytes)) = data.split_first_chunk::<OFFLOAD_LEN>() else { return };
    assert_eq!(agree(bytes), Ok(()));
    let _ = Tuple::likely(bytes);
    opened(bytes);
    let Ok(offload) = Offload::parse(header) else { return };
    if !exercise(bytes, offload) {
        return;
    }
    translated_there_and_back(bytes, offload);
    error_translated_there_and_back(bytes, offload);
    fragment_renamed(bytes, offload);
    pieces_are_sound(bytes, offload);
    through_tunnels(bytes, offload);
    clamped(bytes, offload);
}

/// Parses a copy, and does this with it.
fn with<R>(bytes: &[u8], offload: Offload, act: impl FnOnce(&mut Packet<'_>) -> R) -> R {
    act(&mut Packet::parse(&mut bytes.to_vec(), offload).expect("it passed the door before"))
}

/// Ends for a packet to be translated to.
fn new_ends(family: Family) -> (Endpoint, Endpoint) {
    let address = |last| match family {
        Family::V4 => Address::v4([10, 99, 0, last]),
        Family::V6 => Address::v6([0xfd, 0, 0, 0x99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]),
    };
    (Endpoint::new(address(10), 40_000), Endpoint::new(address(1), 8080))
}

/// Of the two zeros of one's complement the other may come back.
fn alike(a: &[u8], b: &[u8], checksums: &[usize]) {
    assert_eq!(a.len(), b.len());
    let zeros = |at: usize| {
        let field = checksums.iter().find(|field| (**field..**field + 2).contains(&at));
        field.is_some_and(|field| oracle::same(oracle::word(a, *field), oracle::word(b, *field)))
    };
    let differ = (0..a.len()).find(|at| a[*at] != b[*at] && !zeros(*at));
    assert_eq!(differ, None, "first byte that differs of\n{a:02x?}\n{b:02x?}");
}

/// The naive checksum agrees with `transport_checksum_ok`, before NAT and after, and the way back restores the packet.
fn translated_there_and_back(bytes: &[u8], offload: Offload) {
    with(bytes, offload, |packet| {
        let Some(ends) = packet.endpoints() else { return };
        let (before, to) = (packet.bytes().to_vec(), new_ends(packet.family()));
        let right = packet.transport_checksum_ok();
        let (ttl, at) = (packet.ttl(), usize::from(packet.header().payload));
        let field = at + oracle::field(packet.protocol());
        packet.translate(&Translation::new(ends, to));
        assert_eq!(packet.endpoints(), Some(to));
        assert_eq!(packet.ttl(), ttl.wrapping_sub(1));
        if packet.family() == Family::V4 {
            assert_eq!(oracle::sum(&[&packet.bytes()[..at]]), 0xffff, "header checksum");
        }
        assert_eq!(packet.transport_checksum_ok(), right);
        packet.translate(&Translation::new(to, ends));
        let (mut back, ttl_at) = (packet.bytes().to_vec(), if packet.family() == Family::V4 { 8 } else { 7 });
        back[ttl_at] = ttl;
        if packet.family() == Family::V4 {
            header_checksum(&mut back);
            let mut before = before;
            header_checksum(&mut before);
            return alike(&back, &before, &[field]);
        }
        alike(&back, &before, &[field]);
    });
}

fn header_checksum(bytes: &mut [u8]) {
    oracle::fix_ipv4(bytes);
}

/// An ICMP error's checksum is as right after the translation as before, and the way back restores the message.
fn error_translated_there_and_back(bytes: &[u8], offload: Offload) {
    with(bytes, offload, |packet| {
        let Ok(quote) = icmp::quote(packet) else { return };
        let (before, right) = (packet.bytes().to_vec(), packet.transport_checksum_ok());
        let (to, quoted) = (new_ends(packet.family()), (quote.source, quote.destination));
        let (source, destination) = packet.addresses();
        icmp::translate_error(packet, &quote, (to.0.address, to.1.address), to);
        assert_eq!(packet.transport_checksum_ok(), right);
        let again = icmp::quote(packet).expect("it was there before");
        assert_eq!((again.source, again.destination), to);
        icmp::translate_error(packet, &again, (source, destination), quoted);
        let at = usize::from(packet.header().payload);
        let inner = at + 8 + usize::from(quote.header.payload);
        let checksums = [at + 2, inner + 6, inner + 16];
        let transport = |bytes: &[u8]| bytes[at..].to_vec();
        alike(&transport(packet.bytes()), &transport(&before), &checksums.map(|field| field - at));
    });
}

fn fragment_renamed(bytes: &[u8], offload: Offload) {
    with(bytes, offload, |packet| {
        let Some(fragment) = packet.fragment() else { return };
        packet.set_fragment_id(0xdead_beef);
        let mut renamed = packet.bytes().to_vec();
        let renamed = Packet::parse(&mut renamed, Offload::default()).expect("it passes the door again");
        let renamed = renamed.fragment().expect("it is a fragment still");
        let id = if packet.family() == Family::V4 { 0xbeef } else { 0xdead_beef };
        assert_eq!((renamed.id, renamed.offset, renamed.more), (id, fragment.offset, fragment.more));
    });
}

/// What a super-packet is cut into passes the door; its checksums are computed, not finished, but for UDP without one.
fn pieces_are_sound(bytes: &[u8], offload: Offload) {
    with(bytes, offload, |packet| {
        let computed = packet.offload().gso != Gso::None
            && (packet.tcp().is_some() || matches!(packet.offload().checksum, Checksum::Partial { .. }));
        let finished = holds_the_pseudo_header(packet);
        let (whole, ends) = (packet.transport().len(), packet.endpoints());
        let mut payload = 0;
        segment::cut(packet, &mut Vec::new(), |head, rest| {
            let mut piece = [head, rest].concat();
            let piece = Packet::parse(&mut piece, Offload::default()).expect("a piece passes the door");
            assert_eq!(piece.endpoints(), ends);
            if computed || finished {
                assert!(piece.transport_checksum_ok(), "{piece:?}");
            }
            payload += piece.transport().len();
        });
        assert!(payload >= whole, "nothing is lost");
    });
}

/// Whether the partial checksum is what a kernel leaves there, over all of the packet.
fn holds_the_pseudo_header(packet: &Packet<'_>) -> bool {
    let (Checksum::Partial { .. }, Some(_)) = (packet.offload().checksum, packet.endpoints()) else { return false };
    let (message, at, protocol) = (packet.transport(), oracle::field(packet.protocol()), packet.protocol());
    let all = packet.tcp().is_some() || usize::from(oracle::word(message, 4)) == message.len();
    let sum = oracle::sum(&[&oracle::pseudo_header(packet.bytes(), protocol, message.len())]);
    all && oracle::same(oracle::word(message, at), sum)
}

/// What may have come in a tunnel is opened or refused, and what was opened is an IP packet.
fn opened(bytes: &[u8]) {
    for (encapsulation, outer) in
        Encapsulation::ALL.into_iter().flat_map(|e| [(e, Protocol::IPV4), (e, Protocol::IPV6)])
    {
        let mut payload = bytes.to_vec();
        if let Ok(inner) = tunnel::open(encapsulation, outer, &mut payload)
            && tunnel::merge_congestion(inner, bytes[0]).is_ok()
        {
            assert!(tungate::wire::IpHeader::parse(inner).is_ok(), "{inner:02x?}");
        }
    }
}

/// What fits a tunnel leaves in packets that the path takes, and comes out again.
fn through_tunnels(bytes: &[u8], offload: Offload) {
    for (encapsulation, outer) in Encapsulation::ALL.into_iter().flat_map(|e| [(e, Family::V4), (e, Family::V6)]) {
        with(bytes, offload, |packet| {
            // A number from the input that nobody else looks at.
            let least = if outer == Family::V4 { 68 } else { 1280 };
            let path_mtu = offload.header_len.max(least);
            let (source, destination) = new_ends(outer);
            let tunnel = Tunnel { encapsulation, source: source.address, destination: destination.address };
            let entry = Entry { tunnel, path_mtu, entropy: 0x1234, id: 7 };
            if packet.ttl() < 2 || entry.fit(packet) != Fit::Fits {
                return;
            }
            let inner = packet.family();
            packet.enter(entry);
            for mut outer_packet in tunnel::leaving(packet) {
                let fits = outer_packet.len() <= usize::from(path_mtu);
                assert!(fits || (outer == Family::V4 && inner == Family::V6), "{} bytes", outer_packet.len());
                let parsed = Packet::parse(&mut outer_packet, Offload::default()).expect("what leaves is sound");
                assert!(parsed.transport_checksum_ok());
                if parsed.fragment().is_some() {
                    continue;
                }
                let shim = if encapsulation == Encapsulation::Gue { 8 } else { 0 };
                let mut payload = parsed.transport()[shim..].to_vec();
                let out = tunnel::open(encapsulation, parsed.protocol(), &mut payload).map(|out| out[0] >> 4);
                assert_eq!(out, Ok(if inner == Family::V4 { 4 } else { 6 }));
            }
        });
    }
}

/// A lower MSS leaves a checksum as right as it was.
fn clamped(bytes: &[u8], offload: Offload) {
    with(bytes, offload, |packet| {
        let right = packet.transport_checksum_ok();
        packet.clamp_mss(1000);
        assert_eq!(packet.transport_checksum_ok(), right);
        if let Some(quoted) = tunnel::quoted(packet)
            && let Some(inner) = quoted.inner
        {
            assert!(inner.too_big_for(1000).is_none_or(|mtu| mtu >= 1000));
        }
    });
}
