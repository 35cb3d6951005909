//! A connection in the hands of a test: its tracker, its state, and segments that a client and a backend would send.

mod conversation;
mod host;
mod reset;
mod table;
mod window;

use super::*;
use Direction::{Original, Reply};

const CLIENT_ISN: u32 = 1_000;
const BACKEND_ISN: u32 = 50_000;

const SYN: TcpFlags = TcpFlags::SYN;
const ACK: TcpFlags = TcpFlags::ACK;
const RST: TcpFlags = TcpFlags::RST;
const SYN_ACK: TcpFlags = TcpFlags(TcpFlags::SYN.0 | TcpFlags::ACK.0);
const FIN_ACK: TcpFlags = TcpFlags(TcpFlags::FIN.0 | TcpFlags::ACK.0);
const RST_ACK: TcpFlags = TcpFlags(TcpFlags::RST.0 | TcpFlags::ACK.0);

/// A segment without payload or options; a window of 60,000.
fn segment(flags: TcpFlags, seq: u32, ack: u32) -> TcpSegment<'static> {
    TcpSegment { seq, ack, window: 60_000, flags, options: &[], payload_len: 0 }
}

fn data(seq: u32, ack: u32, len: u32) -> TcpSegment<'static> {
    TcpSegment { payload_len: len, ..segment(ACK, seq, ack) }
}

/// Has a tracker judge a segment; and the cell, with its shortcut for ACKs, must come to the same.
fn step(tracker: &mut Tracker, state: State, side: Direction, segment: &TcpSegment<'_>) -> Outcome {
    let cell = TrackerCell::default();
    cell.store(tracker);
    let outcome = tracker.step(state, side, segment);
    if state == State::Established && segment.flags.is_plain_ack() {
        let shortcut = TrackerCell::default();
        shortcut.store(&cell.load());
        let expected = match outcome {
            Outcome::Accept(State::Established) => Fit::Inside,
            Outcome::Pass => Fit::Old,
            Outcome::Accept(_) | Outcome::Reopen | Outcome::BadState | Outcome::BadWindow => Fit::Outside,
        };
        let fit = shortcut.slide(side, segment);
        assert!(fit == Some(expected) || (fit.is_none() && tracker.adopted));
        if fit.is_some() && expected == Fit::Inside {
            assert_eq!(shortcut.load(), *tracker);
        }
    }
    assert_eq!(cell.step(state, side, segment), outcome);
    if matches!(outcome, Outcome::Accept(_) | Outcome::Pass) {
        assert_eq!(cell.load(), *tracker);
    }
    outcome
}

/// What each side of a polite conversation would say next.
#[derive(Clone, Copy, Debug)]
struct Connection {
    tracker: Tracker,
    state: State,
    /// Next sequence numbers of client and backend.
    next: [u32; 2],
}

impl Connection {
    /// After the client's SYN.
    fn opened() -> Self {
        let next = [CLIENT_ISN + 1, BACKEND_ISN + 1];
        Self { tracker: Tracker::open(&segment(SYN, CLIENT_ISN, 0)), state: State::SynSent, next }
    }

    /// After the three-way handshake.
    fn established() -> Self {
        let mut this = Self::opened();
        this.accepts(Reply, segment(SYN_ACK, BACKEND_ISN, CLIENT_ISN + 1), State::SynReceived);
        this.accepts(Original, this.polite(Original, ACK), State::Established);
        this
    }

    /// After a FIN of this side.
    fn half_closed_by(side: Direction) -> Self {
        let mut this = Self::established();
        this.finishes(side, State::FinWait);
        this
    }

    fn finishes(&mut self, side: Direction, then: State) {
        self.accepts(side, self.polite(side, FIN_ACK), then);
        self.next[side as usize] += 1;
    }

    /// The segment with these flags that this side would send now.
    fn polite(&self, side: Direction, flags: TcpFlags) -> TcpSegment<'static> {
        segment(flags, self.next[side as usize], self.next[side.other() as usize])
    }

    fn sees(&mut self, side: Direction, segment: TcpSegment<'_>) -> Outcome {
        let outcome = step(&mut self.tracker, self.state, side, &segment);
        if let Outcome::Accept(state) = outcome {
            self.state = state;
        }
        outcome
    }

    #[track_caller]
    fn accepts(&mut self, side: Direction, segment: TcpSegment<'_>, then: State) {
        assert_eq!(self.sees(side, segment), Outcome::Accept(then), "{segment:?}");
    }

    #[track_caller]
    fn passes(&mut self, side: Direction, segment: TcpSegment<'_>) {
        assert_eq!(self.sees(side, segment), Outcome::Pass, "{segment:?}");
    }

    #[track_caller]
    fn refuses(&mut self, side: Direction, segment: TcpSegment<'_>) {
        assert_eq!(self.sees(side, segment), Outcome::BadWindow, "{segment:?}");
    }

    /// This side sends bytes, and the other acknowledges them.
    fn transfers(&mut self, side: Direction, len: u32) {
        let sent = data(self.next[side as usize], self.next[side.other() as usize], len);
        self.accepts(side, sent, self.state);
        self.next[side as usize] = self.next[side as usize].wrapping_add(len);
        self.accepts(side.other(), self.polite(side.other(), ACK), self.state);
    }
}

/// A cell gives back the tracker it was given, whatever that remembers.
#[test]
fn a_stored_tracker_is_the_same_when_loaded() {
    let mut seen = Vec::new();
    let mut connection = Connection::opened();
    seen.push(connection.tracker);
    connection.passes(Reply, segment(ACK, 7, 8));
    seen.push(connection.tracker);
    let options = [3, 3, 14, 4, 2, 0, 0, 0];
    let mut connection = Connection::half_closed_by(Reply);
    connection.finishes(Original, State::LastAck);
    connection.passes(Original, TcpSegment { options: &options, ..segment(SYN, 0xffff_fff0, 0) });
    seen.push(connection.tracker);
    let mut connection = Connection::opened();
    connection.accepts(Reply, segment(SYN, BACKEND_ISN, 0), State::SynSent2);
    seen.push(connection.tracker);
    for tracker in seen {
        let cell = TrackerCell::default();
        cell.store(&tracker);
        assert_eq!(cell.load(), tracker);
    }
}
