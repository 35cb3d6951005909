//! Two gateways with the real core in steps of one heartbeat, for the model: in each step each of them may be held up, die,
//! start anew or be told to hand over, and what it sends may come at once, a step later or never.

use std::hash::{BuildHasher, Hash, Hasher};
use std::time::Duration;

use super::cluster::{A, B};
use crate::control::ha::machine::Safeguard;
use crate::control::ha::machine::fingerprint::says;
use crate::control::ha::{
    Action, Command, Core, Digest, Epoch, Event, Handoff, Heartbeat, LOSSES, Mode, NodeId, PathId, Permit, Replica,
    Settings, State, SyncReport, Timers,
};
use crate::engine::Instant;

/// Between two steps.
pub(super) const STEP: Duration = Duration::from_millis(5);
/// Steps that copying all flows takes.
const BULK: u32 = 2;

/// What may go wrong, and which safeguard is missing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope {
    pub(super) timers: Timers,
    pub(super) removed: Option<Safeguard>,
    /// Heartbeats in a row that may be lost in each direction.
    pub(super) losses: u32,
    /// What is not lost may come a step later.
    pub(super) delays: bool,
    /// Times that one may be held up, for as long as it takes.
    pub(super) pauses: u8,
    pub(super) crashes: u8,
    pub(super) flips: u8,
    /// Who moves first in each step.
    pub(super) first: NodeId,
}

impl Scope {
    pub(super) fn new(timers: Timers) -> Self {
        Self { timers, removed: None, losses: LOSSES, delays: true, pauses: 1, crashes: 0, flips: 0, first: A }
    }
}

/// What one does in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// Reads what came, and ticks.
    Runs,
    /// It was held up, and its timer is served before its sockets.
    TicksFirst,
    /// Its heartbeat thread is held up. Its data plane goes by its permission.
    IsHeldUp,
    Dies,
    IsDead,
    StartsAnew,
    /// The operator wants a handover; then it runs.
    Flips,
}

/// What becomes of what one sends in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Prompt,
    Late,
    Lost,
    /// There was nothing.
    Nothing,
}

/// What one sends in a step: nobody can tell its parts apart in time.
#[derive(Clone, Debug)]
struct Bundle {
    due: Instant,
    boot: u64,
    heartbeat: Heartbeat,
    handoffs: Vec<Handoff>,
}

#[derive(Clone, Debug)]
struct Node {
    core: Option<Core>,
    id: NodeId,
    boot: u64,
    held_up: bool,
    permit: Option<Permit>,
    confirmed: Option<Epoch>,
    report: SyncReport,
    bulk_left: u32,
    persisted: Epoch,
    /// On its way to this one, or in its sockets.
    coming: Vec<Bundle>,
    /// Of what it sent, lost in a row.
    lost: u32,
}

/// The state of everything.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) now: Instant,
    nodes: [Node; 2],
    pauses: u8,
    crashes: u8,
    flips: u8,
    /// What the neighbours have learnt.
    pub(super) vip_at: Option<NodeId>,
}

impl World {
    /// A is active, B its standby that is ready.
    pub(super) fn paired(scope: &Scope) -> Self {
        let node = |id| Node {
            core: None,
            id,
            boot: 0,
            held_up: false,
            permit: None,
            confirmed: None,
            report: SyncReport::default(),
            bulk_left: 0,
            persisted: Epoch::ZERO,
            coming: Vec::new(),
            lost: 0,
        };
        let mut world = Self {
            now: Instant::ZERO + STEP,
            nodes: [node(A), node(B)],
            pauses: scope.pauses,
            crashes: scope.crashes,
            flips: scope.flips,
            vip_at: None,
        };
        for id in [A, B] {
            let now = world.now;
            world.node(id).starts(now, scope);
            world.calm(205, scope);
        }
        assert_eq!([A, B].map(|id| world.state(id)), [Some(State::Active), Some(State::Standby)]);
        world
    }

    /// So many steps in which nothing goes wrong.
    pub(super) fn calm(&mut self, steps: u32, scope: &Scope) {
        for _ in 0..steps {
            for id in [scope.first, scope.first.peer()] {
                let dead = self.nodes[usize::from(id.index())].core.is_none();
                let bundle = self.act(id, if dead { Move::IsDead } else { Move::Runs }, scope);
                self.send(id, bundle, Fate::Prompt);
            }
            self.now = self.now + STEP;
        }
    }

    pub(super) fn state(&self, id: NodeId) -> Option<State> {
        self.nodes[usize::from(id.index())].core.as_ref().map(Core::state)
    }

    pub(super) fn epoch(&self, id: NodeId) -> Option<Epoch> {
        self.nodes[usize::from(id.index())].core.as_ref().map(|core| core.status(self.now).epoch)
    }

    /// Who may forward now.
    pub(super) fn forwarders(&self) -> impl Iterator<Item = NodeId> + '_ {
        let permitted = |node: &&Node| node.permit.is_some_and(|permit| permit.holds(self.now));
        self.nodes.iter().filter(permitted).map(|node| node.id)
    }

    /// All that may happen in the next move of `id`, each with what comes of it.
    pub(super) fn moves(&self, id: NodeId, scope: &Scope, mut each: impl FnMut(Move, Fate, Self)) {
        let node = &self.nodes[usize::from(id.index())];
        for way in self.ways(node) {
            let mut world = self.clone();
            let Some(bundle) = world.act(id, way, scope) else {
                each(way, Fate::Nothing, world);
                continue;
            };
            let others = [(scope.delays, Fate::Late), (node.lost < scope.losses, Fate::Lost)];
            let others = others.into_iter().filter_map(|(may_be, fate)| may_be.then_some(fate));
            for fate in [Fate::Prompt].into_iter().chain(others) {
                let mut world = world.clone();
                world.send(id, Some(bundle.clone()), fate);
                each(way, fate, world);
            }
        }
    }

    fn ways(&self, node: &Node) -> Vec<Move> {
        let Some(core) = &node.core else { return vec![Move::IsDead, Move::StartsAnew] };
        let mut ways = vec![Move::Runs];
        if node.held_up {
            ways.extend([Move::TicksFirst, Move::IsHeldUp]);
        } else if self.pauses > 0 {
            ways.push(Move::IsHeldUp);
        }
        if self.crashes > 0 {
            ways.push(Move::Dies);
        }
        if self.flips > 0 && core.state() == State::Active && !node.held_up {
            ways.push(Move::Flips);
        }
        ways
    }

    fn act(&mut self, id: NodeId, way: Move, scope: &Scope) -> Option<Bundle> {
        let (now, peer_serves) = (self.now, self.node(id.peer()).permit.is_some());
        match way {
            Move::IsHeldUp => {
                let node = self.node(id);
                let begins = !std::mem::replace(&mut node.held_up, true);
                self.pauses -= u8::from(begins);
                return None;
            }
            Move::Dies => {
                self.crashes -= 1;
                let node = self.node(id);
                (node.core, node.permit, node.confirmed, node.held_up) = (None, None, None, false);
                node.coming.clear();
                return None;
            }
            Move::IsDead => return None,
            Move::StartsAnew => self.node(id).starts(now, scope),
            Move::Flips => self.flips -= 1,
            Move::Runs | Move::TicksFirst => {}
        }
        let mut doing = Doing { node: self.node(id), now, beat: false, handoffs: Vec::new(), announced: false };
        doing.node.held_up = false;
        doing.node.copy(peer_serves);
        if way == Move::TicksFirst {
            doing.tick();
        }
        doing.read();
        if way == Move::Flips {
            doing.flip();
        }
        if way != Move::TicksFirst {
            doing.tick();
        }
        let bundle = doing.bundle();
        let announced = doing.announced;
        if announced {
            self.vip_at = Some(id);
        }
        bundle
    }

    fn send(&mut self, from: NodeId, bundle: Option<Bundle>, fate: Fate) {
        let Some(bundle) = bundle else { return };
        let lost = &mut self.node(from).lost;
        *lost = if fate == Fate::Lost { *lost + 1 } else { 0 };
        let due = match fate {
            Fate::Prompt => self.now,
            Fate::Late => self.now + STEP,
            Fate::Lost | Fate::Nothing => return,
        };
        let to = self.node(from.peer());
        if to.core.is_some() {
            to.coming.push(Bundle { due, ..bundle });
        }
    }

    fn node(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[usize::from(id.index())]
    }

    /// Equal for worlds that differ only in when it all happened.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut into = foldhash::quality::FixedState::with_seed(0).build_hasher();
        (self.pauses, self.crashes, self.flips, self.vip_at).hash(&mut into);
        for node in &self.nodes {
            let peer = &self.nodes[usize::from(node.id.peer().index())];
            let newest = peer.core.as_ref().map_or(0, Core::seq);
            (node.held_up, node.confirmed, node.report, node.bulk_left, node.persisted, node.lost).hash(&mut into);
            node.permit.map(|permit| (permit.epoch, permit.until.since(self.now))).hash(&mut into);
            if let Some(core) = &node.core {
                core.fingerprint(self.now, newest, &mut into);
            }
            for bundle in &node.coming {
                (bundle.boot, self.now.since(bundle.due), bundle.due.since(self.now), &bundle.handoffs).hash(&mut into);
                says(&bundle.heartbeat, self.now, newest, &mut into);
            }
        }
        into.finish()
    }
}

impl Node {
    fn starts(&mut self, now: Instant, scope: &Scope) {
        let mut core = Core::new(
            Settings {
                node: self.id,
                timers: scope.timers,
                mode: Mode::Pair,
                prefer: 0,
                emergency_promote: true,
                real_time: true,
                epoch: self.persisted,
            },
            now,
        );
        core.removed = scope.removed;
        self.core = Some(core);
        self.boot += 1;
        self.report = SyncReport::default();
        self.bulk_left = 0;
    }

    /// The copying of flows goes on, if there is somebody who has them.
    fn copy(&mut self, peer_serves: bool) {
        if self.bulk_left > 0 && peer_serves {
            self.bulk_left -= 1;
            if self.bulk_left == 0 {
                self.is_equal();
            }
        }
    }

    fn is_equal(&mut self) {
        self.report.progress.session += 1;
        self.report.replica = Replica::Equal;
    }
}

/// A move of one.
struct Doing<'a> {
    node: &'a mut Node,
    now: Instant,
    beat: bool,
    handoffs: Vec<Handoff>,
    announced: bool,
}

impl Doing<'_> {
    fn tick(&mut self) {
        self.tell(Event::Sync(self.node.report));
        self.tell(Event::DataPlane { ticked_at: self.now });
        self.tell(Event::Tick);
    }

    fn read(&mut self) {
        let now = self.now;
        let (came, later): (Vec<_>, _) = std::mem::take(&mut self.node.coming).into_iter().partition(|b| b.due <= now);
        self.node.coming = later;
        for Bundle { due: at, boot, heartbeat, handoffs } in came {
            self.tell(Event::Heartbeat { boot, path: PathId(0), at, heartbeat: &heartbeat });
            handoffs.into_iter().for_each(|handoff| self.tell(Event::Handoff(handoff)));
        }
    }

    fn flip(&mut self) {
        let mut actions = Vec::new();
        let core = self.node.core.as_mut().expect("it runs");
        // One that is refused is none.
        let _ = core.command(Command::Flip { force: false }, self.now, &mut actions);
        self.carry_out(actions);
    }

    fn tell(&mut self, event: Event<'_>) {
        let mut actions = Vec::new();
        self.node.core.as_mut().expect("it runs").step(event, self.now, &mut actions);
        self.carry_out(actions);
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::SendHeartbeat => self.beat = true,
                Action::SendHandoff(handoff) => self.handoffs.push(handoff),
                Action::Forward(permit) => self.node.permit = Some(permit),
                Action::Stop => (self.node.permit, self.node.confirmed) = (None, None),
                Action::Announce => self.announced = true,
                Action::Flush => self.tell(Event::Flushed(Digest::default())),
                Action::RequestBulk => {
                    self.node.report.replica = Replica::Partial;
                    self.node.bulk_left = BULK;
                }
                Action::PersistEpoch { epoch, .. } => self.node.persisted = epoch,
                // The commit said that both tables are equal.
                Action::Transition(transition) if transition.to == State::Drain => self.node.is_equal(),
                Action::Transition(_)
                | Action::SendGoodbye(_)
                | Action::Withdraw
                | Action::Relay(_)
                | Action::CommitWait(_)
                | Action::FlipFailed(_) => {}
            }
        }
        let epoch = self.node.permit.map(|permit| permit.epoch);
        if self.node.confirmed != epoch {
            self.node.confirmed = epoch;
            epoch.into_iter().for_each(|epoch| self.tell(Event::Forwarding(epoch)));
        }
    }

    fn bundle(&mut self) -> Option<Bundle> {
        let core = self.node.core.as_ref().expect("it runs");
        if !self.beat && self.handoffs.is_empty() {
            return None;
        }
        let heartbeat = core.heartbeat(PathId(0), self.now);
        Some(Bundle { due: self.now, boot: self.node.boot, heartbeat, handoffs: std::mem::take(&mut self.handoffs) })
    }
}
