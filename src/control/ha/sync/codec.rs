//! Changes as bytes. All numbers are big-endian.
//!
//! ```text
//! change:  kind (1)  length of what follows the length (1)  worker (1)  body
//! 1 upsert  ends, way (1): 0 NAT, 1 tunnel; its ends;  state (1)  which words (2)  those words of the tracker (4 each)
//! 2 delete  ends
//! 3 begin   4 end
//! 5 mark    flows (4)  sum (8)
//! ends:     family (1): 4 or 6  protocol (1)  two ports (2 each)  two addresses
//! ```
//!
//! What is of an unknown kind is passed over, for its length is known.

use super::{NotUnderstood, Told};
use crate::engine::conntrack::{FlowKey, FlowRecord, State, Way};
use crate::engine::{Change, Digest, WorkerId};
use crate::wire::{Address, Endpoint, Protocol};

const UPSERT: u8 = 1;
const DELETE: u8 = 2;
const BEGIN: u8 = 3;
const END: u8 = 4;
const MARK: u8 = 5;

const NAT: u8 = 0;
const TUNNEL: u8 = 1;

/// Appends a change.
pub(super) fn put(told: &Told, out: &mut Vec<u8>) {
    let kind = match told.change {
        Change::Upsert(_) => UPSERT,
        Change::Delete(_) => DELETE,
        Change::Begin => BEGIN,
        Change::End => END,
        Change::Mark(_) => MARK,
    };
    let worker = u8::try_from(told.worker.0).expect("fewer workers than 256");
    out.extend_from_slice(&[kind, 0, worker]);
    let start = out.len();
    match &told.change {
        Change::Upsert(record) => put_record(record, out),
        Change::Delete(key) => put_ends(key, out),
        Change::Begin | Change::End => {}
        Change::Mark(Digest { flows, sum }) => {
            out.extend_from_slice(&flows.to_be_bytes());
            out.extend_from_slice(&sum.to_be_bytes());
        }
    }
    out[start - 2] = u8::try_from(out.len() - start + 1).expect("the longest is below 200 bytes");
}

fn put_record(record: &FlowRecord, out: &mut Vec<u8>) {
    put_ends(&record.original, out);
    let protocol = record.original.protocol;
    match record.way {
        Way::Nat { backend, source } => {
            out.push(NAT);
            put_ends(&FlowKey { source, destination: backend, protocol }, out);
        }
        Way::Tunnel { to } => {
            out.push(TUNNEL);
            put_ends(&FlowKey::portless(to, to, protocol), out);
        }
    }
    out.push(record.state as u8);
    let words = || record.tracker.iter().enumerate().filter(|(_, word)| **word != 0);
    let which = words().fold(0u16, |which, (at, _)| which | 1 << at);
    out.extend_from_slice(&which.to_be_bytes());
    words().for_each(|(_, word)| out.extend_from_slice(&word.to_be_bytes()));
}

fn put_ends(key: &FlowKey, out: &mut Vec<u8>) {
    let is_v4 = key.source.address.is_v4();
    out.extend_from_slice(&[if is_v4 { 4 } else { 6 }, key.protocol.0]);
    for end in [key.source, key.destination] {
        out.extend_from_slice(&end.port.to_be_bytes());
    }
    for end in [key.source, key.destination] {
        if is_v4 {
            out.extend_from_slice(&end.address.v4_octets());
        } else {
            out.extend_from_slice(end.address.octets());
        }
    }
}

/// Takes the first change from the front; `None` if it is of a kind that is not known. What a later version adds to a known
/// one is passed over, too.
pub(super) fn get(bytes: &mut &[u8]) -> Result<Option<Told>, NotUnderstood> {
    let [kind, len, rest @ ..] = *bytes else { return Err(NotUnderstood) };
    let (body, rest) = rest.split_at_checked(usize::from(*len)).ok_or(NotUnderstood)?;
    *bytes = rest;
    let mut body = Body(body);
    let [worker] = body.take()?;
    let change = match *kind {
        UPSERT => Change::Upsert(body.record()?),
        DELETE => Change::Delete(body.ends()?),
        BEGIN => Change::Begin,
        END => Change::End,
        MARK => Change::Mark(Digest { flows: u32::from_be_bytes(body.take()?), sum: u64::from_be_bytes(body.take()?) }),
        _ => return Ok(None),
    };
    Ok(Some(Told { worker: WorkerId(worker.into()), change }))
}

/// What is left of a change.
struct Body<'a>(&'a [u8]);

impl Body<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], NotUnderstood> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(NotUnderstood)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn record(&mut self) -> Result<FlowRecord, NotUnderstood> {
        let original = self.ends()?;
        let [way] = self.take()?;
        let ends = self.ends()?;
        let way = match way {
            NAT => Way::Nat { backend: ends.destination, source: ends.source },
            TUNNEL => Way::Tunnel { to: ends.destination.address },
            _ => return Err(NotUnderstood),
        };
        let [state] = self.take()?;
        let state = *State::ALL.get(usize::from(state)).ok_or(NotUnderstood)?;
        let which = u16::from_be_bytes(self.take()?);
        let mut record = FlowRecord { original, way, state, tracker: Default::default() };
        for at in (0..u16::BITS as usize).filter(|at| which >> at & 1 != 0) {
            *record.tracker.get_mut(at).ok_or(NotUnderstood)? = u32::from_be_bytes(self.take()?);
        }
        Ok(record)
    }

    fn ends(&mut self) -> Result<FlowKey, NotUnderstood> {
        let [family, protocol] = self.take()?;
        let ports = [self.take()?, self.take()?].map(u16::from_be_bytes);
        let addresses = match family {
            4 => [self.take()?, self.take()?].map(Address::v4),
            6 => [self.take()?, self.take()?].map(Address::v6),
            _ => return Err(NotUnderstood),
        };
        let [source, destination] = [0, 1].map(|n| Endpoint::new(addresses[n], ports[n]));
        Ok(FlowKey { source, destination, protocol: Protocol(protocol) })
    }
}
