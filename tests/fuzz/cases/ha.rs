//! Whatever comes on a path between two gateways: nothing panics, what is not authentic changes only a counter, what is
//! understood is written the same.

use tungate::control::ha::header::Kind;
use tungate::control::ha::keys::KeyRing;
use tungate::control::ha::message::Message;
use tungate::control::ha::seal::{Channel, Identity, Opened, Reject};
use tungate::engine::Instant;

const KEY: &str = "1 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// The first byte says what the rest is: a key file, a text of some kind, or a datagram.
pub(crate) fn run(data: &[u8]) {
    match data.split_first() {
        Some((0, text)) => key_file(text),
        Some((kind @ 1..=11, text)) => message(Kind::ALL[usize::from(*kind) - 1], text),
        Some((_, datagram)) => conversation(datagram),
        None => {}
    }
}

fn key_file(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    if let Err(why) = KeyRing::parse(text) {
        assert!(!why.is_empty() && !why.ends_with('.'), "{why}");
    }
}

fn message(kind: Kind, text: &[u8]) {
    let Some(message) = Message::read(kind, text) else { return };
    assert_eq!(message.kind(), kind);
    let mut bytes = Vec::new();
    message.write(&mut bytes);
    assert_eq!(Message::read(kind, &bytes), Some(message));
}

/// The datagram comes to a gateway that has a peer, before and after a message of the peer.
fn conversation(datagram: &[u8]) {
    let now = Instant::from_micros(1_000_000);
    let [mut a, mut b] = [0, 1].map(|node| {
        let me = Identity { cluster: 0x0102_0304, node, boot: 0x1111 + u64::from(node) };
        Channel::new(me, KeyRing::parse(KEY).unwrap())
    });
    let mut carried = Some(a.greet(0, now));
    while let Some(mut bytes) = carried {
        let to = if bytes[12] == 0 { &mut b } else { &mut a };
        let Ok(Opened::Greeting { answer, .. }) = to.open(0, &mut bytes, now) else { panic!("they meet") };
        carried = answer;
    }
    let mut said = Vec::new();
    assert!(a.seal(Kind::Heartbeat, 0, 0, &mut said, |out| out.push(1)));
    refused(&mut b, datagram, now);
    assert!(matches!(b.open(0, &mut said.clone(), now), Ok(Opened::Message { text: [1], .. })));
    refused(&mut b, datagram, now);
    refused(&mut b, &said, now);
}

fn refused(channel: &mut Channel, datagram: &[u8], now: Instant) {
    let count = |channel: &Channel| Reject::ALL.iter().map(|reject| channel.rejected(*reject)).sum::<u64>();
    let (before, peer) = (count(channel), channel.peer());
    let opened = channel.open(0, &mut datagram.to_vec(), now).is_ok();
    // Of what stands in the corpus, a greeting of the right key is authentic, and worth an answer.
    assert!(opened == (count(channel) == before) && channel.peer() == peer);
}
