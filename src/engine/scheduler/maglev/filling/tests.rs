use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::engine::scheduler::tests::{candidates, refs};

const B: [BackendId; 3] = [BackendId(0), BackendId(1), BackendId(2)];

/// The filling as the paper has it, for equal weights: a turn takes the next free slot of the list.
fn fill_as_published(slots: u32, contenders: &[Contender]) -> Box<[BackendId]> {
    let mut table = Table::new(slots);
    let mut takers = takers(slots, contenders);
    takers.iter_mut().for_each(|taker| taker.quota = slots);
    for turn in 0.. {
        let taker = &mut takers[turn % contenders.len()];
        taker.take_first(&mut table);
        if table.free == 0 {
            break;
        }
    }
    table.owners.into()
}

fn contenders(candidates: &[Candidate]) -> Vec<Contender> {
    candidates.iter().map(Contender::new).collect()
}

fn shares(table: &[BackendId]) -> HashMap<BackendId, usize> {
    table.iter().fold(HashMap::new(), |mut shares, owner| {
        *shares.entry(*owner).or_default() += 1;
        shares
    })
}

/// The part of all slots, in percent, that moved although their backend is still there.
fn disruption(before: &[BackendId], after: &[BackendId], gone: BackendId) -> f64 {
    let moved = before.iter().zip(after).filter(|(old, new)| **old != gone && old != new).count();
    moved as f64 * 100. / before.len() as f64
}

/// Table 1 of the paper: three backends, seven slots, and again without the second backend. Both fillings agree.
#[test]
fn the_papers_example_comes_out() {
    let contender = |n: usize, offset, skip| Contender { id: B[n], weight: 1, list: Permutation { offset, skip } };
    let all = [contender(0, 3, 4), contender(1, 0, 2), contender(2, 3, 1)];
    for fill in [fill, fill_as_published] {
        assert_eq!(*fill(7, &all), [B[1], B[0], B[1], B[0], B[2], B[2], B[0]]);
        assert_eq!(*fill(7, &[all[0], all[2]]), [B[0], B[0], B[0], B[0], B[2], B[2], B[2]]);
    }
}

/// What Katran's tests ask of its rings: 400 equal backends differ by one slot, one of twice the weight of two others has
/// 16,385 slots more than they, and of seven slots weights 2 and 1 get five and two.
#[test]
fn katrans_answers_for_weights_come_out() {
    let slots = |slots, weights: &[u16]| {
        let shares = shares(&fill(slots, &contenders(&candidates(weights))));
        let mut slots: Vec<usize> = shares.into_values().collect();
        slots.sort_unstable();
        slots
    };
    let equal = slots(SLOTS, &[1; 400]);
    assert_eq!((equal.len(), equal[399] - equal[0]), (400, 1));
    assert_eq!(slots(SLOTS, &[2, 1, 1]), [16_384, 16_384, 32_769]);
    let beyond_the_slots = slots(SLOTS, &[327; 400]);
    assert_eq!((beyond_the_slots.len(), beyond_the_slots[399] - beyond_the_slots[0]), (400, 1));
    let list = |offset, skip| Permutation { offset, skip };
    let two =
        [Contender { id: B[0], weight: 2, list: list(3, 4) }, Contender { id: B[1], weight: 1, list: list(0, 2) }];
    assert_eq!(shares(&fill(7, &two)), HashMap::from([(B[0], 5), (B[1], 2)]));
}

#[test]
fn one_backend_leaving_moves_few_slots_of_the_others() {
    let all = contenders(&candidates(&[1; 100]));
    let moved = |fill: fn(u32, &[Contender]) -> Box<[BackendId]>| {
        let before = fill(SLOTS, &all);
        let without = |gone: usize| [&all[..gone], &all[gone + 1..]].concat();
        let moved = (0..all.len()).step_by(9).map(|n| disruption(&before, &fill(SLOTS, &without(n)), all[n].id));
        moved.fold((0., 0.), |(sum, worst): (f64, f64), moved| (sum + moved / 12., worst.max(moved)))
    };
    let (ours, worst) = moved(fill);
    let (published, _) = moved(fill_as_published);
    println!("moved: mean {ours:.3} %, worst {worst:.3} %; as published: mean {published:.3} %");
    assert!(worst < 0.45, "{worst} %");
    assert!(ours < 0.7 * published, "{ours} % against {published} %");
}

#[test]
fn equal_weights_share_to_one_slot() {
    for n in [1, 2, 3, 10, 100, 1_000] {
        let shares = shares(&fill(SLOTS, &contenders(&candidates(&vec![7; n]))));
        let (least, most) = (shares.values().min().unwrap(), shares.values().max().unwrap());
        assert_eq!(shares.len(), n);
        assert!(most - least <= 1, "{n} backends: {least} to {most} slots");
    }
}

#[test]
fn the_lightest_has_a_slot() {
    let mut weights = vec![u16::MAX; 50];
    weights.extend([1; 50]);
    let shares = shares(&fill(SLOTS, &contenders(&candidates(&weights))));
    assert_eq!(shares.len(), 100);
    assert_eq!(shares[&BackendId(99)], 1);
}

#[test]
fn neither_order_nor_ids_matter() {
    let weights = [5, 1, 3, 1, 9];
    let straight = candidates(&weights);
    let mut turned: Vec<Candidate> = straight.iter().rev().cloned().collect();
    turned.iter_mut().for_each(|c| c.id.0 += 100);
    let (one, other) = (table(&refs(&straight)), table(&refs(&turned)));
    assert!(one.iter().zip(&other).all(|(one, other)| one.0 + 100 == other.0));
}

/// Placement is a promise to the other node of a pair, and to every flow across an upgrade. If this fails, flows
/// move: then the numbers in the keys go up, and the changelog says so.
#[test]
fn placement_is_pinned() {
    let digest = |weights: &[u16]| {
        let table = table(&refs(&candidates(weights)));
        let bytes: Vec<u8> = table.iter().flat_map(|owner| owner.0.to_be_bytes()).collect();
        let first: Vec<u16> = table.iter().take(12).map(|owner| owner.0).collect();
        format!("{:016x} {first:?}", SipHasher24::new().hash(&bytes))
    };
    insta::assert_snapshot!(digest(&[1, 1, 1]), @"32990a74c1d6cdbf [2, 2, 1, 1, 1, 1, 2, 1, 1, 2, 0, 0]");
    insta::assert_snapshot!(digest(&[5, 1, 3, 1, 9]), @"e3db4e16637b4f4c [2, 4, 1, 4, 4, 3, 2, 1, 4, 4, 4, 4]");
    insta::assert_snapshot!(digest(&[1; 100]), @"bb8811ce8dc4f4e7 [68, 44, 65, 18, 52, 15, 83, 45, 12, 18, 19, 78]");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn slots_are_proportional_to_weights(weights in prop::collection::vec(1..400u16, 1..60)) {
        let shares = shares(&fill(SLOTS, &contenders(&candidates(&weights))));
        let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
        for (n, weight) in weights.iter().enumerate() {
            let fair = f64::from(SLOTS) * f64::from(*weight) / total as f64;
            let share = shares[&BackendId(u16::try_from(n).unwrap())] as f64;
            prop_assert!((share - fair).abs() <= 1., "weight {weight}: {share} slots, fair would be {fair}");
        }
    }
}
