//! The table's races, explored: `cargo test --features shuttle --lib conntrack::table::model`.
//!
//! Threads may be switched at every lock of the map and at every atomic of the table. A planted fault (a guard held
//! across the second insertion, the undo left out, the count raised after the check) is found within a second.

use shuttle::{check_dfs, check_pct, check_random, thread};

use super::*;
use crate::config::{BackendId, ServiceId};
use crate::engine::conntrack::Plan;
use crate::engine::nat::Rewrite;
use crate::engine::{Instant, WorkerId};
use crate::wire::{Address, Endpoint, Protocol};

const ROUNDS: usize = 3_000;

/// A flow of this client that reaches the backend from this source port.
fn flow(client: u8, source_port: u16) -> Arc<Flow> {
    let original = FlowKey {
        source: Endpoint::new(Address::v4([198, 51, 100, client]), 40_000),
        destination: Endpoint::new(Address::v4([192, 0, 2, 10]), 80),
        protocol: Protocol::TCP,
    };
    let outgoing = FlowKey {
        source: Endpoint::new(Address::v4([10, 99, 0, 10]), source_port),
        destination: Endpoint::new(Address::v4([10, 0, 0, 1]), 8080),
        protocol: Protocol::TCP,
    };
    let plan = Plan {
        original,
        reply: outgoing.invert(),
        rewrites: [Rewrite::nat(&original, &outgoing), Rewrite::nat(&outgoing.invert(), &original.invert())],
        path: None,
        service: ServiceId(0),
        backend: BackendId(0),
        owner: WorkerId(0),
        leased: true,
    };
    Arc::new(Flow::new(&plan, Instant::ZERO))
}

/// Runs one thread for each flow; what each of them has to say.
fn race<T: Send + 'static>(
    table: &Arc<Table>,
    flows: &[Arc<Flow>],
    act: impl Fn(&Table, Arc<Flow>) -> T + Copy + Send + 'static,
) -> Vec<T> {
    let racer = |flow: &Arc<Flow>| {
        let (table, flow) = (Arc::clone(table), Arc::clone(flow));
        thread::spawn(move || act(&table, flow))
    };
    let racers: Vec<_> = flows.iter().map(racer).collect();
    racers.into_iter().map(|racer| racer.join().expect("a racer ends")).collect()
}

/// The flow that a first packet ends with, as in the engine.
fn settle(table: &Table, flow: Arc<Flow>) -> Arc<Flow> {
    match table.commit(&flow) {
        Ok(()) => flow,
        Err(Refused::Exists(other)) => other,
        Err(refused @ (Refused::Conflict | Refused::Full)) => panic!("{refused:?}"),
    }
}

/// A flow is in the table under both keys or under neither, nothing else is, and the count is that of the flows.
fn assert_sound(table: &Table, flows: &[Arc<Flow>]) {
    let mut present = 0;
    for flow in flows {
        let found = [Direction::Original, Direction::Reply]
            .map(|direction| table.find(flow.key(direction)).is_some_and(|(entered, _)| Arc::ptr_eq(&entered, flow)));
        assert_eq!(found[0], found[1], "under one key only");
        assert_eq!(found[0], flow.is_alive(), "what is alive is in the table");
        present += u32::from(found[0]);
    }
    assert_eq!(table.len(), present);
    assert_eq!(table.flows.len(), 2 * present as usize, "entries of nobody");
}

fn explore(scenario: impl Fn() + Send + Sync + Copy + 'static) {
    check_random(scenario, ROUNDS);
    check_pct(scenario, ROUNDS, 3);
}

#[test]
fn two_first_packets_end_with_one_flow() {
    // The same client; each worker has leased another port, or none is leased and both keys are the same.
    fn scenario(second_port: u16) {
        let table = Arc::new(Table::new(8, 1));
        let flows = [flow(1, 1001), flow(1, second_port)];
        let ended = race(&table, &flows, settle);
        assert!(Arc::ptr_eq(&ended[0], &ended[1]), "both packets belong to the same flow");
        assert!(ended[0].is_alive());
        assert_sound(&table, &flows);
        assert_eq!(table.len(), 1);
    }
    explore(|| scenario(1002));
    explore(|| scenario(1001));
    check_dfs(|| scenario(1001), Some(20_000));
}

#[test]
fn three_first_packets_end_with_one_flow() {
    explore(|| {
        let table = Arc::new(Table::new(8, 1));
        // Two that meet at the reply key, and one that meets them at the original.
        let flows = [flow(1, 1001), flow(1, 1001), flow(1, 1002)];
        let ended = race(&table, &flows, settle);
        assert!(ended.iter().all(|flow| Arc::ptr_eq(flow, &ended[0])), "all packets belong to the same flow");
        assert_sound(&table, &flows);
        assert_eq!(table.len(), 1);
    });
}

#[test]
fn two_clients_cannot_share_an_answer() {
    explore(|| {
        let table = Arc::new(Table::new(8, 1));
        let flows = [flow(1, 1001), flow(2, 1001)];
        let entered = race(&table, &flows, |table, flow| table.commit(&flow).is_ok());
        assert_eq!(entered.into_iter().filter(|ok| *ok).count(), 1);
        assert_sound(&table, &flows);
    });
}

#[test]
fn a_flow_is_removed_once_while_its_successor_comes() {
    fn scenario(successors_port: u16) {
        let table = Arc::new(Table::new(8, 1));
        let (old, new) = (flow(1, 1001), flow(1, successors_port));
        table.commit(&old).unwrap();
        let successor = {
            let (table, new) = (Arc::clone(&table), Arc::clone(&new));
            thread::spawn(move || table.commit(&new).is_ok())
        };
        let removed = race(&table, &[Arc::clone(&old), Arc::clone(&old)], |table, flow| table.remove(&flow));
        let entered = successor.join().unwrap();
        assert_eq!(removed.into_iter().filter(|ok| *ok).count(), 1);
        assert_eq!(new.is_alive(), entered);
        assert_sound(&table, &[old, new]);
    }
    explore(|| scenario(1001));
    explore(|| scenario(1002));
}

/// Somebody finds a flow by its reply key, and ends it, while it and others are still coming in.
#[test]
fn a_flow_may_end_before_it_is_wholly_in() {
    explore(|| {
        let table = Arc::new(Table::new(8, 1));
        let flows = [flow(1, 1001), flow(1, 1001)];
        let killer = {
            let (table, key) = (Arc::clone(&table), *flows[0].key(Direction::Reply));
            thread::spawn(move || table.find(&key).is_some_and(|(flow, _)| table.remove(&flow)))
        };
        race(&table, &flows, |table, flow| drop(table.commit(&flow)));
        killer.join().unwrap();
        assert_sound(&table, &flows);
    });
}

#[test]
fn max_flows_is_never_exceeded() {
    explore(|| {
        let table = Arc::new(Table::new(2, 1));
        let flows = [flow(1, 1001), flow(2, 1002), flow(3, 1003)];
        let entered = race(&table, &flows, |table, flow| {
            let entered = table.commit(&flow);
            assert!(table.len() <= 2);
            assert!(matches!(entered, Ok(()) | Err(Refused::Full)));
            entered.is_ok()
        });
        assert_eq!(entered.into_iter().filter(|ok| *ok).count(), 2);
        assert_sound(&table, &flows);
    });
}
