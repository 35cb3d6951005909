//! What becomes of packets that the kernel refuses.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tungate::engine::DropReason;
use tungate::io::segmenting::Segmenting;
use tungate::wire::build::{self, Tcp};
use tungate::wire::{Checksum, Endpoint, Gso, OFFLOAD_LEN, Offload, Packet, Protocol, TcpFlags};

use crate::faulty::{Faults, Faulty};
use crate::oracle;
use crate::sound::payload_of;
use crate::world::{World, at, ends};

/// Payload bytes of a segment, and of a super-packet: the last segment is shorter.
const SEGMENT: usize = 1400;
const PAYLOAD: usize = 40_000;

fn faulty_world() -> (World, Arc<Faults>) {
    let faults = Arc::new(Faults::default());
    (World::over(1, 1, |port| Segmenting::new(Faulty::new(port, &faults))), faults)
}

/// The packet as the kernel hands over a super-packet: behind its offload header, the checksum partial.
fn super_packet(mut packet: Vec<u8>, gso: Gso) -> Vec<u8> {
    let (protocol, headers) = if gso == Gso::Udp { (Protocol::UDP, 8) } else { (Protocol::TCP, 20) };
    let start = if packet[0] >> 4 == 4 { 20 } else { 40 };
    let (at, length) = (start + oracle::field(protocol), packet.len() - start);
    let partial = oracle::sum(&[&oracle::pseudo_header(&packet, protocol, length)]);
    packet[at..at + 2].copy_from_slice(&partial.to_be_bytes());
    let word = |n: usize| u16::try_from(n).unwrap();
    let checksum = Checksum::Partial { start: word(start), offset: word(at - start) };
    let offload = Offload { checksum, gso, segment_size: word(SEGMENT), header_len: word(start + headers) };
    let mut frame = vec![0; OFFLOAD_LEN];
    offload.write(frame.first_chunk_mut().unwrap());
    frame.extend(packet);
    frame
}

fn payload() -> Vec<u8> {
    (0..PAYLOAD).map(|n| (n % 251).to_le_bytes()[0]).collect()
}

/// Each kind of super-packet, of a flow that is there.
fn super_packets(world: &World) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (client, web, gso) in [
        (at("198.51.100.7:4000"), at("192.0.2.10:80"), Gso::TcpV4 { ecn: false }),
        (at("[2001:db8:1::7]:4000"), at("[2001:db8::10]:80"), Gso::TcpV6 { ecn: false }),
    ] {
        open(world, client, web);
        let flags = TcpFlags(TcpFlags::ACK.0 | TcpFlags::PSH.0);
        let data = Tcp { seq: 1, ack: 1, flags, window: 60_000, payload: &payload(), ..Tcp::default() };
        all.push(super_packet(build::tcp(client, web, &data), gso));
        let dns = Endpoint::new(web.address, 53);
        all.push(super_packet(build::udp(client, dns, &payload()), Gso::Udp));
    }
    all
}

/// Opens a connection.
fn open(world: &World, client: Endpoint, vip: Endpoint) {
    let segment = |seq, ack, flags: u8| Tcp { seq, ack, flags: TcpFlags(flags), window: 60_000, ..Tcp::default() };
    let (syn, ack) = (TcpFlags::SYN.0, TcpFlags::ACK.0);
    world.gives(0, &build::tcp(client, vip, &segment(0, 0, syn)));
    let (source, backend) = ends(&world.gets(0));
    world.gives(0, &build::tcp(backend, source, &segment(0, 1, syn | ack)));
    world.gets(0);
    world.gives(0, &build::tcp(client, vip, &segment(1, 1, ack)));
    world.gets(0);
}

#[test]
fn super_packets_that_the_kernel_refuses_leave_as_what_they_stand_for() {
    let (world, faults) = faulty_world();
    let given = super_packets(&world);
    faults.super_packets.store(libc::EINVAL, Relaxed);
    for round in 1..=2 {
        for frame in &given {
            world.gives_frame(0, frame.clone());
            let segments: Vec<_> = (0..PAYLOAD.div_ceil(SEGMENT)).map(|_| world.gets_frame(0)).collect();
            let pieces = segments.iter().map(|segment| {
                let (header, packet) = segment.split_first_chunk().unwrap();
                assert_eq!(Offload::parse(header), Ok(Offload::default()), "nothing is left to the kernel");
                payload_of(packet)
            });
            assert_eq!(pieces.collect::<Vec<_>>().concat(), payload());
        }
        let tried = round * given.len() as u64;
        assert_eq!(faults.refused.load(Relaxed), tried, "each was tried whole, and its segments were not refused");
    }
    // Another kernel, or another mood of it: nothing has been given up for good.
    faults.super_packets.store(0, Relaxed);
    for frame in &given {
        world.gives_frame(0, frame.clone());
        let sent = world.gets_frame(0);
        assert_eq!((sent.len(), &sent[..2]), (frame.len(), &frame[..2]), "whole");
    }
    let shared = world.stop(6 + 12);
    let counters = shared.counters.workers().next().unwrap();
    assert_eq!([&counters.forwarded, &counters.sent.packets, &counters.segmented].map(|c| c.get()), [18, 18, 8]);
}

#[test]
fn other_errors_are_not_about_the_super_packet_and_cut_nothing() {
    for error in [libc::EIO, libc::EMSGSIZE, libc::EAGAIN, libc::ENOBUFS, libc::ENOMEM] {
        let (world, faults) = faulty_world();
        let given = super_packets(&world);
        faults.super_packets.store(error, Relaxed);
        for frame in &given {
            world.gives_frame(0, frame.clone());
        }
        let last = build::udp(at("198.51.100.7:4000"), at("192.0.2.10:53"), b"the port may be used further");
        world.gives(0, &last);
        world.gets(0);
        let shared = world.stop(6 + 4 + 1);
        let counters = shared.counters.workers().next().unwrap();
        assert_eq!((counters.drops(DropReason::SendFailed).get(), counters.segmented.get()), (4, 0));
        assert_eq!((counters.forwarded.get(), counters.sent.packets.get()), (7, 7));
    }
}

#[test]
fn a_packet_that_is_refused_is_dropped_and_its_flow_lives_on() {
    // EINVAL, too: what is no super-packet cannot be cut.
    for error in [libc::EINVAL, libc::EIO, libc::EAGAIN, libc::ENOBUFS] {
        let (world, faults) = faulty_world();
        let (client, vip) = (at("198.51.100.7:4000"), at("192.0.2.10:53"));
        faults.all.store(error, Relaxed);
        world.gives(0, &build::udp(client, vip, b"lost"));
        world.gives(0, &build::icmp(client.address, vip.address, vec![8, 0, 0, 0, 0, 1, 0, 1]));
        while faults.refused.load(Relaxed) < 2 {
            std::thread::yield_now();
        }
        faults.all.store(0, Relaxed);
        world.gives(0, &build::udp(client, vip, b"again"));
        world.gets(0);
        let shared = world.stop(3);
        let counters = shared.counters.workers().next().unwrap();
        assert_eq!((counters.drops(DropReason::SendFailed).get(), counters.forwarded.get()), (1, 1));
        assert_eq!((counters.replied.get(), counters.sent.packets.get()), (1, 1), "the reply was made, and not sent");
        assert_eq!(shared.table.len(), 1);
    }
}

#[test]
fn segments_that_are_refused_themselves_are_a_packet_lost() {
    let (world, faults) = faulty_world();
    let given = super_packets(&world);
    faults.all.store(libc::EINVAL, Relaxed);
    world.gives_frame(0, given[0].clone());
    while faults.refused.load(Relaxed) < 2 {
        std::thread::yield_now();
    }
    let shared = world.stop(7);
    let counters = shared.counters.workers().next().unwrap();
    assert_eq!(faults.refused.load(Relaxed), 2, "the whole, and its first segment");
    assert_eq!((counters.drops(DropReason::SendFailed).get(), counters.segmented.get()), (1, 0));
}

/// No offload knows our tunnels: what goes into one is cut in any case, which is no fall-back and not counted as one.
#[test]
fn a_super_packet_leaves_by_a_tunnel_in_outer_packets() {
    let (world, faults) = faulty_world();
    faults.super_packets.store(libc::EINVAL, Relaxed);
    let (client, vip) = (at("198.51.100.7:4000"), at("192.0.2.12:5000"));
    world.gives_frame(0, super_packet(build::udp(client, vip, &payload()), Gso::Udp));
    let count = PAYLOAD.div_ceil(SEGMENT);
    let outer: Vec<_> = (0..count).map(|_| world.gets(0)).collect();
    assert!(outer.iter().all(|packet| packet[9] == 4 && packet[16..20] == [10, 0, 0, 3]), "IP in IP, to the backend");
    assert_eq!(outer.iter().flat_map(|packet| payload_of(&packet[20..])).copied().collect::<Vec<_>>(), payload());
    let shared = world.stop(1);
    let counters = shared.counters.workers().next().unwrap();
    assert_eq!((counters.forwarded.get(), counters.sent.packets.get()), (1, count as u64));
    assert_eq!((counters.segmented.get(), faults.refused.load(Relaxed)), (0, 0));
}

/// What has left a tunnel was sent, and is counted so; the packet that it was a part of is lost, once.
#[test]
fn a_super_packet_of_which_a_part_has_left_by_its_tunnel_is_dropped_and_the_part_was_sent() {
    let (world, faults) = faulty_world();
    let (client, vip) = (at("198.51.100.7:4000"), at("192.0.2.12:5000"));
    faults.spared.store(3, Relaxed);
    faults.all.store(libc::ENOBUFS, Relaxed);
    world.gives_frame(0, super_packet(build::udp(client, vip, &payload()), Gso::Udp));
    let bytes: usize = (0..3).map(|_| world.gets(0).len()).sum();
    let shared = world.stop(1);
    let counters = shared.counters.workers().next().unwrap();
    assert_eq!((counters.forwarded.get(), counters.drops(DropReason::SendFailed).get()), (0, 1));
    assert_eq!((counters.sent.packets.get(), counters.sent.bytes.get()), (3, bytes as u64));
    assert_eq!(faults.refused.load(Relaxed), 1, "nothing more of it was tried");
}

/// The packets that the tests give are what they say.
#[test]
fn the_super_packets_given_are_sound() {
    let (world, _) = faulty_world();
    for mut frame in super_packets(&world) {
        let (header, bytes) = frame.split_first_chunk_mut().unwrap();
        let packet = Packet::parse(bytes, Offload::parse(header).unwrap()).unwrap();
        assert_ne!(packet.offload().gso, Gso::None);
    }
    world.stop(6);
}
