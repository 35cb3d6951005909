//! The file with the keys that two gateways share.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::sys;
use super::words::{in_words, with_remedy};
use crate::control::ha::keys::KeyRing;

/// Permissions: the owner's, and nobody else's.
const PRIVATE: u32 = 0o600;
/// Most bytes that are read: eight keys and some words about them fit several times over.
const MOST: u64 = 16 << 10;

/// Reads the keys.
///
/// # Errors
/// [`KeyFileError`]: not there, open to others, or no keys.
pub fn load(path: &Path) -> Result<KeyRing, KeyFileError> {
    let failed = |problem| KeyFileError { path: path.to_owned(), problem };
    let file = File::open(path).map_err(|error| failed(Problem::Read(error)))?;
    // Of what is open, not of what has the name by now.
    let metadata = file.metadata().map_err(|error| failed(Problem::Read(error)))?;
    let mode = metadata.mode() & 0o777;
    if mode & !PRIVATE & 0o077 != 0 {
        return Err(failed(Problem::Open(mode)));
    }
    let mut text = String::new();
    file.take(MOST).read_to_string(&mut text).map_err(|error| failed(Problem::Read(error)))?;
    KeyRing::parse(&text).map_err(|why| failed(Problem::Content(why)))
}

/// Makes a new file with one new key under this number, wholly or not at all.
///
/// # Errors
/// [`KeyFileError`]: there is such a file, or it cannot be written.
pub fn create(path: &Path, id: u8) -> Result<(), KeyFileError> {
    let failed = |error: io::Error| {
        let there = error.kind() == ErrorKind::AlreadyExists;
        KeyFileError { path: path.to_owned(), problem: if there { Problem::Exists } else { Problem::Write(error) } }
    };
    let mut secret = [0; 32];
    sys::fill_with_random(&mut secret).map_err(failed)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(path).map_err(failed)?;
    let written = file.write_all(KeyRing::text(id, secret).as_bytes()).and_then(|()| file.sync_all());
    written.map_err(|error| {
        // What was made here is ours to remove; if it cannot be, there is nothing better to say than why it all began.
        let _ = fs::remove_file(path);
        failed(error)
    })
}

/// Why there are no keys.
#[derive(Debug)]
pub struct KeyFileError {
    path: PathBuf,
    problem: Problem,
}

#[derive(Debug)]
enum Problem {
    Read(io::Error),
    /// With these permissions.
    Open(u32),
    Content(String),
    Exists,
    Write(io::Error),
}

impl KeyFileError {
    /// Whether it is a matter of permissions.
    pub fn is_refusal(&self) -> bool {
        match &self.problem {
            Problem::Read(error) | Problem::Write(error) => error.kind() == ErrorKind::PermissionDenied,
            Problem::Open(_) | Problem::Exists => true,
            Problem::Content(_) => false,
        }
    }
}

impl fmt::Display for KeyFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.problem {
            Problem::Read(error) if error.kind() == ErrorKind::NotFound => {
                write!(f, "{path}: {}; `tungate ha keygen {path}` makes one, for both gateways", in_words(error))
            }
            Problem::Read(error) | Problem::Write(error) => write!(f, "{path}: {}", with_remedy(error)),
            Problem::Open(mode) => {
                write!(
                    f,
                    "{path}: others than its owner can open it (mode {mode:04o}); `chmod 600 {path}`, and a new key if they have"
                )
            }
            Problem::Content(why) => write!(f, "{path}: {why}"),
            Problem::Exists => write!(f, "{path}: there is such a file already; nothing was changed"),
        }
    }
}

impl std::error::Error for KeyFileError {}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("tungate-keys-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_new_file_is_private_and_never_replaces_another() {
        let folder = Folder::new("new");
        let path = folder.0.join("ha.key");
        create(&path, 1).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let before = fs::read(&path).unwrap();
        load(&path).unwrap();
        let error = create(&path, 1).unwrap_err();
        assert!(error.is_refusal() && error.to_string().ends_with("nothing was changed"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before);
        let other = folder.0.join("other.key");
        create(&other, 1).unwrap();
        assert_ne!(load(&path).unwrap(), load(&other).unwrap(), "a new key each time");
    }

    #[test]
    fn a_file_that_others_can_open_is_refused() {
        let folder = Folder::new("open");
        let path = folder.0.join("ha.key");
        create(&path, 1).unwrap();
        for mode in [0o644, 0o640, 0o620, 0o601] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = load(&path).unwrap_err();
            assert!(error.is_refusal() && error.to_string().contains("chmod 600"), "{mode:o}: {error}");
        }
        for mode in [0o600, 0o400] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            load(&path).unwrap();
        }
    }

    #[test]
    fn what_is_missing_or_no_key_is_said() {
        let folder = Folder::new("none");
        let path = folder.0.join("ha.key");
        let told = load(&path).unwrap_err().to_string();
        assert!(told.contains("tungate ha keygen"), "{told}");
        fs::write(&path, "nothing\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let told = load(&path).unwrap_err().to_string();
        assert!(told.ends_with("line 1: it is not a number and a key"), "{told}");
    }
}
