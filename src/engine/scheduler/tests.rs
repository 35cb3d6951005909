//! What every scheduler promises.

mod distribution;

use proptest::prelude::*;

use super::*;
use crate::engine::random;
use crate::wire::Address;

const ALL: [Balance; 6] = [
    Balance::Maglev,
    Balance::RoundRobin,
    Balance::Random,
    Balance::LeastConnections,
    Balance::PowerOfTwo,
    Balance::SourceHash,
];

/// Backends of these weights, with ids from 0.
pub(super) fn candidates(weights: &[u16]) -> Vec<Candidate> {
    let candidate = |(n, weight): (usize, &u16)| Candidate {
        id: BackendId(u16::try_from(n).unwrap()),
        key: format!("b{n} 10.0.{}.{}:80", n / 256, n % 256),
        weight: *weight,
    };
    weights.iter().enumerate().map(candidate).collect()
}

pub(super) fn refs(candidates: &[Candidate]) -> Vec<&Candidate> {
    candidates.iter().collect()
}

/// The n-th of 2^32 clients opens a flow.
pub(super) fn request(n: u32, random: u64, loads: &Loads) -> Request<'_> {
    Request {
        client: Endpoint::new(Address::v4(n.to_be_bytes()), 40_000),
        listen: Endpoint::new(Address::v4([192, 0, 2, 10]), 443),
        protocol: Protocol::TCP,
        random,
        loads,
    }
}

/// Where `flows` new flows from as many clients go, each counted in the loads and none ended.
fn picks(scheduler: &dyn Scheduler, flows: u32, seed: u64, loads: &Loads) -> Vec<BackendId> {
    let pick = |n| {
        let id = scheduler.pick(&request(n, random::another(seed ^ u64::from(n)), loads)).unwrap();
        loads.opened(id);
        id
    };
    (0..flows).map(pick).collect()
}

#[test]
fn nobody_is_picked_from_nobody() {
    for balance in ALL {
        for weights in [&[][..], &[0], &[0, 0]] {
            let scheduler = build(balance, &candidates(weights));
            assert_eq!(scheduler.pick(&request(1, 1, &Loads::new())), None, "{balance:?}");
        }
    }
}

/// Flows that end at once leave no load to tell the backends apart.
#[test]
fn an_idle_pool_is_shared_by_weight() {
    let weights = [1, 5, 2, 2];
    for balance in ALL {
        let scheduler = build(balance, &candidates(&weights));
        let mut flows = [0u32; 4];
        for n in 0..10_000 {
            let loads = Loads::new();
            let id = scheduler.pick(&request(n, random::another(n.into()), &loads)).unwrap();
            flows[usize::from(id.0)] += 1;
        }
        for (flows, weight) in flows.iter().zip(weights) {
            let fair = 1_000 * u32::from(weight);
            assert!(flows.abs_diff(fair) < 300, "{balance:?}: {flows} flows, fair would be {fair}");
        }
    }
}

#[test]
fn the_key_is_name_address_and_port() {
    let backend = |port| Backend {
        name: "b1".into(),
        id: BackendId(0),
        service: crate::config::ServiceId(0),
        address: Address::v4([10, 0, 0, 1]),
        port,
        weight: 3,
        discovered: false,
        backup: false,
    };
    assert_eq!(Candidate::new(BackendId(0), &backend(Some(80))).key, "b1 10.0.0.1:80");
    assert_eq!(Candidate::new(BackendId(0), &backend(None)).key, "b1 10.0.0.1");
}

#[test]
fn workers_share_one_rotation() {
    let scheduler = build(Balance::RoundRobin, &candidates(&[1; 8]));
    let loads = Loads::new();
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let (scheduler, loads) = (&scheduler, &loads);
            scope.spawn(move || picks(&**scheduler, 1_000, seed, loads));
        }
    });
    assert_eq!((0..8).map(|id| loads.get(BackendId(id))).collect::<Vec<_>>(), [500; 8]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Seven standard deviations of as many independent draws: a right scheduler fails once in a million runs or less,
    /// one that is a tenth off for a backend that has a tenth of the weight fails always.
    #[test]
    fn shares_converge_to_the_weights(weights in prop::collection::vec(0..20u16, 2..12), seed: u64) {
        prop_assume!(weights.iter().any(|w| *w > 0));
        const FLOWS: u32 = 50_000;
        let total: f64 = weights.iter().map(|w| f64::from(*w)).sum();
        for balance in ALL {
            let loads = Loads::new();
            picks(&*build(balance, &candidates(&weights)), FLOWS, seed, &loads);
            for (id, weight) in (0..).zip(&weights) {
                let (share, flows) = (f64::from(*weight) / total, f64::from(FLOWS));
                let deviation = (flows * share * (1. - share)).sqrt();
                let got = f64::from(loads.get(BackendId(id)));
                prop_assert!(
                    (got - flows * share).abs() <= 7. * deviation + 1.,
                    "{balance:?}, weight {weight} of {total}: {got} of {flows} flows"
                );
            }
        }
    }

    #[test]
    fn weight_zero_is_never_picked(weights in prop::collection::vec(prop_oneof![Just(0), 0..=u16::MAX], 1..40), seed: u64) {
        prop_assume!(weights.iter().any(|w| *w > 0));
        for balance in ALL {
            for id in picks(&*build(balance, &candidates(&weights)), 300, seed, &Loads::new()) {
                prop_assert!(weights[usize::from(id.0)] > 0, "{balance:?} picked {id:?}");
            }
        }
    }

    #[test]
    fn the_same_flows_and_random_numbers_go_to_the_same_backends(
        weights in prop::collection::vec(1..100u16, 1..20), seed: u64
    ) {
        for balance in ALL {
            let once = || {
                let loads = Loads::new();
                picks(&*build(balance, &candidates(&weights)), 300, seed, &loads)
            };
            prop_assert_eq!(once(), once(), "{:?}", balance);
        }
    }
}
