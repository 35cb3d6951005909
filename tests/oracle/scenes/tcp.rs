//! TCP: what a connection may do, and what is done to it.

use super::Scene;
use crate::pair::Pair;
use crate::talk::Talk;

pub(super) const SCENES: &[(&str, Scene)] = &[
    ("a whole life", a_whole_life),
    ("the backend closes first", the_backend_closes_first),
    ("both close at once", both_close_at_once),
    ("a half-closed connection carries an answer", a_half_closed_connection_carries_an_answer),
    ("everything is sent twice", everything_is_sent_twice),
    ("a refused connection", a_refused_connection),
    ("a reset, exact", a_reset_exact),
    ("a reset of what was not acknowledged", a_reset_of_what_was_not_acknowledged),
    ("a reset in the window", a_reset_in_the_window),
    ("a reset outside the window", a_reset_outside_the_window),
    ("a reset while closing", a_reset_while_closing),
    ("what comes after a reset", what_comes_after_a_reset),
    ("a tuple in TIME-WAIT is used again", a_tuple_in_time_wait_is_used_again),
    ("a tuple after a reset is used again", a_tuple_after_a_reset_is_used_again),
    ("a client that always begins with the same number", a_client_that_always_begins_with_the_same_number),
    ("the same number on an open connection", the_same_number_on_an_open_connection),
    ("a connection with the numbers of the last", a_connection_with_the_numbers_of_the_last),
    ("a SYN on an open connection", a_syn_on_an_open_connection),
    ("a SYN on an open connection, answered anew", a_syn_on_an_open_connection_answered_anew),
    ("simultaneous open", simultaneous_open),
    ("an old SYN-ACK", an_old_syn_ack),
    ("a second attempt", a_second_attempt),
    ("flags", flags),
    ("in the middle of nothing", in_the_middle_of_nothing),
];

fn a_whole_life(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::open(pair, is_v6);
    talk.client("ACK PSH", 1, 1, 1000).same(1);
    talk.backend("ACK", 1, 1001, 0).same(1);
    talk.backend("ACK", 1, 1001, 1400).same(1);
    talk.backend("ACK PSH", 1401, 1001, 1400).same(1);
    talk.client("ACK", 1001, 2801, 0).same(1);
    talk.client("FIN ACK", 1001, 2801, 0).same(1);
    talk.backend("ACK", 2801, 1002, 0).same(1);
    talk.backend("FIN ACK", 2801, 1002, 0).same(1);
    talk.client("ACK", 1002, 2802, 0).same(1);
    talk.backend("FIN ACK", 2801, 1002, 0).same(1);
    talk.client("ACK", 1002, 2802, 0).same(1);
}

fn the_backend_closes_first(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::under_way(pair, is_v6);
    talk.backend("FIN ACK PSH", 101, 101, 50).same(1);
    talk.client("FIN ACK", 101, 152, 0).same(1);
    talk.backend("ACK", 152, 102, 0).same(1);
    talk.client("FIN ACK", 101, 152, 0).same(1);
    talk.backend("ACK", 152, 102, 0).same(1);
}

fn both_close_at_once(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::under_way(pair, is_v6);
    talk.client("FIN ACK", 101, 101, 0).same(1);
    talk.backend("FIN ACK", 101, 101, 0).same(1);
    talk.client("ACK", 102, 102, 0).same(1);
    talk.backend("ACK", 102, 102, 0).same(1);
}

fn a_half_closed_connection_carries_an_answer(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::under_way(pair, is_v6);
    talk.client("FIN ACK", 101, 101, 0).same(1);
    talk.backend("ACK", 101, 102, 0).same(1);
    for n in 0..50 {
        talk.backend("ACK", 101 + n * 1400, 102, 1400).same(1);
        talk.client("ACK", 102, 101 + (n + 1) * 1400, 0).same(1);
    }
    talk.backend("FIN ACK", 70_101, 102, 0).same(1);
    talk.client("ACK", 102, 70_102, 0).same(1);
}

fn everything_is_sent_twice(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::new(pair, is_v6);
    for _ in 0..3 {
        talk.client("SYN", 0, 0, 0).same(1);
    }
    for _ in 0..2 {
        talk.backend("SYN ACK", 0, 1, 0).same(1);
    }
    for _ in 0..2 {
        talk.client("ACK", 1, 1, 0).same(1);
    }
    talk.backend("SYN ACK", 0, 1, 0).same(1);
    for _ in 0..2 {
        talk.client("ACK PSH", 1, 1, 700).same(1);
        talk.backend("ACK", 1, 701, 900).same(1);
        talk.client("ACK PSH", 1, 1, 700).same(1);
    }
    talk.client("ACK PSH", 1, 901, 1400).same(1);
    for _ in 0..3 {
        talk.client("FIN ACK", 1401, 901, 0).same(1);
    }
    for _ in 0..2 {
        talk.backend("ACK", 901, 1402, 0).same(1);
    }
    for _ in 0..2 {
        talk.backend("FIN ACK", 901, 1402, 0).same(1);
    }
    for _ in 0..2 {
        talk.client("ACK", 1402, 902, 0).same(1);
    }
    talk.client("FIN ACK", 1401, 902, 0).same(1);
    talk.backend("ACK", 902, 1402, 0).same(1);
}

fn a_refused_connection(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::new(pair, is_v6);
    talk.client("SYN", 0, 0, 0).same(1);
    talk.isns[1] = 0;
    talk.backend("RST ACK", 0, 1, 0).same(1);
    talk.client("SYN", 0, 0, 0).same(1);
    talk.backend("RST ACK", 0, 1, 0).same(1);
}

fn a_reset_exact(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::under_way(pair, is_v6);
    talk.client("RST", 101, 0, 0).same(1);
    let mut talk = Talk::under_way(pair, is_v6);
    talk.backend("RST ACK", 101, 101, 0).same(1);
    let mut talk = Talk::under_way(pair, is_v6);
    talk.client("RST ACK", 101, 101, 0).same(1);
    talk.backend("RST", 101, 0, 0).same(1);
}

/// The receiver expects what it has acknowledged last, whatever is on its way.
fn a_reset_of_what_was_not_acknowledged(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::under_way(pair, is_v6);
    talk.client("ACK PSH", 101, 101, 500).same(1);
    talk.client("RST", 101, 0, 0).same(1);
    talk.client("SYN", 5_000_000, 0, 0).same(1);
    talk.client("ACK", 601, 101, 0).same(0); // it was believed: that connection is over
}

fn a_reset_in_the_window(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::under_way(pair, is_v6);
    talk.client("RST", 2000, 0, 0).same(1);
    talk.backend("ACK", 101, 101, 0).same(1); // the challenge
    talk.client("RST", 101, 0, 0).same(1);
    let mut talk = Talk::under_way(pair, is_v6);
    talk.backend("RST", 60_000, 0, 0).same(1);
    talk.client("ACK", 101, 101, 0).same(1);
    talk.backend("ACK", 101, 101, 500).same(1);
}

fn a_reset_outside_the_window(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::under_way(pair, is_v6);
    for seq in [-70_000, 10_000_000, -10_000_000, 1 << 31] {
        talk.client("RST", seq, 0, 0).same(0);
        talk.backend("RST", seq, 0, 0).same(0);
    }
    talk.client("RST", 70_000, 0, 0).decided("a RST beyond the window");
    talk.backend("RST", 70_000, 0, 0).decided("a RST beyond the window");
    talk.client("RST", 50, 0, 0).same(0);
    talk.client("ACK PSH", 101, 101, 100).same(1);
    talk.backend("ACK", 101, 201, 0).same(1);
}

fn a_reset_while_closing(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::under_way(pair, is_v6);
    talk.client("FIN ACK", 101, 101, 0).same(1);
    talk.client("RST", 102, 0, 0).same(1);
    talk.backend("RST", 101, 0, 0).same(1);
    let mut talk = Talk::under_way(pair, is_v6);
    talk.client("FIN ACK", 101, 101, 0).same(1);
    talk.backend("ACK", 101, 102, 0).same(1);
    talk.backend("RST", 101, 0, 0).same(1);
    let mut talk = Talk::under_way(pair, is_v6);
    talk.client("FIN ACK", 101, 101, 0).same(1);
    talk.backend("FIN ACK", 101, 102, 0).same(1);
    talk.client("ACK", 102, 102, 0).same(1);
    talk.client("RST", 102, 0, 0).same(1);
}

fn what_comes_after_a_reset(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::under_way(pair, is_v6);
    talk.client("RST", 101, 0, 0).same(1);
    talk.backend("ACK PSH", 101, 101, 300).same(1);
    talk.client("RST", 101, 0, 0).same(1);
    talk.backend("ACK PSH", 101, 101, 300).same(1);
    talk.client("ACK", 101, 101, 0).same(1);
}

fn close(talk: &mut Talk<'_>) {
    talk.client("FIN ACK", 101, 101, 0).same(1);
    talk.backend("FIN ACK", 101, 102, 0).same(1);
    talk.client("ACK", 102, 102, 0).same(1);
}

fn a_tuple_in_time_wait_is_used_again(pair: &mut Pair, is_v6: bool) {
    for later in [100_000, 1, 1 << 30, u32::MAX - 1_000_000] {
        let mut talk = Talk::under_way(pair, is_v6);
        close(&mut talk);
        talk.isns = talk.isns.map(|isn| isn.wrapping_add(later));
        talk.handshake();
        talk.client("ACK PSH", 1, 1, 100).same(1);
        talk.backend("ACK PSH", 1, 101, 100).same(1);
        talk.client("ACK", 101, 101, 0).same(1);
        close(&mut talk);
    }
}

fn a_client_that_always_begins_with_the_same_number(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::under_way(pair, is_v6);
    for further in [0x4000_0000, 0x7000_0000] {
        close(&mut talk);
        talk.isns[1] = talk.isns[1].wrapping_add(further);
        talk.handshake();
        talk.client("ACK PSH", 1, 1, 100).same(1);
        talk.backend("ACK PSH", 1, 101, 100).same(1);
        talk.client("ACK", 101, 101, 0).same(1);
    }
}

/// The backend has lost the connection, and the client begins another with the same number.
fn the_same_number_on_an_open_connection(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::under_way(pair, is_v6);
    talk.isns[1] = 88;
    talk.handshake();
    talk.client("ACK PSH", 1, 1, 100).same(1);
    talk.backend("ACK PSH", 1, 101, 100).same(1);
}

fn a_connection_with_the_numbers_of_the_last(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::under_way(pair, is_v6);
    close(&mut talk);
    talk.client("SYN", 0, 0, 0).same(1);
    talk.backend("SYN ACK", 0, 1, 900).same(1);
    talk.client("ACK", 1, 901, 0).decided("a connection with the numbers of the last, both ends'");
}

fn a_tuple_after_a_reset_is_used_again(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::under_way(pair, is_v6);
    talk.backend("RST", 101, 0, 0).same(1);
    talk.isns = [12, 4_000_000_000];
    talk.handshake();
    talk.client("ACK PSH", 1, 1, 100).same(1);
    talk.backend("ACK PSH", 1, 101, 100).same(1);
}

fn a_syn_on_an_open_connection(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::under_way(pair, is_v6);
    talk.client("SYN", 5_000_000, 0, 0).same(1);
    talk.backend("ACK", 101, 101, 0).same(1); // the challenge
    talk.client("ACK PSH", 101, 101, 100).same(1);
    talk.client("SYN", 0, 0, 0).same(1); // an old duplicate
    talk.backend("ACK", 101, 201, 0).same(1);
    talk.client("RST", 201, 0, 0).same(1);
}

/// The backend has lost the connection, and takes the SYN for what it is.
fn a_syn_on_an_open_connection_answered_anew(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::under_way(pair, is_v6);
    talk.isns = [77, 88];
    talk.client("SYN", 0, 0, 0).same(1);
    talk.backend("SYN ACK", 0, 1, 0).same(1);
    talk.client("ACK", 1, 1, 0).same(1);
    talk.client("ACK PSH", 1, 1, 100).same(1);
    talk.backend("ACK PSH", 1, 101, 100).same(1);
    talk.client("FIN ACK", 101, 101, 0).same(1);
}

fn simultaneous_open(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::new(pair, is_v6);
    talk.client("SYN", 0, 0, 0).same(1);
    talk.backend("SYN", 0, 0, 0).same(1);
    talk.client("SYN ACK", 0, 1, 0).same(1);
    talk.backend("SYN ACK", 0, 1, 0).same(1);
    talk.client("ACK", 1, 1, 0).same(1);
    talk.client("ACK PSH", 1, 1, 100).same(1);
    talk.backend("ACK PSH", 1, 101, 100).same(1);
}

fn an_old_syn_ack(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::new(pair, is_v6);
    talk.client("SYN", 0, 0, 0).same(1);
    talk.backend("SYN ACK", 7_000, 500_000, 0).decided("a SYN-ACK that does not acknowledge the SYN");
    talk.client("RST", 500_000, 0, 0).decided("a RST that ends no connection");
    talk.client("SYN", 0, 0, 0).same(1);
    talk.backend("SYN ACK", 0, 1, 0).same(1);
    talk.client("ACK", 1, 1, 0).same(1);
}

fn a_second_attempt(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::new(pair, is_v6);
    talk.client("SYN", 0, 0, 0).same(1);
    talk.isns[0] = 0x1234_5678;
    talk.handshake();
    talk.client("ACK PSH", 1, 1, 100).same(1);
    talk.backend("ACK PSH", 1, 101, 100).same(1);
}

fn flags(pair: &mut Pair, is_v6: bool) {
    for names in ["", "FIN", "SYN FIN", "SYN RST", "FIN PSH URG", "SYN FIN ACK", "RST FIN", "PSH", "URG"] {
        let mut talk = Talk::new(pair, is_v6);
        talk.client(names, 0, 0, 0).same(0);
        let mut talk = Talk::under_way(talk.pair, is_v6);
        talk.client(names, 101, 101, 0).same(0);
        talk.backend(names, 101, 101, 0).same(0);
        talk.client("ACK PSH", 101, 101, 100).same(1);
    }
    for names in ["SYN PSH", "SYN URG", "SYN ECE CWR PSH URG"] {
        Talk::new(pair, is_v6).client(names, 0, 0, 0).same(1);
    }
}

fn in_the_middle_of_nothing(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::new(pair, is_v6);
    talk.client("ACK PSH", 1, 1, 100).decided("a segment of a connection that is not known");
    talk.client("FIN ACK", 1, 1, 0).decided("a segment of a connection that is not known");
    talk.client("SYN ACK", 1, 1, 0).decided("a segment of a connection that is not known");
    let met = talk.backend("ACK", 1, 1, 0);
    if talk.pair.source_nat {
        met.decided("a segment of a connection that is not known");
    } else {
        met.same(0); // to the client's address, which is none of ours
    }
    talk.client("RST", 1, 0, 0).same(0);
    talk.backend("RST ACK", 1, 1, 0).same(0);
}
