//! The configurations that were in force, and the last one that was refused.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::overrides::UnixTime;

/// Configurations that are kept.
const KEPT: usize = 10;
/// Their texts together are kept below this, bytes, but for the one in force.
const MOST_TEXT: usize = 8 << 20;
/// Version of the file.
const VERSION: u32 = 1;

/// A configuration as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its file, for messages.
    pub file: String,
    /// Its text.
    pub text: String,
}

/// Why a configuration was put in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The daemon was started with it.
    Start,
    /// `reload`, or SIGHUP.
    Reload,
    /// `rollback`.
    Rollback,
    /// The one after it was not confirmed in time.
    Unconfirmed,
}

impl Cause {
    /// The name in listings and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Reload => "reload",
            Self::Rollback => "rollback",
            Self::Unconfirmed => "unconfirmed",
        }
    }
}

/// A configuration that was put in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// When.
    pub at: UnixTime,
    /// Why.
    pub cause: Cause,
    /// What.
    #[serde(flatten)]
    pub source: Source,
}

/// A configuration that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// When.
    pub at: UnixTime,
    /// What.
    pub source: Source,
    /// What is wrong with it.
    pub report: String,
}

/// The configurations that were in force, the one that is first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History(VecDeque<Applied>);

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    applied: VecDeque<Applied>,
}

impl History {
    /// Reads what [`Self::to_text`] has written.
    ///
    /// # Errors
    /// It is something else: a sentence.
    pub fn from_text(text: &str) -> Result<Self, String> {
        let file: File = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if file.version != VERSION {
            return Err(format!("it is in version {}, and this is a tungate for version {VERSION}", file.version));
        }
        Ok(Self(file.applied))
    }

    /// All of them, to be kept over a restart.
    pub fn to_text(&self) -> String {
        let file = File { version: VERSION, applied: self.0.clone() };
        serde_json::to_string(&file).expect("our own types have string keys and no failing serializer") + "\n"
    }

    /// All of them, the one in force first.
    pub fn iter(&self) -> impl Iterator<Item = &Applied> {
        self.0.iter()
    }

    /// The one that was in force so many changes ago; 0 is the one that is.
    pub fn back(&self, steps: usize) -> Option<&Applied> {
        self.0.get(steps)
    }

    /// Another one is in force. The same again is no change.
    pub(super) fn push(&mut self, applied: Applied) {
        if self.0.front().is_some_and(|before| before.source == applied.source) {
            return;
        }
        self.0.push_front(applied);
        self.0.truncate(KEPT);
        let size = |all: &VecDeque<Applied>| all.iter().map(|applied| applied.source.text.len()).sum::<usize>();
        while self.0.len() > 1 && size(&self.0) > MOST_TEXT {
            self.0.pop_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(n: u64, text: String) -> Applied {
        Applied { at: n, cause: Cause::Reload, source: Source { file: "tungate.toml".into(), text } }
    }

    #[test]
    fn ten_are_kept_and_the_same_again_is_none() {
        let mut history = History::default();
        for n in [0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 12] {
            history.push(applied(n, n.to_string()));
        }
        assert_eq!(history.iter().map(|applied| applied.at).collect::<Vec<_>>(), [12, 11, 10, 9, 8, 7, 6, 5, 4, 3]);
        assert_eq!(History::from_text(&history.to_text()), Ok(history));
    }

    #[test]
    fn large_ones_are_fewer() {
        let mut history = History::default();
        for n in 0..5 {
            history.push(applied(n, n.to_string().repeat(3 << 20)));
        }
        assert_eq!(history.iter().count(), 2);
        history.push(applied(9, "9".repeat(9 << 20)));
        assert_eq!(history.iter().count(), 1, "the one in force, whatever its size");
    }
}
