//! The other end of the admin socket: what the verbs ask a running daemon with.

use std::fmt;
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::admin::{Answer, Question, Request, Response};
use crate::io::words::in_words;

/// How long a daemon may take for each part of an answer. Its control thread is never busy for long: silence means that
/// it hangs.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest line of an answer, bytes.
const MAX_LINE: u64 = 64 << 20;

/// A connection to a running daemon.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    path: PathBuf,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum AskError {
    /// Nobody answers there.
    NotReachable {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The socket's mode or the daemon forbids it.
    Refused(String),
    /// What comes back is no answer of ours.
    Unintelligible(String),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReachable { path, error } => {
                if error.kind() == io::ErrorKind::ConnectionRefused && !is_socket(path) {
                    return write!(f, "{} is no socket", path.display());
                }
                write!(f, "no tungate answers on {}: {}", path.display(), in_words(error))
            }
            Self::Refused(why) => f.write_str(why),
            Self::Unintelligible(what) => write!(f, "the daemon's answer cannot be read: {what}"),
        }
    }
}

impl std::error::Error for AskError {}

fn is_socket(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.file_type().is_socket())
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens there, or not to us.
    pub fn connect(path: &Path) -> Result<Self, AskError> {
        let stream = UnixStream::connect(path).map_err(|error| {
            if error.kind() == ErrorKind::PermissionDenied {
                return AskError::Refused(format!(
                    "no permission to use {}: be root, or a member of the socket's group",
                    path.display()
                ));
            }
            AskError::NotReachable { path: path.to_owned(), error }
        })?;
        let client = Self { stream: BufReader::new(stream), path: path.to_owned() };
        let stream = client.stream.get_ref();
        let patience = stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
        patience.map_err(|error| client.lost(error))?;
        Ok(client)
    }

    /// Asks, and hands over each part of the answer as it comes.
    ///
    /// # Errors
    /// The daemon is gone, refuses, or the taker fails.
    pub fn ask<E: From<AskError>>(
        &mut self,
        request: Request,
        mut part: impl FnMut(Response) -> Result<(), E>,
    ) -> Result<(), E> {
        let sent = self.stream.get_mut().write_all(&Question::line(request));
        // A daemon that refuses us says so and closes at once: its reason is worth more than our broken pipe.
        sent.or_else(|error| if error.kind() == ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })
            .map_err(|error| self.lost(error))?;
        loop {
            let answer = self.line()?;
            if let Response::Refused(why) = answer.response {
                return Err(AskError::Refused(why).into());
            }
            part(answer.response)?;
            if !answer.more {
                return Ok(());
            }
        }
    }

    fn line(&mut self) -> Result<Answer, AskError> {
        let mut line = Vec::new();
        let read = (&mut self.stream).take(MAX_LINE).read_until(b'\n', &mut line);
        read.map_err(|error| {
            if error.kind() == ErrorKind::WouldBlock {
                return self.lost(io::Error::new(ErrorKind::TimedOut, format!("silent for {} s", PATIENCE.as_secs())));
            }
            self.lost(error)
        })?;
        if line.last() != Some(&b'\n') {
            return Err(self.lost(io::Error::new(ErrorKind::UnexpectedEof, "it closed the connection")));
        }
        serde_json::from_slice(&line).map_err(|error| AskError::Unintelligible(error.to_string()))
    }

    fn lost(&self, error: io::Error) -> AskError {
        AskError::NotReachable { path: self.path.clone(), error }
    }
}
