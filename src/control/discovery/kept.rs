//! What sources have said, over a restart: a gateway that starts while its registry is down serves the backends that it
//! had.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Source, Sources};
use crate::config::{Found, Snapshot};
use crate::control::overrides::UnixTime;

/// Of an older set nothing is known any more: somebody else may have the addresses.
const TOO_OLD: Duration = Duration::from_secs(7 * 24 * 3600);
/// Version of the file.
const VERSION: u32 = 1;

/// The last good set of each source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept(Vec<Set>);

/// The last good set of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Set {
    service: String,
    /// As it is listed: `file /etc/tungate/web.toml`. Another one has found other backends.
    source: String,
    good_at: UnixTime,
    backends: Vec<Found>,
}

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    sources: Vec<Set>,
}

impl Kept {
    /// Reads what [`Self::to_text`] has written.
    ///
    /// # Errors
    /// It is something else: a sentence.
    pub fn from_text(text: &str) -> Result<Self, String> {
        let file: File = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if file.version != VERSION {
            return Err(format!("it is in version {}, and this is a tungate for version {VERSION}", file.version));
        }
        Ok(Self(file.sources))
    }

    /// All of it, to be kept over a restart.
    pub fn to_text(&self) -> String {
        let file = File { version: VERSION, sources: self.0.clone() };
        serde_json::to_string(&file).expect("our own types have string keys and no failing serializer") + "\n"
    }
}

impl Sources {
    /// What is to be kept. An empty set is worth nothing: without one there are no backends either.
    pub fn to_keep(&self, snapshot: &Snapshot) -> Kept {
        let set = |(service, source): (_, &Source)| {
            let service = snapshot.service(service).name.clone();
            let (good_at, backends) = (source.good_at?, source.found.clone());
            Some(Set { service, source: source.config.source.to_string(), good_at, backends })
        };
        Kept(self.all().filter_map(set).filter(|set| !set.backends.is_empty()).collect())
    }

    /// Takes what was kept for the sources that have said nothing yet; it is stale until they do. True if there are other
    /// backends now.
    pub fn restore(&mut self, kept: Kept, snapshot: &Snapshot, time: UnixTime) -> bool {
        let mut changed = false;
        for set in kept.0 {
            let wanted = |(id, source): (&_, &Source)| {
                snapshot.service(*id).name == set.service && source.config.source.to_string() == set.source
            };
            let known = self.0.iter_mut().find(|(id, source)| wanted((id, source)));
            let Some((_, source)) = known.filter(|(_, source)| source.good_at.is_none()) else { continue };
            let age = Duration::from_secs(time.saturating_sub(set.good_at));
            if age > TOO_OLD {
                log::warn!(source:% = set.source, days = age.as_secs() / 86_400; "what was found is too old to be used");
                continue;
            }
            log::info!(source:% = set.source, backends = set.backends.len(), seconds = age.as_secs();
                "what was found before the start is used until it answers");
            source.good_at = Some(set.good_at);
            source.error.get_or_insert_with(|| "it has not answered since the start".to_owned());
            source.found = set.backends;
            changed = true;
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{load, read_backends};
    use crate::control::discovery::State;
    use crate::engine::Instant;

    const NOW: UnixTime = 1_800_000_000;

    fn snapshot(path: &str) -> Snapshot {
        let text = format!(
            "[[service]]\nname = 'web'\nlisten = '192.0.2.1:80'\nsource-nat = false\nbackends = []\n\
             [service.discovery]\nsource = 'file'\npath = '{path}'\n"
        );
        load(&text, "test.toml", None, "gw").unwrap_or_else(|report| panic!("{report}"))
    }

    /// The sources of that configuration, and what the first of them says.
    fn asked(snapshot: &Snapshot, says: Option<&str>) -> Sources {
        let mut sources = Sources::default();
        sources.follow(snapshot);
        if let Some(says) = says {
            hears(&mut sources, says);
        }
        sources
    }

    fn hears(sources: &mut Sources, says: &str) -> bool {
        let (id, asked) = sources.wanted().map(|(id, asked)| (id, asked.clone())).next().unwrap();
        sources.hear(id, &asked, read_backends(says, false), Instant::from_micros(1), NOW)
    }

    fn source(sources: &Sources) -> (State, usize) {
        let (_, source) = sources.all().next().unwrap();
        (source.state(), source.backends())
    }

    const TWO: &str =
        "backends = [{ name = 'b1', address = '10.0.0.1:80', weight = 3 }, { address = 'fd00::1', backup = true }]";

    #[test]
    fn what_was_found_is_there_after_a_restart_and_stale_until_confirmed() {
        let snapshot = snapshot("/tmp/web.toml");
        let kept = asked(&snapshot, Some(TWO)).to_keep(&snapshot);
        assert_eq!(Kept::from_text(&kept.to_text()).as_ref(), Ok(&kept));
        let mut sources = asked(&snapshot, None);
        assert_eq!(source(&sources), (State::Failed, 0));
        assert!(sources.restore(kept.clone(), &snapshot, NOW + 60));
        assert_eq!(source(&sources), (State::Stale, 2));
        assert!(!hears(&mut sources, "half a fi"));
        assert_eq!(source(&sources), (State::Stale, 2));
        assert!(!hears(&mut sources, TWO), "the same again");
        assert_eq!(source(&sources), (State::Fresh, 2));
        assert!(!sources.restore(kept, &snapshot, NOW + 60), "it knows better");
    }

    #[test]
    fn what_is_too_old_or_of_another_source_is_not_used() {
        let (one, other) = (snapshot("/tmp/web.toml"), snapshot("/tmp/other.toml"));
        let kept = asked(&one, Some(TWO)).to_keep(&one);
        assert!(!asked(&one, None).restore(kept.clone(), &one, NOW + 8 * 86_400));
        assert!(!asked(&other, None).restore(kept.clone(), &other, NOW));
        assert!(asked(&one, None).restore(kept, &one, NOW + 6 * 86_400));
        assert_eq!(asked(&one, Some("backends = []")).to_keep(&one), Kept::default());
        assert!(Kept::from_text("{\"version\":2,\"sources\":[]}").unwrap_err().contains("version 2"));
        assert!(Kept::from_text("half a fi").is_err());
    }
}
