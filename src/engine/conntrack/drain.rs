//! Which flows a gateway that is about to stop waits for.

use std::time::Duration;

use super::flow::Flow;
use super::state::{Lifecycle, State};
use crate::engine::Instant;
use crate::wire::Protocol;

/// Where no FIN will tell that it is over, a flow that was silent for so long is taken to be: longer than a client waits
/// before it repeats a SYN or a question.
const SILENCE: Duration = Duration::from_secs(10);

impl Flow {
    /// Whether it still carries something, so that ending it would be felt: an open TCP connection does, however silent;
    /// one that both sides have closed does not. A connection that is being opened, any UDP flow, and a connection that
    /// the client has closed while its backend answers past us, do for 10 s after their last packet.
    pub fn carries(&self, now: Instant) -> bool {
        let state = self.state();
        match state.lifecycle() {
            Lifecycle::Closing => false,
            Lifecycle::Established if self.is_ended_by_packets(state) => true,
            Lifecycle::HalfOpen | Lifecycle::Established => self.idle(now) < SILENCE,
        }
    }

    /// Whether a packet that passes here will tell that it is over.
    fn is_ended_by_packets(&self, state: State) -> bool {
        let backend_is_heard = !self.is_tunnelled();
        self.protocol() == Protocol::TCP && (backend_is_heard || state != State::FinWait)
    }
}
