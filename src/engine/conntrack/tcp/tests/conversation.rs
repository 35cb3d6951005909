//! Two legal hosts, a network that loses, reorders and repeats, and forgers: the tracker refuses nothing that a host
//! sends, and believes nothing that a forger says.

use std::collections::VecDeque;

use proptest::prelude::*;
use proptest::sample::Index;

use super::host::{Habits, Host, Wire};
use super::*;

#[derive(Clone, Debug)]
enum Step {
    Send(Direction, u32),
    Retransmit(Direction, u64, u32),
    Acknowledge(Direction),
    KeepAlive(Direction, u32),
    Probe(Direction),
    Read(Direction, u64),
    Close(Direction),
    Abort(Direction),
    /// At the gateway or at a host: the nth of the first few that wait there comes in.
    Deliver(usize, usize),
    Lose(usize, Index),
    Repeat(usize, Index),
    /// Somebody who does not see the connection sends these flags, this far from where it is, with this acknowledgment.
    Forge(Direction, TcpFlags, u32, u32),
}

fn steps(aborts: bool, forgers: bool) -> impl Strategy<Value = Vec<Step>> {
    let side = || prop_oneof![Just(Original), Just(Reply)];
    // Single segments, and the super-segments of offloads.
    let len = || prop_oneof![Just(1u32), Just(1448), 1..70_000u32];
    let flags = prop::sample::select(vec![SYN, SYN_ACK, ACK, FIN_ACK, RST, RST_ACK]);
    let step = prop_oneof![
        40 => (0..4usize, 0..4usize).prop_map(|(hop, n)| Step::Deliver(hop, n)),
        12 => (side(), len()).prop_map(|(side, len)| Step::Send(side, len)),
        6 => (side(), any::<u64>(), len()).prop_map(|(side, from, len)| Step::Retransmit(side, from, len)),
        4 => side().prop_map(Step::Acknowledge),
        1 => (side(), 0..2u32).prop_map(|(side, garbage)| Step::KeepAlive(side, garbage)),
        2 => side().prop_map(Step::Probe),
        4 => (side(), 0..60_000u64).prop_map(|(side, bytes)| Step::Read(side, bytes)),
        1 => side().prop_map(Step::Close),
        1 => side().prop_map(move |side| if aborts { Step::Abort(side) } else { Step::Acknowledge(side) }),
        4 => (0..4usize, any::<Index>()).prop_map(|(hop, n)| Step::Lose(hop, n)),
        4 => (0..4usize, any::<Index>()).prop_map(|(hop, n)| Step::Repeat(hop, n)),
        8 => (side(), flags, 1u32 << 23..u32::MAX - (1 << 23), any::<u32>()).prop_map(move |(side, flags, off, ack)| {
            if forgers { Step::Forge(side, flags, off, ack) } else { Step::Acknowledge(side) }
        }),
    ];
    prop::collection::vec(step, 50..500)
}

fn habits() -> impl Strategy<Value = Habits> {
    let isn = prop_oneof![any::<u32>(), u32::MAX - 100_000..=u32::MAX, Just(0x7fff_ffff)];
    let buffer = prop_oneof![1..3_000u32, 30_000..1_000_000u32];
    (isn, prop::option::of(0..=4u8), any::<bool>(), buffer).prop_map(|(isn, scale, sack, buffer)| Habits {
        isn,
        scale,
        sack,
        buffer,
    })
}

/// Four queues: from each host to the gateway (0, 1), and from the gateway on to the other host (2, 3).
struct World {
    hosts: [Host; 2],
    hops: [VecDeque<Wire>; 4],
    tracker: Tracker,
    state: State,
    opened: bool,
    fins: [bool; 2],
    rst: bool,
    /// What the gateway has seen, for the message of a failure.
    log: Vec<String>,
}

impl World {
    fn new(client: Habits, backend: Habits) -> Self {
        let mut this = Self {
            hosts: [Host::new(Original, client), Host::new(Reply, backend)],
            hops: Default::default(),
            tracker: Tracker::default(),
            state: State::SynSent,
            opened: false,
            fins: [false; 2],
            rst: false,
            log: Vec::new(),
        };
        let syn = this.hosts[0].retransmits(0, 0);
        this.goes_out(syn);
        this
    }

    fn goes_out(&mut self, wire: Option<Wire>) {
        let Some(wire) = wire else { return };
        self.hosts[wire.from as usize].has_said(&wire);
        self.hops[wire.from as usize].push_back(wire);
    }

    fn take(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let host = |side: &Direction| *side as usize;
        let out = match step {
            Step::Send(side, len) => self.hosts[host(side)].sends(*len),
            Step::Retransmit(side, from, len) => self.hosts[host(side)].retransmits(*from, *len),
            Step::Acknowledge(side) => self.hosts[host(side)].acknowledges(),
            Step::KeepAlive(side, garbage) => self.hosts[host(side)].keeps_alive(*garbage),
            Step::Probe(side) => self.hosts[host(side)].probes(),
            Step::Read(side, bytes) => {
                self.hosts[host(side)].reads(*bytes);
                None
            }
            Step::Close(side) => {
                self.hosts[host(side)].closes();
                None
            }
            Step::Abort(side) => self.hosts[host(side)].aborts(),
            Step::Deliver(hop, n) => return self.deliver(*hop, *n),
            Step::Lose(hop, n) => {
                let len = self.hops[*hop].len();
                if len > 0 {
                    self.hops[*hop].remove(n.index(len));
                }
                None
            }
            Step::Repeat(hop, n) => {
                let len = self.hops[*hop].len();
                if len > 0 {
                    let again = self.hops[*hop][n.index(len)].clone();
                    self.hops[*hop].push_back(again);
                }
                None
            }
            Step::Forge(side, flags, off, ack) => return self.forge(*side, *flags, *off, *ack),
        };
        self.goes_out(out);
        Ok(())
    }

    fn deliver(&mut self, hop: usize, n: usize) -> Result<(), TestCaseError> {
        let len = self.hops[hop].len();
        if len == 0 {
            return Ok(());
        }
        let wire = self.hops[hop].remove(n % len).unwrap();
        if hop < 2 {
            return self.pass_gateway(wire);
        }
        let to = wire.from.other() as usize;
        let answer = self.hosts[to].receives(&wire.segment());
        self.goes_out(answer);
        Ok(())
    }

    fn pass_gateway(&mut self, wire: Wire) -> Result<(), TestCaseError> {
        let segment = wire.segment();
        if !self.opened {
            self.opened = true;
            self.tracker = Tracker::open(&segment);
            self.hops[2].push_back(wire);
            return Ok(());
        }
        let mut tracker = self.tracker;
        let outcome = step(&mut tracker, self.state, wire.from, &segment);
        let Wire { from, seq, ack, window, flags, len, .. } = &wire;
        self.log.push(format!("{from:?} {flags} seq {seq} ack {ack} len {len} window {window}: {outcome:?}"));
        match outcome {
            Outcome::Accept(state) => self.state = state,
            Outcome::Pass => {}
            Outcome::Reopen => {
                prop_assert!(
                    self.state == State::Close && segment.flags == SYN,
                    "reopened in {:?}: {wire:?}",
                    self.state
                );
                return Ok(()); // a SYN again after a RST: another connection
            }
            // The host would not believe this RST, either.
            Outcome::BadWindow if segment.flags.has(RST) && self.state == State::Established => {
                prop_assert!(!self.hosts[wire.from.other() as usize].expects(segment.seq), "refused {wire:?}");
                return Ok(());
            }
            Outcome::BadState | Outcome::BadWindow => {
                prop_assert!(false, "{:#?}", self.log);
            }
        }
        self.tracker = tracker;
        let accepted = matches!(outcome, Outcome::Accept(_));
        self.fins[wire.from as usize] |= accepted && segment.flags.has(TcpFlags::FIN);
        self.rst |= segment.flags.has(RST);
        self.hops[2 + wire.from as usize].push_back(wire);
        Ok(())
    }

    fn forge(&mut self, from: Direction, flags: TcpFlags, off: u32, ack: u32) -> Result<(), TestCaseError> {
        if !matches!(self.state, State::Established | State::FinWait | State::CloseWait) {
            return Ok(());
        }
        let seq = self.hosts[from as usize].next_seq().wrapping_add(off);
        let wire = Wire { from, seq, ack, window: 9_999, flags, options: Vec::new(), len: 0 };
        match step(&mut self.tracker, self.state, from, &wire.segment()) {
            Outcome::Pass => self.hops[2 + from as usize].push_back(wire),
            Outcome::BadState | Outcome::BadWindow => {}
            outcome @ (Outcome::Accept(_) | Outcome::Reopen) => {
                prop_assert!(false, "a forger was believed, {outcome:?} in {:?}: {wire:?}", self.state);
            }
        }
        Ok(())
    }

    /// What the gateway believes has happened must have happened.
    fn check_state(&self) -> Result<(), TestCaseError> {
        match self.state {
            State::FinWait | State::CloseWait => prop_assert!(self.fins[0] || self.fins[1]),
            State::LastAck | State::TimeWait => prop_assert!(self.fins[0] && self.fins[1], "{:?}", self.state),
            State::Close => prop_assert!(self.rst),
            State::SynSent | State::SynReceived | State::Established => prop_assert!(self.fins == [false; 2]),
            State::SynSent2 | State::Unreplied | State::Replied | State::Assured => {
                prop_assert!(false, "{:?}", self.state)
            }
        }
        Ok(())
    }

    fn run(client: Habits, backend: Habits, steps: &[Step]) -> Result<Self, TestCaseError> {
        let mut world = Self::new(client, backend);
        for step in steps {
            world.take(step)?;
            if !world.rst {
                world.check_state()?;
            }
        }
        Ok(world)
    }
}

proptest! {
    #[test]
    fn r40_nothing_that_a_legal_host_sends_is_refused(client in habits(), backend in habits(), steps in steps(false, false)) {
        World::run(client, backend, &steps)?;
    }

    #[test]
    fn nor_when_a_host_gives_up(client in habits(), backend in habits(), steps in steps(true, false)) {
        World::run(client, backend, &steps)?;
    }

    #[test]
    fn r47_a_forger_out_of_the_window_is_never_believed(client in habits(), backend in habits(), steps in steps(true, true)) {
        World::run(client, backend, &steps)?;
    }
}

/// The generator is worth something only if conversations get far.
#[test]
fn conversations_reach_every_state() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let mut reached = Vec::new();
    for _ in 0..300 {
        let (client, backend, steps) =
            (habits(), habits(), steps(true, false)).new_tree(&mut runner).unwrap().current();
        let mut world = World::new(client, backend);
        for step in &steps {
            world.take(step).unwrap();
            reached.push(world.state);
        }
    }
    let times = |state| reached.iter().filter(|s| **s == state).count();
    for state in [State::SynSent, State::SynReceived, State::Established, State::FinWait, State::CloseWait] {
        assert!(times(state) > 100, "{state:?}: {}", times(state));
    }
    for state in [State::LastAck, State::TimeWait, State::Close] {
        assert!(times(state) > 30, "{state:?}: {}", times(state));
    }
}
