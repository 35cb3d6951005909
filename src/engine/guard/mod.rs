//! What is refused whatever a scheduler would say: at the door for every packet, and before a flow for its first.

mod bucket;
mod clients;
mod limits;

pub(super) use bucket::TokenBucket;
pub(super) use limits::Limits;

use super::conntrack::FlowKey;
use super::verdict::DropReason;
use crate::config::Snapshot;
use crate::wire::{Packet, Protocol};

/// For every packet.
#[inline]
pub(super) fn admit(packet: &Packet<'_>) -> Result<(), DropReason> {
    // R14, R86: nobody chooses his own way through a gateway.
    if packet.header().source_routed { Err(DropReason::SourceRouting) } else { Ok(()) }
}

/// For a packet of no known flow: could it be from where it says (R16-R18, R38)?
pub(super) fn admit_new(key: &FlowKey, snapshot: &Snapshot) -> Result<(), DropReason> {
    let FlowKey { source, destination, protocol } = *key;
    if !source.address.is_host() || !destination.address.is_host() {
        return Err(DropReason::Martian);
    }
    if snapshot.is_own(source.address) {
        return Err(DropReason::SpoofedSource);
    }
    let has_ports = matches!(protocol, Protocol::TCP | Protocol::UDP);
    if has_ports && (source.port == 0 || destination.port == 0) {
        return Err(DropReason::PortZero);
    }
    Ok(())
}
