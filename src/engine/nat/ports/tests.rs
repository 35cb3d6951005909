//! The pools against a naive model: sets of ports.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

const SOURCES: [Address; 2] = [Address::v4([10, 99, 0, 10]), Address::v4([10, 99, 0, 11])];

fn backend(n: u8) -> Endpoint {
    Endpoint::new(Address::v4([10, 0, 0, n]), 8_080)
}

fn one_worker() -> Ports {
    Ports::new(WorkerId(0), 1)
}

/// Leases towards backend 1 from the first source until none is left.
fn exhaust(ports: &mut Ports, client_port: u16) -> BTreeSet<u16> {
    let mut leased = BTreeSet::new();
    let mut random = 1;
    while let Ok(source) = ports.lease(&SOURCES[..1], backend(1), Protocol::TCP, client_port, random) {
        assert!(leased.insert(source.port), "{source} was leased twice");
        random = random::another(random);
    }
    leased
}

#[test]
fn r30_the_clients_own_port_is_kept_where_it_is_free() {
    let mut ports = one_worker();
    let first = ports.lease(&SOURCES[..1], backend(1), Protocol::TCP, 40_000, 5).unwrap();
    assert_eq!(first, Endpoint::new(SOURCES[0], 40_000));
    let second = ports.lease(&SOURCES[..1], backend(1), Protocol::TCP, 40_000, 5).unwrap();
    assert_ne!(second.port, 40_000);
    assert!(second.port >= 1_024);
}

#[test]
fn r29_a_port_serves_one_flow_to_each_backend_and_protocol() {
    let mut ports = one_worker();
    for (backend, protocol) in [(backend(1), Protocol::TCP), (backend(2), Protocol::TCP), (backend(1), Protocol::UDP)] {
        assert_eq!(ports.lease(&SOURCES[..1], backend, protocol, 40_000, 0).unwrap().port, 40_000);
    }
    let mut in_use: Vec<_> = ports.in_use().collect();
    in_use.sort();
    assert_eq!(
        in_use,
        [(backend(1), Protocol::TCP, 1), (backend(1), Protocol::UDP, 1), (backend(2), Protocol::TCP, 1)]
    );
}

#[test]
fn r30_r31_each_class_is_leased_to_its_last_port_and_no_further() {
    let mut ports = one_worker();
    assert!(exhaust(&mut ports, 80).into_iter().eq(1..=767));
    assert!(exhaust(&mut ports, 40_000).into_iter().eq(1_024..=65_535));
    assert_eq!(ports.in_use().next(), Some((backend(1), Protocol::TCP, 65_535 - 256)));

    // One comes back: the next flow gets that one, and the one after it none.
    ports.release(Endpoint::new(SOURCES[0], 50_123), backend(1), Protocol::TCP);
    assert!(exhaust(&mut ports, 1_024).into_iter().eq([50_123]));
}

#[test]
fn r31_another_source_address_takes_over_when_one_is_full() {
    let mut ports = one_worker();
    exhaust(&mut ports, 80);
    for random in [0, u64::MAX] {
        assert_eq!(ports.lease(&SOURCES, backend(1), Protocol::TCP, 80, random).unwrap().address, SOURCES[1]);
    }
    assert_eq!(ports.lease(&SOURCES[..1], backend(1), Protocol::TCP, 80, 0), Err(Exhausted));
    assert_eq!(ports.lease(&[], backend(1), Protocol::TCP, 80, 0), Err(Exhausted));
}

/// Also by the flows of one backend of two, whose random numbers all begin with the same bit: it chose the backend.
#[test]
fn source_addresses_are_used_alike() {
    let mut ports = one_worker();
    let lease = |random| ports.lease(&SOURCES, backend(1), Protocol::TCP, 40_000, random).unwrap().address;
    let one_backends = (0..).map(random::another).filter(|random| random::below(*random, 2) == 0).take(1_000);
    let first = one_backends.map(lease).filter(|address| *address == SOURCES[0]).count();
    assert!((400..600).contains(&first), "{first} of 1000");
}

/// RFC 6056: who cannot see our random numbers cannot tell the next port from the last.
#[test]
fn r30_a_port_that_changes_is_picked_at_random() {
    let mut ports = one_worker();
    let mut lease = |random| ports.lease(&SOURCES[..1], backend(1), Protocol::TCP, 40_000, random).unwrap().port;
    lease(0);
    let changed: Vec<u16> = (0..1_000).map(random::another).map(lease).collect();
    for tenth in 0..10u32 {
        let (start, end) = (1_024 + tenth * 64_512 / 10, 1_024 + (tenth + 1) * 64_512 / 10);
        let inside = changed.iter().filter(|port| (start..end).contains(&u32::from(**port))).count();
        assert!((50..150).contains(&inside), "{inside} of 1000 ports in {start}..{end}");
    }
}

#[test]
fn an_icmp_identifier_of_zero_gets_another_one() {
    let mut ports = one_worker();
    for random in [0, u64::MAX] {
        let source = ports.lease(&SOURCES[..1], backend(1), Protocol::ICMP, 0, random).unwrap();
        assert!((1..1_024).contains(&source.port), "{source}");
    }
}

#[test]
fn the_workers_together_have_every_port_once() {
    for workers in [1, 2, 3, 7, 64] {
        let mut all = BTreeSet::new();
        for worker in (0..workers).map(WorkerId) {
            let mut ports = Ports::new(worker, workers);
            for port in exhaust(&mut ports, 80).into_iter().chain(exhaust(&mut ports, 40_000)) {
                assert_eq!(Ports::owner(port, workers), worker);
                assert!(all.insert(port), "two workers lease {port}");
            }
        }
        assert!(all.into_iter().eq((1..=767).chain(1_024..=65_535)), "{workers} workers");
    }
}

#[test]
fn a_pool_without_leases_is_dropped() {
    let mut ports = one_worker();
    let held: Vec<_> = (1..100)
        .map(|n| (ports.lease(&SOURCES, backend(n), Protocol::TCP, 40_000, n.into()).unwrap(), backend(n)))
        .collect();
    assert_eq!(ports.pools.len(), 99);
    for (source, backend) in held {
        ports.release(source, backend, Protocol::TCP);
    }
    assert!(ports.pools.is_empty());
}

/// What a flow does to the pools.
#[derive(Clone, Debug)]
enum Step {
    Open { sources: usize, backend: u8, protocol: Protocol, client_port: u16, random: u64 },
    End(Index),
}

fn step() -> impl Strategy<Value = Step> {
    // Few system ports a worker, so that they run out; few client ports, so that they clash.
    let client_port = prop_oneof![2 => 1..=1_023u16, 1 => 40_000..40_064u16, 1 => any::<u16>()];
    let protocol = prop_oneof![7 => Just(Protocol::TCP), 1 => Just(Protocol::UDP)];
    let open = (1..=SOURCES.len(), 1..=2u8, protocol, client_port, any::<u64>());
    prop_oneof![
        3 => open.prop_map(|(sources, backend, protocol, client_port, random)| {
            Step::Open { sources, backend, protocol, client_port, random }
        }),
        1 => any::<Index>().prop_map(Step::End),
    ]
}

proptest! {
    #[test]
    fn leases_are_those_of_the_naive_model(
        worker in 0..64u16, workers in prop_oneof![1..=64u16, Just(64)], steps in prop::collection::vec(step(), 1..600)
    ) {
        let worker = worker % workers;
        let mut ports = Ports::new(WorkerId(worker), workers);
        let mut held: Vec<(Endpoint, Endpoint, Protocol)> = Vec::new();
        let system = |port: u16| port < 1_024;
        let may_lease = |like: u16, port: u16| {
            port != 0 && !FOR_CHECKS.contains(&port) && port % workers == worker && system(port) == system(like)
        };
        for step in steps {
            match step {
                Step::Open { sources, backend: n, protocol, client_port, random } => {
                    let (sources, backend) = (&SOURCES[..sources], backend(n));
                    let taken = |source, port| held.contains(&(Endpoint::new(source, port), backend, protocol));
                    match ports.lease(sources, backend, protocol, client_port, random) {
                        Ok(Endpoint { address, port }) => {
                            prop_assert!(sources.contains(&address));
                            prop_assert!(may_lease(client_port, port), "{port} is another's, or another class");
                            prop_assert!(!taken(address, port), "{port} is leased already");
                            let keeps = may_lease(client_port, client_port) && !taken(address, client_port);
                            prop_assert_eq!(keeps, port == client_port);
                            held.push((Endpoint::new(address, port), backend, protocol));
                        }
                        Err(Exhausted) => {
                            let free = |source: &Address| {
                                (1..=65_535).any(|port| may_lease(client_port, port) && !taken(*source, port))
                            };
                            prop_assert!(!sources.iter().any(free), "refused although one was free");
                        }
                    }
                }
                Step::End(which) if !held.is_empty() => {
                    let (source, backend, protocol) = held.swap_remove(which.index(held.len()));
                    ports.release(source, backend, protocol);
                }
                Step::End(_) => {}
            }
            let mut expected = BTreeMap::new();
            for (source, backend, protocol) in &held {
                *expected.entry((source.address, *backend, *protocol)).or_insert(0) += 1;
            }
            let pools = ports.pools.iter();
            let found = pools.map(|(k, pool)| ((k.source, k.backend, k.protocol), pool.in_use(&ports.slice))).collect();
            prop_assert_eq!(expected, found);
        }
    }
}
