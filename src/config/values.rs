//! What a TOML table holds once it has been checked against the list of its keys.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;

use super::Rate;

/// A value and where it was written: nowhere, if it is the default.
#[derive(Clone, Debug)]
pub(super) struct Set<T> {
    pub(super) value: T,
    pub(super) span: Option<Range<usize>>,
}

/// The entries of a list that could be read.
#[derive(Clone, Debug)]
pub(super) struct List<T> {
    pub(super) items: Vec<T>,
    /// False if an entry is missing here because something is wrong with it (and has been said): then nothing can be
    /// said about what the list lacks.
    pub(super) whole: bool,
    /// Where the list was written.
    pub(super) span: Option<Range<usize>>,
}

impl<T> List<T> {
    /// A list of which nothing could be read.
    pub(super) fn broken() -> Self {
        Self { items: Vec::new(), whole: false, span: None }
    }

    /// The same list of something else.
    pub(super) fn map<U>(self, each: impl FnMut(T) -> U) -> List<U> {
        List { items: self.items.into_iter().map(each).collect(), whole: self.whole, span: self.span }
    }
}

/// The values of one table, each of the kind that its key lists, defaults included. Taken out one by one; a key that the
/// list does not have, or has with another kind, is a bug that the first test to load anything finds.
#[derive(Debug)]
pub(super) struct Values {
    /// The table, or its header.
    pub(super) span: Range<usize>,
    pub(super) found: HashMap<&'static str, Value>,
}

/// A value that fits its kind.
#[derive(Debug)]
pub(super) enum Value {
    Text(Set<String>),
    Flag(Set<bool>),
    Integer(Set<i64>),
    Duration(Set<Duration>),
    Rate(Set<Rate>),
    Word(Set<&'static str>),
    Texts(List<Spanned<String>>),
    Table(Values),
    Tables(List<Values>),
}

impl Values {
    pub(super) fn text(&mut self, key: &str) -> Option<Set<String>> {
        let Value::Text(text) = self.found.remove(key)? else { unreachable!("`{key}` is not listed as text") };
        Some(text)
    }

    pub(super) fn flag(&mut self, key: &str) -> Set<bool> {
        let Some(Value::Flag(flag)) = self.found.remove(key) else { unreachable!("`{key}` is no flag with a default") };
        flag
    }

    pub(super) fn integer(&mut self, key: &str) -> Set<i64> {
        let Some(Value::Integer(integer)) = self.found.remove(key) else {
            unreachable!("`{key}` is no integer with a default")
        };
        integer
    }

    /// The integer, or nothing for the word that may stand in its place.
    pub(super) fn integer_or_word(&mut self, key: &str) -> Option<i64> {
        if let Value::Integer(integer) = self.found.remove(key)? { Some(integer.value) } else { None }
    }

    pub(super) fn duration(&mut self, key: &str) -> Set<Duration> {
        let Some(Value::Duration(duration)) = self.found.remove(key) else {
            unreachable!("`{key}` is no duration with a default")
        };
        duration
    }

    /// The integer, if it was written.
    pub(super) fn integer_if_any(&mut self, key: &str) -> Option<Set<i64>> {
        let Value::Integer(integer) = self.found.remove(key)? else { unreachable!("`{key}` is not listed as integer") };
        Some(integer)
    }

    /// The duration, if it was written.
    pub(super) fn duration_if_any(&mut self, key: &str) -> Option<Set<Duration>> {
        let Value::Duration(duration) = self.found.remove(key)? else {
            unreachable!("`{key}` is not listed as a duration")
        };
        Some(duration)
    }

    pub(super) fn rate(&mut self, key: &str) -> Option<Set<Rate>> {
        let Value::Rate(rate) = self.found.remove(key)? else { unreachable!("`{key}` is not listed as a rate") };
        Some(rate)
    }

    pub(super) fn word(&mut self, key: &str) -> Option<Set<&'static str>> {
        let Value::Word(word) = self.found.remove(key)? else { unreachable!("`{key}` is not listed as a word") };
        Some(word)
    }

    pub(super) fn texts(&mut self, key: &str) -> List<Spanned<String>> {
        let Some(value) = self.found.remove(key) else { return List::broken() };
        let Value::Texts(list) = value else { unreachable!("`{key}` is not listed as a list of text") };
        list
    }

    pub(super) fn table(&mut self, key: &str) -> Self {
        let Some(Value::Table(table)) = self.found.remove(key) else {
            unreachable!("`{key}` is not listed as a table")
        };
        table
    }

    pub(super) fn tables(&mut self, key: &str) -> List<Self> {
        let Some(value) = self.found.remove(key) else { return List::broken() };
        let Value::Tables(list) = value else { unreachable!("`{key}` is not listed as tables") };
        list
    }

    /// To be called when all are taken: a key that is listed is also read.
    pub(super) fn all_read(&self) {
        debug_assert!(self.found.is_empty(), "listed, but not read: {:?}", self.found.keys());
    }
}

impl Value {
    /// Nobody wrote it: it is a default.
    pub(super) fn without_place(mut self) -> Self {
        match &mut self {
            Self::Text(set) => set.span = None,
            Self::Flag(set) => set.span = None,
            Self::Integer(set) => set.span = None,
            Self::Duration(set) => set.span = None,
            Self::Rate(set) => set.span = None,
            Self::Word(set) => set.span = None,
            Self::Texts(list) => list.span = None,
            Self::Table(_) | Self::Tables(_) => {}
        }
        self
    }
}
