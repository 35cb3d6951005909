//! `check`: is this configuration one that `run` would take?

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::exit::{Exit, Failure};
use crate::config::{self, Snapshot};
use crate::io::log::colour_on;
use crate::io::sys;

/// Check a configuration file, with the code that `run` uses
///
/// All errors are reported at once, each with its place and what to do about it. Exits with 0 if the
/// file can be used, with 1 if not.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tungate check tungate.toml && echo fine")]
pub(super) struct Check {
    /// The configuration file
    file: PathBuf,
}

impl Check {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<Exit, Failure> {
        let (snapshot, _) = load(&self.file)?;
        let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        writeln!(
            out,
            "{}: valid, {} with {}",
            self.file.display(),
            count(snapshot.services.len(), "service"),
            count(snapshot.backends.len(), "backend")
        )?;
        Ok(Exit::Yes)
    }
}

/// More than the most services and backends take; what has no end (`/dev/zero`) is not read for ever.
const MOST_BYTES: u64 = 16 << 20;

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(MOST_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MOST_BYTES { Err(ErrorKind::FileTooLarge.into()) } else { Ok(text) }
}

/// Reads a configuration, tells what is doubtful in it on stderr; the text beside it.
pub(super) fn load(path: &Path) -> Result<(Snapshot, String), Failure> {
    let text = read(path).map_err(|error| {
        let failure = Failure::file(path, &error);
        if error.kind() == ErrorKind::FileTooLarge {
            return failure.help("a configuration has at most 16 MiB: is this the right file?");
        }
        if error.kind() == ErrorKind::NotFound {
            return failure.help("`tungate config example > tungate.toml` writes a configuration to start from");
        }
        if error.kind() == ErrorKind::IsADirectory {
            return failure.help(format!("name the file in it, such as {}", path.join("tungate.toml").display()));
        }
        if error.kind() == ErrorKind::InvalidData {
            return failure.help("TOML is text in UTF-8: have your editor save it as that");
        }
        failure
    })?;
    let name = path.display().to_string();
    let snapshot =
        config::load(&text, &name, None, &sys::host_name()).map_err(|report| Failure::Config(Box::new(report)))?;
    if !snapshot.warnings.is_empty() {
        let warnings = snapshot.warnings.render(colour_on(&std::io::stderr()));
        // There is nowhere to say that stderr is gone.
        let _ = writeln!(std::io::stderr(), "{warnings}");
    }
    Ok((snapshot, text))
}
