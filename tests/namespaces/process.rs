//! Programs with an end: every wait is bounded, every program is killed with the value that owns it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take that is not a transfer: a start, an end, a readiness check.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Asks `ready` again and again until it answers, for [`PATIENCE`]; panics with `what` when it never does.
pub(crate) fn wait_for<T>(what: &str, ready: impl FnMut() -> Option<T>) -> T {
    wait_up_to(PATIENCE, ready).unwrap_or_else(|| panic!("{what}: not within {PATIENCE:?}"))
}

fn wait_up_to<T>(patience: Duration, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    let give_up = Instant::now() + patience;
    loop {
        if let Some(answer) = ready() {
            return Some(answer);
        }
        if Instant::now() > give_up {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What a program left behind.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) command: String,
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    /// The output of a program that succeeded; panics with all it said when it did not.
    #[track_caller]
    pub(crate) fn succeeded(self) -> String {
        assert!(self.status.success(), "{}", self.report());
        self.stdout
    }

    pub(crate) fn report(&self) -> String {
        format!("`{}` ended with {}\n{}{}", self.command, self.status, self.stdout, self.stderr)
    }
}

/// A program that runs until it is waited for, told to end, or dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    command: String,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Running {
    /// Starts `command` with its output in `folder/name.out` and `folder/name.err`.
    pub(crate) fn start(mut command: Command, text: String, folder: &Path, name: &str) -> Self {
        let (stdout, stderr) = (folder.join(format!("{name}.out")), folder.join(format!("{name}.err")));
        let file = |path| File::create(path).expect("the lab's folder takes files");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(file(&stdout))
            .stderr(file(&stderr))
            .spawn()
            .unwrap_or_else(|error| panic!("`{text}` does not start: {error}"));
        let stdin = child.stdin.take();
        Self { child, stdin, command: text, stdout, stderr }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn stdout(&self) -> String {
        read(&self.stdout)
    }

    pub(crate) fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// Waits until the program has printed a line with `text`.
    #[track_caller]
    pub(crate) fn has_printed(&mut self, text: &str) {
        let ended = wait_up_to(Duration::from_secs(60), || {
            if self.stdout().contains(text) {
                return Some(false);
            }
            self.has_ended().then_some(true)
        });
        // What it printed may have come between the two looks.
        let printed = self.stdout().contains(text);
        assert!(
            printed,
            "`{}` did not print `{text}` (ended: {ended:?})\n{}{}",
            self.command,
            self.stdout(),
            self.stderr()
        );
    }

    /// Closes the program's standard input, which our helpers take as the word to go on.
    pub(crate) fn go_on(&mut self) {
        self.stdin = None;
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child of ours can be waited for").is_some()
    }

    /// Asks the program to end, by `TERM`, `INT` or another signal that `kill` knows by name.
    pub(crate) fn signal(&self, name: &str) {
        let kill = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(kill.expect("kill is on every system").success(), "`{}` has ended before its signal", self.command);
    }

    /// The output once the program has ended by itself, which it must within `limit`.
    #[track_caller]
    pub(crate) fn finish(&mut self, limit: Duration) -> Output {
        self.stdin = None;
        let status = wait_up_to(limit, || self.child.try_wait().expect("a child of ours can be waited for"));
        let Some(status) = status else {
            panic!("`{}` runs for more than {limit:?}\n{}{}", self.command, self.stdout(), self.stderr());
        };
        Output { command: self.command.clone(), status, stdout: self.stdout(), stderr: self.stderr() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is what we want of it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// Where `program` is, looking where root's programs are too, since not every root has them in its PATH.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&search_path()).map(|folder| folder.join(program)).find(|path| path.is_file())
}

pub(crate) fn search_path() -> String {
    format!("{}:/usr/local/sbin:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}
