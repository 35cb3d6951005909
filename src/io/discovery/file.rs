//! Backends by a file that is looked at again and again.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Inquiry, Leave};
use crate::config::read_backends;
use crate::control::discovery::{Answer, CONFIRM_AFTER};
use crate::engine::Instant;
use crate::io::words::in_words;

/// How often a file is looked at, if nothing else is said.
const INTERVAL: Duration = Duration::from_secs(1);
/// A list of backends is no larger than that.
const LARGEST_FILE: u64 = 16 << 20;

/// A file that is looked at.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    interval: Option<Duration>,
    /// As it was when it was read, and when that was told.
    told: Option<(Seen, Instant)>,
    answer: Answer,
}

impl File {
    pub(super) const fn new(path: PathBuf, interval: Option<Duration>) -> Self {
        Self { path, interval, told: None, answer: Ok(Vec::new()) }
    }
}

impl Inquiry for File {
    fn ask(&mut self, now: Instant, _: &Leave) -> Option<Answer> {
        let seen = Seen::of(&self.path);
        match &self.told {
            // Told again now and then: an answer may have to last to be believed.
            Some((told, at)) if *told == seen && now.since(*at) < CONFIRM_AFTER => return None,
            Some((told, _)) if *told == seen => {}
            Some(_) | None => self.answer = read(&self.path, &seen)?,
        }
        self.told = Some((seen, now));
        Some(self.answer.clone())
    }

    fn patience(&self) -> Duration {
        self.interval.unwrap_or(INTERVAL)
    }
}

/// A file as it stands there: what a change changes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    File { device: u64, inode: u64, len: u64, modified: (i64, i64), changed: (i64, i64) },
    Unusable(String),
}

impl Seen {
    fn of(path: &Path) -> Self {
        match fs::metadata(path) {
            Ok(file) if !file.is_file() => Self::Unusable("it is not a regular file".to_owned()),
            Ok(file) if file.len() > LARGEST_FILE => Self::Unusable("it is larger than 16 MiB".to_owned()),
            Ok(file) => Self::from(&file),
            Err(error) => Self::Unusable(in_words(&error)),
        }
    }
}

impl From<&Metadata> for Seen {
    fn from(file: &Metadata) -> Self {
        Self::File {
            device: file.dev(),
            inode: file.ino(),
            len: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

/// `None` if it is being written: it will be another one in a moment.
fn read(path: &Path, seen: &Seen) -> Option<Answer> {
    if let Seen::Unusable(why) = seen {
        return Some(Err(why.clone()));
    }
    let text = fs::read_to_string(path);
    if Seen::of(path) != *seen {
        return None;
    }
    let json = path.extension().is_some_and(|extension| extension == "json");
    Some(text.map_err(|error| in_words(&error)).and_then(|text| read_backends(&text, json)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that goes away with the test.
    struct Folder(std::path::PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("tungate-{name}-{}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// How many backends are told, or why there are none; `None` if nothing is.
    fn told(asked: &mut File, second: u64) -> Option<Result<usize, String>> {
        let answer = asked.ask(Instant::from_micros(second * 1_000_000), &Leave::never())?;
        Some(answer.map(|found| found.len()))
    }

    #[test]
    fn a_file_is_read_when_it_changes_and_told_again_while_it_does_not() {
        let folder = Folder::new("discovery-file");
        let path = folder.0.join("web.json");
        let mut asked = File::new(path.clone(), None);
        assert!(told(&mut asked, 100).unwrap().unwrap_err().contains("No such file"));
        assert_eq!(told(&mut asked, 101), None);

        fs::write(&path, r#"{"backends":[{"address":"10.0.0.1"}]}"#).unwrap();
        assert_eq!(told(&mut asked, 102), Some(Ok(1)));
        assert_eq!(told(&mut asked, 106), None);
        assert_eq!(told(&mut asked, 107), Some(Ok(1)));

        let next = folder.0.join("next");
        fs::write(&next, r#"{"backends":[{"address":"10.0.0.1"},{"address":"10.0.0.2"}]}"#).unwrap();
        fs::rename(&next, &path).unwrap();
        assert_eq!(told(&mut asked, 108), Some(Ok(2)));
        fs::write(&path, r#"{"backends":[{"addr"#).unwrap();
        assert!(told(&mut asked, 109).unwrap().is_err());
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(told(&mut asked, 110), Some(Err("it is not a regular file".to_owned())));
    }
}
