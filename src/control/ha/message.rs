//! The texts that two gateways send each other, as bytes. All numbers are big-endian; times are in microseconds.
//!
//! What a later version adds stands behind what is here, and is passed over.

use std::time::Duration;

use super::header::Kind;
use super::{Digest, Echo, Epoch, Flags, Goodbye, Handoff, Heartbeat, MAX_PATHS, Progress, Reason, State, Step};
use crate::engine::Instant;

/// Where there is no time to tell.
const NONE_64: u64 = u64::MAX;
/// Where there is no span to tell. One that is as long, or longer, is told as a microsecond less: 71 minutes.
const NONE_32: u32 = u32::MAX;

/// What a datagram says. What belongs to the flows is bytes here: `sync` reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// How the sender is.
    Heartbeat(Heartbeat),
    /// Changes of flows.
    Sync(&'a [u8]),
    /// Which of them have come.
    Ack(&'a [u8]),
    /// A part of all flows.
    Bulk(&'a [u8]),
    /// Sums over all flows.
    Digest(&'a [u8]),
    /// A step of a planned change of roles.
    Handoff(Handoff),
    /// A packet that came to the wrong one of the two.
    Relay(&'a [u8]),
    /// The sender stops.
    Goodbye(Goodbye),
}

impl<'a> Message<'a> {
    /// Its kind in the header.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Heartbeat(_) => Kind::Heartbeat,
            Self::Sync(_) => Kind::Sync,
            Self::Ack(_) => Kind::Ack,
            Self::Bulk(_) => Kind::Bulk,
            Self::Digest(_) => Kind::Digest,
            Self::Handoff(_) => Kind::Handoff,
            Self::Relay(_) => Kind::Relay,
            Self::Goodbye(_) => Kind::Goodbye,
        }
    }

    /// Appends its bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Heartbeat(heartbeat) => write_heartbeat(heartbeat, out),
            Self::Sync(bytes) | Self::Ack(bytes) | Self::Bulk(bytes) | Self::Digest(bytes) | Self::Relay(bytes) => {
                out.extend_from_slice(bytes);
            }
            Self::Handoff(handoff) => write_handoff(handoff, out),
            Self::Goodbye(Goodbye { epoch, reason }) => {
                put(out, epoch.to_bits().to_be_bytes());
                out.push(number_of(*reason));
            }
        }
    }

    /// Reads a text of this kind. `None` if it is too short, or says what this version does not know.
    pub fn read(kind: Kind, text: &'a [u8]) -> Option<Self> {
        let mut rest = Reader(text);
        Some(match kind {
            Kind::Heartbeat => Self::Heartbeat(read_heartbeat(&mut rest)?),
            Kind::Sync => Self::Sync(text),
            Kind::Ack => Self::Ack(text),
            Kind::Bulk => Self::Bulk(text),
            Kind::Digest => Self::Digest(text),
            Kind::Handoff => Self::Handoff(read_handoff(&mut rest)?),
            Kind::Relay => Self::Relay(text),
            Kind::Goodbye => Self::Goodbye(Goodbye {
                epoch: Epoch::from_bits(rest.u64()?),
                reason: Reason::ALL.get(usize::from(rest.u8()?).checked_sub(1)?).copied()?,
            }),
            Kind::Hello | Kind::HelloAck | Kind::Witness => return None,
        })
    }
}

fn number_of(reason: Reason) -> u8 {
    match reason {
        Reason::Shutdown => 1,
        Reason::Crash => 2,
        Reason::DataPlaneStalled => 3,
        Reason::LegDown => 4,
    }
}

fn write_heartbeat(heartbeat: &Heartbeat, out: &mut Vec<u8>) {
    // All fields are named, so that none is forgotten here.
    let Heartbeat { epoch, base, state, prefer, flags, interval, dead, seq, sent_at, echo, .. } = heartbeat;
    let Heartbeat { rx_age, sync, data_plane_age, .. } = heartbeat;
    put(out, epoch.to_bits().to_be_bytes());
    put(out, base.to_bits().to_be_bytes());
    put(out, [state.code(), *prefer]);
    put(out, flags.to_bits().to_be_bytes());
    put(out, span(Some(*interval)));
    put(out, span(Some(*dead)));
    put(out, seq.to_be_bytes());
    put(out, sent_at.as_micros().to_be_bytes());
    put(out, time(echo.map(|echo| echo.sent_at)));
    put(out, span(echo.map(|echo| echo.held_for)));
    rx_age.iter().for_each(|age| put(out, span(*age)));
    let Progress { session, produced_lsn, applied_lsn, flows, digest, config_hash, unshared } = sync;
    put(out, session.to_be_bytes());
    put(out, produced_lsn.to_be_bytes());
    put(out, applied_lsn.to_be_bytes());
    put(out, flows.to_be_bytes());
    write_digest(digest, out);
    put(out, config_hash.to_be_bytes());
    put(out, unshared.to_be_bytes());
    put(out, span(Some(*data_plane_age)));
}

fn read_heartbeat(rest: &mut Reader<'_>) -> Option<Heartbeat> {
    Some(Heartbeat {
        epoch: Epoch::from_bits(rest.u64()?),
        base: Epoch::from_bits(rest.u64()?),
        state: State::from_code(rest.u8()?)?,
        prefer: rest.u8()?,
        flags: Flags::from_bits(rest.u16()?),
        interval: rest.span()?.unwrap_or(Duration::MAX),
        dead: rest.span()?.unwrap_or(Duration::MAX),
        seq: rest.u32()?,
        sent_at: Instant::from_micros(rest.u64()?),
        echo: {
            let (sent_at, held_for) = (rest.time()?, rest.span()?);
            sent_at.zip(held_for).map(|(sent_at, held_for)| Echo { sent_at, held_for })
        },
        rx_age: {
            let mut ages = [None; MAX_PATHS];
            for age in &mut ages {
                *age = rest.span()?;
            }
            ages
        },
        sync: Progress {
            session: rest.u32()?,
            produced_lsn: rest.u64()?,
            applied_lsn: rest.u64()?,
            flows: rest.u32()?,
            digest: read_digest(rest)?,
            config_hash: rest.u64()?,
            unshared: rest.u32()?,
        },
        data_plane_age: rest.span()?.unwrap_or(Duration::MAX),
    })
}

fn write_handoff(Handoff { epoch, intent, step }: &Handoff, out: &mut Vec<u8>) {
    let number = match step {
        Step::Prepare => 1,
        Step::Ready => 2,
        Step::Commit(_) => 3,
        Step::CommitAck => 4,
        Step::Cancel => 5,
    };
    put(out, [number]);
    put(out, epoch.to_bits().to_be_bytes());
    put(out, intent.to_be_bytes());
    if let Step::Commit(digest) = step {
        write_digest(digest, out);
    }
}

fn read_handoff(rest: &mut Reader<'_>) -> Option<Handoff> {
    let (number, epoch, intent) = (rest.u8()?, Epoch::from_bits(rest.u64()?), rest.u32()?);
    let step = match number {
        1 => Step::Prepare,
        2 => Step::Ready,
        3 => Step::Commit(read_digest(rest)?),
        4 => Step::CommitAck,
        5 => Step::Cancel,
        _ => return None,
    };
    Some(Handoff { epoch, intent, step })
}

fn write_digest(Digest { lsn, root }: &Digest, out: &mut Vec<u8>) {
    put(out, lsn.to_be_bytes());
    put(out, root.to_be_bytes());
}

fn read_digest(rest: &mut Reader<'_>) -> Option<Digest> {
    Some(Digest { lsn: rest.u64()?, root: rest.u64()? })
}

fn put<const N: usize>(out: &mut Vec<u8>, bytes: [u8; N]) {
    out.extend_from_slice(&bytes);
}

fn span(span: Option<Duration>) -> [u8; 4] {
    let micros = |span: Duration| u32::try_from(span.as_micros()).unwrap_or(NONE_32).min(NONE_32 - 1);
    span.map_or(NONE_32, micros).to_be_bytes()
}

fn time(time: Option<Instant>) -> [u8; 8] {
    time.map_or(NONE_64, Instant::as_micros).to_be_bytes()
}

/// What of a text is not read yet.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn span(&mut self) -> Option<Option<Duration>> {
        let micros = self.u32()?;
        Some((micros != NONE_32).then(|| Duration::from_micros(u64::from(micros))))
    }

    fn time(&mut self) -> Option<Option<Instant>> {
        let micros = self.u64()?;
        Some((micros != NONE_64).then(|| Instant::from_micros(micros)))
    }
}

#[cfg(test)]
mod tests;
