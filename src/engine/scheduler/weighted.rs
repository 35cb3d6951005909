//! Schedulers that look at the weights alone: weighted random, and smooth weighted round-robin.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::{Candidate, Request, Scheduler};
use crate::config::BackendId;
use crate::engine::random;

/// Weighted random: each flow is a draw of its own.
#[derive(Debug)]
pub(super) struct Random(Wheel);

impl Random {
    pub(super) fn new(candidates: &[&Candidate]) -> Self {
        Self(Wheel::new(candidates))
    }
}

impl Scheduler for Random {
    fn pick(&self, request: &Request<'_>) -> Option<BackendId> {
        let sector = self.0.sector(random::below(request.random, self.0.total()))?;
        Some(sector.id)
    }
}

/// A wheel of fortune: one sector a backend, as wide as its weight.
#[derive(Debug)]
pub(super) struct Wheel(Box<[Sector]>);

/// One backend's part of the wheel: points `end - weight .. end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sector {
    pub(super) id: BackendId,
    pub(super) weight: u16,
    end: u64,
}

impl Sector {
    /// The first point inside.
    pub(super) fn start(&self) -> u64 {
        self.end - u64::from(self.weight)
    }
}

impl Wheel {
    pub(super) fn new(candidates: &[&Candidate]) -> Self {
        let mut end = 0;
        let sector = |c: &&Candidate| {
            end += u64::from(c.weight);
            Sector { id: c.id, weight: c.weight, end }
        };
        Self(candidates.iter().map(sector).collect())
    }

    /// How many points there are: the sum of all weights.
    pub(super) fn total(&self) -> u64 {
        self.0.last().map_or(0, |last| last.end)
    }

    /// The sector that holds this point of `0..total`.
    pub(super) fn sector(&self, point: u64) -> Option<Sector> {
        self.0.get(self.place(point)).copied()
    }

    /// All sectors once, beginning with the one that holds this point.
    pub(super) fn round_from(&self, point: u64) -> impl Iterator<Item = &Sector> {
        let (before, from) = self.0.split_at(self.place(point));
        from.iter().chain(before)
    }

    fn place(&self, point: u64) -> usize {
        self.0.partition_point(|sector| sector.end <= point)
    }
}

/// Smooth weighted round-robin: a precomputed round, walked by an index that all workers share.
///
/// At every step of a round each backend has had its fair number of turns to within one, so a heavy backend's turns are
/// spread and not a burst (5:1:1 gives `A B A A C A A`). Equal weights are plain rotation, in the
/// order of the candidates.
#[derive(Debug)]
pub(super) struct RoundRobin {
    round: Box<[BackendId]>,
    next: AtomicUsize,
}

/// Turns of the longest round: 32 KiB. Weights are divided by their greatest common divisor first; a sum that is still
/// larger is scaled down, and then each backend has its share of the round to within one turn, 1 / 16,384 of all flows.
/// Who would have less than one turn is given one, and the round is longer by that much.
const MAX_ROUND: u64 = 16_384;

impl RoundRobin {
    pub(super) fn new(candidates: &[&Candidate]) -> Self {
        let turns = turns(candidates);
        let round = spread(&turns).into_iter().map(|n| candidates[n].id).collect();
        Self { round, next: AtomicUsize::new(0) }
    }
}

impl Scheduler for RoundRobin {
    fn pick(&self, _: &Request<'_>) -> Option<BackendId> {
        // The counter never ends: at 10^9 flows a second it would take 584 years.
        let turn = self.next.fetch_add(1, Relaxed).checked_rem(self.round.len())?;
        Some(self.round[turn])
    }
}

/// Turns of each candidate in one round.
fn turns(candidates: &[&Candidate]) -> Vec<u64> {
    let divisor = candidates.iter().map(|c| u64::from(c.weight)).fold(0, gcd).max(1);
    let weights = || candidates.iter().map(|c| u64::from(c.weight) / divisor);
    let sum: u64 = weights().sum();
    if sum <= MAX_ROUND {
        return weights().collect();
    }
    // The running total is scaled, not each weight: so that what rounding takes from one, the next gets.
    let mut end = 0;
    let scaled = |w| {
        let start = end;
        end += w;
        (end * MAX_ROUND / sum - start * MAX_ROUND / sum).max(1)
    };
    weights().map(scaled).collect()
}

/// Greatest common divisor.
pub(super) fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// One round in which number n has `turns[n]` turns, spread as evenly as whole turns allow: worst-case fair weighted
/// fair queueing (Bennett and Zhang, INFOCOM 1996) of packets of one size. With S turns in all, the k-th turn (from 0)
/// of a backend with t may be taken from step k S/t on and is due by (k+1) S/t; each step takes, of the turns that may
/// be taken, the one due first. O(S log n), where nginx's algorithm of the same purpose is O(S n).
fn spread(turns: &[u64]) -> Vec<usize> {
    let total: u64 = turns.iter().sum();
    // In 2^-28 steps: a round has below 2^17 turns, so nothing overflows.
    let due = |n: usize, k: u64| (((k + 1) * total) << 28) / turns[n];
    let mut ready: BinaryHeap<_> = (0..turns.len()).map(|n| Reverse((due(n, 0), n, 0))).collect();
    let mut waiting = BinaryHeap::new();
    let step = |step| {
        while let Some(&Reverse((from, n, k))) = waiting.peek()
            && from <= step
        {
            waiting.pop();
            ready.push(Reverse((due(n, k), n, k)));
        }
        let Reverse((_, n, k)) = ready.pop().expect("at any step some backend is not ahead of its share");
        waiting.push(Reverse((((k + 1) * total).div_ceil(turns[n]), n, k + 1)));
        n
    };
    (0..total).map(step).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{candidates, refs};
    use super::*;

    fn letters(weights: &[u16]) -> String {
        let owned = candidates(weights);
        let scheduler = RoundRobin::new(&refs(&owned));
        scheduler.round.iter().map(|id| char::from(b'A' + u8::try_from(id.0).unwrap())).collect()
    }

    #[test]
    fn equal_weights_rotate() {
        assert_eq!(letters(&[1, 1, 1]), "ABC");
        assert_eq!(letters(&[700, 700]), "AB");
    }

    #[test]
    fn a_heavy_backend_is_spread_over_the_round() {
        assert_eq!(letters(&[2, 1]), "ABA");
        assert_eq!(letters(&[5, 1, 1]), "ABAACAA");
        assert_eq!(letters(&[30, 20, 10]), "ABABAC");
    }

    #[test]
    fn huge_weights_make_a_bounded_round_and_keep_their_shares() {
        let owned = candidates(&[65_535, 65_534, 32_767, 1]);
        let turns = turns(&refs(&owned));
        assert!(turns.iter().sum::<u64>() <= MAX_ROUND + 4, "{turns:?}");
        let sum = 65_535. + 65_534. + 32_767. + 1.;
        for (turns, weight) in turns.iter().zip([65_535., 65_534., 32_767.]) {
            let fair = weight / sum * MAX_ROUND as f64;
            assert!((*turns as f64 - fair).abs() <= 1., "{turns} turns, fair would be {fair}");
        }
        assert_eq!(turns[3], 1, "the light one is not starved");
    }

    #[test]
    fn sectors_meet_without_gap_or_overlap() {
        let owned = candidates(&[3, 1, 2]);
        let wheel = Wheel::new(&refs(&owned));
        let ids: Vec<u16> = (0..wheel.total()).map(|point| wheel.sector(point).unwrap().id.0).collect();
        assert_eq!(ids, [0, 0, 0, 1, 2, 2]);
        assert_eq!(wheel.sector(6), None);
    }

    proptest! {
        #[test]
        fn no_step_of_a_round_leaves_a_backend_a_whole_turn_from_its_share(
            turns in prop::collection::vec(1..60u64, 1..12)
        ) {
            let total: u64 = turns.iter().sum();
            let mut had = vec![0u64; turns.len()];
            for (step, n) in spread(&turns).into_iter().enumerate() {
                had[n] += 1;
                for (had, turns) in had.iter().zip(&turns) {
                    let fair = (step + 1) as f64 * *turns as f64 / total as f64;
                    prop_assert!((*had as f64 - fair).abs() < 1., "step {step}: {had} turns, fair would be {fair}");
                }
            }
            prop_assert_eq!(had, turns);
        }
    }
}
