//! RSTs, SYNs out of place, and the answers to them.

use super::*;

#[test]
fn r44_only_the_exact_rst_ends_an_established_connection() {
    for side in [Original, Reply] {
        let mut connection = Connection::established();
        connection.transfers(side, 5_000);
        let next = connection.next[side as usize];
        for below in [1, 100, 30_000, 1 << 30] {
            connection.refuses(side, segment(RST, next.wrapping_sub(below), 0));
        }
        for beyond in [60_001, 70_000, 1 << 30] {
            connection.refuses(side, segment(RST, next.wrapping_add(beyond), 0));
        }
        for inside in [1, 1_000, 60_000] {
            connection.passes(side, segment(RST, next + inside, 0));
        }
        assert_eq!(connection.state, State::Established);
        connection.accepts(side, segment(RST, next, 0), State::Close);
    }
}

/// What the other side has not acknowledged yet may have reached it all the same.
#[test]
fn r44_a_rst_behind_all_that_was_sent_is_exact() {
    for side in [Original, Reply] {
        let mut connection = Connection::established();
        let (seq, ack) = (connection.next[side as usize], connection.next[side.other() as usize]);
        connection.accepts(side, data(seq, ack, 3_000), State::Established);
        connection.accepts(side.other(), connection.polite(side.other(), ACK), State::Established);
        connection.passes(side, segment(RST_ACK, seq + 1_500, ack));
        connection.accepts(side, segment(RST_ACK, seq + 3_000, ack), State::Close);
    }
}

/// RFC 5961 3.2 in a half-closed connection: it may carry a long answer yet (R50).
#[test]
fn r44_r50_a_half_closed_connection_is_not_ended_by_a_guess() {
    for first in [Original, Reply] {
        for side in [Original, Reply] {
            let mut connection = Connection::half_closed_by(first);
            let next = connection.next[side as usize];
            for guess in [next.wrapping_sub(2), next + 10, next + 100_000, next ^ 0x8000_0000] {
                connection.passes(side, segment(RST, guess, 0));
            }
            assert_eq!(connection.state, State::FinWait);
            connection.accepts(side, segment(RST, next, 0), State::Close);
        }
    }
}

/// In LAST-ACK and later the tuple may have been used again already: no RST is held against what we know.
#[test]
fn a_connection_that_is_over_believes_any_rst() {
    for guess in [0, 17, 1 << 31] {
        let mut connection = Connection::half_closed_by(Original);
        connection.finishes(Reply, State::LastAck);
        connection.accepts(Reply, segment(RST, guess, 0), State::Close);
        connection.accepts(Original, segment(RST, guess, 0), State::Close);
    }
}

#[test]
fn r45_after_a_rst_late_packets_and_an_inexact_rst_pass() {
    let mut connection = Connection::established();
    connection.accepts(Original, data(CLIENT_ISN + 1, BACKEND_ISN + 1, 500), State::Established);
    connection.accepts(Original, segment(RST, CLIENT_ISN + 501, 0), State::Close);
    // The backend has not got the data: it answers with a challenge ACK, and the client with a RST of just that number.
    connection.accepts(Reply, segment(ACK, BACKEND_ISN + 1, CLIENT_ISN + 1), State::Close);
    connection.accepts(Original, segment(RST, CLIENT_ISN + 1, 0), State::Close);
    connection.accepts(Original, data(CLIENT_ISN + 1, BACKEND_ISN + 1, 500), State::Close);
}

#[test]
fn a_refused_connection_is_closed() {
    let mut connection = Connection::opened();
    connection.accepts(Reply, segment(RST_ACK, 0, CLIENT_ISN + 1), State::Close);
}

/// RFC 9293 3.10.7.3: in SYN-SENT a RST counts by its acknowledgment alone.
#[test]
fn a_rst_that_does_not_acknowledge_the_syn_refuses_nothing() {
    let mut connection = Connection::opened();
    for forged in [segment(RST, 0, 0), segment(RST_ACK, 0, CLIENT_ISN), segment(RST_ACK, 0, CLIENT_ISN + 2)] {
        connection.passes(Reply, forged);
    }
    assert_eq!(connection.state, State::SynSent);
    connection.accepts(Reply, segment(RST_ACK, 12_345, CLIENT_ISN + 1), State::Close);
}

#[test]
fn r43_an_old_syn_ack_is_not_the_handshake_and_the_right_one_passes() {
    for wrong in [CLIENT_ISN, CLIENT_ISN - 500, CLIENT_ISN + 2, CLIENT_ISN.wrapping_sub(1 << 30)] {
        let mut connection = Connection::opened();
        connection.passes(Reply, segment(SYN_ACK, 9_000_000, wrong));
        // The client answers it with a RST of that very number, and goes on trying.
        connection.passes(Original, segment(RST, wrong, 0));
        connection.accepts(Original, segment(SYN, CLIENT_ISN, 0), State::SynSent);
        connection.accepts(Reply, segment(SYN_ACK, BACKEND_ISN, CLIENT_ISN + 1), State::SynReceived);
        connection.accepts(Original, connection.polite(Original, ACK), State::Established);
        connection.transfers(Original, 10_000);
        connection.transfers(Reply, 10_000);
    }
}

/// The backend still has an older connection with this tuple, which we have forgotten.
#[test]
fn a_half_open_connection_is_cleared_by_the_clients_rst() {
    let mut connection = Connection::opened();
    for stale in [1, 1 << 31, u32::MAX] {
        connection.passes(Reply, segment(ACK, 77, stale));
        connection.passes(Original, segment(RST, stale, 0));
    }
    connection.accepts(Original, segment(SYN, CLIENT_ISN, 0), State::SynSent);
    connection.accepts(Reply, segment(SYN_ACK, BACKEND_ISN, CLIENT_ISN + 1), State::SynReceived);
}

/// The client gives up its first attempt and uses the port again, with whatever number.
#[test]
fn a_client_may_begin_again_before_it_is_answered() {
    for isn in [CLIENT_ISN + 9_000_000, CLIENT_ISN.wrapping_sub(9_000_000)] {
        let mut connection = Connection::opened();
        connection.accepts(Original, segment(SYN, isn, 0), State::SynSent);
        connection.passes(Reply, segment(SYN_ACK, 4_711, CLIENT_ISN + 1));
        connection.accepts(Reply, segment(SYN_ACK, BACKEND_ISN, isn.wrapping_add(1)), State::SynReceived);
        connection.next[0] = isn.wrapping_add(1);
        connection.accepts(Original, connection.polite(Original, ACK), State::Established);
    }
}

#[test]
fn r46_a_syn_on_an_established_connection_passes_and_the_challenge_decides() {
    for isn in [CLIENT_ISN, 7, CLIENT_ISN + 1, CLIENT_ISN + 30_000, 1 << 31] {
        let mut connection = Connection::established();
        connection.transfers(Original, 5_000);
        connection.passes(Original, segment(SYN, isn, 0));
        assert_eq!(connection.state, State::Established);
        // RFC 5961 4.2: the backend is still there, and says where it stands.
        let challenge = connection.polite(Reply, ACK);
        connection.accepts(Reply, challenge, State::Established);
        let mut spoofed = connection;
        spoofed.transfers(Original, 5_000);
        spoofed.transfers(Reply, 5_000);
        // A client that has really forgotten the old connection answers with a RST, and tries again.
        connection.accepts(Original, segment(RST, challenge.ack, 0), State::Close);
        assert_eq!(connection.sees(Original, segment(SYN, isn, 0)), Outcome::Reopen);
    }
}

/// Two forged packets from the client's side are no better than one (R47).
#[test]
fn r47_a_forged_syn_lends_no_weight_to_a_forged_rst() {
    let mut connection = Connection::established();
    connection.transfers(Original, 5_000);
    connection.passes(Original, segment(SYN, 777_777, 0));
    connection.refuses(Original, segment(RST_ACK, 0, 777_778));
    connection.refuses(Original, segment(RST, 777_778, 0));
    connection.passes(Original, segment(RST, connection.next[0] + 5, 0));
    connection.transfers(Reply, 5_000);
}

/// The backend has lost the connection (a reboot), and accepts the client's new one: we follow.
#[test]
fn a_syn_that_was_let_pass_and_is_accepted_begins_the_connection_anew() {
    for isn in [7, CLIENT_ISN + 30_000, 1 << 31] {
        let mut connection = Connection::established();
        connection.transfers(Original, 5_000);
        let options = [2, 4, 5, 180, 1, 3, 3, 7];
        connection.passes(Original, TcpSegment { options: &options, ..segment(SYN, isn, 0) });
        // Packets of the old connection in between change nothing.
        connection.passes(Original, segment(SYN, CLIENT_ISN, 0));
        let synack = TcpSegment { options: &options, ..segment(SYN_ACK, 1 << 30, isn.wrapping_add(1)) };
        connection.accepts(Reply, synack, State::SynReceived);
        connection.next = [isn.wrapping_add(1), (1 << 30) + 1];
        connection.accepts(Original, connection.polite(Original, ACK), State::Established);
        connection.transfers(Original, 60_000 << 7);
        connection.transfers(Reply, 60_000 << 7);
    }
}

#[test]
fn a_syn_that_was_let_pass_and_is_refused_ends_the_connection() {
    let mut connection = Connection::established();
    connection.transfers(Original, 5_000);
    connection.passes(Original, segment(SYN, 7, 0));
    connection.refuses(Reply, segment(RST_ACK, 0, 9));
    connection.accepts(Reply, segment(RST_ACK, 0, 8), State::Close);
}

/// A SYN cookie's SYN-ACK has another number each time.
#[test]
fn a_syn_again_may_get_another_syn_ack() {
    let mut connection = Connection::opened();
    connection.accepts(Reply, segment(SYN_ACK, 1 << 30, CLIENT_ISN + 1), State::SynReceived);
    connection.passes(Original, segment(SYN, CLIENT_ISN, 0));
    connection.accepts(Reply, segment(SYN_ACK, BACKEND_ISN, CLIENT_ISN + 1), State::SynReceived);
    connection.accepts(Original, connection.polite(Original, ACK), State::Established);
    connection.transfers(Reply, 5_000);
}

/// Old duplicates of both handshake segments, late: nothing begins anew.
#[test]
fn r42_the_handshake_again_does_not_begin_anew() {
    let mut connection = Connection::established();
    connection.transfers(Original, 50_000);
    connection.transfers(Original, 50_000);
    connection.passes(Original, segment(SYN, CLIENT_ISN, 0));
    connection.passes(Reply, segment(SYN_ACK, BACKEND_ISN, CLIENT_ISN + 1));
    connection.transfers(Original, 50_000);
    connection.transfers(Reply, 50_000);
}

#[test]
fn in_last_ack_the_challenge_to_a_syn_is_not_the_last_ack() {
    let mut connection = Connection::half_closed_by(Reply);
    connection.accepts(Original, connection.polite(Original, ACK), State::CloseWait);
    connection.finishes(Original, State::LastAck);
    connection.passes(Original, segment(SYN, 123_456_789, 0));
    let challenge = TcpSegment { ack: connection.next[0] - 1, ..connection.polite(Reply, ACK) };
    connection.passes(Reply, challenge);
    assert_eq!(connection.state, State::LastAck);
    connection.accepts(Reply, connection.polite(Reply, ACK), State::TimeWait);
}

#[test]
fn r48_a_new_syn_reopens_what_is_over() {
    for isn in [CLIENT_ISN + 500_000, 7] {
        let mut connection = Connection::half_closed_by(Original);
        connection.finishes(Reply, State::LastAck);
        connection.accepts(Original, connection.polite(Original, ACK), State::TimeWait);
        assert_eq!(connection.sees(Original, segment(SYN, isn, 0)), Outcome::Reopen);
    }
}

/// RFC 9293 3.6.1: an old duplicate is what TIME-WAIT waits for.
#[test]
fn r42_an_old_duplicate_of_the_syn_does_not_reopen_time_wait() {
    let mut connection = Connection::half_closed_by(Original);
    connection.finishes(Reply, State::LastAck);
    connection.accepts(Original, connection.polite(Original, ACK), State::TimeWait);
    connection.passes(Original, segment(SYN, CLIENT_ISN, 0));
    assert_eq!(connection.state, State::TimeWait);
}

/// Small devices begin every connection with the same number, some of them from the same port.
#[test]
fn r48_a_client_that_always_begins_with_the_same_number_is_followed_once_the_backend_accepts() {
    let mut connection = Connection::half_closed_by(Original);
    connection.finishes(Reply, State::LastAck);
    connection.accepts(Original, connection.polite(Original, ACK), State::TimeWait);
    connection.passes(Original, segment(SYN, CLIENT_ISN, 0));
    // The old SYN-ACK again says nothing (R42).
    connection.passes(Reply, segment(SYN_ACK, BACKEND_ISN, CLIENT_ISN + 1));
    assert_eq!(connection.state, State::TimeWait);
    let isn = BACKEND_ISN + 0x4000_0000;
    connection.accepts(Reply, segment(SYN_ACK, isn, CLIENT_ISN + 1), State::SynReceived);
    connection.next = [CLIENT_ISN + 1, isn + 1];
    connection.accepts(Original, connection.polite(Original, ACK), State::Established);
    connection.transfers(Original, 100);
    connection.transfers(Reply, 100);
}

/// The same, on a connection that only the backend has forgotten.
#[test]
fn r46_a_client_that_begins_with_the_same_number_is_followed_on_an_open_connection_too() {
    let mut connection = Connection::established();
    connection.transfers(Original, 100);
    connection.passes(Original, segment(SYN, CLIENT_ISN, 0));
    connection.passes(Reply, segment(SYN_ACK, BACKEND_ISN, CLIENT_ISN + 1));
    assert_eq!(connection.state, State::Established);
    connection.accepts(Reply, segment(SYN_ACK, BACKEND_ISN + 0x4000_0000, CLIENT_ISN + 1), State::SynReceived);
    connection.next = [CLIENT_ISN + 1, BACKEND_ISN + 0x4000_0001];
    connection.accepts(Original, connection.polite(Original, ACK), State::Established);
    connection.transfers(Reply, 100);
}
