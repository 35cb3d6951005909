//! Clients and backends.

use tungate::wire::build::{self, Tcp};
use tungate::wire::{Address, Endpoint, TcpFlags};

use super::{Outcome, World, at};

/// Control bits by their names: `flags("SYN ACK")`.
pub(crate) fn flags(names: &str) -> TcpFlags {
    TcpFlags(names.split_whitespace().fold(0, |bits, name| {
        bits | match name {
            "FIN" => 0x01,
            "SYN" => 0x02,
            "RST" => 0x04,
            "PSH" => 0x08,
            "ACK" => 0x10,
            "URG" => 0x20,
            "ECE" => 0x40,
            "CWR" => 0x80,
            other => panic!("no flag {other}"),
        }
    }))
}

/// A segment without options or payload.
pub(crate) fn segment(names: &str, seq: u32, ack: u32) -> Tcp<'static> {
    Tcp { seq, ack, flags: flags(names), window: 64_000, ..Tcp::default() }
}

pub(crate) const CLIENT_ISN: u32 = 1_000;
pub(crate) const BACKEND_ISN: u32 = 900_000;

/// A client about to do something.
pub(crate) struct Client<'w> {
    world: &'w mut World,
    v4: Endpoint,
    v6: Endpoint,
    is_v6: bool,
}

impl World {
    /// The nth client, from port 40000.
    pub(crate) fn client(&mut self, n: u8) -> Client<'_> {
        let v4 = at(&format!("198.51.100.{n}:40000"));
        let v6 = at(&format!("[2001:db8:1::{n:x}]:40000"));
        Client { world: self, v4, v6, is_v6: false }
    }

    /// Whoever has this address and port.
    pub(crate) fn client_at(&mut self, endpoint: Endpoint) -> Client<'_> {
        Client { world: self, v4: endpoint, v6: endpoint, is_v6: !endpoint.address.is_v4() }
    }
}

impl Client<'_> {
    pub(crate) fn v6(mut self) -> Self {
        self.is_v6 = true;
        self
    }

    pub(crate) fn port(mut self, port: u16) -> Self {
        (self.v4.port, self.v6.port) = (port, port);
        self
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        if self.is_v6 { self.v6 } else { self.v4 }
    }

    /// Where the service listens in this client's family.
    pub(crate) fn vip(&self, service: &str) -> Endpoint {
        let id = self.world.service(service);
        let snapshot = &self.world.shared.policy.load().snapshot;
        let mut listens = snapshot.service(id).listen.iter();
        let listen = listens.find(|listen| listen.address.is_v4() != self.is_v6).expect("listens in that family");
        Endpoint::new(listen.address, *listen.ports.start())
    }

    /// Sends a segment to a service.
    pub(crate) fn sends(self, service: &str, segment: &Tcp<'_>) -> Outcome {
        let packet = build::tcp(self.endpoint(), self.vip(service), segment);
        self.world.receives(packet)
    }

    pub(crate) fn syn(self, service: &str) -> Outcome {
        self.sends(service, &segment("SYN", CLIENT_ISN, 0))
    }

    /// Sends a SYN that is to open a connection.
    pub(crate) fn begins(self, service: &str) -> Connection {
        let (client, vip) = (self.endpoint(), self.vip(service));
        let seen = self.syn(service).forwarded();
        Connection {
            client,
            vip,
            source: seen.source,
            backend: seen.destination,
            client_next: CLIENT_ISN + 1,
            backend_next: BACKEND_ISN + 1,
        }
    }

    /// Opens a connection: SYN, SYN-ACK, ACK.
    pub(crate) fn opens(self, service: &str) -> Connection {
        let client = self.endpoint();
        let is_v6 = self.is_v6;
        let Client { world, v4, v6, .. } = self;
        let connection = Client { world: &mut *world, v4, v6, is_v6 }.begins(service);
        assert_eq!(connection.client, client);
        world.backend_says(&connection, &segment("SYN ACK", BACKEND_ISN, CLIENT_ISN + 1)).forwarded();
        world.client_says(&connection, &connection.client_segment("ACK")).forwarded();
        connection
    }

    /// Sends a datagram to a service.
    pub(crate) fn asks(self, service: &str, question: &[u8]) -> Outcome {
        let packet = build::udp(self.endpoint(), self.vip(service), question);
        self.world.receives(packet)
    }
}

/// A connection, and the sequence numbers that both sides have come to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connection {
    pub(crate) client: Endpoint,
    pub(crate) vip: Endpoint,
    /// As whom the backend sees the client.
    pub(crate) source: Endpoint,
    pub(crate) backend: Endpoint,
    pub(crate) client_next: u32,
    pub(crate) backend_next: u32,
}

impl Connection {
    /// The segment with these flags that the client would send now.
    pub(crate) fn client_segment(&self, names: &str) -> Tcp<'static> {
        segment(names, self.client_next, self.backend_next)
    }

    pub(crate) fn backend_segment(&self, names: &str) -> Tcp<'static> {
        segment(names, self.backend_next, self.client_next)
    }
}

impl World {
    /// The client sends this segment, whatever it is.
    pub(crate) fn client_says(&mut self, connection: &Connection, segment: &Tcp<'_>) -> Outcome {
        self.receives(build::tcp(connection.client, connection.vip, segment))
    }

    pub(crate) fn backend_says(&mut self, connection: &Connection, segment: &Tcp<'_>) -> Outcome {
        self.receives(build::tcp(connection.backend, connection.source, segment))
    }

    /// The client sends so many bytes, and the backend acknowledges them.
    pub(crate) fn client_sends(&mut self, connection: &mut Connection, len: usize) {
        let payload = vec![0x5a; len];
        self.client_says(connection, &Tcp { payload: &payload, ..connection.client_segment("ACK PSH") }).forwarded();
        connection.client_next = connection.client_next.wrapping_add(u32::try_from(len).unwrap());
        self.backend_says(connection, &connection.backend_segment("ACK")).forwarded();
    }

    pub(crate) fn backend_sends(&mut self, connection: &mut Connection, len: usize) {
        let payload = vec![0xa5; len];
        self.backend_says(connection, &Tcp { payload: &payload, ..connection.backend_segment("ACK PSH") }).forwarded();
        connection.backend_next = connection.backend_next.wrapping_add(u32::try_from(len).unwrap());
        self.client_says(connection, &connection.client_segment("ACK")).forwarded();
    }

    /// The client sends a FIN, and the backend acknowledges it.
    pub(crate) fn client_closes(&mut self, connection: &mut Connection) {
        self.client_says(connection, &connection.client_segment("FIN ACK")).forwarded();
        connection.client_next += 1;
        self.backend_says(connection, &connection.backend_segment("ACK")).forwarded();
    }

    pub(crate) fn backend_closes(&mut self, connection: &mut Connection) {
        self.backend_says(connection, &connection.backend_segment("FIN ACK")).forwarded();
        connection.backend_next += 1;
        self.client_says(connection, &connection.client_segment("ACK")).forwarded();
    }

    /// Who a datagram was forwarded to answers it.
    pub(crate) fn answers(&mut self, from: Endpoint, to: Endpoint, answer: &[u8]) -> Outcome {
        self.receives(build::udp(from, to, answer))
    }

    /// An ICMP error from this address: type, code and second word, then the quote.
    pub(crate) fn complains(&mut self, from: Address, to: Address, head: (u8, u8, u32), quote: &[u8]) -> Outcome {
        let mut message = vec![head.0, head.1, 0, 0];
        message.extend(head.2.to_be_bytes());
        message.extend(quote);
        self.receives(build::icmp(from, to, message))
    }
}
