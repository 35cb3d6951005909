//! Another configuration: what it would change, and changing it.

use std::time::Duration;

use super::Controller;
use crate::config::{self, Plan, Snapshot, plan};
use crate::control::history::{Applied, Cause, Rejected, Source};
use crate::engine::Instant;
use crate::engine::conntrack::{Direction, Flow};

/// A plan, and what it means for the flows there are.
#[derive(Clone, Debug)]
pub struct Outlook {
    /// What changes.
    pub plan: Plan,
    /// Flows that go on as they do.
    pub kept: u64,
    /// Flows of what is removed, by this change or one before: they go on, and no other takes their place.
    pub drained: u64,
    /// What is doubtful in the new configuration, as told to a person; may be empty.
    pub warnings: String,
}

/// A configuration that has to be confirmed, or else gives way to the one before.
#[derive(Clone, Debug)]
pub(super) struct Unconfirmed {
    pub(super) until: Instant,
    pub(super) back_to: Source,
}

impl Controller {
    /// What [`Self::reload`] would do. One code path: the plan that is printed is the plan that is applied.
    ///
    /// # Errors
    /// The configuration cannot be used; what is wrong with it, as told to a person.
    pub fn plan(&self, source: &Source, admit: Admit<'_>) -> Result<Outlook, String> {
        self.prepare(source, admit).map(|(_, outlook)| outlook)
    }

    /// Puts another configuration in force; one that cannot be used changes nothing. With `confirm` it is taken back
    /// after that time, unless [`Self::confirm`] is called.
    ///
    /// # Errors
    /// As [`Self::plan`].
    pub fn reload(
        &mut self,
        source: Source,
        cause: Cause,
        confirm: Option<Duration>,
        admit: Admit<'_>,
        now: Instant,
    ) -> Result<Outlook, String> {
        let at = self.time(now);
        let (snapshot, outlook) = match self.prepare(&source, admit) {
            Ok(prepared) => prepared,
            Err(report) => {
                log::error!(file = source.file; "the configuration is refused, and nothing is changed: {report}");
                self.rejections += 1;
                self.rejected = Some(Rejected { at, source, report: report.clone() });
                return Err(report);
            }
        };
        let back_to = match self.unconfirmed.take() {
            Some(unconfirmed) => Some(unconfirmed.back_to),
            None => self.history.back(0).map(|applied| applied.source.clone()),
        };
        self.unconfirmed = confirm.zip(back_to).map(|(time, back_to)| Unconfirmed { until: now + time, back_to });
        self.rejected = None;
        self.apply(snapshot, now);
        log::info!(
            file = source.file,
            generation = self.snapshot().generation,
            changes = outlook.plan.changes.len(),
            cause = cause.name();
            "configuration in force"
        );
        self.history.push(Applied { at, cause, source });
        self.effects.history = true;
        Ok(outlook)
    }

    /// Puts that configuration in force again which was so many changes ago.
    ///
    /// # Errors
    /// There is none, or it cannot be used any more.
    pub fn rollback(&mut self, steps: usize, admit: Admit<'_>, now: Instant) -> Result<Outlook, String> {
        let Some(applied) = self.history.back(steps) else {
            let kept = self.history.iter().count().saturating_sub(1);
            return Err(format!(
                "error: {steps} changes back there is no configuration: {kept} are kept, see `tungate history`"
            ));
        };
        self.reload(applied.source.clone(), Cause::Rollback, None, admit, now)
    }

    /// The configuration in force stays; false if it would have stayed anyway.
    pub fn confirm(&mut self) -> bool {
        self.unconfirmed.take().is_some()
    }

    /// Until when the configuration in force has to be confirmed.
    pub fn unconfirmed_until(&self) -> Option<Instant> {
        self.unconfirmed.as_ref().map(|unconfirmed| unconfirmed.until)
    }

    /// Nobody has confirmed it: perhaps he cannot, by what it has changed.
    pub(super) fn give_way(&mut self, now: Instant) {
        if let Some(unconfirmed) = self.unconfirmed.take_if(|unconfirmed| unconfirmed.until <= now) {
            log::warn!("the configuration was not confirmed in time: the one before is put in force again");
            // It was in force before: if the system would have it no more, that has been told.
            let _ = self.reload(unconfirmed.back_to, Cause::Unconfirmed, None, &|_| Ok(()), now);
        }
    }

    fn prepare(&self, source: &Source, admit: Admit<'_>) -> Result<(Snapshot, Outlook), String> {
        let old = self.snapshot();
        let new = config::load(&source.text, &source.file, Some(&old), &self.host_name).map_err(|r| r.to_string())?;
        let (new, _) = self.complete(new);
        admit(&new)?;
        let plan = plan(&old, &new);
        let (mut kept, mut drained) = (0, 0);
        self.shared.table.for_each(|flow| *(if would_begin(&new, flow) { &mut kept } else { &mut drained }) += 1);
        let warnings = new.warnings.to_string();
        Ok((new.restrained_by(&old), Outlook { plan, kept, drained, warnings }))
    }
}

/// Whether there could be such a flow by this configuration: its backend is there, and its service listens where it came.
fn would_begin(new: &Snapshot, flow: &Flow) -> bool {
    let key = flow.key(Direction::Original);
    let service = new.listeners.service(key.destination, flow.protocol());
    new.has_backend(flow.backend()) && service == Some(flow.service())
}

/// Says why the machine cannot take a configuration, if it cannot.
pub type Admit<'a> = &'a dyn Fn(&Snapshot) -> Result<(), String>;
