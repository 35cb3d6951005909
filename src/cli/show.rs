//! `show` and `flows`: what a running daemon says of itself.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::exit::{Exit, Failure};
use super::output::{Format, Listing, Printer, View};
use super::views::{BACKENDS, CONFIG, COUNT, DROPS, FLOWS, REJECTED, SERVICES, SOURCES, WORKERS};
use crate::admin::{
    BackendRow, ConfigRow, CountRow, DropRow, FlowFilter, FlowRow, RejectedRow, Request, Response, ServiceRow,
    SourceRow, WorkerRow,
};
use crate::io::serve::{AskError, Client};
use crate::wire::Prefix;

/// Where the daemon is.
#[derive(Clone, Debug, Args)]
pub(super) struct Daemon {
    /// The admin socket of the daemon
    #[arg(
        long,
        value_name = "PATH",
        env = "TUNGATE_SOCKET",
        hide_env_values = true,
        default_value = "/run/tungate/tungate.sock"
    )]
    pub(super) socket: PathBuf,
}

/// Show what a running gateway does
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  tungate show services --watch 1s\n  \
                        tungate show flows --service web --client 198.51.100.0/24\n  \
                        tungate show backends -o json | jq '.items[] | select(.health == \"down\")'")]
pub(super) enum Show {
    /// Services: where they listen, how many backends they have, what they carry
    Services {
        #[command(flatten)]
        daemon: Daemon,
        #[command(flatten)]
        listing: Listing,
    },
    /// Backends: weight, health, what each of them carries
    Backends {
        /// Only those of this service
        #[arg(long, value_name = "NAME")]
        service: Option<String>,
        #[command(flatten)]
        daemon: Daemon,
        #[command(flatten)]
        listing: Listing,
    },
    /// Flows: who speaks to which backend
    Flows {
        #[command(flatten)]
        filter: Filter,
        /// Only say how many
        #[arg(long)]
        count: bool,
        #[command(flatten)]
        daemon: Daemon,
        #[command(flatten)]
        listing: Listing,
    },
    /// Packet workers: how busy each of them is
    Workers {
        #[command(flatten)]
        daemon: Daemon,
        #[command(flatten)]
        listing: Listing,
    },
    /// Dropped packets by reason (wide: also the reasons that never occurred)
    Drops {
        #[command(flatten)]
        daemon: Daemon,
        #[command(flatten)]
        listing: Listing,
    },
    /// Where backends are found that the configuration does not list
    Sources {
        #[command(flatten)]
        daemon: Daemon,
        #[command(flatten)]
        listing: Listing,
    },
    /// The pair: who serves, and whether the other one could take over
    Ha {
        #[command(flatten)]
        daemon: Daemon,
        #[command(flatten)]
        listing: Listing,
    },
    /// The configuration in force, as it was applied
    Config {
        /// The last one that was to be put in force instead, if it was refused, and why
        #[arg(long)]
        rejected: bool,
        #[command(flatten)]
        daemon: Daemon,
        #[command(flatten)]
        listing: Listing,
    },
}

/// End flows
#[derive(Debug, Subcommand)]
pub(super) enum Flows {
    /// End the flows that fit all of the given options
    ///
    /// Further packets of an ended TCP connection are answered with a reset; the client's next connection may go to
    /// another backend. Exits with 1 if there was no such flow.
    #[command(after_help = "Examples:\n  tungate flows kill --backend web/b1\n  \
                            tungate flows kill --service dns --client 198.51.100.7\n  tungate flows kill --all")]
    Kill {
        #[command(flatten)]
        filter: Filter,
        /// All flows
        #[arg(long, conflicts_with_all = ["service", "backend", "client", "state"])]
        all: bool,
        #[command(flatten)]
        daemon: Daemon,
    },
}

/// Which flows.
#[derive(Clone, Debug, Args)]
pub(super) struct Filter {
    /// Flows of this service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Flows to this backend: its name, or SERVICE/BACKEND
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// Flows of clients in this range: 198.51.100.0/24, 2001:db8::/32, or one address
    #[arg(long, value_name = "CIDR")]
    client: Option<Prefix>,
    /// Flows in this state, as listed: established, time-wait, ...
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
}

impl Filter {
    fn get(&self) -> FlowFilter {
        FlowFilter {
            service: self.service.clone(),
            backend: self.backend.clone(),
            client: self.client,
            state: self.state.clone(),
        }
    }
}

impl Show {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<Exit, Failure> {
        match self {
            Self::Services { daemon, listing } => {
                Ask { daemon, listing, request: Request::ShowServices }.list(out, &SERVICES, services)
            }
            Self::Backends { service, daemon, listing } => {
                let request = Request::ShowBackends { service: service.clone() };
                Ask { daemon, listing, request }.list(out, &BACKENDS, backends)
            }
            Self::Flows { filter, count: true, daemon, listing } if listing.output == Format::Table => {
                Ask { daemon, listing, request: Request::CountFlows(filter.get()) }.tell(out, |out, response| {
                    items(response, count)?.iter().try_for_each(|row| Ok(writeln!(out, "{}", row.flows)?))
                })
            }
            Self::Flows { filter, count: true, daemon, listing } => {
                Ask { daemon, listing, request: Request::CountFlows(filter.get()) }.list(out, &COUNT, count)
            }
            Self::Flows { filter, count: false, daemon, listing } => {
                Ask { daemon, listing, request: Request::ShowFlows(filter.get()) }.list(out, &FLOWS, flows)
            }
            Self::Workers { daemon, listing } => {
                Ask { daemon, listing, request: Request::ShowWorkers }.list(out, &WORKERS, workers)
            }
            Self::Drops { daemon, listing } => {
                let take = if listing.output == Format::Table { drops_that_occurred } else { drops };
                Ask { daemon, listing, request: Request::ShowDrops }.list(out, &DROPS, take)
            }
            Self::Sources { daemon, listing } => {
                Ask { daemon, listing, request: Request::ShowSources }.list(out, &SOURCES, sources)
            }
            Self::Ha { daemon, listing } => super::ha::status(daemon, listing, out),
            // For people it is the text that is worth reading, not a table of one row.
            Self::Config { rejected: true, daemon, listing } if listing.output == Format::Table => {
                Ask { daemon, listing, request: Request::ShowRejected }.tell(out, |out, response| {
                    items(response, rejected_config)?.iter().try_for_each(|row| Ok(writeln!(out, "{}", row.report)?))
                })
            }
            Self::Config { rejected: true, daemon, listing } => {
                Ask { daemon, listing, request: Request::ShowRejected }.list(out, &REJECTED, rejected_config)
            }
            Self::Config { daemon, listing, .. } if listing.output == Format::Table => {
                Ask { daemon, listing, request: Request::ShowConfig }.tell(out, |out, response| {
                    for config in items(response, configs)? {
                        writeln!(out, "# {}, generation {}, from {}", config.name, config.generation, config.file)?;
                        writeln!(out, "{}", config.text.trim_end())?;
                    }
                    Ok(())
                })
            }
            Self::Config { daemon, listing, .. } => {
                Ask { daemon, listing, request: Request::ShowConfig }.list(out, &CONFIG, configs)
            }
        }
    }
}

impl Flows {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<Exit, Failure> {
        let Self::Kill { filter, all, daemon } = self;
        let filter = filter.get();
        if filter == FlowFilter::default() && !all {
            return Err(Failure::new(Exit::Usage, "which flows?")
                .help("give at least one of --service, --backend, --client and --state, or --all"));
        }
        let mut killed = 0;
        Client::connect(&daemon.socket)?.ask(Request::KillFlows(filter), |response| {
            killed += items(response, count)?.iter().map(|row| row.flows).sum::<u64>();
            Ok::<_, Failure>(())
        })?;
        writeln!(out, "{killed} {} ended", if killed == 1 { "flow" } else { "flows" })?;
        Ok(if killed == 0 { Exit::No } else { Exit::Yes })
    }
}

/// A question to a daemon, and how its answer is listed.
pub(super) struct Ask<'a> {
    pub(super) daemon: &'a Daemon,
    pub(super) listing: &'a Listing,
    pub(super) request: Request,
}

impl Ask<'_> {
    /// Asks and has each part of the answer told in its own way, once or again and again.
    pub(super) fn tell(
        &self,
        out: &mut dyn Write,
        part: impl Fn(&mut dyn Write, Response) -> Result<(), Failure>,
    ) -> Result<Exit, Failure> {
        let mut client = Client::connect(&self.daemon.socket)?;
        self.listing.repeat(out, |out| client.ask(self.request.clone(), |response| part(out, response)))?;
        Ok(Exit::Yes)
    }

    /// Asks and prints, once or again and again.
    pub(super) fn list<T: Serialize>(
        &self,
        out: &mut dyn Write,
        view: &'static View<T>,
        take: fn(Response) -> Result<Vec<T>, Response>,
    ) -> Result<Exit, Failure> {
        let mut client = Client::connect(&self.daemon.socket)?;
        self.listing.repeat(out, |out| {
            let mut printer = Printer::new(out, self.listing.output, view);
            client.ask(self.request.clone(), |response| {
                for row in items(response, take)? {
                    printer.item(&row)?;
                }
                Ok::<_, Failure>(())
            })?;
            Ok(printer.finish()?)
        })?;
        Ok(Exit::Yes)
    }
}

/// The items of a part of an answer.
pub(super) fn items<T>(
    response: Response,
    take: impl Fn(Response) -> Result<Vec<T>, Response>,
) -> Result<Vec<T>, Failure> {
    take(response).map_err(unexpected)
}

/// An answer that is none to the question.
pub(super) fn unexpected(response: Response) -> Failure {
    if let Response::NotFound(what) = response {
        return Failure::no(what);
    }
    if let Response::Invalid(report) = response {
        return Failure::Reported(report);
    }
    AskError::Unintelligible(format!("it answers another question: {response:?}")).into()
}

/// To what is answered by that it is done.
pub(super) fn done(response: Response) -> Result<(), Failure> {
    if response == Response::Done { Ok(()) } else { Err(unexpected(response)) }
}

fn rejected_config(response: Response) -> Result<Vec<RejectedRow>, Response> {
    if let Response::Rejected(row) = response { Ok(vec![*row]) } else { Err(response) }
}

fn services(response: Response) -> Result<Vec<ServiceRow>, Response> {
    if let Response::Services(rows) = response { Ok(rows) } else { Err(response) }
}

fn backends(response: Response) -> Result<Vec<BackendRow>, Response> {
    if let Response::Backends(rows) = response { Ok(rows) } else { Err(response) }
}

fn flows(response: Response) -> Result<Vec<FlowRow>, Response> {
    if let Response::Flows(rows) = response { Ok(rows) } else { Err(response) }
}

fn count(response: Response) -> Result<Vec<CountRow>, Response> {
    if let Response::Count(row) = response { Ok(vec![row]) } else { Err(response) }
}

fn workers(response: Response) -> Result<Vec<WorkerRow>, Response> {
    if let Response::Workers(rows) = response { Ok(rows) } else { Err(response) }
}

fn drops(response: Response) -> Result<Vec<DropRow>, Response> {
    if let Response::Drops(rows) = response { Ok(rows) } else { Err(response) }
}

fn drops_that_occurred(response: Response) -> Result<Vec<DropRow>, Response> {
    Ok(drops(response)?.into_iter().filter(|row| row.packets > 0).collect())
}

fn sources(response: Response) -> Result<Vec<SourceRow>, Response> {
    if let Response::Sources(rows) = response { Ok(rows) } else { Err(response) }
}

fn configs(response: Response) -> Result<Vec<ConfigRow>, Response> {
    if let Response::Config(row) = response { Ok(vec![row]) } else { Err(response) }
}
