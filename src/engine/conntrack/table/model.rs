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
fn flow(table: &Table, client: u8, source_port: u16) -> FlowRef {
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
        rewrites: Rewrite::nat(&original, &outgoing),
        path: None,
        service: ServiceId(0),
        backend: BackendId(0),
        owner: WorkerId(0),
        leased: true,
    };
    table.create(&plan, Instant::ZERO).expect("there is room for some")
}

/// Runs one thread for each flow; what each of them has to say.
fn race<T: Send + 'static>(
    table: &Arc<Table>,
    flows: &[FlowRef],
    act: impl Fn(&Table, FlowRef) -> T + Copy + Send + 'static,
) -> Vec<T> {
    let racer = |flow: &FlowRef| {
        let (table, flow) = (Arc::clone(table), flow.clone());
        thread::spawn(move || act(&table, flow))
    };
    let racers: Vec<_> = flows.iter().map(racer).collect();
    racers.into_iter().map(|racer| racer.join().expect("a racer ends")).collect()
}

/// The flow that a first packet ends with, as in the engine.
fn settle(table: &Table, flow: FlowRef) -> FlowRef {
    match table.commit(&flow) {
        Ok(()) => flow,
        Err(Refused::Exists(other)) => other,
        Err(refused @ (Refused::Conflict | Refused::Full)) => panic!("{refused:?}"),
    }
}

/// A flow is in the table under both keys or under neither, nothing else is, and the count is that of the flows.
fn assert_sound(table: &Table, flows: &[FlowRef]) {
    let mut present = 0;
    for flow in flows {
        let found = [Direction::Original, Direction::Reply]
            .map(|direction| table.find(&flow.key(direction)).is_some_and(|(entered, _)| entered == *flow));
        assert_eq!(found[0], found[1], "under one key only");
        assert_eq!(found[0], flow.is_alive(), "what is alive is in the table");
        present += u32::from(found[0]);
    }
    assert_eq!(table.len(), present);
    let mut entries = 0;
    table.index.any(|_| {
        entries += 1;
        false
    });
    assert_eq!(entries, 2 * present, "entries of nobody");
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
        let flows = [flow(&table, 1, 1001), flow(&table, 1, second_port)];
        let ended = race(&table, &flows, settle);
        assert!(ended[0] == ended[1], "both packets belong to the same flow");
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
        let flows = [flow(&table, 1, 1001), flow(&table, 1, 1001), flow(&table, 1, 1002)];
        let ended = race(&table, &flows, settle);
        assert!(ended.iter().all(|flow| *flow == ended[0]), "all packets belong to the same flow");
        assert_sound(&table, &flows);
        assert_eq!(table.len(), 1);
    });
}

#[test]
fn two_clients_cannot_share_an_answer() {
    explore(|| {
        let table = Arc::new(Table::new(8, 1));
        let flows = [flow(&table, 1, 1001), flow(&table, 2, 1001)];
        let entered = race(&table, &flows, |table, flow| table.commit(&flow).is_ok());
        assert_eq!(entered.into_iter().filter(|ok| *ok).count(), 1);
        assert_sound(&table, &flows);
    });
}

#[test]
fn a_flow_is_removed_once_while_its_successor_comes() {
    fn scenario(successors_port: u16) {
        let table = Arc::new(Table::new(8, 1));
        let (old, new) = (flow(&table, 1, 1001), flow(&table, 1, successors_port));
        table.commit(&old).unwrap();
        let successor = {
            let (table, new) = (Arc::clone(&table), new.clone());
            thread::spawn(move || table.commit(&new).is_ok())
        };
        let removed = race(&table, &[old.clone(), old.clone()], |table, flow| table.remove(flow.id()));
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
        let flows = [flow(&table, 1, 1001), flow(&table, 1, 1001)];
        let killer = {
            let (table, key) = (Arc::clone(&table), flows[0].key(Direction::Reply));
            thread::spawn(move || table.find(&key).is_some_and(|(flow, _)| table.remove(flow.id())))
        };
        race(&table, &flows, |table, flow| drop(table.commit(&flow)));
        killer.join().unwrap();
        assert_sound(&table, &flows);
    });
}

/// A record is given back by one while others take it, and is never two flows at once.
#[test]
fn memory_is_used_again_by_one_at_a_time() {
    explore(|| {
        let table = Arc::new(Table::new(8, 1));
        let freed = [flow(&table, 1, 1001), flow(&table, 2, 1002)];
        drop(freed);
        let takers = [1, 2, 3].map(|client| {
            let table = Arc::clone(&table);
            thread::spawn(move || {
                drop(flow(&table, client, 1000));
                flow(&table, client, 1001)
            })
        });
        let held = takers.map(|taker| taker.join().expect("a taker ends"));
        for (client, one) in (1..).zip(&held) {
            assert_eq!(one.key(Direction::Original).source.address, Address::v4([198, 51, 100, client]));
            assert_eq!(held.iter().filter(|other| other.id() == one.id()).count(), 1);
        }
    });
}

#[test]
fn max_flows_is_never_exceeded() {
    explore(|| {
        let table = Arc::new(Table::new(2, 1));
        let flows = [flow(&table, 1, 1001), flow(&table, 2, 1002), flow(&table, 3, 1003)];
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
