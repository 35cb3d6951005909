//! The backend of the `log` crate: one line a record on stderr, as logfmt or JSON.
//!
//! Nothing is logged per packet. What can still repeat (a peer that sends rubbish, an interface that flaps) is limited
//! per call site: [`BURST`] lines in [`WINDOW`], then the number of those left out with the next line that gets through.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use log::kv::{self, Key, Value, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record, SetLoggerError};

use crate::engine::Instant;
use crate::io::sys;

/// Lines that one call site may write in one [`WINDOW`].
pub const BURST: u32 = 10;
/// See [`BURST`].
pub const WINDOW: Duration = Duration::from_secs(10);

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `time=2026-11-24T15:03:00.123Z level=info msg="serving" target=tungate::io workers=2`
    Logfmt {
        /// Whether the level is coloured.
        colour: bool,
    },
    /// The same as a JSON object.
    Json,
}

impl Format {
    /// logfmt, coloured where stderr may be.
    pub fn logfmt() -> Self {
        Self::Logfmt { colour: colour_on(&std::io::stderr()) }
    }
}

/// Whether what goes there is coloured: a terminal, and `NO_COLOR` unset or empty (<https://no-color.org>).
pub fn colour_on(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Sends all records up to this level to stderr. Called once, before anything is logged.
///
/// # Errors
/// A logger is installed already.
pub fn start(level: LevelFilter, format: Format) -> Result<(), SetLoggerError> {
    log::set_boxed_logger(Box::new(Logger { format, limiter: Mutex::default() }))?;
    log::set_max_level(level);
    Ok(())
}

struct Logger {
    format: Format,
    limiter: Mutex<Limiter>,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // A thread that panicked while it held the lock left at worst a wrong count.
        let mut limiter = self.limiter.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let site = record.file_static().zip(record.line());
        let Some(suppressed) = limiter.admit(site, sys::now()) else { return };
        drop(limiter);
        let line = line(record, SystemTime::UNIX_EPOCH + sys::wall_clock(), suppressed, self.format);
        // There is nowhere to say that stderr is gone.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}

/// A place in the code that logs: file and line.
type Site = (&'static str, u32);

/// How much each call site has logged lately. Bounded by the number of `log` calls in the program.
#[derive(Default)]
struct Limiter(HashMap<Site, Spent>);

struct Spent {
    since: Instant,
    lines: u32,
    suppressed: u64,
}

impl Limiter {
    /// `None` to be silent; else how many lines of this site were left out before this one.
    fn admit(&mut self, site: Option<Site>, now: Instant) -> Option<u64> {
        let Some(site) = site else { return Some(0) };
        let spent = self.0.entry(site).or_insert(Spent { since: now, lines: 0, suppressed: 0 });
        if now.since(spent.since) >= WINDOW {
            spent.since = now;
            spent.lines = 0;
        }
        if spent.lines >= BURST {
            spent.suppressed += 1;
            return None;
        }
        spent.lines += 1;
        Some(std::mem::take(&mut spent.suppressed))
    }
}

/// One line, newline included.
fn line(record: &Record<'_>, time: SystemTime, suppressed: u64, format: Format) -> String {
    let mut fields = Fields(Vec::new());
    fields.text("time", humantime::format_rfc3339_millis(time).to_string());
    fields.text("level", record.level().as_str().to_ascii_lowercase());
    fields.text("msg", record.args().to_string());
    fields.text("target", record.target().to_owned());
    // A key-value source of ours never fails; a foreign one's failure costs its pairs, not the line.
    let _ = record.key_values().visit(&mut fields);
    if suppressed > 0 {
        fields.0.push(("suppressed".to_owned(), suppressed.into()));
    }
    match format {
        Format::Logfmt { colour } => logfmt(fields.0, colour.then_some(record.level())),
        Format::Json => json(fields.0),
    }
}

struct Fields(Vec<(String, serde_json::Value)>);

impl Fields {
    fn text(&mut self, key: &str, value: String) {
        self.0.push((key.to_owned(), value.into()));
    }
}

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let value = if let Some(number) = value.to_u64() {
            number.into()
        } else if let Some(number) = value.to_i64() {
            number.into()
        } else if let Some(truth) = value.to_bool() {
            truth.into()
        } else if let Some(number) = value.to_f64() {
            number.into()
        } else {
            value.to_string().into()
        };
        self.0.push((key.to_string(), value));
        Ok(())
    }
}

/// In the order of the fields: people read these lines too, time first.
fn json(fields: Vec<(String, serde_json::Value)>) -> String {
    let pairs: Vec<String> =
        fields.into_iter().map(|(key, value)| format!("{}:{value}", serde_json::Value::String(key))).collect();
    format!("{{{}}}\n", pairs.join(","))
}

/// logfmt has no standard; this is the form of Go's slog and of most parsers: values in quotes when they hold a space,
/// a quote, an equals sign or a control character.
fn logfmt(fields: Vec<(String, serde_json::Value)>, colour: Option<Level>) -> String {
    let mut line = String::new();
    for (key, value) in fields {
        let value = if let serde_json::Value::String(text) = value { quoted(text) } else { value.to_string() };
        let separator = if line.is_empty() { "" } else { " " };
        let (before, after) = match colour {
            Some(level) if key == "level" => (ansi(level), "\x1b[0m"),
            _ => ("", ""),
        };
        // Writing to a string cannot fail.
        let _ = write!(line, "{separator}{key}={before}{value}{after}");
    }
    line.push('\n');
    line
}

fn quoted(text: String) -> String {
    let plain = |c: char| !(c.is_whitespace() || c.is_control() || matches!(c, '"' | '=' | '\\'));
    if !text.is_empty() && text.chars().all(plain) {
        return text;
    }
    serde_json::Value::String(text).to_string()
}

fn ansi(level: Level) -> &'static str {
    match level {
        Level::Error => "\x1b[31m",
        Level::Warn => "\x1b[33m",
        Level::Info => "\x1b[32m",
        Level::Debug => "\x1b[36m",
        Level::Trace => "\x1b[90m",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: SystemTime = SystemTime::UNIX_EPOCH;
    const PLAIN: Format = Format::Logfmt { colour: false };

    fn written(message: &str, pairs: &[(&str, Value<'_>)], suppressed: u64, format: Format) -> String {
        let mut record = Record::builder();
        record.level(Level::Warn).target("tungate::io").key_values(&pairs);
        line(&record.args(format_args!("{message}")).build(), TIME, suppressed, format)
    }

    #[test]
    fn logfmt_quotes_what_a_parser_would_split() {
        let pairs =
            [("interface", Value::from("eth0")), ("why", Value::from("it said \"no\"\n")), ("n", Value::from(3))];
        assert_eq!(
            written("cannot announce", &pairs, 0, PLAIN),
            "time=1970-01-01T00:00:00.000Z level=warn msg=\"cannot announce\" target=tungate::io interface=eth0 \
             why=\"it said \\\"no\\\"\\n\" n=3\n"
        );
    }

    #[test]
    fn json_keeps_numbers_and_truth_values() {
        let pairs = [("n", Value::from(3)), ("below", Value::from(-3)), ("up", Value::from(true))];
        let line = written("said\x1b[2J", &pairs, 7, Format::Json);
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["n"], 3);
        assert_eq!(read["below"], -3);
        assert_eq!(read["up"], true);
        assert_eq!(read["suppressed"], 7);
        assert_eq!(read["level"], "warn");
        assert!(!line.contains('\x1b'), "no control character reaches a terminal");
    }

    #[test]
    fn only_the_level_is_coloured() {
        let line = written("ready", &[], 0, Format::Logfmt { colour: true });
        assert!(line.contains("level=\x1b[33mwarn\x1b[0m msg=ready"), "{line}");
    }

    #[test]
    fn a_call_site_that_repeats_is_silenced_and_its_silence_counted() {
        let mut limiter = Limiter::default();
        let noisy = Some(("noisy.rs", 1));
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        for _ in 0..BURST {
            assert_eq!(limiter.admit(noisy, at(0)), Some(0));
        }
        assert_eq!(limiter.admit(noisy, at(1)), None);
        assert_eq!(limiter.admit(noisy, at(9)), None);
        assert_eq!(limiter.admit(Some(("other.rs", 1)), at(9)), Some(0), "another place is not concerned");
        assert_eq!(limiter.admit(noisy, at(10)), Some(2));
        assert_eq!(limiter.admit(noisy, at(10)), Some(0));
    }
}
