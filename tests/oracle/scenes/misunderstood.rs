//! What the kernel and tungate understand differently without anything to be seen of it, until something comes that is.

use super::Scene;
use crate::pair::Pair;
use crate::talk::Talk;

pub(super) const SCENES: &[(&str, Scene)] = &[
    ("after a FIN that came again", after_a_fin_that_came_again),
    ("after a guessed RST on a half-closed connection", after_a_guessed_rst_on_a_half_closed_connection),
    ("after a guessed RST on an open connection", after_a_guessed_rst_on_an_open_connection),
    ("after a RST behind the last byte", after_a_rst_behind_the_last_byte),
    ("outside the window after a RST", outside_the_window_after_a_rst),
    ("between a SYN after a RST and its answer", between_a_syn_after_a_rst_and_its_answer),
    ("after a SYN-ACK of something earlier", after_a_syn_ack_of_something_earlier),
    ("after a second SYN with a lower number", after_a_second_syn_with_a_lower_number),
    ("after an ACK of nothing in the handshake", after_an_ack_of_nothing_in_the_handshake),
    ("after a backend's SYN in TIME-WAIT", after_a_backends_syn_in_time_wait),
    ("after data beyond the window", after_data_beyond_the_window),
    ("after a handshake that came again", after_a_handshake_that_came_again),
    ("a RST before the window after a SYN", a_rst_before_the_window_after_a_syn),
    ("the answer to a SYN in LAST-ACK", the_answer_to_a_syn_in_last_ack),
    ("SYNs in a simultaneous open", syns_in_a_simultaneous_open),
];

fn after_a_fin_that_came_again(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::under_way(pair, is_v6);
    talk.client("FIN ACK", 101, 101, 0).same(1);
    talk.backend("ACK", 101, 102, 0).same(1);
    talk.client("FIN ACK", 101, 101, 0).same(1);
    talk.client("ACK", 102, 101, 0).same(1);
    // To the kernel that was the last ACK, and the SYN begins a connection: to tungate, the backend has not finished.
    talk.client("SYN", 5_000_000, 0, 0).same(1);
    talk.backend("ACK PSH", 101, 102, 100).same(1);
    talk.client("ACK", 102, 201, 0).decided("what comes after a FIN that came again");
}

fn after_a_guessed_rst_on_a_half_closed_connection(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::under_way(pair, is_v6);
    talk.client("FIN ACK", 101, 101, 0).same(1);
    talk.backend("ACK", 101, 102, 0).same(1);
    talk.backend("RST", 5_000, 0, 0).same(1);
    // To the kernel it is over, and a SYN begins another.
    talk.client("SYN", 5_000_000, 0, 0).same(1);
    talk.client("ACK", 102, 101, 0).decided("what comes after a RST on a connection that was not open");
}

fn after_a_guessed_rst_on_an_open_connection(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::under_way(pair, is_v6);
    talk.client("RST", 5_000, 0, 0).same(1);
    talk.backend("ACK", 101, 5_000, 0).decided("what comes after a RST that was not exact, of an open connection");
}

fn after_a_rst_behind_the_last_byte(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::under_way(pair, is_v6);
    talk.client("ACK PSH", 101, 101, 500).same(1);
    talk.backend("ACK", 101, 101, 0).same(1);
    talk.client("RST", 601, 0, 0).same(1);
    talk.client("SYN", 5_000_000, 0, 0).same(1);
    talk.client("ACK PSH", 601, 101, 500).decided("what comes after a RST behind the last byte sent");
}

fn outside_the_window_after_a_rst(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::under_way(pair, is_v6);
    talk.client("RST", 101, 0, 0).same(1);
    talk.client("ACK PSH", 1 << 30, 101, 100).decided("a segment outside the window of a connection that was reset");
}

fn between_a_syn_after_a_rst_and_its_answer(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::under_way(pair, is_v6);
    talk.backend("RST", 101, 0, 0).same(1);
    talk.client("SYN", 5_000_000, 0, 0).same(1);
    talk.client("ACK", 101, 101, 0).decided("what comes between a SYN on a connection that is over and its answer");
}

fn after_a_syn_ack_of_something_earlier(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::new(pair, is_v6);
    talk.client("SYN", 0, 0, 0).same(1);
    talk.backend("SYN ACK", 0, -100, 0).same(1);
    talk.client("ACK", 1, 1, 0).decided("what comes after a SYN-ACK that acknowledges something before the SYN");
}

fn after_a_second_syn_with_a_lower_number(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::new(pair, is_v6);
    talk.client("SYN", 0, 0, 0).same(1);
    talk.isns[0] = talk.isns[0].wrapping_sub(1 << 30);
    talk.client("SYN", 0, 0, 0).same(1);
    talk.backend("SYN ACK", 0, 1, 0).same(1);
    talk.client("ACK", 1, 1, 0)
        .decided("what comes after a second SYN, with a lower number or fewer options than the first");
}

fn after_an_ack_of_nothing_in_the_handshake(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::new(pair, is_v6);
    talk.client("SYN", 0, 0, 0).same(1);
    talk.backend("SYN ACK", 0, 1, 0).same(1);
    talk.client("ACK PSH", 1, 0, 100).same(1);
    talk.backend("ACK", 1, 101, 0).decided("what comes after an ACK that does not acknowledge the SYN-ACK");
}

fn after_a_backends_syn_in_time_wait(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::under_way(pair, is_v6);
    talk.client("FIN ACK", 101, 101, 0).same(1);
    talk.backend("FIN ACK", 101, 102, 0).same(1);
    talk.client("ACK", 102, 102, 0).same(1);
    talk.backend("SYN", 5_000_000, 0, 0).same(0);
    talk.backend("FIN ACK", 101, 102, 0)
        .decided("what comes after a SYN of the backend's on a connection in TIME-WAIT");
}

fn after_data_beyond_the_window(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::under_way(pair, is_v6);
    talk.client("ACK PSH", 101, 101, 64_000).same(1);
    talk.client("ACK PSH", 64_101, 101, 1_400).same(1);
    talk.client("ACK PSH", 65_501, 101, 1_400).same(1);
    talk.client("ACK", 65_501, 101, 0).same(1);
    talk.backend("ACK", 101, 66_901, 0).decided("what comes after data beyond the window");
}

fn after_a_handshake_that_came_again(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::under_way(pair, is_v6);
    talk.client("SYN", 0, 0, 0).same(1);
    talk.backend("SYN ACK", 0, 1, 0).same(1);
    let met = talk.backend("ACK", 101, 101, 0);
    met.decided("what comes after a handshake that came again on an open connection");
}

fn a_rst_before_the_window_after_a_syn(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::under_way(pair, is_v6);
    talk.client("SYN", 5_000_000, 0, 0).same(1);
    talk.client("RST", 50, 0, 0).decided("a RST before the window, after a SYN on an open connection");
}

fn the_answer_to_a_syn_in_last_ack(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::under_way(pair, is_v6);
    talk.backend("FIN ACK", 101, 101, 0).same(1);
    talk.client("FIN ACK", 101, 102, 0).same(1);
    talk.client("SYN", 5_000_000, 0, 0).same(1);
    talk.client("FIN ACK", 101, 102, 0).same(1);
    talk.backend("ACK", 102, 50_000_000, 0).decided("what answers a SYN in LAST-ACK, and what comes then");
}

fn syns_in_a_simultaneous_open(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::new(pair, is_v6);
    talk.client("SYN", 0, 0, 0).same(1);
    talk.backend("SYN", 0, 0, 0).same(1);
    talk.client("SYN", 5_000_000, 0, 0).decided("a second SYN in a simultaneous open");
    let mut talk = Talk::new(talk.pair, is_v6);
    talk.client("SYN", 0, 0, 0).same(1);
    talk.backend("SYN", 0, 0, 0).same(1);
    talk.client("SYN ACK", 0, 1, 0).same(1);
    talk.backend("SYN", 0, 0, 0).same(0);
    let mut talk = Talk::new(talk.pair, is_v6);
    talk.client("SYN", 0, 0, 0).same(1);
    talk.backend("SYN", 0, 0, 0).same(1);
    talk.client("SYN ACK", 1_310, 0, 0).same(1);
    let met = talk.backend("SYN", 0, 0, 0);
    met.decided("what comes after SYNs of a handshake that do not fit each other");
}
