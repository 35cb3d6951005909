//! Every cell of both tables, as the requirements write them.

use super::*;

const TABLE: &str = "
| packet | NO | SS | SR | ES | FW | CW | LA | TW | CL | S2 |
|---|---|---|---|---|---|---|---|---|---|---|
| orig SYN | SS | SS | IG | IG | IG | IG | IG | SS | SS | S2 |
| orig SYN/ACK | IV | IV | SR | IV | IV | IV | IV | IV | IV | SR |
| orig FIN | IV | IV | FW | FW | LA | LA | LA | TW | CL | IV |
| orig ACK | ES | IV | ES | ES | CW | CW | TW | TW | CL | IV |
| orig RST | IV | CL | CL | CL | CL | CL | CL | CL | CL | CL |
| reply SYN | IV | S2 | IV | IV | IV | IV | IV | SS | IV | S2 |
| reply SYN/ACK | IV | SR | IG | IG | IG | IG | IG | IG | IG | SR |
| reply FIN | IV | IV | FW | FW | LA | LA | LA | TW | CL | IV |
| reply ACK | IV | IG | SR | ES | CW | CW | TW | TW | CL | IG |
| reply RST | IV | CL | CL | CL | CL | CL | CL | CL | CL | CL |
";

/// Calls `check` with packet, state and cell.
fn for_each_cell(mut check: impl FnMut(&str, &str, &str)) {
    fn cells(line: &str) -> impl Iterator<Item = &str> {
        line.trim_matches('|').split('|').map(str::trim)
    }
    let mut lines = TABLE.trim().lines();
    let states: Vec<_> = cells(lines.next().unwrap()).skip(1).collect();
    for line in lines.skip(1) {
        let row: Vec<_> = cells(line).collect();
        for (state, cell) in states.iter().zip(&row[1..]) {
            check(row[0], state, cell);
        }
    }
}

fn state(name: &str) -> State {
    match name {
        "SS" => State::SynSent,
        "S2" => State::SynSent2,
        "SR" => State::SynReceived,
        "ES" => State::Established,
        "FW" => State::FinWait,
        "CW" => State::CloseWait,
        "LA" => State::LastAck,
        "TW" => State::TimeWait,
        "CL" => State::Close,
        other => panic!("no state {other}"),
    }
}

/// A connection that has come to this state the usual way; where one side has sent a FIN, it is `first`.
fn arrived_at(state: State, first: Direction) -> Connection {
    match state {
        State::SynSent => Connection::opened(),
        State::SynSent2 => {
            let mut connection = Connection::opened();
            connection.accepts(Reply, segment(SYN, BACKEND_ISN, 0), State::SynSent2);
            connection
        }
        State::SynReceived => {
            let mut connection = Connection::opened();
            connection.accepts(Reply, segment(SYN_ACK, BACKEND_ISN, CLIENT_ISN + 1), State::SynReceived);
            connection
        }
        State::Established => Connection::established(),
        State::FinWait => Connection::half_closed_by(first),
        State::CloseWait => {
            let mut connection = arrived_at(State::FinWait, first);
            connection.accepts(first.other(), connection.polite(first.other(), ACK), State::CloseWait);
            connection
        }
        State::LastAck => {
            let mut connection = arrived_at(State::CloseWait, first);
            connection.finishes(first.other(), State::LastAck);
            connection
        }
        State::TimeWait => {
            let mut connection = arrived_at(State::LastAck, first);
            connection.accepts(first, connection.polite(first, ACK), State::TimeWait);
            connection
        }
        State::Close => {
            let mut connection = Connection::established();
            connection.accepts(first, connection.polite(first, RST), State::Close);
            connection
        }
        State::Unreplied | State::Replied | State::Assured => panic!("not of TCP"),
    }
}

/// The packet of a row as its sender would send it, in order and in the window.
fn packet(connection: &Connection, row: &str) -> (Direction, TcpSegment<'static>) {
    let (side, kind) = row.split_once(' ').unwrap();
    let side = if side == "orig" { Original } else { Reply };
    let isn = [CLIENT_ISN, BACKEND_ISN][side as usize];
    let mut segment = match kind {
        "SYN" => segment(SYN, isn, 0),
        "SYN/ACK" => segment(SYN_ACK, isn, connection.next[side.other() as usize]),
        "FIN" => connection.polite(side, FIN_ACK),
        "ACK" => connection.polite(side, ACK),
        "RST" if connection.state == State::SynSent && side == Reply => segment(RST_ACK, 0, CLIENT_ISN + 1),
        "RST" => connection.polite(side, RST),
        other => panic!("no packet {other}"),
    };
    if kind == "SYN" && connection.state == State::TimeWait {
        segment.seq += 500_000; // a new connection, not the old SYN again (R42)
    }
    (side, segment)
}

#[test]
fn every_cell_is_as_written() {
    let mut cells = 0;
    for_each_cell(|row, column, cell| {
        if column == "NO" {
            return; // the engine's to decide, see tests/engine
        }
        let from = state(column);
        let expected = match (row, column, cell) {
            ("orig SYN", "TW" | "CL", "SS") => Outcome::Reopen, // into SYN-SENT, of another flow
            ("reply SYN", "TW", "SS") => Outcome::BadState,     // a backend opens no connections through a service
            (_, _, "IV") => Outcome::BadState,
            (_, _, "IG") => Outcome::Pass,
            (_, _, to) => Outcome::Accept(state(to)),
        };
        for first in [Original, Reply] {
            let mut connection = arrived_at(from, first);
            let (side, segment) = packet(&connection, row);
            if row.ends_with("FIN") && matches!(from, State::FinWait | State::CloseWait) && side == first {
                continue; // the same FIN again: the test below
            }
            assert_eq!(connection.sees(side, segment), expected, "{row} in {column}, {first:?} closes first");
        }
        cells += 1;
    });
    assert_eq!(cells, 90);
}

/// R54, and the table's last row.
#[test]
fn flags_that_no_tcp_sends_fit_no_state() {
    let valid = [SYN, SYN_ACK, FIN_ACK, ACK, RST, RST_ACK];
    for bits in (0..=255).map(TcpFlags).filter(|f| !valid.contains(&TcpFlags(f.0 & 0x17))) {
        for name in ["SS", "S2", "SR", "ES", "FW", "CW", "LA", "TW", "CL"] {
            for side in [Original, Reply] {
                let mut connection = arrived_at(state(name), Original);
                let segment = connection.polite(side, bits);
                assert_eq!(connection.sees(side, segment), Outcome::BadState, "{bits} in {name}");
            }
        }
    }
}

/// Whatever comes again leaves the state as it is.
#[test]
fn r42_a_retransmission_changes_no_state() {
    for first in [Original, Reply] {
        for repetitions in [1, 3] {
            let mut connection = Connection::opened();
            let mut seen = vec![(Original, segment(SYN, CLIENT_ISN, 0))];
            let mut goes_on = |connection: &mut Connection, side, segment: TcpSegment<'static>, then| {
                connection.accepts(side, segment, then);
                seen.push((side, segment));
                for (side, again) in seen.repeat(repetitions) {
                    let outcome = connection.sees(side, again);
                    assert!(
                        matches!(outcome, Outcome::Accept(_) | Outcome::Pass),
                        "{again:?} in {then:?}: {outcome:?}"
                    );
                    assert_eq!(connection.state, then, "after {again:?} again");
                }
            };
            goes_on(&mut connection, Reply, segment(SYN_ACK, BACKEND_ISN, CLIENT_ISN + 1), State::SynReceived);
            let ack = connection.polite(Original, ACK);
            goes_on(&mut connection, Original, ack, State::Established);
            let request = data(CLIENT_ISN + 1, BACKEND_ISN + 1, 100);
            goes_on(&mut connection, Original, request, State::Established);
            connection.next[0] += 100;
            let answer = data(BACKEND_ISN + 1, CLIENT_ISN + 101, 1_000);
            goes_on(&mut connection, Reply, answer, State::Established);
            connection.next[1] += 1_000;
            let fin = connection.polite(first, FIN_ACK);
            connection.accepts(first, fin, State::FinWait);
            connection.accepts(first, fin, State::FinWait);
        }
    }
}

/// A side that has sent its FIN may have to send it again, and the other may still answer for hours (R50).
#[test]
fn r42_r50_a_fin_again_is_not_the_other_sides_fin() {
    for first in [Original, Reply] {
        let mut connection = Connection::half_closed_by(first);
        let fin = TcpSegment { seq: connection.next[first as usize] - 1, ..connection.polite(first, FIN_ACK) };
        connection.accepts(first, fin, State::FinWait);
        connection.accepts(first.other(), connection.polite(first.other(), ACK), State::CloseWait);
        connection.accepts(first, fin, State::CloseWait);
        connection.transfers(first.other(), 10_000);
        connection.accepts(first, fin, State::CloseWait);
        connection.finishes(first.other(), State::LastAck);
        connection.accepts(first, fin, State::LastAck);
    }
}

#[test]
fn r41_simultaneous_open_ends_established() {
    for backends_answer_first in [false, true] {
        let mut connection = Connection::opened();
        connection.accepts(Reply, segment(SYN, BACKEND_ISN, 0), State::SynSent2);
        let answers = [
            (Original, segment(SYN_ACK, CLIENT_ISN, BACKEND_ISN + 1)),
            (Reply, segment(SYN_ACK, BACKEND_ISN, CLIENT_ISN + 1)),
        ];
        let [first, second] = if backends_answer_first { [answers[1], answers[0]] } else { answers };
        connection.accepts(first.0, first.1, State::SynReceived);
        let outcome = connection.sees(second.0, second.1);
        assert!(matches!(outcome, Outcome::Pass | Outcome::Accept(State::SynReceived)), "{outcome:?}");
        connection.accepts(Reply, connection.polite(Reply, ACK), State::Established);
        connection.transfers(Original, 1_000);
        connection.transfers(Reply, 1_000);
    }
}
