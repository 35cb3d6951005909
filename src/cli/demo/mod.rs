//! `demo`: a whole lab on one machine, nothing to install.

pub(super) mod lab;
mod traffic;

use std::io::{IsTerminal as _, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::exit::{Exit, Failure};
use super::{decap, run};
use crate::config::{self, Snapshot};
use crate::engine::{DropReason, Shared};
use crate::io::control::ServeError;
use crate::io::daemon::Daemon;
use crate::io::decap::{Decap, DecapConfig};
use crate::io::namespace::enter_user_namespace;
use crate::io::sys::{self, Waker};
use crate::io::tun::Offloads;
use crate::io::words::{in_words, with_remedy};
use lab::Lab;
use traffic::{Tally, Way};

/// Requests of each way that `--once` sends.
const REQUESTS: u32 = 250;
/// How often the table is drawn.
const REFRESH: Duration = Duration::from_secs(1);
/// How long a client of the live demo waits between two requests.
const PACE: Duration = Duration::from_millis(20);

/// See it work: a client, a gateway and two backends on this machine
///
/// Each has a network namespace of its own, with no way out of it; real TCP and UDP flows of both families go from the
/// client through the gateway to the backends. Nothing has to be installed. Without root it uses a user namespace, where
/// the system allows that. Everything is gone when it ends, by Ctrl-C or otherwise.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tungate demo           a live table, until Ctrl-C\n  \
                        tungate demo --mode dsr\n  \
                        tungate demo --once    a fixed load; exits with 0 only if every request was served")]
pub(super) struct Demo {
    /// How flows reach their backend
    #[arg(long, value_name = "MODE", default_value = "nat")]
    mode: Mode,
    /// Send a fixed load, print the summary, exit with 0 only if every request was served
    #[arg(long)]
    once: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Destination and source are rewritten
    Nat,
    /// Requests go in tunnels, answers past the gateway
    Dsr,
}

impl Demo {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<Exit, Failure> {
        if sys::effective_user() != 0 {
            enter_user_namespace().map_err(|error| Failure::new(Exit::Refused, error.to_string()))?;
        }
        let lab = Lab::build().map_err(|error| {
            Failure::new(if error.is_refusal() { Exit::Refused } else { Exit::No }, error.to_string())
        })?;
        let (text, picture) = match self.mode {
            Mode::Nat => (lab::NAT, NAT_PICTURE),
            Mode::Dsr => (lab::DSR, DSR_PICTURE),
        };
        let snapshot = config::load(text, "demo.toml", None, "demo").expect("the demo's configuration is valid");
        if self.mode == Mode::Dsr {
            lab.connect_backends_to_the_client().map_err(|error| Failure::no(error.to_string()))?;
            take_tunnels_apart(&lab, &snapshot)?;
        }
        for (namespace, name) in lab.backends.iter().zip(["b1", "b2"]) {
            let serve = || match self.mode {
                Mode::Nat => traffic::serve(name, "[::]:8080", &["[::]:5353"]),
                // A UDP socket that listens everywhere would not answer from the service's address.
                Mode::Dsr => traffic::serve(name, "[::]:80", &["192.0.2.10:53", "[2001:db8::10]:53"]),
            };
            let served = namespace.run(serve).map_err(|error| Failure::no(error.to_string()))?;
            served.map_err(|error| {
                Failure::no(format!("the demo's backend {name} cannot listen: {}", with_remedy(&error)))
            })?;
        }
        let start = || Daemon::start(snapshot, Offloads::All);
        let daemon = lab.gateway.run(start).map_err(|error| Failure::no(error.to_string()))?;
        let mut daemon = daemon.map_err(|error| run::start_failure(&error))?;
        writeln!(out, "{picture}")?;
        if self.once { once(&lab, &mut daemon, out) } else { live(&lab, picture, &mut daemon, out) }
    }
}

/// Starts the backends' half of the tunnels, which ends with the process.
fn take_tunnels_apart(lab: &Lab, snapshot: &Snapshot) -> Result<(), Failure> {
    let config = DecapConfig { interface: "decap".to_owned(), ..decap::of_gateway(snapshot) };
    for namespace in &lab.backends {
        let started = namespace.run(|| Decap::start(&config)).map_err(|error| Failure::no(error.to_string()))?;
        let decap = started.map_err(|error| decap::not_started(&error))?;
        let forever = Waker::new().map_err(|error| Failure::no(in_words(&error)))?;
        let run = move || decap.run(&forever);
        namespace.spawn("decap", run).map_err(|error| Failure::no(error.to_string()))?;
    }
    Ok(())
}

const DSR_PICTURE: &str = "\
  client 198.51.100.2 ---- gateway (tungate) ---- backend b1 10.0.1.1, fd00:1::1 (tungate decap)
   | |   2001:db8:1::2     |                 `--- backend b2 10.0.2.1, fd00:2::1 (tungate decap)
   | |                     `- services: web, TCP 192.0.2.10:80 [2001:db8::10]:80, in GRE
   | |                                  dns, UDP 192.0.2.10:53 [2001:db8::10]:53, in GUE
   | `---- answers ---- b1
   `------ answers ---- b2
";

const NAT_PICTURE: &str = "\
  client 198.51.100.2 ---- gateway (tungate) ---- backend b1 10.0.1.1, fd00:1::1
         2001:db8:1::2     |                 `--- backend b2 10.0.2.1, fd00:2::1
                           `- services: web, TCP 192.0.2.10:80 [2001:db8::10]:80
                                        dns, UDP 192.0.2.10:53 [2001:db8::10]:53
                              towards backends its flows come from 10.99.0.10, fd00:99::10
";

/// The fixed load, all four ways at once, then a large download.
fn once(lab: &Lab, daemon: &mut Daemon, out: &mut dyn Write) -> Result<Exit, Failure> {
    let tally = Arc::new(Mutex::new(Tally::default()));
    let clients = Way::ALL.map(|way| {
        let tally = Arc::clone(&tally);
        lab.client.spawn(way.name(), move || (0..REQUESTS).for_each(|_| traffic::ask(way, &tally)))
    });
    for client in clients {
        let client = client.map_err(|error| Failure::no(error.to_string()))?;
        let ran = client.join().map_err(|_| Failure::no("a client of the demo panicked: a bug of tungate"))?;
        ran.map_err(|error| Failure::no(error.to_string()))?;
    }
    let tally = tally.lock().expect("the clients have ended");
    table(&tally, daemon.shared(), out)?;
    still_serving(daemon)?;
    let mut whole = tally.failures() == 0;
    for way in [Way::TcpV4, Way::TcpV6] {
        let downloaded = lab.client.run(|| traffic::download(way)).map_err(|error| Failure::no(error.to_string()))?;
        match downloaded {
            Ok(rate) => writeln!(
                out,
                "{}: {} MiB downloaded and compared, {:.1} Gbit/s",
                way.name(),
                traffic::DOWNLOAD >> 20,
                rate * 8.0 / 1e9
            )?,
            Err(error) => {
                writeln!(out, "{}: the download failed: {}", way.name(), in_words(&error))?;
                whole = false;
            }
        }
    }
    let balanced = Way::ALL.iter().all(|way| tally.answered.keys().filter(|(on, _)| on == way).count() == 2);
    let asked = u64::from(REQUESTS) * Way::ALL.len() as u64;
    writeln!(out, "\n{} of {asked} requests served, by both backends: {balanced}", asked - tally.failures())?;
    if whole && balanced { Ok(Exit::Yes) } else { Ok(Exit::No) }
}

/// Traffic until Ctrl-C, which ends the process and with it all namespaces.
fn live(lab: &Lab, picture: &str, daemon: &mut Daemon, out: &mut dyn Write) -> Result<Exit, Failure> {
    let tally = Arc::new(Mutex::new(Tally::default()));
    for way in Way::ALL {
        let tally = Arc::clone(&tally);
        let client = lab.client.spawn(way.name(), move || {
            loop {
                traffic::ask(way, &tally);
                // A wait on nothing is a pause.
                let _ = sys::wait(&[], Some(PACE));
            }
        });
        client.map_err(|error| Failure::no(error.to_string()))?;
    }
    let terminal = std::io::stdout().is_terminal();
    loop {
        let _ = sys::wait(&[], Some(REFRESH));
        if terminal {
            writeln!(out, "\x1b[H\x1b[2J{picture}")?;
        }
        table(&tally.lock().expect("nobody panics while counting"), daemon.shared(), out)?;
        still_serving(daemon)?;
        writeln!(out, "Ctrl-C ends it, and nothing is left behind.")?;
        out.flush()?;
    }
}

/// Requests that fail would not say why.
fn still_serving(daemon: &mut Daemon) -> Result<(), Failure> {
    daemon.failure().map_or(Ok(()), |error| Err(Failure::no(ServeError::Worker(error).to_string())))
}

fn table(tally: &Tally, shared: &Shared, out: &mut dyn Write) -> Result<(), Failure> {
    writeln!(out, "{:<15} {:>8} {:>8} {:>8} {:>8}", "requests", "served", "by b1", "by b2", "failed")?;
    for way in Way::ALL {
        let by = |backend: &str| tally.answered.get(&(way, backend.to_owned())).copied().unwrap_or(0);
        let failed = tally.failed.get(&way).copied().unwrap_or(0);
        let (served, b1, b2) = (tally.answered_on(way), by("b1"), by("b2"));
        writeln!(out, "{:<15} {served:>8} {b1:>8} {b2:>8} {failed:>8}", way.name())?;
    }
    writeln!(out)?;
    for (way, example) in &tally.example {
        writeln!(out, "{:<15} {example}", way.name())?;
    }
    let counters = &shared.counters;
    let (packets_in, packets_out) = (counters.sum(|w| &w.received.packets), counters.sum(|w| &w.sent.packets));
    writeln!(out, "\ngateway: {packets_in} packets in, {packets_out} out, {} flows known", shared.table.len())?;
    for reason in DropReason::ALL {
        let dropped = counters.sum(|w| w.drops(*reason));
        if dropped > 0 {
            writeln!(out, "dropped: {dropped} {} ({})", reason.name(), reason.meaning())?;
        }
    }
    if let Some(failure) = &tally.last_failure {
        writeln!(out, "last failure: {failure}")?;
    }
    writeln!(out)?;
    Ok(())
}
