//! Two gateways: what the one that serves tells the other is enough for that to go on in its place.

use std::time::Duration;

use proptest::prelude::*;
use tungate::engine::conntrack::State;
use tungate::engine::{Change, Imported, Refused, Verdict};
use tungate::wire::build::{self, Tcp};

use crate::CONFIG;
use crate::support::{Connection, World, at, flags, segment};

const DSR: &str = r#"
[gateway]
source-addresses = ["10.99.0.10"]

[[service]]
name = "web"
listen = "192.0.2.10:80"
mode = "dsr"
backends = [{ address = "10.0.0.1" }, { address = "10.0.0.2" }]
"#;

const SERVICES: [&str; 3] = ["web", "dns", "plain"];

/// The gateway that serves, and its standby.
struct Pair {
    active: World,
    standby: World,
}

impl Pair {
    fn new(config: &str, workers: u16) -> Self {
        let [mut active, mut standby] = [(); 2].map(|()| World::with_workers(config, workers));
        active.engines.iter_mut().chain(&mut standby.engines).for_each(tungate::engine::Engine::pair);
        active.engines.iter_mut().for_each(|engine| engine.tell(true));
        Self { active, standby }
    }

    /// Tells the standby what is new; true if the last packet had to wait for that.
    #[track_caller]
    fn tell(&mut self) -> bool {
        let (commits, refused) = self.try_tell();
        assert_eq!(refused, []);
        commits
    }

    fn try_tell(&mut self) -> (bool, Vec<Refused>) {
        let (mut commits, mut refused) = (false, Vec::new());
        for (from, to) in self.active.engines.iter_mut().zip(&mut self.standby.engines) {
            if !from.has_news() {
                continue;
            }
            let (news, held) = from.news();
            commits |= held;
            for change in news {
                match to.import(&change, self.active.now) {
                    Ok(Imported::Compared { theirs, ours }) => {
                        assert!(theirs == ours || !refused.is_empty(), "the tables differ: {theirs:?} {ours:?}");
                    }
                    Ok(Imported::Done | Imported::Complete) => {}
                    Err(why) => refused.push(why),
                }
            }
        }
        (commits, refused)
    }

    /// Tells of all flows there are. Where those that are no more leave no room, a second time.
    fn tell_all(&mut self) {
        if !self.try_tell_all().is_empty() {
            assert_eq!(self.try_tell_all(), []);
        }
    }

    fn try_tell_all(&mut self) -> Vec<Refused> {
        let mut flows = Vec::new();
        self.active.shared.table.for_each(|flow| flows.push(flow.hold()));
        self.active.engines.iter_mut().for_each(|engine| engine.tell_begin());
        for flow in flows {
            self.active.engines[usize::from(flow.owner().0)].tell_again(&flow);
        }
        self.active.engines.iter_mut().for_each(|engine| engine.tell_end());
        self.try_tell().1
    }

    /// The standby serves now: the active is gone.
    fn fail_over(self) -> World {
        let Self { active, mut standby } = self;
        standby.now = active.now;
        let now = standby.now;
        standby.engines.iter_mut().for_each(|engine| engine.take_over(now));
        standby.check_invariants();
        standby
    }

    #[track_caller]
    fn assert_same(&mut self) {
        self.active.engines.iter_mut().for_each(|engine| engine.tell_mark());
        self.tell();
        let mut states = self.active.states();
        let mut known = self.standby.states();
        states.sort_by_key(|state| *state as u8);
        known.sort_by_key(|state| *state as u8);
        assert_eq!(states, known);
        self.standby.check_invariants();
    }
}

/// Data both ways, then both sides close.
#[track_caller]
fn lives_and_ends(world: &mut World, connection: &mut Connection) {
    world.client_sends(connection, 1_000);
    world.backend_sends(connection, 50_000);
    world.client_sends(connection, 1_000);
    world.client_closes(connection);
    world.backend_sends(connection, 50_000);
    world.backend_closes(connection);
    let flow = world.flow(connection.client, connection.vip, tungate::wire::Protocol::TCP).unwrap();
    assert_eq!(flow.state(), State::TimeWait);
}

#[test]
fn r110_an_open_connection_goes_on_wherever_it_has_got_to() {
    for service in ["web", "plain"] {
        for unseen in [0, 10, 100_000] {
            let mut pair = Pair::new(CONFIG, 2);
            let mut connections: Vec<_> = (1..=8).map(|n| pair.active.client(n).opens(service)).collect();
            pair.tell();
            for connection in &mut connections {
                for _ in 0..unseen / 50_000 + 1 {
                    pair.active.client_sends(connection, unseen.min(50_000));
                    pair.active.backend_sends(connection, unseen.min(50_000));
                }
            }
            pair.assert_same();
            let mut world = pair.fail_over();
            connections.iter_mut().for_each(|connection| lives_and_ends(&mut world, connection));
            world.wait(121);
            assert!(world.shared.table.is_empty());
            world.check_invariants();
        }
    }
}

#[test]
fn a_connection_that_first_sends_again_what_was_lost_goes_on() {
    let mut pair = Pair::new(CONFIG, 1);
    let mut connection = pair.active.client(1).opens("web");
    pair.tell();
    let start = connection;
    pair.active.backend_sends(&mut connection, 60_000);
    pair.active.backend_sends(&mut connection, 60_000);
    let mut world = pair.fail_over();
    // The backend heard of none of the acknowledgments; the client has got all.
    let again = Tcp { payload: &[0xa5; 1_000], ..start.backend_segment("ACK") };
    world.backend_says(&connection, &again).forwarded();
    world.client_says(&connection, &connection.client_segment("ACK")).forwarded();
    lives_and_ends(&mut world, &mut connection);
}

#[test]
fn a_connection_whose_end_is_the_first_that_is_seen_ends() {
    let mut pair = Pair::new(CONFIG, 1);
    let mut connection = pair.active.client(1).opens("web");
    pair.tell();
    pair.active.backend_sends(&mut connection, 500_000 % 65_000);
    let mut world = pair.fail_over();
    world.backend_closes(&mut connection);
    world.client_closes(&mut connection);
    assert_eq!(world.states(), [State::TimeWait]);
}

#[test]
fn a_handshake_goes_on_at_each_of_its_steps() {
    for seen in 0..=2 {
        let mut pair = Pair::new(CONFIG, 1);
        let mut connection = pair.active.client(1).begins("web");
        assert!(!pair.tell(), "a SYN to a backend need not wait");
        let syn_ack = segment("SYN ACK", 900_000, 1_001);
        if seen >= 1 {
            pair.active.backend_says(&connection, &syn_ack).forwarded();
            assert!(pair.tell(), "a client that has got a SYN-ACK is never forgotten");
        }
        if seen >= 2 {
            pair.active.client_says(&connection, &connection.client_segment("ACK")).forwarded();
            assert!(!pair.tell());
        }
        let mut world = pair.fail_over();
        if seen < 1 {
            world.backend_says(&connection, &syn_ack).forwarded();
        }
        if seen < 2 {
            world.client_says(&connection, &connection.client_segment("ACK")).forwarded();
        }
        lives_and_ends(&mut world, &mut connection);
    }
}

/// The last change may be lost with the gateway: it is told after the packet has left.
#[test]
fn a_connection_goes_on_though_its_last_change_was_not_told() {
    let mut pair = Pair::new(CONFIG, 1);
    let mut connection = pair.active.client(1).begins("web");
    pair.active.backend_says(&connection, &segment("SYN ACK", 900_000, 1_001)).forwarded();
    pair.tell();
    pair.active.client_says(&connection, &connection.client_segment("ACK")).forwarded();
    pair.active.client_sends(&mut connection, 1_000);
    pair.active.backend_sends(&mut connection, 40_000);
    let mut world = pair.fail_over();
    lives_and_ends(&mut world, &mut connection);

    let mut pair = Pair::new(CONFIG, 1);
    let mut connection = pair.active.client(1).opens("web");
    pair.tell();
    pair.active.client_closes(&mut connection);
    let mut world = pair.fail_over();
    world.backend_sends(&mut connection, 40_000);
    world.backend_closes(&mut connection);
    assert_ne!(world.states(), [State::Established], "the half that is seen counts");
}

#[test]
fn no_forger_ends_a_connection_that_was_taken_over() {
    let mut pair = Pair::new(CONFIG, 1);
    let mut connection = pair.active.client(1).opens("web");
    pair.tell();
    let mut world = pair.fail_over();
    for seq in [0, 77, 1 << 31, 3 << 30] {
        let _ = world.client_says(&connection, &segment("RST", seq, 0));
        let _ = world.backend_says(&connection, &segment("RST", seq, 0));
    }
    assert_eq!(world.states(), [State::Established]);
    lives_and_ends(&mut world, &mut connection);
}

#[test]
fn r110_datagrams_go_on_from_the_same_port() {
    let mut pair = Pair::new(CONFIG, 2);
    let there = pair.active.client(1).asks("dns", b"who?").forwarded();
    assert!(pair.tell(), "the backend sees a port that only this gateway knows");
    let mut world = pair.fail_over();
    let back = world.answers(there.destination, there.source, b"me").forwarded();
    assert_eq!(back.destination, world.client(1).endpoint());
    let again = world.client(1).asks("dns", b"who else?").forwarded();
    assert_eq!((again.source, again.destination), (there.source, there.destination));
}

#[test]
fn r110_a_tunnelled_connection_stays_with_its_backend_and_ends_by_its_own_rst() {
    let mut pair = Pair::new(DSR, 2);
    let client = at("198.51.100.1:40000");
    let vip = at("192.0.2.10:80");
    let send = |world: &mut World, names: &str, seq| world.receives(build::tcp(client, vip, &segment(names, seq, 1)));
    send(&mut pair.active, "SYN", 1_000).forwarded();
    assert!(pair.tell(), "nobody will see the answer");
    send(&mut pair.active, "ACK", 1_001).forwarded();
    pair.tell();
    send(&mut pair.active, "ACK", 900_000).forwarded();
    let flow = pair.active.flow(client, vip, tungate::wire::Protocol::TCP).unwrap();
    let mut world = pair.fail_over();
    let taken = world.flow(client, vip, tungate::wire::Protocol::TCP).unwrap();
    assert_eq!(flow.path().as_ref().unwrap().tunnel(), taken.path().as_ref().unwrap().tunnel());
    send(&mut world, "RST", 1 << 31).forwarded();
    assert_eq!(world.states(), [State::Established], "a forged one, nowhere near");
    send(&mut world, "ACK", 1 << 29).forwarded();
    send(&mut world, "RST", 1 << 29).forwarded();
    assert_eq!(world.states(), [State::Close], "where the client has got to is known again");
}

#[test]
fn a_standby_forgets_nothing_by_itself_and_gives_each_flow_its_whole_time() {
    let mut pair = Pair::new(CONFIG, 1);
    pair.active.client(1).opens("web");
    pair.active.client(2).asks("dns", b"who?").forwarded();
    pair.tell();
    pair.active.now = pair.active.now + Duration::from_secs(20);
    let mut world = pair.fail_over();
    world.wait(119);
    assert_eq!(world.shared.table.len(), 2, "the datagram's time is 120 s");
    world.wait(2);
    assert_eq!(world.states(), [State::Established]);
}

#[test]
fn what_ends_on_one_side_ends_on_the_other() {
    let mut pair = Pair::new(CONFIG, 2);
    for n in 1..=20 {
        let mut connection = pair.active.client(n).opens("web");
        pair.active.client_closes(&mut connection);
        pair.active.backend_closes(&mut connection);
    }
    pair.assert_same();
    pair.active.wait(121);
    pair.assert_same();
    assert!(pair.standby.shared.table.is_empty());
}

#[test]
fn who_has_missed_something_is_told_anew() {
    let mut pair = Pair::new(CONFIG, 2);
    let mut connections: Vec<_> = (1..=20).map(|n| pair.active.client(n).opens("web")).collect();
    pair.tell();
    // Lost: some end, others begin, from the ports of those.
    for connection in connections.drain(10..) {
        pair.active.backend_says(&connection, &connection.backend_segment("RST ACK")).forwarded();
    }
    pair.active.wait(11);
    connections.extend((31..=50).map(|n| pair.active.client(n).opens("web")));
    pair.active.engines.iter_mut().for_each(|engine| engine.tell(true));
    pair.tell_all();
    pair.assert_same();
    let mut world = pair.fail_over();
    assert_eq!(world.shared.table.len(), 30);
    connections.iter_mut().for_each(|connection| lives_and_ends(&mut world, connection));
}

#[test]
fn a_difference_is_found() {
    let mut pair = Pair::new(CONFIG, 1);
    pair.active.client(1).opens("web");
    pair.active.engines[0].tell(true); // forgets what was to be told
    let ours = pair.active.engines[0].digest();
    let compared = pair.standby.engines[0].import(&Change::Mark(ours), pair.active.now).unwrap();
    let Imported::Compared { theirs, ours } = compared else { panic!("{compared:?}") };
    assert_ne!(theirs, ours);
}

#[test]
fn what_is_not_configured_here_is_refused() {
    let mut pair = Pair::new(CONFIG, 1);
    pair.standby.reload(&CONFIG.replace("192.0.2.20:80", "192.0.2.21:80"));
    pair.active.client(1).opens("plain");
    assert_eq!(pair.try_tell().1, [Refused::Unknown; 3]);
    pair.active.client(1).opens("web");
    pair.tell();
    assert_eq!(pair.standby.shared.table.len(), 1);
}

#[test]
fn a_gateway_alone_keeps_no_journal() {
    let mut world = World::new(CONFIG);
    world.client(1).opens("web");
    assert!(!world.engines[0].has_news());
}

#[derive(Clone, Debug)]
enum Step {
    Client {
        n: u8,
        service: usize,
        names: &'static str,
        seq: u32,
        ack: u32,
    },
    Datagram {
        n: u8,
    },
    Answer {
        n: u8,
        names: &'static str,
        seq: u32,
        ack: u32,
    },
    Wait(u16),
    Tell,
    TellAll,
    /// What is to be told is lost.
    Lose,
}

fn step() -> impl Strategy<Value = Step> {
    let names = prop::sample::select(vec!["SYN", "SYN ACK", "ACK", "FIN ACK", "RST", "RST ACK"]);
    let number = prop::sample::select(vec![0u32, 1_000, 1_001, 900_000, 900_001, 77, 1 << 31]);
    let client = (1..12u8, 0..3usize, names.clone(), number.clone(), number.clone());
    let answer = (1..12u8, names, number.clone(), number);
    prop_oneof![
        8 => client.prop_map(|(n, service, names, seq, ack)| Step::Client { n, service, names, seq, ack }),
        2 => (1..12u8).prop_map(|n| Step::Datagram { n }),
        8 => answer.prop_map(|(n, names, seq, ack)| Step::Answer { n, names, seq, ack }),
        2 => prop::sample::select(vec![0, 1, 11, 61, 121, 301]).prop_map(Step::Wait),
        4 => Just(Step::Tell),
        1 => Just(Step::TellAll),
        1 => Just(Step::Lose),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Whatever happens, and whatever of it is lost: told anew, the standby has the same flows, and all that goes with them.
    #[test]
    fn the_standby_has_the_flows_of_the_active(workers in 1..4u16, steps in prop::collection::vec(step(), 1..120)) {
        let config = CONFIG.replace("max-flows = 1000", "max-flows = 9");
        let mut pair = Pair::new(&config, workers);
        for step in steps {
            match step {
                Step::Client { n, service, names, seq, ack } if SERVICES[service] != "dns" => {
                    let _ = pair.active.client(n).sends(SERVICES[service], &segment(names, seq, ack));
                }
                Step::Client { n, .. } | Step::Datagram { n } => {
                    let _ = pair.active.client(n).asks("dns", b"?");
                }
                Step::Answer { n, names, seq, ack } => answer(&mut pair.active, n, &Tcp { flags: flags(names), ..segment("ACK", seq, ack) }),
                Step::Wait(seconds) => pair.active.wait(seconds.into()),
                Step::Tell => { pair.try_tell(); }
                Step::TellAll => pair.tell_all(),
                Step::Lose => pair.active.engines.iter_mut().for_each(|engine| engine.tell(true)),
            }
            pair.standby.check_invariants();
        }
        pair.tell_all();
        pair.assert_same();
        pair.standby.now = pair.active.now;
        pair.standby.wait(100_000);
        prop_assert!(pair.standby.shared.table.is_empty());
        pair.standby.check_invariants();
    }
}

/// The backend of one of this client's flows answers.
fn answer(world: &mut World, n: u8, segment: &Tcp<'_>) {
    let client = world.client(n).endpoint();
    let mut ends = None;
    world.shared.table.for_each(|flow| {
        let answers = flow.key(tungate::engine::conntrack::Direction::Reply);
        if flow.key(tungate::engine::conntrack::Direction::Original).source == client {
            ends = Some(answers);
        }
    });
    let Some(ends) = ends else { return };
    let packet = if ends.protocol == tungate::wire::Protocol::TCP {
        build::tcp(ends.source, ends.destination, segment)
    } else {
        build::udp(ends.source, ends.destination, b"!")
    };
    assert_ne!(world.receives(packet).verdict, Verdict::Handoff(tungate::engine::WorkerId(0)));
}
