//! What the answers in a row say of a backend.

/// Whether a backend serves, and how sure that is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Not asked yet.
    #[default]
    Unknown,
    /// It does, though the last so many answers were bad.
    Up {
        /// Below `fall`.
        bad: u16,
    },
    /// It does not, though the last so many answers were good.
    Down {
        /// Below `rise`.
        good: u16,
    },
}

impl Verdict {
    /// After one more answer. The first of all decides by itself: nobody shall wait for news of a start.
    #[must_use]
    pub fn after(self, good_answer: bool, rise: u16, fall: u16) -> Self {
        match (self, good_answer) {
            (Self::Unknown | Self::Up { .. }, true) => Self::Up { bad: 0 },
            (Self::Unknown | Self::Down { .. }, false) => Self::Down { good: 0 },
            (Self::Up { bad }, false) if bad + 1 < fall => Self::Up { bad: bad + 1 },
            (Self::Up { .. }, false) => Self::Down { good: 0 },
            (Self::Down { good }, true) if good + 1 < rise => Self::Down { good: good + 1 },
            (Self::Down { .. }, true) => Self::Up { bad: 0 },
        }
    }

    /// The same, but the next answer decides by itself: it is one to another question.
    #[must_use]
    pub const fn in_doubt(self, rise: u16, fall: u16) -> Self {
        match self {
            Self::Unknown => self,
            Self::Up { .. } => Self::Up { bad: fall.saturating_sub(1) },
            Self::Down { .. } => Self::Down { good: rise.saturating_sub(1) },
        }
    }

    /// Whether it serves; `None` if nobody knows yet.
    pub const fn is_up(self) -> Option<bool> {
        match self {
            Self::Unknown => None,
            Self::Up { .. } => Some(true),
            Self::Down { .. } => Some(false),
        }
    }
}
