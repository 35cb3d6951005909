//! Pairs with bad luck: faults drawn from a seed, one after the other and several at once. The same seed is the same luck.

use super::cluster::{A, B, Chance, Cluster, DOWN, PATHS, ms};
use crate::control::ha::{Command, Legs, NodeId, State};

/// Seeds of each kind that every run of the tests tries; `TUNGATE_SEEDS` says another number.
const SEEDS: u64 = 150;
/// Nobody forwards for longer, while somebody can who was not in the midst of a start.
const GAP: u64 = 100;

/// What may go wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Luck {
    /// Any process, any machine, any single path.
    Bad,
    /// All paths at once, too: then both may serve, and it has to end when the paths are back.
    Partitioned,
}

fn seeds() -> u64 {
    std::env::var("TUNGATE_SEEDS").map_or(SEEDS, |seeds| seeds.parse().expect("a number of seeds"))
}

fn try_all(luck: Luck) {
    (0..seeds()).for_each(|seed| try_one(seed, luck));
}

fn try_one(seed: u64, luck: Luck) {
    let mut cluster = Cluster::new();
    cluster.chance = Chance(seed);
    cluster.delay = std::time::Duration::from_micros(20 + cluster.chance.below(2000));
    cluster.pair_up();
    for _ in 0..12 {
        go_wrong(&mut cluster, luck);
        let wait = cluster.chance.below(30) + 1;
        let mut nobody = 0;
        for _ in 0..wait {
            cluster.run(ms(5));
            let idle = cluster.forwarders().next().is_none() && [A, B].iter().any(|node| is_able(&cluster, *node));
            nobody = if idle { nobody + 5 } else { 0 };
            assert!(nobody <= GAP, "seed {seed}: nobody forwards for {nobody} ms\n{:#?}", cluster.history());
        }
        if luck == Luck::Bad {
            assert!(cluster.never_both(), "seed {seed}: {:?}\n{:#?}", cluster.both_forwarded, cluster.history());
        }
    }
    all_is_mended(&mut cluster);
    cluster.run(ms(2500));
    let forwarders: Vec<_> = cluster.forwarders().collect();
    assert_eq!(forwarders.len(), 1, "seed {seed}: {:#?}", cluster.history());
    assert_eq!(cluster.vip_at, Some(forwarders[0]), "seed {seed}: {:#?}", cluster.history());
    let other = cluster.state(forwarders[0].peer());
    assert!(matches!(other, State::Standby | State::Drain), "seed {seed}: {other}\n{:#?}", cluster.history());
}

fn go_wrong(cluster: &mut Cluster, luck: Luck) {
    let node = if cluster.chance.percent(50) { A } else { B };
    let time = ms(cluster.chance.below(200) + 1);
    if !cluster.runs(node) {
        return cluster.start(node);
    }
    match cluster.chance.below(10) {
        0 => cluster.pause(node, time),
        1 => cluster.pause(node, time / 10),
        2 => cluster.crash(node),
        3 => cluster.stick_data_plane(node, time / 4),
        4 => lose_a_path(cluster),
        5 => cluster.loss = [[cluster.chance.below(6); PATHS as usize]; 2],
        6 => command(cluster, node, Command::Flip { force: false }),
        7 => {
            let legs = if cluster.chance.percent(40) { DOWN } else { Legs::UP };
            if !cluster.is_paused(node) {
                cluster.legs(node, legs);
            }
        }
        8 => {
            let maint = cluster.state(node) == State::Maint;
            command(cluster, node, if maint { Command::Resume } else { Command::Standby { force: false } });
        }
        _ if luck == Luck::Partitioned => {
            cluster.cut(node);
            if cluster.chance.percent(70) {
                cluster.cut(node.peer());
            }
        }
        _ => cluster.heal(),
    }
}

fn lose_a_path(cluster: &mut Cluster) {
    cluster.heal();
    let path = cluster.chance.below(u64::from(PATHS));
    for direction in &mut cluster.loss {
        direction[usize::try_from(path).expect("a path")] = 100;
    }
}

/// An operator tries; he may be refused.
fn command(cluster: &mut Cluster, node: NodeId, command: Command) {
    if !cluster.is_paused(node) {
        let _ = cluster.command(node, command);
    }
}

/// Whether it should serve, if nobody else does.
fn is_able(cluster: &Cluster, node: NodeId) -> bool {
    cluster.runs(node)
        && !cluster.is_paused(node)
        && cluster.now >= cluster.gateway(node).stuck_until
        && matches!(cluster.state(node), State::Standby | State::Syncing | State::Fenced)
        && !cluster.gateway(node).core.as_ref().is_some_and(|core| core.status(cluster.now).held)
        && !cluster.is_paused(node.peer())
}

fn all_is_mended(cluster: &mut Cluster) {
    cluster.heal();
    cluster.run(ms(250));
    for node in [A, B] {
        if !cluster.runs(node) {
            cluster.start(node);
        }
        cluster.legs(node, Legs::UP);
        if cluster.state(node) == State::Drain {
            cluster.run(ms(2000));
        }
        if cluster.state(node) == State::Maint {
            command(cluster, node, Command::Resume);
        }
    }
}

/// One held up, heard by nobody: its peer was in maintenance.
#[test]
fn seed_41_of_the_partitions() {
    try_one(41, Luck::Partitioned);
}

/// One that served unheard and was started anew had misled the neighbours.
#[test]
fn seed_93_of_the_partitions() {
    try_one(93, Luck::Partitioned);
}

#[test]
fn with_bad_luck_only_one_forwards_and_no_gap_is_long() {
    try_all(Luck::Bad);
}

#[test]
fn after_a_partition_one_forwards_and_neighbours_know_which() {
    try_all(Luck::Partitioned);
}
