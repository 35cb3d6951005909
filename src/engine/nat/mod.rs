//! Network address translation: what is planned once for a flow, and done to each of its packets.

pub mod ports;

use super::conntrack::FlowKey;
use crate::wire::{Packet, Translation};

/// What is done to the packets of one direction of a flow: plain data, planned on the slow path.
///
/// The new endpoints are not kept: a packet of one direction leaves as the inverse of the other direction's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewrite {
    /// Both endpoints are replaced.
    Nat {
        /// What that does to checksums that cover the addresses.
        address_delta: u16,
        /// What that does to checksums that cover the ports.
        port_delta: u16,
    },
    /// Wrapped as it is, for the flow's path. `entropy` tells the network which flow it is.
    Encapsulate {
        /// Of the outer headers.
        entropy: u16,
    },
    /// Nothing: no packet of this direction passes here.
    None,
}

impl Rewrite {
    /// Plans the NAT of packets that come with `from` and leave as `to`.
    pub fn nat(from: &FlowKey, to: &FlowKey) -> Self {
        let change = Translation::new((from.source, from.destination), (to.source, to.destination));
        Self::Nat { address_delta: change.address_delta, port_delta: change.port_delta }
    }
}

/// Has a packet leave as the inverse of its answers' key, in place.
#[inline]
pub(super) fn apply(packet: &mut Packet<'_>, answer: &FlowKey, address_delta: u16, port_delta: u16) {
    packet.translate(&Translation {
        source: answer.destination,
        destination: answer.source,
        address_delta,
        port_delta,
    });
}
