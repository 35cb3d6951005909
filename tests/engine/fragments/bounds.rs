//! What fragments may not do: hold too much, overlap, hide what decides about them (R73-R80).

use super::*;

#[test]
fn r73_what_comes_before_the_first_is_held_and_bounded() {
    let (client, vip, ..) = families()[0];
    let mut world = World::new(CONFIG);
    for id in 0..5000 {
        let later = &cut(client, vip, id, &[64, 1400])[1];
        let (verdict, out) = world.send(later);
        assert_eq!((verdict, out.len()), (Verdict::Consume, 0));
    }
    // 1,024 datagrams a worker: the oldest were given up, each counted.
    assert_eq!(world.drops(DropReason::FragmentTimeout), 5000 - 1024);
    let counters = world.shared.counters.workers().next().unwrap();
    assert_eq!(counters.consumed.get(), 1024);
    // The newest can still be finished.
    assert_eq!(world.send_all(&cut(client, vip, 4999, &[64, 1400])[..1]).len(), 2);
}

/// 4 MiB for each worker, and 256 pieces of one datagram.
#[test]
fn r73_what_is_held_is_bounded_in_bytes_and_in_pieces() {
    for (client, vip, ..) in families() {
        let mut world = World::new(CONFIG);
        for id in 0..800 {
            for piece in &cut(client, vip, id, &[64, 1400, 1400, 1400, 1400, 8])[1..5] {
                assert_eq!(world.send(piece).0, Verdict::Consume);
            }
        }
        let held = world.counters()["consumed"] * 1_420;
        assert!((3 << 20..=4 << 20).contains(&held), "{held} bytes");
        assert_eq!(world.counters()["consumed"] + world.drops(DropReason::FragmentTimeout), 3_200);

        let mut world = World::new(CONFIG);
        let pieces = cut(client, vip, 1, &[8; 300]);
        let verdicts: Vec<_> = pieces[1..].iter().map(|piece| world.send(piece).0).collect();
        assert!(verdicts[..256].iter().all(|verdict| *verdict == Verdict::Consume));
        assert!(verdicts[256..].iter().all(|verdict| *verdict == Verdict::Drop(DropReason::FragmentLimit)));
    }
}

#[test]
fn a_held_fragment_whose_own_ttl_is_over_counts_as_dropped() {
    for (client, vip, ..) in families() {
        let mut world = World::new(CONFIG);
        let [first, later] = <[_; 2]>::try_from(cut(client, vip, 5, &[64, 8])).unwrap();
        assert_eq!(world.send(&with_ttl(later, 1)).0, Verdict::Consume);
        assert_eq!(world.send(&first).1.len(), 1);
        assert_eq!(world.drops(DropReason::TtlExceeded), 1);
        assert_eq!(world.shared.counters.sum(|worker| &worker.consumed), 0);
    }
}

#[test]
fn r74_a_flood_of_fragments_harms_no_unfragmented_flow() {
    let (client, vip, source, backend) = families()[0];
    let mut world = World::new(CONFIG);
    assert_eq!(world.send(&build::udp(client, vip, b"hello")).0, Verdict::Forward);
    for id in 0..3000 {
        let stranger = Endpoint::new(Address::v4([203, 0, 113, u8::try_from(id % 200).unwrap()]), 1000);
        let _ = world.send(&cut(stranger, vip, id, &[64, 1400])[1]);
        assert_eq!(world.send(&build::udp(backend, source, b"world")).0, Verdict::Forward);
    }
    assert_eq!(world.shared.table.len(), 1);
}

#[test]
fn r75_a_datagram_that_stays_incomplete_leaves_nothing_behind() {
    for (client, vip, ..) in families() {
        let mut world = World::new(CONFIG);
        let fragments = cut(client, vip, 5, &[64, 64, 8]);
        let (verdict, out) = world.send(&fragments[1]);
        assert_eq!((verdict, out.len()), (Verdict::Consume, 0));
        world.wait(61);
        assert_eq!(world.drops(DropReason::FragmentTimeout), 1);
        // Its first comes too late for it, and is a first on its own: only that fragment leaves.
        assert_eq!(world.send(&fragments[0]).1.len(), 1);
        assert!(world.engines[0].poll_timeout().is_some());
        world.wait(61);
        assert_eq!(world.send(&fragments[2]).0, Verdict::Consume, "the way of the old datagram is forgotten");
    }
}

#[test]
fn r76_r77_overlapping_fragments_kill_their_datagram() {
    for (client, vip, ..) in families() {
        let mut world = World::new(CONFIG);
        let fragments = cut(client, vip, 5, &[64, 64, 8]);
        let evil = fragment(client.address, vip.address, 5, 72, true, &[0xee; 64]);
        assert_eq!(world.send(&fragments[1]).0, Verdict::Consume);
        assert_eq!(world.send(&evil).0, Verdict::Drop(DropReason::FragmentOverlap));
        assert_eq!(world.drops(DropReason::FragmentOverlap), 2, "the one that was held, too");
        for rest in [0, 2, 1] {
            let (verdict, out) = world.send(&fragments[rest]);
            assert!(out.is_empty(), "{verdict:?}");
        }
        // Another datagram of the same client is none the worse for it.
        assert_eq!(world.send_all(&cut(client, vip, 6, &[64, 8])).len(), 2);
    }
}

#[test]
fn r76_overlap_behind_the_end_is_an_overlap_too() {
    let (client, vip, ..) = families()[1];
    let mut world = World::new(CONFIG);
    let fragments = cut(client, vip, 5, &[64, 8]);
    assert_eq!(world.send(&fragments[1]).0, Verdict::Consume);
    let beyond = fragment(client.address, vip.address, 5, 72, true, &[0; 8]);
    assert_eq!(world.send(&beyond).0, Verdict::Drop(DropReason::FragmentOverlap));
}

/// What is fragmented begins at the fragment header: options that only the receiver reads belong to it.
#[test]
fn r76_what_a_first_fragment_covers_includes_the_headers_in_it() {
    let (client, vip, ..) = families()[1];
    let options = [17, 0, 1, 4, 0, 0, 0, 0];
    let whole = [&options, &build::udp(client, vip, &payload(64))[40..]].concat();
    let piece = |start: usize, end: usize| {
        piece_of(Protocol(60), client.address, vip.address, 5, start, end < whole.len(), &whole[start..end])
    };
    let mut world = World::new(CONFIG);
    assert_eq!(world.send_all(&[piece(0, 40), piece(40, 80)]).len(), 2);
    // It was whole, so that the same identification is another datagram's now.
    assert_eq!(world.send_all(&[piece(0, 40)]).len(), 1);
    assert_eq!(world.send(&piece(32, 80)).0, Verdict::Drop(DropReason::FragmentOverlap));
}

#[test]
fn r77_exact_duplicates_are_ignored() {
    for (client, vip, source, backend) in families() {
        let mut world = World::new(CONFIG);
        let fragments = cut(client, vip, 5, &[64, 64, 8]);
        let sent = [1, 1, 0, 0, 1, 2].map(|n| fragments[n].clone());
        assert_same_datagram(&world.send_all(&sent), source, backend, 136);
    }
}

/// Too small for its TCP header: neither it nor what comes behind it goes anywhere.
#[test]
fn r80_tiny_fragments_decide_nothing() {
    for (client, vip, ..) in families() {
        let mut world = World::new(&CONFIG.replace("protocol = \"udp\"", "protocol = \"tcp\""));
        let syn = build::tcp(client, vip, &Tcp { payload: &[0; 20], ..segment("SYN", 1, 0) });
        let syn = &syn[syn.len() - 40..];
        let piece = |offset: usize, len: usize| {
            let packet =
                fragment(client.address, vip.address, 5, offset, offset + len < 40, &syn[offset..offset + len]);
            if client.address.is_v4() {
                altered(packet, |bytes| bytes[9] = Protocol::TCP.0)
            } else {
                altered(packet, |bytes| bytes[40] = Protocol::TCP.0)
            }
        };
        for tiny in [8, 16] {
            let first = world.send(&piece(0, tiny));
            if client.address.is_v4() {
                assert_eq!(first, (Verdict::Drop(DropReason::BadTransportHeader), Vec::new()));
            } else {
                assert_eq!(first.0, Verdict::Reply, "R82");
            }
            let rest = world.send(&piece(tiny, 40 - tiny));
            // RFC 3128: at offset 8 it could bring the flags, or overwrite them.
            let held = if tiny == 8 { Verdict::Drop(DropReason::BadFragment) } else { Verdict::Consume };
            assert_eq!(rest, (held, Vec::new()));
        }
        assert!(world.shared.table.is_empty());
        world.wait(61);
        // Where the header is whole, the flags at offset 8 are refused all the same, and the rest follows the first.
        assert_eq!(world.send(&piece(0, 24)).0, Verdict::Forward);
        assert_eq!(world.send(&piece(8, 16)).0, Verdict::Drop(DropReason::BadFragment));
    }
}
