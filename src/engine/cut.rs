//! Ends flows whose backend is gone, so that their clients find another.

use super::conntrack::{Direction, FlowRef, State};
use super::{Engine, Instant, Outgoing};
use crate::config::OnDown;
use crate::wire::build::{self, Tcp};
use crate::wire::{Protocol, TcpFlags};

impl Engine {
    /// Ends a flow of this worker whose backend is down. One without a connection goes to another backend with its next
    /// packet; so does a connection that was not answered yet, when its client repeats the SYN: to reset it would only keep
    /// the client from that. Others end with [`OnDown::Reset`] alone. Their ends get a RST from each other, which waits in
    /// [`Self::outbox`]; of one by a tunnel nobody here knows what the backend has said, and the next packet of its client
    /// will be answered by another backend.
    pub fn cut(&mut self, flow: &FlowRef, on_down: OnDown, now: Instant) {
        let is_connection = flow.protocol() == Protocol::TCP && flow.state() != State::SynSent;
        if is_connection && on_down == OnDown::Keep {
            return;
        }
        if flow.is_alive() && is_connection && !flow.is_tunnelled() {
            for to in [Direction::Original, Direction::Reply] {
                let packet = reset(flow, to);
                let cause = self.in_hand();
                self.outbox.push(Outgoing { cause, packet });
            }
        }
        self.close(flow, now);
    }
}

/// To the sender of this direction. If it has not got all that was sent to it, the number is not the one that it expects;
/// then it asks (RFC 5961 3.2), and the answer to that, from a gateway that knows no such flow, is right.
fn reset(flow: &FlowRef, to: Direction) -> Vec<u8> {
    let way = flow.key(to).invert();
    let (seq, ack) = flow.expects(to);
    let flags = TcpFlags(TcpFlags::RST.0 | TcpFlags::ACK.0);
    build::tcp(way.source, way.destination, &Tcp { seq, ack, flags, ..Tcp::default() })
}
