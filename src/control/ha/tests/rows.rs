//! Who serves after a start, a death, a pause, a partition.

use super::cluster::{A, B, Cluster, DOWN, PATHS, ms};
use crate::control::ha::{Action, Cause, Command, Epoch, Event, Goodbye, Legs, Mode, Reason, Replica, State};

#[test]
fn one_that_starts_alone_listens_and_then_serves() {
    let mut cluster = Cluster::new();
    cluster.start(A);
    cluster.run(ms(999));
    assert_eq!(cluster.state(A), State::Init);
    cluster.run(ms(2));
    assert_eq!((cluster.state(A), cluster.cause(A)), (State::Solo, Cause::NobodyHeard));
    assert_eq!(cluster.vip_at, Some(A));
}

#[test]
fn a_cold_start_has_its_epoch_on_the_disk_before_it_serves() {
    let mut cluster = Cluster::new();
    cluster.start(A);
    cluster.run(ms(1001));
    let actions = &cluster.gateway(A).actions_seen;
    let persisted = actions.iter().position(|a| matches!(a, Action::PersistEpoch { before_use: true, .. })).unwrap();
    let forward = actions.iter().position(|a| matches!(a, Action::Forward(_))).unwrap();
    assert!(persisted < forward);
}

#[test]
fn of_two_that_start_at_once_the_preferred_one_serves() {
    for (prefer, states) in
        [([100, 100], [State::Active, State::Standby]), ([100, 101], [State::Standby, State::Active])]
    {
        let mut cluster = Cluster::new();
        for (node, prefer) in [(A, prefer[0]), (B, prefer[1])] {
            cluster.at(node).settings.prefer = prefer;
            cluster.start(node);
        }
        cluster.run(ms(1100));
        assert_eq!(cluster.states(), states, "{prefer:?}");
        assert!(cluster.never_both());
    }
}

#[test]
fn one_that_finds_an_active_peer_gets_all_flows_and_then_is_its_standby() {
    let mut cluster = Cluster::new();
    cluster.start(A);
    cluster.run(ms(1010));
    cluster.start(B);
    cluster.run(ms(10));
    assert_eq!((cluster.state(B), cluster.cause(B)), (State::Syncing, Cause::PeerIsActive));
    assert_eq!(cluster.state(A), State::Solo);
    assert!(cluster.gateway(B).actions_seen.contains(&Action::RequestBulk));
    cluster.run(ms(100));
    assert_eq!((cluster.state(B), cluster.cause(B)), (State::Standby, Cause::Synced));
    assert_eq!((cluster.state(A), cluster.cause(A)), (State::Active, Cause::StandbyReady));
    assert!(cluster.gateway(A).actions_seen.contains(&Action::CommitWait(true)));
}

#[test]
fn the_standby_takes_over_within_22_ms_of_the_death_of_the_active() {
    for offset in 0..5 {
        let mut cluster = Cluster::paired();
        cluster.run(ms(offset));
        cluster.crash(A);
        let took = cluster.run_until("B serves", |c| c.state(B) == State::Solo);
        assert!(took <= ms(22), "{took:?}");
        assert_eq!(cluster.cause(B), Cause::PeerSilent);
        cluster.run(ms(1));
        assert_eq!(cluster.vip_at, Some(B));
    }
}

#[test]
fn a_goodbye_hands_the_role_over_at_once() {
    let mut cluster = Cluster::paired();
    let epoch = cluster.gateway(A).settings.epoch;
    cluster.crash(A);
    cluster.tell(B, Event::Goodbye(Goodbye { epoch, reason: Reason::Crash }));
    assert_eq!((cluster.state(B), cluster.cause(B)), (State::Solo, Cause::Goodbye(Reason::Crash)));
}

#[test]
fn a_goodbye_of_an_earlier_epoch_says_nothing() {
    let mut cluster = Cluster::paired();
    cluster.tell(B, Event::Goodbye(Goodbye { epoch: Epoch::ZERO, reason: Reason::Crash }));
    cluster.run(ms(100));
    assert_eq!(cluster.states(), [State::Active, State::Standby]);
}

#[test]
fn the_standby_takes_over_from_one_that_has_started_anew() {
    let mut cluster = Cluster::paired();
    cluster.crash(A);
    cluster.start(A);
    let took = cluster.run_until("B serves", |c| c.state(B) == State::Solo);
    assert!(took <= ms(1), "{took:?}");
    assert_eq!(cluster.cause(B), Cause::PeerRestarted);
    cluster.run(ms(200));
    assert_eq!(cluster.states(), [State::Standby, State::Active]);
    assert!(cluster.never_both());
}

#[test]
fn a_partial_copy_is_better_than_nobody() {
    for (emergency_promote, state) in [(true, State::Solo), (false, State::Init)] {
        let mut cluster = Cluster::with(|settings| settings.emergency_promote = emergency_promote);
        cluster.bulk_time = ms(100_000);
        cluster.start(A);
        cluster.run(ms(1010));
        cluster.start(B);
        cluster.run(ms(50));
        assert_eq!(cluster.state(B), State::Syncing);
        cluster.crash(A);
        cluster.run(ms(30));
        assert_eq!(cluster.state(B), state, "emergency_promote = {emergency_promote}");
    }
}

#[test]
fn a_standby_whose_copy_is_not_repaired_within_a_second_gets_it_anew() {
    let mut cluster = Cluster::paired();
    cluster.replica(B, Replica::Differs);
    cluster.run(ms(10));
    assert_eq!(cluster.states(), [State::Solo, State::Standby], "READY is dropped at once");
    cluster.run(ms(970));
    assert_eq!(cluster.state(B), State::Standby);
    cluster.run(ms(22));
    assert_eq!((cluster.state(B), cluster.cause(B)), (State::Syncing, Cause::OutOfSync));
    cluster.run(ms(100));
    assert_eq!(cluster.states(), [State::Active, State::Standby]);
}

#[test]
fn a_standby_that_lacks_records_gets_all_anew() {
    let mut cluster = Cluster::paired();
    cluster.replica(B, Replica::Lost);
    assert_eq!(cluster.state(B), State::Syncing);
    cluster.run(ms(100));
    assert_eq!(cluster.states(), [State::Active, State::Standby]);
}

#[test]
fn another_configuration_makes_a_standby_unready() {
    let mut cluster = Cluster::paired();
    cluster.at(A).sync.progress.config_hash = 1;
    cluster.run(ms(100));
    assert_eq!(cluster.states(), [State::Solo, State::Syncing]);
    let status = cluster.gateway(A).core.as_ref().unwrap().status(cluster.now);
    assert_eq!(status.unready.unwrap().to_string(), "the peer's configuration is another one");
    cluster.at(B).sync.progress.config_hash = 1;
    cluster.run(ms(100));
    assert_eq!(cluster.states(), [State::Active, State::Standby]);
}

#[test]
fn silence_while_one_was_held_up_oneself_is_none() {
    let mut cluster = Cluster::paired();
    cluster.pause(B, ms(100));
    cluster.run(ms(90));
    assert_eq!(cluster.states(), [State::Solo, State::Standby]);
    // Its sockets are empty when it wakes: nothing came by while it slept.
    cluster.cut(A);
    cluster.run(ms(22));
    cluster.heal();
    cluster.run(ms(200));
    assert_eq!(cluster.states(), [State::Active, State::Standby]);
    assert!(cluster.never_both());
}

#[test]
fn a_standby_without_its_links_does_not_take_over() {
    let mut cluster = Cluster::paired();
    cluster.legs(B, DOWN);
    assert_eq!((cluster.state(B), cluster.cause(B)), (State::Fault, Cause::LegDown));
    cluster.crash(A);
    cluster.run(ms(2000));
    assert_eq!(cluster.state(B), State::Fault);
    cluster.legs(B, Legs::UP);
    cluster.run(ms(1010));
    assert_eq!(cluster.state(B), State::Solo);
}

#[test]
fn the_active_serves_alone_when_its_standby_dies_and_drops_nothing_for_it() {
    let mut cluster = Cluster::paired();
    cluster.crash(B);
    for _ in 0..100 {
        cluster.run(ms(1));
        assert!(cluster.forwarders().eq([A]), "{:?}", cluster.history());
    }
    assert_eq!((cluster.state(A), cluster.cause(A)), (State::Solo, Cause::PeerSilent));
    assert!(cluster.gateway(A).actions_seen.contains(&Action::CommitWait(false)));
}

#[test]
fn one_held_up_for_long_finds_its_successor_and_follows_it() {
    for stall in [25, 50, 100, 500, 5000] {
        let mut cluster = Cluster::paired();
        cluster.pause(A, ms(stall));
        cluster.run(ms(stall + 100));
        assert_eq!(cluster.states(), [State::Standby, State::Active], "{stall} ms: {:#?}", cluster.history());
        assert!(cluster.never_both(), "{stall} ms");
        assert_eq!(cluster.vip_at, Some(B));
    }
}

#[test]
fn one_held_up_for_a_moment_stops_and_goes_on_when_the_standby_has_proved_that_it_waits() {
    let mut cluster = Cluster::paired();
    cluster.pause(A, ms(18));
    let epoch = cluster.gateway(A).settings.epoch;
    cluster.run(ms(100));
    let causes: Vec<_> = cluster.gateway(A).transitions.iter().map(|t| t.cause).collect();
    assert!(causes.ends_with(&[Cause::HeldUp, Cause::Proved]), "{:#?}", cluster.history());
    assert_eq!(cluster.states(), [State::Active, State::Standby]);
    assert_eq!(cluster.gateway(A).settings.epoch, epoch, "it is the same term");
    assert!(cluster.never_both());
}

#[test]
fn a_heartbeat_that_is_5_ms_late_stops_nobody() {
    let mut cluster = Cluster::paired();
    cluster.pause(A, ms(9));
    cluster.run(ms(100));
    assert!(cluster.gateway(A).transitions.iter().all(|t| t.cause != Cause::HeldUp));
}

#[test]
fn one_held_up_with_nobody_else_there_goes_on_after_the_silence() {
    let mut cluster = Cluster::paired();
    cluster.crash(B);
    cluster.run(ms(100));
    let before = cluster.gateway(A).settings.epoch;
    cluster.pause(A, ms(50));
    cluster.run(ms(51));
    assert_eq!(cluster.state(A), State::Fenced);
    cluster.run(ms(30));
    assert_eq!((cluster.state(A), cluster.cause(A)), (State::Solo, Cause::PeerSilent));
    assert!(cluster.gateway(A).settings.epoch > before, "a new term: nobody knows who served meanwhile");
}

#[test]
fn the_standby_takes_over_from_a_data_plane_that_does_not_move() {
    let mut cluster = Cluster::paired();
    cluster.stick_data_plane(A, ms(200));
    let took = cluster.run_until("B serves", |c| c.state(B) == State::Solo);
    assert!(took <= ms(16), "{took:?}");
    assert_eq!(cluster.cause(B), Cause::DataPlaneStalled);
    cluster.run(ms(500));
    assert_eq!(cluster.states(), [State::Standby, State::Active]);
    assert!(cluster.never_both());
}

/// As on a machine that has too much to do: the role went from one to the other with every heartbeat.
#[test]
fn two_that_are_both_held_up_leave_the_role_where_it_is() {
    for a_first in [0, 1, 5, 20] {
        let mut cluster = Cluster::paired();
        cluster.stick_data_plane(B, ms(400));
        cluster.run(ms(a_first));
        cluster.stick_data_plane(A, ms(300));
        cluster.run(ms(1000));
        assert_eq!(cluster.states(), [State::Active, State::Standby], "{:#?}", cluster.history());
        let terms = cluster.gateway(A).settings.epoch.max(cluster.gateway(B).settings.epoch).to_bits() / 2;
        assert!(terms <= 2, "{terms} terms");
    }
}

#[test]
fn a_peer_that_starts_again_is_heard_on_all_paths() {
    let mut cluster = Cluster::paired();
    cluster.crash(B);
    cluster.run(ms(100));
    cluster.start(B);
    cluster.run(ms(200));
    let status = cluster.gateway(A).core.as_ref().unwrap().status(cluster.now);
    for path in &status.paths[..usize::from(PATHS)] {
        assert!(cluster.now.since(path.heard_at.unwrap()) < ms(20), "{path:?}");
    }
}

#[test]
fn when_a_partition_heals_the_higher_epoch_stays_and_neighbours_are_told_again() {
    let mut cluster = Cluster::paired();
    cluster.cut(A);
    cluster.cut(B);
    cluster.run(ms(500));
    assert_eq!(cluster.states(), [State::Solo, State::Solo], "nothing can tell this from the peer's death");
    // A's refresh misled the neighbours.
    cluster.vip_at = Some(A);
    cluster.heal();
    let healed = cluster.now;
    let took = cluster.run_until("one serves", |c| !c.state(A).forwards());
    assert!(took <= ms(6), "{took:?}");
    assert_eq!(cluster.cause(A), Cause::HigherEpoch);
    cluster.run(ms(10));
    assert_eq!(cluster.vip_at, Some(B));
    assert!(cluster.gateway(B).announcements.iter().any(|at| *at >= healed));
    cluster.run(ms(200));
    assert_eq!(cluster.states(), [State::Standby, State::Active]);
}

#[test]
fn of_two_that_followed_the_same_the_one_with_more_to_lose_stays() {
    for (unshared, winner) in [([5, 5], A), ([5, 6], B), ([6, 5], A)] {
        let mut cluster = Cluster::new();
        // Neither hears the other at the start.
        cluster.cut(A);
        cluster.cut(B);
        for (node, unshared) in [(A, unshared[0]), (B, unshared[1])] {
            cluster.start(node);
            cluster.at(node).sync.progress.unshared = unshared;
        }
        cluster.run(ms(1100));
        assert_eq!(cluster.states(), [State::Solo, State::Solo]);
        cluster.heal();
        cluster.run(ms(10));
        assert!(cluster.state(winner).forwards() && !cluster.state(winner.peer()).forwards(), "{unshared:?}");
    }
}

#[test]
fn when_only_one_direction_is_cut_the_one_that_is_heard_serves() {
    let mut cluster = Cluster::paired();
    cluster.cut(A);
    cluster.run(ms(100));
    assert!(cluster.forwarders().eq([B]), "{:#?}", cluster.history());
    let mut cluster = Cluster::paired();
    cluster.cut(B);
    cluster.run(ms(100));
    assert_eq!(cluster.states(), [State::Solo, State::Standby]);
}

#[test]
fn one_path_is_enough() {
    let mut cluster = Cluster::paired();
    cluster.loss = [[100, 0], [0, 100]];
    cluster.run(ms(1000));
    assert_eq!(cluster.states(), [State::Active, State::Standby]);
    let status = cluster.gateway(A).core.as_ref().unwrap().status(cluster.now);
    assert!(status.paths[1].heard_at.is_some_and(|at| cluster.now.since(at) > ms(900)));
    assert!(status.paths[0].heard_at.is_some_and(|at| cluster.now.since(at) < ms(6)));
}

#[test]
fn one_held_up_whom_a_peer_in_maintenance_does_not_hear_goes_on() {
    let mut cluster = Cluster::paired();
    cluster.command(B, Command::Standby { force: false }).unwrap();
    cluster.run(ms(50));
    cluster.cut(A);
    cluster.pause(A, ms(50));
    cluster.run(ms(60));
    assert_eq!((cluster.state(A), cluster.cause(A)), (State::Solo, Cause::Proved));
}

#[test]
fn one_held_up_whom_nobody_hears_and_nobody_succeeds_goes_on() {
    let mut cluster = Cluster::with(|settings| settings.mode = Mode::Manual);
    cluster.start(A);
    cluster.start(B);
    cluster.run(ms(1200));
    cluster.cut(A);
    cluster.pause(A, ms(50));
    cluster.run(ms(1000));
    assert_eq!(cluster.states(), [State::Fenced, State::Standby]);
    cluster.run(ms(110));
    assert_eq!(cluster.states(), [State::Active, State::Standby]);
}
