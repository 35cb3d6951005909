//! The four conditions, and what hosts do at their edges.

use super::*;

/// A connection whose ends have sent these options with their SYNs.
fn with_options(client: &[u8], backend: &[u8]) -> Connection {
    let syn = TcpSegment { options: client, ..segment(SYN, CLIENT_ISN, 0) };
    let mut connection = Connection { tracker: Tracker::open(&syn), ..Connection::opened() };
    let synack = TcpSegment { options: backend, ..segment(SYN_ACK, BACKEND_ISN, CLIENT_ISN + 1) };
    connection.accepts(Reply, synack, State::SynReceived);
    connection.accepts(Original, connection.polite(Original, ACK), State::Established);
    connection
}

const NOTHING: &[u8] = &[];
const SCALE_14: &[u8] = &[3, 3, 14, 0];
const SCALE_255: &[u8] = &[3, 3, 255, 0];
const SACK_PERMITTED: &[u8] = &[4, 2, 1, 1];

/// A segment at the edge of the window, and one beyond.
#[track_caller]
fn assert_may_send_up_to(connection: &Connection, side: Direction, window: u32) {
    let (seq, ack) = (connection.next[side as usize], connection.next[side.other() as usize]);
    { *connection }.accepts(side, data(seq + window, ack, 1), State::Established);
    { *connection }.refuses(side, data(seq + window + 1, ack, 1));
}

#[test]
fn condition_i_nobody_sends_beyond_the_window() {
    let mut connection = Connection::established();
    for side in [Original, Reply, Original] {
        assert_may_send_up_to(&connection, side, 60_000);
        connection.transfers(side, 1_000);
    }
}

#[test]
fn condition_ii_what_was_acknowledged_long_ago_passes_unheeded() {
    let mut connection = Connection::established();
    let (seq, ack) = (connection.next[0], connection.next[1]);
    for _ in 0..4 {
        connection.transfers(Original, 30_000);
    }
    connection.accepts(Original, data(seq + 30_000, ack, 30_000), State::Established);
    connection.passes(Original, data(seq, ack, 30_000));
    connection.passes(Original, TcpSegment { flags: FIN_ACK, ..data(seq, ack, 30_000) });
    assert_eq!(connection.state, State::Established);
}

#[test]
fn condition_iii_nobody_acknowledges_what_was_not_sent() {
    for side in [Original, Reply] {
        let mut connection = Connection::established();
        connection.transfers(side.other(), 1_000);
        let honest = connection.polite(side, ACK);
        connection.refuses(side, TcpSegment { ack: honest.ack + 1, ..honest });
        connection.refuses(side, TcpSegment { ack: honest.ack ^ 0x8000_0000, flags: FIN_ACK, ..honest });
        connection.accepts(side, honest, State::Established);
    }
}

#[test]
fn condition_iv_an_acknowledgment_far_behind_passes_unheeded() {
    let mut connection = Connection::established();
    let ack = connection.next[0];
    connection.transfers(Original, 50_000);
    connection.transfers(Original, 50_000);
    connection.accepts(Reply, segment(ACK, BACKEND_ISN + 1, ack + 100_000 - 66_001), State::Established);
    connection.passes(Reply, segment(ACK, BACKEND_ISN + 1, ack + 100_000 - 66_002));
}

#[test]
fn r56_windows_are_scaled_only_if_both_ends_say_so() {
    for (client, backend, from_client, from_backend) in [
        (NOTHING, NOTHING, 60_000, 60_000),
        (&[3, 3, 2, 0], NOTHING, 60_000, 60_000),
        (NOTHING, &[3, 3, 7, 0], 60_000, 60_000),
        (&[3, 3, 2, 0][..], &[3, 3, 7, 0][..], 60_000 << 7, 60_000 << 2),
    ] {
        let mut connection = with_options(client, backend);
        // The window of a SYN is never scaled: it takes one more segment of each.
        connection.transfers(Original, 1);
        connection.transfers(Reply, 1);
        assert_may_send_up_to(&connection, Original, from_client);
        assert_may_send_up_to(&connection, Reply, from_backend);
    }
}

#[test]
fn r56_a_scale_above_14_counts_as_14() {
    let scaled = |options| {
        let mut connection = with_options(options, options);
        connection.transfers(Original, 1);
        connection.transfers(Reply, 1);
        connection
    };
    for options in [SCALE_14, SCALE_255] {
        assert_may_send_up_to(&scaled(options), Original, 60_000 << 14);
        assert_may_send_up_to(&scaled(options), Reply, 60_000 << 14);
    }
}

#[test]
fn the_window_of_a_syn_ack_is_not_scaled() {
    let mut connection = with_options(SCALE_14, SCALE_14);
    connection.state = State::Established;
    assert_may_send_up_to(&connection, Original, 60_000);
}

fn sack(left: u32, right: u32) -> Vec<u8> {
    let mut options = vec![1, 1, 5, 10];
    options.extend(left.to_be_bytes());
    options.extend(right.to_be_bytes());
    options
}

/// The receiver got later data, and says so: its window counts from there.
#[test]
fn r56_sack_blocks_extend_the_acceptable_acknowledgment() {
    for (permitted, far_behind) in [(SACK_PERMITTED, Outcome::Accept(State::Established)), (NOTHING, Outcome::Pass)] {
        let mut connection = with_options(permitted, permitted);
        let (seq, ack) = (connection.next[0], connection.next[1]);
        connection.transfers(Original, 50_000);
        connection.transfers(Original, 50_000);
        // All but the first 1000 bytes have come.
        let blocks = sack(seq + 1_000, seq + 100_000);
        let gap = TcpSegment { options: &blocks, ..segment(ACK, ack, seq) };
        assert_eq!(connection.sees(Reply, gap), far_behind);
        let beyond = sack(seq + 1_000, seq + 100_001);
        let gap = TcpSegment { options: &beyond, ..segment(ACK, ack, seq + 90_000) };
        let lies = if permitted.is_empty() { Outcome::Accept(State::Established) } else { Outcome::BadWindow };
        assert_eq!(connection.sees(Reply, gap), lies, "what was not sent cannot have come");
    }
}

#[test]
fn a_keep_alive_and_its_answer_are_accepted() {
    for side in [Original, Reply] {
        let mut connection = Connection::established();
        connection.transfers(side, 1_000);
        let (seq, ack) = (connection.next[side as usize], connection.next[side.other() as usize]);
        for garbage in [0, 1] {
            connection.accepts(side, data(seq - 1, ack, garbage), State::Established);
            connection.accepts(side.other(), connection.polite(side.other(), ACK), State::Established);
        }
    }
}

#[test]
fn a_closed_window_may_be_probed_with_one_byte_and_no_more() {
    for side in [Original, Reply] {
        let mut connection = Connection::established();
        let (seq, ack) = (connection.next[side as usize], connection.next[side.other() as usize]);
        connection.accepts(side, data(seq, ack, 60_000), State::Established);
        connection.next[side as usize] += 60_000;
        let closed = TcpSegment { window: 0, ..connection.polite(side.other(), ACK) };
        connection.accepts(side.other(), closed, State::Established);
        connection.accepts(side, data(seq + 60_000, ack, 1), State::Established);
        connection.accepts(side, data(seq + 59_999, ack, 0), State::Established);
        connection.accepts(side.other(), TcpSegment { ack: closed.ack + 1, ..closed }, State::Established);
        connection.refuses(side, data(seq + 60_000 + 3, ack, 1));
    }
}

/// Offloads hand us up to 64 KiB at once, which may reach beyond the window that a single segment would have kept.
#[test]
fn a_super_segment_is_one_segment() {
    for side in [Original, Reply] {
        let mut connection = with_options(&[3, 3, 4, 0], &[3, 3, 4, 0]);
        connection.transfers(Original, 1);
        connection.transfers(Reply, 1);
        for _ in 0..100 {
            connection.transfers(side, 65_160);
        }
    }
}

#[test]
fn sequence_numbers_wrap() {
    for (client, backend) in [(u32::MAX, u32::MAX), (u32::MAX - 5_000, 0), (0x7fff_fff0, 0x8000_0000)] {
        let mut connection = Connection {
            tracker: Tracker::open(&segment(SYN, client, 0)),
            next: [client.wrapping_add(1), backend.wrapping_add(1)],
            ..Connection::opened()
        };
        connection.accepts(Reply, segment(SYN_ACK, backend, client.wrapping_add(1)), State::SynReceived);
        connection.accepts(Original, connection.polite(Original, ACK), State::Established);
        for side in [Original, Reply, Original, Reply] {
            connection.transfers(side, 50_000);
        }
        connection.refuses(Original, segment(RST, connection.next[0].wrapping_sub(1), 0));
        connection.finishes(Original, State::FinWait);
        connection.finishes(Reply, State::LastAck);
    }
}

/// Once round: four gigabytes in one connection.
#[test]
fn sequence_numbers_go_all_the_way_round() {
    let mut connection = with_options(SCALE_14, SCALE_14);
    connection.transfers(Reply, 1);
    for _ in 0..12 {
        connection.transfers(Original, 400_000_000);
    }
}

/// RFC 7413: data with the SYN; the backend takes it, or only the SYN.
#[test]
fn r57_data_with_the_syn_may_be_acknowledged_or_not() {
    for taken in [0, 500] {
        let syn = TcpSegment { payload_len: 500, ..segment(SYN, CLIENT_ISN, 0) };
        let mut connection = Connection { tracker: Tracker::open(&syn), ..Connection::opened() };
        connection.accepts(Original, segment(SYN, CLIENT_ISN, 0), State::SynSent);
        let ack = CLIENT_ISN + 1 + taken;
        connection.accepts(
            Reply,
            TcpSegment { payload_len: 10, ..segment(SYN_ACK, BACKEND_ISN, ack) },
            State::SynReceived,
        );
        connection.accepts(Reply, data(BACKEND_ISN + 11, ack, 1_000), State::SynReceived);
        connection.next = [ack, BACKEND_ISN + 1_011];
        connection.accepts(Original, connection.polite(Original, ACK), State::Established);
        connection.transfers(Original, 5_000);
        connection.transfers(Reply, 5_000);
    }
}
