//! What sources say of backends, and what is made of it: a source that is down, or says something unlikely, empties no
//! pool.
//!
//! - A source that fails changes nothing: the last good set stays, and is called stale.
//! - What is new in an answer is taken at once, and so is what is gone, as long as that is not more than half of the pool
//!   (as Envoy's panic threshold has it).
//! - An answer without more than half of the pool, an empty one above all, has to be repeated, [`CONFIRM_AFTER`] later or
//!   more, and no other answer may come between: until then what is gone stays.
//! - What was found last is [`Kept`] over a restart, and called stale until its source has answered.

mod kept;

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use super::overrides::UnixTime;
use crate::config::{Discovery, Found, ServiceId, Snapshot};
use crate::engine::Instant;

pub use kept::Kept;

/// How long an unlikely answer has to last. HAProxy holds what DNS no longer says for 0 s by default, and its manual
/// advises more; the shortest outages of resolvers and registries are restarts, of a few seconds.
pub const CONFIRM_AFTER: Duration = Duration::from_secs(5);

/// What a source has answered: its backends, or why there are none to tell.
pub type Answer = Result<Vec<Found>, String>;

/// The sources of all services.
#[derive(Debug, Default)]
pub struct Sources(BTreeMap<ServiceId, Source>);

/// What one service's source has said.
#[derive(Clone, Debug)]
pub struct Source {
    config: Discovery,
    /// The last good set, and what stays of the one before.
    found: Vec<Found>,
    /// When the last good answer came, perhaps before a restart.
    good_at: Option<UnixTime>,
    /// Why there was none since.
    error: Option<String>,
    /// Found, and cannot be backends.
    refused: Option<String>,
    doubt: Option<Doubt>,
}

/// An answer without more than half of the pool.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    since: Instant,
    /// How many backends there were before.
    of: usize,
}

/// How much a source can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its last answer was good.
    Fresh,
    /// It was not, but one before was: that is gone by.
    Stale,
    /// There was no good answer yet.
    Failed,
}

impl State {
    /// The name in listings and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Failed => "failed",
        }
    }
}

impl Sources {
    /// Asks what this configuration wants asked. A service whose source is another one now keeps what it has until that
    /// has answered. True if something else is to be asked than before.
    pub fn follow(&mut self, snapshot: &Snapshot) -> bool {
        let wanted = || snapshot.services.iter().filter_map(|service| Some((service.id, service.discovery.as_ref()?)));
        let before = self.0.len();
        self.0.retain(|id, _| wanted().any(|(wanted, _)| wanted == *id));
        let mut changed = self.0.len() != before;
        for (id, config) in wanted() {
            match self.0.get_mut(&id) {
                Some(source) if source.config == *config => {}
                Some(source) => {
                    source.config = config.clone();
                    source.error = Some("it has not answered yet".to_owned());
                    changed = true;
                }
                None => {
                    self.0.insert(id, Source::new(config.clone()));
                    changed = true;
                }
            }
        }
        changed
    }

    /// What is to be asked.
    pub fn wanted(&self) -> impl Iterator<Item = (ServiceId, &Discovery)> {
        self.0.iter().map(|(id, source)| (*id, &source.config))
    }

    /// Each service's source.
    pub fn all(&self) -> impl Iterator<Item = (ServiceId, &Source)> {
        self.0.iter().map(|(id, source)| (*id, source))
    }

    /// The backends that a service has by discovery.
    pub fn found(&self, service: ServiceId) -> &[Found] {
        self.0.get(&service).map_or(&[], |source| &source.found)
    }

    /// Takes an answer of what was asked; true if it changes the backends. One that comes late, from a source that is not
    /// asked any more, is ignored. `time` is the time of day.
    pub fn hear(
        &mut self,
        service: ServiceId,
        asked: &Discovery,
        answer: Answer,
        now: Instant,
        time: UnixTime,
    ) -> bool {
        let source = self.0.get_mut(&service).filter(|source| source.config == *asked);
        source.is_some_and(|source| source.hear(answer, now, time))
    }

    /// Takes note of what was found and cannot be used, of each service.
    pub(super) fn refuse(&mut self, refused: &[(ServiceId, String)]) {
        for (id, source) in &mut self.0 {
            let of_this = refused.iter().filter(|(service, _)| service == id).map(|(_, why)| why.as_str());
            let told = of_this.collect::<Vec<_>>().join("; ");
            let told = (!told.is_empty()).then_some(told);
            if let Some(why) = told.as_ref().filter(|_| told != source.refused) {
                log::warn!(source:% = source.config.source; "found, but not used: {why}");
            }
            source.refused = told;
        }
    }
}

impl Source {
    const fn new(config: Discovery) -> Self {
        Self { config, found: Vec::new(), good_at: None, error: None, refused: None, doubt: None }
    }

    /// What is asked.
    pub const fn config(&self) -> &Discovery {
        &self.config
    }

    /// How much it can be relied on.
    pub const fn state(&self) -> State {
        match (self.good_at, &self.error) {
            (None, _) => State::Failed,
            (Some(_), None) => State::Fresh,
            (Some(_), Some(_)) => State::Stale,
        }
    }

    /// When the last good answer came.
    pub const fn good_at(&self) -> Option<UnixTime> {
        self.good_at
    }

    /// How many backends it has given.
    pub const fn backends(&self) -> usize {
        self.found.len()
    }

    /// What is wrong with it, or with what it says.
    pub fn problem(&self) -> Option<&str> {
        self.error.as_deref().or(self.refused.as_deref())
    }

    fn hear(&mut self, answer: Answer, now: Instant, time: UnixTime) -> bool {
        let mut list = match answer {
            Ok(list) => list,
            Err(why) => {
                if self.error.as_ref() != Some(&why) {
                    log::warn!(source:% = self.config.source, backends = self.found.len(); "no answer, the pool stays: {why}");
                }
                self.error = Some(why);
                self.doubt = None;
                return false;
            }
        };
        if self.error.take().is_some() {
            log::info!(source:% = self.config.source; "it answers again");
        }
        self.good_at = Some(time);
        let listed: HashSet<_> = list.iter().map(Found::place).collect();
        let gone: Vec<_> = self.found.iter().filter(|one| !listed.contains(&one.place())).cloned().collect();
        if self.is_doubtful(&gone, now) {
            // A name that is taken by one that is new would be refused to it: the old one keeps it only if it is free.
            let names: HashSet<_> = list.iter().map(|one| one.name.clone()).collect();
            list.extend(gone.into_iter().filter(|one| !names.contains(&one.name)));
        }
        list.sort_by_key(Found::place);
        if list == self.found {
            return false;
        }
        log::info!(source:% = self.config.source, before = self.found.len(), backends = list.len(); "other backends");
        self.found = list;
        true
    }

    /// Whether an answer without these is not to be believed yet.
    fn is_doubtful(&mut self, gone: &[Found], now: Instant) -> bool {
        let of = self.doubt.map_or(self.found.len(), |doubt| doubt.of);
        if gone.len() * 2 <= of {
            self.doubt = None;
            return false;
        }
        let doubt = self.doubt.get_or_insert_with(|| {
            log::warn!(source:% = self.config.source, gone = gone.len(), backends = of; "most backends are gone: it is asked again");
            Doubt { since: now, of }
        });
        if now.since(doubt.since) < CONFIRM_AFTER {
            return true;
        }
        self.doubt = None;
        false
    }
}

#[cfg(test)]
mod tests;
