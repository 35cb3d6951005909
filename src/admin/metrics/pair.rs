//! The series of the pair.

use super::Series;
use crate::control::Controller;
use crate::control::ha::seal::Reject;
use crate::control::ha::{Cause, Report, State};

/// 1 for the role it has. A gateway without peer has none.
pub(super) fn role(controller: &Controller) -> Series {
    let role = controller.pair().map_or("none", |report| report.status.state.role());
    ["active", "standby", "none"].map(|each| (vec![each.to_owned()], f64::from(u8::from(each == role)))).into()
}

pub(super) fn state(controller: &Controller) -> Series {
    let state = controller.pair().map(|report| report.status.state);
    State::ALL.map(|each| (vec![each.name().to_owned()], f64::from(u8::from(state == Some(each))))).into()
}

/// A single number; 0 without peer.
pub(super) fn number(controller: &Controller, of: fn(&Report) -> f64) -> Series {
    vec![(vec![], controller.pair().map_or(0.0, of))]
}

pub(super) fn last_seen(report: &Report) -> f64 {
    report.status.peer.map_or(0.0, |peer| report.at.since(peer.heard_at).as_secs_f64())
}

pub(super) fn transitions(controller: &Controller) -> Series {
    let count = |cause: Cause| {
        let causes = controller.pair().map_or(&[][..], |report| &report.causes);
        causes.iter().find(|(name, _)| *name == cause.name()).map_or(0, |(_, count)| *count)
    };
    Cause::ALL.map(|cause| (vec![cause.name().to_owned()], super::series::precise(count(cause)))).into()
}

pub(super) fn refused(controller: &Controller) -> Series {
    let count = |reject: Reject| controller.pair().map_or(0, |report| report.rejects[reject as usize]);
    Reject::ALL.map(|reject| (vec![reject.name().to_owned()], super::series::precise(count(reject)))).into()
}
