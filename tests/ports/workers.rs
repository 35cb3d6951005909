//! The worker's loop.

use tungate::engine::DropReason;
use tungate::engine::conntrack::FlowKey;
use tungate::wire::{Protocol, build};

use crate::oracle;
use crate::world::{CONFIG, World, at, ends};

#[test]
fn packets_in_packets_out_and_the_books_balance() {
    let world = World::new(1);
    let (client, vip) = (at("198.51.100.7:4000"), at("192.0.2.10:53"));
    world.gives(0, &build::udp(client, vip, b"question"));
    let (source, backend) = ends(&world.gets(0));
    assert_eq!((source.address, backend), (at("10.99.0.10:0").address, at("10.0.0.1:53")));
    world.gives(0, &build::udp(backend, source, b"answer"));
    assert_eq!(ends(&world.gets(0)), (vip, client));

    let ping = build::icmp(client.address, vip.address, vec![8, 0, 0, 0, 0, 1, 0, 1]);
    world.gives(0, &ping);
    assert_eq!(world.gets(0)[20], 0, "an echo reply");
    world.gives(0, &build::udp(client, at("203.0.113.1:53"), b"to nobody"));
    world.gives_frame(0, vec![0; 3]);
    world.gives_frame(0, Vec::new());
    let mut later_fragment = build::udp(client, vip, &[0; 16]);
    later_fragment[6..8].copy_from_slice(&[0, 8]);
    oracle::fix_ipv4(&mut later_fragment);
    world.gives(0, &later_fragment);
    world.gives(0, &build::udp(client, vip, b"the last one"));
    world.gets(0);

    let shared = world.stop(8);
    let counters = shared.counters.workers().next().unwrap();
    assert_eq!(counters.received.packets.get(), 8);
    let verdicts = [&counters.forwarded, &counters.replied, &counters.consumed, &counters.sent.packets];
    assert_eq!(verdicts.map(|counter| counter.get()), [3, 1, 1, 4]);
    for reason in [DropReason::NoService, DropReason::BadOffload, DropReason::NotIp] {
        assert_eq!(counters.drops(reason).get(), 1, "{}", reason.name());
    }
}

#[test]
fn a_packet_that_came_to_another_worker_is_handed_to_the_owner_of_its_flow() {
    let world = World::new(2);
    let (client, vip) = (world.client_of(1), at("192.0.2.10:53"));
    world.gives(0, &build::udp(client, vip, b"to the wrong queue"));
    let (source, backend) = ends(&world.gets(1));
    world.gives(0, &build::udp(backend, source, b"to the wrong queue again"));
    assert_eq!(ends(&world.gets(1)), (vip, client));
    world.gives(1, &build::udp(client, vip, b"to the right one"));
    world.gets(1);

    let shared = world.stop(3);
    let of_each = |n: usize| shared.counters.workers().nth(n).unwrap();
    assert_eq!([0, 1].map(|n| of_each(n).handed_over.get()), [2, 0]);
    assert_eq!([0, 1].map(|n| of_each(n).forwarded.get()), [0, 3]);
}

#[test]
fn what_the_owner_has_no_room_for_is_dropped_and_counted_so() {
    const SLOTS: u64 = 1024;
    let world = World::over(2, 1, |port| port);
    let (stranger, own, vip) = (world.client_of(1), world.client_of(0), at("192.0.2.10:53"));
    for _ in 0..SLOTS + 5 {
        world.gives(0, &build::udp(stranger, vip, b"its owner sleeps"));
    }
    world.gives(0, &build::udp(own, vip, b"the last one"));
    world.gets(0);
    let shared = world.stop(SLOTS + 6);
    let counters = shared.counters.workers().next().unwrap();
    assert_eq!((counters.handed_over.get(), counters.drops(DropReason::HandoffFull).get()), (SLOTS, 5));
}

#[test]
fn a_new_configuration_is_seen_with_the_next_batch() {
    let world = World::new(1);
    let (old, new, vip) = (at("198.51.100.7:4000"), at("198.51.100.7:4001"), at("192.0.2.10:53"));
    world.gives(0, &build::udp(old, vip, b"question"));
    assert_eq!(ends(&world.gets(0)).1, at("10.0.0.1:53"));

    world.reload(&CONFIG.replace("10.0.0.1", "10.0.0.2"));
    world.gives(0, &build::udp(new, vip, b"question"));
    assert_eq!(ends(&world.gets(0)).1, at("10.0.0.2:53"));
    world.gives(0, &build::udp(old, vip, b"of a flow that is there"));
    assert_eq!(ends(&world.gets(0)).1, at("10.0.0.1:53"), "a flow keeps its way");
    world.stop(3);
}

#[test]
fn a_flow_is_ended_by_mail() {
    let world = World::new(1);
    let (client, vip) = (at("198.51.100.7:4000"), at("192.0.2.10:53"));
    world.gives(0, &build::udp(client, vip, b"question"));
    let (source, backend) = ends(&world.gets(0));
    let key = FlowKey { source: client, destination: vip, protocol: Protocol::UDP };
    let (flow, _) = world.shared.table.find(&key).unwrap();
    world.mailboxes[0].end_flow(flow);
    // Mail is read after the batch: this one may still find the flow, and its end shows in the books.
    world.gives(0, &build::udp(at("198.51.100.7:4001"), vip, b"another's"));
    world.gets(0);
    world.gives(0, &build::udp(at("198.51.100.7:4001"), vip, b"and again"));
    world.gets(0);
    assert!(world.shared.table.find(&key).is_none());
    world.gives(0, &build::udp(backend, source, b"too late"));
    world.gives(0, &build::udp(at("198.51.100.7:4001"), vip, b"the last one"));
    world.gets(0);
    let shared = world.stop(5);
    assert_eq!(shared.counters.sum(|worker| worker.drops(DropReason::NoFlow)), 1);
}

#[test]
fn idle_workers_stop_when_they_are_told() {
    World::new(3).stop(0);
}
