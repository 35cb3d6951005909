//! Runs cases one after the other and speaks like libtest, with a third answer: skipped, why, and what to do about it.

use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use mio::{Events, Interest, Poll, Token};

use crate::{lab, process};

/// One thing to see, with the programs it needs.
pub(crate) struct Case {
    /// `WHAT/SETUP`; the setup is one of several that the same body runs with.
    pub(crate) name: String,
    pub(crate) needs: &'static [&'static str],
    /// Against the kernel instead of tungate, which needs nft on top.
    pub(crate) control: bool,
    pub(crate) body: Box<dyn Fn()>,
}

enum Outcome {
    Passed,
    Failed(String),
    Skipped,
}

/// What is known about the panic that is being caught: place and message, and what its witnesses added.
static FAILURE: Mutex<String> = Mutex::new(String::new());

/// Adds to the report of the case that is failing.
pub(crate) fn add_to_failure(text: &str) {
    noted().push_str(text);
}

fn noted() -> MutexGuard<'static, String> {
    FAILURE.lock().expect("nobody panics while holding it")
}

pub(crate) fn main(arguments: &[String], cases: &[Case]) -> ExitCode {
    let wanted = Wanted::from(arguments);
    let chosen: Vec<&Case> = cases.iter().filter(|case| wanted.matches(&case.name)).collect();
    let mut out = io::stdout().lock();
    if wanted.list {
        for case in &chosen {
            say(&mut out, &format!("{}: test\n", case.name));
        }
        return ExitCode::SUCCESS;
    }
    remove_labs_on_signals();
    std::panic::set_hook(Box::new(|info| {
        // The first panic is the cause; one in the cleaning up after it is not.
        let mut noted = noted();
        if noted.is_empty() {
            *noted = info.to_string();
        }
    }));
    let outcomes = run(&mut out, &chosen);
    conclude(&mut out, &chosen, &outcomes, cases.len() - chosen.len())
}

/// The part of libtest's command line that means something here; the rest is taken without complaint, since
/// `cargo test -- OPTION` hands the same options to every test binary.
struct Wanted {
    words: Vec<String>,
    without: Vec<String>,
    exact: bool,
    list: bool,
}

impl Wanted {
    fn from(arguments: &[String]) -> Self {
        let mut wanted = Self { words: Vec::new(), without: Vec::new(), exact: false, list: false };
        let mut left = arguments.iter();
        while let Some(argument) = left.next() {
            match argument.as_str() {
                "--list" => wanted.list = true,
                "--exact" => wanted.exact = true,
                "--skip" => wanted.without.extend(left.next().cloned()),
                "--test-threads" | "--format" | "--color" | "--logfile" | "-Z" => drop(left.next()),
                option if option.starts_with('-') => {}
                word => wanted.words.push(word.to_string()),
            }
        }
        wanted
    }

    fn matches(&self, name: &str) -> bool {
        let hit = |word: &String| if self.exact { name == word } else { name.contains(word.as_str()) };
        (self.words.is_empty() || self.words.iter().any(hit)) && !self.without.iter().any(hit)
    }
}

fn run(out: &mut impl Write, cases: &[&Case]) -> Vec<Outcome> {
    say(out, &format!("\nrunning {} tests\n", cases.len()));
    let root = is_root();
    if root && process::find("ip").is_some() {
        lab::remove_leftovers();
    }
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut said = (String::new(), String::new());
    for case in cases {
        let Some(reason) = reason_to_skip(case, root) else {
            outcomes.push(run_one(out, case));
            continue;
        };
        outcomes.push(Outcome::Skipped);
        let what = case.name.split('/').next().expect("a split has a first part").to_string();
        // One line for all setups of a case that lack the same.
        if said != (what.clone(), reason.clone()) {
            say(out, &format!("SKIPPED {}: {reason}\n", case.name));
            said = (what, reason);
        }
    }
    outcomes
}

fn run_one(out: &mut impl Write, case: &Case) -> Outcome {
    say(out, &format!("test {} ... ", case.name));
    let start = Instant::now();
    let outcome = match catch_unwind(AssertUnwindSafe(|| (case.body)())) {
        Ok(()) => Outcome::Passed,
        Err(_) => Outcome::Failed(std::mem::take(&mut noted())),
    };
    let word = if matches!(outcome, Outcome::Passed) { "ok" } else { "FAILED" };
    say(out, &format!("{word} ({:.1} s)\n", start.elapsed().as_secs_f64()));
    outcome
}

/// Prints the failures again, all together, and the line that closes a libtest run.
fn conclude(out: &mut impl Write, cases: &[&Case], outcomes: &[Outcome], filtered: usize) -> ExitCode {
    let strict = std::env::var("TUNGATE_TEST_ALL").is_ok_and(|value| value == "1");
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (case, outcome) in cases.iter().zip(outcomes) {
        match outcome {
            Outcome::Passed => passed += 1,
            Outcome::Failed(text) => {
                failed += 1;
                say(out, &format!("\n---- {} ----\n{text}\n", case.name));
            }
            Outcome::Skipped => skipped += 1,
        }
    }
    if skipped > 0 && strict {
        say(out, &format!("\n{skipped} skipped, which TUNGATE_TEST_ALL=1 counts as failures\n"));
        failed += skipped;
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    say(
        out,
        &format!(
            "\ntest result: {verdict}. {passed} passed; {failed} failed; {skipped} ignored; 0 measured; \
             {filtered} filtered out\n"
        ),
    );
    if skipped > 0 {
        say(out, &format!("{skipped} skipped: see the lines above for what each needs\n"));
    }
    say(out, "\n");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn reason_to_skip(case: &Case, root: bool) -> Option<String> {
    if !root {
        return Some(
            "network namespaces need root; run: sudo env \"PATH=$PATH\" cargo test --release --test namespaces".into(),
        );
    }
    let nft: &[&str] = if case.control { &["nft"] } else { &[] };
    let needs = ["ip", "bash", "sysctl"].iter().chain(nft).chain(case.needs);
    let missing: Vec<&str> = needs.filter(|program| process::find(program).is_none()).copied().collect();
    if missing.is_empty() {
        return None;
    }
    let packages: Vec<&str> = missing.iter().map(|program| package_of(program)).collect();
    Some(format!("there is no {}; run: apt-get install {}", missing.join(", "), packages.join(" ")))
}

/// The Debian package of a program.
fn package_of(program: &str) -> &str {
    match program {
        "ip" | "ss" | "nstat" => "iproute2",
        "nft" => "nftables",
        "sysctl" => "procps",
        "dig" => "bind9-dnsutils",
        "dnsmasq" => "dnsmasq-base",
        "ping" => "iputils-ping",
        "arping" => "iputils-arping",
        other => other,
    }
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// On Ctrl-C or a request to end: the labs go first, then we.
fn remove_labs_on_signals() {
    let mut signals = signal_hook_mio::v1_0::Signals::new([libc::SIGINT, libc::SIGTERM, libc::SIGHUP])
        .expect("these signals can be caught");
    let mut poll = Poll::new().expect("there is a file descriptor left");
    poll.registry().register(&mut signals, Token(0), Interest::READABLE).expect("a fresh poll takes a source");
    let wait = move || {
        let mut events = Events::with_capacity(1);
        loop {
            // An interrupted wait is tried again: the signal that interrupted it is what we wait for.
            let _ = poll.poll(&mut events, None);
            if let Some(signal) = signals.pending().next() {
                lab::remove_all();
                std::process::exit(128 + signal);
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).expect("a second thread starts");
}

/// Prints at once: a case may take long, and its name should stand there while it runs.
pub(crate) fn say(out: &mut impl Write, text: &str) {
    // A reader that has gone is no reason to leave a lab behind.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
