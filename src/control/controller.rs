//! The one owner of slow state, and the only writer of the engine's policy.

mod found;
mod reload;

use std::collections::HashSet;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::discovery::Sources;
use super::ha;
use super::health::{Event, Observations, Record};
use super::history::{Applied, Cause, History, Rejected, Source};
use super::overrides::{Operation, Override, Overrides, UnixTime};
use super::standing::{Health, Presence, Standing};
use crate::config::{Backend, BackendId, Snapshot};
use crate::engine::conntrack::Direction;
use crate::engine::{Instant, Policy, Shared};
use crate::wire::Prefix;

use reload::Unconfirmed;
pub use reload::{Admit, Outlook};

/// How often it is looked whether what was removed still has flows, at most: to look at a flow takes some 200 ns, and the
/// looking is to take a fiftieth of a CPU.
const SWEEP: Duration = Duration::from_secs(1);
const SWEEP_FOR_EACH_FLOW: Duration = Duration::from_micros(10);

/// How often it is noted, for the time after a restart, that the backends of overrides are there.
const ROLL_CALL: Duration = Duration::from_secs(24 * 3600);

/// What the configuration, the operator and the health checks say, and the policy that follows from it.
///
/// Whoever changes something calls [`Self::handle_timeout`] soon after: then the policy is made, once for all that has
/// changed, and [`Self::effects`] tells what else is to be done.
#[derive(Debug)]
pub struct Controller {
    shared: Arc<Shared>,
    /// Time of day when [`Instant`]s began.
    epoch: Duration,
    host_name: String,
    history: History,
    /// The last configuration, if it was refused.
    rejected: Option<Rejected>,
    /// How many were.
    rejections: u64,
    unconfirmed: Option<Unconfirmed>,
    overrides: Overrides,
    /// When to note next that the overrides' backends are there.
    next_roll_call: Instant,
    sources: Sources,
    /// What health checks have found.
    checks: Arc<Record>,
    observed: Observations,
    /// When to look again at what flows tell.
    next_review: Option<Instant>,
    events: Vec<Event>,
    /// Whether the policy in force is not what would be made now.
    outdated: bool,
    /// No new flow is taken.
    closed: bool,
    /// Policies that workers may still go by.
    superseded: Vec<Weak<Policy>>,
    /// When to look whether what is retired still has flows.
    next_sweep: Option<Instant>,
    /// When what was found is to be kept.
    next_keeping: Option<Instant>,
    effects: Effects,
    /// How the pair was when somebody asked, if this is one of its gateways.
    pair: Option<ha::Report>,
}

/// What is to be done because of what has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// There is another policy: workers that sleep should hear of it.
    pub policy: bool,
    /// The snapshot has other addresses, or lost some that only flows had: routes and announcements follow it.
    pub addresses: bool,
    /// The overrides are others, and are to be kept over a restart.
    pub overrides: bool,
    /// So is the history.
    pub history: bool,
    /// Other sources are to be asked for backends.
    pub sources: bool,
    /// What they have said is to be kept over a restart.
    pub found: bool,
}

impl Controller {
    /// Of a gateway that goes by its configuration alone. `epoch` is the time of day, since 1970, at [`Instant::ZERO`].
    pub fn new(shared: Arc<Shared>, epoch: Duration) -> Self {
        let mut sources = Sources::default();
        let sources_changed = sources.follow(&shared.policy.load().snapshot);
        Self {
            shared,
            epoch,
            host_name: String::new(),
            history: History::default(),
            rejected: None,
            rejections: 0,
            unconfirmed: None,
            overrides: Overrides::default(),
            next_roll_call: Instant::ZERO + ROLL_CALL,
            sources,
            checks: Arc::default(),
            observed: Observations::default(),
            next_review: Some(Instant::ZERO),
            events: Vec::new(),
            outdated: false,
            closed: false,
            superseded: Vec::new(),
            next_sweep: None,
            next_keeping: None,
            effects: Effects { sources: sources_changed, ..Effects::default() },
            pair: None,
        }
    }

    /// Takes note of the configuration's text, and of those that were in force before the daemon was started; `host_name` is
    /// the gateway's name if a configuration gives no other.
    pub fn begin(&mut self, source: Source, host_name: &str, before: History, now: Instant) {
        host_name.clone_into(&mut self.host_name);
        self.history = before;
        let at = self.time(now);
        self.history.push(Applied { at, cause: Cause::Start, source });
        self.effects.history = true;
    }

    /// The configurations that were in force, the one that is first.
    pub const fn history(&self) -> &History {
        &self.history
    }

    /// The last configuration, if it was refused.
    pub const fn rejected(&self) -> Option<&Rejected> {
        self.rejected.as_ref()
    }

    /// How many configurations were refused since the start.
    pub const fn rejections(&self) -> u64 {
        self.rejections
    }

    /// Where health checks leave what they find.
    pub const fn checks(&self) -> &Arc<Record> {
        &self.checks
    }

    /// What the workers share.
    pub const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The configuration in force.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.shared.policy.load().snapshot)
    }

    /// What a backend is for new flows, and why.
    pub fn standing(&self, snapshot: &Snapshot, backend: &Backend) -> Standing<'_> {
        Standing {
            presence: if snapshot.has_backend(backend.id) { Presence::Present } else { Presence::Removed },
            configured_weight: backend.weight,
            overridden: self.overrides.of(snapshot, backend),
            observed: self.observed.of(backend.id),
        }
    }

    /// Puts another configuration in force. It must have been made from [`Self::snapshot`].
    pub fn apply(&mut self, snapshot: Snapshot, now: Instant) {
        self.effects.sources |= self.sources.follow(&snapshot);
        let (snapshot, refused) = self.complete(snapshot);
        self.sources.refuse(&refused);
        let time = self.time(now);
        let saw = self.overrides.see(&self.snapshot(), time);
        self.effects.overrides |= self.overrides.see(&snapshot, time) || saw;
        // Nobody looks at what is removed: if it comes back, it may be as something else, or without a check.
        self.observed.retain(|id| snapshot.has_backend(id));
        self.next_review = Some(now);
        self.put_in_force(&Arc::new(snapshot), now);
        self.effects.addresses = true;
    }

    /// What a health check has seen, or another observer; a backend that nobody looks at is `Unknown`.
    pub fn observe(&mut self, backend: BackendId, health: Health, reason: Option<String>, now: Instant) {
        let snapshot = self.snapshot();
        if !snapshot.has_backend(backend) {
            return; // It was removed while it was asked.
        }
        let before = self.observed.of(backend).map(|seen| seen.health).unwrap_or_default();
        self.events.extend(self.observed.observe(backend, health, reason, &snapshot, now));
        // The first answers of ten thousand backends change nothing if they are good.
        self.outdated |= (before == Health::Down) != (health == Health::Down);
    }

    /// What was said before a restart.
    pub fn restore(&mut self, overrides: Overrides, now: Instant) {
        self.overrides = overrides;
        let time = self.time(now);
        let (expired, forgot) = (self.overrides.expire(time), self.overrides.see(&self.snapshot(), time));
        self.effects.overrides |= expired || forgot;
        self.outdated = true;
    }

    /// The operator says something of a backend; `lasting` is how long `Drain` and `Disable` last.
    pub fn operate(
        &mut self,
        backend: BackendId,
        operation: &Operation,
        reason: Option<String>,
        lasting: Option<Duration>,
        now: Instant,
    ) {
        let snapshot = self.snapshot();
        let time = self.time(now);
        self.overrides.say((&snapshot, snapshot.backend(backend)), operation, reason, lasting, time);
        self.effects.overrides = true;
        self.outdated = true;
    }

    /// All that the operator has said and not taken back.
    pub const fn overrides(&self) -> &Overrides {
        &self.overrides
    }

    /// How long ago an override was said, and how long it lasts yet if it ends by itself.
    pub fn age(&self, said: &Override, now: Instant) -> (Duration, Option<Duration>) {
        let seconds = |later: UnixTime, earlier: UnixTime| Duration::from_secs(later.saturating_sub(earlier));
        let time = self.time(now);
        (seconds(time, said.since), said.until.map(|until| seconds(until, time)))
    }

    /// From now on no new flow is taken; those there are go on.
    pub fn close(&mut self) {
        self.closed = true;
        self.outdated = true;
    }

    /// That time as the span since 1970.
    pub fn time_of(&self, at: Instant) -> Duration {
        self.epoch + at.since(Instant::ZERO)
    }

    /// How the pair is, as it was last said.
    pub const fn pair(&self) -> Option<&ha::Report> {
        self.pair.as_ref()
    }

    /// How the pair is now.
    pub fn set_pair(&mut self, report: Option<ha::Report>) {
        self.pair = report;
    }

    /// When [`Self::handle_timeout`] wants to be called, if at all; in the past, if something has changed.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.outdated {
            return Some(Instant::ZERO);
        }
        let expiry = self.overrides.next_expiry().map(|time| self.instant(time));
        let roll_call = (!self.overrides.is_empty()).then_some(self.next_roll_call);
        let due = [expiry, roll_call, self.next_sweep, self.next_keeping, self.unconfirmed_until(), self.next_review];
        due.into_iter().flatten().min()
    }

    /// Does what is due: the policy after a change, the end of what was said for a time, the end of what is retired.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.overrides.expire(self.time(now)) {
            self.effects.overrides = true;
            self.outdated = true;
        }
        if self.next_roll_call <= now {
            self.next_roll_call = now + ROLL_CALL;
            self.overrides.see(&self.snapshot(), self.time(now));
            self.effects.overrides |= !self.overrides.is_empty();
        }
        self.give_way(now);
        if self.outdated || self.next_review.is_some_and(|at| at <= now) {
            self.review(now);
        }
        if self.outdated {
            self.put_in_force(&self.snapshot(), now);
        }
        if self.next_sweep.is_some_and(|at| at <= now) {
            self.sweep(now);
        }
        self.effects.found |= self.next_keeping.take_if(|at| *at <= now).is_some();
    }

    /// What is to be done since it was asked last.
    pub fn effects(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }

    /// What has happened to backends since it was asked last, oldest first.
    pub fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Looks at what flows tell of their backends, and at those that climb.
    fn review(&mut self, now: Instant) {
        let snapshot = self.snapshot();
        let (changed, events) = self.observed.review(&self.shared.failures, &snapshot, now);
        self.outdated |= changed;
        self.events.extend(events);
        self.next_review = self.observed.poll_timeout(&snapshot, now);
    }

    fn put_in_force(&mut self, snapshot: &Arc<Snapshot>, now: Instant) {
        let previous = self.shared.policy.load_full();
        let shares = self.observed.shares(snapshot, |backend| self.standing(snapshot, backend).wanted());
        let share = |backend: &Backend| shares.get(&backend.id).copied().unwrap_or(0);
        let policy = Policy::build(Arc::clone(snapshot), share, Some(&previous));
        let policy = if self.closed { policy.closed() } else { policy };
        self.shared.policy.store(Arc::new(policy));
        self.superseded.retain(|policy| policy.strong_count() > 0);
        self.superseded.push(Arc::downgrade(&previous));
        self.outdated = false;
        self.effects.policy = true;
        self.next_sweep = (!snapshot.retired.is_empty()).then(|| self.next_sweep.unwrap_or(now + SWEEP));
    }

    /// Gives up what no flow has any more, once no worker can begin one: only then may an id be another's.
    fn sweep(&mut self, now: Instant) {
        self.next_sweep = Some(now + SWEEP.max(SWEEP_FOR_EACH_FLOW * self.shared.table.len()));
        if self.superseded.iter().any(|policy| policy.strong_count() > 0) {
            return;
        }
        // What the workers did by those policies is seen now: each was dropped by a release.
        fence(Ordering::Acquire);
        let before = self.snapshot();
        let addresses = self.addresses_in_use(&before.retired.addresses);
        let loads = &self.shared.loads;
        let after = before.without(|backend| !loads.is_idle(backend), |address| addresses.contains(&address));
        if after.retired == before.retired {
            return;
        }
        let kept_services: HashSet<_> = after.retired.services.iter().map(|service| service.id).collect();
        let kept_backends: HashSet<_> = after.retired.backends.iter().map(|backend| backend.id).collect();
        let services = before.retired.services.iter().map(|service| service.id);
        let backends = before.retired.backends.iter().map(|backend| backend.id);
        self.shared.forget(
            services.filter(|id| !kept_services.contains(id)),
            backends.filter(|id| !kept_backends.contains(id)),
        );
        self.effects.addresses |= after.retired.addresses != before.retired.addresses;
        self.put_in_force(&Arc::new(after), now);
    }

    /// Those of the addresses that a flow has, as its VIP or as its source.
    fn addresses_in_use(&self, addresses: &[Prefix]) -> HashSet<Prefix> {
        let mut used = HashSet::new();
        if addresses.is_empty() {
            return used;
        }
        self.shared.table.for_each(|flow| {
            let ends = [
                Some(flow.key(Direction::Original).destination.address),
                Some(flow.key(Direction::Reply).destination.address),
                flow.path().as_ref().map(|path| path.tunnel().source),
            ];
            for end in ends.into_iter().flatten() {
                used.extend(addresses.iter().filter(|prefix| prefix.contains(end.ip())));
            }
        });
        used
    }

    /// The time of day, to the second.
    pub const fn time(&self, now: Instant) -> UnixTime {
        self.epoch.as_secs() + Duration::from_micros(now.as_micros()).as_secs()
    }

    /// When that time of day is over a whole second.
    fn instant(&self, time: UnixTime) -> Instant {
        Instant::ZERO + Duration::from_secs(time.saturating_sub(self.epoch.as_secs()))
    }
}

#[cfg(test)]
mod tests;
