//! `plan`, `reload`, `confirm`, `rollback`, `history`: from one configuration to the next, in the same process.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::exit::{Exit, Failure};
use super::output::{Format, Listing, seconds, span};
use super::show::{Ask, Daemon, done, items, unexpected};
use super::views::{HISTORY, PLAN};
use crate::admin::{HistoryRow, PlanRow, Request, Response};
use crate::control::Presence;
use crate::control::history::Source;
use crate::io::serve::Client;
use crate::io::sys;

/// How often it is looked whether what was removed still has flows.
const LOOK: Duration = Duration::from_millis(500);

/// Show what a reload would change, and what would become of the flows
///
/// One line for each change: + is new, - is removed and drained (its flows go on, and no other takes their place), ~ is
/// changed: in place, for new flows only, or at the next start. Exits with 1 if the configuration cannot be used.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tungate plan\n  tungate plan new.toml -o json")]
pub(super) struct Plan {
    /// The configuration to go to; without it, the file that the daemon was started with
    file: Option<PathBuf>,
    #[command(flatten)]
    daemon: Daemon,
    #[command(flatten)]
    listing: Listing,
}

/// Put the file that the daemon was started with in force, as it is now
///
/// The plan is printed, as by `tungate plan`, and is what is done. A configuration that cannot be used changes nothing:
/// then the exit code is 1. SIGHUP does the same.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tungate reload\n  tungate reload --confirm 60s && curl -f http://192.0.2.10/ && tungate confirm"
)]
pub(super) struct Reload {
    /// Wait until what was removed has no flows any more
    #[arg(long)]
    wait: bool,
    /// Go back to the configuration before if `tungate confirm` does not follow within this time
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    confirm: Option<Duration>,
    #[command(flatten)]
    daemon: Daemon,
}

/// Keep the configuration that `reload --confirm` has put in force
#[derive(Debug, Args)]
pub(super) struct Confirm {
    #[command(flatten)]
    daemon: Daemon,
}

/// Put an earlier configuration in force again
///
/// The file is left as it is: the next reload puts it in force again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tungate rollback\n  tungate rollback 3")]
pub(super) struct Rollback {
    /// How many changes to go back, as listed by `tungate history`
    #[arg(value_name = "N", default_value = "1")]
    steps: u64,
    #[command(flatten)]
    daemon: Daemon,
}

/// List the configurations that were in force, the one that is first
#[derive(Debug, Args)]
pub(super) struct History {
    #[command(flatten)]
    daemon: Daemon,
    #[command(flatten)]
    listing: Listing,
}

impl Plan {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<Exit, Failure> {
        let source = self.file.as_ref().map(|path| {
            let text = fs::read_to_string(path).map_err(|error| Failure::file(path, &error))?;
            Ok::<_, Failure>(Source { file: path.display().to_string(), text })
        });
        let request = Request::Plan { source: source.transpose()? };
        let asked = Ask { daemon: &self.daemon, listing: &self.listing, request };
        match self.listing.output {
            Format::Table | Format::Wide => {
                asked.tell(out, |out, response| items(response, plan)?.iter().try_for_each(|row| print(row, out)))
            }
            Format::Json | Format::Jsonl => asked.list(out, &PLAN, plan),
        }
    }
}

impl Reload {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<Exit, Failure> {
        let confirm_s = self.confirm.map(|confirm| confirm.as_secs());
        print(&ask(&self.daemon, Request::Reload { confirm_s })?, out)?;
        if let Some(confirm) = confirm_s {
            writeln!(out, "taken back in {} unless `tungate confirm` is called", span(confirm))?;
        }
        out.flush()?;
        while self.wait && removed_have_flows(&self.daemon)? {
            sys::wait(&[], Some(LOOK)).map_err(|error| Failure::no(error.to_string()))?;
        }
        Ok(Exit::Yes)
    }
}

/// Whether a backend that the configuration has not any more still has a flow.
fn removed_have_flows(daemon: &Daemon) -> Result<bool, Failure> {
    let mut some = false;
    Client::connect(&daemon.socket)?.ask(Request::ShowBackends { service: None }, |response| {
        let Response::Backends(rows) = response else { return Err(unexpected(response)) };
        some |= rows.iter().any(|row| row.config == Presence::Removed && row.flows > 0);
        Ok(())
    })?;
    Ok(some)
}

impl Confirm {
    pub(super) fn run(&self, _: &mut dyn Write) -> Result<Exit, Failure> {
        Client::connect(&self.daemon.socket)?.ask(Request::Confirm, done)?;
        Ok(Exit::Yes)
    }
}

impl Rollback {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<Exit, Failure> {
        print(&ask(&self.daemon, Request::Rollback { steps: self.steps })?, out)?;
        Ok(Exit::Yes)
    }
}

impl History {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<Exit, Failure> {
        Ask { daemon: &self.daemon, listing: &self.listing, request: Request::ShowHistory }.list(out, &HISTORY, history)
    }
}

fn history(response: Response) -> Result<Vec<HistoryRow>, Response> {
    if let Response::History(rows) = response { Ok(rows) } else { Err(response) }
}

fn plan(response: Response) -> Result<Vec<PlanRow>, Response> {
    if let Response::Plan(row) = response { Ok(vec![*row]) } else { Err(response) }
}

fn ask(daemon: &Daemon, request: Request) -> Result<PlanRow, Failure> {
    let mut rows = Vec::new();
    Client::connect(&daemon.socket)?.ask(request, |response| {
        rows.extend(items(response, plan)?);
        Ok::<_, Failure>(())
    })?;
    rows.pop().ok_or_else(|| Failure::no("the daemon gave no answer"))
}

fn print(plan: &PlanRow, out: &mut dyn Write) -> Result<(), Failure> {
    if let Some(warnings) = &plan.warnings {
        // There is nowhere to say that stderr is gone.
        let _ = writeln!(std::io::stderr(), "{warnings}");
    }
    for change in &plan.changes {
        let text = if change.change.is_empty() { String::new() } else { format!(": {}", change.change) };
        let when = match change.effect.as_str() {
            "new-flows" => " (new flows)",
            "restart" => " (needs a restart)",
            _ => "",
        };
        writeln!(out, "{} {}{text}{when}", change.sign, change.subject)?;
    }
    if plan.changes.is_empty() {
        writeln!(out, "nothing changes")?;
    }
    let PlanRow { flows_kept, flows_drained, flows_lost, .. } = plan;
    writeln!(out, "flows: {flows_kept} kept, {flows_drained} drained, {flows_lost} lost")?;
    Ok(())
}
