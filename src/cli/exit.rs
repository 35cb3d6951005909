//! How a verb ends: an exit code that scripts rely on, and on failure a sentence that says what to do next.

use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::config::Report;
use crate::io::log::colour_on;
use crate::io::serve::AskError;
use crate::io::words::in_words;

/// The exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// Done; the answer is yes.
    Yes = 0,
    /// The answer is no: invalid, unhealthy, not found.
    No = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// No daemon answers.
    Unreachable = 3,
    /// Not allowed.
    Refused = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a verb did not get to its end.
#[derive(Debug)]
pub(super) enum Failure {
    /// Something to tell.
    Told {
        /// Exit code.
        exit: Exit,
        /// What is wrong, without a full stop.
        message: String,
        /// What to do next.
        help: Option<String>,
    },
    /// A configuration that cannot be used, which speaks for itself.
    Config(Box<Report>),
    /// A configuration that a daemon cannot use: what it says of it.
    Reported(String),
    /// Nobody reads our output any more (`| head`): not worth a word.
    BrokenPipe,
}

impl Failure {
    /// A failure that says no.
    pub(super) fn no(message: impl Into<String>) -> Self {
        Self::new(Exit::No, message)
    }

    /// A failure with this exit code.
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self::Told { exit, message: message.into(), help: None }
    }

    /// The failure to do something with a file.
    pub(super) fn file(path: &Path, error: &io::Error) -> Self {
        let message = format!("{}: {}", path.display(), in_words(error));
        if error.kind() == ErrorKind::PermissionDenied {
            return Self::new(Exit::Refused, message).help("run as a user who may, or as root");
        }
        Self::no(message)
    }

    /// Adds what to do next.
    pub(super) fn help(self, text: impl Into<String>) -> Self {
        if let Self::Told { exit, message, .. } = self {
            Self::Told { exit, message, help: Some(text.into()) }
        } else {
            self
        }
    }

    /// Says what is wrong; the exit code.
    pub(super) fn tell(&self, err: &mut dyn Write) -> Exit {
        // There is nowhere to say that stderr is gone.
        match self {
            Self::Told { exit, message, help } => {
                let _ = writeln!(err, "error: {message}");
                if let Some(help) = help {
                    let _ = writeln!(err, "  = help: {help}");
                }
                *exit
            }
            Self::Config(report) => {
                let _ = writeln!(err, "{}", report.render(colour_on(&io::stderr())));
                Exit::No
            }
            Self::Reported(report) => {
                let _ = writeln!(err, "{report}");
                Exit::No
            }
            Self::BrokenPipe => Exit::Yes,
        }
    }
}

/// For writing to stdout, and that alone: other errors are given a sentence where they happen.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == ErrorKind::BrokenPipe {
            return Self::BrokenPipe;
        }
        Self::no(format!("cannot write the output: {}", in_words(&error)))
    }
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        match error {
            AskError::NotReachable { .. } => Self::new(Exit::Unreachable, error.to_string())
                .help("start it with `tungate run -c FILE`, or name its socket with --socket or TUNGATE_SOCKET"),
            AskError::Refused(_) => Self::new(Exit::Refused, error.to_string()),
            AskError::Unintelligible(_) => {
                Self::new(Exit::Refused, error.to_string()).help("use the `tungate` of the same version as the daemon")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(failure: &Failure) -> (String, Exit) {
        let mut err = Vec::new();
        let exit = failure.tell(&mut err);
        (String::from_utf8(err).unwrap(), exit)
    }

    #[test]
    fn a_failure_says_what_is_wrong_and_what_to_do() {
        let failure = Failure::no("no service `wbe`").help("there is `web`");
        assert_eq!(told(&failure), ("error: no service `wbe`\n  = help: there is `web`\n".to_owned(), Exit::No));
    }

    #[test]
    fn a_broken_pipe_ends_quietly() {
        let failure = Failure::from(io::Error::from(ErrorKind::BrokenPipe));
        assert_eq!(told(&failure), (String::new(), Exit::Yes));
        let (text, exit) = told(&Failure::from(io::Error::from_raw_os_error(28)));
        assert_eq!((text.as_str(), exit), ("error: cannot write the output: No space left on device\n", Exit::No));
    }
}
