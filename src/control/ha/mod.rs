//! The pair: two gateways, of which one forwards and the other has all its flows and waits.
//!
//! The part that decides about roles is sans-IO: told what happened and when ([`Event`]), it says what to do
//! ([`Action`]). It knows no clock, socket or thread, so that a model checker and a simulator drive what the daemon runs.

mod announcer;
mod epoch;
mod event;
pub mod header;
mod heartbeat;
pub mod keys;
mod machine;
pub mod message;
mod peer;
mod report;
pub mod seal;
mod state;
pub mod sync;
mod timers;

pub use self::announcer::{BURST, REFRESH};
pub use self::epoch::{Epoch, NodeId};
pub use self::event::{Action, Command, Event, Legs, Permit, Refusal, Replica, SyncReport};
pub use self::heartbeat::{Digest, Echo, Flags, Goodbye, Handoff, Heartbeat, MAX_PATHS, PathId, Progress, Step};
pub use self::machine::{Core, Mode, PeerStatus, Settings, Status, Unready};
pub use self::peer::PathStatus;
pub use self::report::{PathReport, Report};
pub use self::state::{Cause, Reason, State, Transition};
pub use self::timers::{LOSSES, Profile, Timers};

#[cfg(test)]
mod tests;
