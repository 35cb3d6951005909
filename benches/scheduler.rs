//! What a new flow costs besides its two keys: a pick and, with full NAT, a port lease; and what a change of the pool
//! costs: a table.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tungate::config::{BackendId, Balance};
use tungate::engine::WorkerId;
use tungate::engine::nat::ports::Ports;
use tungate::engine::scheduler::{Candidate, Loads, Request, build};
use tungate::wire::{Address, Endpoint, Protocol};

const ALL: [Balance; 6] = [
    Balance::Maglev,
    Balance::RoundRobin,
    Balance::Random,
    Balance::LeastConnections,
    Balance::PowerOfTwo,
    Balance::SourceHash,
];

fn candidates(weights: impl IntoIterator<Item = u16>) -> Vec<Candidate> {
    let candidate = |(id, weight)| Candidate { id: BackendId(id), key: format!("b{id} 10.0.0.1:{id}"), weight };
    (0..).zip(weights).map(candidate).collect()
}

/// Aim: well below 1.5 ms for 100 backends, whatever their weights.
fn maglev_table(c: &mut Criterion) {
    let mut group = c.benchmark_group("maglev-table");
    let pools = [
        ("3-equal", candidates([1; 3])),
        ("100-equal", candidates([1; 100])),
        ("1000-equal", candidates([1; 1_000])),
        ("100-mixed", candidates((1..=100).map(|n| n * 7))),
        ("100-one-heavy", candidates((0..100).map(|n| if n == 0 { 50_000 } else { 50 }))),
    ];
    for (name, pool) in pools {
        group.bench_with_input(BenchmarkId::from_parameter(name), &pool, |b, pool| {
            b.iter(|| build(Balance::Maglev, black_box(pool)));
        });
    }
}

fn pick(c: &mut Criterion) {
    let mut group = c.benchmark_group("pick-of-100");
    let loads = Loads::new();
    for balance in ALL {
        let scheduler = build(balance, &candidates((0..100).map(|n| 1 + n % 5)));
        let mut n = 0u32;
        group.bench_function(BenchmarkId::from_parameter(format!("{balance:?}")), |b| {
            b.iter(|| {
                n = n.wrapping_add(0x9e37_79b9);
                scheduler.pick(&Request {
                    client: Endpoint::new(Address::v4(n.to_be_bytes()), 40_000),
                    listen: Endpoint::new(Address::v4([192, 0, 2, 10]), 443),
                    protocol: Protocol::TCP,
                    random: u64::from(n) << 32,
                    loads: &loads,
                })
            });
        });
    }
}

/// Aim: a lease well below 100 ns. Each iteration is a lease and a release, of pools of 100 backends in turn.
fn lease(c: &mut Criterion) {
    let mut group = c.benchmark_group("lease-and-release");
    let sources = [Address::v4([10, 99, 0, 10]), Address::v4([10, 99, 0, 11])];
    let backend = |n: u64| Endpoint::new(Address::v4([10, 0, 0, (n % 100) as u8]), 80);
    // The share of a pool's ports that others hold: with half, every other client finds its port taken.
    for (name, held) in [("own-port-free", 1), ("half-held", 32_000), ("nearly-full", 64_500)] {
        let mut ports = Ports::new(WorkerId(0), 1);
        let mut random = 1u64;
        let mut next = || {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            random.rotate_left(29)
        };
        for n in (0..200 * held).map(|n| n % 200) {
            let random = next();
            let port = 1_024 | (random >> 48) as u16;
            ports
                .lease(&sources[n % 2..=n % 2], backend(n as u64 / 2), Protocol::TCP, port, random)
                .expect("ports are left");
        }
        group.bench_function(name, |b| {
            b.iter(|| {
                let random = next();
                let (backend, port) = (backend(random), 1_024 | (random >> 48) as u16);
                let source = ports.lease(&sources, backend, Protocol::TCP, port, random).expect("ports are left");
                ports.release(source, backend, Protocol::TCP);
            });
        });
    }
}

criterion_group!(benches, maglev_table, pick, lease);
criterion_main!(benches);
