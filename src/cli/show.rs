//! `show` and `flows`: what a running daemon says of itself.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::exit::{Exit, Failure};
use super::output::{Column, Format, Listing, Printer, View, size, span};
use crate::admin::{
    BackendRow, ConfigRow, CountRow, DropRow, FlowFilter, FlowRow, Prefix, Request, Response, ServiceRow, WorkerRow,
};
use crate::io::serve::{AskError, Client};

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
    /// The configuration in force, as it was applied
    Config {
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
    /// A packet of an ended TCP connection is dropped from then on; the next SYN opens a new flow, perhaps to another
    /// backend.
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
            Self::Config { daemon, listing } => {
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
struct Ask<'a> {
    daemon: &'a Daemon,
    listing: &'a Listing,
    request: Request,
}

impl Ask<'_> {
    /// Asks and prints, once or again and again.
    fn list<T: Serialize>(
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
    take(response).map_err(|other| {
        if let Response::NotFound(what) = other {
            return Failure::no(what);
        }
        AskError::Unintelligible(format!("it answers another question: {other:?}")).into()
    })
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

fn configs(response: Response) -> Result<Vec<ConfigRow>, Response> {
    if let Response::Config(row) = response { Ok(vec![row]) } else { Err(response) }
}

static SERVICES: View<ServiceRow> = View {
    kind: "ServiceList",
    columns: &[
        Column { title: "NAME", cell: |s| s.name.clone() },
        Column { title: "LISTEN", cell: |s| s.listen.join(" ") },
        Column { title: "PROTOCOL", cell: |s| s.protocol.clone() },
        Column { title: "+MODE", cell: |s| s.mode.clone() },
        Column { title: "BALANCE", cell: |s| s.balance.clone() },
        Column { title: ">BACKENDS", cell: |s| format!("{}/{}", s.backends_up, s.backends_total) },
        Column { title: ">FLOWS", cell: |s| s.flows.to_string() },
        Column { title: "+>OPENED", cell: |s| s.flows_opened.to_string() },
        Column { title: "+>REFUSED", cell: |s| s.flows_refused.to_string() },
        Column { title: "+>PACKETS IN", cell: |s| s.packets_in.to_string() },
        Column { title: "+>PACKETS OUT", cell: |s| s.packets_out.to_string() },
        Column { title: ">IN", cell: |s| size(s.bytes_in) },
        Column { title: ">OUT", cell: |s| size(s.bytes_out) },
    ],
};

static BACKENDS: View<BackendRow> = View {
    kind: "BackendList",
    columns: &[
        Column { title: "SERVICE", cell: |b| b.service.clone() },
        Column { title: "NAME", cell: |b| b.name.clone() },
        Column { title: "ADDRESS", cell: |b| b.address.clone() },
        Column { title: ">WEIGHT", cell: |b| b.weight.to_string() },
        Column { title: "+CONFIG", cell: |b| word(b.config) },
        Column { title: "ADMIN", cell: |b| word(b.admin) },
        Column { title: "+ADMIN REASON", cell: |b| b.admin_reason.clone().unwrap_or_default() },
        Column { title: "HEALTH", cell: |b| word(b.health) },
        Column { title: "+HEALTH REASON", cell: |b| b.health_reason.clone().unwrap_or_default() },
        Column { title: ">FLOWS", cell: |b| b.flows.to_string() },
        Column { title: "+>OPENED", cell: |b| b.flows_opened.to_string() },
        Column { title: "+>PACKETS IN", cell: |b| b.packets_in.to_string() },
        Column { title: "+>PACKETS OUT", cell: |b| b.packets_out.to_string() },
        Column { title: ">IN", cell: |b| size(b.bytes_in) },
        Column { title: ">OUT", cell: |b| size(b.bytes_out) },
    ],
};

static FLOWS: View<FlowRow> = View {
    kind: "FlowList",
    columns: &[
        Column { title: "PROTOCOL", cell: |f| f.protocol.clone() },
        Column { title: "CLIENT", cell: |f| f.client.clone() },
        Column { title: "LISTEN", cell: |f| f.listen.clone() },
        Column { title: "SOURCE", cell: |f| f.source.clone().unwrap_or_else(|| "-".to_owned()) },
        Column { title: "BACKEND", cell: |f| format!("{}/{}", f.service, f.backend) },
        Column { title: "STATE", cell: |f| f.state.clone() },
        Column { title: "+>AGE", cell: |f| span(f.age_s) },
        Column { title: ">IDLE", cell: |f| span(f.idle_s) },
        Column { title: "+>PACKETS IN", cell: |f| f.packets[0].to_string() },
        Column { title: "+>PACKETS OUT", cell: |f| f.packets[1].to_string() },
        Column { title: "+>IN", cell: |f| size(f.bytes[0]) },
        Column { title: "+>OUT", cell: |f| size(f.bytes[1]) },
        Column { title: "+SYNCED", cell: |f| if f.synced { "yes" } else { "no" }.to_owned() },
    ],
};

static COUNT: View<CountRow> =
    View { kind: "FlowCount", columns: &[Column { title: "FLOWS", cell: |c| c.flows.to_string() }] };

static WORKERS: View<WorkerRow> = View {
    kind: "WorkerList",
    columns: &[
        Column { title: "WORKER", cell: |w| w.worker.to_string() },
        Column { title: ">BUSY", cell: |w| format!("{:.1} %", w.busy_ratio * 100.0) },
        Column { title: ">PACKETS IN", cell: |w| w.packets_in.to_string() },
        Column { title: ">PACKETS OUT", cell: |w| w.packets_out.to_string() },
        Column { title: ">IN", cell: |w| size(w.bytes_in) },
        Column { title: ">OUT", cell: |w| size(w.bytes_out) },
        Column { title: "+>BATCHES", cell: |w| w.batches.to_string() },
        Column { title: "+>HANDED OVER", cell: |w| w.handed_over.to_string() },
    ],
};

static DROPS: View<DropRow> = View {
    kind: "DropList",
    columns: &[
        Column { title: "REASON", cell: |d| d.reason.clone() },
        Column { title: ">PACKETS", cell: |d| d.packets.to_string() },
        Column { title: "MEANING", cell: |d| d.meaning.clone() },
    ],
};

static CONFIG: View<ConfigRow> = View {
    kind: "Config",
    columns: &[
        Column { title: "NAME", cell: |c| c.name.clone() },
        Column { title: ">GENERATION", cell: |c| c.generation.to_string() },
        Column { title: "FILE", cell: |c| c.file.clone() },
    ],
};

/// The word that an enum has in JSON.
fn word(value: impl Serialize) -> String {
    let Ok(serde_json::Value::String(word)) = serde_json::to_value(value) else {
        unreachable!("only enums without fields come here")
    };
    word
}
