//! What listens here: the tables of `/proc/net`.

use std::fs;
use std::net::IpAddr;

use crate::wire::Protocol;

/// Sockets that take packets in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sockets(Vec<Socket>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Socket {
    protocol: Protocol,
    address: IpAddr,
    /// 0 for raw sockets.
    port: u16,
}

impl Sockets {
    /// Those of the network namespace of the calling thread.
    pub(super) fn read() -> Self {
        let tables = [("tcp", Some(Protocol::TCP)), ("udp", Some(Protocol::UDP)), ("raw", None)];
        let files = tables.into_iter().flat_map(|(name, protocol)| ["", "6"].map(|family| (name, family, protocol)));
        let read = |(name, family, protocol): (&str, &str, Option<Protocol>)| {
            let text = fs::read_to_string(format!("/proc/thread-self/net/{name}{family}")).unwrap_or_default();
            text.lines().skip(1).filter_map(|line| socket(line, protocol)).collect::<Vec<_>>()
        };
        Self(files.flat_map(read).collect())
    }

    /// Whether this takes in what comes for this port of the address.
    pub(super) fn listens(&self, protocol: Protocol, address: IpAddr, port: u16) -> bool {
        self.0.iter().any(|socket| {
            // A socket for all addresses of IPv6 takes in IPv4 as well, unless it is told not to.
            let all = socket.address.is_unspecified() && (socket.address.is_ipv6() || address.is_ipv4());
            socket.protocol == protocol && socket.port == port && (all || socket.address == address)
        })
    }

    /// Whether a raw socket takes in packets of this protocol, in headers of this family.
    pub(super) fn takes(&self, protocol: Protocol, v4: bool) -> bool {
        self.0.iter().any(|socket| socket.port == 0 && socket.protocol == protocol && socket.address.is_ipv4() == v4)
    }
}

/// `   0: 0100007F:1F90 00000000:0000 0A ...`: local address and port, the other end's, state. In the table of raw sockets
/// the protocol stands where the port is.
fn socket(line: &str, protocol: Option<Protocol>) -> Option<Socket> {
    const LISTEN: &str = "0A";
    let mut words = line.split_whitespace().skip(1);
    let (local, _, state) = (words.next()?, words.next()?, words.next()?);
    if protocol == Some(Protocol::TCP) && state != LISTEN {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    let (address, port) = (address_of(address)?, u16::from_str_radix(port, 16).ok()?);
    Some(match protocol {
        Some(protocol) => Socket { protocol, address, port },
        None => Socket { protocol: Protocol(u8::try_from(port).ok()?), address, port: 0 },
    })
}

/// Words of 32 bits, each in this machine's order of bytes.
fn address_of(hex: &str) -> Option<IpAddr> {
    let word = |n: usize| u32::from_str_radix(hex.get(n * 8..n * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    if hex.len() == 8 {
        return word(0).map(IpAddr::from);
    }
    let bytes = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

#[cfg(test)]
impl Sockets {
    pub(super) fn with(mut self, protocol: Protocol, address: &str, port: u16) -> Self {
        self.0.push(Socket { protocol, address: address.parse().unwrap(), port });
        self
    }

    pub(super) fn without(mut self, protocol: Protocol) -> Self {
        self.0.retain(|socket| socket.protocol != protocol);
        self
    }
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_are_read() {
        let tcp = socket("   0: 0A0200C0:0050 00000000:0000 0A 00000000:00000000", Some(Protocol::TCP)).unwrap();
        assert_eq!((tcp.address, tcp.port), ("192.0.2.10".parse().unwrap(), 80));
        assert_eq!(socket("   0: 0A0200C0:0050 01020304:1234 01 0", Some(Protocol::TCP)), None, "a connection");
        let raw = socket("  47: 00000000:002F 00000000:0000 07 00000000:00000000", None).unwrap();
        assert_eq!((raw.protocol, raw.port), (Protocol::GRE, 0));
        let line = "   1: B80D0120000000000000000010000000:0050 00000000000000000000000000000000:0000 0A 0";
        let v6 = socket(line, Some(Protocol::TCP)).unwrap();
        assert_eq!(v6.address, "2001:db8::10".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn a_socket_for_all_addresses_takes_in_those_of_its_family_and_of_ipv6_all() {
        let listens = |own: &str, asked: &str| {
            let sockets = Sockets::default().with(Protocol::TCP, own, 80);
            sockets.listens(Protocol::TCP, asked.parse().unwrap(), 80)
        };
        assert!(listens("0.0.0.0", "192.0.2.10") && listens("::", "192.0.2.10") && listens("::", "2001:db8::10"));
        assert!(!listens("0.0.0.0", "2001:db8::10") && !listens("10.0.0.1", "192.0.2.10"));
    }
}
