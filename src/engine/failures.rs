//! What flows tell of their backends: how many in a row have failed before their backend has sent any data.
//!
//! Written by workers on the slow path alone, where a flow's state changes; read by the control thread, which ejects.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::Engine;
use super::conntrack::{Direction, Flow, State};
use crate::config::BackendId;
use crate::wire::Protocol;

/// How a flow failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Its SYN had to be repeated, or its time was over, without an answer.
    NoAnswer,
    /// Its SYN was refused.
    Refused,
    /// It was reset before any data came.
    Reset,
    /// An ICMP error said that the backend is not reached.
    Unreachable,
}

impl Failure {
    const ALL: [Self; 4] = [Self::NoAnswer, Self::Refused, Self::Reset, Self::Unreachable];

    /// A few words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoAnswer => "no answer to a SYN",
            Self::Refused => "connection refused",
            Self::Reset => "connection reset before any data",
            Self::Unreachable => "unreachable",
        }
    }
}

/// Failures in a row, of each backend by its id.
#[derive(Debug)]
pub struct Failures {
    /// How many in the upper thirty bits, the last of them in the lower two.
    runs: Box<[AtomicU32]>,
}

impl Default for Failures {
    fn default() -> Self {
        // For every id that there can be: a quarter of a megabyte, and no lock.
        Self { runs: (0..=u16::MAX).map(|_| AtomicU32::new(0)).collect() }
    }
}

impl Failures {
    /// How many there are in a row, and the last of them.
    pub fn run(&self, backend: BackendId) -> (u32, Failure) {
        let run = self.of(backend).load(Relaxed);
        (run >> 2, Failure::ALL[(run & 3) as usize])
    }

    /// Begins to count at so many.
    pub fn restart(&self, backend: BackendId, count: u32) {
        self.of(backend).store(count << 2, Relaxed);
    }

    /// One more. That two workers at once may lose one does no harm.
    pub(crate) fn add(&self, backend: BackendId, failure: Failure) {
        let run = self.of(backend);
        let count = (run.load(Relaxed) >> 2).saturating_add(1).min(1 << 20);
        run.store(count << 2 | failure as u32, Relaxed);
    }

    /// A flow has gone well.
    pub(crate) fn end(&self, backend: BackendId) {
        let run = self.of(backend);
        if run.load(Relaxed) != 0 {
            run.store(0, Relaxed);
        }
    }

    fn of(&self, backend: BackendId) -> &AtomicU32 {
        &self.runs[usize::from(backend.0)]
    }
}

impl Engine {
    /// The flow's state has changed from `before` by a packet of this direction.
    pub(super) fn learn_from_change(&self, flow: &Flow, before: State, direction: Direction) {
        let failures = &self.shared.failures;
        match (flow.state(), direction) {
            (State::Close, Direction::Reply) if before == State::SynSent => {
                failures.add(flow.backend(), Failure::Refused)
            }
            (State::Close, Direction::Reply) if !has_data(flow) => failures.add(flow.backend(), Failure::Reset),
            // Of a backend that answers past us only the client tells that it has answered.
            (State::Established, _) if flow.is_tunnelled() => failures.end(flow.backend()),
            (State::Replied | State::Assured, _) => failures.end(flow.backend()),
            (State::FinWait | State::CloseWait | State::LastAck | State::TimeWait | State::Close, _)
                if has_data(flow) =>
            {
                failures.end(flow.backend());
            }
            _ => {}
        }
    }

    /// A SYN came again before it was answered: once for each flow.
    pub(super) fn learn_from_repetition(&self, flow: &Flow) {
        if flow.traffic[Direction::Original as usize].packets.get() == 2 {
            self.shared.failures.add(flow.backend(), Failure::NoAnswer);
        }
    }

    /// The flow's time is over. A client that never was may have begun it: but not without an answer, if we would see it.
    pub(super) fn learn_from_end(&self, flow: &Flow) {
        let unanswered = flow.state() == State::SynSent && !flow.is_tunnelled();
        if unanswered && flow.traffic[Direction::Original as usize].packets.get() == 1 {
            self.shared.failures.add(flow.backend(), Failure::NoAnswer);
        }
    }

    /// An ICMP error says that a packet of the flow has not reached its backend.
    pub(super) fn learn_from_error(&self, flow: &Flow) {
        let is_tcp = flow.protocol() == Protocol::TCP;
        if !is_tcp || flow.state() == State::SynSent {
            self.shared.failures.add(flow.backend(), Failure::Unreachable);
        }
    }
}

/// Whether the backend has sent more than a SYN-ACK and an acknowledgement could be: 100 bytes with all headers and options.
fn has_data(flow: &Flow) -> bool {
    let sent = &flow.traffic[Direction::Reply as usize];
    sent.packets.get() > 2 || sent.bytes.get() > sent.packets.get() * 100
}
