//! TCP: what a segment carries, and whether that lies in the window.

use super::Scene;
use crate::pair::{Pair, Side};
use crate::talk::Talk;

pub(super) const SCENES: &[(&str, Scene)] = &[
    ("options", options),
    ("SACK", sack),
    ("data with the SYN", data_with_the_syn),
    ("window scaling", window_scaling),
    ("beyond the window", beyond_the_window),
    ("on and on beyond the window", on_and_on_beyond_the_window),
    ("an acknowledgment of what was never sent", an_acknowledgment_of_what_was_never_sent),
    ("long acknowledged", long_acknowledged),
    ("a zero window is probed", a_zero_window_is_probed),
    ("keep-alives", keep_alives),
];

/// MSS, SACK permitted, timestamps, NOP, window scale 7; an option that nobody knows.
const SYN_OPTIONS: [u8; 24] = [2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7, 253, 4, 9, 9];
const TIMESTAMPS: [u8; 12] = [1, 1, 8, 10, 1, 2, 3, 5, 9, 8, 7, 6];

fn options(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::new(pair, is_v6);
    talk.says(Side::Clients, "SYN ECE CWR", (0, 0), &SYN_OPTIONS, 0).same(1);
    talk.says(Side::Backends, "SYN ACK ECE", (0, 1), &SYN_OPTIONS, 0).same(1);
    talk.says(Side::Clients, "ACK", (1, 1), &TIMESTAMPS, 0).same(1);
    talk.says(Side::Clients, "ACK PSH URG", (1, 1), &TIMESTAMPS, 33).same(1);
    talk.says(Side::Backends, "ACK PSH CWR", (1, 34), &TIMESTAMPS, 77).same(1);
    // Impossible lengths, and what lies behind the end of the list.
    talk.says(Side::Clients, "ACK", (34, 78), &[8, 0, 1, 1], 5).same(1);
    talk.says(Side::Clients, "ACK", (39, 78), &[8, 40, 1, 1], 5).same(1);
    talk.says(Side::Clients, "ACK", (44, 78), &[0, 7, 7, 7], 5).same(1);
    talk.says(Side::Clients, "ACK", (49, 78), &[1; 40], 5).same(1);
}

fn sack(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::new(pair, is_v6);
    talk.isns = [1_000, 2_000];
    talk.says(Side::Clients, "SYN", (0, 0), &SYN_OPTIONS, 0).same(1);
    talk.says(Side::Backends, "SYN ACK", (0, 1), &SYN_OPTIONS, 0).same(1);
    talk.says(Side::Clients, "ACK", (1, 1), &TIMESTAMPS, 0).same(1);
    for n in [0, 2, 3, 5] {
        talk.says(Side::Backends, "ACK", (1 + n * 1400, 1), &TIMESTAMPS, 1400).same(1);
    }
    let block = |from: u32, to: u32| [(2_000 + from).to_be_bytes(), (2_000 + to).to_be_bytes()].concat();
    let blocks = |all: &[(u32, u32)]| {
        let list: Vec<u8> = all.iter().flat_map(|(from, to)| block(*from, *to)).collect();
        [vec![1, 1, 5, u8::try_from(2 + list.len()).unwrap()], list].concat()
    };
    talk.says(Side::Clients, "ACK", (1, 1401), &blocks(&[(7001, 8401), (2801, 5601)]), 0).same(1);
    talk.says(Side::Backends, "ACK", (1401, 1), &TIMESTAMPS, 1400).same(1);
    // A block of what was never sent.
    talk.says(Side::Clients, "ACK", (1, 5601), &blocks(&[(90_001, 91_401)]), 0).same(0);
    talk.says(Side::Clients, "ACK", (1, 5601), &blocks(&[(7001, 8401)]), 0).same(1);
}

fn data_with_the_syn(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::new(pair, is_v6);
    talk.says(Side::Clients, "SYN", (0, 0), &[34, 4, 7, 7], 200).same(1);
    talk.backend("SYN ACK", 0, 201, 300).same(1);
    talk.client("ACK", 201, 301, 0).same(1);
    talk.backend("ACK PSH", 301, 201, 300).same(1);
    // The backend takes the SYN but not the data.
    let mut talk = Talk::new(pair, is_v6);
    talk.says(Side::Clients, "SYN", (0, 0), &[34, 4, 7, 7], 200).same(1);
    talk.backend("SYN ACK", 0, 1, 0).same(1);
    talk.client("ACK PSH", 1, 1, 200).same(1);
    talk.backend("ACK", 1, 201, 0).same(1);
}

fn window_scaling(pair: &mut Pair, is_v6: bool) {
    for (scale, both, last) in [(7, true, 1), (7, false, 0), (14, true, 1), (200, true, 1)] {
        let mut talk = Talk::new(pair, is_v6);
        talk.says(Side::Clients, "SYN", (0, 0), &[1, 3, 3, scale], 0).same(1);
        let answer: &[u8] = if both { &[1, 3, 3, scale] } else { &[] };
        talk.says(Side::Backends, "SYN ACK", (0, 1), answer, 0).same(1);
        talk.client("ACK", 1, 1, 0).same(1);
        talk.backend("ACK", 1, 1, 100).same(1);
        // Far into the scaled window; beyond the plain one.
        talk.backend("ACK", 1_000_001, 1, 100).same(last);
        talk.client("ACK", 2_000_001, 101, 100).same(last);
    }
}

fn beyond_the_window(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::under_way(pair, is_v6);
    talk.client("ACK PSH", 70_000, 101, 100).decided("data beyond the window");
    let mut talk = Talk::under_way(talk.pair, is_v6);
    talk.backend("ACK PSH", 70_000, 101, 100).decided("data beyond the window");
    let mut talk = Talk::under_way(talk.pair, is_v6);
    for seq in [200_000, 1 << 30, 1 << 31] {
        talk.client("ACK PSH", seq, 101, 100).same(0);
        talk.backend("ACK PSH", seq, 101, 100).same(0);
        talk.client("FIN ACK", seq, 101, 0).same(0);
    }
    talk.client("ACK PSH", 101, 101, 100).same(1);
    talk.backend("ACK PSH", 101, 201, 100).same(1);
    // It begins within the window and ends beyond.
    talk.client("ACK PSH", 63_900, 101, 1000).same(1);
    talk.backend("ACK PSH", 63_900, 201, 1400).same(1);
}

fn on_and_on_beyond_the_window(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::under_way(pair, is_v6);
    let (mut next, allowed) = (101, 101 + 64_000);
    while next + 1400 < allowed + 64_000 {
        talk.client("ACK PSH", next, 101, 1400).same(1);
        next += 1400;
    }
    talk.client("ACK PSH", next, 101, 1400).decided("data that goes on beyond the window");
}

fn an_acknowledgment_of_what_was_never_sent(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::under_way(pair, is_v6);
    for ack in [102, 5_000, 1 << 30] {
        talk.client("ACK", 101, ack, 0).same(0);
        talk.backend("ACK PSH", 101, ack, 10).same(0);
    }
    talk.client("ACK", 101, 101, 0).same(1);
}

fn long_acknowledged(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::under_way(pair, is_v6);
    for ack in [-10, -60_000, -70_000, -10_000_000] {
        talk.client("ACK", 101, ack, 0).same(1);
        talk.client("ACK PSH", ack, 101, 5).same(1);
        talk.backend("ACK PSH", ack, 101, 5).same(1);
        talk.backend("ACK PSH", 101, ack, 5).same(1);
    }
    talk.client("ACK PSH", 101, 101, 100).same(1);
    talk.backend("ACK PSH", 101, 201, 100).same(1);
}

fn a_zero_window_is_probed(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::under_way(pair, is_v6);
    talk.window = 0;
    talk.backend("ACK", 101, 101, 0).same(1);
    talk.window = 64_000;
    for _ in 0..3 {
        talk.client("ACK", 101, 101, 1).same(1);
        talk.window = 0;
        talk.backend("ACK", 101, 101, 0).same(1);
        talk.window = 64_000;
    }
    talk.backend("ACK", 101, 102, 0).same(1);
    talk.client("ACK PSH", 102, 101, 1400).same(1);
}

fn keep_alives(pair: &mut Pair, is_v6: bool) {
    let mut talk = Talk::under_way(pair, is_v6);
    for len in [0, 1] {
        talk.client("ACK", 100, 101, len).same(1);
        talk.backend("ACK", 101, 101, 0).same(1);
        talk.backend("ACK", 100, 101, len).same(1);
        talk.client("ACK", 101, 101, 0).same(1);
    }
}
