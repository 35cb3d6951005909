//! Which backend takes a new flow.
//!
//! A scheduler is built once for a set of candidates and never changes: when a weight, a health state or the
//! configuration does, another one is built beside the workers and swapped in. What moves while it lives, the number of
//! flows on each backend, stands in [`Loads`].

mod least;
mod loads;
mod maglev;
mod weighted;

use std::fmt;

use crate::config::{Backend, BackendId, Balance};
use crate::wire::{Endpoint, Protocol};

pub use loads::Loads;

/// Picks the backend of a new flow. Shared by all workers; a pick takes no lock.
pub trait Scheduler: fmt::Debug + Send + Sync {
    /// The backend for this flow; `None` only if no candidate had a weight above 0.
    fn pick(&self, request: &Request<'_>) -> Option<BackendId>;
}

/// A backend that may take new flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What [`Scheduler::pick`] returns.
    pub id: BackendId,
    /// Identity, the same on every node and in every generation; the id is neither. Unique within a service.
    pub key: String,
    /// Share of new flows relative to the others; 0 takes no part.
    pub weight: u16,
}

impl Candidate {
    /// A configured backend with its configured weight. Its identity is its name, address and port.
    pub fn new(id: BackendId, backend: &Backend) -> Self {
        Self { id, key: format!("{} {}", backend.name, backend.place()), weight: backend.weight }
    }
}

/// The flow that wants a backend.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Who opens it.
    pub client: Endpoint,
    /// Where to: address and port that the service listens on.
    pub listen: Endpoint,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// 64 uniform bits from the engine's generator.
    pub random: u64,
    /// Flows on each backend now.
    pub loads: &'a Loads,
}

/// The scheduler that `balance` names, over the candidates with a weight above 0.
///
/// ```
/// use tungate::config::{BackendId, Balance};
/// use tungate::engine::scheduler::{Candidate, Loads, Request, build};
/// use tungate::wire::{Address, Endpoint, Protocol};
///
/// let candidate = |id, key: &str, weight| Candidate { id: BackendId(id), key: key.into(), weight };
/// let scheduler = build(Balance::Maglev, &[candidate(0, "b1 10.0.0.1:80", 1), candidate(1, "b2 10.0.0.2:80", 0)]);
/// let request = Request {
///     client: Endpoint::new(Address::v4([198, 51, 100, 7]), 40_000),
///     listen: Endpoint::new(Address::v4([192, 0, 2, 10]), 80),
///     protocol: Protocol::TCP,
///     random: 0,
///     loads: &Loads::new(),
/// };
/// assert_eq!(scheduler.pick(&request), Some(BackendId(0)));
/// ```
pub fn build(balance: Balance, candidates: &[Candidate]) -> Box<dyn Scheduler> {
    let live: Vec<&Candidate> = candidates.iter().filter(|c| c.weight > 0).collect();
    match balance {
        Balance::Maglev => Box::new(maglev::Maglev::by_flow(&live)),
        Balance::SourceHash => Box::new(maglev::Maglev::by_client(&live)),
        Balance::RoundRobin => Box::new(weighted::RoundRobin::new(&live)),
        Balance::Random => Box::new(weighted::Random::new(&live)),
        Balance::LeastConnections => Box::new(least::LeastConnections::new(&live)),
        Balance::PowerOfTwo => Box::new(least::PowerOfTwo::new(&live)),
    }
}

#[cfg(test)]
mod tests;
