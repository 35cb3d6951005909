//! What flows are told apart by.

use std::hash::{Hash, Hasher};

use crate::wire::{Address, Endpoint, Protocol, Tuple};

/// Identifies the packets of one flow in one direction. ICMP queries have their identifier where the port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowKey {
    /// Where the packet comes from.
    pub source: Endpoint,
    /// Where it goes.
    pub destination: Endpoint,
    /// TCP or UDP; another one in a tunnel, with ports of 0.
    pub protocol: Protocol,
}

impl FlowKey {
    /// The key of packets with this tuple.
    pub fn new(tuple: &Tuple, protocol: Protocol) -> Self {
        Self { source: tuple.source(), destination: tuple.destination(), protocol }
    }

    /// The key of packets between these addresses whose protocol has no ports.
    pub const fn portless(source: Address, destination: Address, protocol: Protocol) -> Self {
        Self { source: Endpoint::new(source, 0), destination: Endpoint::new(destination, 0), protocol }
    }

    /// The key of an answer to a packet with this key.
    #[inline]
    pub const fn invert(&self) -> Self {
        Self { source: self.destination, destination: self.source, protocol: self.protocol }
    }

    /// What stands in its packets.
    pub fn tuple(&self) -> Tuple {
        Tuple::new(self.source, self.destination)
    }
}

impl Hash for FlowKey {
    /// Few wide writes instead of one for each field.
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(u128::from_ne_bytes(*self.source.address.octets()));
        state.write_u128(u128::from_ne_bytes(*self.destination.address.octets()));
        let ports = u64::from(self.source.port) << 16 | u64::from(self.destination.port);
        state.write_u64(ports << 8 | u64::from(self.protocol.0));
    }
}

/// Which way a packet of a flow goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client.
    Original,
    /// From the backend.
    Reply,
}

impl Direction {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Original, Self::Reply];

    /// The other one.
    #[inline]
    pub const fn other(self) -> Self {
        match self {
            Self::Original => Self::Reply,
            Self::Reply => Self::Original,
        }
    }
}
