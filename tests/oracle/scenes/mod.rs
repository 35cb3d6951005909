//! What is sent on purpose, scene by scene: each with clients of its own, in both families, with and without source NAT.

mod fragments;
mod icmp;
mod ip;
mod misunderstood;
mod ports;
mod tcp;
mod udp;
mod window;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::decisions::DECISIONS;
use crate::pair::Pair;

/// A scene for a family: `is_v6`.
type Scene = fn(&mut Pair, bool);

/// All scenes are played before the first failure is told: one difference seldom comes alone.
#[test]
fn what_leaves_is_what_the_kernel_sends() {
    let mut failed = Vec::new();
    let mut met = BTreeSet::new();
    for source_nat in [true, false] {
        let Some(mut pair) = Pair::build("what_leaves_is_what_the_kernel_sends", source_nat) else { return };
        let scenes = [
            tcp::SCENES,
            window::SCENES,
            misunderstood::SCENES,
            udp::SCENES,
            ip::SCENES,
            icmp::SCENES,
            fragments::SCENES,
            ports::SCENES,
        ];
        for (name, scene) in scenes.concat() {
            for is_v6 in [false, true] {
                if catch_unwind(AssertUnwindSafe(|| scene(&mut pair, is_v6))).is_err() {
                    failed.push(format!("{name}, IPv{}, source-nat = {source_nat}", if is_v6 { 6 } else { 4 }));
                }
            }
        }
        println!("source-nat = {source_nat}: {} packets, {} left both alike", pair.compared, pair.same);
        met.extend(pair.decided.into_keys());
    }
    assert!(failed.is_empty(), "{} scenes differ:\n{}", failed.len(), failed.join("\n"));
    let idle: Vec<_> = DECISIONS.iter().map(|decision| decision.what).filter(|what| !met.contains(what)).collect();
    assert!(idle.is_empty(), "decisions that no scene needs: {idle:?}");
}
