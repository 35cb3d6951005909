//! `manual`: the chapters of the manual.

use std::io::Write;

use clap::Args;

use super::exit::{Exit, Failure};
use crate::manual::CHAPTERS;

/// Print a chapter of the manual, or say which there are
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tungate manual                  the chapters\n  tungate manual dsr | less")]
pub(super) struct Manual {
    /// The chapter
    chapter: Option<String>,
}

impl Manual {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<Exit, Failure> {
        let Some(wanted) = &self.chapter else {
            let width = CHAPTERS.iter().map(|chapter| chapter.name.len()).max().unwrap_or(0);
            for chapter in CHAPTERS {
                writeln!(out, "{:<width$}  {}", chapter.name, chapter.about)?;
            }
            return Ok(Exit::Yes);
        };
        let Some(chapter) = CHAPTERS.iter().find(|chapter| chapter.name == wanted) else {
            let names: Vec<_> = CHAPTERS.iter().map(|chapter| chapter.name).collect();
            return Err(Failure::no(format!("the manual has no chapter `{wanted}`")).help(names.join(", ")));
        };
        out.write_all(chapter.text.as_bytes())?;
        Ok(Exit::Yes)
    }
}
