//! The half that listens: hands changes on in their order.

use std::collections::BTreeMap;

use super::{FRONT, MOST_GAPS, NotUnderstood, Told, codec};

/// Texts that are kept because earlier ones are missing.
const MOST_WAITING: usize = 1024;

/// Hears changes from the other gateway.
#[derive(Debug, Default)]
pub struct Receiver {
    session: u32,
    /// That one is over: whichever comes is the next.
    is_over: bool,
    /// LSN of the last one that was handed on.
    applied: u64,
    /// By the LSN of their first change.
    waiting: BTreeMap<u64, Vec<u8>>,
}

/// What has come, for the sender.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ack {
    /// Of which session.
    pub session: u32,
    /// All up to this LSN.
    pub applied: u64,
    /// Behind which these are missing, both ends included.
    pub gaps: Vec<(u64, u64)>,
}

/// What came of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was next, or is kept.
    Now,
    /// It is the first of a session: what was known from an earlier one is void.
    NewSession,
    /// Of an earlier session.
    Old,
    /// Earlier ones are missing, and no more are kept.
    TooFarAhead,
}

impl Receiver {
    /// The session is over: whichever comes next is another. That of the peer's next life may have any number.
    pub fn reset(&mut self) {
        *self = Self { session: self.session, is_over: true, ..Self::default() };
    }

    /// LSN of the last change that was handed on.
    pub const fn applied(&self) -> u64 {
        self.applied
    }

    /// The session, or the last one; 0 before the first.
    pub const fn session(&self) -> u32 {
        self.session
    }

    /// Whether changes are missing in front of others that have come.
    pub fn has_gaps(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes a text, and hands on what is next.
    ///
    /// # Errors
    /// It is none.
    pub fn take(&mut self, text: &[u8], mut deliver: impl FnMut(Told)) -> Result<Taken, NotUnderstood> {
        let front = text.first_chunk::<FRONT>().ok_or(NotUnderstood)?;
        let [a, b, c, d, lsn @ .., _, _] = front;
        let (session, first) = (u32::from_be_bytes([*a, *b, *c, *d]), u64::from_be_bytes(*lsn));
        check(text)?;
        let mut taken = Taken::Now;
        if session != self.session {
            let is_old = session.wrapping_sub(self.session) > u32::MAX / 2;
            if is_old && !self.is_over && self.session != 0 {
                return Ok(Taken::Old);
            }
            *self = Self { session, ..Self::default() };
            taken = Taken::NewSession;
        }
        if first > self.applied + 1 {
            if self.waiting.len() >= MOST_WAITING {
                return Ok(Taken::TooFarAhead);
            }
            self.waiting.insert(first, text.to_vec());
            return Ok(taken);
        }
        self.hand_on(text, &mut deliver);
        while let Some(text) = self.next_waiting() {
            self.hand_on(&text, &mut deliver);
        }
        Ok(taken)
    }

    fn next_waiting(&mut self) -> Option<Vec<u8>> {
        let first = self.waiting.first_entry().filter(|entry| *entry.key() <= self.applied + 1)?;
        Some(first.remove())
    }

    /// Hands on those changes of a text that are new.
    fn hand_on(&mut self, text: &[u8], deliver: &mut impl FnMut(Told)) {
        let (mut lsn, count, mut changes) = parts(text).expect("it was checked");
        for _ in 0..count {
            let told = codec::get(&mut changes).expect("it was checked");
            if lsn == self.applied + 1 {
                self.applied = lsn;
                told.into_iter().for_each(&mut *deliver);
            }
            lsn += 1;
        }
    }

    /// What is to be told to the sender now.
    pub fn ack(&self) -> Ack {
        let mut gaps = Vec::new();
        let mut expected = self.applied + 1;
        for (first, text) in &self.waiting {
            if *first > expected {
                gaps.push((expected, first - 1));
                if gaps.len() == MOST_GAPS {
                    break;
                }
            }
            let (_, count, _) = parts(text).expect("it was checked");
            expected = expected.max(first + u64::from(count));
        }
        Ack { session: self.session, applied: self.applied, gaps }
    }
}

/// LSN of the first change, how many there are, and they themselves.
fn parts(text: &[u8]) -> Result<(u64, u16, &[u8]), NotUnderstood> {
    let (front, changes) = text.split_first_chunk::<FRONT>().ok_or(NotUnderstood)?;
    let [_, _, _, _, lsn @ .., c, d] = front;
    let (first, count) = (u64::from_be_bytes(*lsn), u16::from_be_bytes([*c, *d]));
    // The first has 1; numbers that come near the end of all are nonsense, and would overflow.
    if first == 0 || first > u64::MAX >> 1 || count == 0 { Err(NotUnderstood) } else { Ok((first, count, changes)) }
}

/// Whether all of a text can be read: nothing is handed on of one that cannot.
fn check(text: &[u8]) -> Result<(), NotUnderstood> {
    let (_, count, mut changes) = parts(text)?;
    for _ in 0..count {
        codec::get(&mut changes)?;
    }
    Ok(())
}

impl Ack {
    /// Appends it to a text.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.session.to_be_bytes());
        out.extend_from_slice(&self.applied.to_be_bytes());
        out.push(u8::try_from(self.gaps.len()).expect("a few"));
        for (from, to) in &self.gaps {
            out.extend_from_slice(&from.to_be_bytes());
            out.extend_from_slice(&to.to_be_bytes());
        }
    }

    /// Reads it; what a later version adds is passed over.
    ///
    /// # Errors
    /// It is none.
    pub fn get(text: &[u8]) -> Result<Self, NotUnderstood> {
        let (session, text) = text.split_first_chunk().ok_or(NotUnderstood)?;
        let (applied, text) = text.split_first_chunk().ok_or(NotUnderstood)?;
        let (count, text) = text.split_first().ok_or(NotUnderstood)?;
        let gaps = text.as_chunks::<16>().0.get(..usize::from(*count)).ok_or(NotUnderstood)?;
        let gaps = gaps.iter().map(|gap| {
            let [from, to] = [0, 8].map(|at| u64::from_be_bytes(std::array::from_fn(|n| gap[at + n])));
            (from, to)
        });
        Ok(Self { session: u32::from_be_bytes(*session), applied: u64::from_be_bytes(*applied), gaps: gaps.collect() })
    }
}
