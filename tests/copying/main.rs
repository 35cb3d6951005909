//! The copying of flows from worker to worker, over a network that loses, with everything but threads and sockets.
#![allow(clippy::unwrap_used, reason = "a test may fail that way")]

#[path = "../support/mod.rs"]
#[allow(dead_code, unused_macros, unused_imports, reason = "shared with other tests")]
mod support;

use std::collections::VecDeque;
use std::time::Duration;

use tungate::control::ha::Replica;
use tungate::engine::{Engine, Verdict};
use tungate::io::copying::{Again, Copying, Waiting};
use tungate::io::replication::Replication;
use tungate::wire::Protocol;
use tungate::wire::build;

use support::{Connection, World, segment};

const CONFIG: &str = r#"
[gateway]
source-addresses = ["10.99.0.10"]
max-flows = 3000

[[service]]
name = "web"
listen = "192.0.2.10:80"
backends = [{ address = "10.0.0.1:8080" }, { address = "10.0.0.2:8080" }]
"#;

const WORKERS: u16 = 2;

/// A gateway without its threads.
struct Gateway {
    world: World,
    workers: Vec<Copying>,
    replication: Replication,
    /// Of each worker, the flows to be told again.
    again: Vec<VecDeque<Again>>,
    boot: u64,
}

impl Gateway {
    fn new(boot: u64) -> Self {
        let mut world = World::with_workers(CONFIG, WORKERS);
        world.engines.iter_mut().for_each(Engine::pair);
        let (mut replication, lanes) = Replication::new(WORKERS, 1_300, boot);
        replication.wait_for_commits(true);
        replication.want_all();
        let workers = lanes.into_iter().map(Copying::new).collect();
        let again = (0..WORKERS).map(|_| VecDeque::new()).collect();
        Self { world, workers, replication, again, boot }
    }

    /// All workers go round once.
    fn turn(&mut self, leads: bool) {
        let now = self.world.now;
        for (n, copying) in self.workers.iter_mut().enumerate() {
            let engine = &mut self.world.engines[n];
            if leads {
                let again = &mut self.again[n];
                copying.lead(engine, || again.pop_front(), now);
            } else {
                while copying.follow(engine, now) {}
            }
            if engine.has_news() {
                copying.tell(engine);
            }
        }
    }

    fn flows(&self) -> u32 {
        self.world.shared.table.len()
    }
}

/// A network between two gateways that loses so many of a hundred datagrams.
struct Lab {
    active: Gateway,
    standby: Gateway,
    loss: u64,
    fate: u64,
}

impl Lab {
    fn new(loss: u64, seed: u64) -> Self {
        Self { active: Gateway::new(11), standby: Gateway::new(22), loss, fate: seed }
    }

    /// Half a millisecond passes.
    fn step(&mut self) {
        let Self { active, standby, loss, fate } = self;
        let mut lucky = || {
            *fate = fate.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (*fate >> 33) % 100 >= *loss
        };
        let now = active.world.now;
        if let Some(has) = standby.replication.asks_for_all()
            && lucky()
        {
            active.replication.asked_for_all(standby.boot, has);
        }
        active.turn(true);
        if let Some(session) = active.replication.is_to_tell_all() {
            let again = &mut active.again;
            let table = &active.world.shared.table;
            table.for_each(|flow| again[usize::from(flow.owner().0)].push_back(Again::Flow(flow.hold())));
            again.iter_mut().for_each(|again| again.push_back(Again::Last(session)));
        }
        let mut texts = Vec::new();
        active.replication.transmit(now, |text| texts.push(text.to_vec()));
        for text in texts.into_iter().filter(|_| lucky()) {
            standby.replication.hear(&text, |_| {}).unwrap();
        }
        standby.turn(false);
        let mut ack = Vec::new();
        if standby.replication.acknowledge(&mut ack) && lucky() {
            let mut again = Vec::new();
            active.replication.hear_ack(&ack, now, |text| again.push(text.to_vec()), |_| {}).unwrap();
            for text in again.into_iter().filter(|_| lucky()) {
                standby.replication.hear(&text, |_| {}).unwrap();
            }
        }
        standby.turn(false);
        active.world.now = now + Duration::from_micros(500);
        standby.world.now = active.world.now;
    }

    fn steps(&mut self, n: u32) {
        (0..n).for_each(|_| self.step());
    }

    fn until_equal(&mut self) {
        for _ in 0..20_000 {
            self.step();
            let equal = self.standby.replication.report(0, 0).replica == Replica::Equal;
            if equal && self.active.replication.unshared() == 0 && self.active.flows() == self.standby.flows() {
                return;
            }
        }
        panic!("they never became equal: {:?}", self.standby.replication.report(0, 0));
    }

    /// A client's SYN-ACK, which may have to wait: how many steps it did.
    fn held_for(&mut self, connection: &Connection) -> u32 {
        let syn_ack = build::tcp(connection.backend, connection.source, &segment("SYN ACK", 900_000, 1_001));
        let outcome = self.active.world.receives(syn_ack);
        assert_eq!(outcome.verdict, Verdict::Forward);
        let flow = self.active.world.flow(connection.client, connection.vip, Protocol::TCP).unwrap();
        let owner = usize::from(flow.owner().0);
        let (engine, copying) = (&mut self.active.world.engines[owner], &mut self.active.workers[owner]);
        let Some(told) = copying.tell(engine) else { return 0 };
        copying.hold(Waiting::Sealed(outcome.sent.unwrap()), told, self.active.world.now);
        for steps in 0.. {
            if self.active.workers[owner].release(self.active.world.now).is_some() {
                return steps;
            }
            self.step();
        }
        unreachable!()
    }
}

#[test]
fn a_standby_that_joins_late_gets_all_and_then_what_changes() {
    for loss in [0, 5, 30, 60] {
        let mut lab = Lab::new(loss, 1);
        for n in 1..=200 {
            lab.active.world.client(n).opens("web");
        }
        lab.until_equal();
        assert_eq!(lab.standby.flows(), 200, "{loss} %");
        let mut connections: Vec<_> = (201..=250).map(|n| lab.active.world.client(n).opens("web")).collect();
        for connection in &mut connections[..20] {
            lab.active.world.client_closes(connection);
            lab.active.world.backend_closes(connection);
        }
        lab.until_equal();
        lab.standby.world.check_invariants();
        assert_eq!(lab.standby.replication.refused(), 0);
    }
}

#[test]
fn a_syn_ack_waits_for_the_standby_but_not_for_ever() {
    let mut lab = Lab::new(0, 1);
    lab.until_equal();
    let connection = lab.active.world.client(1).begins("web");
    lab.steps(2);
    assert!(lab.held_for(&connection) <= 1, "it is known after the next exchange");
    assert_eq!(lab.active.replication.uncommitted(), 0);
    lab.loss = 100;
    let connection = lab.active.world.client(2).begins("web");
    assert_eq!(lab.held_for(&connection), 20, "ten milliseconds");
    assert_eq!(lab.active.replication.uncommitted(), 1);
    lab.active.replication.wait_for_commits(false);
    let connection = lab.active.world.client(3).begins("web");
    assert_eq!(lab.held_for(&connection), 0);
}

#[test]
fn what_was_decided_before_a_handover_still_leaves_and_nothing_after_a_fence() {
    for fenced in [false, true] {
        let mut world = Gateway::new(11);
        let (copying, engine) = (&mut world.workers[0], &mut world.world.engines[0]);
        let now = world.world.now;
        copying.hold(Waiting::Sealed(vec![1]), 0, now);
        if fenced {
            copying.forget_held();
        }
        copying.follow(engine, now);
        assert_eq!(copying.release(now).is_none(), fenced);
    }
}

#[test]
fn a_standby_that_begins_another_life_is_told_anew() {
    let mut lab = Lab::new(10, 1);
    for n in 1..=100 {
        lab.active.world.client(n).opens("web");
    }
    lab.until_equal();
    let now = lab.standby.world.now;
    lab.standby = Gateway::new(33);
    lab.standby.world.now = now;
    lab.until_equal();
    assert_eq!(lab.standby.flows(), 100);
}

#[test]
fn roles_change_there_and_back() {
    let mut lab = Lab::new(5, 1);
    let mut connections: Vec<_> = (1..=50).map(|n| lab.active.world.client(n).opens("web")).collect();
    for round in 0..6u8 {
        lab.until_equal();
        lab.active.replication.stop_telling();
        lab.active.turn(false);
        std::mem::swap(&mut lab.active, &mut lab.standby);
        lab.active.replication.stop_hearing();
        lab.standby.replication.want_all();
        lab.active.turn(true);
        for connection in &mut connections {
            lab.active.world.client_sends(connection, 1_000);
            lab.active.world.backend_sends(connection, 70_000 - 10_000);
        }
        connections.push(lab.active.world.client(51 + round).opens("web"));
    }
    lab.until_equal();
    assert_eq!(lab.standby.flows(), 56);
    lab.active.world.check_invariants();
    lab.standby.world.check_invariants();
}

#[test]
fn who_was_not_heard_for_long_is_given_up_and_told_anew() {
    let mut lab = Lab::new(0, 1);
    let connection = lab.active.world.client(1).opens("web");
    lab.until_equal();
    lab.loss = 100;
    for _ in 0..40_000 {
        for names in ["FIN ACK", "RST ACK"] {
            let _ = lab.active.world.client_says(&connection, &connection.client_segment(names));
        }
        lab.active.world.wait_for(Duration::from_secs(11));
        lab.active.world.client(1).opens("web");
        lab.active.turn(true);
        if lab.active.replication.is_broken() {
            break;
        }
        lab.active.replication.transmit(lab.active.world.now, |_| {});
    }
    assert!(lab.active.replication.is_broken());
    lab.loss = 0;
    lab.standby.replication.want_all(); // its role core has given the copy up
    lab.until_equal();
    assert_eq!(lab.standby.flows(), 1);
}
