//! What changes something: another configuration, and what the operator says of a backend.

use super::answer::State;
use super::rows::{ChangeRow, HistoryRow, PlanRow, RejectedRow};
use super::{Operate, Response};
use crate::config::{BackendId, Snapshot};
use crate::control::history::{Cause, Source};
use crate::control::{Controller, Outlook};

pub(super) fn plan(state: &State<'_>, source: Option<Source>) -> Response {
    match source.map_or_else(state.read_file, Ok) {
        Ok(source) => respond(state.controller.plan(&source, state.admit)),
        Err(why) => Response::Invalid(why),
    }
}

pub(super) fn reload(state: &mut State<'_>, confirm_s: Option<u64>) -> Response {
    let confirm = confirm_s.map(std::time::Duration::from_secs);
    match (state.read_file)() {
        Ok(source) => respond(state.controller.reload(source, Cause::Reload, confirm, state.admit, state.now)),
        Err(why) => {
            log::error!("the configuration cannot be read, and nothing is changed: {why}");
            Response::Invalid(why)
        }
    }
}

pub(super) fn rollback(state: &mut State<'_>, steps: u64) -> Response {
    let steps = usize::try_from(steps).unwrap_or(usize::MAX);
    respond(state.controller.rollback(steps, state.admit, state.now))
}

pub(super) fn confirm(state: &mut State<'_>) -> Response {
    if state.controller.confirm() {
        log::info!("the configuration is confirmed");
        Response::Done
    } else {
        Response::NotFound("no configuration waits to be confirmed".to_owned())
    }
}

fn respond(outlook: Result<Outlook, String>) -> Response {
    match outlook {
        Ok(outlook) => Response::Plan(Box::new(row(&outlook))),
        Err(report) => Response::Invalid(report),
    }
}

fn row(outlook: &Outlook) -> PlanRow {
    let change = |change: &crate::config::Change| ChangeRow {
        sign: change.effect.sign().to_string(),
        subject: change.subject.clone(),
        change: change.text.clone(),
        effect: change.effect.name().to_owned(),
    };
    PlanRow {
        changes: outlook.plan.changes.iter().map(change).collect(),
        flows_kept: outlook.kept,
        flows_drained: outlook.drained,
        flows_lost: 0,
        needs_restart: outlook.plan.needs_restart(),
        warnings: (!outlook.warnings.is_empty()).then(|| outlook.warnings.clone()),
    }
}

pub(super) fn history(controller: &Controller) -> Response {
    let rows = controller.history().iter().enumerate().map(|(steps, applied)| HistoryRow {
        steps: steps as u64,
        at: applied.at,
        cause: applied.cause.name().to_owned(),
        file: applied.source.file.clone(),
        text: applied.source.text.clone(),
    });
    Response::History(rows.collect())
}

pub(super) fn rejected(controller: &Controller) -> Response {
    controller.rejected().map_or_else(
        || Response::NotFound("the last configuration was not refused".to_owned()),
        |rejected| {
            Response::Rejected(Box::new(RejectedRow {
                at: rejected.at,
                file: rejected.source.file.clone(),
                text: rejected.source.text.clone(),
                report: rejected.report.clone(),
            }))
        },
    )
}

/// A reason is a cell of a table, and a part of a line of the log.
const LONGEST_REASON: usize = 200;

pub(super) fn operate(state: &mut State<'_>, said: Operate) -> Response {
    let is_line = |reason: &String| reason.chars().count() <= LONGEST_REASON && !reason.contains(char::is_control);
    if !said.reason.as_ref().is_none_or(is_line) {
        return Response::Invalid(format!("error: a reason is one line of at most {LONGEST_REASON} characters"));
    }
    let snapshot = state.controller.snapshot();
    let id = match find(&snapshot, &said.backend) {
        Ok(id) => id,
        Err(why) => return Response::NotFound(why),
    };
    let lasting = said.for_s.map(std::time::Duration::from_secs);
    let (operation, reason) = (said.operation.to_string(), said.reason.as_deref().unwrap_or_default());
    log::info!(backend = said.backend, operation, seconds:? = said.for_s, reason; "the operator says");
    state.controller.operate(id, &said.operation, said.reason, lasting, state.now);
    if said.cut {
        let table = &state.controller.shared().table;
        let mut doomed = Vec::new();
        table.for_each(|flow| {
            if flow.backend() == id {
                doomed.push(flow.hold());
            }
        });
        doomed.into_iter().for_each(state.end_flow);
    }
    Response::Done
}

/// The one backend of the configuration that is meant.
fn find(snapshot: &Snapshot, name: &str) -> Result<BackendId, String> {
    let found = snapshot.find_backends(name)?;
    let mut present = found.into_iter().filter(|id| snapshot.has_backend(*id));
    match (present.next(), present.next()) {
        (Some(id), None) => Ok(id),
        (Some(_), Some(_)) => Err(format!("several services have a backend `{name}`: write SERVICE/BACKEND")),
        (None, _) => Err(format!("the configuration has no backend `{name}` any more; its last flows go on")),
    }
}
