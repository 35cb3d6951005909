//! What is looked at, each with the setups it is looked at in.

mod abuse;
mod affinity;
mod bench;
mod bulk;
mod discovery;
mod dsr;
mod failover;
mod ha;
mod health;
mod http;
mod icmp;
mod lifecycle;
mod mtu;
mod reload;
mod scale;
mod udp;

use crate::gateway::{Engine, Family, Nat, Setup};
use crate::lab::Lab;
use crate::runner::Case;

/// Every case in every setup, cheap ones first.
pub(crate) fn all() -> Vec<Case> {
    let rooms = [
        http::cases(),
        udp::cases(),
        icmp::cases(),
        mtu::cases(),
        lifecycle::cases(),
        affinity::cases(),
        reload::cases(),
        discovery::cases(),
        dsr::cases(),
        health::cases(),
        ha::cases(),
        failover::cases(),
        scale::cases(),
        abuse::cases(),
        bulk::cases(),
        bench::cases(),
    ];
    rooms.into_iter().flatten().collect()
}

/// One case a setup, named `WHAT/SETUP`, each in a lab of its own.
fn in_setups(
    what: &'static str,
    needs: &'static [&'static str],
    setups: impl IntoIterator<Item = Setup>,
    body: fn(&Lab, &Setup),
) -> Vec<Case> {
    let one = |setup: Setup| Case {
        name: format!("{what}/{setup}"),
        needs,
        control: setup.engine == Engine::Kernel,
        body: Box::new(move || body(&Lab::new(), &setup)),
    };
    setups.into_iter().map(one).collect()
}

/// Both families, both kinds of NAT, one worker, two workers, and the kernel as the control.
fn everything() -> Vec<Setup> {
    [Engine::Tungate { workers: 1 }, Engine::Tungate { workers: 2 }, Engine::Kernel]
        .into_iter()
        .flat_map(both_nats)
        .collect()
}

/// Both families with full NAT: one worker, and the kernel as the control.
fn full_nat() -> Vec<Setup> {
    both_families(Engine::Tungate { workers: 1 }, Nat::Full).chain(both_families(Engine::Kernel, Nat::Full)).collect()
}

fn both_nats(engine: Engine) -> impl Iterator<Item = Setup> {
    [Nat::Full, Nat::Destination].into_iter().flat_map(move |nat| both_families(engine, nat))
}

fn both_families(engine: Engine, nat: Nat) -> impl Iterator<Item = Setup> {
    [Family::V4, Family::V6].into_iter().map(move |family| Setup { engine, family, nat })
}
