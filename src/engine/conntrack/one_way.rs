//! The tracker for connections of which only the client's half passes here: the backend answers past us.
//!
//! The states are the client's alone, after IPVS' input-only table. Nothing can be checked against what the backend has
//! said, so nothing that a client says may do harm: a FIN leaves room for an answer as long as ACKs keep coming. A RST is
//! believed near the place that the client has reached, and nowhere else: it may be anybody's, and the next segment of an
//! idle connection that is forgotten goes where the scheduler sends it. What it has closed is open again for whoever
//! goes on.

use super::state::State;
use super::tcp::Outcome;
use crate::wire::{TcpFlags, TcpSegment};

/// How far from where a client is known to be its segments are believed: more than is lost before it gets here, and
/// little enough for one in two thousand blind guesses.
const NEAR: u32 = 1 << 20;

/// State of a flow that begins with this segment: one with a SYN, or one of the middle, whose flow was known to another
/// gateway, or to this one before it was restarted. Such a one may be evicted until it goes on.
pub(super) fn begin(flags: TcpFlags) -> State {
    if flags.has(TcpFlags::SYN) {
        State::SynSent
    } else if flags.has(TcpFlags::RST) {
        State::Close
    } else if flags.has(TcpFlags::FIN) {
        State::FinWait
    } else {
        State::SynReceived
    }
}

/// Judges the segment of a client that is known to have reached this place of its sequence space.
#[inline]
pub(super) fn step(state: State, segment: &TcpSegment<'_>, reached: u32) -> Outcome {
    let flags = segment.flags;
    if !flags.valid() || (flags.has(TcpFlags::SYN) && flags.has(TcpFlags::ACK)) {
        return Outcome::BadState;
    }
    if flags.has(TcpFlags::RST) {
        let near = segment.seq.wrapping_sub(reached).wrapping_add(NEAR) <= 2 * NEAR;
        return if near { Outcome::Accept(State::Close) } else { Outcome::Pass };
    }
    if flags.has(TcpFlags::SYN) {
        // Over: it begins anew. In use: the backend knows whether it is an old duplicate (RFC 5961 4). Else it is the SYN
        // or the client's port again: the same backend, whether or not it has closed meanwhile.
        return if state == State::Close {
            Outcome::Reopen
        } else if state == State::Established {
            Outcome::Pass
        } else {
            Outcome::Accept(State::SynSent)
        };
    }
    Outcome::Accept(match (state, flags.has(TcpFlags::FIN)) {
        (State::Close, true) => State::Close,
        (State::Close, false) => State::SynReceived,
        (_, true) | (State::FinWait, false) => State::FinWait,
        (_, false) => State::Established,
    })
}

/// What the client has reached with a segment that was accepted; `None` if that lies out of nowhere.
#[inline]
pub(super) fn reach(segment: &TcpSegment<'_>, reached: u32) -> Option<u32> {
    let end = segment.seq.wrapping_add(segment.seq_len());
    let anew = segment.flags.has(TcpFlags::SYN);
    let ahead = end.wrapping_sub(reached);
    if anew || ahead <= NEAR {
        Some(end)
    } else if ahead.wrapping_neg() <= NEAR {
        Some(reached) // sent again
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYN: TcpFlags = TcpFlags::SYN;
    const ACK: TcpFlags = TcpFlags::ACK;
    const FIN: TcpFlags = TcpFlags(TcpFlags::FIN.0 | TcpFlags::ACK.0);
    const RST: TcpFlags = TcpFlags::RST;

    fn segment(flags: TcpFlags, seq: u32) -> TcpSegment<'static> {
        TcpSegment { seq, ack: 0, window: 0, flags, options: &[], payload_len: 0 }
    }

    /// Where a connection stands after these segments, all at the same place.
    #[track_caller]
    fn after(segments: &[TcpFlags]) -> State {
        let (first, rest) = segments.split_first().unwrap();
        rest.iter().fold(begin(*first), |state, flags| match step(state, &segment(*flags, 7), 7) {
            Outcome::Accept(state) => state,
            Outcome::Pass => state,
            other @ (Outcome::Reopen | Outcome::BadState | Outcome::BadWindow) => {
                panic!("{other:?} to {flags:?} in {state:?}")
            }
        })
    }

    #[test]
    fn a_connection_lives_from_its_syn_to_long_after_its_fin() {
        assert_eq!(after(&[SYN]), State::SynSent);
        assert_eq!(after(&[SYN, SYN]), State::SynSent);
        assert_eq!(after(&[SYN, ACK]), State::Established);
        assert_eq!(after(&[SYN, ACK, FIN]), State::FinWait);
        assert_eq!(after(&[SYN, ACK, FIN, ACK, ACK, FIN, ACK]), State::FinWait);
        assert_eq!(after(&[SYN, ACK, FIN, SYN, ACK]), State::Established, "the port again");
    }

    #[test]
    fn what_begins_in_the_middle_is_in_use_once_it_goes_on() {
        assert_eq!(after(&[ACK]), State::SynReceived);
        assert_eq!(after(&[ACK, ACK]), State::Established);
        assert_eq!(after(&[FIN]), State::FinWait);
        assert_eq!(after(&[RST]), State::Close);
    }

    #[test]
    fn a_forged_rst_or_syn_ends_nothing() {
        assert_eq!(after(&[SYN, ACK, RST]), State::Close);
        assert_eq!(after(&[SYN, ACK, RST, ACK, ACK]), State::Established);
        assert_eq!(after(&[SYN, ACK, SYN]), State::Established);
        assert_eq!(step(State::Close, &segment(SYN, 7), 7), Outcome::Reopen);
    }

    #[test]
    fn a_rst_is_believed_near_the_place_that_the_client_has_reached() {
        for reached in [0, 7, u32::MAX - 5] {
            for (from_there, outcome) in [
                (0, Outcome::Accept(State::Close)),
                (NEAR, Outcome::Accept(State::Close)),
                (NEAR.wrapping_neg(), Outcome::Accept(State::Close)),
                (NEAR + 1, Outcome::Pass),
                ((NEAR + 1).wrapping_neg(), Outcome::Pass),
                (1 << 31, Outcome::Pass),
            ] {
                let rst = segment(RST, reached.wrapping_add(from_there));
                assert_eq!(step(State::Established, &rst, reached), outcome, "{from_there} from {reached}");
            }
        }
    }

    #[test]
    fn a_client_reaches_what_it_sends_and_no_forger_moves_it_far() {
        let data = |seq, payload_len| TcpSegment { payload_len, ..segment(ACK, seq) };
        assert_eq!(reach(&segment(SYN, 1 << 30), 7), Some((1 << 30) + 1), "a SYN begins anew");
        assert_eq!(reach(&data(7, 1460), 7), Some(1467));
        assert_eq!(reach(&data(7, 10), 1467), Some(1467), "sent again");
        assert_eq!(reach(&data(u32::MAX, 2), u32::MAX), Some(1));
        assert_eq!(reach(&data(1 << 30, 1), 7), None, "out of nowhere");
    }

    #[test]
    fn no_client_sends_a_syn_ack_or_nonsense() {
        for state in [State::SynSent, State::Established, State::Close] {
            for flags in [0x12, 0x00, 0x03, 0x3f] {
                assert_eq!(step(state, &segment(TcpFlags(flags), 7), 7), Outcome::BadState);
            }
        }
    }
}
