//! Asks sources for backends, on a thread of its own: neither the workers nor the control thread ever wait for one.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::sys;
use crate::config::{Discovery, ServiceId, Source, read_backends};
use crate::control::discovery::{Answer, CONFIRM_AFTER};
use crate::engine::Instant;

/// How often a file is looked at, if nothing else is said.
const INTERVAL: Duration = Duration::from_secs(1);
/// A list of backends is no larger than that.
const LARGEST_FILE: u64 = 16 << 20;

/// What a service's source has answered to what was asked.
#[derive(Debug)]
pub struct Heard {
    /// Whose source.
    pub service: ServiceId,
    /// What was asked.
    pub asked: Discovery,
    /// What it says.
    pub answer: Answer,
}

/// The thread that asks. Dropping it ends it.
#[derive(Debug)]
pub struct Discoverer {
    wanted: Option<Sender<Vec<(ServiceId, Discovery)>>>,
    heard: Receiver<Heard>,
    thread: Option<JoinHandle<()>>,
}

impl Discoverer {
    /// Asks nothing yet.
    ///
    /// # Errors
    /// The system has no more threads to give.
    pub fn start() -> io::Result<Self> {
        let ((wanted, orders), (answers, heard)) = (channel(), channel());
        let thread = sys::spawn("discovery", move || ask(&orders, &answers))?;
        Ok(Self { wanted: Some(wanted), heard, thread: Some(thread) })
    }

    /// From now on these are asked, and no others.
    pub fn follow<'a>(&self, wanted: impl Iterator<Item = (ServiceId, &'a Discovery)>) {
        let wanted = wanted.map(|(id, discovery)| (id, discovery.clone())).collect();
        self.wanted.as_ref().expect("until it is dropped").send(wanted).expect("it listens until it is dropped");
    }

    /// The next answer that nobody has taken yet.
    pub fn next(&self) -> Option<Heard> {
        self.heard.try_recv().ok()
    }
}

impl Drop for Discoverer {
    fn drop(&mut self) {
        self.wanted = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("the discovery thread panicked: this is a bug of tungate");
        }
    }
}

fn ask(orders: &Receiver<Vec<(ServiceId, Discovery)>>, answers: &Sender<Heard>) {
    let mut asked: Vec<Asked> = Vec::new();
    loop {
        let next = asked.iter().map(|one| one.due).min();
        let patience = next.map_or(Duration::from_secs(3600), |due| due.since(sys::now()));
        match orders.recv_timeout(patience) {
            Ok(wanted) => asked = wanted.into_iter().map(|(id, discovery)| Asked::new(id, discovery)).collect(),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        for one in &mut asked {
            let now = sys::now();
            if one.due > now {
                continue;
            }
            one.due = now + one.discovery.interval.unwrap_or(INTERVAL);
            let Some(answer) = one.ask(now) else { continue };
            let heard = Heard { service: one.service, asked: one.discovery.clone(), answer };
            if answers.send(heard).is_err() {
                return;
            }
        }
    }
}

/// A source, and what it answered last.
struct Asked {
    service: ServiceId,
    discovery: Discovery,
    due: Instant,
    /// The file as it was when it was read, and when that was told.
    told: Option<(Seen, Instant)>,
    answer: Answer,
}

impl Asked {
    fn new(service: ServiceId, discovery: Discovery) -> Self {
        Self { service, discovery, due: Instant::ZERO, told: None, answer: Ok(Vec::new()) }
    }

    /// What is to be told; nothing if it has been told just now, or nobody knows yet.
    fn ask(&mut self, now: Instant) -> Option<Answer> {
        let Source::File(path) = &self.discovery.source;
        let seen = Seen::of(path);
        match &self.told {
            // Told again now and then: an answer may have to last to be believed.
            Some((told, at)) if *told == seen && now.since(*at) < CONFIRM_AFTER => return None,
            Some((told, _)) if *told == seen => {}
            Some(_) | None => self.answer = read(path, &seen)?,
        }
        self.told = Some((seen, now));
        Some(self.answer.clone())
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
            Err(error) => Self::Unusable(error.to_string()),
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
    Some(text.map_err(|error| error.to_string()).and_then(|text| read_backends(&text, json)))
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
    fn told(asked: &mut Asked, second: u64) -> Option<Result<usize, String>> {
        let answer = asked.ask(Instant::from_micros(second * 1_000_000))?;
        Some(answer.map(|found| found.len()))
    }

    #[test]
    fn a_file_is_read_when_it_changes_and_told_again_while_it_does_not() {
        let folder = Folder::new("discovery-file");
        let path = folder.0.join("web.json");
        let discovery = Discovery { source: Source::File(path.clone()), interval: None };
        let mut asked = Asked::new(ServiceId(0), discovery);
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
