//! Slow state, sans-IO: what is known beside the packets, and what follows from it for new flows.
//!
//! The [`Controller`] alone decides what each backend is for new flows, from three things that are never mixed: what the
//! configuration says, what the operator has said ([`overrides`]), and what health checks have seen; which ones there are beside those of the
//! configuration, [`discovery`] says. From them it makes
//! the engine's policy, and swaps it in.

mod controller;
pub mod discovery;
pub mod ha;
pub mod health;
pub mod history;
pub mod overrides;
mod standing;

pub use controller::{Admit, Controller, Effects, Outlook};
pub use standing::{Administration, Health, Observed, Presence, Standing};
