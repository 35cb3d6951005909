//! TTL, errors of our own, and what is refused at the door.

use tungate::engine::DropReason;
use tungate::wire::{Packet, build};

use crate::CONFIG;
use crate::support::{Sight, World, address, altered, at, segment, with_ttl};

/// Which packets are refused is shown beside the door; here, that each counts once and that nobody hears of it.
#[test]
fn r1_r2_r3_r5_r15_r85_what_does_not_pass_the_door_is_dropped_in_silence_and_counted() {
    let (client, vip) = (at("198.51.100.1:40000"), at("192.0.2.10:80"));
    let (client6, vip6) = (at("[2001:db8:1::1]:40000"), at("[2001:db8::10]:80"));
    let syn = build::tcp(client, vip, &segment("SYN", 1, 0));
    let syn6 = build::tcp(client6, vip6, &segment("SYN", 1, 0));
    let mut wrong_sum = syn.clone();
    wrong_sum[10] ^= 1;
    let bad_option =
        altered([&syn[..20], &[7, 0, 0, 0], &syn[20..]].concat(), |bytes| (bytes[0], bytes[3]) = (0x46, 44));
    let mut endless =
        build::ip(client6.address, vip6.address, tungate::wire::Protocol(60), 64, &[60, 0, 1, 4, 0, 0, 0, 0].repeat(9));
    endless[40 + 64] = 6;
    for (packet, reason) in [
        (wrong_sum.clone(), DropReason::BadIpChecksum),
        (altered(syn.clone(), |bytes| bytes[0] = 0x44), DropReason::BadIpHeader),
        (altered(syn.clone(), |bytes| bytes[3] = 19), DropReason::BadIpHeader),
        (syn[..19].to_vec(), DropReason::Truncated),
        (syn[..39].to_vec(), DropReason::Truncated),
        (syn6[..59].to_vec(), DropReason::Truncated),
        (altered(syn.clone(), |bytes| bytes[0] = 0x55), DropReason::BadIpHeader),
        (bad_option, DropReason::BadIpOption),
        (endless, DropReason::BadExtensionHeader),
    ] {
        let mut world = World::new(CONFIG);
        world.receives(packet.clone()).dropped(reason);
        let counters = world.counters();
        assert_eq!((counters["received"], counters[&format!("drop {}", reason.name())]), (1, 1));
    }
    // What the kernel says of the transport checksum does not excuse that of the header.
    let offload = tungate::wire::Offload { checksum: tungate::wire::Checksum::Verified, ..Default::default() };
    assert!(Packet::parse(&mut wrong_sum, offload).is_err());
}

#[test]
fn r6_each_direction_costs_one_hop() {
    for v6 in [false, true] {
        let mut world = World::new(CONFIG);
        let connection = if v6 { world.client(1).v6().opens("web") } else { world.client(1).opens("web") };
        for (ttl, left) in [(255, 254), (64, 63), (2, 1)] {
            let there = build::tcp(connection.client, connection.vip, &connection.client_segment("ACK"));
            let seen = world.receives(with_ttl(there, ttl)).forwarded();
            assert_eq!((seen.ttl, seen.sound), (left, true));
            let back = build::tcp(connection.backend, connection.source, &connection.backend_segment("ACK"));
            let seen = world.receives(with_ttl(back, ttl)).forwarded();
            assert_eq!((seen.ttl, seen.sound), (left, true));
        }
    }
}

#[test]
fn r7_a_packet_without_hops_is_answered_quoting_it_as_it_was_received() {
    let time_exceeded = |v6: bool| if v6 { (3, 0) } else { (11, 0) };
    for v6 in [false, true] {
        for ttl in [0, 1] {
            let mut world = World::new(CONFIG);
            let connection = if v6 { world.client(1).v6().opens("web") } else { world.client(1).opens("web") };
            let stranger = if v6 { world.client(2).v6().endpoint() } else { world.client(2).endpoint() };
            let there = build::tcp(connection.client, connection.vip, &connection.client_segment("ACK"));
            let first = build::tcp(stranger, connection.vip, &segment("SYN", 1, 0));
            let back = build::tcp(connection.backend, connection.source, &connection.backend_segment("ACK"));
            for packet in [there, first, back] {
                let packet = with_ttl(packet, ttl);
                let sent = Sight::of(packet.clone());
                let error = world.receives(packet.clone()).answered();
                assert_eq!(
                    (error.source.address, error.destination.address),
                    (sent.destination.address, sent.source.address)
                );
                let (kind, code, quote) = error.icmp();
                assert_eq!((kind, code), time_exceeded(v6));
                assert_eq!(quote, packet, "the quote is the packet as it came");
            }
            assert_eq!(world.shared.table.len(), 1, "nothing was opened");
        }
    }
}

#[test]
fn r8_what_is_for_the_gateway_itself_needs_no_hops() {
    for (vip, client, request, reply) in [
        ("192.0.2.10", "198.51.100.7", 8, 0),
        ("2001:db8::10", "2001:db8:1::7", 128, 129),
        ("10.99.0.10", "198.51.100.7", 8, 0),
        ("fd00:99::10", "2001:db8:1::7", 128, 129),
    ] {
        let mut world = World::new(CONFIG);
        let ping = build::icmp(address(client), address(vip), vec![request, 0, 0, 0, 0, 7, 0, 1, 0xab]);
        let answer = world.receives(with_ttl(ping, 1)).answered();
        assert_eq!(answer.icmp().0, reply);
    }
}

#[test]
fn r9_there_is_no_error_about_what_must_not_be_answered() {
    let mut world = World::new(CONFIG);
    let client = world.client(1).endpoint();
    let vip = world.client(1).vip("dns");
    let datagram = || build::udp(client, vip, &[0; 64]);
    // An ICMP error.
    let error = build::icmp(client.address, vip.address, [vec![3, 1, 0, 0, 0, 0, 0, 0], datagram()].concat());
    world.receives(with_ttl(error, 1)).dropped(DropReason::IcmpNoFlow);
    // A later fragment, with its first here; that one gets an error.
    let fragment = |offset: u16| altered(datagram(), |bytes| bytes[6..8].copy_from_slice(&offset.to_be_bytes()));
    world.receives(with_ttl(fragment(0x2000), 1)).answered();
    let other = |packet: Vec<u8>| altered(packet, |bytes| bytes[5] = 1);
    world.receives(other(fragment(0x2000))).forwarded();
    world.receives(with_ttl(other(fragment(20)), 1)).dropped(DropReason::TtlExceeded);
    // To nobody in particular, or from nobody.
    for (source, destination) in [
        ("198.51.100.1:4000", "224.0.0.1:53"),
        ("198.51.100.1:4000", "255.255.255.255:53"),
        ("0.1.2.3:4000", "192.0.2.10:53"),
        ("127.0.0.1:4000", "192.0.2.10:53"),
        ("239.1.1.1:4000", "192.0.2.10:53"),
        ("240.0.0.1:4000", "192.0.2.10:53"),
        ("[::]:4000", "[2001:db8::10]:53"),
        ("[::1]:4000", "[2001:db8::10]:53"),
        ("[ff02::1]:4000", "[2001:db8::10]:53"),
    ] {
        let packet = build::udp(at(source), at(destination), b"");
        world.receives(with_ttl(packet, 1)).dropped(DropReason::Martian);
    }
}

#[test]
fn r10_errors_of_our_own_are_limited_to_ten_a_second() {
    let mut world = World::new(CONFIG);
    let (client, vip) = (world.client(1).endpoint(), world.client(1).vip("dns"));
    let (client6, vip6) = (world.client(1).v6().endpoint(), world.client(1).v6().vip("dns"));
    let errors = |world: &mut World, packets: usize| {
        let mut errors = 0;
        for n in 0..packets {
            let packet = if n % 2 == 0 { build::udp(client, vip, b"") } else { build::udp(client6, vip6, b"") };
            errors += world.receives(with_ttl(packet, 1)).own.len();
        }
        errors
    };
    assert_eq!(errors(&mut world, 100), 10);
    for _ in 0..5 {
        world.wait(1);
        assert_eq!(errors(&mut world, 100), 10);
    }
    assert_all_counters!(world, "received" => 600, "replied" => 60, "drop ttl-exceeded" => 540);
}

#[test]
fn r11_an_error_quotes_as_much_as_fits_576_or_1280_bytes() {
    for (v6, most) in [(false, 576), (true, 1280)] {
        for payload in [0, 100, 1_400] {
            let mut world = World::new(CONFIG);
            let (client, vip) = if v6 {
                (world.client(1).v6().endpoint(), world.client(1).v6().vip("dns"))
            } else {
                (world.client(1).endpoint(), world.client(1).vip("dns"))
            };
            let packet = with_ttl(build::udp(client, vip, &vec![1; payload]), 1);
            let headers = if v6 { 48 } else { 28 };
            let error = world.receives(packet.clone()).answered();
            assert_eq!(error.bytes.len(), (packet.len() + headers).min(most));
            assert!(packet.starts_with(error.icmp().2));
        }
    }
}

#[test]
fn r16_martians_and_spoofed_sources_are_dropped() {
    let mut world = World::new(CONFIG);
    for martian in
        ["0.1.2.3", "127.0.0.1", "127.255.255.255", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"]
    {
        let source = at(&format!("{martian}:4000"));
        world.client_at(source).syn("web").dropped(DropReason::Martian);
        world.client_at(source).asks("dns", b"").dropped(DropReason::Martian);
    }
    for martian in ["::", "::1", "ff02::1"] {
        world.client_at(at(&format!("[{martian}]:4000"))).syn("web").dropped(DropReason::Martian);
    }
    for own in ["192.0.2.10:4000", "192.0.2.20:4000", "10.99.0.10:4000", "[2001:db8::10]:4000", "[fd00:99::10]:4000"] {
        world.client_at(at(own)).syn("web").dropped(DropReason::SpoofedSource);
    }
    assert_all_counters!(world, "received" => 22, "drop martian" => 17, "drop spoofed-source" => 5);
    // Nor is an error believed that one of the gateway's own addresses would have sent.
    let connection = world.client(1).opens("web");
    let left = world.backend_says(&connection, &connection.backend_segment("ACK")).forwarded().bytes;
    for own in ["192.0.2.10", "10.99.0.10", "192.0.2.20"] {
        world.complains(address(own), connection.vip.address, (3, 1, 0), &left).dropped(DropReason::SpoofedSource);
    }
    world.complains(address("203.0.113.9"), connection.vip.address, (3, 1, 0), &left).forwarded();
}

#[test]
fn r17_a_vip_does_not_talk_to_itself() {
    let mut world = World::new(CONFIG);
    for vip in ["192.0.2.10:80", "[2001:db8::10]:80"] {
        world.client_at(at(vip)).syn("web").dropped(DropReason::SpoofedSource);
    }
    assert!(world.shared.table.is_empty());
}

#[test]
fn r18_nobody_in_particular_is_no_service() {
    let mut world = World::new(CONFIG);
    let (client, client6) = (at("198.51.100.1:4000"), at("[2001:db8:1::1]:4000"));
    for nobody in ["224.0.0.1:80", "239.1.2.3:80", "255.255.255.255:80", "127.0.0.1:80", "0.0.0.0:80", "0.1.2.3:80"] {
        world.receives(build::tcp(client, at(nobody), &segment("SYN", 1, 0))).dropped(DropReason::Martian);
        world.receives(build::udp(client, at(nobody), b"")).dropped(DropReason::Martian);
    }
    for nobody in ["[ff02::1]:80", "[::1]:80", "[::]:80"] {
        world.receives(build::tcp(client6, at(nobody), &segment("SYN", 1, 0))).dropped(DropReason::Martian);
    }
    assert_all_counters!(world, "received" => 15, "drop martian" => 15);
}

fn spoilt(packet: Vec<u8>) -> Vec<u8> {
    let last = packet.len() - 1;
    altered(packet, |bytes| bytes[last] ^= 0x55)
}

#[test]
fn r24_a_wrong_checksum_passes_as_wrong_as_it_was_but_opens_and_closes_nothing() {
    let mut world = World::new(CONFIG);
    let connection = world.client(1).opens("web");
    let data = |names| {
        let segment = tungate::wire::build::Tcp { payload: b"data", ..connection.client_segment(names) };
        spoilt(build::tcp(connection.client, connection.vip, &segment))
    };
    let sent = data("ACK");
    let mut right = sent.clone();
    let seen = world.receives(sent).forwarded();
    assert!(!seen.sound);
    // Putting the spoilt byte right makes the checksum right: it is wrong by what it was.
    let last = seen.bytes.len() - 1;
    assert!(Sight::of(altered(seen.bytes, |bytes| bytes[last] ^= 0x55)).sound);
    assert!(!Packet::parse(&mut right, tungate::wire::Offload::default()).unwrap().transport_checksum_ok());

    for names in ["FIN ACK", "RST ACK", "SYN", "RST"] {
        world.receives(data(names)).dropped(DropReason::BadTransportChecksum);
    }
    let stranger = world.client(2).endpoint();
    let syn = tungate::wire::build::Tcp { payload: b"data", ..segment("SYN", 1, 0) };
    world.receives(spoilt(build::tcp(stranger, connection.vip, &syn))).dropped(DropReason::BadTransportChecksum);
    let dns = world.client(2).vip("dns");
    world.receives(spoilt(build::udp(stranger, dns, b"data"))).dropped(DropReason::BadTransportChecksum);
    world.client(2).asks("dns", b"data").forwarded();
    assert!(!world.receives(spoilt(build::udp(stranger, dns, b"data"))).forwarded().sound);
    assert_all_counters!(world, "received" => 12, "forwarded" => 6, "opened" => 2, "drop bad-transport-checksum" => 6);
}

#[test]
fn r38_port_zero_is_dropped_even_by_a_service_on_all_ports() {
    let all_ports = CONFIG.replace("192.0.2.10:53", "192.0.2.10:*").replace("{ address = \"10.0.0.1:53\" }, ", "");
    let mut world = World::new(&all_ports.replace("10.0.0.2:53", "10.0.0.2"));
    let (client, vip) = ("198.51.100.1", "192.0.2.10");
    for (from, to) in [(0, 53), (4000, 0), (0, 0)] {
        let packet = build::udp(at(&format!("{client}:{from}")), at(&format!("{vip}:{to}")), b"x");
        world.receives(packet).dropped(DropReason::PortZero);
        let packet = build::tcp(at(&format!("{client}:{from}")), at(&format!("{vip}:{to}")), &segment("SYN", 1, 0));
        world.receives(packet).dropped(DropReason::PortZero);
    }
    world.receives(build::udp(at("198.51.100.1:4000"), at("192.0.2.10:1"), b"x")).forwarded();
}
