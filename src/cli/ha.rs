//! `ha`: the pair.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::exit::{Exit, Failure};
use crate::io::key_file::{self, KeyFileError};

/// Two gateways of which one takes over when the other fails
#[derive(Debug, Subcommand)]
pub(super) enum Ha {
    Keygen(Keygen),
}

/// Make the key that two gateways share
///
/// The file is readable by its owner only, and has to stay so; it is never written over. Copy it to the other gateway.
///
/// To change keys without a pause: append the new file's line to the old file on both gateways, then move it to the top
/// on both, then remove the old line from both.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tungate ha keygen /etc/tungate/ha.key\n  tungate ha keygen --id 2 new.key")]
pub(super) struct Keygen {
    /// The file to make
    file: PathBuf,
    /// The key's number, which tells it apart from the others of a file
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u8).range(1..))]
    id: u8,
}

impl Ha {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<Exit, Failure> {
        match self {
            Self::Keygen(keygen) => keygen.run(out),
        }
    }
}

impl Keygen {
    fn run(&self, out: &mut dyn Write) -> Result<Exit, Failure> {
        key_file::create(&self.file, self.id).map_err(|error| key_failure(&error))?;
        writeln!(
            out,
            "A new key is in {}: copy it to the other gateway, and let nobody else read it.",
            self.file.display()
        )?;
        Ok(Exit::Yes)
    }
}

fn key_failure(error: &KeyFileError) -> Failure {
    Failure::new(if error.is_refusal() { Exit::Refused } else { Exit::No }, error.to_string())
}
