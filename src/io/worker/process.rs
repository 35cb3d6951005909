//! One packet through the engine, and what its verdict calls for.

use std::io;

use super::Mailbox;
use crate::engine::{DropReason, Engine, Instant, NoTrace, Outgoing, Verdict};
use crate::io::copying::{Copying, Waiting};
use crate::io::port::{Frame, PacketPort, Sent};
use crate::io::words::in_words;
use crate::wire::gather::Part;
use crate::wire::tunnel::{self, Scratch};
use crate::wire::{OFFLOAD_LEN, Offload, Packet};

/// A packet that is to leave, sealed.
pub(super) struct Leaving {
    /// Bytes of it.
    pub(super) len: usize,
    pub(super) part: Option<Part>,
}

/// What a packet passes.
pub(super) struct Way<'a, P> {
    pub(super) engine: &'a mut Engine,
    pub(super) port: &'a mut P,
    pub(super) wrapping: &'a mut Scratch,
    pub(super) mailboxes: &'a [Mailbox],
    pub(super) copying: Option<&'a mut Copying>,
}

/// Takes one packet through the engine and does what the verdict says, but for sending: what is to be forwarded, and what
/// the engine has to say itself.
#[inline]
pub(super) fn process<P: PacketPort>(frame: &mut Frame<'_>, way: Way<'_, P>, now: Instant) -> Option<Leaving> {
    let Way { engine, port, wrapping, mailboxes, mut copying } = way;
    let mut leaves = None;
    let (verdict, len, offload) = match frame.packet() {
        Ok(mut packet) => {
            let verdict = engine.handle(&mut packet, now, &mut NoTrace);
            if packet.tunnel().is_some() {
                match wait_for(&mut copying, engine) {
                    Some((copying, told)) => copying.hold(wrapped(&mut packet, wrapping), told, now),
                    None => send_wrapped(&mut packet, engine, port, wrapping),
                }
                return None;
            }
            if verdict == Verdict::Forward {
                leaves = Some(Leaving { len: packet.bytes().len(), part: Part::of(&packet) });
            }
            (verdict, packet.bytes().len(), *packet.offload())
        }
        Err(malformed) => {
            let bytes = frame.bytes();
            (engine.malformed(malformed, bytes, now), bytes.len(), Offload::default())
        }
    };
    match verdict {
        Verdict::Forward => {
            let sealed = frame.seal(len, &offload);
            if let Some((copying, told)) = wait_for(&mut copying, engine) {
                copying.hold(Waiting::Sealed(sealed.to_vec()), told, now);
                return None;
            }
        }
        Verdict::Handoff(owner) => {
            let mailbox = &mailboxes[usize::from(owner.0)];
            match mailbox.handed.push(frame.seal(len, &offload).to_vec()) {
                Ok(()) => mailbox.waker.wake(),
                Err(_) => engine.counters().handoff_failed(DropReason::HandoffFull),
            }
        }
        Verdict::Consume | Verdict::Drop(DropReason::TunnelUnreachable) if engine.has_heard() => {
            mailboxes[0].tell_listener();
        }
        Verdict::Reply | Verdict::Consume | Verdict::Drop(_) => {}
    }
    leaves
}

/// Tells the other gateway of a pair what the packet in hand has changed. The number to wait for, if that has to be known
/// there before it leaves.
#[inline]
fn wait_for<'a>(copying: &'a mut Option<&mut Copying>, engine: &mut Engine) -> Option<(&'a mut Copying, u64)> {
    if !engine.has_news() {
        return None;
    }
    let copying = copying.as_deref_mut()?;
    copying.tell(engine).map(|told| (copying, told))
}

/// The packets that a packet is in its tunnel.
fn wrapped(packet: &mut Packet<'_>, wrapping: &mut Scratch) -> Waiting {
    let mut pieces = Vec::new();
    tunnel::emit(packet, wrapping, |headers, payload| pieces.push([headers, payload].concat()));
    Waiting::Pieces(pieces)
}

/// Sends what had to wait.
#[cold]
pub(super) fn send_waiting<P: PacketPort>(waiting: Waiting, engine: &Engine, port: &mut P) {
    match waiting {
        Waiting::Sealed(mut bytes) => {
            let sent = port.send(&mut bytes);
            count_sent(engine, &sent, bytes.len().saturating_sub(OFFLOAD_LEN));
        }
        Waiting::Pieces(pieces) => {
            let sent = pieces.iter().take_while(|piece| port.send_pieces([piece, &[]]).is_ok());
            let whole = sent.map(|piece| engine.counters().sent.count(piece.len())).count() == pieces.len();
            if !whole {
                engine.counters().forward_failed(DropReason::SendFailed);
            }
        }
    }
}

#[inline]
pub(super) fn count_sent(engine: &Engine, sent: &io::Result<Sent>, len: usize) {
    let counters = engine.counters();
    match sent {
        Err(_) => counters.forward_failed(DropReason::SendFailed),
        Ok(how) => {
            counters.sent.count(len);
            counters.segmented.add(u64::from(*how == Sent::Segmented));
        }
    }
}

/// Sends a packet into its tunnel, in as many outer packets as it takes, up to the first that is refused. What has left
/// was sent; the packet itself is lost if any of it is, and its sender will send it again.
#[inline]
fn send_wrapped<P: PacketPort>(packet: &mut Packet<'_>, engine: &Engine, port: &mut P, wrapping: &mut Scratch) {
    let (mut packets, mut bytes, mut refused) = (0, 0, false);
    tunnel::emit(packet, wrapping, |headers, payload| {
        refused = refused || port.send_pieces([headers, payload]).is_err();
        if !refused {
            (packets, bytes) = (packets + 1, bytes + (headers.len() + payload.len()) as u64);
        }
    });
    let sent = &engine.counters().sent;
    sent.packets.add(packets);
    sent.bytes.add(bytes);
    if refused {
        engine.counters().forward_failed(DropReason::SendFailed);
    }
}

/// Sends the gateway's own packets; nobody waits for them, so a failure is the network's to notice.
pub(super) fn send_own<P: PacketPort>(engine: &mut Engine, port: &mut P) {
    let (mut packets, mut bytes) = (0, 0);
    for Outgoing { packet, .. } in engine.outbox() {
        match port.send_pieces([&packet, &[]]) {
            Ok(()) => (packets, bytes) = (packets + 1, bytes + packet.len() as u64),
            Err(error) => log::debug!("an answer of the gateway could not be sent: {}", in_words(&error)),
        }
    }
    let sent = &engine.counters().sent;
    sent.packets.add(packets);
    sent.bytes.add(bytes);
}
