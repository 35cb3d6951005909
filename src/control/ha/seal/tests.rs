//! Two ends, and somebody between them who records, forges, repeats and holds back.

use proptest::prelude::*;

use super::*;

const A: Identity = Identity { cluster: 7, node: 0, boot: 0xaaaa };
const B: Identity = Identity { cluster: 7, node: 1, boot: 0xbbbb };

fn ring(lines: &[(u8, &str)]) -> KeyRing {
    let text: String = lines.iter().map(|(id, pair)| format!("{id} {}ff\n", pair.repeat(32))).collect();
    KeyRing::parse(&text).unwrap()
}

fn channel(me: Identity) -> Channel {
    Channel::new(me, ring(&[(1, "17")]))
}

fn at(millis: u64) -> Instant {
    Instant::from_micros(10_000_000 + millis * 1_000)
}

/// Carries greetings to and fro until nobody has any more to say.
fn meet(a: &mut Channel, b: &mut Channel, now: Instant) {
    let mut carried = Some(a.greet(0, now));
    for n in 0.. {
        let Some(mut datagram) = carried else { break };
        let to = if n % 2 == 0 { &mut *b } else { &mut *a };
        let Ok(Opened::Greeting { answer, .. }) = to.open(0, &mut datagram, now) else { panic!("greeting {n}") };
        carried = answer;
    }
}

fn met() -> (Channel, Channel) {
    let (mut a, mut b) = (channel(A), channel(B));
    meet(&mut a, &mut b, at(0));
    (a, b)
}

fn says(from: &mut Channel, path: u8, text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    assert!(from.seal(Kind::Heartbeat, 0, path, &mut out, |out| out.extend_from_slice(text)));
    out
}

fn hears(to: &mut Channel, path: u8, datagram: &[u8]) -> Result<Vec<u8>, Reject> {
    match to.open(path, &mut datagram.to_vec(), at(1))? {
        Opened::Message { text, .. } => Ok(text.to_vec()),
        Opened::Greeting { .. } => panic!("a greeting"),
    }
}

/// All that a datagram may change, except counters of refusals.
fn state(channel: &Channel) -> String {
    let windows = channel.peer.as_ref().map(|peer| peer.windows.clone());
    format!("{:?} {:?} {} {:?}", channel.peer(), windows, channel.counter, channel.asked)
}

#[test]
fn two_who_have_the_key_meet_and_talk() {
    let (mut a, mut b) = met();
    assert_eq!((a.peer(), b.peer()), (Some(B.boot), Some(A.boot)));
    let hello = says(&mut a, 0, b"how are you?");
    assert_eq!(hello.len(), OVERHEAD + 12);
    assert_eq!(hears(&mut b, 0, &hello).unwrap(), b"how are you?");
    let answer = says(&mut b, 2, b"well");
    assert_eq!(hears(&mut a, 2, &answer).unwrap(), b"well");
    assert!(!hello.windows(3).any(|three| three == b"how"), "nobody else reads it");
}

#[test]
fn nothing_is_said_to_nobody() {
    let mut a = channel(A);
    assert!(!a.seal(Kind::Heartbeat, 0, 0, &mut vec![1], |_| panic!("there is nothing to fill")));
}

#[test]
fn what_was_heard_is_not_heard_again_and_the_late_is_heard_once() {
    let (mut a, mut b) = met();
    let (first, second) = (says(&mut a, 0, b"1"), says(&mut a, 0, b"2"));
    assert_eq!(hears(&mut b, 0, &second).unwrap(), b"2");
    assert_eq!(hears(&mut b, 0, &first).unwrap(), b"1", "overtaken on its way");
    assert_eq!(hears(&mut b, 0, &first), Err(Reject::Replay));
    assert_eq!(hears(&mut b, 0, &second), Err(Reject::Replay));
    assert_eq!(hears(&mut b, 1, &second), Err(Reject::Path), "not on another path either");
    let old = says(&mut a, 0, b"3");
    for _ in 0..1024 {
        let datagram = says(&mut a, 0, b"");
        hears(&mut b, 0, &datagram).unwrap();
    }
    assert_eq!(hears(&mut b, 0, &old), Err(Reject::Replay), "too old to know");
}

#[test]
fn each_refusal_has_its_reason_and_its_counter() {
    let (mut a, mut b) = met();
    let good = says(&mut a, 0, b"text");
    let with = |at: usize, byte: u8| {
        let mut bad = good.clone();
        bad[at] = byte;
        bad
    };
    let mut longer = good.clone();
    longer.push(0);
    let cases = [
        (good[..OVERHEAD - 1].to_vec(), Reject::Length),
        (good[..good.len() - 1].to_vec(), Reject::Length),
        (longer, Reject::Length),
        (with(0, 0), Reject::Magic),
        (with(2, 9), Reject::Version),
        (with(4, 99), Reject::Kind),
        (with(8, 1), Reject::Cluster),
        (with(12, 1), Reject::Node),
        (with(12, 2), Reject::Node),
        (with(6, 1), Reject::Path),
        (with(7, 2), Reject::Key),
        (with(16, 1), Reject::Boot),
        (with(5, 1), Reject::Forged),
        (with(13, 1), Reject::Forged),
        (with(31, 9), Reject::Forged),
        (with(40, 0), Reject::Forged),
        (with(good.len() - 1, good[good.len() - 1] ^ 1), Reject::Forged),
    ];
    let before = state(&b);
    for (bad, reject) in cases {
        let counted = b.rejected(reject);
        assert_eq!(hears(&mut b, 0, &bad), Err(reject));
        assert_eq!((b.rejected(reject), state(&b)), (counted + 1, before.clone()));
    }
    assert_eq!(hears(&mut b, 0, &good).unwrap(), b"text", "what was forged did not use up the counter");
}

#[test]
fn who_has_another_key_of_the_same_number_changes_nothing() {
    let (_, mut b) = met();
    let before = state(&b);
    let mut stranger = Channel::new(A, ring(&[(1, "18")]));
    let mut greeting = stranger.greet(0, at(1));
    assert_eq!(b.open(0, &mut greeting, at(1)), Err(Reject::Forged));
    assert_eq!(state(&b), before);
}

#[test]
fn recordings_of_an_earlier_boot_are_refused() {
    let (mut a, mut b) = met();
    let recorded = says(&mut a, 0, b"from yesterday");
    // The receiver has started again, and the sender does not know yet.
    let mut reborn = channel(Identity { boot: 0xb2b2, ..B });
    assert_eq!(hears(&mut reborn, 0, &recorded), Err(Reject::Boot));
    meet(&mut a, &mut reborn, at(2));
    assert_eq!(hears(&mut reborn, 0, &recorded), Err(Reject::Forged), "the peer's boot is right, ours is not");
    // The sender has started again.
    let mut a2 = channel(Identity { boot: 0xa2a2, ..A });
    meet(&mut a2, &mut b, at(2));
    assert_eq!(b.peer(), Some(0xa2a2));
    assert_eq!(hears(&mut b, 0, &recorded), Err(Reject::Boot));
}

/// Whoever holds back what an earlier life of the peer has sent to this one of ours, cannot bring that life back.
#[test]
fn a_peer_of_yesterday_is_not_brought_back() {
    let (mut a, mut b) = (channel(A), channel(B));
    let mut hello = a.greet(0, at(0));
    let held_back = hello.clone();
    let Ok(Opened::Greeting { answer: Some(mut answer), .. }) = b.open(0, &mut hello, at(0)) else { panic!() };
    let Ok(Opened::Greeting { answer: Some(proof), .. }) = a.open(0, &mut answer, at(0)) else { panic!() };
    let mut a2 = channel(Identity { boot: 0xa2a2, ..A });
    meet(&mut a2, &mut b, at(100));
    assert_eq!(b.peer(), Some(0xa2a2));
    assert_eq!(b.open(0, &mut proof.clone(), at(1_100)), Err(Reject::Unasked), "its question is a second old");
    let mut asks_again = held_back.clone();
    let asked_again = b.open(0, &mut asks_again, at(1_100));
    assert!(matches!(asked_again, Ok(Opened::Greeting { answer: Some(_), met: false })), "{asked_again:?}");
    assert_eq!(b.open(0, &mut proof.clone(), at(1_100)), Err(Reject::Unasked), "and it answers no other one");
    assert_eq!(b.peer(), Some(0xa2a2));
}

#[test]
fn a_known_peer_that_greets_again_does_not_open_its_window_again() {
    let (mut a, mut b) = met();
    let said = says(&mut a, 0, b"once");
    hears(&mut b, 0, &said).unwrap();
    meet(&mut a, &mut b, at(5));
    meet(&mut b, &mut a, at(5));
    assert_eq!(hears(&mut b, 0, &said), Err(Reject::Replay));
}

#[test]
fn a_flood_of_greetings_gets_a_few_answers() {
    let (mut a, mut b) = (channel(A), channel(B));
    let hello = a.greet(0, at(0));
    let answers = |b: &mut Channel, now| (0..100).filter(|_| b.open(0, &mut hello.clone(), now).is_ok()).count();
    assert_eq!((answers(&mut b, at(0)), answers(&mut b, at(99)), answers(&mut b, at(100))), (8, 0, 8));
    assert_eq!(b.rejected(Reject::Busy), 284);
    assert_eq!(b.peer(), None);
}

#[test]
fn what_goes_back_to_its_sender_is_refused() {
    let (mut a, _) = met();
    let said = says(&mut a, 0, b"echo");
    assert_eq!(hears(&mut a, 0, &said), Err(Reject::Node));
    let mut greeting = a.greet(0, at(1));
    assert_eq!(a.open(0, &mut greeting, at(1)), Err(Reject::Node));
}

#[test]
fn keys_change_while_the_two_talk() {
    let (mut a, mut b) = met();
    let talk = |a: &mut Channel, b: &mut Channel| {
        let said = says(a, 0, b"to");
        hears(b, 0, &said)?;
        let said = says(b, 0, b"fro");
        hears(a, 0, &said)
    };
    let steps = [[(1, "17"), (2, "29")].as_slice(), &[(2, "29"), (1, "17")], &[(2, "29")]];
    for keys in steps {
        a.set_keys(ring(keys));
        talk(&mut a, &mut b).unwrap();
        b.set_keys(ring(keys));
        talk(&mut a, &mut b).unwrap();
    }
    b.set_keys(ring(&[(3, "31")]));
    assert_eq!(talk(&mut a, &mut b), Err(Reject::Key));
}

/// The bytes of one message and of one greeting, made by an implementation that is not ours (Python's `cryptography`).
#[test]
fn sealed_messages_have_these_bytes() {
    let secret: Vec<u8> = (0..32).collect();
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut a = Channel::new(A, KeyRing::parse(&format!("5 {hex}")).unwrap());
    let mut b = Channel::new(B, KeyRing::parse(&format!("5 {hex}")).unwrap());
    let words = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(words(&a.greet(0, at(0))), GREETING);
    meet(&mut a, &mut b, at(0));
    assert_eq!(words(&says(&mut a, 1, b"tungate")), MESSAGE);
}

const GREETING: &str =
    "54470100010100050000000700000008000000000000aaaa000000000000000091f37bba70f0a83975fc28990a62f9d0eee111b63f812925";
const MESSAGE: &str = "5447010003000105000000070000000f000000000000aaaa0000000000000003601f6f20dd0aff8f4d004bb335298d3b7b09e2e556235bffca5fd6c4f6b2be";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever is done to a datagram, and whatever else comes: it is refused, counted once, and changes nothing.
    #[test]
    fn what_is_not_authentic_changes_a_counter_and_nothing_else(
        greeting in any::<bool>(),
        flips in prop::collection::vec((0..100_usize, 1..=255_u8), 1..4),
        cut in prop::option::of(0..100_usize),
        noise in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let (mut a, mut b) = met();
        let good = if greeting { a.greet(0, at(1)) } else { says(&mut a, 0, b"some text") };
        let mut bad = good.clone();
        for (place, flip) in flips {
            let place = place % bad.len();
            bad[place] ^= flip;
        }
        bad.truncate(cut.unwrap_or(100));
        for mut datagram in [bad, noise] {
            prop_assume!(datagram != good && datagram[..] != good[..datagram.len().min(good.len())] || datagram.len() < good.len());
            // The minor version is authenticated, too; nothing of the header is free.
            let before = (state(&b), b.rejects.iter().sum::<u64>());
            prop_assert!(b.open(0, &mut datagram, at(1)).is_err());
            prop_assert_eq!((state(&b), b.rejects.iter().sum::<u64>()), (before.0, before.1 + 1));
        }
    }
}
