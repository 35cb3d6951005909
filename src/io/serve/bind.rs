//! Taking a name for a socket: from a daemon that is gone, never from one that lives, and from nothing else.

use std::fmt;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::io::words::with_remedy;

/// Longest name of a socket, bytes: what `sockaddr_un` holds, without the zero at its end.
const MOST_BYTES: usize = 107;

/// Why there is no admin socket.
#[derive(Debug)]
pub enum BindError {
    /// Another daemon answers there.
    Taken(PathBuf),
    /// The name belongs to something that is no socket.
    NotASocket(PathBuf),
    /// The name is longer than a socket's may be.
    TooLong(PathBuf),
    /// A folder on the way to it is missing and cannot be made.
    Folder(PathBuf, io::Error),
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
            Self::TooLong(path) => {
                write!(
                    f,
                    "the name of a socket has at most {MOST_BYTES} bytes: choose a shorter `admin-socket` than {}",
                    path.display()
                )
            }
            Self::Folder(folder, error) if error.kind() == ErrorKind::PermissionDenied => write!(
                f,
                "no permission to create the folder {} for the admin socket: run as root, or choose an `admin-socket` in \
                 a folder of yours",
                folder.display()
            ),
            Self::Folder(folder, error) => {
                write!(f, "cannot create the folder {} for the admin socket: {}", folder.display(), with_remedy(error))
            }
            Self::System(path, error) if error.kind() == ErrorKind::PermissionDenied => write!(
                f,
                "no permission to create the admin socket {}: run as root, or choose an `admin-socket` in a folder \
                 of yours",
                path.display()
            ),
            Self::System(path, error) => {
                write!(f, "cannot create the admin socket {}: {}", path.display(), with_remedy(error))
            }
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Folder(_, error) | Self::System(_, error) => Some(error),
            Self::Taken(_) | Self::NotASocket(_) | Self::TooLong(_) => None,
        }
    }
}

/// The listener, device and inode of its file, and the folders that had to be made for it.
pub(super) fn listen(path: &Path) -> Result<(UnixListener, (u64, u64), Folders), BindError> {
    let system = |error| BindError::System(path.to_owned(), error);
    if path.as_os_str().len() > MOST_BYTES {
        return Err(BindError::TooLong(path.to_owned()));
    }
    let folders = make_way(path)?;
    let listener = UnixListener::bind(path).map_err(|error| {
        // Somebody was quicker between our look and our bind.
        if error.kind() == ErrorKind::AddrInUse { BindError::Taken(path.to_owned()) } else { system(error) }
    })?;
    fs::set_permissions(path, Permissions::from_mode(0o660)).map_err(system)?;
    listener.set_nonblocking(true).map_err(system)?;
    let file = fs::symlink_metadata(path).map_err(system)?;
    Ok((listener, (file.dev(), file.ino()), folders))
}

/// Creates what folders are missing, and removes a socket that nobody answers on.
fn make_way(path: &Path) -> Result<Folders, BindError> {
    let system = |error| BindError::System(path.to_owned(), error);
    let file = match fs::symlink_metadata(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return path.parent().map_or(Ok(Folders::default()), Folders::create);
        }
        Err(error) => return Err(system(error)),
    };
    if !file.file_type().is_socket() {
        return Err(BindError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        // The kernel keeps no listener for the file: its process is gone.
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(system)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Err(system(error)),
        Ok(_) | Err(_) => return Err(BindError::Taken(path.to_owned())),
    }
    Ok(Folders::default())
}

/// Folders that were made for the socket, as systemd makes them for a `ListenStream=`; they go when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Folders(Vec<PathBuf>);

impl Folders {
    /// Makes this folder and those above it that are missing.
    fn create(folder: &Path) -> Result<Self, BindError> {
        let missing = folder.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists());
        let missing: Vec<PathBuf> = missing.map(Path::to_owned).collect();
        let mut made = Self::default();
        for folder in missing.into_iter().rev() {
            // Whatever the umask: who may write into it may put a socket of his own in the place of ours.
            match DirBuilder::new().mode(0o755).create(&folder) {
                Ok(()) => made.0.push(folder),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {} // somebody was quicker: it is his
                Err(error) => return Err(BindError::Folder(folder, error)),
            }
        }
        Ok(made)
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        for folder in self.0.iter().rev() {
            // One that somebody has put something into, or removed, is not ours any more.
            let _ = fs::remove_dir(folder);
        }
    }
}
