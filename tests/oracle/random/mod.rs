//! What nobody has thought of: flows at random, the same ones each time.
//!
//! `PROPTEST_RNG_SEED=n` sends others, `PROPTEST_CASES=n` four times as many as that; what fails is made smaller.

mod connections;
mod datagrams;

use proptest::prelude::ProptestConfig;
use proptest::test_runner::{RngSeed, TestRunner};

fn runner() -> TestRunner {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let rng_seed = match config.rng_seed {
        RngSeed::Random => RngSeed::Fixed(1),
        fixed @ RngSeed::Fixed(_) => fixed,
    };
    TestRunner::new(ProptestConfig { rng_seed, cases: 4 * config.cases, ..config })
}
