//! When which backend is asked: each target by its own clock, with jitter, and never twice at once.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::{FixedState, RandomState};

use super::{Answer, Change, Outcome, Query, Question, QuestionId, Reason, Record, Verdict, Way};
use crate::config::{BackendId, Snapshot};
use crate::engine::Instant;
use crate::wire::Address;

/// The first questions of a start or a reload are this far apart, unless that would take longer than their interval.
const FIRST_APART: Duration = Duration::from_millis(1);
/// Each interval is shorter or longer by up to this part of it, so that what has begun together does not stay together.
const JITTER: u32 = 10;

/// All backends that are asked, and what is known of them.
#[derive(Debug)]
pub struct Checks {
    seed: u64,
    targets: Vec<Option<Target>>,
    /// Places of `targets` that are empty.
    free: Vec<u32>,
    /// Questions so far.
    round: u32,
    by_query: HashMap<Arc<Query>, u32, RandomState>,
    backends: HashMap<BackendId, Watched, RandomState>,
    /// Whom to ask when; an entry whose target's `due` is another is void.
    due: BinaryHeap<Reverse<(Instant, u32)>>,
    changes: VecDeque<Change>,
    pub(super) record: Arc<Record>,
}

/// One question, asked again and again.
#[derive(Debug)]
struct Target {
    query: Arc<Query>,
    /// Whom the answer is about.
    about: Vec<BackendId>,
    round: u32,
    state: State,
    /// The last answer: good, or why not.
    last: Option<Result<(), Reason>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To be asked then.
    Waiting(Instant),
    /// Asked then.
    Asked(Instant),
}

/// What is known of one backend.
#[derive(Debug)]
struct Watched {
    query: Arc<Query>,
    rise: u16,
    fall: u16,
    verdict: Verdict,
    reason: Option<Reason>,
}

impl Checks {
    /// Nobody to ask. `seed` is for the jitter; what is found goes into the record, too.
    pub fn new(seed: u64, record: Arc<Record>) -> Self {
        Self {
            seed,
            targets: Vec::new(),
            free: Vec::new(),
            round: 0,
            by_query: HashMap::default(),
            backends: HashMap::default(),
            due: BinaryHeap::new(),
            changes: VecDeque::new(),
            record,
        }
    }

    /// Asks whom this configuration wants asked. What is known of a backend stays known as long as it is asked; if it is
    /// asked another question, the first answer to that decides by itself. An answer to a question that is no longer asked
    /// is of no interest.
    pub fn adopt(&mut self, snapshot: &Snapshot, now: Instant) {
        let known = std::mem::take(&mut self.backends);
        for target in self.targets.iter_mut().flatten() {
            target.about.clear();
        }
        let mut new = Vec::new();
        for service in &snapshot.services {
            for &backend in &service.backends {
                let Some(query) = query(snapshot, backend) else { continue };
                let (query, is_new) = self.watch(query, backend);
                new.extend(is_new);
                let (rise, fall) = (service.health.rise, service.health.fall);
                let before = known.get(&backend);
                let is_same = before.is_some_and(|before| before.query.is_like(&query));
                let (verdict, reason) = before.map_or((Verdict::Unknown, None), |before| {
                    let verdict = if is_same { before.verdict } else { before.verdict.in_doubt(rise, fall) };
                    (verdict, before.reason.clone())
                });
                let last = self.last_answer(&query);
                self.backends.insert(backend, Watched { query, rise, fall, verdict, reason });
                // Somebody else's question has been answered already.
                if let Some(last) = last.filter(|_| !is_same) {
                    self.judge(backend, last.as_ref().err());
                }
            }
        }
        for (backend, before) in known {
            if !self.backends.contains_key(&backend) {
                self.record.forget(backend);
            }
            let forgotten = before.verdict != Verdict::Unknown && self.verdict(backend) == Verdict::Unknown;
            if forgotten && snapshot.has_backend(backend) {
                self.changes.push_back(Change { backend, up: None, reason: None });
            }
        }
        self.forget_unwatched();
        self.spread(&new, now);
    }

    /// The next question, if it is time for one; call again until there is none.
    pub fn poll(&mut self, now: Instant) -> Option<Question> {
        while let Some(Reverse((at, index))) = self.due.peek().copied() {
            if at > now {
                return None;
            }
            self.due.pop();
            let Some(target) = &mut self.targets[index as usize] else { continue };
            if target.state != State::Waiting(at) {
                continue;
            }
            target.state = State::Asked(now);
            self.round = self.round.wrapping_add(1);
            target.round = self.round;
            let id = QuestionId { target: index, round: target.round };
            return Some(Question { id, what: Arc::clone(&target.query) });
        }
        None
    }

    /// When [`Self::poll`] wants to be called, if at all.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes the answer to a question. One that was not asked, or was answered, changes nothing.
    pub fn answered(&mut self, id: QuestionId, answer: &Answer, now: Instant) {
        let Some(target) = self.targets.get_mut(id.target as usize).and_then(Option::as_mut) else { return };
        let State::Asked(asked) = target.state else { return };
        if target.round != id.round {
            return;
        }
        let (interval, about) = (target.query.interval, target.about.clone());
        self.wait(id, (asked + self.jittered(interval, id)).max(now));
        let reason = match &answer.outcome {
            Outcome::Good => None,
            Outcome::Bad(reason) => Some(reason),
            Outcome::NotAsked(_) => {
                self.record.count_not_asked();
                return;
            }
        };
        if let Some(target) = &mut self.targets[id.target as usize] {
            target.last = Some(reason.cloned().map_or(Ok(()), Err));
        }
        self.record.count(reason.is_none());
        for backend in about {
            self.record.note(backend, answer.took);
            self.judge(backend, reason);
        }
    }

    /// What has changed, oldest first; forgets it.
    pub fn changes(&mut self) -> impl Iterator<Item = Change> {
        self.changes.drain(..)
    }

    /// What is known of a backend; `Unknown` also of one that is not asked.
    pub fn verdict(&self, backend: BackendId) -> Verdict {
        self.backends.get(&backend).map_or(Verdict::Unknown, |watched| watched.verdict)
    }

    /// How many different questions there are.
    pub fn questions(&self) -> usize {
        self.by_query.len()
    }

    fn judge(&mut self, backend: BackendId, reason: Option<&Reason>) {
        let Some(watched) = self.backends.get_mut(&backend) else { return };
        let before = watched.verdict.is_up();
        watched.verdict = watched.verdict.after(reason.is_none(), watched.rise, watched.fall);
        let up = watched.verdict.is_up().expect("it was just judged");
        // While good answers are counted, the reason is still the last bad one.
        let why = if up { None } else { reason.or(watched.reason.as_ref()).cloned() };
        if before == Some(up) && watched.reason == why {
            return;
        }
        watched.reason.clone_from(&why);
        self.changes.push_back(Change { backend, up: Some(up), reason: why });
    }

    fn last_answer(&self, query: &Query) -> Option<Result<(), Reason>> {
        let index = *self.by_query.get(query)?;
        self.targets[index as usize].as_ref()?.last.clone()
    }

    /// Has the backend be asked this; with the target's index if nobody was yet.
    fn watch(&mut self, query: Query, backend: BackendId) -> (Arc<Query>, Option<u32>) {
        if let Some(index) = self.by_query.get(&query) {
            let target = self.targets[*index as usize].as_mut().expect("by_query names living targets");
            target.about.push(backend);
            return (Arc::clone(&target.query), None);
        }
        let query = Arc::new(query);
        let state = State::Waiting(Instant::MAX);
        let target = Target { query: Arc::clone(&query), about: vec![backend], round: 0, state, last: None };
        let index = self.free.pop().unwrap_or_else(|| {
            self.targets.push(None);
            u32::try_from(self.targets.len() - 1).expect("no more targets than backends")
        });
        self.targets[index as usize] = Some(target);
        self.by_query.insert(Arc::clone(&query), index);
        (query, Some(index))
    }

    fn forget_unwatched(&mut self) {
        for (target, index) in self.targets.iter_mut().zip(0..) {
            if let Some(unwatched) = target.take_if(|target| target.about.is_empty()) {
                self.by_query.remove(&unwatched.query);
                self.free.push(index);
            }
        }
    }

    /// Spreads first questions, so that neither this machine nor a network sees all at once.
    fn spread(&mut self, new: &[u32], now: Instant) {
        let count = u32::try_from(new.len()).expect("no more targets than backends");
        for (place, index) in (0..).zip(new) {
            let target = self.targets[*index as usize].as_ref().expect("it is new");
            let apart = FIRST_APART.min(target.query.interval / count);
            let id = QuestionId { target: *index, round: target.round };
            self.wait(id, now + apart * place);
        }
    }

    fn wait(&mut self, id: QuestionId, at: Instant) {
        let target = self.targets[id.target as usize].as_mut().expect("the caller has just seen it");
        target.state = State::Waiting(at);
        self.due.push(Reverse((at, id.target)));
    }

    fn jittered(&self, interval: Duration, id: QuestionId) -> Duration {
        let range = interval / JITTER * 2;
        let random = FixedState::with_seed(self.seed).hash_one((id.target, id.round)) >> 32;
        let part = u64::try_from(range.as_micros()).unwrap_or(u64::MAX >> 32).saturating_mul(random) >> 32;
        interval - range / 2 + Duration::from_micros(part)
    }
}

/// What a backend is asked, if anything.
fn query(snapshot: &Snapshot, id: BackendId) -> Option<Query> {
    let at = snapshot.checked_at(id)?;
    let health = &snapshot.service(snapshot.backend(id).service).health;
    let way = if at.tunnelled {
        let source: Address = *snapshot.sources(at.endpoint.address.is_v4()).first()?;
        Way::Tunnel { tunnel: snapshot.tunnel(id)?, source }
    } else {
        Way::Plain
    };
    let check = health.check.clone();
    Some(Query { check, endpoint: at.endpoint, way, timeout: health.timeout, interval: health.interval })
}
