use std::time::Duration;

use super::*;

const CONFIG: config::Affinity = config::Affinity { timeout: Duration::from_secs(600), max_clients: 100 };
const B1: BackendId = BackendId(1);
const B2: BackendId = BackendId(2);

fn client(n: u32) -> Address {
    Address::v4(n.to_be_bytes())
}

fn at(seconds: u64) -> Instant {
    Instant::from_micros(seconds * 1_000_000)
}

/// Opens a flow of this client; who is new goes to `pick`.
fn open(affinity: &Affinity, n: u32, pick: BackendId, seconds: u64) -> (BackendId, Choice) {
    affinity.choose(&CONFIG, client(n), at(seconds), |_| true, || Some(pick)).unwrap()
}

fn opens_and_proves(affinity: &Affinity, n: u32, pick: BackendId, seconds: u64) -> (BackendId, Choice) {
    let chosen = open(affinity, n, pick, seconds);
    affinity.prove(&CONFIG, client(n), chosen.0, at(seconds));
    chosen
}

#[test]
fn a_client_goes_where_it_went_until_its_time_is_over_after_its_last_flow() {
    let affinity = Affinity::default();
    assert_eq!(open(&affinity, 1, B1, 0), (B1, Choice::New));
    assert_eq!(open(&affinity, 1, B2, 1), (B1, Choice::Kept));
    affinity.leave(client(1), B1, at(100));
    assert_eq!(open(&affinity, 1, B2, 100_000), (B1, Choice::Kept), "one flow has been there all the time");
    affinity.leave(client(1), B1, at(100_001));
    affinity.leave(client(1), B1, at(100_002));
    assert_eq!(open(&affinity, 1, B2, 100_601), (B1, Choice::Kept));
    affinity.leave(client(1), B1, at(100_602));
    assert_eq!(open(&affinity, 1, B2, 101_202), (B2, Choice::New));
}

#[test]
fn a_backend_that_takes_no_new_flows_is_forgotten_and_not_gone_back_to() {
    let affinity = Affinity::default();
    let choose = |takes: BackendId, pick| affinity.choose(&CONFIG, client(1), at(1), |b| b == takes, || pick);
    assert_eq!(choose(B1, Some(B1)), Some((B1, Choice::New)));
    assert_eq!(choose(B2, None), None, "nobody takes it");
    assert_eq!(choose(B2, Some(B2)), Some((B2, Choice::Moved(B1))));
    assert_eq!(open(&affinity, 1, B1, 2), (B2, Choice::Kept));
    // The flow that is still at the first backend ends: it was none of those that are counted now.
    affinity.leave(client(1), B1, at(3));
    assert_eq!(affinity.clients().entries[&client(1)].flows, 2);
}

#[test]
fn a_million_forged_clients_push_out_one_and_take_no_more_room() {
    let affinity = Affinity::default();
    for n in 0..100 {
        opens_and_proves(&affinity, n, B1, 0);
        if n % 2 == 0 {
            affinity.leave(client(n), B1, at(1));
        }
    }
    for n in 1_000..1_001_000 {
        open(&affinity, n, B2, 2);
    }
    let clients = affinity.clients();
    assert_eq!((clients.entries.len(), clients.order.len()), (100, 100));
    let forgotten: Vec<_> = (0..100).filter(|n| !clients.entries.contains_key(&client(*n))).collect();
    assert_eq!(forgotten, [0], "the oldest of those without a flow");
}

/// Under such a flood a newcomer is forgotten before its handshake is over.
#[test]
fn a_client_that_was_pushed_out_in_mid_handshake_is_known_again_after_it() {
    let affinity = Affinity::default();
    (0..100).for_each(|n| _ = opens_and_proves(&affinity, n, B1, 0));
    open(&affinity, 500, B1, 1);
    open(&affinity, 501, B2, 1);
    assert!(!affinity.clients().entries.contains_key(&client(500)));
    affinity.prove(&CONFIG, client(500), B1, at(1));
    assert_eq!(open(&affinity, 500, B2, 2), (B1, Choice::Kept));
    assert_eq!(affinity.count(&CONFIG, at(2)), 100);
}

#[test]
fn clients_without_flows_are_forgotten_before_those_with_some() {
    let affinity = Affinity::default();
    for n in 0..100 {
        opens_and_proves(&affinity, n, B1, 0);
    }
    (40..60).rev().for_each(|n| affinity.leave(client(n), B1, at(100 - u64::from(n))));
    (200..220).for_each(|n| _ = opens_and_proves(&affinity, n, B1, 100));
    let clients = affinity.clients();
    assert!((0..100).all(|n| clients.entries.contains_key(&client(n)) != (40..60).contains(&n)));
}

#[test]
fn those_whose_time_is_over_are_not_counted() {
    let affinity = Affinity::default();
    for n in 0..90 {
        opens_and_proves(&affinity, n, B1, 0);
        affinity.leave(client(n), B1, at(u64::from(n)));
    }
    assert_eq!(affinity.count(&CONFIG, at(599)), 90);
    assert_eq!(affinity.count(&CONFIG, at(600)), 89);
    assert_eq!(affinity.count(&CONFIG, at(689)), 0);
    assert_eq!(affinity.clients().order.len(), 0);
}

#[test]
fn a_rehearsal_knows_the_clients_and_teaches_the_gateway_none() {
    let affinity = Arc::new(Affinity::default());
    open(&affinity, 1, B1, 0);
    let rehearsal = affinity.rehearsal();
    assert_eq!(open(&rehearsal, 1, B2, 1), (B1, Choice::Kept));
    assert_eq!(open(&rehearsal, 2, B2, 1), (B2, Choice::New));
    assert_eq!(affinity.count(&CONFIG, at(1)), 1);
    assert_eq!(affinity.clients().entries[&client(1)].flows, 1);
}

#[test]
fn a_flow_more_or_less_than_was_counted_does_no_harm() {
    let affinity = Affinity::default();
    affinity.leave(client(1), B1, at(0));
    open(&affinity, 1, B1, 0);
    (0..3).for_each(|_| affinity.leave(client(1), B1, at(1)));
    assert_eq!(open(&affinity, 1, B2, 2), (B1, Choice::Kept));
    assert_eq!(affinity.clients().entries[&client(1)].flows, 1);
}

/// Else the clients of a server that was removed would all be sent to the one that is given its id.
#[test]
fn an_id_that_another_backend_is_given_comes_without_clients() {
    let affinity = Affinity::default();
    open(&affinity, 1, B1, 0);
    affinity.leave(client(1), B1, at(1));
    open(&affinity, 2, B2, 0);
    affinity.forget(&[B1]);
    assert_eq!(open(&affinity, 1, B2, 2), (B2, Choice::New));
    assert_eq!(open(&affinity, 2, B1, 2), (B2, Choice::Kept));
    assert_eq!(affinity.clients().order.len(), 2);
}
