//! What is generated from the code: completions, manual pages, the example configuration and its schema.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Subcommand};
use clap_complete::Shell;

use super::Cli;
use super::exit::{Exit, Failure};
use crate::config;

/// Print an example configuration, or the schema of all
#[derive(Debug, Subcommand)]
pub(super) enum Config {
    /// A commented tungate.toml with everything that can be written in one
    #[command(after_help = "Example:\n  tungate config example > tungate.toml")]
    Example,
    /// A JSON Schema of tungate.toml, for editors that complete and check
    #[command(after_help = "Example:\n  tungate config schema > tungate.schema.json\n\n\
                            Then, in the first line of tungate.toml, for editors with taplo:\n  \
                            #:schema ./tungate.schema.json")]
    Schema,
}

impl Config {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<Exit, Failure> {
        match self {
            Self::Example => out.write_all(config::example().as_bytes())?,
            Self::Schema => out.write_all(config::schema().as_bytes())?,
        }
        Ok(Exit::Yes)
    }
}

/// Print a script that makes a shell complete tungate's verbs and options
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tungate completions bash > /etc/bash_completion.d/tungate\n  \
                        tungate completions zsh > ~/.zfunc/_tungate\n  \
                        tungate completions fish > ~/.config/fish/completions/tungate.fish")]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<Exit, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "tungate", &mut script);
        out.write_all(&script)?;
        Ok(Exit::Yes)
    }
}

/// Write manual pages, one for each verb, into a folder
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tungate man /usr/local/share/man/man1")]
pub(super) struct Man {
    /// The folder; created if it is missing
    dir: PathBuf,
}

impl Man {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<Exit, Failure> {
        let failed = |error| Failure::file(&self.dir, &error);
        fs::create_dir_all(&self.dir).map_err(|error| {
            let is_file = matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NotADirectory);
            if is_file { failed(error).help("name a folder: there is a file of that name") } else { failed(error) }
        })?;
        clap_mangen::generate_to(Cli::command(), &self.dir).map_err(failed)?;
        let first = self.dir.join("tungate.1");
        writeln!(out, "Manual pages are in {}; read the first with `man {}`.", self.dir.display(), first.display())?;
        Ok(Exit::Yes)
    }
}
