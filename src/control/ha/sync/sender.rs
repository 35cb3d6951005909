//! The half that tells: numbers changes, packs them, sends again what was lost.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Ack, FRONT, Told, codec};
use crate::engine::Instant;

/// Changes that may be under way: more are a standby that does not keep up, or is not there.
const MOST_UNDER_WAY: u64 = 1 << 16;
/// What is not acknowledged by then, is sent again: pfsync and conntrackd wait for a second, in which a gateway may die.
const LEAST_PATIENCE: Duration = Duration::from_millis(1);
const MOST_PATIENCE: Duration = Duration::from_millis(50);

/// Tells the other gateway of changes.
#[derive(Debug)]
pub struct Sender {
    session: u32,
    /// Most bytes of a text.
    room: usize,
    /// LSN of the next change; the first has 1.
    next: u64,
    /// All up to this one are there.
    acknowledged: u64,
    /// Being filled, last; in front of it what is under way.
    texts: VecDeque<Text>,
    /// Of those, so many were never sent: the last ones.
    unsent: usize,
    round_trip: Option<Duration>,
    /// Doubled with each time in which nothing came back.
    patience: Duration,
    sent_again: u64,
    lost: bool,
}

#[derive(Debug)]
struct Text {
    first: u64,
    count: u16,
    bytes: Vec<u8>,
    sent_at: Instant,
    times: u32,
}

impl Text {
    const fn last(&self) -> u64 {
        self.first + self.count as u64 - 1
    }
}

impl Sender {
    /// For texts of at most so many bytes. Nothing is told before [`Self::begin`]. Sessions are numbered from a place that
    /// depends on this life of the process.
    #[expect(clippy::cast_possible_truncation, reason = "some bits are enough")]
    pub const fn new(room: usize, boot: u64) -> Self {
        Self {
            session: boot as u32,
            room,
            next: 1,
            acknowledged: 0,
            texts: VecDeque::new(),
            unsent: 0,
            round_trip: None,
            patience: LEAST_PATIENCE,
            sent_again: 0,
            lost: false,
        }
    }

    /// Begins a session: whatever was under way is void.
    pub fn begin(&mut self) {
        // 0 is none.
        let session = self.session.wrapping_add(1).max(1);
        *self = Self { session, sent_again: self.sent_again, ..Self::new(self.room, 0) };
    }

    /// The session, once there is one.
    pub const fn session(&self) -> u32 {
        self.session
    }

    /// Takes a change to be told, and gives its LSN.
    pub fn push(&mut self, told: &Told) -> u64 {
        let lsn = self.next;
        if self.lost {
            return lsn;
        }
        if self.under_way() >= MOST_UNDER_WAY {
            self.lost = true;
            self.texts.clear();
            self.unsent = 0;
            return lsn;
        }
        let mut bytes = Vec::new();
        codec::put(told, &mut bytes);
        match self.texts.back_mut() {
            Some(text) if self.unsent > 0 && text.bytes.len() + bytes.len() <= self.room && text.count < u16::MAX => {
                text.bytes.extend_from_slice(&bytes);
                text.count += 1;
            }
            _ => {
                let text = self.text(lsn, &bytes);
                self.texts.push_back(text);
            }
        }
        self.next += 1;
        lsn
    }

    fn text(&mut self, first: u64, change: &[u8]) -> Text {
        self.unsent += 1;
        let mut bytes = Vec::with_capacity(self.room);
        bytes.extend_from_slice(&self.session.to_be_bytes());
        bytes.extend_from_slice(&first.to_be_bytes());
        bytes.extend_from_slice(&[0; 2]);
        debug_assert_eq!(bytes.len(), FRONT);
        bytes.extend_from_slice(change);
        Text { first, count: 1, bytes, sent_at: Instant::ZERO, times: 0 }
    }

    /// Hands out the texts that are to be sent now: those that are new, and those that seem to be lost.
    pub fn transmit(&mut self, now: Instant, mut send: impl FnMut(&[u8])) {
        let new = self.texts.len() - self.unsent;
        if self.texts.front().is_some_and(|text| text.times > 0 && now >= text.sent_at + self.patience) {
            // One asks for an answer; that tells which of the others are missing.
            let text = &mut self.texts[0];
            (text.sent_at, text.times) = (now, text.times + 1);
            send(&text.bytes);
            self.sent_again += 1;
            self.patience = (self.patience * 2).min(MOST_PATIENCE);
        }
        for text in self.texts.range_mut(new..) {
            text.bytes[FRONT - 2..FRONT].copy_from_slice(&text.count.to_be_bytes());
            (text.sent_at, text.times) = (now, 1);
            send(&text.bytes);
        }
        self.unsent = 0;
    }

    /// When [`Self::transmit`] has something to send again; what is new is to be sent at once.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.texts.front().filter(|text| text.times > 0).map(|text| text.sent_at + self.patience)
    }

    /// Hears what has come; sends at once what the other side misses.
    pub fn acknowledge(&mut self, ack: &Ack, now: Instant, mut send: impl FnMut(&[u8])) {
        if ack.session != self.session || ack.applied >= self.next {
            return;
        }
        while let Some(text) = self.texts.front().filter(|text| text.times > 0 && text.last() <= ack.applied) {
            // Of what was sent twice nobody knows which came (Karn and Partridge 1987).
            if text.times == 1 {
                self.measure(now.since(text.sent_at));
            }
            self.texts.pop_front();
        }
        if ack.applied > self.acknowledged {
            self.acknowledged = ack.applied;
            self.patience = self.measured_patience();
        }
        let under_way = self.texts.len() - self.unsent;
        for &(from, to) in &ack.gaps {
            let begin = self.texts.partition_point(|text| text.last() < from);
            for text in self.texts.range_mut(begin.min(under_way)..under_way).take_while(|text| text.first <= to) {
                // The same gap is told more than once while it is being filled.
                if now >= text.sent_at + self.round_trip.unwrap_or(LEAST_PATIENCE) {
                    (text.sent_at, text.times) = (now, text.times + 1);
                    send(&text.bytes);
                    self.sent_again += 1;
                }
            }
        }
    }

    fn measure(&mut self, sample: Duration) {
        self.round_trip = Some(self.round_trip.map_or(sample, |known| (known * 7 + sample) / 8));
    }

    fn measured_patience(&self) -> Duration {
        (self.round_trip.unwrap_or_default() * 2).clamp(LEAST_PATIENCE, MOST_PATIENCE)
    }

    /// LSN of the last change; 0 before the first.
    pub const fn produced(&self) -> u64 {
        self.next - 1
    }

    /// LSN up to which all has come.
    pub const fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Changes that have not been acknowledged.
    pub const fn under_way(&self) -> u64 {
        self.produced() - self.acknowledged
    }

    /// Since when the oldest of them has been under way.
    pub fn oldest(&self) -> Option<Instant> {
        self.texts.front().filter(|text| text.times > 0).map(|text| text.sent_at)
    }

    /// Texts that were sent again, in all sessions.
    pub const fn sent_again(&self) -> u64 {
        self.sent_again
    }

    /// Whether so much was not acknowledged that some of it was given up: only another session helps.
    pub const fn is_lost(&self) -> bool {
        self.lost
    }
}
