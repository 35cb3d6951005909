//! Which wrapped packets are taken apart: those of a gateway, with a client's packet for a VIP inside.

use std::net::IpAddr;

use crate::engine::nat::ports::FOR_CHECKS;
use crate::io::netlink::Prefix;
use crate::wire::tunnel::{self, Encapsulation, GUE_PORT, Refused};
use crate::wire::{Address, IpHeader, Protocol};

/// Looks at every packet.
#[derive(Clone, Debug)]
pub struct Gate {
    encapsulations: Vec<Encapsulation>,
    from: Vec<Address>,
    vips: Vec<Prefix>,
}

/// Why a packet is not taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// It is not from a gateway.
    Stranger,
    /// Its headers are cut, or not as they should be (R93).
    Malformed,
    /// It has another GRE key than the tunnels', or they have none (RFC 2890 2.1).
    Key,
    /// A router has marked congestion that its sender could not hear of (R96).
    Congestion,
    /// What is inside is not for a VIP: another tunnel, perhaps, or for this machine itself (R105).
    Destination,
    /// What is inside is from nobody's address, from a VIP, or from a gateway, which is nobody's client, and no health check.
    Source,
}

impl Refusal {
    /// All of them, in order.
    pub const ALL: [Self; 6] =
        [Self::Stranger, Self::Malformed, Self::Key, Self::Congestion, Self::Destination, Self::Source];

    /// A few words.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Stranger => "not from the gateway",
            Self::Malformed => "malformed",
            Self::Key => "with a GRE key that is not the tunnel's, or without it",
            Self::Congestion => "congestion that the sender could not hear of",
            Self::Destination => "not for a VIP",
            Self::Source => "from an impossible source",
        }
    }
}

impl Gate {
    /// For packets of these gateways to these VIPs, wrapped in these ways.
    pub fn new(encapsulations: &[Encapsulation], from: &[IpAddr], vips: &[Prefix]) -> Self {
        let encapsulations = encapsulations.to_vec();
        Self { encapsulations, from: from.iter().copied().map(Address::from).collect(), vips: vips.to_vec() }
    }

    /// The packet inside, as it is to be delivered. `outer` is who sent it, how it is wrapped, the outer header's protocol
    /// and its TOS or traffic class; `payload` is what [`tunnel::open`] takes.
    ///
    /// # Errors
    /// Why it is not.
    pub fn admit<'p>(
        &self,
        outer: (Address, Encapsulation, Protocol, u8),
        payload: &'p mut [u8],
    ) -> Result<&'p mut [u8], Refusal> {
        let (sender, encapsulation, protocol, traffic_class) = outer;
        if !self.from.contains(&sender) {
            return Err(Refusal::Stranger);
        }
        // Services may have keys of their own, and one socket hears all of GRE.
        let is_gre = protocol == Protocol::GRE;
        let encapsulation = if is_gre { tunnel::gre_as_sent(payload) } else { encapsulation };
        if !self.encapsulations.contains(&encapsulation) {
            return Err(Refusal::Key);
        }
        let inner = tunnel::open(encapsulation, protocol, payload).map_err(|_| Refusal::Malformed)?;
        let header = IpHeader::parse(inner).map_err(|_| Refusal::Malformed)?;
        let (source, destination) = header.addresses(inner);
        if !self.is_vip(destination) {
            return Err(Refusal::Destination);
        }
        let gateways_own = self.from.contains(&source) && !is_check(&header, inner);
        if !source.is_host() || self.is_vip(source) || gateways_own {
            return Err(Refusal::Source);
        }
        tunnel::merge_congestion(inner, traffic_class).map_err(|refused| match refused {
            Refused::Congestion => Refusal::Congestion,
            Refused::Truncated
            | Refused::Version
            | Refused::Flags
            | Refused::Key
            | Refused::Checksum
            | Refused::Protocol
            | Refused::Inner(_) => Refusal::Malformed,
        })?;
        Ok(inner)
    }

    fn is_vip(&self, address: Address) -> bool {
        self.vips.iter().any(|vip| vip.contains(address.ip()))
    }
}

/// Whether a gateway's packet is one of its health checks: a ping, or from one of the ports that are for them. A tunnel's
/// packet is not: it would come back by the socket as the gateway's.
fn is_check(header: &IpHeader, packet: &[u8]) -> bool {
    let ports = packet.get(usize::from(header.payload)..).and_then(|transport| transport.first_chunk::<4>());
    let from_check = ports.is_some_and(|[a, b, ..]| FOR_CHECKS.contains(&u16::from_be_bytes([*a, *b])));
    match header.protocol {
        Protocol::ICMP | Protocol::ICMPV6 => true,
        Protocol::TCP => from_check,
        Protocol::UDP => from_check && ports.is_some_and(|[_, _, c, d]| u16::from_be_bytes([*c, *d]) != GUE_PORT),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::build;

    fn at(text: &str) -> crate::wire::Endpoint {
        text.parse::<std::net::SocketAddr>().unwrap().into()
    }

    /// What becomes of a datagram between these, wrapped by this sender with this traffic class.
    fn admitted(sender: &str, from: &str, to: &str, traffic_class: u8) -> Result<Vec<u8>, Refusal> {
        let vips = ["192.0.2.10", "2001:db8::/64"].map(|vip| vip.parse().unwrap());
        let gate = Gate::new(&[Encapsulation::Gre], &["10.99.0.10".parse().unwrap()], &vips);
        let inner = build::udp(at(from), at(to), b"hello");
        let kind = if inner[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] };
        let mut payload = [&[0, 0], &kind[..], &inner].concat();
        let sender = sender.parse::<IpAddr>().unwrap().into();
        let outer = (sender, Encapsulation::Gre, Protocol::GRE, traffic_class);
        let admitted = gate.admit(outer, &mut payload).map(|packet| packet.to_vec());
        assert!(admitted.as_ref().is_ok_and(|packet| *packet == inner) || admitted.is_err());
        admitted
    }

    #[test]
    fn r105_only_a_gateways_packets_for_a_vip_are_delivered() {
        const GATEWAY: &str = "10.99.0.10";
        const CLIENT: &str = "198.51.100.7:40000";
        const VIP: &str = "192.0.2.10:80";
        assert!(admitted(GATEWAY, CLIENT, VIP, 0).is_ok());
        assert!(admitted(GATEWAY, "[2001:db8:1::7]:1", "[2001:db8::77]:80", 0).is_ok());
        assert_eq!(admitted("10.99.0.11", CLIENT, VIP, 0), Err(Refusal::Stranger));
        for elsewhere in ["10.99.0.10:80", "10.0.0.1:80", "192.0.2.11:80"] {
            assert_eq!(admitted(GATEWAY, CLIENT, elsewhere, 0), Err(Refusal::Destination));
        }
        // The last one, were it a tunnel's packet again, would come back here by the socket as the gateway's.
        for nobody in ["127.0.0.1:80", "0.0.0.0:80", "192.0.2.10:81", "255.255.255.255:80", "10.99.0.10:80"] {
            assert_eq!(admitted(GATEWAY, nobody, VIP, 0), Err(Refusal::Source));
        }
    }

    #[test]
    fn r91_a_tunnel_takes_its_own_key_and_no_other() {
        let inner = build::udp(at("198.51.100.7:40000"), at("192.0.2.10:80"), b"hello");
        let admitted = |tunnels: &[Encapsulation], key: Option<u32>| {
            let gate = Gate::new(tunnels, &["10.99.0.10".parse().unwrap()], &["192.0.2.10".parse().unwrap()]);
            let key = key.map(u32::to_be_bytes);
            let flags = if key.is_some() { 0x20 } else { 0 };
            let mut payload = [&[flags, 0, 0x08, 0x00][..], key.as_ref().map_or(&[], |key| &key[..]), &inner].concat();
            let sender = "10.99.0.10".parse::<IpAddr>().unwrap().into();
            let outer = (sender, Encapsulation::Gre, Protocol::GRE, 0);
            gate.admit(outer, &mut payload).map(|packet| assert_eq!(*packet, *inner))
        };
        let (bare, keyed) = (Encapsulation::Gre, Encapsulation::KeyedGre(42));
        assert_eq!((admitted(&[keyed], Some(42)), admitted(&[bare], None)), (Ok(()), Ok(())));
        assert_eq!((admitted(&[bare, keyed], Some(42)), admitted(&[bare, keyed], None)), (Ok(()), Ok(())));
        for (tunnel, key) in [(keyed, Some(43)), (keyed, None), (bare, Some(42)), (bare, Some(0))] {
            assert_eq!(admitted(&[tunnel], key), Err(Refusal::Key), "{key:?} in {tunnel:?}");
        }
    }

    #[test]
    fn r96_congestion_that_a_sender_cannot_hear_of_is_a_loss() {
        assert_eq!(admitted("10.99.0.10", "198.51.100.7:1", "192.0.2.10:80", 3), Err(Refusal::Congestion));
    }
}
