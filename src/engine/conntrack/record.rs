//! What one gateway of a pair tells the other of a flow.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::key::FlowKey;
use super::state::State;
use super::tcp::WORDS;
use crate::wire::{Address, Endpoint};

/// A flow, in words that mean the same on both gateways: its service and its backend are found by their addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowRecord {
    /// Key of the client's packets.
    pub original: FlowKey,
    /// How they go on.
    pub way: Way,
    /// Where it stands.
    pub state: State,
    /// What its TCP tracker remembers.
    pub tracker: [u32; WORDS],
}

/// How the packets of a flow go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From this source, by full NAT one of the gateway's, to this backend.
    Nat {
        /// Where they go.
        backend: Endpoint,
        /// Whence they seem to come.
        source: Endpoint,
    },
    /// Wrapped, to this backend.
    Tunnel {
        /// The far end of the tunnel.
        to: Address,
    },
}

impl FlowRecord {
    /// A number that two gateways have in common for flows that go the same way, whatever their state.
    pub fn digest(&self) -> u64 {
        let mut hasher = SipHasher13::new();
        let FlowKey { source, destination, protocol } = self.original;
        let ends = match self.way {
            Way::Nat { backend, source } => [backend, source],
            Way::Tunnel { to } => [Endpoint::new(to, 0); 2],
        };
        for end in [source, destination].into_iter().chain(ends) {
            hasher.write(end.address.octets());
            hasher.write(&end.port.to_be_bytes());
        }
        hasher.write(&[protocol.0]);
        hasher.finish()
    }
}
