//! What operators ask for: handovers, taking over, staying passive.

use super::cluster::{A, B, Cluster, DOWN, ms};
use crate::control::ha::{
    Cause, Command, Digest, Event, Goodbye, Handoff, Legs, Mode, Profile, Reason, Refusal, Replica, State, Step,
};

const FLIP: Command = Command::Flip { force: false };

#[test]
fn a_flip_changes_roles_in_less_than_a_millisecond() {
    let mut cluster = Cluster::paired();
    assert_eq!(cluster.command(A, FLIP), Ok(()));
    let took = cluster.run_until("B serves", |c| c.forwarders().eq([B]));
    assert!(took <= ms(1), "{took:?}");
    assert!(cluster.gateway(A).relays, "what still comes to A goes to B");
    cluster.run(ms(1));
    assert_eq!(cluster.state(A), State::Drain);
    assert_eq!(cluster.vip_at, Some(B));
    cluster.run(ms(2100));
    assert_eq!(cluster.states(), [State::Standby, State::Active]);
    assert!(!cluster.gateway(A).relays);
    assert!(cluster.never_both());
}

#[test]
fn a_hundred_flips_in_a_row() {
    let mut cluster = Cluster::paired();
    for _ in 0..50 {
        for node in [A, B] {
            assert_eq!(cluster.command(node, FLIP), Ok(()));
            cluster.run(ms(2300));
            assert!(cluster.forwarders().eq([node.peer()]));
        }
    }
    assert!(cluster.never_both());
}

type Prepare = fn(&mut Cluster);

#[test]
fn a_flip_is_refused_with_the_precondition_that_fails() {
    let cases: [(Prepare, &str); 7] = [
        (|c| c.crash(B), "no heartbeat of the peer arrives"),
        (|c| c.legs(B, DOWN), "the peer is FAULT, not STANDBY"),
        (|c| c.command(B, Command::Standby { force: false }).unwrap(), "the peer is MAINT, not STANDBY"),
        (|c| c.replica(B, Replica::Differs), "the peer is not ready: its copy of the flows is not proved equal"),
        (|c| c.at(B).lag = 9, "the peer lacks 7 records of flows that are not new"),
        (|c| c.at(A).sync.progress.config_hash = 1, "the peer's configuration is another one"),
        (|c| c.command(A, FLIP).unwrap(), "a handover is in progress"),
    ];
    for (prepare, words) in cases {
        let mut cluster = Cluster::paired();
        prepare(&mut cluster);
        let takes = if words.starts_with("no heartbeat") { 30 } else { 6 };
        cluster.run(ms(if words.starts_with("a handover") { 0 } else { takes }));
        let refusal = cluster.command(A, FLIP).expect_err(words);
        assert_eq!(refusal.to_string(), words);
    }
    let refusal = Cluster::paired().command(B, FLIP).unwrap_err();
    assert_eq!(refusal.to_string(), "this gateway is STANDBY: ask the active one");
}

#[test]
fn a_flip_whose_answer_is_lost_is_over_all_the_same() {
    let mut cluster = Cluster::paired();
    cluster.command(A, FLIP).unwrap();
    cluster.run_until("A waits for the answer", |c| c.state(A) == State::HandoffOut);
    cluster.cut(B);
    cluster.run(ms(20));
    assert_eq!(cluster.states(), [State::HandoffOut, State::Solo]);
    cluster.heal();
    cluster.run(ms(10));
    assert_eq!(cluster.state(A), State::Drain);
    assert!(cluster.never_both());
}

#[test]
fn a_flip_that_is_called_off_leaves_the_old_one_serving_after_a_proof() {
    let mut cluster = Cluster::paired();
    cluster.command(A, FLIP).unwrap();
    cluster.run_until("B waits for the commit", |c| c.state(B) == State::HandoffIn);
    cluster.legs(B, DOWN);
    cluster.run(ms(1));
    let causes: Vec<_> = cluster.gateway(A).transitions.iter().map(|t| t.cause).collect();
    assert!(causes.ends_with(&[Cause::HandoffAgreed, Cause::HandoffFailed, Cause::Proved]), "{causes:?}");
    assert_eq!(cluster.gateway(A).flip_failed, [Refusal::Cancelled]);
    assert_eq!(cluster.states(), [State::Solo, State::Fault]);
    assert!(cluster.never_both());
}

#[test]
fn a_commit_of_no_agreed_handover_changes_nothing() {
    let mut cluster = Cluster::paired();
    let epoch = cluster.gateway(A).settings.epoch.next(B);
    cluster.tell(B, Event::Handoff(Handoff { epoch, intent: 1, step: Step::Commit(Digest::default()) }));
    assert_eq!(cluster.state(B), State::Standby);
}

#[test]
fn a_standby_that_is_asked_in_vain_leaves_the_active_serving() {
    let mut cluster = Cluster::paired();
    cluster.cut(B);
    cluster.command(A, FLIP).unwrap();
    cluster.run(ms(10));
    assert_eq!(cluster.states(), [State::Active, State::HandoffIn]);
    cluster.run(ms(30));
    assert_eq!(cluster.state(A), State::Solo);
    assert_eq!(cluster.gateway(A).flip_failed, [Refusal::NoAnswer]);
    cluster.heal();
    cluster.run(ms(100));
    assert_eq!(cluster.states(), [State::Active, State::Standby]);
    assert!(cluster.never_both());
}

#[test]
fn an_active_that_loses_a_link_hands_over_to_one_that_has_it() {
    let mut cluster = Cluster::paired();
    cluster.legs(A, DOWN);
    let took = cluster.run_until("B serves", |c| c.forwarders().eq([B]));
    assert!(took <= ms(5), "{took:?}");
    cluster.run(ms(2100));
    assert_eq!(cluster.state(A), State::Fault);
    cluster.legs(A, Legs::UP);
    cluster.run(ms(200));
    assert_eq!(cluster.states(), [State::Standby, State::Active]);
}

#[test]
fn an_active_without_a_link_stays_if_nobody_is_better() {
    let mut cluster = Cluster::paired();
    cluster.legs(B, DOWN);
    cluster.run(ms(10));
    cluster.legs(A, DOWN);
    cluster.run(ms(100));
    assert_eq!(cluster.states(), [State::Solo, State::Fault]);
}

#[test]
fn one_told_to_be_standby_hands_over_and_stays_passive_until_it_may_take_part_again() {
    let mut cluster = Cluster::paired();
    cluster.command(A, Command::Standby { force: false }).unwrap();
    cluster.run(ms(2100));
    assert_eq!(cluster.states(), [State::Maint, State::Solo]);
    cluster.crash(B);
    cluster.run(ms(2000));
    assert_eq!(cluster.state(A), State::Maint, "not even when nobody is there");
    cluster.command(A, Command::Resume).unwrap();
    cluster.run(ms(1010));
    assert_eq!(cluster.state(A), State::Solo);
}

#[test]
fn one_that_ends_says_goodbye() {
    let mut cluster = Cluster::paired();
    cluster.at(B).lag = 3;
    cluster.run(ms(10));
    let refused = cluster.command(A, Command::Standby { force: false });
    assert!(matches!(refused, Err(Refusal::PeerBehind { .. })), "{refused:?}");
    cluster.command(A, Command::Standby { force: true }).unwrap();
    cluster.run(ms(1));
    assert_eq!(cluster.states(), [State::Maint, State::Solo]);
    assert_eq!(cluster.cause(B), Cause::Goodbye(Reason::Shutdown));
    assert!(cluster.never_both());
}

#[test]
fn promote_is_for_a_dead_peer_and_forced_for_a_living_one() {
    let promote = |force| Command::Promote { force };
    let mut cluster = Cluster::paired();
    assert_eq!(cluster.command(A, promote(false)), Err(Refusal::AlreadyActive));
    assert_eq!(cluster.command(B, promote(false)), Err(Refusal::PeerIsActive));
    cluster.command(B, promote(true)).unwrap();
    cluster.run(ms(200));
    assert_eq!(cluster.states(), [State::Standby, State::Active]);
}

#[test]
fn in_manual_mode_silence_means_nothing_and_the_operator_decides() {
    let mut cluster = Cluster::with(|settings| settings.mode = Mode::Manual);
    for node in [A, B] {
        cluster.start(node);
    }
    cluster.run(ms(1200));
    assert_eq!(cluster.states(), [State::Active, State::Standby]);
    cluster.crash(A);
    cluster.run(ms(3000));
    assert_eq!(cluster.state(B), State::Standby);
    cluster.command(B, Command::Promote { force: false }).unwrap();
    assert_eq!((cluster.state(B), cluster.cause(B)), (State::Solo, Cause::Operator));
}

#[test]
fn in_manual_mode_a_goodbye_is_still_heeded() {
    let mut cluster = Cluster::with(|settings| settings.mode = Mode::Manual);
    for node in [A, B] {
        cluster.start(node);
    }
    cluster.run(ms(1200));
    let epoch = cluster.gateway(A).settings.epoch;
    cluster.crash(A);
    cluster.tell(B, Event::Goodbye(Goodbye { epoch, reason: Reason::Crash }));
    assert_eq!(cluster.state(B), State::Solo);
}

#[test]
fn who_took_over_three_times_within_a_minute_waits_longer_the_next_time() {
    let mut cluster = Cluster::paired();
    for _ in 0..3 {
        cluster.pause(A, ms(50));
        cluster.run(ms(200));
        assert_eq!(cluster.states(), [State::Standby, State::Active], "{:#?}", cluster.history());
        cluster.pause(B, ms(50));
        cluster.run(ms(200));
        assert_eq!(cluster.states(), [State::Active, State::Standby], "{:#?}", cluster.history());
    }
    let held = |c: &Cluster| c.gateway(B).core.as_ref().unwrap().status(c.now).held;
    assert!(held(&cluster));
    assert!(cluster.gateway(B).transitions.iter().any(|t| t.cause == Cause::Flapping));
    assert_eq!(cluster.command(A, FLIP), Err(Refusal::PeerHeld));
    cluster.crash(A);
    cluster.run(ms(900));
    assert_eq!(cluster.state(B), State::Standby);
    cluster.run(ms(150));
    assert_eq!(cluster.state(B), State::Solo, "a held one is better than none");
}

#[test]
fn resume_ends_a_hold() {
    let mut cluster = Cluster::paired();
    assert_eq!(cluster.command(B, Command::Resume), Err(Refusal::NotHeld(State::Standby)));
}

#[test]
fn the_slower_ones_times_hold_for_both() {
    let mut cluster = Cluster::new();
    cluster.at(B).settings.timers = Profile::Normal.timers();
    cluster.pair_up();
    let status = |c: &Cluster, node| c.gateway(node).core.as_ref().unwrap().status(c.now).timers;
    assert_eq!(status(&cluster, A), Profile::Normal.timers());
    assert_eq!(status(&cluster, B), Profile::Normal.timers());
    cluster.crash(A);
    let took = cluster.run_until("B serves", |c| c.state(B) == State::Solo);
    assert!(took > ms(50) && took <= ms(101), "{took:?}");
}

#[test]
fn the_last_ten_transitions_are_told_the_newest_first() {
    let mut cluster = Cluster::paired();
    cluster.command(A, FLIP).unwrap();
    cluster.run(ms(2300));
    let core = cluster.gateway(A).core.as_ref().unwrap();
    let told: Vec<_> = core.transitions().take(3).map(|t| (t.from, t.to, t.cause)).collect();
    assert_eq!(
        told,
        [
            (State::Drain, State::Standby, Cause::Drained),
            (State::HandoffOut, State::Drain, Cause::HandoffDone),
            (State::Active, State::HandoffOut, Cause::HandoffAgreed),
        ]
    );
}
