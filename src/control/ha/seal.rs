//! Seals what goes to the peer, and opens what comes from it: ChaCha20-Poly1305 (RFC 8439) with keys that are made of the
//! shared one by HKDF-SHA256 (RFC 5869).
//!
//! Freshness without clocks. Each start of a gateway has a random boot id, and the keys of a direction are made of both
//! ends' boot ids: what was recorded in an earlier life of either opens no more. Within a life, a window over the
//! sender's counter refuses what was seen. And whose life it is, is asked: a gateway talks only to a boot that has
//! answered a greeting of the last second by naming its counter, so that a recording cannot bring back a peer of
//! yesterday.
//!
//! ```text
//! A                                   B
//! HELLO n                        ->      for nobody in particular; sealed for boot 0
//!                                <-      HELLO_ACK m, answers n, wants an answer
//! (B is known)  HELLO_ACK k, answers m ->      (A is known)
//! ```
//!
//! What is refused changes a counter, and nothing else.

mod reject;
mod window;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use chacha20poly1305::aead::AeadInOut as _;
use chacha20poly1305::aead::inout::InOutBuf;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _, Nonce, Tag};
use hkdf::Hkdf;
use sha2::Sha256;

use self::window::Window;
use super::MAX_PATHS;
use super::header::{self, Header, Kind, NoHeader, REPLY_REQUESTED};
use super::keys::{Key, KeyRing};
use crate::engine::Instant;

pub use reject::Reject;

/// What sealing adds to a text: header, the receiver's boot id, tag.
pub const OVERHEAD: usize = header::LEN + BOOT + TAG;

const BOOT: usize = 8;
const TAG: usize = 16;
/// How long a greeting may be answered.
const PATIENCE: Duration = Duration::from_secs(1);
/// Greetings of ours that are remembered.
const GREETINGS: usize = 16;
/// Greetings of others that are answered within [`ANSWER_WINDOW`].
const MOST_ANSWERS: u32 = 8;
const ANSWER_WINDOW: Duration = Duration::from_millis(100);

/// Which gateway this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The pair.
    pub cluster: u32,
    /// 0 or 1.
    pub node: u8,
    /// Random, not 0: another one for each start.
    pub boot: u64,
}

/// One end of the conversation between the two gateways, over all paths.
pub struct Channel {
    me: Identity,
    keys: KeyRing,
    /// Of the next datagram.
    counter: u64,
    peer: Option<Peer>,
    /// Counters of greetings, and when they were sent.
    asked: VecDeque<(u64, Instant)>,
    answers: u32,
    answers_since: Instant,
    rejects: [u64; Reject::ALL.len()],
}

/// The peer's life that is talked to.
struct Peer {
    boot: u64,
    sends: ChaCha20Poly1305,
    /// A cipher a key of the ring, in its order.
    receives: Vec<ChaCha20Poly1305>,
    windows: [Window; MAX_PATHS],
}

/// What a datagram said.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened<'a> {
    /// A message of the peer.
    Message {
        /// What it is for.
        kind: Kind,
        /// The header's flags.
        flags: u8,
        /// Its text, the boot id in front taken off.
        text: &'a [u8],
    },
    /// A greeting.
    Greeting {
        /// What is to be sent back on the same path.
        answer: Option<Vec<u8>>,
        /// Whether a new life of the peer is known by it.
        met: bool,
    },
}

/// Secrets show nowhere.
impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peer = self.peer.as_ref().map(|peer| peer.boot);
        f.debug_struct("Channel").field("me", &self.me).field("peer", &peer).finish_non_exhaustive()
    }
}

impl Channel {
    /// One that knows no peer yet.
    pub fn new(me: Identity, keys: KeyRing) -> Self {
        let (asked, rejects) = (VecDeque::with_capacity(GREETINGS), [0; Reject::ALL.len()]);
        Self { me, keys, counter: 0, peer: None, asked, answers: 0, answers_since: Instant::ZERO, rejects }
    }

    /// The peer's boot, if it is known.
    pub fn peer(&self) -> Option<u64> {
        self.peer.as_ref().map(|peer| peer.boot)
    }

    /// From now on these keys are in force; the conversation goes on.
    pub fn set_keys(&mut self, keys: KeyRing) {
        if let Some(peer) = &mut self.peer {
            (peer.sends, peer.receives) = ciphers(self.me, peer.boot, &keys);
        }
        self.keys = keys;
    }

    /// Datagrams refused for this reason.
    pub fn rejected(&self, reject: Reject) -> u64 {
        self.rejects[reject as usize]
    }

    /// Counts a datagram that was opened and that nobody understands.
    pub fn not_understood(&mut self) {
        self.rejects[Reject::Content as usize] += 1;
    }

    /// A greeting, to be sent on this path while the peer is not known.
    pub fn greet(&mut self, path: u8, now: Instant) -> Vec<u8> {
        self.ask(now);
        self.greeting(Header { kind: Kind::Hello, ..self.header(path, REPLY_REQUESTED) }, 0, &[])
    }

    /// Writes a sealed message for the peer into `out`, what stood there before is gone; false, and nothing, if the peer
    /// is not known. `fill` appends the text.
    ///
    /// # Panics
    /// A text that fits no datagram.
    pub fn seal(
        &mut self,
        kind: Kind,
        flags: u8,
        path: u8,
        out: &mut Vec<u8>,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        let header = Header { kind, ..self.header(path, flags) };
        out.clear();
        let Some(peer) = &self.peer else { return false };
        self.counter += 1;
        out.resize(header::LEN, 0);
        out.extend_from_slice(&peer.boot.to_be_bytes());
        fill(out);
        seal(&peer.sends, header, out);
        true
    }

    /// Opens a datagram that came on this path. It is decrypted where it lies.
    ///
    /// # Errors
    /// Why it is refused; it is counted.
    pub fn open<'a>(&mut self, path: u8, datagram: &'a mut [u8], now: Instant) -> Result<Opened<'a>, Reject> {
        let opened = self.open_uncounted(path, datagram, now);
        opened.inspect_err(|reject| self.rejects[*reject as usize] += 1)
    }

    fn open_uncounted<'a>(&mut self, path: u8, datagram: &'a mut [u8], now: Instant) -> Result<Opened<'a>, Reject> {
        let header = self.admit(path, datagram)?;
        match header.kind {
            Kind::Hello => self.hear_hello(&header, datagram, now),
            Kind::HelloAck => self.hear_answer(&header, datagram, now),
            Kind::Heartbeat
            | Kind::Sync
            | Kind::Ack
            | Kind::Bulk
            | Kind::Digest
            | Kind::Handoff
            | Kind::Relay
            | Kind::Goodbye
            | Kind::Witness => self.hear_message(&header, datagram),
        }
    }

    /// All that can be told without a cipher.
    fn admit(&self, path: u8, datagram: &[u8]) -> Result<Header, Reject> {
        if datagram.len() < OVERHEAD {
            return Err(Reject::Length);
        }
        let bytes = datagram.first_chunk().expect("longer than a header");
        let header = Header::read(bytes).map_err(|why| match why {
            NoHeader::Magic => Reject::Magic,
            NoHeader::Version => Reject::Version,
            NoHeader::Kind => Reject::Kind,
        })?;
        if datagram.len() != header::LEN + usize::from(header.len) + TAG {
            return Err(Reject::Length);
        }
        if header.cluster != self.me.cluster {
            return Err(Reject::Cluster);
        }
        if header.node > 1 || header.node == self.me.node {
            return Err(Reject::Node);
        }
        if header.path != path || usize::from(path) >= MAX_PATHS {
            return Err(Reject::Path);
        }
        if self.keys.get(header.key).is_none() {
            return Err(Reject::Key);
        }
        Ok(header)
    }

    fn hear_message<'a>(&mut self, header: &Header, datagram: &'a mut [u8]) -> Result<Opened<'a>, Reject> {
        let peer = self.peer.as_mut().filter(|peer| peer.boot == header.boot).ok_or(Reject::Boot)?;
        let window = &mut peer.windows[usize::from(header.path)];
        if !window.is_new(header.counter) {
            return Err(Reject::Replay);
        }
        let place = self.keys.all().iter().position(|key| key.id == header.key).ok_or(Reject::Key)?;
        let text = open(&peer.receives[place], header, datagram)?;
        if text.boot != self.me.boot {
            return Err(Reject::Echo);
        }
        window.mark(header.counter);
        Ok(Opened::Message { kind: header.kind, flags: header.flags, text: text.rest })
    }

    /// Somebody with the key asks who is here. It may be a recording: it is worth an answer, and no more.
    fn hear_hello<'a>(&mut self, header: &Header, datagram: &mut [u8], now: Instant) -> Result<Opened<'a>, Reject> {
        let key = self.keys.get(header.key).ok_or(Reject::Key)?;
        let text = open(&cipher(key, header.boot, 0, header.node), header, datagram)?;
        if text.boot != 0 || header.boot == 0 {
            return Err(Reject::Echo);
        }
        self.allow_answer(now)?;
        // The peer's boot is asked to prove itself, unless it has.
        let flags = if self.peer() == Some(header.boot) { 0 } else { REPLY_REQUESTED };
        Ok(Opened::Greeting { answer: Some(self.answer(header, flags, now)), met: false })
    }

    /// Who names a counter of ours of the last second lives now.
    fn hear_answer<'a>(&mut self, header: &Header, datagram: &mut [u8], now: Instant) -> Result<Opened<'a>, Reject> {
        let key = self.keys.get(header.key).ok_or(Reject::Key)?;
        let text = open(&cipher(key, header.boot, self.me.boot, header.node), header, datagram)?;
        if text.boot != self.me.boot || header.boot == 0 {
            return Err(Reject::Echo);
        }
        let answered = text.rest.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
        let asked = self.asked.iter().position(|(counter, at)| Some(*counter) == answered && now.since(*at) < PATIENCE);
        // Once: a second answer to the same question is a recording of the first.
        self.asked.remove(asked.ok_or(Reject::Unasked)?);
        let met = self.peer() != Some(header.boot);
        if met {
            let (sends, receives) = ciphers(self.me, header.boot, &self.keys);
            self.peer = Some(Peer { boot: header.boot, sends, receives, windows: Default::default() });
        }
        // No more of these than questions of ours: they need no bound of their own.
        let wants_answer = header.flags & REPLY_REQUESTED != 0;
        let answer = wants_answer.then(|| self.answer(header, 0, now));
        Ok(Opened::Greeting { answer, met })
    }

    fn answer(&mut self, to: &Header, flags: u8, now: Instant) -> Vec<u8> {
        if flags & REPLY_REQUESTED != 0 {
            self.ask(now);
        }
        let header = Header { kind: Kind::HelloAck, ..self.header(to.path, flags) };
        self.greeting(header, to.boot, &to.counter.to_be_bytes())
    }

    /// A datagram for a boot that may not be the peer's.
    fn greeting(&mut self, header: Header, to: u64, text: &[u8]) -> Vec<u8> {
        self.counter += 1;
        let mut out = vec![0; header::LEN];
        out.extend_from_slice(&to.to_be_bytes());
        out.extend_from_slice(text);
        seal(&cipher(self.keys.first(), self.me.boot, to, self.me.node), header, &mut out);
        out
    }

    /// The next datagram wants an answer.
    fn ask(&mut self, now: Instant) {
        if self.asked.len() == GREETINGS {
            self.asked.pop_front();
        }
        self.asked.push_back((self.counter, now));
    }

    fn allow_answer(&mut self, now: Instant) -> Result<(), Reject> {
        if now.since(self.answers_since) >= ANSWER_WINDOW {
            (self.answers, self.answers_since) = (0, now);
        }
        self.answers += 1;
        if self.answers > MOST_ANSWERS { Err(Reject::Busy) } else { Ok(()) }
    }

    /// The header of the next datagram, its length left open.
    fn header(&self, path: u8, flags: u8) -> Header {
        let Identity { cluster, node, boot } = self.me;
        let (key, counter) = (self.keys.first().id, self.counter);
        Header { kind: Kind::Hello, flags, path, key, cluster, node, len: 0, boot, counter }
    }
}

/// The ciphers towards a boot of the peer, and from it.
fn ciphers(me: Identity, peer: u64, keys: &KeyRing) -> (ChaCha20Poly1305, Vec<ChaCha20Poly1305>) {
    let sends = cipher(keys.first(), me.boot, peer, me.node);
    (sends, keys.all().iter().map(|key| cipher(key, peer, me.boot, 1 - me.node)).collect())
}

/// The cipher from a sender's boot to a receiver's.
fn cipher(key: &Key, sender: u64, receiver: u64, node: u8) -> ChaCha20Poly1305 {
    let mut salt = [0; 16];
    salt[..8].copy_from_slice(&sender.to_be_bytes());
    salt[8..].copy_from_slice(&receiver.to_be_bytes());
    let mut derived = [0; 32];
    let derivation = Hkdf::<Sha256>::new(Some(&salt), &key.secret);
    derivation.expand_multi_info(&[b"tungate-ha-1", &[node]], &mut derived).expect("32 bytes are one block");
    ChaCha20Poly1305::new(&derived.into())
}

/// Encrypts what stands behind the header's place, and puts header and tag around it.
fn seal(cipher: &ChaCha20Poly1305, header: Header, out: &mut Vec<u8>) {
    let len = u16::try_from(out.len() - header::LEN).expect("a datagram's text fits into a datagram");
    let header = Header { len, ..header };
    let (head, text) = out.split_at_mut(header::LEN);
    head.copy_from_slice(&header.bytes());
    let tag = cipher.encrypt_inout_detached(&nonce(&header), head, InOutBuf::from(text));
    out.extend_from_slice(&tag.expect("a datagram is no more than the cipher takes"));
}

/// An authentic text.
struct Text<'a> {
    /// The boot that it is for.
    boot: u64,
    rest: &'a [u8],
}

fn open<'a>(cipher: &ChaCha20Poly1305, header: &Header, datagram: &'a mut [u8]) -> Result<Text<'a>, Reject> {
    let (head, rest) = datagram.split_at_mut(header::LEN);
    let (text, tag) = rest.split_at_mut(usize::from(header.len));
    let tag = Tag::try_from(&*tag).map_err(|_| Reject::Length)?;
    cipher
        .decrypt_inout_detached(&nonce(header), head, InOutBuf::from(&mut *text), &tag)
        .map_err(|_| Reject::Forged)?;
    let (boot, rest) = text.split_first_chunk().ok_or(Reject::Length)?;
    Ok(Text { boot: u64::from_be_bytes(*boot), rest })
}

/// No two datagrams of a key have the same: the counter is one for all paths, and begins again only with another boot.
fn nonce(header: &Header) -> Nonce {
    let mut nonce = [0; 12];
    (nonce[0], nonce[1]) = (header.path, header.node);
    nonce[4..].copy_from_slice(&header.counter.to_be_bytes());
    nonce.into()
}
