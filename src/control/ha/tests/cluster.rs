//! Two gateways with the real core, a network between them and neighbours who learn where the VIP is: virtual time,
//! one thread.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use crate::control::ha::{
    Action, Cause, Command, Core, Epoch, Event, Goodbye, Handoff, Heartbeat, Legs, Mode, NodeId, PathId, Permit,
    Profile, Progress, Refusal, Replica, Settings, State, SyncReport, Transition,
};
use crate::engine::Instant;

pub(super) const A: NodeId = NodeId::A;
pub(super) const B: NodeId = NodeId::B;
pub(super) const PATHS: u8 = 2;

/// Cut off from the clients.
pub(super) const DOWN: Legs = Legs { external: false, ..Legs::UP };

pub(super) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Chance that is the same each time (SplitMix64).
#[derive(Clone, Copy, Debug)]
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(super) fn percent(&mut self, n: u64) -> bool {
        self.below(100) < n
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Message {
    Heartbeat(Heartbeat),
    Handoff(Handoff),
    Goodbye(Goodbye),
}

/// A datagram on its way.
#[derive(Clone, Copy, Debug)]
struct Flight {
    to: NodeId,
    path: PathId,
    boot: u64,
    message: Message,
}

/// A machine with the daemon on it, or without.
#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) core: Option<Core>,
    pub(super) settings: Settings,
    boot: u64,
    /// The process does not run until then.
    paused_until: Instant,
    /// Its data plane does not.
    pub(super) stuck_until: Instant,
    socket: VecDeque<(Instant, Flight)>,
    pub(super) permit: Option<Permit>,
    confirmed: Option<Epoch>,
    pub(super) relays: bool,
    pub(super) answers_arp: bool,
    pub(super) announcements: Vec<Instant>,
    pub(super) transitions: Vec<Transition>,
    pub(super) flip_failed: Vec<Refusal>,
    pub(super) actions_seen: Vec<Action>,
    pub(super) sync: SyncReport,
    bulk_done_at: Option<Instant>,
    /// The last record that it never gets.
    pub(super) lag: u64,
}

/// The whole world.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) now: Instant,
    gateways: [Gateway; 2],
    flights: BinaryHeap<Reverse<(Instant, u64)>>,
    cargo: BTreeMap<u64, Flight>,
    sent: u64,
    pub(super) chance: Chance,
    pub(super) delay: Duration,
    /// Percent of datagrams that are lost, by sender and path.
    pub(super) loss: [[u64; PATHS as usize]; 2],
    /// What the neighbours have learnt.
    pub(super) vip_at: Option<NodeId>,
    /// When both had permission to forward.
    pub(super) both_forwarded: Vec<Instant>,
    pub(super) bulk_time: Duration,
}

impl Cluster {
    /// Both machines, nothing started.
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    /// With other settings.
    pub(super) fn with(change: impl Fn(&mut Settings)) -> Self {
        let gateway = |node| {
            let mut settings = Settings {
                node,
                timers: Profile::Fast.timers(),
                mode: Mode::Pair,
                prefer: 100,
                emergency_promote: true,
                real_time: true,
                epoch: Epoch::ZERO,
            };
            change(&mut settings);
            Gateway::new(settings)
        };
        Self {
            now: Instant::from_micros(1_000_000),
            gateways: [gateway(A), gateway(B)],
            flights: BinaryHeap::new(),
            cargo: BTreeMap::new(),
            sent: 0,
            chance: Chance(1),
            delay: Duration::from_micros(100),
            loss: [[0; PATHS as usize]; 2],
            vip_at: None,
            both_forwarded: Vec::new(),
            bulk_time: ms(30),
        }
    }

    /// A is active, B its standby that is ready.
    pub(super) fn paired() -> Self {
        let mut cluster = Self::new();
        cluster.pair_up();
        cluster
    }

    pub(super) fn pair_up(&mut self) {
        self.start(A);
        self.run(ms(1010));
        self.start(B);
        self.run(ms(100));
        assert_eq!(self.states(), [State::Active, State::Standby], "{:#?}", self.history());
    }

    pub(super) fn at(&mut self, node: NodeId) -> &mut Gateway {
        &mut self.gateways[usize::from(node.index())]
    }

    pub(super) fn gateway(&self, node: NodeId) -> &Gateway {
        &self.gateways[usize::from(node.index())]
    }

    pub(super) fn states(&self) -> [State; 2] {
        [A, B].map(|node| self.state(node))
    }

    pub(super) fn state(&self, node: NodeId) -> State {
        self.gateway(node).core.as_ref().map_or(State::Init, Core::state)
    }

    pub(super) fn runs(&self, node: NodeId) -> bool {
        self.gateway(node).core.is_some()
    }

    /// Why it became what it is.
    pub(super) fn cause(&self, node: NodeId) -> Cause {
        self.gateway(node).transitions.last().expect("it has changed").cause
    }

    pub(super) fn start(&mut self, node: NodeId) {
        let (now, boot) = (self.now, self.chance.next());
        let gateway = self.at(node);
        gateway.boot = boot;
        gateway.core = Some(Core::new(gateway.settings, now));
        self.wake(node);
    }

    /// The process is killed; nobody says goodbye for it.
    pub(super) fn crash(&mut self, node: NodeId) {
        let gateway = self.at(node);
        *gateway = Gateway { transitions: std::mem::take(&mut gateway.transitions), ..Gateway::new(gateway.settings) };
    }

    /// The process does not run for so long; what comes for it waits in its sockets.
    pub(super) fn pause(&mut self, node: NodeId, time: Duration) {
        let until = self.now + time;
        self.at(node).paused_until = until;
    }

    pub(super) fn is_paused(&self, node: NodeId) -> bool {
        self.now < self.gateway(node).paused_until
    }

    pub(super) fn stick_data_plane(&mut self, node: NodeId, time: Duration) {
        let until = self.now + time;
        self.at(node).stuck_until = until;
    }

    /// Nothing of what `from` sends arrives.
    pub(super) fn cut(&mut self, from: NodeId) {
        self.loss[usize::from(from.index())] = [100; PATHS as usize];
    }

    pub(super) fn heal(&mut self) {
        self.loss = [[0; PATHS as usize]; 2];
    }

    pub(super) fn legs(&mut self, node: NodeId, legs: Legs) {
        self.tell(node, Event::Legs(legs));
    }

    pub(super) fn command(&mut self, node: NodeId, command: Command) -> Result<(), Refusal> {
        let now = self.now;
        let mut actions = Vec::new();
        let core = self.at(node).core.as_mut().expect("it runs");
        let outcome = core.command(command, now, &mut actions);
        self.carry_out(node, actions);
        outcome
    }

    /// What the copying of flows has come to.
    pub(super) fn replica(&mut self, node: NodeId, replica: Replica) {
        self.at(node).sync.replica = replica;
        let report = self.gateway(node).sync;
        self.tell(node, Event::Sync(report));
    }

    /// Who may forward now.
    pub(super) fn forwarders(&self) -> impl Iterator<Item = NodeId> + '_ {
        [A, B].into_iter().filter(|node| self.gateway(*node).permit.is_some_and(|permit| permit.holds(self.now)))
    }

    /// Whether at no time both forwarded.
    pub(super) fn never_both(&self) -> bool {
        self.both_forwarded.is_empty()
    }

    /// Time passes.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.next_event().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.happen();
        }
        self.now = end;
    }

    /// Time passes until this is so, or for a second.
    pub(super) fn run_until(&mut self, what: &str, so: impl Fn(&Self) -> bool) -> Duration {
        let start = self.now;
        while !so(self) {
            assert!(self.now.since(start) < ms(5000), "not within 5 s: {what}\n{:#?}", self.history());
            self.now = self.now.max(self.next_event().expect("somebody runs"));
            self.happen();
        }
        self.now.since(start)
    }

    /// All transitions, in order.
    pub(super) fn history(&self) -> Vec<(NodeId, Transition)> {
        let of = |node| self.gateway(node).transitions.iter().map(move |transition| (node, *transition));
        let mut all: Vec<_> = of(A).chain(of(B)).collect();
        all.sort_by_key(|(_, transition)| transition.at);
        all
    }

    fn next_event(&self) -> Option<Instant> {
        let flight = self.flights.peek().map(|Reverse((at, _))| *at);
        let wakes = [A, B].into_iter().filter_map(|node| self.gateway(node).wakes_at());
        wakes.chain(flight).min()
    }

    fn happen(&mut self) {
        while let Some(Reverse((at, id))) = self.flights.peek().copied().filter(|Reverse((at, _))| *at <= self.now) {
            self.flights.pop();
            let flight = self.cargo.remove(&id).expect("it was sent");
            let gateway = self.at(flight.to);
            if gateway.core.is_some() {
                gateway.socket.push_back((at, flight));
            }
        }
        for node in [A, B] {
            if self.runs(node) && !self.is_paused(node) {
                self.read(node);
                if self.gateway(node).wakes_at().is_some_and(|at| at <= self.now) {
                    self.wake(node);
                }
            }
        }
        if self.forwarders().count() == 2 {
            self.both_forwarded.push(self.now);
        }
    }

    /// Reads its sockets.
    fn read(&mut self, node: NodeId) {
        while let Some((at, Flight { path, boot, message, .. })) = self.at(node).socket.pop_front() {
            match &message {
                Message::Heartbeat(heartbeat) => self.tell(node, Event::Heartbeat { boot, path, at, heartbeat }),
                Message::Handoff(handoff) => self.tell(node, Event::Handoff(*handoff)),
                Message::Goodbye(goodbye) => self.tell(node, Event::Goodbye(*goodbye)),
            }
        }
    }

    /// What the heartbeat thread does when its time has come.
    fn wake(&mut self, node: NodeId) {
        let now = self.now;
        let peer_serves = self.gateway(node.peer()).permit.is_some();
        let peer_made = self.gateway(node.peer()).sync.progress.produced_lsn;
        let gateway = self.at(node);
        if gateway.bulk_done_at.is_some_and(|at| at <= now) && peer_serves {
            gateway.bulk_done_at = None;
            gateway.sync.progress.session += 1;
            gateway.sync.replica = Replica::Equal;
        }
        gateway.sync.progress.applied_lsn = peer_made.saturating_sub(gateway.lag);
        if gateway.permit.is_some() {
            gateway.sync.progress.produced_lsn += 1;
        }
        let (report, moves) = (gateway.sync, now >= gateway.stuck_until);
        self.tell(node, Event::Sync(report));
        if moves {
            self.tell(node, Event::DataPlane { ticked_at: now });
        }
        self.tell(node, Event::Tick);
        if moves {
            self.confirm(node);
        }
    }

    /// The data plane has seen its permission.
    fn confirm(&mut self, node: NodeId) {
        let gateway = self.at(node);
        let epoch = gateway.permit.map(|permit| permit.epoch);
        if gateway.confirmed != epoch {
            gateway.confirmed = epoch;
            if let Some(epoch) = epoch {
                self.tell(node, Event::Forwarding(epoch));
            }
        }
    }

    pub(super) fn tell(&mut self, node: NodeId, event: Event<'_>) {
        let now = self.now;
        let mut actions = Vec::new();
        let Some(core) = self.at(node).core.as_mut() else { return };
        core.step(event, now, &mut actions);
        self.carry_out(node, actions);
    }

    fn carry_out(&mut self, node: NodeId, actions: Vec<Action>) {
        for action in actions {
            let now = self.now;
            let bulk_time = self.bulk_time;
            let gateway = self.at(node);
            gateway.actions_seen.push(action);
            match action {
                Action::SendHeartbeat => {
                    let core = gateway.core.as_ref().expect("it runs");
                    let beats = [0, 1].map(|path| core.heartbeat(PathId(path), now));
                    for (path, beat) in (0..).zip(beats) {
                        self.send(node, PathId(path), Message::Heartbeat(beat));
                    }
                }
                Action::SendGoodbye(goodbye) => self.send_on_all(node, Message::Goodbye(goodbye)),
                Action::SendHandoff(handoff) => self.send_on_all(node, Message::Handoff(handoff)),
                Action::Forward(permit) => gateway.permit = Some(permit),
                Action::Stop => (gateway.permit, gateway.confirmed) = (None, None),
                Action::Announce => {
                    gateway.announcements.push(now);
                    gateway.answers_arp = true;
                    self.vip_at = Some(node);
                }
                Action::Withdraw => gateway.answers_arp = false,
                Action::Relay(on) => gateway.relays = on,
                Action::Flush => {
                    let Progress { produced_lsn: lsn, .. } = gateway.sync.progress;
                    self.tell(node, Event::Flushed(crate::control::ha::Digest { lsn, root: 0 }));
                }
                Action::RequestBulk => {
                    gateway.sync.replica = Replica::Partial;
                    gateway.bulk_done_at = Some(now + bulk_time);
                }
                Action::CommitWait(_) => {}
                Action::PersistEpoch { epoch, .. } => gateway.settings.epoch = epoch,
                Action::Transition(transition) => {
                    gateway.transitions.push(transition);
                    // The commit said that both tables are equal.
                    if transition.to == State::Drain {
                        gateway.sync.progress.session += 1;
                        gateway.sync.replica = Replica::Equal;
                    }
                }
                Action::FlipFailed(refusal) => gateway.flip_failed.push(refusal),
            }
        }
        if self.now >= self.gateway(node).stuck_until {
            self.confirm(node);
        }
    }

    fn send_on_all(&mut self, from: NodeId, message: Message) {
        (0..PATHS).for_each(|path| self.send(from, PathId(path), message));
    }

    fn send(&mut self, from: NodeId, path: PathId, message: Message) {
        if self.chance.percent(self.loss[usize::from(from.index())][usize::from(path.0)]) {
            return;
        }
        self.sent += 1;
        let flight = Flight { to: from.peer(), path, boot: self.gateway(from).boot, message };
        self.flights.push(Reverse((self.now + self.delay, self.sent)));
        self.cargo.insert(self.sent, flight);
    }
}

impl Gateway {
    fn new(settings: Settings) -> Self {
        Self {
            core: None,
            settings,
            boot: 0,
            paused_until: Instant::ZERO,
            stuck_until: Instant::ZERO,
            socket: VecDeque::new(),
            permit: None,
            confirmed: None,
            relays: false,
            answers_arp: false,
            announcements: Vec::new(),
            transitions: Vec::new(),
            flip_failed: Vec::new(),
            actions_seen: Vec::new(),
            sync: SyncReport::default(),
            bulk_done_at: None,
            lag: 0,
        }
    }

    fn wakes_at(&self) -> Option<Instant> {
        Some(self.core.as_ref()?.poll_timeout().max(self.paused_until))
    }
}
