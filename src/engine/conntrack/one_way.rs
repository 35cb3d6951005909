//! The tracker for connections of which only the client's half passes here: the backend answers past us.
//!
//! The states are the client's alone, after IPVS' input-only table. Nothing can be checked against what the backend has
//! said, so nothing that a client says may do harm: a FIN leaves room for an answer as long as ACKs keep coming, and what
//! a RST has closed is open again for whoever goes on, since the RST may have been anybody's.

use super::state::State;
use super::tcp::Outcome;
use crate::wire::TcpFlags;

/// State of a flow that begins with this segment: one with a SYN, or one of the middle, whose flow was known to another
/// gateway, or to this one before it was restarted. Such a one may be evicted until it goes on.
pub fn begin(flags: TcpFlags) -> State {
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

/// Judges a client's segment.
#[inline]
pub fn step(state: State, flags: TcpFlags) -> Outcome {
    if !flags.valid() || (flags.has(TcpFlags::SYN) && flags.has(TcpFlags::ACK)) {
        return Outcome::BadState;
    }
    if flags.has(TcpFlags::RST) {
        return Outcome::Accept(State::Close);
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

#[cfg(test)]
mod tests {
    use super::*;

    const SYN: TcpFlags = TcpFlags::SYN;
    const ACK: TcpFlags = TcpFlags::ACK;
    const FIN: TcpFlags = TcpFlags(TcpFlags::FIN.0 | TcpFlags::ACK.0);
    const RST: TcpFlags = TcpFlags::RST;

    /// Where a connection stands after these segments.
    #[track_caller]
    fn after(segments: &[TcpFlags]) -> State {
        let (first, rest) = segments.split_first().unwrap();
        rest.iter().fold(begin(*first), |state, flags| match step(state, *flags) {
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
        assert_eq!(step(State::Close, SYN), Outcome::Reopen);
    }

    #[test]
    fn no_client_sends_a_syn_ack_or_nonsense() {
        for state in [State::SynSent, State::Established, State::Close] {
            for flags in [0x12, 0x00, 0x03, 0x3f] {
                assert_eq!(step(state, TcpFlags(flags)), Outcome::BadState);
            }
        }
    }
}
