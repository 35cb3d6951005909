//! Addresses, ports and protocols as the data plane keeps them: one fixed-size form for both families, so that keys
//! hash and compare without a branch on the family.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// An IPv4 or IPv6 address in 16 bytes, network order; IPv4 as `::ffff:a.b.c.d` (RFC 4291 2.5.5.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address([u8; 16]);

/// What stands before the four bytes of an IPv4 address.
pub(super) const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

impl Address {
    /// From the four bytes of an IPv4 header.
    #[inline]
    pub const fn v4(octets: [u8; 4]) -> Self {
        let [a, b, c, d] = octets;
        Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d])
    }

    /// From the sixteen bytes of an IPv6 header.
    #[inline]
    pub const fn v6(octets: [u8; 16]) -> Self {
        Self(octets)
    }

    /// True for IPv4. An IPv6 packet that really carries a mapped address is refused at the door, so the two forms never
    /// meet.
    #[inline]
    pub fn is_v4(&self) -> bool {
        self.0[..12] == MAPPED
    }

    /// The last four bytes: the address, if it is IPv4.
    #[inline]
    pub const fn v4_octets(&self) -> [u8; 4] {
        [self.0[12], self.0[13], self.0[14], self.0[15]]
    }

    /// All sixteen bytes, network order.
    #[inline]
    pub const fn octets(&self) -> &[u8; 16] {
        &self.0
    }

    /// The bytes as they stand in a header of this family: four or sixteen.
    #[inline]
    pub fn header_bytes(&self) -> &[u8] {
        if self.is_v4() { &self.0[12..] } else { &self.0 }
    }

    /// Multicast, or the IPv4 limited broadcast.
    pub fn is_multicast(&self) -> bool {
        match self.ip() {
            IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast(),
            IpAddr::V6(v6) => v6.is_multicast(),
        }
    }

    /// Whether a host on some network may have it: not 0/8, 127/8, 224/4, 240/4, broadcast, `ff00::/8`, nor `::`, `::1`
    /// and their neighbours up to `::ff` (RFC 1812 5.3.7, RFC 4291 2.5).
    #[inline]
    pub fn is_host(&self) -> bool {
        if self.is_v4() {
            let first = self.0[12];
            return first != 0 && first != 127 && first < 224;
        }
        self.0[0] != 0xff && self.0[..15] != [0; 15]
    }

    /// The standard library's form, for printing and for sockets.
    pub fn ip(&self) -> IpAddr {
        if self.is_v4() { IpAddr::V4(Ipv4Addr::from(self.v4_octets())) } else { IpAddr::V6(Ipv6Addr::from(self.0)) }
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Self::v4(v4.octets()),
            IpAddr::V6(v6) => Self::v6(v6.octets()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ip().fmt(f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An address and a port (or, for ICMP queries, the identifier in the port's place).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The address.
    pub address: Address,
    /// The port, host order.
    pub port: u16,
}

impl Endpoint {
    /// An endpoint of this address and port.
    #[inline]
    pub const fn new(address: Address, port: u16) -> Self {
        Self { address, port }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(socket: SocketAddr) -> Self {
        Self { address: socket.ip().into(), port: socket.port() }
    }
}

impl From<Endpoint> for SocketAddr {
    fn from(endpoint: Endpoint) -> Self {
        Self::new(endpoint.address.ip(), endpoint.port)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::from(*self).fmt(f)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An IP protocol number (IANA "Assigned Internet Protocol Numbers").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    /// ICMP for IPv4.
    pub const ICMP: Self = Self(1);
    /// IPv4 in IP.
    pub const IPV4: Self = Self(4);
    /// Transmission Control Protocol.
    pub const TCP: Self = Self(6);
    /// User Datagram Protocol.
    pub const UDP: Self = Self(17);
    /// IPv6 in IP.
    pub const IPV6: Self = Self(41);
    /// Generic Routing Encapsulation.
    pub const GRE: Self = Self(47);
    /// ICMP for IPv6.
    pub const ICMPV6: Self = Self(58);
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ICMP => f.write_str("icmp"),
            Self::TCP => f.write_str("tcp"),
            Self::UDP => f.write_str("udp"),
            Self::IPV4 => f.write_str("ipv4"),
            Self::IPV6 => f.write_str("ipv6"),
            Self::GRE => f.write_str("gre"),
            Self::ICMPV6 => f.write_str("icmpv6"),
            Self(other) => write!(f, "proto-{other}"),
        }
    }
}

impl fmt::Debug for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_print_as_the_standard_library_does() {
        for text in ["192.0.2.1:80", "[2001:db8::1]:443", "0.0.0.0:0"] {
            let socket: SocketAddr = text.parse().unwrap();
            assert_eq!(Endpoint::from(socket).to_string(), text);
            assert_eq!(SocketAddr::from(Endpoint::from(socket)), socket);
        }
    }

    #[test]
    fn header_bytes_have_the_length_of_the_family() {
        assert_eq!(Address::v4([1, 2, 3, 4]).header_bytes(), [1, 2, 3, 4]);
        assert_eq!(Address::v6([7; 16]).header_bytes(), [7; 16]);
    }
}
