//! Connection tracking: what a flow is, where it is kept, how its TCP state moves, when it is forgotten.

mod drain;
mod expiry;
mod flow;
mod index;
mod key;
mod list;
mod memory;
mod one_way;
mod queues;
mod record;
mod state;
mod sync;
mod table;
pub mod tcp;
mod wheel;
mod window;

pub use expiry::Expiry;
pub use flow::Flow;
pub(super) use flow::Plan;
pub use key::{Direction, FlowKey};
pub use memory::FlowRef;
pub use queues::Scope;
pub use record::{FlowRecord, Way};
pub use state::{Lifecycle, State};
pub(super) use table::Seen;
pub use table::{Listed, Refused, Table};
pub(super) use window::Fit;
