//! The bytes of each message stay what they are: two versions of the program have to understand each other.

use proptest::prelude::*;

use super::*;

fn micros(n: u64) -> Duration {
    Duration::from_micros(n)
}

const fn heartbeat() -> Heartbeat {
    Heartbeat {
        epoch: Epoch::from_bits(0x0101_0101_0101_0101),
        base: Epoch::from_bits(0x0202_0202_0202_0202),
        state: State::Standby,
        prefer: 100,
        flags: Flags::from_bits(0x8181),
        interval: Duration::from_millis(5),
        dead: Duration::from_millis(20),
        seq: 0x0303_0303,
        sent_at: Instant::from_micros(0x0404_0404_0404_0404),
        echo: Some(Echo { sent_at: Instant::from_micros(0x0505_0505_0505_0505), held_for: Duration::from_micros(6) }),
        rx_age: [Some(Duration::from_micros(8)), None, Some(Duration::ZERO), None],
        sync: Progress {
            session: 0x0909_0909,
            produced_lsn: 0x0a0a_0a0a_0a0a_0a0a,
            applied_lsn: 0x0b0b_0b0b_0b0b_0b0b,
            flows: 0x0c0c_0c0c,
            digest: Digest { lsn: 0x0d0d_0d0d_0d0d_0d0d, root: 0x0e0e_0e0e_0e0e_0e0e },
            config_hash: 0x0f0f_0f0f_0f0f_0f0f,
            unshared: 0x1010_1010,
        },
        data_plane_age: Duration::from_micros(0x11),
    }
}

fn hex(message: &Message<'_>) -> String {
    let mut bytes = Vec::new();
    message.write(&mut bytes);
    assert_eq!(Message::read(message.kind(), &bytes), Some(*message));
    bytes.push(7);
    match message {
        Message::Heartbeat(_) | Message::Handoff(_) | Message::Goodbye(_) => {
            assert_eq!(
                Message::read(message.kind(), &bytes),
                Some(*message),
                "what a later version adds is passed over"
            );
        }
        Message::Sync(_) | Message::Ack(_) | Message::Bulk(_) | Message::Digest(_) | Message::Relay(_) => {}
    }
    bytes.pop();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_heartbeat_has_these_bytes() {
    let parts = [
        "0101010101010101",                 // epoch
        "0202020202020202",                 // base
        "0264",                             // state, prefer
        "8181",                             // flags
        "0000138800004e20",                 // interval, dead time
        "03030303",                         // seq
        "0404040404040404",                 // sent at
        "050505050505050500000006",         // echo
        "00000008ffffffff00000000ffffffff", // ages by path
        "09090909",                         // session
        "0a0a0a0a0a0a0a0a",                 // produced
        "0b0b0b0b0b0b0b0b",                 // applied
        "0c0c0c0c",                         // flows
        "0d0d0d0d0d0d0d0d0e0e0e0e0e0e0e0e", // digest
        "0f0f0f0f0f0f0f0f",                 // configuration
        "10101010",                         // unshared
        "00000011",                         // age of the data plane
    ];
    assert_eq!(hex(&Message::Heartbeat(heartbeat())), parts.concat());
}

#[test]
fn the_steps_of_a_handover_and_a_goodbye_have_these_bytes() {
    let handoff = |step| hex(&Message::Handoff(Handoff { epoch: Epoch::from_bits(0x21), intent: 3, step }));
    let named = |number| format!("{number}000000000000002100000003");
    assert_eq!(handoff(Step::Prepare), named("01"));
    assert_eq!(handoff(Step::Ready), named("02"));
    let digest = Digest { lsn: 5, root: 6 };
    assert_eq!(handoff(Step::Commit(digest)), named("03") + "00000000000000050000000000000006");
    assert_eq!(handoff(Step::CommitAck), named("04"));
    assert_eq!(handoff(Step::Cancel), named("05"));
    for (number, reason) in (1..).zip(Reason::ALL) {
        let goodbye = Message::Goodbye(Goodbye { epoch: Epoch::from_bits(0x21), reason });
        assert_eq!(hex(&goodbye), format!("0000000000000021{number:02x}"));
    }
}

#[test]
fn what_belongs_to_flows_is_passed_on_as_it_is() {
    for message in
        [Message::Sync(b"1"), Message::Ack(b"2"), Message::Bulk(b""), Message::Digest(b"4"), Message::Relay(b"5")]
    {
        hex(&message);
    }
}

#[test]
fn the_short_and_the_unknown_are_not_understood() {
    let mut bytes = Vec::new();
    for message in [
        Message::Heartbeat(heartbeat()),
        Message::Handoff(Handoff { epoch: Epoch::ZERO, intent: 0, step: Step::Commit(Digest::default()) }),
        Message::Goodbye(Goodbye { epoch: Epoch::ZERO, reason: Reason::Crash }),
    ] {
        bytes.clear();
        message.write(&mut bytes);
        for len in 0..bytes.len() {
            assert_eq!(Message::read(message.kind(), &bytes[..len]), None, "{message:?} of {len} bytes");
        }
    }
    let unknown = |kind, at: usize, byte, len| {
        let mut text = vec![0; len];
        text[at] = byte;
        assert_eq!(Message::read(kind, &text), None, "{kind:?}");
    };
    unknown(Kind::Heartbeat, 16, 11, 200);
    unknown(Kind::Handoff, 0, 6, 50);
    unknown(Kind::Goodbye, 8, 0, 9);
    unknown(Kind::Goodbye, 8, 5, 9);
    assert_eq!(Message::read(Kind::Witness, &[0; 200]), None);
}

#[test]
fn a_span_that_is_too_long_is_told_as_the_longest() {
    let told = |age| {
        let mut bytes = Vec::new();
        Message::Heartbeat(Heartbeat { rx_age: [Some(age); MAX_PATHS], ..heartbeat() }).write(&mut bytes);
        match Message::read(Kind::Heartbeat, &bytes) {
            Some(Message::Heartbeat(read)) => read.rx_age[0],
            other => panic!("{other:?}"),
        }
    };
    let longest = micros(u64::from(u32::MAX) - 1);
    assert_eq!(told(longest), Some(longest));
    assert_eq!((told(longest + micros(1)), told(Duration::MAX)), (Some(longest), Some(longest)));
}

proptest! {
    /// What is understood says the same when it is written again.
    #[test]
    fn whatever_is_read_is_written_the_same(kind in 0..Kind::ALL.len(), text in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Some(message) = Message::read(Kind::ALL[kind], &text) {
            let mut bytes = Vec::new();
            message.write(&mut bytes);
            prop_assert_eq!(Message::read(Kind::ALL[kind], &bytes), Some(message));
        }
    }
}
