//! Taking a name for a socket: from a daemon that is gone, never from one that lives, and from nothing else.

use std::fmt;
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Why there is no admin socket.
#[derive(Debug)]
pub enum BindError {
    /// Another daemon answers there.
    Taken(PathBuf),
    /// The name belongs to something that is no socket.
    NotASocket(PathBuf),
    /// The system refuses.
    System(PathBuf, io::Error),
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken(path) => write!(
                f,
                "another tungate answers on the admin socket {}: stop it first, or give this one another \
                 `admin-socket` and `interface`",
                path.display()
            ),
            Self::NotASocket(path) => write!(
                f,
                "{} exists and is no socket, so it is left alone: move it away, or choose another `admin-socket`",
                path.display()
            ),
            Self::System(path, error) if error.kind() == ErrorKind::PermissionDenied => write!(
                f,
                "no permission to create the admin socket {}: run as root, or choose an `admin-socket` in a folder \
                 of yours",
                path.display()
            ),
            Self::System(path, error) => {
                write!(f, "cannot create the admin socket {}: {error}", path.display())
            }
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::System(_, error) => Some(error),
            Self::Taken(_) | Self::NotASocket(_) => None,
        }
    }
}

/// The listener, and device and inode of its file.
pub(super) fn listen(path: &Path) -> Result<(UnixListener, (u64, u64)), BindError> {
    let system = |error| BindError::System(path.to_owned(), error);
    make_way(path)?;
    let listener = UnixListener::bind(path).map_err(|error| {
        // Somebody was quicker between our look and our bind.
        if error.kind() == ErrorKind::AddrInUse { BindError::Taken(path.to_owned()) } else { system(error) }
    })?;
    fs::set_permissions(path, Permissions::from_mode(0o660)).map_err(system)?;
    listener.set_nonblocking(true).map_err(system)?;
    let file = fs::symlink_metadata(path).map_err(system)?;
    Ok((listener, (file.dev(), file.ino())))
}

/// Creates the folder if it is missing, and removes a socket that nobody answers on.
fn make_way(path: &Path) -> Result<(), BindError> {
    let system = |error| BindError::System(path.to_owned(), error);
    let file = match fs::symlink_metadata(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return match path.parent() {
                Some(folder) if !folder.as_os_str().is_empty() && !folder.exists() => {
                    fs::create_dir(folder).map_err(system)
                }
                Some(_) | None => Ok(()),
            };
        }
        Err(error) => return Err(system(error)),
    };
    if !file.file_type().is_socket() {
        return Err(BindError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        // The kernel keeps no listener for the file: its process is gone.
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(system),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(system(error)),
        Ok(_) | Err(_) => Err(BindError::Taken(path.to_owned())),
    }
}
