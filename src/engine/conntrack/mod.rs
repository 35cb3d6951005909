//! Connection tracking: what a flow is, where it is kept, how its TCP state moves, when it is forgotten.

mod cache;
mod drain;
mod expiry;
mod flow;
mod list;
pub mod one_way;
mod queues;
mod sync;
mod table;
pub mod tcp;
mod wheel;
mod window;

pub use cache::FlowCache;
pub use expiry::Expiry;
pub(super) use flow::Plan;
pub use flow::{Direction, FLOW_LINES, Flow, FlowKey, Lifecycle, State};
pub use queues::Scope;
pub use table::{Refused, Table};
