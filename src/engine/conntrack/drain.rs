//! Which flows a gateway that is about to stop waits for.

use std::time::Duration;

use super::flow::{Direction, Flow, Lifecycle};
use crate::engine::Instant;
use crate::wire::Protocol;

/// Where no FIN will tell that it is over, a flow that was silent for so long is taken to be: longer than a client waits
/// before it repeats a SYN or a question.
const SILENCE: Duration = Duration::from_secs(10);

impl Flow {
    /// Whether it still carries something, so that ending it would be felt: an open TCP connection does, however silent;
    /// one that both sides have closed does not. A connection that is being opened, and any UDP flow, does for 10 s after
    /// its last packet.
    pub fn carries(&self, now: Instant) -> bool {
        let udp = self.key(Direction::Original).protocol == Protocol::UDP;
        match self.state().lifecycle() {
            Lifecycle::Closing => false,
            Lifecycle::Established if !udp => true,
            Lifecycle::HalfOpen | Lifecycle::Established => self.idle(now) < SILENCE,
        }
    }
}
