//! Network address translation: what is planned once for a flow, and done to each of its packets.

pub mod ports;

use super::conntrack::{Direction, FlowKey};
use crate::wire::Translation;

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
    /// Plans the NAT of both directions of a flow whose packets come with `from` and leave as `to`. What is done to
    /// the checksums of one direction is undone to those of the other.
    pub fn nat(from: &FlowKey, to: &FlowKey) -> [Self; 2] {
        let change = Translation::new((from.source, from.destination), (to.source, to.destination));
        let Translation { address_delta, port_delta, .. } = change;
        [Self::Nat { address_delta, port_delta }, Self::Nat { address_delta: !address_delta, port_delta: !port_delta }]
    }

    /// What it says, in a word. What it is, the flow knows.
    pub(super) fn pack(self) -> u32 {
        match self {
            Self::Nat { address_delta, port_delta } => u32::from(address_delta) << 16 | u32::from(port_delta),
            Self::Encapsulate { entropy } => entropy.into(),
            Self::None => 0,
        }
    }

    /// That of a flow without a tunnel.
    pub(super) const fn unpack_nat(word: u32) -> Self {
        let (address_delta, port_delta) = Self::deltas(word);
        Self::Nat { address_delta, port_delta }
    }

    /// Both deltas of such a one.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the halves of a word")]
    pub(super) const fn deltas(word: u32) -> (u16, u16) {
        ((word >> 16) as u16, word as u16)
    }

    /// That of a flow with a tunnel, by which no answers come.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the low half of a word")]
    pub(super) const fn unpack_tunnelled(direction: Direction, word: u32) -> Self {
        match direction {
            Direction::Original => Self::Encapsulate { entropy: word as u16 },
            Direction::Reply => Self::None,
        }
    }
}
