//! Tunnels to backends: a packet leaves whole, wrapped in an outer IP header, and is taken out at the other end.
//!
//! ```text
//! gre    outer IP (47) | 00 00 08 00 or 00 00 86 dd | packet          RFC 2784, RFC 7676
//!                      | 20 00 and so on, key | packet, if there is one RFC 2890
//! ipip   outer IP (4 or 41) | packet                                   RFC 2003, RFC 2473, RFC 4213
//! gue    outer IP (17) | UDP to 6080 | 00, 4 or 41, 00 00 | packet    draft-ietf-intarea-gue, variant 0
//! ```
//!
//! [`Entry`] is the way in, planned once for a flow; [`emit`] puts the wrapped packets together without copying their
//! payload; [`open`] is the way out, for a backend whose kernel cannot do it.

mod emit;
mod exit;
mod outer;
mod quote;

use super::{Address, Family, Packet, Protocol};

pub use emit::{Scratch, emit, leaving};
pub use exit::{Refused, gre_as_sent, merge_congestion, open};
pub use quote::{Inner, Quoted, quoted};

/// UDP port of GUE (IANA).
pub const GUE_PORT: u16 = 6080;

/// IPv6 packets of this size go through whatever the tunnel's path takes (RFC 8200 5, RFC 7676 3.2).
pub const LEAST_V6: u16 = 1280;
/// The least MTU of IPv4 (RFC 791 3.2): less is never told (RFC 1191 3).
const LEAST_V4: u16 = 68;

/// How a packet is wrapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Encapsulation {
    /// Generic routing encapsulation, the header without options.
    #[default]
    Gre,
    /// The same with this key: for networks that tell tunnels apart by it (RFC 2890).
    KeyedGre(u32),
    /// IP in IP, whatever the two families.
    Ipip,
    /// Generic UDP encapsulation: for networks that spread load by ports, or let nothing but TCP and UDP pass.
    Gue,
}

impl Encapsulation {
    /// All of them that need no key.
    pub const ALL: [Self; 3] = [Self::Gre, Self::Ipip, Self::Gue];

    /// As in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gre | Self::KeyedGre(_) => "gre",
            Self::Ipip => "ipip",
            Self::Gue => "gue",
        }
    }

    /// Bytes between the outer IP header and the packet.
    const fn shim(self) -> u16 {
        match self {
            Self::Gre => 4,
            Self::KeyedGre(_) => 4 + 4,
            Self::Ipip => 0,
            Self::Gue => 8 + 4,
        }
    }

    /// Bytes by which a packet grows in a tunnel of this family.
    pub const fn overhead(self, outer: Family) -> u16 {
        let header = match outer {
            Family::V4 => 20,
            Family::V6 => 40,
        };
        header + self.shim()
    }

    /// What the outer header says it carries.
    pub const fn protocol(self, inner: Family) -> Protocol {
        match (self, inner) {
            (Self::Gre | Self::KeyedGre(_), _) => Protocol::GRE,
            (Self::Gue, _) => Protocol::UDP,
            (Self::Ipip, Family::V4) => Protocol::IPV4,
            (Self::Ipip, Family::V6) => Protocol::IPV6,
        }
    }
}

/// The two ends of a tunnel, of one family, and how it wraps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tunnel {
    /// How it wraps.
    pub encapsulation: Encapsulation,
    /// The gateway's end.
    pub source: Address,
    /// The backend's end.
    pub destination: Address,
}

impl Tunnel {
    /// Family of the outer header.
    pub fn family(&self) -> Family {
        if self.source.is_v4() { Family::V4 } else { Family::V6 }
    }

    /// The largest packet that fits where outer packets of `path_mtu` bytes do.
    pub fn room(&self, path_mtu: u16) -> u16 {
        path_mtu.saturating_sub(self.encapsulation.overhead(self.family()))
    }
}

/// One packet's way into a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The tunnel.
    pub tunnel: Tunnel,
    /// Largest outer packet, bytes.
    pub path_mtu: u16,
    /// The same for all packets of a flow, another for the next: by this (as GUE's source port, IPv6's flow label)
    /// networks spread flows over their paths (RFC 6438).
    pub entropy: u16,
    /// Identification, should the outer packet be fragmented; of a super-packet's segments each has the next one.
    pub id: u32,
}

/// Whether a packet fits a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It does, perhaps in fragments that may be made of it.
    Fits,
    /// It does not, and its sender is to be told this MTU (R100, R101).
    TooBig(u16),
}

impl Entry {
    /// Whether this packet may go in. What is too big is cut before it is wrapped if its sender allows that (IPv4 without
    /// DF, R99), and after if nobody may send anything smaller (IPv6 up to 1280 bytes, R101).
    #[inline]
    pub fn fit(&self, packet: &Packet<'_>) -> Fit {
        let room = self.tunnel.room(self.path_mtu);
        let len = packet.largest_segment();
        if len <= usize::from(room) {
            return Fit::Fits;
        }
        match packet.family() {
            // Eight bytes of payload are the least that a fragment carries.
            Family::V4 if !packet.dont_fragment() && room >= packet.header().payload + 8 => Fit::Fits,
            Family::V4 => Fit::TooBig(room.max(LEAST_V4)),
            Family::V6 if len <= usize::from(LEAST_V6) => Fit::Fits,
            Family::V6 => Fit::TooBig(room.max(LEAST_V6)),
        }
    }
}
