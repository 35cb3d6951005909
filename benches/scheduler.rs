//! What a scheduler costs: a table built at a change of the pool, a pick for each new flow.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tungate::config::{BackendId, Balance};
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
    let loads = Loads::new(100);
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

criterion_group!(benches, maglev_table, pick);
criterion_main!(benches);
