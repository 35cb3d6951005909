//! A gateway of one to three workers, and whatever may happen to it one after the other: packets of clients, backends
//! and strangers, super-packets, fragments, ICMP errors, time, other configurations. After each step all invariants of
//! the crate's documentation hold, and in the end every flow is forgotten.

mod packets;
mod steps;
mod world;

use arbitrary::{Arbitrary as _, Unstructured};

use steps::Step;
use world::Gateway;

/// Steps of one tape: what takes more to happen is for the other tests.
const LONGEST: usize = 100;

/// Two bytes that choose the gateway, then the steps.
pub(crate) fn run(data: &[u8]) {
    let Some(([kind, workers], tape)) = data.split_first_chunk::<2>() else { return };
    let steps = steps(tape);
    let sent = play(*kind, *workers, &steps);
    // Twice the time, so not for every tape.
    if kind & 0x80 != 0 {
        assert!(sent == play(*kind, *workers, &steps), "the same packets make the same packets");
    }
}

fn steps(tape: &[u8]) -> Vec<Step> {
    let mut tape = Unstructured::new(tape);
    let mut steps = Vec::new();
    while steps.len() < LONGEST
        && !tape.is_empty()
        && let Ok(step) = Step::arbitrary(&mut tape)
    {
        steps.push(step);
    }
    steps
}

fn play(kind: u8, workers: u8, steps: &[Step]) -> Vec<Vec<u8>> {
    let mut gateway = Gateway::new(kind, workers);
    for step in steps {
        gateway.take(step);
        gateway.check();
    }
    gateway.end();
    gateway.into_sent()
}
