//! What a running daemon can be asked, and what it answers: one pair of types for the admin socket, HTTP and the CLI.
//!
//! On the socket a question is one line of JSON, `{"version":1,"request":"show-services"}`, and its answer one or more,
//! `{"version":1,"more":false,"response":{"services":[...]}}`; `more` says that another line follows, so that a million
//! flows need neither one buffer nor one lock. Several questions may follow each other on one connection.

mod answer;
mod describe;
mod explain;
mod filter;
pub mod ha;
pub mod hex;
pub mod metrics;
mod operate;
mod rows;

use serde::{Deserialize, Serialize};

use crate::control::history::Source;
use crate::control::overrides::Operation;

pub use answer::{State, answer};
pub use describe::icmp_name;
pub use explain::{explain, reason, word};
pub use filter::FlowFilter;
pub use ha::{HaRow, Order};
pub use rows::{
    BackendRow, BenchRow, ChangeRow, ConfigRow, CountRow, DropRow, Explanation, FlowRow, HistoryRow, PlanRow, Probe,
    RejectedRow, ServiceRow, SourceRow, Stage, TunBenchRow, WorkerRow,
};

/// Version of the lines on the socket. Fields and requests are added within a version; a change of meaning makes a new
/// one, and a daemon answers [`Response::Refused`] to a version that it does not speak.
pub const VERSION: u32 = 1;

/// A question, with the version that the asker speaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// [`VERSION`] of the asker.
    pub version: u32,
    /// What is asked.
    pub request: Request,
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// All services.
    ShowServices,
    /// All backends, or those of one service.
    ShowBackends {
        /// The service's name.
        service: Option<String>,
    },
    /// The flows that the filter lets through.
    ShowFlows(FlowFilter),
    /// How many flows the filter lets through.
    CountFlows(FlowFilter),
    /// All packet workers.
    ShowWorkers,
    /// All drop reasons, those that never occurred included.
    ShowDrops,
    /// The sources of backends.
    ShowSources,
    /// The running configuration.
    ShowConfig,
    /// Ends the flows that the filter lets through.
    KillFlows(FlowFilter),
    /// What the engine would do with this packet, without doing it.
    Explain(Probe),
    /// What another configuration would change: this one, or that of the daemon's file.
    Plan {
        /// The configuration.
        source: Option<Source>,
    },
    /// Puts the configuration of the daemon's file in force.
    Reload {
        /// Seconds until it is taken back, if it is not confirmed.
        confirm_s: Option<u64>,
    },
    /// Keeps the configuration in force.
    Confirm,
    /// Puts that configuration in force again which was so many changes ago.
    Rollback {
        /// How many.
        steps: u64,
    },
    /// The configurations that were in force.
    ShowHistory,
    /// The last configuration, if it was refused.
    ShowRejected,
    /// The operator says something of a backend.
    Operate(Operate),
    /// How the pair is.
    ShowHa,
    /// The operator wants something of the pair.
    Ha {
        /// What.
        order: Order,
        /// Although flows may be lost.
        force: bool,
    },
}

/// What the operator says of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operate {
    /// `SERVICE/BACKEND`.
    pub backend: String,
    /// What.
    pub operation: Operation,
    /// Seconds until it is over by itself.
    pub for_s: Option<u64>,
    /// Why.
    pub reason: Option<String>,
    /// Whether its flows are ended.
    pub cut: bool,
}

/// One line of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// [`VERSION`] of the daemon.
    pub version: u32,
    /// Whether another line of the same answer follows.
    pub more: bool,
    /// The answer, or a part of it.
    pub response: Response,
}

/// What is answered. Lists may come in several parts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    /// To [`Request::ShowServices`].
    Services(Vec<ServiceRow>),
    /// To [`Request::ShowBackends`].
    Backends(Vec<BackendRow>),
    /// To [`Request::ShowFlows`].
    Flows(Vec<FlowRow>),
    /// To [`Request::CountFlows`] and [`Request::KillFlows`]: how many there were.
    Count(CountRow),
    /// To [`Request::ShowWorkers`].
    Workers(Vec<WorkerRow>),
    /// To [`Request::ShowDrops`].
    Drops(Vec<DropRow>),
    /// To [`Request::ShowSources`].
    Sources(Vec<SourceRow>),
    /// To [`Request::ShowConfig`].
    Config(ConfigRow),
    /// To [`Request::Explain`].
    Explained(Box<Explanation>),
    /// To [`Request::Plan`], [`Request::Reload`] and [`Request::Rollback`].
    Plan(Box<PlanRow>),
    /// To [`Request::ShowHistory`].
    History(Vec<HistoryRow>),
    /// To [`Request::ShowRejected`].
    Rejected(Box<RejectedRow>),
    /// To [`Request::ShowHa`].
    Ha(Box<HaRow>),
    /// It is done, and there is nothing more to say.
    Done,
    /// The configuration cannot be used, and nothing was changed: what is wrong with it, for a person.
    Invalid(String),
    /// Nothing of this name exists: a sentence that says what does.
    NotFound(String),
    /// The daemon will not, or does not understand: a sentence that says why.
    Refused(String),
}

/// The parts of an answer, made as the asker takes them. Never empty.
pub type Responses = Box<dyn Iterator<Item = Response>>;

impl Question {
    /// Reads one line.
    ///
    /// # Errors
    /// Why it is refused, in a sentence: not JSON, another version, or a request that this daemon does not know.
    pub fn parse(line: &[u8]) -> Result<Request, String> {
        #[derive(Deserialize)]
        struct AnyVersion {
            version: u32,
        }
        match serde_json::from_slice::<AnyVersion>(line) {
            Err(error) => return Err(format!("this is no question to tungate: {error}")),
            Ok(AnyVersion { version }) if version != VERSION => {
                return Err(format!(
                    "the question is in version {version} of the protocol, this daemon speaks version {VERSION}; \
                     use the `tungate` that belongs to it"
                ));
            }
            Ok(AnyVersion { .. }) => {}
        }
        match serde_json::from_slice::<Self>(line) {
            Ok(question) => Ok(question.request),
            Err(error) => Err(format!("this daemon does not know the request: {error}")),
        }
    }

    /// The line for a request, newline included.
    pub fn line(request: Request) -> Vec<u8> {
        line(&Self { version: VERSION, request })
    }
}

impl Answer {
    /// The line for a response, newline included.
    pub fn line(response: Response, more: bool) -> Vec<u8> {
        line(&Self { version: VERSION, more, response })
    }
}

fn line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).expect("our own types have string keys and no failing serializer");
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests;
