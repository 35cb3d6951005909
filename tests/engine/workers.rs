//! Several workers: whichever queue a packet comes to, it ends once, and the flows are the same.

use proptest::prelude::*;
use tungate::engine::conntrack::State;
use tungate::wire::build::{self, Tcp};

use crate::CONFIG;
use crate::support::{World, at, segment};

#[test]
fn a_connection_whose_packets_come_to_every_queue_is_one_connection() {
    for workers in [1, 2, 3, 8] {
        let mut world = World::with_workers(CONFIG, workers);
        for n in 1..=40 {
            let mut connection = world.client(n).opens("web");
            for queue in 0..usize::from(workers) {
                world.queue = queue;
                world.client_sends(&mut connection, 1_000);
                world.backend_sends(&mut connection, 1_000);
            }
            world.client_closes(&mut connection);
            world.backend_closes(&mut connection);
        }
        assert_eq!(world.states(), vec![State::TimeWait; 40]);
        world.check_invariants();
        world.wait(121);
        assert!(world.shared.table.is_empty());
        world.check_invariants();
        let counters = world.counters();
        let [received, forwarded] = ["received", "forwarded"].map(|name| counters[name]);
        assert_eq!(received - counters.get("handed-over").unwrap_or(&0), forwarded, "each packet ends once");
    }
}

#[test]
fn an_error_is_translated_by_whichever_worker_it_comes_to() {
    let mut world = World::with_workers(CONFIG, 4);
    for n in 1..=20 {
        let connection = world.client(n).opens("web");
        let left = world.backend_says(&connection, &connection.backend_segment("ACK")).forwarded().bytes;
        for queue in 0..4 {
            world.queue = queue;
            let error = world.complains(at("203.0.113.9:0").address, connection.vip.address, (3, 4, 1_400), &left);
            assert_eq!(error.forwarded().destination.address, connection.backend.address);
        }
    }
}

/// One step of a client, at one of the queues.
#[derive(Clone, Debug)]
struct Step {
    queue: usize,
    client: u8,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Segment(&'static str, u32, u32),
    Datagram,
    /// The backend answers what it was sent last.
    Answer(&'static str, u32, u32),
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let names = prop::sample::select(vec!["SYN", "SYN ACK", "ACK", "FIN ACK", "RST", "RST ACK", "SYN FIN"]);
    let number = prop::sample::select(vec![0u32, 1_000, 1_001, 900_000, 900_001, 77, 1 << 31]);
    let what = prop_oneof![
        5 => (names.clone(), number.clone(), number.clone()).prop_map(|(names, seq, ack)| What::Segment(names, seq, ack)),
        3 => Just(What::Datagram),
        5 => (names, number.clone(), number).prop_map(|(names, seq, ack)| What::Answer(names, seq, ack)),
        1 => prop::sample::select(vec![0, 1, 61, 121, 301, 7_441]).prop_map(What::Wait),
    ];
    (0..4usize, 1..40u8, what).prop_map(|(queue, client, what)| Step { queue, client, what })
}

/// Takes the steps with so many workers: verdicts, and what each backend saw, apart from ports that depend on workers.
fn run(workers: u16, max_flows: u32, steps: &[Step]) -> Vec<String> {
    let config = CONFIG.replace("max-flows = 1000", &format!("max-flows = {max_flows}"));
    let mut world = World::with_workers(&config, workers);
    let mut last = std::collections::HashMap::new();
    let mut seen = Vec::new();
    for Step { queue, client, what } in steps {
        world.queue = queue % usize::from(workers);
        let outcome = match *what {
            What::Segment(names, seq, ack) => world.client(*client).sends("web", &segment(names, seq, ack)),
            What::Datagram => world.client(*client).asks("dns", b"question"),
            What::Answer(names, seq, ack) => {
                let Some((source, backend, tcp)) = last.get(client).copied() else { continue };
                let segment = Tcp { seq, ack, ..segment(names, 0, 0) };
                world.receives(if tcp {
                    build::tcp(backend, source, &segment)
                } else {
                    build::udp(backend, source, b"")
                })
            }
            What::Wait(seconds) => {
                world.wait(seconds.into());
                if seconds > 1 {
                    last.clear(); // the port may be another's by now, and whose depends on the workers
                }
                continue;
            }
        };
        seen.push(format!("{} {}", outcome.verdict, outcome.own.len()));
        if let Some(sent) = outcome.sent {
            let sent = crate::support::Sight::of(sent);
            assert!(sent.sound);
            if !matches!(what, What::Answer(..)) {
                seen.push(sent.destination.to_string());
                last.insert(*client, (sent.source, sent.destination, sent.tcp.is_some()));
            }
        }
        world.check_invariants();
    }
    world.wait(30_000);
    world.check_invariants();
    assert!(world.shared.table.is_empty() && world.engines.iter().all(|engine| engine.poll_timeout().is_none()));
    seen
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn any_number_of_workers_decides_as_one_does(steps in prop::collection::vec(step(), 1..200)) {
        let alone = run(1, 1_000, &steps);
        for workers in [2, 4] {
            prop_assert_eq!(&run(workers, 1_000, &steps), &alone);
        }
    }

    /// Where there is little room the workers decide otherwise, each for its own; what holds always, holds here.
    #[test]
    fn in_a_full_table_all_invariants_hold(workers in 1..5u16, room in 1..10u32, steps in prop::collection::vec(step(), 1..200)) {
        run(workers, room, &steps);
    }

    /// No flow dies early or outlives its time by more than two ticks, however the driver is late; and a driver that
    /// sleeps as it is told neither spins nor oversleeps.
    #[test]
    fn flows_are_forgotten_in_time(opened in prop::collection::vec(0..20_000_000u64, 1..60), late in 0..1_000_000u64) {
        use std::time::Duration;
        let mut world = World::new(CONFIG);
        let start = world.now;
        let mut opened = opened;
        opened.sort_unstable();
        let mut births = Vec::new();
        for (n, micros) in (1..).zip(&opened) {
            world.now = start + Duration::from_micros(*micros);
            world.client(n).asks("dns", b"").forwarded();
            let (client, vip) = (world.client(n).endpoint(), world.client(n).vip("dns"));
            births.push((world.now, world.flow(client, vip, tungate::wire::Protocol::UDP).unwrap()));
        }
        let mut calls = 0;
        while let Some(next) = world.engines[0].poll_timeout() {
            prop_assert!(next > world.now || calls == 0, "a driver would spin");
            world.now = next.max(world.now) + Duration::from_micros(late * (calls % 2));
            while world.engines[0].handle_timeout(world.now) {}
            calls += 1;
            prop_assert!(calls < 3_000, "woken up too often");
            for (born, flow) in &births {
                let age = world.now.since(*born);
                prop_assert!(flow.is_alive() || age >= Duration::from_secs(120), "died at {age:?}");
                let allowed = Duration::from_secs(120) + Duration::from_millis(262) + Duration::from_micros(late);
                prop_assert!(!flow.is_alive() || age <= allowed, "lives at {age:?}");
            }
        }
        prop_assert!(world.shared.table.is_empty());
    }

    /// A machine that slept: after a leap of any length one round of calls is enough.
    #[test]
    fn a_leap_in_time_is_survived(seconds in prop::sample::select(vec![1u64, 60, 119, 7_000, 86_400, 86_400 * 45, 86_400 * 4_000])) {
        let mut world = World::new(CONFIG);
        let udp = world.client(1).asks("dns", b"").forwarded();
        let connection = world.client(1).opens("web");
        world.wait(seconds);
        let expected = usize::from(seconds < 120) + usize::from(seconds < 7_440);
        prop_assert_eq!(world.states().len(), expected);
        if seconds < 7_440 {
            world.client_says(&connection, &connection.client_segment("ACK")).forwarded();
        }
        if seconds < 120 {
            world.answers(udp.destination, udp.source, b"").forwarded();
        }
        world.check_invariants();
    }
}

/// A capture whose clock jumps. Half a million years are 10^14 ticks: done one by one, this would run for days.
#[test]
fn a_leap_of_any_length_costs_no_more_than_a_turn_of_the_wheel() {
    use std::time::Duration;
    let wraps = Duration::from_millis(1 << 32);
    for leap in [wraps * 3_600, wraps * 3_600 + wraps / 2, Duration::from_micros(u64::MAX - (1 << 41))] {
        for flows_before in [0, 3] {
            let mut world = World::new(CONFIG);
            for n in 1..=flows_before {
                world.client(n).asks("dns", b"").forwarded();
                world.client(n).opens("web");
            }
            world.wait_for(leap);
            // Idle times are exact up to 46 days: after whole turns of their clock the flows may look fresh, once.
            world.wait(7_441);
            assert_eq!(world.states(), []);
            world.client(9).asks("dns", b"").forwarded();
            let next = world.engines[0].poll_timeout().unwrap().since(world.now);
            assert!(next > Duration::from_secs(60), "{next:?}");
            world.wait(121);
            assert_eq!(world.states(), []);
            world.check_invariants();
        }
    }
}
