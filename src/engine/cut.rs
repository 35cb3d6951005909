//! Ends flows whose backend is gone, and lets both ends know.

use super::conntrack::{Direction, FlowRef};
use super::{Engine, Instant, Outgoing};
use crate::wire::build::{self, Tcp};
use crate::wire::{Protocol, TcpFlags};

impl Engine {
    /// Ends a flow of this worker at once. The ends of a connection get a RST from each other, which waits in
    /// [`Self::outbox`]; of one by a tunnel nobody here knows what the backend has said, and the next packet of its client
    /// will be answered by another backend.
    pub fn cut(&mut self, flow: &FlowRef, now: Instant) {
        if flow.is_alive() && flow.protocol() == Protocol::TCP && !flow.is_tunnelled() {
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
