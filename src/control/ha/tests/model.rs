//! Everything that can happen to a pair within some heartbeats, and what must not: the real core, explored breadth first.
//!
//! I1: never both forward. I2: no two hold the same epoch, and none goes back. I3, I11: when nothing goes wrong any more,
//! exactly one forwards soon. I12: and neighbours know that it has the VIPs.
//!
//! That the exploration would find an error is shown by taking the safeguards out, one by one.

use std::collections::HashSet;
use std::fmt;

use super::cluster::{A, B};
use super::world::{Fate, Move, STEP, Scope, World};
use crate::control::ha::machine::Safeguard;
use crate::control::ha::{LOSSES, NodeId, Profile, Timers};

/// After the last fault, steps until all has to be well.
const SOON: u32 = 40;

/// What was found.
#[derive(Debug)]
struct Explored {
    states: usize,
    depth: u32,
    violation: Option<Violation>,
}

/// A way to something that must not be.
struct Violation {
    what: &'static str,
    way: Vec<Step>,
}

/// How a state came of another, and which that was.
#[derive(Clone, Copy)]
struct Step {
    from: usize,
    moves: [(NodeId, Move, Fate); 2],
}

/// Explores to this depth, or to the first thing that must not be.
fn explore(scope: &Scope, depth: u32) -> Explored {
    let start = World::paired(scope);
    let mut seen = HashSet::from([start.fingerprint()]);
    let mut settles = HashSet::new();
    let mut steps: Vec<Step> = Vec::new();
    let mut frontier = vec![(usize::MAX, start)];
    let order = [scope.first, scope.first.peer()];
    for level in 1..=depth {
        let mut next = Vec::new();
        for (from, world) in frontier {
            let mut wrong = None;
            world.moves(order[0], scope, |first, its_fate, between| {
                between.moves(order[1], scope, |second, fate, mut world| {
                    let moves = [(order[0], first, its_fate), (order[1], second, fate)];
                    let step = Step { from, moves };
                    let found = both_forward(&between).or_else(|| goes_back(&between, &world));
                    let found = found.or_else(|| both_forward(&world));
                    world.now = world.now + STEP;
                    let found = found.or_else(|| both_forward(&world));
                    if let Some(what) = found {
                        wrong.get_or_insert((what, step));
                    } else if seen.insert(world.fingerprint()) {
                        steps.push(step);
                        if let Some(what) = does_not_settle(&world, scope, &mut settles) {
                            wrong.get_or_insert((what, step));
                        }
                        next.push((steps.len() - 1, world));
                    }
                });
            });
            if let Some((what, last)) = wrong {
                let way = way_to(&steps, last);
                return Explored { states: seen.len(), depth: level, violation: Some(Violation { what, way }) };
            }
        }
        frontier = next;
    }
    Explored { states: seen.len(), depth, violation: None }
}

fn way_to(steps: &[Step], last: Step) -> Vec<Step> {
    let mut way = vec![last];
    while let Some(step) = way.last().and_then(|step| steps.get(step.from)) {
        way.push(*step);
    }
    way.reverse();
    way
}

fn both_forward(world: &World) -> Option<&'static str> {
    (world.forwarders().count() == 2).then_some("I1: both forward")
}

fn goes_back(before: &World, after: &World) -> Option<&'static str> {
    let epochs = |world: &World| [A, B].map(|id| world.epoch(id));
    let back = std::iter::zip(epochs(before), epochs(after)).any(|(before, after)| after.is_some() && after < before);
    if back {
        return Some("I2: an epoch goes back");
    }
    let claimed = |id| after.epoch(id).filter(|_| after.state(id).is_some_and(|state| state.claims()));
    (claimed(A).is_some() && claimed(A) == claimed(B)).then_some("I2: two hold the same epoch")
}

/// `settles`: worlds of which that is known; all that lead to them are added.
fn does_not_settle(world: &World, scope: &Scope, settles: &mut HashSet<u64>) -> Option<&'static str> {
    let mut world = world.clone();
    let mut way = Vec::new();
    for _ in 0..SOON {
        way.push(world.fingerprint());
        if settles.contains(&way[way.len() - 1]) {
            settles.extend(way);
            return None;
        }
        world.calm(1, scope);
    }
    let anybody = [A, B].iter().any(|id| world.state(*id).is_some());
    let forwarders: Vec<_> = world.forwarders().collect();
    match forwarders[..] {
        [] if anybody => return Some("I3, I11: nobody forwards"),
        [one] if world.vip_at != Some(one) => return Some("I12: neighbours take the other one for the gateway"),
        [_, _, ..] => return Some("I3: both forward"),
        [] | [_] => {}
    }
    settles.extend(way);
    None
}

impl fmt::Debug for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        self.way.iter().try_for_each(|step| write!(f, "\n  {:?}", step.moves))
    }
}

fn fast() -> Timers {
    Profile::Fast.timers()
}

/// Nothing is found. `TUNGATE_MODEL_DEEPER` goes so many steps further; each takes three times as long.
fn holds(scope: &Scope, depth: u32) {
    let deeper = std::env::var("TUNGATE_MODEL_DEEPER").map_or(0, |steps| steps.parse().expect("a number of steps"));
    let explored = explore(scope, depth + deeper);
    println!("{} states to depth {}: {scope:?}", explored.states, explored.depth);
    assert!(explored.violation.is_none(), "{explored:?}\n{scope:#?}");
}

/// Something is found, with the same bounds as nothing is in the whole.
fn fails(scope: &Scope, depth: u32) -> &'static str {
    let explored = explore(scope, depth);
    let violation = explored.violation.expect("a safeguard is missing, and nothing is found");
    println!("{} states to depth {}: {violation:?}", explored.states, explored.depth);
    violation.what
}

#[test]
fn whatever_happens_only_one_forwards_and_soon_one_does() {
    for (first, depth) in [(A, 6), (B, 5)] {
        holds(&Scope { first, ..Scope::new(fast()) }, depth);
    }
}

#[test]
fn neither_does_a_death_or_a_restart_break_it() {
    holds(&Scope { pauses: 0, crashes: 1, ..Scope::new(fast()) }, 8);
}

#[test]
fn nor_does_a_handover_in_the_midst_of_it() {
    holds(&Scope { flips: 1, ..Scope::new(fast()) }, 4);
    holds(&Scope { flips: 1, pauses: 0, delays: false, ..Scope::new(fast()) }, 30);
}

#[test]
fn without_the_fence_both_forward() {
    assert_eq!(fails(&Scope { removed: Some(Safeguard::Fence), ..Scope::new(fast()) }, 6), "I1: both forward");
}

#[test]
fn without_the_proof_by_echo_both_forward() {
    assert_eq!(fails(&Scope { removed: Some(Safeguard::EchoProof), ..Scope::new(fast()) }, 6), "I1: both forward");
}

#[test]
fn without_the_wake_guard_both_forward() {
    assert_eq!(fails(&Scope { removed: Some(Safeguard::WakeGuard), ..Scope::new(fast()) }, 6), "I1: both forward");
}

#[test]
fn if_lost_heartbeats_are_not_reckoned_with_both_forward() {
    assert_eq!(fails(&Scope { removed: Some(Safeguard::Losses), ..Scope::new(fast()) }, 6), "I1: both forward");
}

#[test]
fn it_holds_for_threads_that_are_half_a_heartbeat_late() {
    let timers = Timers::new(fast().heartbeat * 2, fast().dead * 2);
    holds(&Scope { pauses: 2, ..Scope::new(timers) }, 7);
}

#[test]
fn with_a_shorter_time_to_confirm_silence_both_forward() {
    let timers = Timers { confirm: fast().heartbeat * LOSSES, ..fast() };
    assert_eq!(fails(&Scope::new(timers), 6), "I1: both forward");
}

#[test]
fn when_all_paths_may_fail_both_forward_which_no_pair_can_help() {
    assert_eq!(fails(&Scope { losses: u32::MAX, pauses: 0, ..Scope::new(fast()) }, 6), "I1: both forward");
}
