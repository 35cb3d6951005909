//! Connections that were not followed from their beginning: the other gateway of a pair did, and told what it knew when
//! their state last changed. Where the two ends have got to since then, their next segments tell.
//!
//! As nf_conntrack does with a connection that it picks up, nothing is dropped because of its windows; and the ends are
//! believed as far as those windows go that they show by what they send. Who may forge a segment of such a connection can
//! have it forwarded, as from any router; he cannot end it: a RST has to be exact, a FIN inside a window that is known.

use super::super::window::Side;
use super::{Kind, Outcome, Tracker};
use crate::engine::conntrack::{Direction, State};
use crate::wire::{TcpFlags, TcpSegment};

impl Tracker {
    /// What to know of a connection in this state on the other gateway. While it is opened all is exact: neither end has
    /// got any further. Later only what does not change with every segment.
    pub(in crate::engine::conntrack) fn for_peer(mut self, state: State) -> Self {
        if !matches!(state, State::SynSent | State::SynSent2) {
            self.sides = self.sides.map(|side| side.somewhere());
            self.adopted = true;
        }
        self
    }

    /// Whether a segment that does not fit is right, and what is known is not.
    pub(super) fn takes_up(&self, direction: Direction, kind: Kind) -> bool {
        self.adopted && (kind == Kind::Ack || self.sides[direction as usize].is_unknown())
    }

    /// Goes on from a segment that was not expected there.
    pub(super) fn take_up(
        &mut self,
        from: State,
        to: State,
        direction: Direction,
        segment: &TcpSegment<'_>,
    ) -> Outcome {
        let [client, backend] = &mut self.sides;
        let (sender, receiver) = match direction {
            Direction::Original => (client, backend),
            Direction::Reply => (backend, client),
        };
        let repeated_fin = segment.flags.has(TcpFlags::FIN) && sender.has_finished();
        Side::take_up(sender, receiver, segment);
        let half_closed = matches!(from, State::FinWait | State::CloseWait);
        Outcome::Accept(if repeated_fin && half_closed { from } else { to })
    }
}
