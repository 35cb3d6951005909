//! The heartbeat thread.

use std::mem;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::copies::Copies;
use super::hearing::{Said, hear};
use super::paths::Path;
use super::{Ask, Line, News, Setup};
use crate::config::ha::{Profile as Wanted, Role, SplitBrain};
use crate::control::ha::message::Message;
use crate::control::ha::seal::{Channel, Identity, Opened, Reject};
use crate::control::ha::{
    Action, Cause, Command, Core, Digest, Event, Goodbye, MAX_PATHS, Mode, NodeId, PathId, Profile, Reason, Report,
    Settings,
};
use crate::engine::Instant;
use crate::io::announce::Presence;
use crate::io::duty::Duty;
use crate::io::sys;
use crate::io::worker::Mailbox;

/// Above all that is not of the kernel's own: a heartbeat takes microseconds, and comes two hundred times a second.
const PRIORITY: libc::c_int = 50;
/// How often a peer that is not known is greeted.
const GREETING: Duration = Duration::from_millis(20);
/// How long the end waits for the other one to have taken the role.
const LAST_WISH: Duration = Duration::from_millis(300);

/// All that the thread has.
#[derive(Debug)]
pub(super) struct Heart {
    pub(super) core: Core,
    pub(super) channel: Channel,
    pub(super) paths: Vec<Path>,
    duty: Arc<Duty>,
    presence: Arc<Presence>,
    pub(super) mailboxes: Arc<[Mailbox]>,
    pub(super) line: Arc<Line>,
    pub(super) config_hash: u64,
    pub(super) copies: Copies,
    next_greeting: Instant,
    /// Changes of state, by [`Cause::ALL`].
    causes: [u64; Cause::ALL.len()],
    actions: Vec<Action>,
    incoming: Vec<u8>,
    pub(super) outgoing: Vec<u8>,
}

/// Whether the thread goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Goes,
    Ends,
}

impl Heart {
    /// Makes ready, in the thread itself: its priority decides about the times.
    pub(super) fn begin(setup: Setup, paths: Vec<Path>, line: Arc<Line>) -> Self {
        let real_time = sys::become_real_time(PRIORITY).is_ok();
        // Without it, what was not touched for long may have to be read from a disk first.
        let _ = sys::lock_memory();
        let Setup { ha, keys, epoch, config_hash, boot, replication, shared, duty, presence, mailboxes } = setup;
        let profile = match ha.profile {
            Wanted::Auto | Wanted::Fast if real_time => Profile::Fast,
            Wanted::Auto | Wanted::Fast | Wanted::Normal => Profile::Normal,
            Wanted::Vm => Profile::Vm,
            Wanted::Wan => Profile::Wan,
        };
        if !real_time && matches!(ha.profile, Wanted::Auto | Wanted::Fast) {
            line.tell(News::NoRealTime);
        }
        let node = NodeId::from_index(ha.node()).expect("0 or 1");
        let settings = Settings {
            node,
            timers: profile.timers(),
            mode: if ha.split_brain == SplitBrain::Manual { Mode::Manual } else { Mode::Pair },
            prefer: match ha.role {
                Role::Auto => ha.priority,
                Role::Active => u8::MAX,
                Role::Standby => 0,
            },
            emergency_promote: true,
            real_time,
            epoch,
        };
        let now = sys::now();
        let me = Identity { cluster: ha.cluster(), node: node.index(), boot };
        duty.set_stall(settings.timers.stall);
        let mut heart = Self {
            core: Core::new(settings, now),
            channel: Channel::new(me, keys),
            paths,
            duty,
            presence,
            mailboxes,
            line,
            config_hash,
            copies: Copies::new(replication, shared),
            next_greeting: now,
            causes: [0; Cause::ALL.len()],
            actions: Vec::with_capacity(64),
            incoming: Vec::new(),
            outgoing: Vec::with_capacity(2048),
        };
        heart.report_sync(now);
        heart
    }

    /// Beats until it is told to stop.
    pub(super) fn run(mut self) {
        while self.round() == Life::Goes {}
        self.end();
    }

    fn round(&mut self) -> Life {
        let mut due = self.core.poll_timeout().min(self.copies.poll_timeout());
        if self.channel.peer().is_none() {
            due = due.min(self.next_greeting);
        }
        let timeout = due.since(sys::now());
        let mut fds = [self.duty.heart().as_fd(); MAX_PATHS + 1];
        for (fd, path) in fds[1..].iter_mut().zip(&self.paths) {
            *fd = path.as_fd();
        }
        // What can go wrong with it goes wrong for the other one, too, which takes over.
        if sys::wait(&fds[..=self.paths.len()], Some(timeout)).is_err() {
            return Life::Ends;
        }
        self.duty.heart().clear();
        let now = sys::now();
        self.hear_paths(now);
        let life = self.hear_asks(now);
        self.hear_workers(now);
        self.copy(now);
        if now >= self.core.poll_timeout() {
            self.step(Event::Tick, now);
            self.ask_for_life(now);
            self.ask_for_all(now);
        }
        self.greet(now);
        life
    }

    fn hear_paths(&mut self, now: Instant) {
        let mut buffer = mem::take(&mut self.incoming);
        for index in 0..self.paths.len() {
            let number = u8::try_from(index).expect("a few paths");
            let Self { core, channel, paths, mailboxes, actions, copies, .. } = self;
            let path = &mut paths[index];
            let mut answers = Vec::new();
            path.read(&mut buffer, now, |datagram, at| match channel.open(number, datagram, now) {
                Ok(Opened::Greeting { answer, .. }) => answers.extend(answer),
                Ok(Opened::Message { kind, text, .. }) => {
                    let boot = channel.peer().expect("only a known peer's messages are opened");
                    let understood = Message::read(kind, text).is_some_and(|message| {
                        let said = Said { boot, path: PathId(number), at, now, message };
                        hear(&said, core, copies, mailboxes, actions)
                    });
                    if !understood {
                        channel.not_understood();
                    }
                }
                // It is counted.
                Err(_) => {}
            });
            answers.iter().for_each(|answer| path.send(answer));
            self.act(now);
        }
        self.incoming = buffer;
    }

    fn hear_asks(&mut self, now: Instant) -> Life {
        while let Some(ask) = self.line.asks.pop() {
            match ask {
                // Who does not wait for the answer any more does not need it.
                Ask::Report(to) => {
                    let _ = to.try_send(self.report(now));
                }
                Ask::Command(command, to) => {
                    let outcome = self.core.command(command, now, &mut self.actions);
                    self.act(now);
                    let _ = to.try_send(outcome);
                }
                Ask::Keys(keys) => self.channel.set_keys(keys),
                Ask::ConfigHash(hash) => {
                    self.config_hash = hash;
                    self.report_sync(now);
                }
                Ask::Stop => return Life::Ends,
            }
        }
        Life::Goes
    }

    /// What the workers do, and what they have for the peer.
    fn hear_workers(&mut self, now: Instant) {
        self.step(Event::DataPlane { ticked_at: self.duty.ticked_at(now) }, now);
        if let Some(epoch) = self.duty.confirmed() {
            self.step(Event::Forwarding(epoch), now);
            if self.core.state().forwards() && epoch == self.core.status(now).epoch {
                self.copies.relayed.drain(..).for_each(|packet| self.mailboxes[0].hand(packet));
            }
        }
        let path = self.best_path(now);
        while let Some(packet) = self.duty.next_relayed() {
            self.say(Message::Relay(&packet), path);
        }
        if self.copies.flush_since.is_some_and(|since| self.duty.still_since(since).next().is_none()) {
            self.copies.flush_since = None;
            self.copy(now);
            let last = Digest { lsn: self.copies.replication.produced(), root: 0 };
            self.step(Event::Flushed(last), now);
        }
    }

    /// A worker that has nothing to do says nothing, unless it is asked.
    fn ask_for_life(&self, now: Instant) {
        let lately = self.core.status(now).timers.heartbeat / 2;
        self.duty.still_since(now - lately).for_each(|id| self.mailboxes[id].wake());
    }

    fn greet(&mut self, now: Instant) {
        if self.channel.peer().is_some() || now < self.next_greeting {
            return;
        }
        self.next_greeting = now + GREETING;
        for (number, path) in (0..).zip(&mut self.paths) {
            path.send(&self.channel.greet(number, now));
        }
    }

    pub(super) fn step(&mut self, event: Event<'_>, now: Instant) {
        self.core.step(event, now, &mut self.actions);
        self.act(now);
    }

    /// Does what the core wants done.
    fn act(&mut self, now: Instant) {
        while !self.actions.is_empty() {
            let mut actions = mem::take(&mut self.actions);
            actions.drain(..).for_each(|action| self.perform(action, now));
            // What that has led to stands in the other one; most often nothing, and then the room is kept.
            if self.actions.is_empty() {
                self.actions = actions;
            }
        }
    }

    fn perform(&mut self, action: Action, now: Instant) {
        match action {
            Action::SendHeartbeat => {
                for number in 0..self.paths.len() {
                    let number = u8::try_from(number).expect("a few paths");
                    let heartbeat = self.core.heartbeat(PathId(number), now);
                    self.say(Message::Heartbeat(heartbeat), number);
                }
            }
            Action::SendGoodbye(goodbye) => self.say_everywhere(Message::Goodbye(goodbye)),
            Action::SendHandoff(handoff) => self.say_everywhere(Message::Handoff(handoff)),
            Action::Forward(permit) => {
                self.duty.permit(permit, now);
                if self.duty.confirmed() != Some(permit.epoch) {
                    self.mailboxes.iter().for_each(Mailbox::wake);
                }
            }
            Action::Stop => self.duty.stop(),
            Action::Announce => self.presence.announce(),
            Action::Withdraw => self.presence.withdraw(),
            Action::Relay(so) => self.duty.relay(so),
            Action::Flush => {
                self.copies.flush_since = Some(now + Duration::from_micros(1));
                self.mailboxes.iter().for_each(Mailbox::wake);
            }
            Action::RequestBulk => self.copies.replication.want_all(),
            Action::CommitWait(so) => self.copies.replication.wait_for_commits(so),
            Action::PersistEpoch { epoch, .. } => {
                self.line.epoch.store(epoch.to_bits(), Relaxed);
                self.line.told.wake();
            }
            Action::Transition(transition) => {
                let place = Cause::ALL.iter().position(|cause| *cause == transition.cause);
                self.causes[place.expect("all are in the list")] += 1;
                self.copies.change(transition.from, transition.to);
                self.line.tell(News::Transition(transition));
            }
            Action::FlipFailed(refusal) => self.line.tell(News::FlipFailed(refusal)),
        }
    }

    fn say_everywhere(&mut self, message: Message<'_>) {
        for number in 0..self.paths.len() {
            self.say(message, u8::try_from(number).expect("a few paths"));
        }
    }

    pub(super) fn say(&mut self, message: Message<'_>, path: u8) {
        let Self { channel, outgoing, paths, .. } = self;
        if channel.seal(message.kind(), 0, path, outgoing, |out| message.write(out)) {
            paths[usize::from(path)].send(outgoing);
        }
    }

    /// The first path that the peer was heard by lately.
    pub(super) fn best_path(&self, now: Instant) -> u8 {
        let status = self.core.status(now);
        let seen = status.paths.iter().take(self.paths.len());
        let alive = seen.map(|path| path.heard_at.is_some_and(|at| now.since(at) < status.timers.dead));
        (0..).zip(alive).find(|(_, alive)| *alive).map_or(0, |(number, _)| number)
    }

    fn report(&self, now: Instant) -> Report {
        Report {
            at: now,
            status: self.core.status(now),
            transitions: self.core.transitions().copied().collect(),
            oldest_unsynced: self.copies.replication.oldest().map(|at| now.since(at)).unwrap_or_default(),
            rejects: Reject::ALL.map(|reject| self.channel.rejected(reject)),
            causes: Cause::ALL.iter().zip(self.causes).map(|(cause, n)| (cause.name(), n)).collect(),
            paths: self.paths.iter().map(Path::report).collect(),
        }
    }

    /// Hands the role over if somebody is there to take it, and else says that it is free.
    fn end(mut self) {
        let until = sys::now() + LAST_WISH;
        let _ = self.core.command(Command::Standby { force: true }, sys::now(), &mut self.actions);
        self.act(sys::now());
        while self.core.state().claims() && sys::now() < until {
            self.round();
        }
        self.duty.stop();
        self.presence.withdraw();
        let epoch = self.core.status(sys::now()).epoch;
        if self.core.state().claims() {
            self.say_everywhere(Message::Goodbye(Goodbye { epoch, reason: Reason::Shutdown }));
        }
    }
}
