//! What is seen of each backend, by checks and by its flows, and what share of new flows follows from that.

use std::collections::HashMap;
use std::time::Duration;

use foldhash::fast::RandomState;

use crate::config::{Backend, BackendId, Passive, Service, Snapshot};
use crate::control::{Health, Observed};
use crate::engine::Instant;
use crate::engine::failures::Failures;

/// How often flows are asked what they tell of their backends, where that is asked at all.
const REVIEW: Duration = Duration::from_millis(50);
/// A backend that comes up gets its share in so many steps.
const STEPS: u32 = 10;

/// What is known of all backends.
#[derive(Debug, Default)]
pub struct Observations {
    of: HashMap<BackendId, One, RandomState>,
}

/// What is known of one.
#[derive(Debug, Default)]
struct One {
    /// What checks say.
    checked: Option<Observed>,
    ejected: Option<Ejection>,
    ramp: Option<Ramp>,
    /// Failures in a row when they were last looked at, and since when there are so many.
    run: Option<(u32, Instant)>,
}

#[derive(Debug)]
struct Ejection {
    until: Instant,
    observed: Observed,
}

/// It is about to get its whole share.
#[derive(Debug)]
struct Ramp {
    since: Instant,
    lasts: Duration,
    /// From 1; it is over at [`STEPS`].
    step: u32,
}

/// Something to be told, and to be acted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Which backend.
    pub backend: BackendId,
    /// What has happened to it.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A check says that it serves.
    Up,
    /// Checks say that it does not, for this reason.
    Down(String),
    /// It is down still, but for another reason.
    StillDown(String),
    /// Its flows fail: it is not given any for a while.
    Ejected(String),
    /// That while is over.
    Readmitted,
}

impl Observations {
    /// Takes note of what checks have found. A backend that nobody asks is `Unknown`.
    pub fn observe(
        &mut self,
        backend: BackendId,
        health: Health,
        reason: Option<String>,
        snapshot: &Snapshot,
        now: Instant,
    ) -> Option<Event> {
        let lasts = snapshot.service(snapshot.backend(backend).service).health.slow_start;
        let one = self.of.entry(backend).or_default();
        let (before, since) = one.checked.as_ref().map_or((Health::Unknown, now), |seen| (seen.health, seen.since));
        let since = if before == health { since } else { now };
        one.checked = Some(Observed { health, reason: reason.clone(), since });
        let why = || reason.unwrap_or_default();
        let kind = match (before, health) {
            (Health::Down, Health::Down) => EventKind::StillDown(why()),
            (_, Health::Down) => EventKind::Down(why()),
            (Health::Up, Health::Up) | (_, Health::Unknown) => return None,
            (_, Health::Up) => {
                // Nobody has to be careful with a backend of which nothing bad was known.
                one.ramp = if before == Health::Down { Ramp::new(lasts, now) } else { None };
                EventKind::Up
            }
        };
        Some(Event { backend, kind })
    }

    /// Forgets what is not among these.
    pub fn retain(&mut self, keep: impl Fn(BackendId) -> bool) {
        self.of.retain(|backend, _| keep(*backend));
    }

    /// Looks at what flows tell, and at the time. Whether shares have changed, and what there is to tell.
    pub fn review(&mut self, failures: &Failures, snapshot: &Snapshot, now: Instant) -> (bool, Vec<Event>) {
        let mut events = Vec::new();
        for service in &snapshot.services {
            match &service.passive {
                Some(passive) => self.review_service(service, *passive, failures, now, &mut events),
                None => self.readmit_all(service, &mut events),
            }
        }
        let mut ramps = false;
        for one in self.of.values_mut() {
            ramps |= one.climb(now);
        }
        (ramps || !events.is_empty(), events)
    }

    /// When [`Self::review`] wants to be called, if at all.
    pub fn poll_timeout(&self, snapshot: &Snapshot, now: Instant) -> Option<Instant> {
        if snapshot.services.iter().any(|service| service.passive.is_some()) {
            return Some(now + REVIEW);
        }
        self.of.values().filter_map(|one| one.ramp.as_ref()).map(Ramp::next).min()
    }

    /// What was seen of a backend last, by checks or by its flows.
    pub fn of(&self, backend: BackendId) -> Option<&Observed> {
        let one = self.of.get(&backend)?;
        let down = one.checked.as_ref().filter(|seen| seen.health == Health::Down);
        down.or(one.ejected.as_ref().map(|ejection| &ejection.observed)).or(one.checked.as_ref())
    }

    /// Each backend's share of new flows now. `wanted` is what configuration and operator want it to be.
    ///
    /// Of backends that may have flows those that are not down get them; while one of the group is climbing, all weights
    /// are scaled up, to have room for a part of the least. Backups count only if none of the others is up; with fewer
    /// than `panic-threshold` of those up, all get their share as if they were.
    pub fn shares(
        &self,
        snapshot: &Snapshot,
        wanted: impl Fn(&Backend) -> u16,
    ) -> HashMap<BackendId, u16, RandomState> {
        let mut shares = HashMap::default();
        for service in &snapshot.services {
            let all = || snapshot.backends_of(service.id).map(|(_, backend)| backend);
            // NAT keeps the family: what is down in the one does not concern the other.
            for v4 in [true, false] {
                let group: Vec<_> = all()
                    .filter(|backend| if service.is_tunnelled() { v4 } else { backend.address.is_v4() == v4 })
                    .map(|backend| (backend, wanted(backend)))
                    .collect();
                self.share_out(service, &group, &mut shares);
            }
        }
        shares
    }

    fn share_out(
        &self,
        service: &Service,
        group: &[(&Backend, u16)],
        shares: &mut HashMap<BackendId, u16, RandomState>,
    ) {
        let is_up = |backend: &Backend| self.of(backend.id).is_none_or(|seen| seen.health != Health::Down);
        let count = |backup: bool, up: bool| {
            let counted = group.iter().filter(|(backend, weight)| *weight > 0 && backend.backup == backup);
            counted.filter(|(backend, _)| !up || is_up(backend)).count()
        };
        let (main, main_up, backups_up) = (count(false, false), count(false, true), count(true, true));
        let saved_by_backups = main_up == 0 && backups_up > 0;
        let too_few = main_up * 100 < main * usize::from(service.health.panic_threshold);
        let panics = too_few && !saved_by_backups;
        let climbs = group.iter().any(|(backend, _)| self.step(backend.id) < STEPS);
        let most = group.iter().map(|(_, weight)| *weight).max().unwrap_or(0).max(1);
        let scale = if climbs { (u16::MAX / most).min(100) } else { 1 };
        for (backend, weight) in group {
            let share = if !panics && !is_up(backend) {
                0
            } else {
                let whole = u32::from(*weight) * u32::from(scale);
                let part = whole * self.step(backend.id) / STEPS;
                u16::try_from(part.max(u32::from(*weight > 0))).expect("no more than the scaled weight")
            };
            shares.insert(backend.id, share);
        }
    }

    /// How far a backend has climbed.
    fn step(&self, backend: BackendId) -> u32 {
        self.of.get(&backend).and_then(|one| one.ramp.as_ref()).map_or(STEPS, |ramp| ramp.step)
    }

    /// Nobody asks flows any more: what they told is void.
    fn readmit_all(&mut self, service: &Service, events: &mut Vec<Event>) {
        for &backend in &service.backends {
            let Some(one) = self.of.get_mut(&backend) else { continue };
            if one.ejected.take().is_some() && !one.is_down() {
                events.push(Event { backend, kind: EventKind::Readmitted });
            }
        }
    }

    fn review_service(
        &mut self,
        service: &Service,
        passive: Passive,
        failures: &Failures,
        now: Instant,
        events: &mut Vec<Event>,
    ) {
        let of_service = service.backends.iter().filter_map(|backend| self.of.get(backend));
        let mut ejected = of_service.filter(|one| one.ejected.is_some()).count();
        let most = passive.most_ejected(service.backends.len());
        for &backend in &service.backends {
            let (count, last) = failures.run(backend);
            if count == 0 && !self.of.contains_key(&backend) {
                continue;
            }
            let one = self.of.entry(backend).or_default();
            if let Some(ejection) = &one.ejected {
                if now >= ejection.until {
                    (one.ejected, one.run) = (None, None);
                    // On probation: the first failure ejects it again.
                    failures.restart(backend, u32::from(passive.failures) - 1);
                    ejected -= 1;
                    // Checks have found out, too: it waits for them.
                    if !one.is_down() {
                        one.ramp = Ramp::new(service.health.slow_start, now);
                        events.push(Event { backend, kind: EventKind::Readmitted });
                    }
                }
                continue;
            }
            if one.is_down() {
                // What fails now says nothing of it once checks have found that it is up again.
                one.run = None;
                failures.restart(backend, 0);
            } else if one.has_paused(count, passive.eject_for, now) {
                failures.restart(backend, 0);
            } else if count >= u32::from(passive.failures) && ejected < most {
                let why = format!("{count} new flows failed in a row: {}", last.name());
                let observed = Observed { health: Health::Down, reason: Some(why.clone()), since: now };
                one.ejected = Some(Ejection { until: now + passive.eject_for, observed });
                ejected += 1;
                events.push(Event { backend, kind: EventKind::Ejected(why) });
            }
        }
    }
}

impl One {
    /// Whether checks say so.
    fn is_down(&self) -> bool {
        self.checked.as_ref().is_some_and(|seen| seen.health == Health::Down)
    }

    /// Whether the last failure is so long ago that what follows is another row.
    fn has_paused(&mut self, count: u32, pause: Duration, now: Instant) -> bool {
        if count == 0 {
            self.run = None;
            return false;
        }
        match self.run {
            Some((known, since)) if known == count => now.since(since) >= pause,
            Some(_) | None => {
                self.run = Some((count, now));
                false
            }
        }
    }

    /// Goes on to the step of this time; whether that is another.
    fn climb(&mut self, now: Instant) -> bool {
        let Some(ramp) = &mut self.ramp else { return false };
        let step = ramp.step_at(now);
        if step == ramp.step {
            return false;
        }
        ramp.step = step;
        self.ramp.take_if(|ramp| ramp.step >= STEPS);
        true
    }
}

impl Ramp {
    fn new(lasts: Duration, now: Instant) -> Option<Self> {
        (!lasts.is_zero()).then_some(Self { since: now, lasts, step: 1 })
    }

    fn step_at(&self, now: Instant) -> u32 {
        let passed = now.since(self.since).as_micros() * u128::from(STEPS) / self.lasts.as_micros();
        u32::try_from(passed).unwrap_or(STEPS).saturating_add(1).min(STEPS)
    }

    fn next(&self) -> Instant {
        self.since + self.lasts * self.step / STEPS
    }
}

#[cfg(test)]
mod tests;
