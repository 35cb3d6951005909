//! Who is active, as a number: the higher one is right.

use std::fmt;

/// Which of the two gateways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeId {
    /// 0 on the wire.
    A,
    /// 1 on the wire.
    B,
}

impl NodeId {
    /// 0 or 1.
    pub const fn index(self) -> u8 {
        match self {
            Self::A => 0,
            Self::B => 1,
        }
    }

    /// From 0 or 1; nobody else is of a pair.
    pub const fn from_index(index: u8) -> Option<Self> {
        match index {
            0 => Some(Self::A),
            1 => Some(Self::B),
            _ => None,
        }
    }

    /// The other one.
    pub const fn peer(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// A term of office: `n << 1 | node`. A gateway that takes over takes the smallest of its own numbers that is greater than
/// all it has seen, so no two ever hold the same one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// Before anybody was active.
    pub const ZERO: Self = Self(0);

    /// As it is on the wire and in the state directory.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// For the wire and the state directory.
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The smallest epoch of `node` above this one. After `u64::MAX` there is none: a pair that takes over a thousand
    /// times a second gets there in 292 million years.
    pub const fn next(self, node: NodeId) -> Self {
        let own = (self.0 & !1) | node.index() as u64;
        if own > self.0 { Self(own) } else { Self(own.saturating_add(2)) }
    }

    /// Whose it is.
    pub const fn node(self) -> NodeId {
        if self.0 & 1 == 0 { NodeId::A } else { NodeId::B }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_epoch_is_the_smallest_own_one_above() {
        for (seen, a, b) in [(0, 2, 1), (1, 2, 3), (2, 4, 3), (7, 8, 9)] {
            assert_eq!(Epoch(seen).next(NodeId::A), Epoch(a), "A after {seen}");
            assert_eq!(Epoch(seen).next(NodeId::B), Epoch(b), "B after {seen}");
        }
    }

    #[test]
    fn an_epoch_says_whose_it_is() {
        for node in [NodeId::A, NodeId::B] {
            assert_eq!(Epoch(41).next(node).node(), node);
            assert_eq!(NodeId::from_index(node.index()), Some(node));
        }
        assert_eq!(NodeId::from_index(2), None);
    }
}
