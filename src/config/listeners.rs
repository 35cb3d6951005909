//! Who listens where: the answer to "which service is this packet for".

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::RangeInclusive;

use foldhash::fast::RandomState;

use super::ServiceId;
use crate::wire::{Address, Endpoint, Protocol};

/// A listen address: one address or a prefix, one port, a range, or all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Listen {
    /// First address (the network address of a prefix).
    pub address: Address,
    /// Prefix length in bits of the family: 32 or 128 for a single address.
    pub prefix: u8,
    /// Ports; `1..=65535` for `*`.
    pub ports: RangeInclusive<u16>,
}

impl Listen {
    /// True for a single address, false for a prefix of several.
    pub fn is_single(&self) -> bool {
        self.bits() == 128
    }

    /// Whether the address lies inside.
    pub fn covers(&self, address: Address) -> bool {
        self.address.is_v4() == address.is_v4() && masked(address, self.bits()) == masked(self.address, self.bits())
    }

    /// The first address of the prefix.
    pub(super) fn network(&self) -> Address {
        masked(self.address, self.bits())
    }

    /// One of its addresses: of a prefix the one after the network's own, which no host may have.
    pub fn first_host(&self) -> Address {
        if self.bits() > 126 {
            return self.network();
        }
        let next = u128::from_be_bytes(*self.network().octets()) + 1;
        Address::v6(next.to_be_bytes())
    }

    /// Prefix length in the sixteen bytes that both families share.
    fn bits(&self) -> u8 {
        if self.address.is_v4() { self.prefix + 96 } else { self.prefix }
    }
}

impl fmt::Display for Listen {
    /// As in the file: `192.0.2.10:80`, `[2001:db8::/64]:8000-8099`, `192.0.2.0/28:*`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ip = if self.is_single() { self.address.to_string() } else { format!("{}/{}", self.address, self.prefix) };
        if self.address.is_v4() {
            write!(f, "{ip}:")?
        } else {
            write!(f, "[{ip}]:")?
        }
        match (*self.ports.start(), *self.ports.end()) {
            (1, u16::MAX) => f.write_str("*"),
            (first, last) if first == last => write!(f, "{first}"),
            (first, last) => write!(f, "{first}-{last}"),
        }
    }
}

/// The first `bits` bits of the address; IPv4 counts with its 96 bits of mapping, so that no prefix crosses families.
fn masked(address: Address, bits: u8) -> Address {
    let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
    Address::v6((u128::from_be_bytes(*address.octets()) & mask).to_be_bytes())
}

/// What a service carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Carried {
    /// TCP or UDP.
    One(Protocol),
    /// TCP and UDP; if it listens on all ports, every other protocol, too.
    Any,
}

impl Carried {
    /// Those of the protocols that it carries which have ports.
    pub(super) fn with_ports(self) -> impl Iterator<Item = Protocol> {
        [Protocol::TCP, Protocol::UDP].into_iter().filter(move |protocol| match self {
            Self::One(one) => one == *protocol,
            Self::Any => true,
        })
    }
}

impl fmt::Display for Carried {
    /// `tcp`, `udp` or `any`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(protocol) => protocol.fmt(f),
            Self::Any => f.write_str("any"),
        }
    }
}

/// All listen addresses of all services. A lookup costs one hash for each prefix length in use.
#[derive(Clone, Debug, Default)]
pub struct Listeners {
    /// Prefix lengths in use, longest first.
    lengths: Vec<u8>,
    /// The ports of each network and protocol.
    ports: HashMap<(u8, Address, Protocol), Vec<Claim>, RandomState>,
    /// Who takes the protocols without ports of each network.
    portless: HashMap<(u8, Address), ServiceId, RandomState>,
    /// The networks.
    vips: HashSet<(u8, Address), RandomState>,
}

/// These ports are this service's.
type Claim = (RangeInclusive<u16>, ServiceId);

impl Listeners {
    /// From the listen addresses of all services, of which no two may overlap: [`load`](super::load) makes sure.
    pub(super) fn new<'a>(listens: impl Iterator<Item = (&'a Listen, Carried, ServiceId)>) -> Self {
        let mut this = Self::default();
        for (listen, carried, service) in listens {
            let (bits, network) = (listen.bits(), listen.network());
            this.vips.insert((bits, network));
            for protocol in carried.with_ports() {
                this.ports.entry((bits, network, protocol)).or_default().push((listen.ports.clone(), service));
            }
            if carried == Carried::Any && listen.ports == (1..=u16::MAX) {
                this.portless.insert((bits, network), service);
            }
        }
        this.lengths = this.vips.iter().map(|(bits, _)| *bits).collect();
        this.lengths.sort_unstable_by_key(|bits| std::cmp::Reverse(*bits));
        this.lengths.dedup();
        this
    }

    /// The service that listens on this endpoint, if any: a single address wins over a prefix, a longer prefix over a
    /// shorter one. The port does not matter if the protocol has none.
    pub fn service(&self, destination: Endpoint, protocol: Protocol) -> Option<ServiceId> {
        if !matches!(protocol, Protocol::TCP | Protocol::UDP) {
            return self.portless(destination.address);
        }
        self.lengths.iter().find_map(|bits| {
            let ports = self.ports.get(&(*bits, masked(destination.address, *bits), protocol))?;
            ports.iter().find(|(range, _)| range.contains(&destination.port)).map(|(_, service)| *service)
        })
    }

    /// The service that takes protocols without ports at this address, if any.
    fn portless(&self, destination: Address) -> Option<ServiceId> {
        if self.portless.is_empty() {
            return None;
        }
        self.lengths.iter().find_map(|bits| self.portless.get(&(*bits, masked(destination, *bits))).copied())
    }

    /// Whether any service listens on this address, whatever protocol and port: such an address is ours.
    pub fn is_vip(&self, address: Address) -> bool {
        self.lengths.iter().any(|bits| self.vips.contains(&(*bits, masked(address, *bits))))
    }
}

#[cfg(test)]
mod tests {
    use super::super::text;
    use super::*;

    fn listeners(listens: &[&str]) -> Listeners {
        let listens: Vec<_> = listens.iter().map(|listen| text::listen(listen).unwrap()).collect();
        let numbered = listens.iter().zip(0..);
        Listeners::new(numbered.map(|(listen, n)| (listen, Carried::One(Protocol::TCP), ServiceId(n))))
    }

    fn endpoint(text: &str) -> Endpoint {
        text.parse::<std::net::SocketAddr>().unwrap().into()
    }

    #[track_caller]
    fn assert_serves(listeners: &Listeners, destination: &str, service: Option<u16>) {
        assert_eq!(listeners.service(endpoint(destination), Protocol::TCP), service.map(ServiceId), "{destination}");
    }

    #[test]
    fn a_single_address_wins_over_a_prefix_whatever_the_order() {
        let listeners = listeners(&["192.0.2.0/24:80", "192.0.2.7:80"]);
        assert_serves(&listeners, "192.0.2.7:80", Some(1));
        assert_serves(&listeners, "192.0.2.8:80", Some(0));
        assert_serves(&listeners, "192.0.3.8:80", None);
    }

    #[test]
    fn the_longest_prefix_wins() {
        let listeners = listeners(&["192.0.2.0/24:*", "192.0.2.16/28:*", "192.0.0.0/16:*"]);
        assert_serves(&listeners, "192.0.2.17:1", Some(1));
        assert_serves(&listeners, "192.0.2.32:1", Some(0));
        assert_serves(&listeners, "192.0.3.1:1", Some(2));
    }

    #[test]
    fn a_port_that_the_longer_match_does_not_have_falls_to_the_shorter() {
        let listeners = listeners(&["192.0.2.7:80", "192.0.2.0/24:*"]);
        assert_serves(&listeners, "192.0.2.7:80", Some(0));
        assert_serves(&listeners, "192.0.2.7:443", Some(1));
    }

    #[test]
    fn ranges_include_both_ends() {
        let listeners = listeners(&["192.0.2.7:8000-8099", "192.0.2.7:8100"]);
        for (port, service) in [(7999, None), (8000, Some(0)), (8099, Some(0)), (8100, Some(1)), (8101, None)] {
            assert_serves(&listeners, &format!("192.0.2.7:{port}"), service);
        }
    }

    #[test]
    fn families_do_not_mix() {
        let listeners = listeners(&["0.0.0.0/1:80", "[2001:db8::/32]:80", "[2001:db8::10]:80"]);
        assert_serves(&listeners, "10.0.0.1:80", Some(0));
        assert_serves(&listeners, "[2001:db8::10]:80", Some(2));
        assert_serves(&listeners, "[2001:db8::11]:80", Some(1));
        assert_serves(&listeners, "[::10.0.0.1]:80", None);
        assert_serves(&listeners, "200.0.0.1:80", None);
    }

    #[test]
    fn who_carries_any_protocol_on_all_ports_takes_those_without_ports_too() {
        let listens = ["192.0.2.7:*", "192.0.2.8:80", "192.0.2.0/24:*"].map(|listen| text::listen(listen).unwrap());
        let carried = [Carried::Any, Carried::Any, Carried::One(Protocol::TCP)];
        let numbered = listens.iter().zip(carried).zip(0..);
        let listeners = Listeners::new(numbered.map(|((listen, carried), n)| (listen, carried, ServiceId(n))));
        for (destination, service) in [("192.0.2.7", Some(0)), ("192.0.2.8", None), ("192.0.2.9", None)] {
            let address = text::address(destination).unwrap();
            assert_eq!(
                listeners.service(Endpoint::new(address, 0), Protocol(50)),
                service.map(ServiceId),
                "{destination}"
            );
        }
        for protocol in [Protocol::TCP, Protocol::UDP] {
            assert_eq!(listeners.service(endpoint("192.0.2.8:80"), protocol), Some(ServiceId(1)));
        }
    }

    #[test]
    fn protocols_are_apart_but_the_vip_is_one() {
        let listeners = listeners(&["192.0.2.7:80", "[2001:db8::/64]:80"]);
        assert_eq!(listeners.service(endpoint("192.0.2.7:80"), Protocol::UDP), None);
        for (address, is_vip) in
            [("192.0.2.7", true), ("192.0.2.8", false), ("2001:db8::f", true), ("2001:db9::", false)]
        {
            assert_eq!(listeners.is_vip(text::address(address).unwrap()), is_vip, "{address}");
        }
        assert!(!Listeners::default().is_vip(Address::v4([0; 4])));
    }

    #[test]
    fn a_listen_address_prints_as_it_is_written() {
        for written in ["192.0.2.7:80", "192.0.2.0/28:*", "[2001:db8::1]:8000-8099", "[2001:db8::/64]:443"] {
            assert_eq!(text::listen(written).unwrap().to_string(), written);
        }
    }
}
