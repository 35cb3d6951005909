//! TOML to [`Values`]: unknown and missing keys, types, limits.
//!
//! Not serde's derive: that stops at the first wrong value, and the errors of a file are to be reported all at once.

use std::collections::HashMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::diagnostic::{Code, Diagnostic};
use super::keys::{Absent, Key, Kind, Word};
use super::text::{self, grouped};
use super::values::{List, Set, Value, Values};

/// Reads a table against the list of its keys; what does not fit becomes a diagnostic. `place` names the table in
/// messages, as "`[gateway]`".
pub(super) fn read(
    table: &DeTable<'_>,
    span: Range<usize>,
    keys: &'static [Key],
    place: &str,
    out: &mut Vec<Diagnostic>,
) -> Values {
    let unknown = table.keys().filter(|name| keys.iter().all(|key| key.name != name.get_ref()));
    let unknown: Vec<_> =
        unknown.map(|name| (name, similar(name.get_ref(), keys.iter().map(|key| key.name)))).collect();
    out.extend(unknown.iter().map(|(name, meant)| unknown_key(name, *meant, keys, place)));

    let mut found = HashMap::new();
    for key in keys {
        let value = match (table.get_key_value(key.name), key.absent) {
            (Some((name, value)), _) => Slot { key, name: name.span(), span: value.span(), out }.read(value.get_ref()),
            (None, _) if unknown.iter().any(|(_, meant)| *meant == Some(key.name)) => stand_in(key),
            (None, Absent::Refused(example)) => {
                out.push(missing_key(key, example, span.clone(), place));
                None
            }
            (None, Absent::Default(_) | Absent::Depends) => default(key),
        };
        found.extend(value.map(|value| (key.name, value)));
    }
    Values { span, found }
}

/// One value and the key it was given to.
struct Slot<'a> {
    key: &'static Key,
    name: Range<usize>,
    span: Range<usize>,
    out: &'a mut Vec<Diagnostic>,
}

impl Slot<'_> {
    fn read(mut self, value: &DeValue<'_>) -> Option<Value> {
        self.fit(value).or_else(|| stand_in(self.key))
    }

    fn fit(&mut self, value: &DeValue<'_>) -> Option<Value> {
        match &self.key.kind {
            Kind::Text => self.text(value),
            Kind::Flag => self.flag(value),
            Kind::Integer(least, most) => self.integer(value, *least, *most, "an integer"),
            Kind::IntegerOr(_, _, word) if value.as_str() == Some(word) => Some(Value::Word(self.set(*word))),
            Kind::IntegerOr(least, most, word) => {
                self.integer(value, *least, *most, &format!("an integer or \"{word}\""))
            }
            Kind::Duration => self.duration(value),
            Kind::Rate => self.rate(value),
            Kind::Word(words) => self.word(value, words),
            Kind::TextList => self.texts(value, "a list of strings"),
            Kind::TextOrList => match value.as_str() {
                Some(text) => {
                    let items = vec![Spanned::new(self.span.clone(), text.to_string())];
                    Some(Value::Texts(List { items, whole: true, span: Some(self.span.clone()) }))
                }
                None => self.texts(value, "a string or a list of strings"),
            },
            Kind::TextOrInteger => {
                match value.as_integer().and_then(|n| i64::from_str_radix(n.as_str(), n.radix()).ok()) {
                    Some(number) => Some(Value::Text(self.set(number.to_string()))),
                    None if value.as_str().is_none() => self.wrong_type(value, "a string or an integer"),
                    None => self.text(value),
                }
            }
            Kind::Table { keys, place } => self.table(value, keys, place),
            Kind::Tables { keys, place, example } => self.tables(value, keys, place, example),
            Kind::Later(meanwhile) => {
                self.out.push(not_available(&format!("`{}`", self.key.name), self.name.clone(), meanwhile));
                None
            }
        }
    }

    fn set<T>(&self, value: T) -> Set<T> {
        Set { value, span: Some(self.span.clone()) }
    }

    fn text(&mut self, value: &DeValue<'_>) -> Option<Value> {
        let Some(text) = value.as_str() else { return self.wrong_type(value, "a string") };
        Some(Value::Text(self.set(text.to_string())))
    }

    fn flag(&mut self, value: &DeValue<'_>) -> Option<Value> {
        let Some(flag) = value.as_bool() else { return self.wrong_type(value, "true or false") };
        Some(Value::Flag(self.set(flag)))
    }

    fn integer(&mut self, value: &DeValue<'_>, least: i64, most: i64, takes: &str) -> Option<Value> {
        let Some(number) = value.as_integer() else { return self.wrong_type(value, takes) };
        let fits = i64::from_str_radix(number.as_str(), number.radix()).ok().filter(|n| (least..=most).contains(n));
        let Some(number) = fits else {
            let limits = format!("between {} and {}", grouped(least), grouped(most));
            let message = format!("`{}` has to be {limits}", self.key.name);
            self.out.push(Diagnostic::new(Code::OutOfRange, self.span.clone(), message).label("outside"));
            return None;
        };
        Some(Value::Integer(self.set(number)))
    }

    fn duration(&mut self, value: &DeValue<'_>) -> Option<Value> {
        let Some(written) = value.as_str() else { return self.wrong_type(value, "a duration") };
        match text::duration(written) {
            Ok(duration) => Some(Value::Duration(self.set(duration))),
            Err(problem) => {
                self.out.push(problem.at(self.span.clone()));
                None
            }
        }
    }

    fn rate(&mut self, value: &DeValue<'_>) -> Option<Value> {
        let Some(written) = value.as_str() else { return self.wrong_type(value, "a rate") };
        match text::rate(written) {
            Ok(rate) => Some(Value::Rate(self.set(rate))),
            Err(problem) => {
                self.out.push(problem.at(self.span.clone()));
                None
            }
        }
    }

    fn word(&mut self, value: &DeValue<'_>, words: &'static [Word]) -> Option<Value> {
        let Some(written) = value.as_str() else { return self.wrong_type(value, "a string") };
        let Some(word) = words.iter().find(|word| word.word == written) else {
            self.out.push(unknown_value(self.key, written, words, self.span.clone()));
            return None;
        };
        if let Some(meanwhile) = word.later {
            let what = format!("`{} = \"{}\"`", self.key.name, word.word);
            self.out.push(not_available(&what, self.span.clone(), meanwhile));
            return None;
        }
        Some(Value::Word(self.set(word.word)))
    }

    fn texts(&mut self, value: &DeValue<'_>, takes: &str) -> Option<Value> {
        let Some(array) = value.as_array() else {
            return self.wrong_type(value, takes);
        };
        let mut items = Vec::with_capacity(array.len());
        for item in array.iter() {
            match item.get_ref().as_str() {
                Some(text) => items.push(Spanned::new(item.span(), text.to_string())),
                None => self.out.push(wrong_type(self.key, item.span(), item.get_ref(), "strings in its list")),
            }
        }
        Some(Value::Texts(List { whole: items.len() == array.len(), items, span: Some(self.span.clone()) }))
    }

    fn table(&mut self, value: &DeValue<'_>, keys: &'static [Key], place: &str) -> Option<Value> {
        let Some(table) = value.as_table() else { return self.wrong_type(value, "a table") };
        Some(Value::Table(read(table, self.span.clone(), keys, place, self.out)))
    }

    fn tables(&mut self, value: &DeValue<'_>, keys: &'static [Key], place: &str, example: &str) -> Option<Value> {
        let Some(array) = value.as_array() else {
            let diagnostic = wrong_type(self.key, self.span.clone(), value, "a list of tables");
            self.out.push(diagnostic.help(format!("write `{example}`")));
            return None;
        };
        let mut items = Vec::with_capacity(array.len());
        for item in array.iter() {
            match item.get_ref().as_table() {
                Some(table) => items.push(read(table, item.span(), keys, place, self.out)),
                None => {
                    let diagnostic = wrong_type(self.key, item.span(), item.get_ref(), "tables in its list");
                    self.out.push(diagnostic.help(format!("write `{example}`")));
                }
            }
        }
        Some(Value::Tables(List { whole: items.len() == array.len(), items, span: Some(self.span.clone()) }))
    }

    fn wrong_type(&mut self, value: &DeValue<'_>, takes: &str) -> Option<Value> {
        self.out.push(wrong_type(self.key, self.span.clone(), value, takes));
        None
    }
}

/// What holds when the key is absent, by the way of any written value.
fn default(key: &'static Key) -> Option<Value> {
    let mut ignored = Vec::new();
    match (&key.kind, key.absent) {
        (Kind::Table { keys, place }, _) => Some(Value::Table(read(&DeTable::new(), 0..0, keys, place, &mut ignored))),
        (Kind::Tables { .. }, Absent::Depends) => {
            Some(Value::Tables(List { items: Vec::new(), whole: true, span: None }))
        }
        (_, Absent::Default(toml)) => {
            let value = DeValue::parse(toml).expect("a default of the list is TOML");
            let mut slot = Slot { key, name: 0..0, span: value.span(), out: &mut ignored };
            slot.fit(value.get_ref()).map(Value::without_place)
        }
        (_, Absent::Depends | Absent::Refused(_)) => None,
    }
}

/// What takes the place of a value that was refused, so that all other rules can be checked: the default, except where
/// it would be a guess that those rules would complain of.
fn stand_in(key: &'static Key) -> Option<Value> {
    match &key.kind {
        Kind::Word(_) | Kind::TextList | Kind::TextOrList | Kind::Tables { .. } => None,
        Kind::Table { keys, .. } => {
            let found = keys.iter().filter_map(|key| Some((key.name, stand_in(key)?))).collect();
            Some(Value::Table(Values { span: 0..0, found }))
        }
        Kind::Text
        | Kind::Flag
        | Kind::Integer(..)
        | Kind::IntegerOr(..)
        | Kind::Duration
        | Kind::Rate
        | Kind::TextOrInteger
        | Kind::Later(_) => default(key),
    }
}

fn unknown_key(name: &Spanned<DeString<'_>>, meant: Option<&str>, keys: &[Key], place: &str) -> Diagnostic {
    let written = name.get_ref();
    let message = format!("unknown key `{}` in {place}", written.escape_debug());
    let diagnostic = Diagnostic::new(Code::UnknownKey, name.span(), message);
    let known = keys.iter().filter(|key| !matches!(key.kind, Kind::Later(_))).map(|key| key.name);
    match meant {
        Some(meant) => diagnostic.help(format!("did you mean `{meant}`?")),
        None => diagnostic.help(format!("the keys here are {}", listing(known, "`"))),
    }
}

fn missing_key(key: &Key, example: &str, span: Range<usize>, place: &str) -> Diagnostic {
    let message = format!("`{}` is missing in {place}", key.name);
    Diagnostic::new(Code::MissingKey, span, message).help(format!("add a line like `{example}`"))
}

fn not_available(what: &str, span: Range<usize>, meanwhile: &str) -> Diagnostic {
    let message = format!("{what} is not available in this version");
    Diagnostic::new(Code::NotAvailable, span, message).help(meanwhile)
}

fn unknown_value(key: &Key, written: &str, words: &[Word], span: Range<usize>) -> Diagnostic {
    let message = format!("`{}` cannot be \"{}\"", key.name, written.escape_debug());
    let diagnostic = Diagnostic::new(Code::UnknownValue, span, message);
    let known = words.iter().filter(|word| word.later.is_none()).map(|word| word.word);
    match similar(written, words.iter().map(|word| word.word)) {
        Some(similar) => diagnostic.help(format!("did you mean \"{similar}\"?")),
        None => diagnostic.help(format!("the values are {}", listing(known, "\""))),
    }
}

fn wrong_type(key: &Key, span: Range<usize>, value: &DeValue<'_>, takes: &str) -> Diagnostic {
    let is = match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    let diagnostic =
        Diagnostic::new(Code::WrongType, span, format!("`{}` takes {takes}", key.name)).label(format!("this is {is}"));
    match (&key.kind, value) {
        (Kind::Duration, DeValue::Integer(number)) => {
            diagnostic.help(format!("write the unit: \"{number}s\" or \"{number}ms\""))
        }
        (Kind::Rate, DeValue::Integer(number)) => diagnostic.help(format!("write the unit: \"{number}/s\"")),
        (Kind::Integer(..) | Kind::IntegerOr(..), DeValue::String(text)) if text.parse::<i64>().is_ok() => {
            diagnostic.help(format!("write it without quotes: {text}"))
        }
        (Kind::IntegerOr(_, _, word), DeValue::String(_)) => diagnostic.help(format!("write \"{word}\" or a number")),
        (Kind::Flag, DeValue::String(text)) if ["true", "false"].contains(&&**text) => {
            diagnostic.help(format!("write it without quotes: {text}"))
        }
        (Kind::Flag, _) => diagnostic.help("write true or false"),
        (Kind::TextList, DeValue::String(text)) => {
            diagnostic.help(format!("write a list: [\"{}\"]", text.escape_debug()))
        }
        _ => diagnostic,
    }
}

/// The candidate that was probably meant: at most a third of its letters differ, `_` and capitals aside.
fn similar<'a>(written: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if written.len() > 64 {
        return None;
    }
    let written = written.to_lowercase().replace('_', "-");
    let distance = |candidate: &str| strsim::damerau_levenshtein(&written, candidate);
    let nearest = candidates.map(|candidate| (distance(candidate), candidate)).min()?;
    (nearest.0 <= (nearest.1.len() / 3).max(1)).then_some(nearest.1)
}

/// `a`, `b` and `c`.
fn listing<'a>(items: impl Iterator<Item = &'a str>, quote: &str) -> String {
    let items: Vec<_> = items.map(|item| format!("{quote}{item}{quote}")).collect();
    match items.as_slice() {
        [rest @ .., last] if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => items.concat(),
    }
}
