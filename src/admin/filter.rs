//! Which flows are meant.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::wire::Address;

/// Which flows are meant: those that fit every part. No part: all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowFilter {
    /// Name of the service.
    pub service: Option<String>,
    /// `BACKEND` or `SERVICE/BACKEND`.
    pub backend: Option<String>,
    /// Where the client is.
    pub client: Option<Prefix>,
    /// State as listed.
    pub state: Option<String>,
}

/// An address range as people write it: `198.51.100.0/24`, `2001:db8::/32`, or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    network: IpAddr,
    length: u8,
}

impl Prefix {
    /// Whether the address lies inside.
    pub fn contains(&self, address: Address) -> bool {
        match (self.network, address.ip()) {
            (IpAddr::V4(network), IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.length)).unwrap_or(0);
                network.to_bits() & mask == ip.to_bits() & mask
            }
            (IpAddr::V6(network), IpAddr::V6(ip)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.length)).unwrap_or(0);
                network.to_bits() & mask == ip.to_bits() & mask
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("`{text}` is no address range: write 198.51.100.0/24, 2001:db8::/32 or one address");
        let (address, length) = text.split_once('/').map_or((text, None), |(a, l)| (a, Some(l)));
        let network: IpAddr = address.parse().map_err(|_| refuse())?;
        let bits = if network.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => bits,
            Some(length) => length.parse().ok().filter(|n| *n <= bits).ok_or_else(refuse)?,
        };
        Ok(Self { network, length })
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

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(prefix: &str, address: &str) -> bool {
        prefix.parse::<Prefix>().unwrap().contains(address.parse::<IpAddr>().unwrap().into())
    }

    #[test]
    fn a_prefix_contains_its_addresses_and_no_other() {
        assert!(contains("198.51.100.0/24", "198.51.100.255"));
        assert!(!contains("198.51.100.0/24", "198.51.101.0"));
        assert!(contains("0.0.0.0/0", "203.0.113.1"));
        assert!(!contains("0.0.0.0/0", "2001:db8::1"));
        assert!(contains("::/0", "2001:db8::1"));
        assert!(contains("2001:db8::1", "2001:db8::1"));
        assert!(!contains("2001:db8::1", "2001:db8::2"));
    }

    #[test]
    fn nonsense_is_refused_with_an_example() {
        for text in ["", "web", "198.51.100.0/33", "198.51.100/24", "::1/129", "1.2.3.4/", "1.2.3.4/x"] {
            assert!(text.parse::<Prefix>().unwrap_err().contains("198.51.100.0/24"), "{text}");
        }
    }
}
