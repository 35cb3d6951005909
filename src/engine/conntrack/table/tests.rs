use std::collections::HashMap;

use super::*;
use crate::config::{BackendId, ServiceId};
use crate::engine::nat::Rewrite;
use crate::engine::random;
use crate::wire::{Address, Endpoint};

/// A flow of this worker, from this client by this source port to the one backend.
fn plan(client: Address, source_port: u16, owner: u16) -> Plan {
    let backend = if client.is_v4() { Address::v4([10, 0, 0, 1]) } else { Address::v6([0xfd; 16]) };
    let original = FlowKey {
        source: Endpoint::new(client, source_port),
        destination: Endpoint::new(if client.is_v4() { Address::v4([192, 0, 2, 10]) } else { vip() }, 80),
        protocol: Protocol::TCP,
    };
    let outgoing = FlowKey { destination: Endpoint::new(backend, 8080), ..original };
    Plan {
        original,
        reply: outgoing.invert(),
        rewrites: Rewrite::nat(&original, &outgoing),
        path: None,
        service: ServiceId(0),
        backend: BackendId(0),
        owner: WorkerId(owner),
        leased: false,
    }
}

fn vip() -> Address {
    Address::v6([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])
}

fn v4(n: u32) -> Address {
    Address::v4((0x0a00_0000 + n).to_be_bytes())
}

fn v6(network: u64, host: u64) -> Address {
    Address::v6(((u128::from(network) << 64) | u128::from(host)).to_be_bytes())
}

fn enter(table: &Table, plan: &Plan) -> Result<FlowRef, Refused> {
    let flow = table.create(plan, Instant::ZERO)?;
    table.commit(&flow).map(|()| flow)
}

/// Nothing is in the table, and nobody holds a record.
fn assert_empty(table: &Table) {
    assert!(table.is_empty());
    assert!(!table.index.any(|_| true), "an entry of nobody");
    assert!(table.index.is_untouched(), "a bucket that is passed for nothing");
    assert_eq!(table.memory.held(), 0, "a record that nobody gives back");
}

/// A multiplication by zero makes all alike, whatever else is in them: foldhash XORs what it multiplies with a constant,
/// which is public unless it is made of a seed.
#[test]
fn clients_that_choose_their_addresses_meet_no_more_than_others() {
    const PUBLIC: [u64; 3] = [0xc0ac_29b7_c97c_50dd, 0x3f84_d5b5_b547_0917, 0x9216_d5d9_8979_fb1b];
    for constant in PUBLIC.map(u64::swap_bytes) {
        for address in [|c, n| v6(c, n), |c, n| v6(n, c)] {
            let table = Table::new(10_000, 7);
            for n in 0..5_000 {
                enter(&table, &plan(address(constant, n), 4_000, 0)).expect("there is room for twice as many");
            }
        }
    }
}

/// A flood of what belongs to no flow takes no memory.
#[test]
fn what_is_only_looked_for_makes_no_shard() {
    let table = Table::new(100_000, 1);
    assert!((0..1_000).all(|n| table.find(&plan(v4(n), 4_000, 0).original).is_none()));
    assert_eq!(table.index.shards_made(), 0);
}

/// What scans and large NATs look like: neighbours, of which the table takes as many as it says.
#[test]
fn flows_of_neighbours_fill_the_table_to_the_last() {
    type Client = fn(u32) -> (Address, u16);
    let clients: [Client; 4] = [
        |n| (v4(n / 6_000), u16::try_from(n % 6_000 + 1_024).unwrap()),
        |n| (v4(n), 4_000),
        |n| (v4(n << 8), 4_000),
        |n| (v6(0x2001_0db8_0000_0000 + u64::from(n), 1), 4_000),
    ];
    for (kind, client) in clients.into_iter().enumerate() {
        for seed in 0..4 {
            let table = Table::new(20_000, seed);
            for n in 0..20_000 {
                let (client, port) = client(n);
                let entered = enter(&table, &plan(client, port, 0));
                assert!(entered.is_ok(), "kind {kind}, seed {seed}, flow {n}: {entered:?}");
            }
        }
    }
}

/// Workers open, find and end flows of their own on records that others have just used, and look for each other's.
#[test]
fn workers_find_their_own_flows_and_no_others_while_records_change_hands() {
    const WORKERS: u16 = 4;
    const PORTS: u16 = 150;
    const ROUNDS: u64 = 20_000;
    let table = Table::new(600, 1);
    let client = |worker: u16, n: u16| if n.is_multiple_of(3) { v6(5, worker.into()) } else { v4(worker.into()) };
    let plan_of = |worker: u16, n: u16| plan(client(worker, n), 1_000 + n, worker);
    let own = |seen: Seen<'_>| match seen {
        Seen::Own(_, id, _) => Some(id),
        Seen::Something | Seen::Nothing => None,
    };
    let worker = |me: u16| {
        let mut luck = u64::from(me);
        let mut random = |below: u16| {
            luck = random::another(luck);
            u16::try_from(random::below(luck, below.into())).unwrap()
        };
        let mut mine: HashMap<u16, u32> = HashMap::new();
        let mut held: Vec<(FlowRef, Direction, FlowKey, u16)> = Vec::new();
        for _ in 0..ROUNDS {
            let n = random(PORTS);
            let plan = plan_of(me, n);
            let key = if random(2) == 0 { plan.original } else { plan.reply };
            let found = own(table.look(&key.tuple(), key.protocol, WorkerId(me)));
            assert_eq!(found, mine.get(&n).copied());
            match mine.remove(&n) {
                Some(id) => assert!(table.remove(id)),
                None => _ = mine.insert(n, enter(&table, &plan).expect("there is room").id()),
            }
            let (other, n) = ((me + 1 + random(WORKERS - 1)) % WORKERS, random(PORTS));
            let key = if random(2) == 0 { plan_of(other, n).original } else { plan_of(other, n).reply };
            assert_eq!(own(table.look(&key.tuple(), key.protocol, WorkerId(me))), None, "another worker's");
            held.extend(table.find(&key).map(|(flow, direction)| (flow, direction, key, other)));
            for (flow, direction, key, owner) in &held {
                assert_eq!(flow.key(*direction), *key, "a flow has become another while it was held");
                assert_eq!(flow.owner().0, *owner);
            }
            held.truncate(random(8).into());
        }
        drop(held);
        for id in mine.into_values() {
            assert!(table.remove(id));
        }
    };
    std::thread::scope(|scope| {
        for me in 0..WORKERS {
            scope.spawn(move || worker(me));
        }
        scope.spawn(|| {
            for _ in 0..ROUNDS / 1_000 {
                table.for_each(|flow| assert!(flow.owner().0 < WORKERS));
            }
        });
    });
    assert_empty(&table);
}
