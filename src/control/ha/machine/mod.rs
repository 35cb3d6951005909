//! The core of the pair: what this gateway is, and when it becomes something else.
//!
//! What follows from what is known is decided anew after each event, by the state; little depends on a single message.
//!
//! # Why at most one forwards
//!
//! A gateway forwards as long as its [`Permit`] lasts, and each heartbeat that it sends renews that. The standby takes over
//! when it has heard none for the dead time. Of any [`LOSSES`] + 1 in a row it has heard one, so not before the dead time
//! from the oldest of the last ones that were sent: then the permission is over. Where the peer has echoed a later one, it
//! lasts for the dead time from that, whatever is lost. Who finds its permission over ([`Phase::Fenced`]) forwards only when
//! the peer has proved that it heard it afterwards and was passive then, or was silent for so long that nobody can have
//! taken over and be alive.

mod active;
#[cfg(test)]
pub(super) mod fingerprint;
mod handoff;
mod hearing;
mod orders;
mod passive;
mod phase;
mod status;

use std::time::Duration;

use self::phase::{Flaps, Flip, Log, Phase};
pub use self::status::{PeerStatus, Status, Unready};
use super::announcer::Announcer;
use super::peer::{PathStatus, Peer};
use super::{
    Action, Cause, Epoch, Event, LOSSES, Legs, MAX_PATHS, NodeId, Permit, Replica, State, SyncReport, Timers,
    Transition,
};
use crate::engine::Instant;

/// What is set for this gateway.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Which of the two.
    pub node: NodeId,
    /// Its own times; the peer's hold if they are longer.
    pub timers: Timers,
    /// What silence means.
    pub mode: Mode,
    /// Who goes first if both start at once: the higher one.
    pub prefer: u8,
    /// Whether a partial copy of the flows is better than nobody.
    pub emergency_promote: bool,
    /// The heartbeat thread has real-time priority.
    pub real_time: bool,
    /// The highest epoch that the state directory remembers.
    pub epoch: Epoch,
}

/// What total silence of the active means to the standby.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The active is dead.
    Pair,
    /// Nothing, until an operator says so.
    Manual,
}

impl Mode {
    /// The name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pair => "pair",
            Self::Manual => "manual",
        }
    }
}

/// The role core of a gateway.
///
/// ```
/// use tungate::control::ha::{Action, Core, Epoch, Event, Mode, NodeId, Profile, Settings, State};
/// use tungate::engine::Instant;
/// # use std::time::Duration;
///
/// let timers = Profile::Fast.timers();
/// let settings = Settings {
///     node: NodeId::A, timers, mode: Mode::Pair, prefer: 100, emergency_promote: true, real_time: true, epoch: Epoch::ZERO,
/// };
/// let mut now = Instant::ZERO;
/// let (mut core, mut actions) = (Core::new(settings, now), Vec::new());
/// while now < Instant::ZERO + Duration::from_millis(1010) {
///     now = core.poll_timeout();
///     core.step(Event::DataPlane { ticked_at: now }, now, &mut actions);
///     core.step(Event::Tick, now, &mut actions);
/// }
/// assert_eq!(core.state(), State::Solo, "nobody else is there");
/// assert!(actions.iter().any(|action| matches!(action, Action::Forward(permit) if permit.holds(now))));
/// ```
#[derive(Clone, Debug)]
pub struct Core {
    settings: Settings,
    /// In force: the slower of both.
    timers: Timers,
    phase: Phase,
    since: Instant,
    /// The own one, if the role is claimed; else the highest known.
    epoch: Epoch,
    /// What the own one followed.
    base: Epoch,
    peer: Option<Peer>,
    paths: [PathStatus; MAX_PATHS],
    /// Silence before this says nothing: this gateway was active, or held up.
    watch_from: Instant,
    /// The last step.
    awake_at: Instant,
    next_beat: Instant,
    /// When the last heartbeats were sent, the newest first. One that may be the last that the peer has heard is among them.
    sent: [Instant; LOSSES as usize + 1],
    seq: u32,
    /// A heartbeat is to leave at the end of this step.
    beat_wanted: bool,
    claimed_since: Instant,
    /// When the newest claim that the peer has echoed was sent.
    echoed: Option<Instant>,
    legs: Legs,
    sync: SyncReport,
    /// The last record made at each of the last rounds of heartbeats, the newest first.
    made: [u64; 3],
    differs_since: Option<Instant>,
    /// A copy of this session or none is not the one that was asked for.
    old_session: Option<u32>,
    data_plane_at: Instant,
    /// Counts the handovers that were begun here.
    intent: u32,
    /// The peer was asked to take the role, and has not answered yet.
    offer: Option<Flip>,
    announcer: Announcer,
    /// The peer has claimed the role, too.
    has_rival: bool,
    flaps: Flaps,
    log: Log,
    #[cfg(test)]
    pub(super) removed: Option<Safeguard>,
}

/// What keeps two from forwarding; the model shows of each that it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Safeguard {
    /// Who was held up forwards no more.
    Fence,
    /// Only an answer to a heartbeat sent afterwards proves that the peer did not take over.
    EchoProof,
    /// The peer may not have heard the last heartbeats.
    Losses,
    /// Silence while one was held up oneself is none.
    WakeGuard,
}

impl Core {
    /// A gateway that has just started.
    pub fn new(settings: Settings, now: Instant) -> Self {
        Self {
            settings,
            timers: settings.timers,
            phase: Phase::Init,
            since: now,
            epoch: settings.epoch,
            base: Epoch::ZERO,
            peer: None,
            paths: [PathStatus::default(); MAX_PATHS],
            watch_from: now,
            awake_at: now,
            next_beat: now,
            sent: [now; LOSSES as usize + 1],
            seq: 0,
            beat_wanted: false,
            claimed_since: now,
            echoed: None,
            legs: Legs::UP,
            sync: SyncReport::default(),
            made: [0; 3],
            differs_since: None,
            old_session: None,
            data_plane_at: now,
            intent: 0,
            offer: None,
            announcer: Announcer::Off,
            has_rival: false,
            flaps: Flaps::default(),
            log: Log::default(),
            #[cfg(test)]
            removed: None,
        }
    }

    /// The number of the last round of heartbeats.
    #[cfg(test)]
    pub(super) const fn seq(&self) -> u32 {
        self.seq
    }

    /// What it is.
    pub const fn state(&self) -> State {
        self.phase.state()
    }

    /// Takes what happened, and adds what is to be done to `actions`, in order. Allocates nothing if those have room.
    pub fn step(&mut self, event: Event<'_>, now: Instant, actions: &mut Vec<Action>) {
        self.notice_pause(now, actions);
        let mut news = false;
        match event {
            Event::Heartbeat { boot, path, at, heartbeat } => news = self.hear(boot, path, at, heartbeat, now),
            Event::Goodbye(goodbye) => news = self.peer.as_mut().is_some_and(|peer| peer.says_goodbye(goodbye)),
            Event::Handoff(message) => self.hear_handoff(message, now, actions),
            Event::Tick => self.tick(now, actions),
            Event::Sync(report) => self.hear_sync(report, now, actions),
            Event::DataPlane { ticked_at } => self.data_plane_at = self.data_plane_at.max(ticked_at),
            Event::Forwarding(epoch) if epoch == self.epoch && self.state().forwards() => self.announcer.confirm(now),
            Event::Forwarding(_) => {}
            Event::Flushed(last) => self.flushed(last, actions),
            Event::Legs(legs) => self.legs = legs,
        }
        self.settle(now, news, actions);
    }

    /// When [`Event::Tick`] is due, if nothing happens before.
    pub fn poll_timeout(&self) -> Instant {
        let later = |at: &Instant| *at > self.awake_at;
        let deadline = self.deadline().filter(later).unwrap_or(Instant::MAX);
        let announcement = self.announcer.due().unwrap_or(Instant::MAX);
        self.next_beat.min(deadline).min(announcement)
    }

    /// Decides until nothing changes any more, then sends what that calls for.
    fn settle(&mut self, now: Instant, news: bool, actions: &mut Vec<Action>) {
        // Each turn is a change of state; no chain of them is longer than this.
        for _ in 0..4 {
            let before = self.state();
            self.decide(now, news, actions);
            if self.state() == before {
                break;
            }
        }
        if std::mem::take(&mut self.beat_wanted) {
            self.seq = self.seq.wrapping_add(1);
            self.sent.rotate_right(1);
            self.sent[0] = now;
            actions.push(Action::SendHeartbeat);
            // After the heartbeat: a permission must not be longer than what was really sent allows.
            if self.state().forwards() {
                actions.push(Action::Forward(Permit { epoch: self.epoch, until: self.permitted_until() }));
            }
        }
        if self.announcer.is_due(now) {
            actions.push(Action::Announce);
        }
    }

    fn decide(&mut self, now: Instant, news: bool, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Init => self.decide_init(now, actions),
            Phase::Syncing | Phase::Standby => self.decide_passive(now, news, actions),
            Phase::Active | Phase::Solo => self.decide_forwarding(now, actions),
            Phase::Fenced { resumed_at } => self.decide_fenced(resumed_at, now, actions),
            Phase::HandoffOut { .. } => self.decide_handoff_out(now, actions),
            Phase::HandoffIn { .. } => self.decide_handoff_in(now, news, actions),
            Phase::Drain { .. } => self.decide_drain(now, news, actions),
            Phase::Maint => {}
            Phase::Fault => self.decide_fault(now, actions),
        }
    }

    /// This process may have been held up: then it knows less than it thinks.
    fn notice_pause(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let Timers { heartbeat, dead, stall, .. } = self.timers;
        let late = now.since(self.awake_at) >= stall;
        let overslept = now.since(self.poll_timeout()) * 2 >= heartbeat;
        self.awake_at = now;
        if late {
            // The data plane may have been held up, too, and has not had its turn yet.
            self.data_plane_at = now;
        }
        if !self.lacks(Safeguard::WakeGuard) {
            if late {
                self.watch_from = now;
            } else if overslept {
                // What came meanwhile may still lie in the network card of a machine that was held up.
                self.watch_from = self.watch_from.max(now + heartbeat - dead);
            }
        }
        match &mut self.phase {
            Phase::Active | Phase::Solo => {
                if now >= self.permitted_until() && !self.lacks(Safeguard::Fence) {
                    self.enter(Phase::Fenced { resumed_at: now }, Cause::HeldUp, now, actions);
                }
            }
            Phase::Fenced { resumed_at } if late || overslept => *resumed_at = now,
            // The old active has given up waiting, and a commit that is read only now is not for this time.
            Phase::HandoffIn { .. } if late => self.leave_handoff_in(Cause::HeldUp, now, actions),
            Phase::Init
            | Phase::Syncing
            | Phase::Standby
            | Phase::Fenced { .. }
            | Phase::HandoffOut { .. }
            | Phase::HandoffIn { .. }
            | Phase::Drain { .. }
            | Phase::Maint
            | Phase::Fault => {}
        }
    }

    fn tick(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if now < self.next_beat {
            return;
        }
        self.beat_wanted = true;
        self.made = [self.sync.progress.produced_lsn, self.made[0], self.made[1]];
        let next = self.next_beat + self.timers.heartbeat;
        self.next_beat = if next > now { next } else { now + self.timers.heartbeat };
        self.repeat_handoff(now, actions);
    }

    /// No batch may begin then or later.
    fn permitted_until(&self) -> Instant {
        let oldest = if self.lacks(Safeguard::Losses) { self.sent[0] } else { self.sent[LOSSES as usize] };
        self.echoed.map_or(oldest, |echoed| oldest.max(echoed)) + self.timers.dead
    }

    /// The next time at which something follows from nothing having happened.
    fn deadline(&self) -> Option<Instant> {
        let silent_at = |patience: Duration| self.peer.map(|peer| peer.heard_at.max(self.watch_from) + patience);
        match self.phase {
            Phase::Init => Some(self.since + Timers::LISTEN),
            Phase::Syncing | Phase::Standby | Phase::Active | Phase::Solo => silent_at(self.timers.dead),
            Phase::Fenced { resumed_at } => {
                Some(self.peer.map_or(resumed_at, |peer| peer.heard_at.max(resumed_at)) + self.timers.confirm)
            }
            Phase::HandoffOut { .. } => Some(self.since + self.timers.hand_out()),
            Phase::HandoffIn { .. } => silent_at(self.timers.dead),
            Phase::Drain { .. } => Some(self.since + Timers::DRAIN),
            Phase::Maint | Phase::Fault => None,
        }
    }

    /// Another state, with what has to be done between any two.
    fn enter(&mut self, phase: Phase, cause: Cause, now: Instant, actions: &mut Vec<Action>) {
        let (from, to) = (self.state(), phase.state());
        self.phase = phase;
        self.since = now;
        self.beat_wanted = true;
        if from.forwards() && !to.forwards() {
            self.offer = None;
            actions.push(Action::Stop);
        }
        if from.claims() && !to.claims() {
            actions.push(Action::Withdraw);
            self.announcer = Announcer::Off;
            self.has_rival = false;
            self.watch_from = now;
        }
        if to.forwards() && !from.forwards() {
            self.announcer = Announcer::Armed;
        }
        let relays = |state| matches!(state, State::HandoffOut | State::Drain);
        if relays(from) != relays(to) {
            actions.push(Action::Relay(relays(to)));
        }
        match to {
            State::Active => actions.push(Action::CommitWait(true)),
            State::Solo => actions.push(Action::CommitWait(false)),
            State::Syncing => self.request_bulk(actions),
            State::HandoffOut => actions.push(Action::Flush),
            State::Init
            | State::Standby
            | State::Fenced
            | State::HandoffIn
            | State::Drain
            | State::Maint
            | State::Fault => {}
        }
        let transition = Transition { at: now, from, to, cause, epoch: self.epoch };
        self.log.push(transition);
        actions.push(Action::Transition(transition));
    }

    /// Takes the role, by a new epoch.
    fn promote(&mut self, cause: Cause, now: Instant, actions: &mut Vec<Action>) {
        self.raise_epoch(actions);
        self.claimed_since = now;
        // Whoever waits now does so from now on: it has heard of nobody before.
        self.sent = [now; LOSSES as usize + 1];
        self.echoed = None;
        self.sync.replica = Replica::Partial;
        self.differs_since = None;
        self.flaps.note(cause, now);
        self.enter(Phase::Solo, cause, now, actions);
    }

    /// An own epoch above all that are known.
    fn raise_epoch(&mut self, actions: &mut Vec<Action>) {
        self.base = self.known_epoch();
        self.epoch = self.base.next(self.settings.node);
        actions.push(Action::PersistEpoch { epoch: self.epoch, before_use: self.peer.is_none() });
        self.beat_wanted = true;
    }

    fn known_epoch(&self) -> Epoch {
        self.peer.map_or(self.epoch, |peer| peer.last.epoch.max(self.epoch))
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "the tests take safeguards out of one core and not of another")]
    const fn lacks(&self, _: Safeguard) -> bool {
        false
    }

    #[cfg(test)]
    fn lacks(&self, safeguard: Safeguard) -> bool {
        self.removed == Some(safeguard)
    }
}
