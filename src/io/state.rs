//! The folder in which a gateway keeps what outlives it: overrides, and the configurations that were in force.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::words::with_remedy;

/// The folder, or nothing to write to: then state ends with the process.
#[derive(Debug)]
pub struct StateDir(Option<PathBuf>);

impl StateDir {
    /// The folder, if it is there and can be written to; otherwise that is told, once, and nothing is kept.
    pub fn open(path: &Path) -> Self {
        match replace(&path.join(".probe"), b"").and_then(|()| fs::remove_file(path.join(".probe"))) {
            Ok(()) => Self(Some(path.to_owned())),
            Err(error) => {
                let path = path.display();
                let remedy = if error.kind() == ErrorKind::NotFound { "create it" } else { "see `state-dir`" };
                log::warn!(path:%; "overrides and applied configurations will not outlive the daemon: {}; {remedy}", with_remedy(&error));
                Self(None)
            }
        }
    }

    /// Nothing is kept.
    pub const fn none() -> Self {
        Self(None)
    }

    /// What was written under this name, if anything was.
    pub fn read(&self, name: &str) -> Option<String> {
        let path = self.0.as_ref()?.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                log::warn!(path:% = path.display(); "what was kept cannot be read: {}", with_remedy(&error));
                None
            }
        }
    }

    /// Writes it, wholly or not at all.
    pub fn write(&self, name: &str, text: &str) {
        let Some(path) = &self.0 else { return };
        let path = path.join(name);
        if let Err(error) = replace(&path, text.as_bytes()) {
            log::warn!(path:% = path.display(); "this will not outlive the daemon: {}", with_remedy(&error));
        }
    }
}

/// Whoever opens the file sees the old bytes or the new ones, after a crash, too: written beside it, brought to the disk,
/// renamed, and the folder brought to the disk.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_there_and_without_folder_nothing_is() {
        let path = std::env::temp_dir().join(format!("tungate-state-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        let state = StateDir::open(&path);
        assert_eq!(state.read("overrides.json"), None);
        for text in ["first", "and second"] {
            state.write("overrides.json", text);
            assert_eq!(StateDir::open(&path).read("overrides.json").as_deref(), Some(text));
        }
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1, "nothing else is left");
        fs::remove_dir_all(&path).unwrap();

        let state = StateDir::open(&path);
        state.write("overrides.json", "x");
        assert_eq!(state.read("overrides.json"), None);
        assert!(!path.exists());
    }
}
