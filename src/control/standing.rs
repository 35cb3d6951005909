//! What a backend is for new flows, and why.

use serde::{Deserialize, Serialize};

use super::overrides::Override;
use crate::engine::Instant;

/// Whether the configuration still has a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Presence {
    /// It has.
    Present,
    /// A reload removed it; its flows drain.
    Removed,
}

/// What the operator says of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Administration {
    /// Takes new flows.
    #[default]
    Enabled,
    /// No new flows; those there are go on.
    Drain,
    /// Out of service: no new flows, and its health does not matter. Those there are go on unless they are cut.
    Disabled,
}

impl Administration {
    /// The name in listings and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Drain => "drain",
            Self::Disabled => "disabled",
        }
    }
}

/// What health checks say of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// It answers.
    Up,
    /// It does not.
    Down,
    /// Nobody has asked, or there is no answer yet.
    #[default]
    Unknown,
}

impl Health {
    /// All of them, in order.
    pub const ALL: [Self; 3] = [Self::Up, Self::Down, Self::Unknown];

    /// The name in listings and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Unknown => "unknown",
        }
    }
}

/// What was seen of a backend last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Whether it answers.
    pub health: Health,
    /// Why, in a few words: `connect timeout`, `HTTP 503`.
    pub reason: Option<String>,
    /// Since when it is so.
    pub since: Instant,
}

/// The three columns of a backend, and what follows from them.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// What the configuration says: whether it is there.
    pub presence: Presence,
    /// What the configuration says: its share of new flows relative to the others.
    pub configured_weight: u16,
    /// What the operator has said, if anything.
    pub overridden: Option<&'a Override>,
    /// What was seen of it, if anybody looked.
    pub observed: Option<&'a Observed>,
}

impl Standing<'_> {
    /// What the operator says of it.
    pub fn administration(&self) -> Administration {
        self.overridden.map_or_else(Administration::default, |said| said.administration)
    }

    /// What health checks say of it.
    pub fn health(&self) -> Health {
        self.observed.map_or_else(Health::default, |observed| observed.health)
    }

    /// Its share among those that take new flows, whether it is one of them or not.
    pub fn weight(&self) -> u16 {
        self.overridden.and_then(|said| said.weight).unwrap_or(self.configured_weight)
    }

    /// The share of new flows that configuration and operator want it to have, 0 for none.
    pub fn wanted(&self) -> u16 {
        let takes = self.presence == Presence::Present && self.administration() == Administration::Enabled;
        if takes { self.weight() } else { 0 }
    }

    /// That share if it is not down. Backup backends get theirs only when no other does, and where too few are up, health
    /// does not count.
    pub fn share(&self) -> u16 {
        if self.health() == Health::Down { 0 } else { self.wanted() }
    }
}
