//! Copies the flows of the gateway that serves to the other one: a stream of changes over datagrams, complete and in order.
//!
//! Each change has a number, its LSN. The [`Sender`] keeps what has not been acknowledged; the [`Receiver`] hands on what is
//! next and keeps what came too early. A session begins with nothing and goes on until records are missing that cannot be
//! had any more; then there is another. Sans-IO, as all of this room.
//!
//! ```text
//! text of a SYNC:  session (4)  first LSN (8)  count (2)  changes
//! text of an ACK:  session (4)  applied up to (8)  gaps (1)  each: from (8) to (8)
//! ```

mod codec;
mod receiver;
mod sender;

#[cfg(test)]
mod tests;

pub use receiver::{Ack, Receiver, Taken};
pub use sender::Sender;

use crate::engine::{Change, WorkerId};

/// What stands in front of the changes in a text.
const FRONT: usize = 4 + 8 + 2;
/// Most gaps that an acknowledgment names: those behind them are told when these are filled.
const MOST_GAPS: usize = 8;

/// A change, and which worker has made it and is to make it on the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Whose flow it is about: both gateways have as many workers.
    pub worker: WorkerId,
    /// What has changed.
    pub change: Change,
}

/// A text that says nothing, though its sender is who he says: of another version, or this one has an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotUnderstood;
