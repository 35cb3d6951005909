//! What health checks by a tunnel hear: packets that are neither a client's nor a backend's in a flow.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crossbeam_queue::ArrayQueue;

use super::nat::ports::FOR_CHECKS;
use super::{Engine, Verdict};
use crate::wire::{Endpoint, Packet};

/// Packets that may wait to be heard. One that comes when all places are taken is lost, as on any network.
const MOST: usize = 1024;

/// Packets for the health checks, from all workers.
#[derive(Debug)]
pub struct Heard {
    /// Whether somebody listens: if not, these ports are like all that no flow has.
    listening: AtomicBool,
    packets: ArrayQueue<Vec<u8>>,
}

impl Default for Heard {
    fn default() -> Self {
        Self { listening: AtomicBool::new(false), packets: ArrayQueue::new(MOST) }
    }
}

impl Heard {
    /// From now on somebody takes the packets out.
    pub fn listen(&self) {
        self.listening.store(true, Relaxed);
    }

    /// The oldest.
    pub fn next(&self) -> Option<Vec<u8>> {
        self.packets.pop()
    }

    fn is_listening(&self) -> bool {
        self.listening.load(Relaxed)
    }
}

impl Engine {
    /// Whether there is something that health checks have not taken yet.
    pub fn has_heard(&self) -> bool {
        !self.shared.heard.packets.is_empty()
    }

    /// Whether a health check may have been sent from there.
    pub(super) fn is_for_checks(&self, source: Endpoint) -> bool {
        FOR_CHECKS.contains(&source.port)
            && self.policy.snapshot.gateway.source_addresses.contains(&source.address)
            && self.shared.heard.is_listening()
    }

    /// A packet that is the health checks' own.
    pub(super) fn hear(&self, packet: &Packet<'_>) -> Verdict {
        self.overhear(packet);
        Verdict::Consume
    }

    /// Lets the health checks know of a packet.
    pub(super) fn overhear(&self, packet: &Packet<'_>) {
        if self.shared.heard.is_listening() {
            // A full queue loses it: the check asks again.
            let _ = self.shared.heard.packets.push(packet.bytes().to_vec());
        }
    }
}
