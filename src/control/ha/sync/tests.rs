use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::engine::conntrack::{FlowKey, FlowRecord, State, Way};
use crate::engine::{Digest, Instant};
use crate::wire::{Address, Endpoint, Protocol};

fn endpoint(v6: bool) -> impl Strategy<Value = Endpoint> {
    let address = any::<[u8; 16]>().prop_map(move |octets| {
        if v6 {
            Address::v6([0x20, 1, octets[0], octets[1], 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, octets[2]])
        } else {
            Address::v4([10, octets[0], octets[1], octets[2]])
        }
    });
    (address, any::<u16>()).prop_map(|(address, port)| Endpoint::new(address, port))
}

fn key() -> impl Strategy<Value = FlowKey> {
    let ends = any::<bool>().prop_flat_map(|v6| (endpoint(v6), endpoint(v6)));
    (ends, any::<u8>()).prop_map(|((source, destination), protocol)| FlowKey {
        source,
        destination,
        protocol: Protocol(protocol),
    })
}

fn change() -> impl Strategy<Value = Change> {
    let way = prop_oneof![
        key().prop_map(|key| Way::Nat { backend: key.destination, source: key.source }),
        key().prop_map(|key| Way::Tunnel { to: key.source.address }),
    ];
    let words = prop::array::uniform13(prop_oneof![Just(0u32), any::<u32>()]);
    let record = (key(), way, prop::sample::select(&State::ALL[..]), words)
        .prop_map(|(original, way, state, tracker)| FlowRecord { original, way, state, tracker });
    prop_oneof![
        8 => record.prop_map(Change::Upsert),
        4 => key().prop_map(Change::Delete),
        1 => Just(Change::Begin),
        1 => Just(Change::End),
        1 => (any::<u32>(), any::<u64>()).prop_map(|(flows, sum)| Change::Mark(Digest { flows, sum })),
    ]
}

fn told() -> impl Strategy<Value = Told> {
    (0..256u16, change()).prop_map(|(worker, change)| Told { worker: WorkerId(worker), change })
}

/// One change for each number, to be told apart.
fn numbered(n: u32) -> Told {
    Told { worker: WorkerId(0), change: Change::Mark(Digest { flows: n, sum: 0 }) }
}

const ROOM: usize = 1_300;

#[test]
fn the_bytes_of_a_change_stay_what_they_are() {
    let end = |n, port| Endpoint::new(Address::v4([10, 0, 0, n]), port);
    let original = FlowKey { source: end(1, 0x1234), destination: end(2, 80), protocol: Protocol::TCP };
    let mut record = FlowRecord {
        original,
        way: Way::Nat { backend: end(3, 8080), source: end(4, 0x1234) },
        state: State::Established,
        tracker: [0; 13],
    };
    record.tracker[8] = 0x0102_0304;
    let mut bytes = Vec::new();
    codec::put(&Told { worker: WorkerId(2), change: Change::Upsert(record) }, &mut bytes);
    let ends = [4, 6, 0x12, 0x34, 0, 80, 10, 0, 0, 1, 10, 0, 0, 2];
    let way = [0, 4, 6, 0x12, 0x34, 0x1f, 0x90, 10, 0, 0, 4, 10, 0, 0, 3];
    let rest = [3, 1, 0, 1, 2, 3, 4];
    assert_eq!(bytes, [&[1, 37, 2][..], &ends, &way, &rest].concat());
}

#[test]
fn a_text_of_ordinary_size_carries_28_connections() {
    let mut sender = Sender::new(1_330, 0);
    sender.begin();
    let end = |n, port| Endpoint::new(Address::v4([10, 0, 0, n]), port);
    let original = FlowKey { source: end(1, 1), destination: end(2, 80), protocol: Protocol::TCP };
    let way = Way::Nat { backend: end(3, 8080), source: end(4, 1) };
    let mut record = FlowRecord { original, way, state: State::Established, tracker: [0; 13] };
    record.tracker[8..11].fill(7);
    for _ in 0..28 {
        sender.push(&Told { worker: WorkerId(0), change: Change::Upsert(record) });
    }
    let mut texts = 0;
    sender.transmit(Instant::ZERO, |_| texts += 1);
    assert_eq!(texts, 1);
}

proptest! {
    #[test]
    fn what_is_written_is_read(all in prop::collection::vec(told(), 1..20)) {
        let mut bytes = Vec::new();
        all.iter().for_each(|told| codec::put(told, &mut bytes));
        let mut rest = &*bytes;
        for told in all {
            prop_assert_eq!(codec::get(&mut rest), Ok(Some(told)));
        }
        prop_assert_eq!(rest, &[] as &[u8]);
    }

    #[test]
    fn whatever_comes_does_no_harm(text in prop::collection::vec(any::<u8>(), 0..200), session in 0..3u32, first in 0..4u64) {
        let mut receiver = Receiver::default();
        let _ = receiver.take(&text, |_| {});
        let front = [&session.to_be_bytes()[..], &first.to_be_bytes(), &[0, 2], &text].concat();
        let _ = receiver.take(&front, |_| {});
        receiver.ack();
        let _ = Ack::get(&text);
    }

    #[test]
    fn acknowledgments_are_read_as_they_were_written(session: u32, applied: u64, gaps in prop::collection::vec(any::<(u64, u64)>(), 0..8)) {
        let ack = Ack { session, applied, gaps };
        let mut text = Vec::new();
        ack.put(&mut text);
        prop_assert_eq!(Ack::get(&text), Ok(ack));
    }

    /// Whatever a network does to the datagrams: all changes arrive, once, in their order; and in the end all are known to.
    #[test]
    fn changes_arrive_once_and_in_order(
        bursts in prop::collection::vec(0..200u32, 1..30), loss in 0..60u64, seed: u64
    ) {
        let (mut sender, mut receiver) = (Sender::new(ROOM, 0), Receiver::default());
        let mut fate = seed;
        let mut lucky = move || {
            fate = fate.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (fate >> 33) % 100 >= loss
        };
        sender.begin();
        let (mut now, mut sent, mut got) = (Instant::from_micros(1_000_000), 0, Vec::new());
        let mut air: Vec<Vec<u8>> = Vec::new();
        let mut bursts = bursts.into_iter();
        for round in 0..10_000 {
            let burst = bursts.next();
            if burst.is_none() && sender.under_way() == 0 {
                break;
            }
            prop_assert!(round < 9_999, "it never ends");
            for _ in 0..burst.unwrap_or(0) {
                sender.push(&numbered(sent));
                sent += 1;
            }
            sender.transmit(now, |text| if lucky() { air.push(text.to_vec()) });
            if round % 3 == 0 {
                air.reverse();
            }
            for text in std::mem::take(&mut air) {
                for _ in 0..=u32::from(round % 5 == 0) {
                    receiver.take(&text, |told| got.push(told)).unwrap();
                }
            }
            if lucky() {
                let ack = receiver.ack();
                sender.acknowledge(&ack, now + Duration::from_micros(70), |text| if lucky() { air.push(text.to_vec()) });
            }
            now = now + Duration::from_micros(500);
        }
        prop_assert_eq!(got, (0..sent).map(numbered).collect::<Vec<_>>());
        prop_assert_eq!(sender.acknowledged(), u64::from(sent));
    }
}

#[test]
fn one_loss_is_mended_within_a_round_trip_of_the_next_text() {
    let (mut sender, mut receiver) = (Sender::new(ROOM, 0), Receiver::default());
    let at = Instant::from_micros;
    sender.begin();
    sender.push(&numbered(0));
    sender.transmit(at(0), |text| assert!(receiver.take(text, |_| {}).is_ok()));
    sender.acknowledge(&receiver.ack(), at(70), |_| panic!("nothing is missing"));
    sender.push(&numbered(1));
    sender.transmit(at(1_000), |_| {});
    sender.push(&numbered(2));
    sender.transmit(at(1_100), |text| assert!(receiver.take(text, |_| panic!("one is missing")).is_ok()));
    let mut again = Vec::new();
    sender.acknowledge(&receiver.ack(), at(1_170), |text| again.push(text.to_vec()));
    let mut got = Vec::new();
    assert_eq!(again.len(), 1);
    receiver.take(&again[0], |told| got.push(told)).unwrap();
    assert_eq!(got, [numbered(1), numbered(2)]);
}

#[test]
fn the_last_change_before_a_silence_is_sent_again_after_a_millisecond() {
    let mut sender = Sender::new(ROOM, 0);
    sender.begin();
    sender.push(&numbered(0));
    let mut sent = 0;
    sender.transmit(Instant::from_micros(0), |_| sent += 1);
    let due = sender.poll_timeout().unwrap();
    assert_eq!(due, Instant::from_micros(1_000));
    sender.transmit(due, |_| sent += 1);
    assert_eq!((sent, sender.sent_again()), (2, 1));
}

#[test]
fn who_does_not_listen_is_given_up_and_told_anew() {
    let (mut sender, mut receiver) = (Sender::new(ROOM, 0), Receiver::default());
    sender.begin();
    for n in 0..70_000 {
        sender.push(&numbered(n));
    }
    assert!(sender.is_lost());
    let mut texts = Vec::new();
    sender.transmit(Instant::ZERO, |text| texts.push(text.to_vec()));
    assert!(texts.is_empty(), "what is of no use is not sent");
    sender.begin();
    assert!(!sender.is_lost());
    sender.push(&numbered(1));
    sender.transmit(Instant::ZERO, |text| texts.push(text.to_vec()));
    assert_eq!(receiver.take(&texts[0], |_| {}), Ok(Taken::NewSession));
    assert_eq!(receiver.applied(), 1);
}

#[test]
fn what_is_left_of_an_earlier_session_counts_for_nothing() {
    let (mut sender, mut receiver) = (Sender::new(ROOM, 0), Receiver::default());
    let mut old = Vec::new();
    sender.begin();
    sender.push(&numbered(0));
    sender.transmit(Instant::ZERO, |text| old = text.to_vec());
    sender.begin();
    sender.push(&numbered(1));
    let mut got = Vec::new();
    sender.transmit(Instant::ZERO, |text| assert!(receiver.take(text, |told| got.push(told)).is_ok()));
    assert_eq!(receiver.take(&old, |told| got.push(told)), Ok(Taken::Old));
    assert_eq!(got, [numbered(1)]);
    let late = Ack { session: 1, applied: 1, gaps: Vec::new() };
    sender.acknowledge(&late, Instant::ZERO, |_| {});
    assert_eq!(sender.acknowledged(), 0);
}

#[test]
fn another_life_of_the_peer_may_number_its_sessions_as_it_likes() {
    let mut receiver = Receiver::default();
    for (boot, is_known) in [(1u64 << 31, false), (7, false), (6, true)] {
        if !is_known {
            receiver.reset();
        }
        let mut sender = Sender::new(ROOM, boot);
        sender.begin();
        sender.push(&numbered(0));
        let expected = if is_known { Taken::Old } else { Taken::NewSession };
        sender.transmit(Instant::ZERO, |text| assert_eq!(receiver.take(text, |_| {}), Ok(expected)));
    }
}

#[test]
fn a_change_of_an_unknown_kind_is_passed_over() {
    let known = numbered(3);
    let mut bytes = vec![99, 3, 0, 1, 2];
    codec::put(&known, &mut bytes);
    let text = [&1u32.to_be_bytes()[..], &1u64.to_be_bytes(), &[0, 2], &bytes].concat();
    let (mut receiver, mut got) = (Receiver::default(), Vec::new());
    receiver.take(&text, |told| got.push(told)).unwrap();
    assert_eq!((got, receiver.applied()), (vec![known], 2));
}
