//! A lab for one case: four namespaces made by `netns-scripts/lab.sh`, and what runs in them.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::process::{Output, Running, search_path, wait_for};

/// The labs that are up, for the hand that removes them when we are told to end.
static UP: Mutex<Vec<String>> = Mutex::new(Vec::new());
static BUILT: AtomicU32 = AtomicU32::new(0);

/// How long a command may take when its case does not say.
const LIMIT: Duration = Duration::from_secs(60);

/// The namespaces `NAME-client`, `NAME-gw`, `NAME-b1`, `NAME-b2` and a folder for files; all gone when dropped.
#[derive(Debug)]
pub(crate) struct Lab {
    name: String,
    folder: PathBuf,
    started: Cell<u32>,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let name = format!("tgt{}x{}", std::process::id(), BUILT.fetch_add(1, Ordering::Relaxed));
        UP.lock().expect("no panic while it is held").push(name.clone());
        let lab = Self { folder: folder_of(&name), name, started: Cell::new(0) };
        fs::create_dir(&lab.folder).expect("the temporary folder takes a folder");
        lab.script(&["up"]);
        lab
    }

    pub(crate) fn client(&self) -> Host<'_> {
        self.host("client")
    }

    pub(crate) fn gateway(&self) -> Host<'_> {
        self.host("gw")
    }

    /// Makes it a lab of two gateways at the same networks, and gives the second.
    pub(crate) fn second_gateway(&self) -> Host<'_> {
        self.script(&["pair"]);
        self.host("gw2")
    }

    pub(crate) fn backend(&self, name: &'static str) -> Host<'_> {
        self.host(name)
    }

    /// All hosts that packets of a case pass.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = Host<'_>> {
        ["client", "gw", "b1", "b2"].into_iter().map(|name| self.host(name))
    }

    /// Puts a router between the gateway and `b1`; the link behind the router takes packets up to `mtu`.
    pub(crate) fn put_router_before_b1(&self, mtu: u16) {
        self.script(&["router", &mtu.to_string()]);
    }

    /// Gives the backends a way to the client that does not pass the gateway.
    pub(crate) fn connect_backends_to_the_client(&self) {
        self.script(&["direct"]);
    }

    /// A folder for configurations, sockets and documents of this lab.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn host(&self, name: &'static str) -> Host<'_> {
        Host { lab: self, name }
    }

    /// What `lab.sh` says to these words, with this lab's name.
    pub(crate) fn asked_for(&self, arguments: &[&str]) -> std::process::Output {
        script(&self.name, arguments)
    }

    #[track_caller]
    fn script(&self, arguments: &[&str]) {
        let output = self.asked_for(arguments);
        assert!(output.status.success(), "lab.sh {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        remove(&self.name);
        UP.lock().expect("no panic while it is held").retain(|name| *name != self.name);
    }
}

/// One namespace of a lab.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) name: &'static str,
}

impl Host<'_> {
    /// Runs a command line (words apart by spaces, no quoting) and waits for its end.
    #[track_caller]
    pub(crate) fn run(&self, line: &str) -> Output {
        self.run_within(LIMIT, line)
    }

    #[track_caller]
    pub(crate) fn run_within(&self, limit: Duration, line: &str) -> Output {
        self.start(line).finish(limit)
    }

    /// Starts a command line (words apart by spaces, no quoting).
    pub(crate) fn start(&self, line: &str) -> Running {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.start_words(&words)
    }

    pub(crate) fn start_words(&self, words: &[&str]) -> Running {
        // `ip netns exec` becomes the program, so the child's id is the program's.
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("{}-{}", self.lab.name, self.name)]).args(words);
        command.env("PATH", search_path()).env("NO_COLOR", "1");
        let n = self.lab.started.replace(self.lab.started.get() + 1);
        let program = words[0].rsplit('/').next().expect("a split has a first part");
        let text = format!("[{}] {}", self.name, words.join(" "));
        Running::start(command, text, &self.lab.folder, &format!("{n}-{}-{program}", self.name))
    }

    /// Starts this test binary again, as one of its helpers.
    pub(crate) fn start_helper(&self, words: &str) -> Running {
        let own = std::env::current_exe().expect("a running program has a path");
        let own = own.to_str().expect("cargo's paths are UTF-8");
        let mut all = vec![own, crate::helper::FLAG];
        all.extend(words.split_whitespace());
        self.start_words(&all)
    }

    /// Waits until something listens on the port; `kind` is ss's `-t` or `-u`.
    #[track_caller]
    pub(crate) fn listens(&self, kind: &str, port: u16) {
        wait_for(&format!("a listener on {} port {port}", self.name), || {
            let listening = self.run(&format!("ss -Hln {kind} sport = :{port}")).succeeded();
            (!listening.trim().is_empty()).then_some(())
        });
    }
}

/// Removes what an earlier run left that was killed before it could clean up; its process is in the names.
pub(crate) fn remove_leftovers() {
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        let Some((lab, pid)) = file.strip_suffix("-gw").and_then(|lab| {
            let (pid, _) = lab.strip_prefix("tgt")?.split_once('x')?;
            Some((lab, pid.parse::<u32>().ok()?))
        }) else {
            continue;
        };
        if !Path::new("/proc").join(pid.to_string()).exists() {
            remove(lab);
        }
    }
}

/// Removes every lab that is up: what a signal does before it ends us.
pub(crate) fn remove_all() {
    for name in UP.lock().expect("no panic while it is held").iter() {
        remove(name);
    }
}

fn remove(name: &str) {
    script(name, &["down"]);
    // Not there when the lab never came up.
    let _ = fs::remove_dir_all(folder_of(name));
}

fn folder_of(name: &str) -> PathBuf {
    std::env::temp_dir().join(name)
}

fn script(lab: &str, arguments: &[&str]) -> std::process::Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("netns-scripts/lab.sh");
    let mut command = Command::new(script);
    command.args(arguments).env("LAB", lab).env("PATH", search_path());
    command.output().expect("lab.sh starts where bash is")
}
