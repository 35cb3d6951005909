//! Address ranges.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An address range as routes have it: host bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    /// The range of this many leading bits around the address.
    ///
    /// # Panics
    /// The length exceeds the family's 32 or 128 bits.
    pub fn new(address: IpAddr, length: u8) -> Self {
        assert!(length <= bits(address), "{address} has no /{length}");
        Self { address: masked(address, length), length }
    }

    /// One address.
    pub fn host(address: IpAddr) -> Self {
        Self { address, length: bits(address) }
    }

    /// The lowest address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Leading bits that all addresses share.
    pub fn length(&self) -> u8 {
        self.length
    }

    /// Whether the address lies inside.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && masked(address, self.length) == self.address
    }

    /// All addresses, lowest first, or none if they are more than `limit`.
    pub fn addresses(&self, limit: u32) -> impl Iterator<Item = IpAddr> + use<> {
        let count = 1u128.checked_shl(u32::from(bits(self.address) - self.length));
        let count = count.filter(|&n| n <= u128::from(limit)).unwrap_or(0);
        let (first, like) = (number(self.address), self.address);
        (0..count).map(move |n| from_number(first + n, like))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Prefix {
    type Err = String;

    /// `198.51.100.0/24`, `2001:db8::/32`, or one address; host bits are cleared.
    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("`{text}` is no address range: write 198.51.100.0/24, 2001:db8::/32 or one address");
        let (address, length) = text.split_once('/').map_or((text, None), |(a, l)| (a, Some(l)));
        let address: IpAddr = address.parse().map_err(|_| refuse())?;
        match length {
            None => Ok(Self::host(address)),
            Some(length) => {
                let length = length.parse().ok().filter(|length| *length <= bits(address)).ok_or_else(refuse)?;
                Ok(Self::new(address, length))
            }
        }
    }
}

impl TryFrom<String> for Prefix {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.to_string()
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn masked(address: IpAddr, length: u8) -> IpAddr {
    let host = u32::from(bits(address) - length);
    let keep = u128::MAX.checked_shl(host).unwrap_or(0);
    from_number(number(address) & keep, address)
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn from_number(number: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => {
            IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(number).expect("an IPv4 address of at most 32 bits")))
        }
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn host_bits_are_cleared() {
        assert_eq!(Prefix::new(ip("192.0.2.77"), 28).to_string(), "192.0.2.64/28");
        assert_eq!(Prefix::new(ip("2001:db8::ff"), 64).to_string(), "2001:db8::/64");
        assert_eq!(Prefix::new(ip("192.0.2.77"), 0).to_string(), "0.0.0.0/0");
        assert_eq!(Prefix::new(ip("2001:db8::1"), 0).to_string(), "::/0");
        assert_eq!(Prefix::host(ip("192.0.2.77")), Prefix::new(ip("192.0.2.77"), 32));
    }

    #[test]
    fn a_prefix_contains_its_own_family_only() {
        let lan = Prefix::new(ip("192.0.2.64"), 28);
        assert!(lan.contains(ip("192.0.2.64")) && lan.contains(ip("192.0.2.79")));
        assert!(!lan.contains(ip("192.0.2.80")) && !lan.contains(ip("::1")));
        assert!(!Prefix::new(ip("::"), 0).contains(ip("192.0.2.1")));
    }

    #[test]
    fn a_range_lists_its_addresses_unless_they_are_too_many() {
        let list = |text: &str, length| Prefix::new(ip(text), length).addresses(16).collect::<Vec<_>>();
        assert_eq!(list("192.0.2.9", 32), [ip("192.0.2.9")]);
        assert_eq!(list("2001:db8::4", 127), [ip("2001:db8::4"), ip("2001:db8::5")]);
        assert_eq!(list("192.0.2.0", 28).len(), 16);
        assert!(list("192.0.2.0", 27).is_empty());
        assert!(list("::", 0).is_empty());
    }

    #[test]
    fn a_range_is_read_as_it_is_printed() {
        for text in ["198.51.100.0/24", "0.0.0.0/0", "2001:db8::/32", "2001:db8::1/128"] {
            assert_eq!(text.parse::<Prefix>().unwrap().to_string(), text);
        }
        assert_eq!("198.51.100.7".parse(), Ok(Prefix::host(ip("198.51.100.7"))));
        assert_eq!("198.51.100.7/24".parse(), Ok(Prefix::new(ip("198.51.100.0"), 24)));
        for text in ["", "web", "198.51.100.0/33", "198.51.100/24", "::1/129", "1.2.3.4/", "1.2.3.4/x"] {
            assert!(text.parse::<Prefix>().unwrap_err().contains("198.51.100.0/24"), "{text}");
        }
    }
}
