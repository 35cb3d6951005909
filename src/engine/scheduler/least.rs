//! Schedulers that look at the loads: least-connections and power of two choices. Load is flows per weight.

use super::weighted::{Sector, Wheel};
use super::{Candidate, Loads, Request, Scheduler};
use crate::config::BackendId;
use crate::engine::random;

/// The backend with the fewest flows for its weight. The search goes round from a backend drawn by weight, and the first
/// of equals stands: so an idle pool is shared as its weights say, and not always begun with the first. O(backends) a
/// pick.
#[derive(Debug)]
pub(super) struct LeastConnections(Wheel);

impl LeastConnections {
    pub(super) fn new(candidates: &[&Candidate]) -> Self {
        Self(Wheel::new(candidates))
    }
}

impl Scheduler for LeastConnections {
    fn pick(&self, request: &Request<'_>) -> Option<BackendId> {
        let mut sectors = self.0.round_from(random::below(request.random, self.0.total()));
        let first = sectors.next()?;
        // Each load is read once: other workers change them meanwhile.
        let (mut best, mut least) = (first, Load::of(first, request.loads));
        for sector in sectors {
            let load = Load::of(sector, request.loads);
            if load.is_less_than(least) {
                (best, least) = (sector, load);
            }
        }
        Some(best.id)
    }
}

/// The less loaded of two backends drawn by weight (Mitzenmacher 2001): nearly as even as least-connections, at the cost
/// of two looks. The two are never the same backend. Between equals the first draw stands, so that an idle pool is
/// weighted random.
#[derive(Debug)]
pub(super) struct PowerOfTwo(Wheel);

impl PowerOfTwo {
    pub(super) fn new(candidates: &[&Candidate]) -> Self {
        Self(Wheel::new(candidates))
    }

    /// A draw from the wheel without the first one's sector.
    fn other_than(&self, first: Sector, random: u64) -> Option<Sector> {
        let width = u64::from(first.weight);
        let point = random::below(random, self.0.total() - width);
        self.0.sector(if point < first.start() { point } else { point + width })
    }
}

impl Scheduler for PowerOfTwo {
    fn pick(&self, request: &Request<'_>) -> Option<BackendId> {
        let first = self.0.sector(random::below(request.random, self.0.total()))?;
        let Some(second) = self.other_than(first, random::another(request.random)) else {
            return Some(first.id);
        };
        let second_is_less = Load::of(&second, request.loads).is_less_than(Load::of(&first, request.loads));
        Some(if second_is_less { second.id } else { first.id })
    }
}

/// Flows per weight, compared without division.
#[derive(Clone, Copy, Debug)]
struct Load {
    flows: u32,
    weight: u16,
}

impl Load {
    fn of(sector: &Sector, loads: &Loads) -> Self {
        Self { flows: loads.get(sector.id), weight: sector.weight }
    }

    fn is_less_than(self, other: Self) -> bool {
        u64::from(self.flows) * u64::from(other.weight) < u64::from(other.flows) * u64::from(self.weight)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{candidates, refs, request};
    use super::*;

    fn loads(flows: &[u32]) -> Loads {
        let loads = Loads::new();
        for (id, n) in flows.iter().enumerate() {
            (0..*n).for_each(|_| loads.opened(BackendId(u16::try_from(id).unwrap())));
        }
        loads
    }

    #[test]
    fn the_fewest_flows_for_the_weight_win() {
        let owned = candidates(&[1, 10, 2]);
        let scheduler = LeastConnections::new(&refs(&owned));
        for (flows, expected) in [([1, 9, 2], 1), ([1, 11, 1], 2), ([0, 1, 1], 0)] {
            let loads = loads(&flows);
            for random in [0, u64::MAX / 3, u64::MAX] {
                assert_eq!(scheduler.pick(&request(1, random, &loads)), Some(BackendId(expected)), "{flows:?}");
            }
        }
    }

    #[test]
    fn two_choices_of_two_backends_always_see_both() {
        let owned = candidates(&[1, 100]);
        let scheduler = PowerOfTwo::new(&refs(&owned));
        let loads = loads(&[3, 301]);
        for random in (0..1_000).map(random::another) {
            assert_eq!(scheduler.pick(&request(1, random, &loads)), Some(BackendId(0)));
        }
    }

    #[test]
    fn a_single_backend_needs_no_second_choice() {
        let owned = candidates(&[7]);
        let scheduler = PowerOfTwo::new(&refs(&owned));
        assert_eq!(scheduler.pick(&request(1, u64::MAX, &Loads::new())), Some(BackendId(0)));
    }
}
