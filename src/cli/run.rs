//! `run`: the daemon, in the foreground.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::time::Duration;

use ::log::LevelFilter;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};

use super::check;
use super::exit::{Exit, Failure};
use super::output::duration;
use crate::admin::{self, State};
use crate::config::Snapshot;
use crate::control::history::Source;
use crate::io::announce::AnnounceError;
use crate::io::control::{self, Signals};
use crate::io::daemon::{Daemon, StartError, admit};
use crate::io::log::{self, Format};
use crate::io::serve::Server;
use crate::io::state::StateDir;
use crate::io::sys;
use crate::io::tun::{Offloads, TunError};
use crate::io::words::in_words;

/// Run the gateway, in the foreground, until SIGTERM or Ctrl-C
///
/// Creates the TUN, routes the services' addresses and the source addresses to it, and serves. On the way out it
/// removes what it added. Needs root or CAP_NET_ADMIN in its network namespace.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tungate run -c /etc/tungate/tungate.toml")]
pub(super) struct Run {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// On SIGTERM, let the flows that still carry something go on for at most this long, and refuse new ones
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = duration)]
    drain: Duration,
    #[command(flatten)]
    logging: Logging,
    /// Take no super-packets from the kernel: to measure what they are worth
    #[arg(long, hide = true)]
    without_offloads: bool,
}

/// What is logged, and how.
#[derive(Debug, Args)]
pub(super) struct Logging {
    /// Which records to log
    #[arg(long, value_name = "LEVEL", env = "TUNGATE_LOG", hide_env_values = true, default_value = "info", value_parser = levels())]
    log_level: LevelFilter,
    /// How to log them, on stderr
    #[arg(long, value_name = "FORMAT", default_value = "logfmt")]
    log_format: LogFormat,
}

impl Logging {
    /// From here on.
    pub(super) fn start(&self) {
        let format = match self.log_format {
            LogFormat::Logfmt => Format::logfmt(),
            LogFormat::Json => Format::Json,
        };
        log::start(self.log_level, format).expect("a program installs one logger, when it starts its verb");
    }
}

/// The names of the levels, each with all that is more important.
fn levels() -> impl TypedValueParser<Value = LevelFilter> {
    PossibleValuesParser::new(["off", "error", "warn", "info", "debug", "trace"])
        .map(|name| name.parse().expect("these are the names that log gives its levels"))
}

/// How records are logged.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// key=value pairs
    Logfmt,
    /// One JSON object a line
    Json,
}

impl Run {
    pub(super) fn run(&self, _out: &mut dyn Write) -> Result<Exit, Failure> {
        let (snapshot, text) = check::load(&self.config)?;
        self.logging.start();
        let signals = Signals::catch().map_err(|error| Failure::no(error.to_string()))?;
        let server = Server::bind(&snapshot.gateway.admin_socket)
            .map_err(|error| Failure::new(Exit::Refused, error.to_string()))?;
        let offloads = if self.without_offloads { Offloads::None } else { Offloads::All };
        let mut daemon = Daemon::start(snapshot, offloads).map_err(|error| start_failure(&error))?;
        let file = self.config.display().to_string();
        let state_dir = daemon.shared().policy.load().snapshot.gateway.state_dir.clone();
        daemon.serve_http().map_err(|why| Failure::new(Exit::Refused, why))?;
        daemon.remember(StateDir::open(&state_dir), Source { file: file.clone(), text });
        daemon.join_pair().map_err(|error| start_failure(&error))?;
        tell_start(&daemon.controller().snapshot(), &file);
        let started = sys::now();
        let read_file = || {
            let text = fs::read_to_string(&self.config).map_err(|error| format!("{file}: {}", in_words(&error)))?;
            Ok(Source { file: file.clone(), text })
        };
        let served = control::serve(daemon, server, signals, self.drain, &mut |daemon, request| {
            daemon.look_at_pair();
            let (end_flow, order_pair, now) = (&daemon.flow_ender(), &daemon.pair_order(), sys::now());
            let kept = daemon.addresses().complaints();
            let controller = daemon.controller();
            let running = controller.snapshot();
            let admit = |new: &Snapshot| admit(new, &running.gateway.announce_on).map_err(|error| error.to_string());
            let (read_file, kept, admit) = (&read_file, &kept, &admit);
            let mut state = State { controller, end_flow, order_pair, started, now, read_file, kept, admit };
            admin::answer(request, &mut state)
        });
        served.map_err(|error| Failure::no(error.to_string()))?;
        ::log::info!("stopped: the interface and its routes are removed");
        Ok(Exit::Yes)
    }
}

/// What is served, in the log's first lines.
fn tell_start(snapshot: &Snapshot, file: &str) {
    ::log::info!(file, version = env!("CARGO_PKG_VERSION"), name = snapshot.gateway.name; "configuration in force");
    for service in &snapshot.services {
        let listen = service.listen.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        ::log::info!(service = service.name, listen, backends = service.backends.len(); "serving");
    }
    if snapshot.services.is_empty() {
        ::log::warn!("there is no service in the configuration: nothing will be forwarded");
    }
}

/// A gateway that did not start, told as it is.
pub(super) fn start_failure(error: &StartError) -> Failure {
    let refused = match error {
        StartError::Tun(TunError::NotPermitted | TunError::DeviceForbidden(_) | TunError::NameTaken(_)) => true,
        StartError::Kept(_) => true,
        StartError::Announce(AnnounceError::Socket(_, error)) => error.kind() == ErrorKind::PermissionDenied,
        StartError::Tun(_)
        | StartError::Addresses(_)
        | StartError::Route(_)
        | StartError::Announce(_)
        | StartError::Pair(_)
        | StartError::System(_) => false,
        StartError::Keys(error) => error.is_refusal(),
    };
    Failure::new(if refused { Exit::Refused } else { Exit::No }, error.to_string())
}
