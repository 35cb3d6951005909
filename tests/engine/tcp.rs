//! TCP connections through the gateway. What the tracker thinks of each segment is tested beside it; here is what comes
//! of that: where segments go, and how long a flow is kept.

use tungate::engine::DropReason;
use tungate::engine::conntrack::State;
use tungate::wire::Protocol;
use tungate::wire::build::{self, Tcp};

use crate::CONFIG;
use crate::support::{Connection, World, flags, segment};

/// The one flow's state.
#[track_caller]
fn assert_state(world: &World, state: State) {
    assert_eq!(world.states(), [state]);
}

fn closed(world: &mut World) -> Connection {
    let mut connection = world.client(1).opens("web");
    world.client_closes(&mut connection);
    world.backend_closes(&mut connection);
    connection
}

/// After so many seconds in this state, one less is too few for the flow to be forgotten.
fn assert_kept_for(seconds: u64, state: State, arrive: impl Fn(&mut World)) {
    for (wait, kept) in [(seconds - 1, true), (seconds + 1, false)] {
        let mut world = World::new(CONFIG);
        arrive(&mut world);
        assert_state(&world, state);
        world.wait(wait);
        assert_eq!(!world.shared.table.is_empty(), kept, "{state:?} after {wait} s");
        world.check_invariants();
    }
}

#[test]
fn r40_the_handshake_establishes_and_only_then_is_a_connection_kept_for_long() {
    let mut world = World::new(CONFIG);
    let connection = world.client(1).begins("web");
    assert_state(&world, State::SynSent);
    let seen = world.backend_says(&connection, &segment("SYN ACK", 900_000, 1_001)).forwarded();
    assert_eq!(seen.ends(), (connection.vip, connection.client));
    assert_state(&world, State::SynReceived);
    world.client_says(&connection, &connection.client_segment("ACK")).forwarded();
    assert_state(&world, State::Established);
    assert_all_counters!(world, "received" => 3, "forwarded" => 3, "opened" => 1);

    assert_kept_for(60, State::SynSent, |world| {
        world.client(1).begins("web");
    });
    assert_kept_for(60, State::SynReceived, |world| {
        let connection = world.client(1).begins("web");
        world.backend_says(&connection, &segment("SYN ACK", 900_000, 1_001)).forwarded();
    });
}

#[test]
fn r41_a_syn_from_the_backend_leaves_the_connection_whole() {
    let mut world = World::new(CONFIG);
    let connection = world.client(1).begins("web");
    world.backend_says(&connection, &segment("SYN", 900_000, 0)).forwarded();
    world.client_says(&connection, &segment("SYN ACK", 1_000, 900_001)).forwarded();
    world.backend_says(&connection, &segment("SYN ACK", 900_000, 1_001)).forwarded();
    world.client_says(&connection, &connection.client_segment("ACK")).forwarded();
    assert_state(&world, State::Established);
    // Later it is refused, and changes nothing.
    world.backend_says(&connection, &segment("SYN", 900_000, 0)).dropped(DropReason::TcpState);
    assert_state(&world, State::Established);
}

#[test]
fn r42_whatever_comes_again_goes_the_same_way() {
    let mut world = World::new(CONFIG);
    let connection = closed(&mut world);
    let request = Tcp { payload: b"request", ..segment("ACK", 1_001, 900_001) };
    for again in [segment("SYN", 1_000, 0), segment("ACK", 1_001, 900_001), request, segment("FIN ACK", 1_001, 900_001)]
    {
        let seen = world.client_says(&connection, &again).forwarded();
        assert_eq!(seen.ends(), (connection.source, connection.backend));
        assert_state(&world, State::TimeWait);
    }
    for again in [segment("SYN ACK", 900_000, 1_001), segment("FIN ACK", 900_001, 1_002)] {
        let seen = world.backend_says(&connection, &again).forwarded();
        assert_eq!(seen.ends(), (connection.vip, connection.client));
        assert_state(&world, State::TimeWait);
    }
    assert_eq!(world.counters()["opened"], 1);
}

/// Found by comparing with the kernel.
#[test]
fn r48_a_client_that_always_begins_with_the_same_number_connects_again() {
    let mut world = World::new(CONFIG);
    let mut connection = closed(&mut world);
    world.client_says(&connection, &segment("SYN", 1_000, 0)).forwarded();
    world.backend_says(&connection, &segment("SYN ACK", 70_000_000, 1_001)).forwarded();
    (connection.client_next, connection.backend_next) = (1_001, 70_000_001);
    world.client_says(&connection, &connection.client_segment("ACK")).forwarded();
    assert_state(&world, State::Established);
    world.client_sends(&mut connection, 1_000);
    world.backend_sends(&mut connection, 1_000);
}

#[test]
fn r43_the_right_syn_ack_passes_after_a_wrong_one() {
    let mut world = World::new(CONFIG);
    let connection = world.client(1).begins("web");
    world.backend_says(&connection, &segment("SYN ACK", 77, 500)).forwarded();
    assert_state(&world, State::SynSent);
    world.client(1).syn("web").forwarded();
    world.backend_says(&connection, &segment("SYN ACK", 900_000, 1_001)).forwarded();
    world.client_says(&connection, &connection.client_segment("ACK")).forwarded();
    assert_state(&world, State::Established);
}

#[test]
fn r44_only_the_exact_rst_shortens_the_life_of_a_connection() {
    let mut world = World::new(CONFIG);
    let connection = world.client(1).opens("web");
    let rst = |seq| segment("RST", seq, 0);
    world.client_says(&connection, &rst(connection.client_next - 1)).dropped(DropReason::TcpWindow);
    world.client_says(&connection, &rst(connection.client_next + 70_000)).dropped(DropReason::TcpWindow);
    world.client_says(&connection, &rst(connection.client_next + 1)).forwarded();
    assert_state(&world, State::Established);
    world.wait(7_400);
    assert_state(&world, State::Established);
    world.client_says(&connection, &rst(connection.client_next)).forwarded();
    assert_state(&world, State::Close);
    world.wait(11);
    assert!(world.shared.table.is_empty());
}

#[test]
fn r45_after_a_rst_the_mapping_stays_for_ten_seconds() {
    assert_kept_for(10, State::Close, |world| {
        let connection = world.client(1).opens("web");
        world.client_says(&connection, &connection.client_segment("RST")).forwarded();
        // The backend's challenge, and an inexact RST in answer.
        world.backend_says(&connection, &connection.backend_segment("ACK")).forwarded();
        world.client_says(&connection, &segment("RST", connection.client_next + 9, 0)).forwarded();
    });
}

#[test]
fn r46_a_syn_on_an_established_connection_goes_to_its_backend_and_the_rst_makes_way_for_a_new_one() {
    let mut world = World::new(CONFIG);
    let mut connection = world.client(1).opens("web");
    world.client_sends(&mut connection, 1_000);
    world.wait(7_000);
    let syn = segment("SYN", 777_000, 0);
    let seen = world.client_says(&connection, &syn).forwarded();
    assert_eq!(seen.ends(), (connection.source, connection.backend));
    assert_state(&world, State::Established);
    world.wait(441);
    assert!(world.shared.table.is_empty(), "the SYN has not refreshed it");

    let connection = world.client(1).opens("web");
    world.client_says(&connection, &syn).forwarded();
    let challenge = world.backend_says(&connection, &connection.backend_segment("ACK")).forwarded();
    let (_, _, ack) = challenge.tcp.unwrap();
    world.client_says(&connection, &segment("RST", ack, 0)).forwarded();
    assert_state(&world, State::Close);
    world.client_says(&connection, &syn).forwarded();
    assert_state(&world, State::SynSent);
    assert_eq!(world.counters()["opened"], 3);
}

#[test]
fn r47_nothing_out_of_the_window_moves_a_connection_to_another_backend() {
    let mut world = World::new(CONFIG);
    let mut connections: Vec<_> = (1..=20).map(|n| world.client(n).opens("web")).collect();
    // Flows would be given out otherwise now.
    world.reload(&CONFIG.replace("name = \"web\"", "name = \"web\"\nbalance = \"round-robin\""));
    for connection in &mut connections {
        for names in ["SYN", "RST", "FIN ACK", "RST ACK", "ACK", "SYN ACK"] {
            for far in [1 << 20, 1 << 30, 1 << 31, u32::MAX - (1 << 20)] {
                let forged = segment(names, connection.client_next.wrapping_add(far), 12_345);
                let outcome = world.client_says(connection, &forged);
                if let Some(seen) = outcome.sent {
                    let seen = crate::support::Sight::of(seen);
                    assert_eq!(seen.ends(), (connection.source, connection.backend));
                }
            }
        }
        world.client_sends(connection, 1_000);
        world.backend_sends(connection, 1_000);
    }
    assert_eq!(world.states(), vec![State::Established; 20]);
    assert_eq!(world.counters()["opened"], 20);
}

#[test]
fn r48_a_new_syn_replaces_a_connection_that_is_over() {
    let close: [fn(&mut World) -> Connection; 2] = [closed, |world| {
        let connection = world.client(1).opens("web");
        world.backend_says(&connection, &connection.backend_segment("RST ACK")).forwarded();
        connection
    }];
    for over in close {
        let mut world = World::new(CONFIG);
        let connection = over(&mut world);
        let again = world.client_says(&connection, &segment("SYN", 5_000_000, 0)).forwarded();
        assert_state(&world, State::SynSent);
        assert_eq!(again.destination, connection.backend, "the same flow hashes to the same backend");
        let counters = world.counters();
        assert_eq!((counters["opened"], counters["closed"]), (2, 1));
        world.check_invariants();
    }
}

#[test]
fn r49_a_new_connection_on_an_old_tuple_avoids_a_draining_backend() {
    let mut world = World::new(CONFIG);
    let connection = closed(&mut world);
    let drained = if connection.backend == crate::support::at("10.0.0.1:8080") { "10.0.0.1" } else { "10.0.0.2" };
    let (before, rest) = CONFIG.split_once(&format!("{drained}:8080\"")).unwrap();
    world.reload(&format!("{before}{drained}:8080\", weight = 0{rest}"));
    let again = world.client_says(&connection, &segment("SYN", 5_000_000, 0)).forwarded();
    assert_ne!(again.destination, connection.backend);
}

#[test]
fn r50_a_half_closed_connection_lives_as_long_as_data_comes() {
    let mut world = World::new(CONFIG);
    let mut connection = world.client(1).opens("web");
    world.client_closes(&mut connection);
    assert_state(&world, State::CloseWait);
    for _ in 0..20 {
        world.wait(239);
        world.backend_sends(&mut connection, 1_000);
        assert_state(&world, State::CloseWait);
    }
    world.wait(241);
    assert!(world.shared.table.is_empty());
}

#[test]
fn r51_a_closed_connection_is_kept_in_time_wait_and_late_duplicates_are_translated() {
    assert_kept_for(120, State::TimeWait, |world| {
        closed(world);
    });
    let mut world = World::new(CONFIG);
    let connection = closed(&mut world);
    world.wait(100);
    let late =
        world.backend_says(&connection, &segment("FIN ACK", connection.backend_next - 1, connection.client_next));
    assert_eq!(late.forwarded().ends(), (connection.vip, connection.client));
}

#[test]
fn r52_an_idle_connection_is_kept_for_two_hours_and_four_minutes_unless_configured() {
    assert_kept_for(7_440, State::Established, |world| {
        world.client(1).opens("web");
    });
    assert_kept_for(240, State::CloseWait, |world| {
        let mut connection = world.client(1).opens("web");
        world.client_closes(&mut connection);
    });
    let mut world = World::new(&format!("{CONFIG}\n[timeouts]\ntcp-established = \"30s\"\ntcp-closing = \"5s\"\n"));
    let mut connection = world.client(1).opens("web");
    world.wait(29);
    world.client_sends(&mut connection, 1);
    world.wait(29);
    world.client_closes(&mut connection);
    world.wait(4);
    assert_state(&world, State::CloseWait);
    world.wait(2);
    assert!(world.shared.table.is_empty());
    // Opening and closing apart from each other.
    let mut world = World::new(&format!("{CONFIG}\n[timeouts]\ntcp-syn-sent = \"7s\"\ntcp-syn-received = \"9s\"\n"));
    world.client(1).begins("web");
    let connection = world.client(2).begins("web");
    world.backend_says(&connection, &segment("SYN ACK", 900_000, 1_001)).forwarded();
    for (wait, left) in [(6, 2), (2, 1), (2, 0)] {
        world.wait(wait);
        assert_eq!(world.shared.table.len(), left);
    }
}

#[test]
fn r53_a_segment_of_no_known_connection_is_answered_with_a_rst() {
    let mut world = World::new(CONFIG);
    for (names, answer) in [
        ("ACK", ("RST", 5_000, 0)),
        ("ACK PSH", ("RST", 5_000, 0)),
        ("SYN ACK", ("RST", 5_000, 0)),
        ("FIN ACK", ("RST", 5_000, 0)),
    ] {
        let rst = world.client(1).sends("web", &Tcp { payload: b"data", ..segment(names, 1_001, 5_000) }).answered();
        assert!(rst.sound);
        let (got, seq, ack) = rst.tcp.unwrap();
        assert_eq!((got, seq, ack), (flags(answer.0), answer.1, answer.2), "{names}");
        assert_eq!(rst.ends(), (world.client(1).vip("web"), world.client(1).endpoint()));
    }
    // To a port where nobody listens: no ACK to take the number from.
    let (client, nobody) = (world.client(1).endpoint(), crate::support::at("192.0.2.10:81"));
    let syn = Tcp { payload: b"data", ..segment("SYN", 1_000, 0) };
    let rst = world.receives(build::tcp(client, nobody, &syn)).answered();
    assert_eq!(rst.tcp, Some((flags("RST ACK"), 0, 1_005)));
    // A RST is never answered.
    world.client(1).sends("web", &segment("RST", 1, 0)).dropped(DropReason::NoFlow);
    world.client(1).sends("web", &segment("RST ACK", 1, 1)).dropped(DropReason::NoFlow);
    assert!(world.shared.table.is_empty());
}

#[test]
fn r54_flags_that_no_tcp_sends_open_nothing_and_others_do_no_harm() {
    let mut world = World::new(CONFIG);
    let nonsense = ["", "FIN", "SYN FIN", "SYN RST", "SYN FIN ACK", "FIN RST", "FIN PSH URG", "PSH", "URG"];
    for names in nonsense {
        world.client(1).sends("web", &segment(names, 1, 0)).dropped(DropReason::BadTcpFlags);
    }
    assert!(world.shared.table.is_empty());
    for extra in ["ECE CWR", "PSH", "URG", "ECE CWR PSH URG"] {
        let mut world = World::new(CONFIG);
        world.client(1).sends("web", &segment(&format!("SYN {extra}"), 1_000, 0)).forwarded();
        let mut connection = world.client(2).opens("web");
        world.client_says(&connection, &connection.client_segment(&format!("ACK {extra}"))).forwarded();
        world.client_sends(&mut connection, 10);
        for names in nonsense {
            world.client_says(&connection, &connection.client_segment(names)).dropped(DropReason::BadTcpFlags);
        }
        world.backend_sends(&mut connection, 10);
    }
}

#[test]
fn r57_data_with_syn_and_syn_ack_is_forwarded_as_it_is() {
    let mut world = World::new(CONFIG);
    let fast_open = [34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1];
    let hello = Tcp { payload: b"192.0.2.10 hello", options: &fast_open, ..segment("SYN", 1_000, 0) };
    let seen = world.client(1).sends("web", &hello).forwarded();
    assert!(seen.sound && seen.transport.ends_with(b"192.0.2.10 hello") && seen.transport[20..32] == fast_open);
    let welcome = Tcp { payload: b"welcome", ..segment("SYN ACK", 900_000, 1_017) };
    let seen = world.receives(build::tcp(seen.destination, seen.source, &welcome)).forwarded();
    assert!(seen.sound && seen.transport.ends_with(b"welcome"));
    let done = segment("ACK", 1_017, 900_008);
    world.client(1).sends("web", &done).forwarded();
    let (client, vip) = (world.client(1).endpoint(), world.client(1).vip("web"));
    assert_eq!(world.flow(client, vip, Protocol::TCP).unwrap().state(), State::Established);
}
