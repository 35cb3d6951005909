//! The table: the truth about all flows, shared by all workers. The only user of dashmap.
//!
//! A flow is in here under both keys or under neither. No guard of the map leaves this file, and no call holds one while
//! it takes another: two keys may share a shard, and a second guard would wait for the first for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use foldhash::fast::FixedState;

use super::flow::{Direction, Flow, FlowKey};

#[cfg(not(feature = "shuttle"))]
use dashmap::{DashMap, Entry};
#[cfg(feature = "shuttle")]
use shuttle_dashmap::{DashMap, mapref::entry::Entry};

/// Many small shards: growing one rehashes, and a listing locks, only a thousandth of the table.
const SHARDS: usize = 1024;

/// Why a flow was not entered.
#[derive(Debug)]
pub enum Refused {
    /// Its original key is taken: another worker saw the first packet too, and this is its flow.
    Exists(Arc<Flow>),
    /// Its reply key is taken by a flow of other endpoints: answers could not be told apart.
    Conflict,
}

/// All flows, by both keys.
#[derive(Debug)]
pub struct Table {
    flows: DashMap<FlowKey, Arc<Flow>, FixedState>,
    count: AtomicU32,
    capacity: u32,
}

impl Table {
    /// An empty table for at most `capacity` flows. The seed makes hash collisions unpredictable from outside.
    pub fn new(capacity: u32, seed: u64) -> Self {
        let hasher = FixedState::with_seed(seed);
        Self {
            flows: DashMap::with_capacity_and_hasher_and_shard_amount(0, hasher, SHARDS),
            count: AtomicU32::new(0),
            capacity,
        }
    }

    /// Flows now.
    pub fn len(&self) -> u32 {
        self.count.load(Relaxed)
    }

    /// Whether there is no flow.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Most flows it will hold.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Whether no more flow fits.
    pub fn is_full(&self) -> bool {
        self.len() >= self.capacity
    }

    /// The flow of packets with this key, and which way they go.
    pub fn find(&self, key: &FlowKey) -> Option<(Arc<Flow>, Direction)> {
        let flow = Arc::clone(&*self.flows.get(key)?);
        let direction = flow.direction(key).expect("a flow is in the table under its own keys only");
        Some((flow, direction))
    }

    /// Enters a flow under both keys: the reply key first, since no packet can carry it before the original has left;
    /// undone if the original key turns out to be taken.
    pub fn commit(&self, flow: &Arc<Flow>) -> Result<(), Refused> {
        let reply = *flow.key(Direction::Reply);
        match self.flows.entry(reply) {
            Entry::Occupied(taken) => {
                let other = Arc::clone(taken.get());
                drop(taken);
                // The other worker of a race may be between its two insertions.
                let same = other.key(Direction::Original) == flow.key(Direction::Original);
                return Err(if same { Refused::Exists(other) } else { Refused::Conflict });
            }
            Entry::Vacant(free) => drop(free.insert(Arc::clone(flow))),
        }
        let taken = match self.flows.entry(*flow.key(Direction::Original)) {
            Entry::Occupied(taken) => Some(Arc::clone(taken.get())),
            Entry::Vacant(free) => {
                drop(free.insert(Arc::clone(flow)));
                None
            }
        };
        if let Some(other) = taken {
            self.flows.remove_if(&reply, |_, entered| Arc::ptr_eq(entered, flow));
            return Err(Refused::Exists(other));
        }
        self.count.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Takes a flow out under both keys; true for the one caller that did.
    pub fn remove(&self, flow: &Arc<Flow>) -> bool {
        if !flow.bury() {
            return false;
        }
        for direction in [Direction::Original, Direction::Reply] {
            self.flows.remove_if(flow.key(direction), |_, entered| Arc::ptr_eq(entered, flow));
        }
        self.count.fetch_sub(1, Relaxed);
        true
    }

    /// Calls `visit` with every flow once, one shard at a time: for listings, never for a worker.
    pub fn for_each(&self, mut visit: impl FnMut(&Arc<Flow>)) {
        for entry in &self.flows {
            if entry.key() == entry.value().key(Direction::Original) {
                visit(entry.value());
            }
        }
    }
}

#[cfg(all(test, feature = "shuttle"))]
mod model {
    //! The table's races, explored: `cargo test --features shuttle --lib conntrack::table::model`.

    use shuttle::{check_pct, check_random, thread};

    use super::*;
    use crate::config::{BackendId, ServiceId};
    use crate::engine::conntrack::Plan;
    use crate::engine::nat::Rewrite;
    use crate::engine::{Instant, WorkerId};
    use crate::wire::{Address, Endpoint, Protocol};

    const ROUNDS: usize = 2_000;

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
            service: ServiceId(0),
            backend: BackendId(0),
            owner: WorkerId(0),
            leased: true,
        };
        Arc::new(Flow::new(&plan, Instant::ZERO))
    }

    /// A flow is in the table under both keys or under neither, and the count is that of the flows.
    fn assert_sound(table: &Table, flows: &[&Arc<Flow>]) {
        let mut present = 0;
        for flow in flows {
            let found = [Direction::Original, Direction::Reply].map(|direction| {
                table.find(flow.key(direction)).is_some_and(|(entered, _)| Arc::ptr_eq(&entered, flow))
            });
            assert_eq!(found[0], found[1], "under one key only");
            present += u32::from(found[0]);
        }
        assert_eq!(table.len(), present);
    }

    fn explore(scenario: impl Fn() + Send + Sync + Copy + 'static) {
        check_random(scenario, ROUNDS);
        check_pct(scenario, ROUNDS, 3);
    }

    #[test]
    fn two_first_packets_end_with_one_flow() {
        explore(|| {
            let table = Arc::new(Table::new(8, 1));
            // The same client; each worker has leased another port.
            let mine = [flow(1, 1001), flow(1, 1002)];
            let racers: Vec<_> = mine
                .iter()
                .map(|flow| {
                    let (table, flow) = (Arc::clone(&table), Arc::clone(flow));
                    thread::spawn(move || match table.commit(&flow) {
                        Ok(()) => flow,
                        Err(Refused::Exists(other)) => other,
                        Err(Refused::Conflict) => panic!("no other flow has these ports"),
                    })
                })
                .collect();
            let ended: Vec<_> = racers.into_iter().map(|racer| racer.join().unwrap()).collect();
            assert!(Arc::ptr_eq(&ended[0], &ended[1]), "both packets belong to the same flow");
            assert_sound(&table, &[&mine[0], &mine[1]]);
            assert_eq!(table.len(), 1);
        });
    }

    #[test]
    fn two_clients_cannot_share_an_answer() {
        explore(|| {
            let table = Arc::new(Table::new(8, 1));
            let mine = [flow(1, 1001), flow(2, 1001)];
            let racers: Vec<_> = mine
                .iter()
                .map(|flow| {
                    let (table, flow) = (Arc::clone(&table), Arc::clone(flow));
                    thread::spawn(move || table.commit(&flow).is_ok())
                })
                .collect();
            let entered = racers.into_iter().map(|racer| racer.join().unwrap()).filter(|ok| *ok).count();
            assert_eq!(entered, 1);
            assert_sound(&table, &[&mine[0], &mine[1]]);
        });
    }

    #[test]
    fn a_flow_is_removed_once_while_others_come() {
        explore(|| {
            let table = Arc::new(Table::new(8, 1));
            let (old, new) = (flow(1, 1001), flow(1, 1002));
            table.commit(&old).unwrap();
            let removers: Vec<_> = (0..2)
                .map(|_| {
                    let (table, old) = (Arc::clone(&table), Arc::clone(&old));
                    thread::spawn(move || table.remove(&old))
                })
                .collect();
            let successor = {
                let (table, new) = (Arc::clone(&table), Arc::clone(&new));
                thread::spawn(move || table.commit(&new).is_ok())
            };
            let removed = removers.into_iter().map(|remover| remover.join().unwrap()).filter(|ok| *ok).count();
            let entered = successor.join().unwrap();
            assert_eq!(removed, 1);
            assert_sound(&table, &[&old, &new]);
            assert_eq!(table.len(), u32::from(entered));
        });
    }
}
