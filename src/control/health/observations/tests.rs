use super::*;
use crate::config::load;
use crate::engine::failures::Failure;

/// A service with these backends and these lines.
fn snapshot(backends: &str, lines: &str) -> Snapshot {
    let text = format!(
        "[[service]]\nname = 's'\nlisten = '192.0.2.1:80'\nsource-nat = false\nbackends = [{backends}]\n{lines}"
    );
    load(&text, "tungate.toml", None, "gw").unwrap_or_else(|report| panic!("{report}"))
}

const THREE: &str = "{ address = '10.0.0.1', weight = 2 }, { address = '10.0.0.2' }, { address = '10.0.0.3' }";
const WITH_BACKUP: &str = "{ address = '10.0.0.1' }, { address = '10.0.0.2' }, { address = '10.0.0.3', backup = true }";

fn at(millis: u64) -> Instant {
    Instant::from_micros(1_000_000 + millis * 1000)
}

fn observe(observed: &mut Observations, backend: u16, up: bool, snapshot: &Snapshot) -> EventKind {
    let (health, reason) = if up { (Health::Up, None) } else { (Health::Down, Some("connect timeout".to_owned())) };
    observed.observe(BackendId(backend), health, reason, snapshot, at(0)).unwrap().kind
}

/// What is said of a backend.
fn said(observed: &Observations, backend: u16) -> Option<(Health, Option<&str>)> {
    observed.of(BackendId(backend)).map(|seen| (seen.health, seen.reason.as_deref()))
}

/// The shares of the backends, in their order.
fn shares(observed: &Observations, snapshot: &Snapshot) -> Vec<u16> {
    let shares = observed.shares(snapshot, |backend| backend.weight);
    snapshot.backends.iter().map(|backend| shares[&backend.id]).collect()
}

/// What is known when these are down.
fn with_down(snapshot: &Snapshot, down: &[u16]) -> Observations {
    let mut observed = Observations::default();
    for backend in down {
        observe(&mut observed, *backend, false, snapshot);
    }
    observed
}

#[test]
fn a_backend_that_is_down_gets_nothing_and_says_why() {
    let snapshot = snapshot(THREE, "");
    let mut observed = with_down(&snapshot, &[0]);
    assert_eq!(shares(&observed, &snapshot), [0, 1, 1]);
    assert_eq!(said(&observed, 0), Some((Health::Down, Some("connect timeout"))));
    assert_eq!(said(&observed, 1), None);
    assert_eq!(observe(&mut observed, 0, true, &snapshot), EventKind::Up);
    assert_eq!(shares(&observed, &snapshot), [2, 1, 1], "without slow-start at once");
}

#[test]
fn backups_come_before_panic_and_panic_before_nobody() {
    let calm = snapshot(WITH_BACKUP, "");
    assert_eq!(shares(&with_down(&calm, &[0]), &calm), [0, 1, 1]);
    assert_eq!(shares(&with_down(&calm, &[0, 1, 2]), &calm), [0, 0, 0], "nobody: clients are told");

    let anxious = snapshot(WITH_BACKUP, "[service.health]\npanic-threshold = 51");
    assert_eq!(shares(&with_down(&anxious, &[]), &anxious), [1, 1, 1]);
    assert_eq!(shares(&with_down(&anxious, &[0]), &anxious), [1, 1, 1], "half of them is too few");
    assert_eq!(shares(&with_down(&anxious, &[0, 1]), &anxious), [0, 0, 1], "the backup is up");
    assert_eq!(shares(&with_down(&anxious, &[0, 1, 2]), &anxious), [1, 1, 1]);
}

#[test]
fn what_the_operator_has_taken_out_stays_out_in_panic() {
    let snapshot = snapshot(THREE, "[service.health]\npanic-threshold = 100");
    let observed = with_down(&snapshot, &[1]);
    let shares = observed.shares(&snapshot, |backend| if backend.id.0 == 0 { 0 } else { backend.weight });
    assert_eq!([0, 1, 2].map(|id| shares[&BackendId(id)]), [0, 1, 1]);
}

#[test]
fn a_backend_that_comes_back_climbs_to_its_share() {
    let snapshot = snapshot(THREE, "[service.health]\nslow-start = '10s'");
    let (mut observed, failures) = (with_down(&snapshot, &[1]), Failures::default());
    observe(&mut observed, 1, true, &snapshot);
    assert_eq!(shares(&observed, &snapshot), [200, 10, 100]);
    let mut seen = Vec::new();
    while let Some(then) = observed.poll_timeout(&snapshot, at(0)) {
        let (changed, events) = observed.review(&failures, &snapshot, then);
        assert!(changed && events.is_empty());
        seen.push(shares(&observed, &snapshot)[1]);
    }
    assert_eq!(seen, [20, 30, 40, 50, 60, 70, 80, 90, 1], "and at the end all is as it was");
    assert_eq!(shares(&observed, &snapshot), [2, 1, 1]);
}

#[test]
fn the_heaviest_weights_leave_no_room_but_do_not_overflow() {
    let heavy = THREE.replace("weight = 2", "weight = 65535");
    let snapshot = snapshot(&heavy, "[service.health]\nslow-start = '10s'");
    let mut observed = with_down(&snapshot, &[0, 1]);
    observe(&mut observed, 0, true, &snapshot);
    observe(&mut observed, 1, true, &snapshot);
    assert_eq!(shares(&observed, &snapshot), [6553, 1, 1]);
}

/// Tells of so many failed flows of a backend.
fn fail(failures: &Failures, backend: u16, count: u32) {
    for _ in 0..count {
        failures.add(BackendId(backend), Failure::Refused);
    }
}

#[test]
fn flows_that_fail_in_a_row_eject_their_backend_for_a_while() {
    let snapshot = snapshot(THREE, "[service.passive]\nfailures = 3\neject-for = '1s'");
    let (mut observed, failures) = (Observations::default(), Failures::default());
    fail(&failures, 0, 2);
    assert_eq!(observed.review(&failures, &snapshot, at(0)), (false, vec![]));
    fail(&failures, 0, 1);
    let (changed, events) = observed.review(&failures, &snapshot, at(50));
    let why = "3 new flows failed in a row: connection refused".to_owned();
    assert_eq!((changed, &events[0].kind), (true, &EventKind::Ejected(why.clone())));
    assert_eq!(shares(&observed, &snapshot), [0, 1, 1]);
    assert_eq!(said(&observed, 0), Some((Health::Down, Some(why.as_str()))));

    let (_, events) = observed.review(&failures, &snapshot, at(1_050));
    assert_eq!(events[0].kind, EventKind::Readmitted);
    assert_eq!(shares(&observed, &snapshot), [2, 1, 1]);
    fail(&failures, 0, 1);
    let (_, events) = observed.review(&failures, &snapshot, at(1_100));
    assert!(matches!(events[0].kind, EventKind::Ejected(_)), "on probation one failure is enough");

    observed.review(&failures, &snapshot, at(2_100));
    failures.end(BackendId(0));
    fail(&failures, 0, 2);
    assert_eq!(observed.review(&failures, &snapshot, at(2_150)), (false, vec![]), "one that went well ends it");
}

#[test]
fn failures_far_apart_are_not_in_a_row() {
    let snapshot = snapshot(THREE, "[service.passive]\nfailures = 2\neject-for = '1s'");
    let (mut observed, failures) = (Observations::default(), Failures::default());
    for second in 0..10 {
        fail(&failures, 0, 1);
        for step in 0..40 {
            assert_eq!(observed.review(&failures, &snapshot, at(second * 2_000 + step * 50)), (false, vec![]));
        }
    }
}

#[test]
fn not_all_are_ejected_whatever_their_flows_say() {
    let snapshot = snapshot(THREE, "[service.passive]\nfailures = 1\nmax-ejected = 67");
    let (mut observed, failures) = (Observations::default(), Failures::default());
    (0..3).for_each(|backend| fail(&failures, backend, 9));
    let (_, events) = observed.review(&failures, &snapshot, at(0));
    assert_eq!(events.len(), 2);
    assert_eq!(shares(&observed, &snapshot), [0, 0, 1]);
}

#[test]
fn who_was_ejected_comes_back_when_flows_are_asked_no_more() {
    let asked = snapshot(THREE, "[service.passive]\nfailures = 1\n");
    let failures = Failures::default();
    failures.add(BackendId(0), Failure::NoAnswer);
    let mut observed = Observations::default();
    assert!(observed.review(&failures, &asked, at(0)).0);
    assert_eq!(shares(&observed, &asked), [0, 1, 1]);
    let (changed, events) = observed.review(&failures, &snapshot(THREE, ""), at(1));
    assert_eq!((changed, events.len()), (true, 1));
    assert_eq!(shares(&observed, &asked), [2, 1, 1]);
}

#[test]
fn who_is_down_by_checks_as_well_gets_no_flows_when_its_ejection_is_over() {
    let snapshot = snapshot(THREE, "[service.passive]\nfailures = 1\neject-for = '1s'");
    let (mut observed, failures) = (Observations::default(), Failures::default());
    fail(&failures, 0, 1);
    observed.review(&failures, &snapshot, at(0));
    observe(&mut observed, 0, false, &snapshot);
    let (_, events) = observed.review(&failures, &snapshot, at(1_000));
    assert_eq!(events, [], "nothing to tell: it is down");
    assert_eq!(shares(&observed, &snapshot), [0, 1, 1]);
    assert_eq!(observe(&mut observed, 0, true, &snapshot), EventKind::Up);
    assert_eq!(shares(&observed, &snapshot), [2, 1, 1]);
}

#[test]
fn what_fails_while_checks_say_down_ejects_nobody_who_is_up_again() {
    let snapshot = snapshot(THREE, "[service.passive]\nfailures = 3");
    let (mut observed, failures) = (with_down(&snapshot, &[0]), Failures::default());
    fail(&failures, 0, 9);
    assert_eq!(observed.review(&failures, &snapshot, at(0)), (false, vec![]));
    observe(&mut observed, 0, true, &snapshot);
    assert_eq!(observed.review(&failures, &snapshot, at(50)), (false, vec![]));
    fail(&failures, 0, 3);
    assert!(observed.review(&failures, &snapshot, at(100)).0, "what fails from now on does");
}
