//! Listings: the same items as a table for people, and as JSON for programs.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use clap::{Args, ValueEnum};
use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde::Serialize;

use super::exit::Failure;
use crate::io::sys;
use crate::io::words::with_remedy;

/// How a listing is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Columns for people
    Table,
    /// More columns for people
    Wide,
    /// One JSON document, {"schema","kind","items"}
    Json,
    /// One JSON object a line
    Jsonl,
}

/// The options of every listing.
#[derive(Clone, Debug, Args)]
pub(super) struct Listing {
    /// How to print it
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(super) output: Format,
    /// Print it again and again, this far apart
    #[arg(long, value_name = "TIME", value_parser = interval)]
    pub(super) watch: Option<Duration>,
}

impl Listing {
    /// Prints once, or with `--watch` until somebody stops it.
    pub(super) fn repeat(
        &self,
        out: &mut dyn Write,
        mut once: impl FnMut(&mut dyn Write) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let Some(interval) = self.watch else { return once(out) };
        let screen = matches!(self.output, Format::Table | Format::Wide) && io::stdout().is_terminal();
        loop {
            if screen {
                // Home, and clear from there on: no flicker, and the scrollback stays.
                write!(out, "\x1b[H\x1b[J")?;
            }
            once(out)?;
            out.flush()?;
            sys::wait(&[], Some(interval))
                .map_err(|error| Failure::no(format!("cannot wait: {}", with_remedy(&error))))?;
        }
    }
}

/// A time as people write it.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "write a time as 30s, 500ms or 2min".to_owned())
}

/// A time that the daemon counts in seconds.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if time < Duration::from_secs(1) { Err("not below a second".to_owned()) } else { Ok(time) }
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if interval < Duration::from_millis(100) { Err("not below 100ms".to_owned()) } else { Ok(interval) }
}

/// A kind of item: its name in JSON, and its columns for people.
#[derive(Debug)]
pub(super) struct View<T: 'static> {
    /// `kind` of the JSON envelope.
    pub(super) kind: &'static str,
    /// Columns, from left to right.
    pub(super) columns: &'static [Column<T>],
}

/// A column.
#[derive(Debug)]
pub(super) struct Column<T> {
    /// Heading, and on which side it stands: `"NAME"`, `">FLOWS"`; `"+SOURCE"` and `"+>AGE"` only in wide tables.
    pub(super) title: &'static str,
    /// The text of an item's cell.
    pub(super) cell: fn(&T) -> String,
}

/// Prints items as they come.
pub(super) struct Printer<'a, T: 'static> {
    out: &'a mut dyn Write,
    format: Format,
    view: &'static View<T>,
    /// Cells of the rows so far: a table's widths are known at its end.
    cells: Vec<Vec<String>>,
    printed: u64,
}

impl<'a, T: Serialize> Printer<'a, T> {
    /// A printer that has printed nothing.
    pub(super) fn new(out: &'a mut dyn Write, format: Format, view: &'static View<T>) -> Self {
        Self { out, format, view, cells: Vec::new(), printed: 0 }
    }

    /// Prints, or for a table takes note of, an item.
    pub(super) fn item(&mut self, item: &T) -> io::Result<()> {
        match self.format {
            Format::Table | Format::Wide => {
                let cells = self.columns().map(|column| (column.cell)(item)).collect();
                self.cells.push(cells);
            }
            Format::Json => {
                let separator = if self.printed == 0 { self.envelope() } else { ",".to_owned() };
                write!(self.out, "{separator}")?;
                serde_json::to_writer(&mut self.out, item)?;
            }
            Format::Jsonl => {
                serde_json::to_writer(&mut self.out, item)?;
                writeln!(self.out)?;
            }
        }
        self.printed += 1;
        Ok(())
    }

    /// Prints what is still to be printed.
    pub(super) fn finish(mut self) -> io::Result<()> {
        match self.format {
            Format::Table | Format::Wide => self.print_table(),
            Format::Json if self.printed == 0 => writeln!(self.out, "{}]}}", self.envelope()),
            Format::Json => writeln!(self.out, "]}}"),
            Format::Jsonl => Ok(()),
        }
    }

    fn columns(&self) -> impl Iterator<Item = &'static Column<T>> + use<T> {
        let wide = self.format == Format::Wide;
        self.view.columns.iter().filter(move |column| wide || !column.title.starts_with('+'))
    }

    fn envelope(&self) -> String {
        format!("{{\"schema\":\"tungate/v1\",\"kind\":\"{}\",\"items\":[", self.view.kind)
    }

    fn print_table(&mut self) -> io::Result<()> {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(self.columns().map(|column| column.title.trim_start_matches(['+', '>'])));
        for (n, column) in self.columns().enumerate() {
            if let Some(cells) = table.column_mut(n) {
                cells.set_padding((0, 2));
                if column.title.trim_start_matches('+').starts_with('>') {
                    cells.set_cell_alignment(CellAlignment::Right);
                }
            }
        }
        table.add_rows(std::mem::take(&mut self.cells));
        for line in table.lines() {
            writeln!(self.out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Seconds as people say them: `3h12m`.
pub(super) fn span(seconds: u64) -> String {
    let text = humantime::format_duration(Duration::from_secs(seconds)).to_string();
    // Two units say enough: days and hours, minutes and seconds.
    text.split(' ').take(2).collect()
}

/// Bytes as people say them: `1.5 GiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: &[&str] = &["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let unit = usize::try_from(bytes.ilog2() / 10).expect("at most 6");
    // 53 bits of mantissa are plenty for one decimal.
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let value = bytes as f64 / (1_u64 << (10 * unit)) as f64;
    format!("{value:.1} {}", UNITS[unit - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Animal {
        name: &'static str,
        legs: u64,
    }

    const ANIMALS: View<Animal> = View {
        kind: "AnimalList",
        columns: &[
            Column { title: "NAME", cell: |animal| animal.name.to_owned() },
            Column { title: ">LEGS", cell: |animal| animal.legs.to_string() },
            Column { title: "+HALF", cell: |animal| (animal.legs / 2).to_string() },
        ],
    };
    static VIEW: View<Animal> = ANIMALS;

    fn printed(format: Format, animals: &[Animal]) -> String {
        let mut out = Vec::new();
        let mut printer = Printer::new(&mut out, format, &VIEW);
        for animal in animals {
            printer.item(animal).unwrap();
        }
        printer.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    const ZOO: &[Animal] = &[Animal { name: "hen", legs: 2 }, Animal { name: "centipede", legs: 100 }];

    #[test]
    fn a_table_has_words_left_and_numbers_right() {
        assert_eq!(printed(Format::Table, ZOO), "NAME       LEGS\nhen           2\ncentipede   100\n");
        assert_eq!(printed(Format::Wide, ZOO), "NAME       LEGS  HALF\nhen           2  1\ncentipede   100  50\n");
        assert_eq!(printed(Format::Table, &[]), "NAME  LEGS\n");
    }

    #[test]
    fn json_is_one_document_and_jsonl_one_a_line() {
        let head = r#"{"schema":"tungate/v1","kind":"AnimalList","items":["#;
        let (hen, centipede) = (r#"{"name":"hen","legs":2}"#, r#"{"name":"centipede","legs":100}"#);
        assert_eq!(printed(Format::Json, ZOO), format!("{head}{hen},{centipede}]}}\n"));
        assert_eq!(printed(Format::Json, &[]), format!("{head}]}}\n"));
        assert_eq!(printed(Format::Jsonl, ZOO), format!("{hen}\n{centipede}\n"));
        assert_eq!(printed(Format::Jsonl, &[]), "");
    }

    #[test]
    fn sizes_and_spans_are_short() {
        assert_eq!([0, 1023, 1024, 1_572_864, u64::MAX].map(size), ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "16.0 EiB"]);
        assert_eq!([0, 59, 3_661, 90_000].map(span), ["0s", "59s", "1h1m", "1day1h"]);
    }

    #[test]
    fn a_watch_interval_is_a_time_worth_waiting_for() {
        assert_eq!(interval("1s"), Ok(Duration::from_secs(1)));
        assert!(interval("0s").is_err());
        assert!(interval("soon").is_err());
    }
}
