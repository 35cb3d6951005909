//! Backends by DNS: A, AAAA and SRV records, asked by UDP, and by TCP if an answer does not fit.
//!
//! A resolver of our own, since the system's keeps times to live to itself, and may wait for half a minute.

mod message;

use std::hash::{BuildHasher, RandomState};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use super::{Inquiry, Leave};
use crate::config::{DnsName, Found, Records};
use crate::control::discovery::{Answer, CONFIRM_AFTER};
use crate::engine::Instant;
use crate::io::sys;
use crate::wire::Address;
use message::{Kind, Message, Record, Reply, is_same, question, read};

/// How long a server has for an answer; it is asked twice, as UDP loses packets.
const PATIENCE: Duration = Duration::from_secs(1);
const TRIES: u32 = 2;
/// How soon it is asked again after a failure.
const RETRY: Duration = Duration::from_secs(2);
/// Times to live are kept between these: 0 would ask without end.
const LEAST_TTL: u32 = 1;
const MOST_TTL: u32 = 24 * 3600;
/// Targets of SRV records whose addresses are looked for, at most.
const MOST_TARGETS: usize = 1_000;

/// A name that is asked for again and again.
#[derive(Debug)]
pub(super) struct Dns {
    name: DnsName,
    /// Instead of the times to live.
    interval: Option<Duration>,
    /// How long the last answer holds.
    holds: Duration,
}

impl Dns {
    pub(super) const fn new(name: DnsName, interval: Option<Duration>) -> Self {
        Self { name, interval, holds: RETRY }
    }

    fn look_up(&self) -> Result<(Vec<Found>, u32), String> {
        let servers = match self.name.resolver {
            Some(server) => vec![server],
            None => system_resolvers(),
        };
        let resolver = Resolver { servers };
        let name = &self.name.name;
        let kind = match self.name.records {
            Records::A => Kind::A,
            Records::Aaaa => Kind::Aaaa,
            Records::Srv => return resolver.servers_of(name),
        };
        let reply = resolver.ask(name, kind)?;
        let found = reply.answers.iter().filter_map(|record| match record {
            Record::Address { address, .. } => Some(Found::new(None, *address, self.name.port)),
            Record::Server { .. } => None,
        });
        Ok((distinct(found.collect()), reply.ttl.unwrap_or(0)))
    }
}

impl Inquiry for Dns {
    fn ask(&mut self, _: Instant, _: &Leave) -> Option<Answer> {
        let answer = self.look_up();
        self.holds = match &answer {
            Err(_) => RETRY,
            // An empty one has no time to live, and is not believed before it has lasted.
            Ok((found, _)) if found.is_empty() => CONFIRM_AFTER,
            Ok((_, ttl)) => Duration::from_secs((*ttl).clamp(LEAST_TTL, MOST_TTL).into()),
        };
        Some(answer.map(|(found, _)| found))
    }

    fn patience(&self) -> Duration {
        self.interval.unwrap_or(self.holds)
    }
}

/// A server that is told twice is one; of a name that several have, each has its address.
fn distinct(mut found: Vec<Found>) -> Vec<Found> {
    found.sort_by_key(Found::place);
    found.dedup_by_key(|one| one.place());
    let names: Vec<_> = found.iter().map(|one| one.name.clone()).collect();
    for one in &mut found {
        if names.iter().filter(|name| **name == one.name).count() > 1 {
            one.name = Found::new(None, one.address, one.port).name;
        }
    }
    found
}

/// Those of `/etc/resolv.conf`, or else this machine, as resolv.conf(5) has it.
fn system_resolvers() -> Vec<SocketAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers: Vec<_> = resolvers(&text).collect();
    if servers.is_empty() { vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 53))] } else { servers }
}

fn resolvers(text: &str) -> impl Iterator<Item = SocketAddr> {
    let addresses = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse().ok());
    addresses.map(|address: IpAddr| SocketAddr::new(address, 53))
}

struct Resolver {
    servers: Vec<SocketAddr>,
}

impl Resolver {
    /// Asks one server after the other, until one has an answer.
    fn ask(&self, name: &str, kind: Kind) -> Result<Reply, String> {
        let mut why = "there is no server to ask".to_owned();
        for server in &self.servers {
            match exchange(*server, name, kind) {
                Ok(reply) => return Ok(reply),
                Err(error) => why = format!("{server}: {error}"),
            }
        }
        Err(why)
    }

    /// Who serves what a name stands for (RFC 2782): those of the lowest priority, and the others as backups.
    fn servers_of(&self, name: &str) -> Result<(Vec<Found>, u32), String> {
        let reply = self.ask(name, Kind::Srv)?;
        let mut ttl = reply.ttl.unwrap_or(0);
        let priorities = reply.answers.iter().filter_map(|record| match record {
            Record::Server { priority, .. } => Some(*priority),
            Record::Address { .. } => None,
        });
        let first = priorities.min();
        let mut all = Vec::new();
        for record in reply.answers.iter().take(MOST_TARGETS) {
            let Record::Server { target, port, priority, weight } = record else { continue };
            // "." says that the service is decidedly not available.
            if target.is_empty() || target == "." {
                continue;
            }
            let mut addresses = addresses(&reply.additional, target);
            if addresses.is_empty() {
                for kind in [Kind::A, Kind::Aaaa] {
                    let reply = self.ask(target, kind)?;
                    ttl = ttl.min(reply.ttl.unwrap_or(ttl));
                    addresses.extend(reply.answers.iter().filter_map(Record::address));
                }
            }
            let name = target.trim_end_matches('.').to_owned();
            all.extend(addresses.into_iter().map(|address| Found {
                // A weight of 0 is a small one (RFC 2782), not none.
                weight: (*weight).max(1),
                backup: Some(*priority) != first,
                ..Found::new(Some(name.clone()), address, Some(*port))
            }));
        }
        Ok((distinct(all), ttl))
    }
}

impl Record {
    const fn address(&self) -> Option<Address> {
        match self {
            Self::Address { address, .. } => Some(*address),
            Self::Server { .. } => None,
        }
    }
}

fn addresses(records: &[Record], target: &str) -> Vec<Address> {
    let of_target =
        records.iter().filter(|record| matches!(record, Record::Address { name, .. } if is_same(name, target)));
    of_target.filter_map(Record::address).collect()
}

/// One question, and its answer.
fn exchange(server: SocketAddr, name: &str, kind: Kind) -> Result<Reply, String> {
    // Hard to guess, as is the port that the system chooses (RFC 5452).
    #[expect(clippy::cast_possible_truncation, reason = "sixteen bits of it are wanted")]
    let id = RandomState::new().hash_one(name) as u16;
    let question = question(id, name, kind)?;
    let by_udp = (0..TRIES).find_map(|_| by_udp(server, &question, id, name, kind).transpose());
    match by_udp.unwrap_or_else(|| Err("no answer".to_owned()))? {
        Message::Reply(reply) => Ok(reply),
        Message::Refusal(why) => Err(why),
        Message::Cut | Message::Stray => match by_tcp(server, &question, id, name, kind)? {
            Message::Reply(reply) => Ok(reply),
            Message::Refusal(why) => Err(why),
            Message::Cut | Message::Stray => Err("its answer cannot be read".to_owned()),
        },
    }
}

/// `None` if nothing has come that is an answer.
fn by_udp(server: SocketAddr, question: &[u8], id: u16, name: &str, kind: Kind) -> Result<Option<Message>, String> {
    let told = |error: std::io::Error| error.to_string();
    let any = if server.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { IpAddr::from(Ipv6Addr::UNSPECIFIED) };
    let socket = UdpSocket::bind((any, 0)).map_err(told)?;
    socket.connect(server).map_err(told)?;
    socket.send(question).map_err(told)?;
    let until = sys::now() + PATIENCE;
    let mut bytes = vec![0; 65_535];
    loop {
        let left = until.since(sys::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left)).map_err(told)?;
        let Ok(len) = socket.recv(&mut bytes) else { return Ok(None) };
        match read(&bytes[..len], id, name, kind) {
            // Somebody else's, or garbage: the true one may be on its way.
            Message::Stray => {}
            message @ (Message::Reply(_) | Message::Cut | Message::Refusal(_)) => return Ok(Some(message)),
        }
    }
}

fn by_tcp(server: SocketAddr, question: &[u8], id: u16, name: &str, kind: Kind) -> Result<Message, String> {
    let told = |error: std::io::Error| format!("by TCP: {error}");
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE).map_err(told)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(told)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(told)?;
    let length = u16::try_from(question.len()).expect("a question is short");
    stream.write_all(&[&length.to_be_bytes()[..], question].concat()).map_err(told)?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).map_err(told)?;
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut bytes).map_err(told)?;
    Ok(read(&bytes, id, name, kind))
}

#[cfg(test)]
mod tests;
