//! `[service.discovery]`: backends that the configuration does not list, but tells where to find.

mod url;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::identity::{Ids, Places, Retired};
use super::{Backend, Service, ServiceId, Snapshot, addresses, text};
use crate::wire::{Address, Endpoint};

pub use url::Url;

/// Where a service's backends are found, besides those that are listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// What is asked.
    pub source: Source,
    /// How often, if not as often as it is usual with this source.
    pub interval: Option<Duration>,
}

/// What can be asked for backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file: JSON if its name ends in `.json`, else TOML.
    File(PathBuf),
    /// A name in the DNS.
    Dns(DnsName),
    /// A server that answers with a list, as JSON.
    Http(HttpSource),
}

/// A server, and how it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSource {
    /// What is asked for.
    pub url: Url,
    /// How long the server may wait for a change.
    pub wait: Duration,
}

/// A name, and what is asked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsName {
    /// The name, with all its dots.
    pub name: String,
    /// What is asked.
    pub records: Records,
    /// The backends' port, where the records have none; `None` keeps the packet's.
    pub port: Option<u16>,
    /// Who is asked; `None`: those of `/etc/resolv.conf`.
    pub resolver: Option<SocketAddr>,
}

/// Kinds of records that tell of backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Records {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Servers with ports, weights and priorities (RFC 2782).
    Srv,
}

impl std::fmt::Display for Source {
    /// `file /etc/tungate/web.toml`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Dns(DnsName { name, records: Records::A, .. }) => write!(f, "dns A {name}"),
            Self::Dns(DnsName { name, records: Records::Aaaa, .. }) => write!(f, "dns AAAA {name}"),
            Self::Dns(DnsName { name, records: Records::Srv, .. }) => write!(f, "dns SRV {name}"),
            Self::Http(HttpSource { url, .. }) => url.fmt(f),
        }
    }
}

/// A backend that was found. It is read and written as an entry of `backends`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Entry", into = "Entry")]
pub struct Found {
    /// Name: as the source has it, or else its address.
    pub name: String,
    /// Where flows go.
    pub address: Address,
    /// Port, or `None` to keep the packet's.
    pub port: Option<u16>,
    /// Share of new flows.
    pub weight: u16,
    /// Used only when no other is available.
    pub backup: bool,
}

impl Found {
    /// One of weight 1. A name that a backend cannot have, or none, is the address.
    pub fn new(name: Option<String>, address: Address, port: Option<u16>) -> Self {
        let name = name.filter(|name| text::bad_name(name).is_none()).unwrap_or_else(|| place(address, port));
        Self { name, address, port, weight: 1, backup: false }
    }

    /// The one that is the same if it is found again: a source may give it another name or weight meanwhile.
    pub const fn place(&self) -> (Address, Option<u16>) {
        (self.address, self.port)
    }
}

impl TryFrom<Entry> for Found {
    type Error = String;

    fn try_from(entry: Entry) -> Result<Self, String> {
        let written = entry.address.escape_debug().to_string();
        let (address, port) =
            text::backend(&entry.address).map_err(|_| format!("`{written}` is no backend address"))?;
        if let Some(why) = entry.name.as_deref().and_then(text::bad_name) {
            return Err(format!("the backend at {written} cannot have its name: {why}"));
        }
        Ok(Self { weight: entry.weight, backup: entry.backup, ..Self::new(entry.name, address, port) })
    }
}

impl From<Found> for Entry {
    fn from(Found { name, address, port, weight, backup }: Found) -> Self {
        let place = place(address, port);
        Self { name: Some(name).filter(|name| *name != place), address: place, weight, backup }
    }
}

/// As in `backends`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    address: String,
    #[serde(default = "one")]
    weight: u16,
    #[serde(default)]
    backup: bool,
}

/// As it is listed.
fn place(address: Address, port: Option<u16>) -> String {
    port.map_or_else(|| address.to_string(), |port| Endpoint::new(address, port).to_string())
}

const fn one() -> u16 {
    1
}

/// A list of backends. The key has to be there: a file that was cut off at its beginning is not an empty list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entries {
    backends: Vec<Found>,
}

/// Reads a list of backends, `backends = [{ address = "10.0.0.1:8080" }]`, as TOML or JSON.
///
/// # Errors
/// A sentence: one entry that cannot be read spoils the list, since nobody knows what was meant.
pub fn read_backends(text: &str, json: bool) -> Result<Vec<Found>, String> {
    let entries: Result<Entries, String> = if json {
        serde_json::from_str(text).map_err(|error| error.to_string())
    } else {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    };
    let found = entries?.backends;
    let (mut places, mut names) = (HashSet::new(), HashSet::new());
    for backend in &found {
        if !places.insert(backend.place()) || !names.insert(backend.name.as_str()) {
            return Err(format!("`{}` is listed twice", backend.name));
        }
    }
    Ok(found)
}

impl Snapshot {
    /// The same configuration with these found backends, and no others, beside those that it lists; and of each that
    /// cannot be one, why. What was found before and is not any more is retired.
    #[must_use]
    pub fn with_found<'f>(&self, found: impl Fn(ServiceId) -> &'f [Found]) -> (Self, Vec<(ServiceId, String)>) {
        let mut ids = Ids::after(Some(self));
        let (mut services, mut backends, mut refused) = (self.services.clone(), Vec::new(), Vec::new());
        for service in &mut services {
            let listed = self.backends_of(service.id).map(|(_, backend)| backend);
            let mut own: Vec<_> = listed.filter(|backend| !backend.discovered).cloned().collect();
            for one in found(service.id) {
                match self.found_backend(service, one, &own, &mut ids) {
                    Ok(backend) => own.push(backend),
                    Err(why) => refused.push((service.id, format!("{}: {why}", one.name))),
                }
            }
            service.backends = own.iter().map(|backend| backend.id).collect();
            backends.extend(own);
        }
        let own = addresses(&self.gateway, &services).map(|(prefix, _)| prefix).collect();
        let retired = Retired::between(self, &services, &backends, &own);
        let places = Places::new(&services, &backends, &retired);
        (Self { services, backends, retired, places, ..self.clone() }, refused)
    }

    /// By the rules that hold for listed ones.
    fn found_backend(
        &self,
        service: &Service,
        found: &Found,
        others: &[Backend],
        ids: &mut Ids<'_>,
    ) -> Result<Backend, &'static str> {
        let Found { name, address, port, weight, backup } = found;
        if let Some(why) = text::unusable(*address, if address.is_v4() { 32 } else { 128 }) {
            return Err(why);
        }
        if self.listeners.is_vip(*address) {
            return Err("it is a VIP: packets would come straight back");
        }
        if self.gateway.source_addresses.contains(address) {
            return Err("it is a source address of the gateway");
        }
        if others.iter().any(|other| other.name == *name || (other.address, other.port) == found.place()) {
            return Err("another backend of the service has this name or address");
        }
        let elsewhere = |port: u16| service.listen.iter().any(|listen| listen.ports != (port..=port));
        if service.is_tunnelled() && port.is_some_and(elsewhere) {
            return Err("with direct server return its port has to be the service's");
        }
        let id = ids.backend(service.id, name, *address, *port).ok_or("there are too many backends")?;
        let (name, address, port, weight, backup) = (name.clone(), *address, *port, *weight, *backup);
        Ok(Backend { id, name, service: service.id, address, port, weight, backup, discovered: true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    fn snapshot() -> Snapshot {
        let text = "[gateway]\nsource-addresses = ['10.99.0.10']\n[[service]]\nname = 'web'\nlisten = '192.0.2.1:80'\n\
                    backends = [{ name = 'b1', address = '10.0.0.1:80' }]\n\
                    [service.discovery]\nsource = 'file'\npath = '/tmp/web.toml'\n";
        load(text, "test.toml", None, "gw").unwrap_or_else(|report| panic!("{report}"))
    }

    fn found(addresses: &[&str]) -> Vec<Found> {
        let entries: Vec<_> = addresses.iter().map(|address| format!("{{ address = '{address}' }}")).collect();
        read_backends(&format!("backends = [{}]", entries.join(", ")), false).unwrap()
    }

    fn names(snapshot: &Snapshot) -> Vec<(u16, &str)> {
        snapshot.backends.iter().map(|backend| (backend.id.0, backend.name.as_str())).collect()
    }

    #[test]
    fn both_languages_say_the_same() {
        let toml =
            "backends = [{ name = 'b2', address = '10.0.0.2:80', weight = 3 }, { address = 'fd00::1', backup = true }]";
        let json =
            r#"{"backends":[{"name":"b2","address":"10.0.0.2:80","weight":3},{"address":"fd00::1","backup":true}]}"#;
        assert_eq!(read_backends(toml, false), read_backends(json, true));
        let read = read_backends(toml, false).unwrap();
        assert_eq!((read[0].name.as_str(), read[0].weight, read[1].name.as_str()), ("b2", 3, "fd00::1"));
    }

    #[test]
    fn what_is_cut_off_or_wrong_is_no_list() {
        for text in [
            "",
            "backends = [{ address = '10.0.0.1' ",
            "backends = [{ address = 'example.com' }]",
            "backends = [{ address = '10.0.0.1', wieght = 1 }]",
            "backends = [{ address = '10.0.0.1', weight = 70000 }]",
            "backends = [{ address = '10.0.0.1', name = 'a b' }]",
            "backends = [{ address = '10.0.0.1' }, { address = '10.0.0.1' }]",
            "\0\u{1}",
        ] {
            assert!(read_backends(text, false).is_err(), "{text:?}");
            assert!(read_backends(text, true).is_err(), "{text:?}");
        }
        assert_eq!(read_backends("backends = []", false), Ok(Vec::new()));
    }

    #[test]
    fn found_backends_stand_beside_the_listed_and_keep_their_ids() {
        let first = snapshot();
        let sets = [found(&["10.0.0.2:80", "10.0.0.3:80"]), found(&["10.0.0.3:80", "10.0.0.4:80"])];
        let (second, refused) = first.with_found(|_| &sets[0]);
        assert!(refused.is_empty());
        assert_eq!(names(&second), [(0, "b1"), (1, "10.0.0.2:80"), (2, "10.0.0.3:80")]);
        let (third, _) = second.with_found(|_| &sets[1]);
        assert_eq!(names(&third), [(0, "b1"), (2, "10.0.0.3:80"), (3, "10.0.0.4:80")]);
        assert_eq!(third.retired.backends[0].name, "10.0.0.2:80", "its flows go on");
        let (fourth, _) = third.with_found(|_| &sets[0]);
        assert_eq!(names(&fourth), [(0, "b1"), (1, "10.0.0.2:80"), (2, "10.0.0.3:80")]);
        let (none, _) = fourth.with_found(|_| &[]);
        assert_eq!(names(&none), [(0, "b1")]);
    }

    #[test]
    fn what_would_be_refused_in_the_file_is_refused_when_found() {
        let set = found(&["192.0.2.1:80", "10.99.0.10:80", "127.0.0.1:80", "10.0.0.1:80", "10.0.0.2:80"]);
        let (snapshot, refused) = snapshot().with_found(|_| &set);
        assert_eq!(names(&snapshot), [(0, "b1"), (1, "10.0.0.2:80")]);
        assert_eq!(refused.len(), 4);
        assert!(refused[0].1.starts_with("192.0.2.1:80: it is a VIP"), "{refused:?}");
    }
}
