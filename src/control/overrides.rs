//! What the operator has said of backends, against their configuration: it survives reloads and restarts.
//!
//! An override is a service's name and a backend's address: it is the server that is drained, whatever the file calls it.
//! It ends when it is taken back, when its time is over (`--for`), or when its backend has been gone for a week.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::standing::Administration;
use crate::config::{Backend, Snapshot};

/// An override whose backend the configuration has lost for so long is forgotten: somebody else may have the address.
const KEPT_WITHOUT_BACKEND: Duration = Duration::from_secs(7 * 24 * 3600);

/// Time of day, seconds since 1970: what is kept over a restart cannot be told by a clock that began with it.
pub type UnixTime = u64;

/// What the operator says of one backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// No new flows; those there are go on.
    Drain,
    /// As the configuration says: takes `Drain` and `Disable` back.
    Enable,
    /// Out of service.
    Disable,
    /// Another share of new flows; `None`: that of the configuration again.
    Weight(Option<u16>),
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drain => f.write_str("drain"),
            Self::Enable => f.write_str("enable"),
            Self::Disable => f.write_str("disable"),
            Self::Weight(Some(weight)) => write!(f, "weight {weight}"),
            Self::Weight(None) => f.write_str("weight configured"),
        }
    }
}

/// What the operator has said of one backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// Whether it takes new flows.
    #[serde(rename = "admin")]
    pub administration: Administration,
    /// Its share of new flows, instead of the configuration's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it was said.
    pub since: UnixTime,
    /// When `administration` is over, if it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<UnixTime>,
    /// When the configuration had the backend last.
    pub last_seen: UnixTime,
}

impl Override {
    /// Whether it says anything that the configuration does not.
    fn is_idle(&self) -> bool {
        self.administration == Administration::Enabled && self.weight.is_none()
    }
}

/// All overrides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides(BTreeMap<Key, Override>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    service: String,
    /// As it is listed: `10.0.0.1:8080`, or without the port if the packet's is kept.
    address: String,
}

impl Key {
    fn of(snapshot: &Snapshot, backend: &Backend) -> Self {
        Self { service: snapshot.service(backend.service).name.clone(), address: backend.place() }
    }
}

/// The file that they are kept in.
#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    overrides: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    service: String,
    address: String,
    #[serde(flatten)]
    said: Override,
}

/// Version of the file.
const VERSION: u32 = 1;

impl Overrides {
    /// Reads what [`Self::to_text`] has written.
    ///
    /// # Errors
    /// It is something else: a sentence.
    pub fn from_text(text: &str) -> Result<Self, String> {
        let file: File = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if file.version != VERSION {
            return Err(format!("it is in version {}, and this is a tungate for version {VERSION}", file.version));
        }
        let entry = |Entry { service, address, said }| (Key { service, address }, said);
        Ok(Self(file.overrides.into_iter().map(entry).collect()))
    }

    /// All of them, to be kept over a restart.
    pub fn to_text(&self) -> String {
        let entry = |(key, said): (&Key, &Override)| Entry {
            service: key.service.clone(),
            address: key.address.clone(),
            said: said.clone(),
        };
        let file = File { version: VERSION, overrides: self.0.iter().map(entry).collect() };
        serde_json::to_string_pretty(&file).expect("our own types have string keys and no failing serializer") + "\n"
    }

    /// Whether nothing is said of any backend.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is said of each backend of which anything is, those included that the configuration has not.
    pub fn all(&self) -> impl Iterator<Item = &Override> {
        self.0.values()
    }

    /// What was said of this backend, if anything.
    pub(super) fn of(&self, snapshot: &Snapshot, backend: &Backend) -> Option<&Override> {
        if self.0.is_empty() { None } else { self.0.get(&Key::of(snapshot, backend)) }
    }

    /// The operator says something; `lasting` is how long `Drain` and `Disable` last.
    pub(super) fn say(
        &mut self,
        (snapshot, backend): (&Snapshot, &Backend),
        operation: &Operation,
        reason: Option<String>,
        lasting: Option<Duration>,
        now: UnixTime,
    ) {
        let key = Key::of(snapshot, backend);
        let said = self.0.entry(key.clone()).or_default();
        match operation {
            Operation::Drain => said.administration = Administration::Drain,
            Operation::Enable => said.administration = Administration::Enabled,
            Operation::Disable => said.administration = Administration::Disabled,
            Operation::Weight(weight) => said.weight = *weight,
        }
        if !matches!(operation, Operation::Weight(_)) {
            said.until = lasting.map(|lasting| now.saturating_add(lasting.as_secs()));
        }
        if reason.is_some() || !matches!(operation, Operation::Weight(_)) {
            said.reason = reason;
        }
        (said.since, said.last_seen) = (now, now);
        if said.is_idle() {
            self.0.remove(&key);
        }
    }

    /// Takes back what is over by now: true if something was.
    pub(super) fn expire(&mut self, now: UnixTime) -> bool {
        let mut changed = false;
        let over = |said: &Override| said.until.is_some_and(|until| until <= now);
        for (Key { service, address }, said) in self.0.iter_mut().filter(|(_, said)| over(said)) {
            log::info!(service, address, was = said.administration.name(); "what the operator said is over");
            (said.administration, said.until, said.reason, said.since) = (Administration::Enabled, None, None, now);
            changed = true;
        }
        self.0.retain(|_, said| !said.is_idle());
        changed
    }

    /// When the next one is over.
    pub(super) fn next_expiry(&self) -> Option<UnixTime> {
        self.0.values().filter_map(|said| said.until).min()
    }

    /// Takes note of who is there, and forgets those that have been gone for too long: true if somebody was.
    pub(super) fn see(&mut self, snapshot: &Snapshot, now: UnixTime) -> bool {
        if self.0.is_empty() {
            return false;
        }
        for backend in &snapshot.backends {
            if let Some(said) = self.0.get_mut(&Key::of(snapshot, backend)) {
                said.last_seen = now;
            }
        }
        let before = self.0.len();
        self.0.retain(|_, said| now.saturating_sub(said.last_seen) <= KEPT_WITHOUT_BACKEND.as_secs());
        self.0.len() != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    fn snapshot(backends: &str) -> Snapshot {
        let text =
            format!("[[service]]\nname = 'web'\nlisten = '192.0.2.1:80'\nsource-nat = false\nbackends = [{backends}]");
        load(&text, "test.toml", None, "gw").unwrap_or_else(|report| panic!("{report}"))
    }

    const NOW: UnixTime = 1_800_000_000;

    fn drained() -> (Snapshot, Overrides) {
        let snapshot = snapshot("{ name = 'b1', address = '10.0.0.1:80' }, { address = '10.0.0.2' }");
        let mut overrides = Overrides::default();
        let reason = Some("kernel update".to_owned());
        let lasting = Some(Duration::from_secs(600));
        overrides.say((&snapshot, &snapshot.backends[0]), &Operation::Drain, reason, lasting, NOW);
        (snapshot, overrides)
    }

    #[test]
    fn what_is_written_is_read_again() {
        let (_, overrides) = drained();
        assert_eq!(Overrides::from_text(&overrides.to_text()), Ok(overrides));
        assert!(Overrides::from_text("{\"version\":2,\"overrides\":[]}").unwrap_err().contains("version 2"));
        assert!(Overrides::from_text("half a fi").is_err());
    }

    #[test]
    fn it_is_the_address_that_is_drained_whatever_its_name() {
        let (_, overrides) = drained();
        let renamed = snapshot("{ name = 'other', address = '10.0.0.1:80' }, { name = 'b1', address = '10.0.0.9:80' }");
        assert!(overrides.of(&renamed, &renamed.backends[0]).is_some());
        assert!(overrides.of(&renamed, &renamed.backends[1]).is_none());
    }

    #[test]
    fn it_ends_by_itself_and_leaves_the_weight() {
        let (snapshot, mut overrides) = drained();
        overrides.say((&snapshot, &snapshot.backends[0]), &Operation::Weight(Some(7)), None, None, NOW + 1);
        assert_eq!(overrides.next_expiry(), Some(NOW + 600));
        assert!(!overrides.expire(NOW + 599));
        let said = |overrides: &Overrides| overrides.of(&snapshot, &snapshot.backends[0]).cloned();
        assert_eq!(said(&overrides).unwrap().reason.as_deref(), Some("kernel update"), "a weight changes no reason");
        assert!(overrides.expire(NOW + 600));
        let left = said(&overrides).unwrap();
        assert_eq!((left.administration, left.weight, left.reason), (Administration::Enabled, Some(7), None));
        overrides.say((&snapshot, &snapshot.backends[0]), &Operation::Weight(None), None, None, NOW + 601);
        assert_eq!(overrides, Overrides::default());
    }

    #[test]
    fn what_has_no_backend_is_forgotten_after_a_week() {
        let (here, mut overrides) = drained();
        let (gone, week) = (snapshot(""), KEPT_WITHOUT_BACKEND.as_secs());
        assert!(!overrides.see(&here, NOW + 9 * week), "its backend is there");
        assert!(!overrides.see(&gone, NOW + 10 * week));
        assert!(overrides.see(&gone, NOW + 10 * week + 1));
        assert_eq!(overrides, Overrides::default());
    }
}
