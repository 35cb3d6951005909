//! `ha`: the pair.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::exit::{Exit, Failure};
use super::output::{Format, Listing, duration, span};
use super::show::{Ask, Daemon, done, unexpected};
use super::views::HA;
use crate::admin::{HaRow, Order, Request, Response};
use crate::io::key_file::{self, KeyFileError};
use crate::io::serve::Client;
use crate::io::sys;

/// Two gateways of which one takes over when the other fails
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  tungate ha keygen /etc/tungate/ha.key\n  tungate ha status\n  tungate ha flip")]
pub(super) enum Ha {
    /// How the pair is: who serves, whether the other one could take over, and what has happened
    Status {
        #[command(flatten)]
        daemon: Daemon,
        #[command(flatten)]
        listing: Listing,
    },
    /// Hand over to the standby, without losing a flow
    ///
    /// To be asked of the active one. Refused, with the reason, where flows would be lost.
    Flip(Change),
    /// Have this gateway take over, even from a dead peer
    ///
    /// Refused where the peer is alive and active, or where this one does not have all flows.
    Promote(Change),
    /// Have this gateway give up the role, and stay passive until `resume`
    Standby(Change),
    /// End what `standby` began: the gateway takes part again
    Resume(Change),
    Keygen(Keygen),
}

/// What the verbs take that change something.
#[derive(Debug, Args)]
pub(super) struct Change {
    /// Although flows may be lost
    #[arg(long)]
    force: bool,
    /// How long to wait for the change to be complete
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    wait: Duration,
    #[command(flatten)]
    daemon: Daemon,
}

/// Make the key that two gateways share
///
/// The file is readable by its owner only, and has to stay so; it is never written over. Copy it to the other gateway.
///
/// To change keys without a pause: append the new file's line to the old file on both gateways, then move it to the top
/// on both, then remove the old line from both.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tungate ha keygen /etc/tungate/ha.key\n  tungate ha keygen --id 2 new.key")]
pub(super) struct Keygen {
    /// The file to make
    file: PathBuf,
    /// The key's number, which tells it apart from the others of a file
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u8).range(1..))]
    id: u8,
}

impl Ha {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<Exit, Failure> {
        match self {
            Self::Status { daemon, listing } => status(daemon, listing, out),
            Self::Flip(change) => change.run(Order::Flip, |row| row.role != "active", out),
            Self::Promote(change) => change.run(Order::Promote, |row| matches!(&*row.state, "ACTIVE" | "SOLO"), out),
            Self::Standby(change) => change.run(Order::Standby, |row| row.role != "active", out),
            Self::Resume(change) => change.run(Order::Resume, |_| true, out),
            Self::Keygen(keygen) => keygen.run(out),
        }
    }
}

/// How the pair is: for people not a table of one row, for programs as every listing.
pub(super) fn status(daemon: &Daemon, listing: &Listing, out: &mut dyn Write) -> Result<Exit, Failure> {
    let ask = Ask { daemon, listing, request: Request::ShowHa };
    if !matches!(listing.output, Format::Table | Format::Wide) {
        return ask.list(out, &HA, |response| row(response).map(|row| vec![row]));
    }
    let wide = listing.output == Format::Wide;
    ask.tell(out, |out, response| Ok(tell(&row(response).map_err(unexpected)?, wide, out)?))
}

fn row(response: Response) -> Result<HaRow, Response> {
    if let Response::Ha(row) = response { Ok(*row) } else { Err(response) }
}

fn tell(row: &HaRow, wide: bool, out: &mut dyn Write) -> std::io::Result<()> {
    let HaRow { name, role, state, epoch, .. } = row;
    writeln!(out, "{name}: {role} ({state}), epoch {epoch}")?;
    match &row.ready_reason {
        None => writeln!(out, "  ready: a takeover loses nothing")?,
        Some(why) => writeln!(out, "  not ready: {why}")?,
    }
    let ago = |seconds: Option<f64>| seconds.map_or_else(|| "never".to_owned(), |s| format!("{} ago", short(s)));
    let peer = &row.peer;
    let state = peer.state.as_deref().unwrap_or("not heard yet");
    writeln!(out, "  peer {}: {state}, heard {}", peer.name, ago(peer.last_seen_s))?;
    let priority = if row.real_time { "real-time priority" } else { "no real-time priority" };
    let (beat, dead, mode) = (short(row.heartbeat_s), short(row.dead_s), &row.split_brain);
    writeln!(out, "  heartbeat {beat}, dead after {dead}, {priority}, split-brain {mode}")?;
    if row.held {
        writeln!(out, "  held: it changed its role too often; `tungate ha resume` ends that")?;
    }
    for path in &row.paths {
        let trip = path.round_trip_s.map_or_else(|| "-".to_owned(), short);
        let (heard, lost) = (ago(path.heard_s), path.lost);
        writeln!(out, "  path {} - {}: heard {heard}, there and back {trip}, {lost} lost", path.listen, path.peer)?;
    }
    writeln!(out, "  flows: {} synced, {} not", row.flows_synced, row.flows_unsynced)?;
    for reject in row.rejected.iter().filter(|_| wide) {
        writeln!(out, "  refused: {} datagrams, {}", reject.packets, reject.reason)?;
    }
    let now = sys::wall_clock().as_secs_f64();
    for change in row.transitions.iter().take(if wide { usize::MAX } else { 5 }) {
        let age = span(Duration::try_from_secs_f64(now - change.at).unwrap_or_default().as_secs());
        writeln!(out, "  {age} ago {} -> {}: {}", change.from, change.to, change.cause)?;
    }
    Ok(())
}

/// A time of any length in a few letters.
fn short(seconds: f64) -> String {
    match seconds {
        s if s < 0.000_999 => format!("{:.0} us", s * 1e6),
        s if s < 0.999 => format!("{:.0} ms", s * 1e3),
        s => format!("{s:.1} s"),
    }
}

impl Change {
    /// Asks for it, and waits until it is so.
    fn run(&self, order: Order, is_done: fn(&HaRow) -> bool, out: &mut dyn Write) -> Result<Exit, Failure> {
        let mut client = Client::connect(&self.daemon.socket)?;
        client.ask(Request::Ha { order, force: self.force }, done)?;
        let until = sys::now() + self.wait;
        loop {
            let mut seen = None;
            client.ask(Request::ShowHa, |response| {
                seen = Some(row(response).map_err(unexpected)?);
                Ok::<_, Failure>(())
            })?;
            let Some(seen) = seen else { return Err(Failure::no("the daemon's answer is empty")) };
            if is_done(&seen) {
                let peer = seen.peer.state.as_deref().unwrap_or("not heard");
                writeln!(out, "{} is {} ({}), its peer {peer}", seen.name, seen.role, seen.state)?;
                return Ok(Exit::Yes);
            }
            if sys::now() >= until {
                let message = format!("it is not done yet: {} is {}", seen.name, seen.state);
                return Err(Failure::no(message).help("`tungate ha status` says why, and the daemon's log"));
            }
            // A flip takes a few heartbeats.
            sys::wait(&[], Some(Duration::from_millis(5)))
                .map_err(|error| Failure::no(format!("cannot wait: {error}")))?;
        }
    }
}

impl Keygen {
    fn run(&self, out: &mut dyn Write) -> Result<Exit, Failure> {
        key_file::create(&self.file, self.id).map_err(|error| key_failure(&error))?;
        writeln!(
            out,
            "A new key is in {}: copy it to the other gateway, and let nobody else read it.",
            self.file.display()
        )?;
        Ok(Exit::Yes)
    }
}

fn key_failure(error: &KeyFileError) -> Failure {
    Failure::new(if error.is_refusal() { Exit::Refused } else { Exit::No }, error.to_string())
}
