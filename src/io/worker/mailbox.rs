//! What others may want of a worker, while it runs.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use crossbeam_queue::{ArrayQueue, SegQueue};

use crate::config::OnDown;
use crate::engine::conntrack::FlowRef;
use crate::io::copying::Again;
use crate::io::sys::Waker;

/// Packets that may wait for a worker that did not receive them itself.
const HANDOFF_SLOTS: usize = 1024;
/// Packets of the gateway itself that may wait for a worker to send them.
const OWN_SLOTS: usize = 1024;

/// Wishes, and a bell to wake the worker by.
#[derive(Debug)]
pub struct Mailbox {
    /// Packets of its flows that came to others.
    pub(super) handed: ArrayQueue<Vec<u8>>,
    /// Flows it shall end.
    pub(super) doomed: SegQueue<FlowRef>,
    /// Flows of backends that are down.
    pub(super) cut: SegQueue<(FlowRef, OnDown)>,
    /// Flows it shall tell the peer of once more.
    pub(super) again: SegQueue<Again>,
    /// Packets of the gateway itself, as they are to leave.
    pub(super) own: ArrayQueue<Vec<u8>>,
    /// Wakes whoever listens to what the engine has heard.
    listener: OnceLock<Arc<mio::Waker>>,
    pub(super) stop: AtomicBool,
    pub(super) waker: Waker,
}

impl Mailbox {
    /// An empty one.
    ///
    /// # Errors
    /// No file descriptor left for its waker.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            handed: ArrayQueue::new(HANDOFF_SLOTS),
            doomed: SegQueue::new(),
            cut: SegQueue::new(),
            again: SegQueue::new(),
            own: ArrayQueue::new(OWN_SLOTS),
            listener: OnceLock::new(),
            stop: AtomicBool::new(false),
            waker: Waker::new()?,
        })
    }

    /// Has the worker end a flow of its own.
    pub fn end_flow(&self, flow: FlowRef) {
        self.doomed.push(flow);
        self.waker.wake();
    }

    /// Has the worker [cut](crate::engine::Engine::cut) a flow of its own, whose backend is down.
    pub fn cut_flow(&self, flow: FlowRef, on_down: OnDown) {
        self.cut.push((flow, on_down));
        self.waker.wake();
    }

    /// Has the worker tell the peer of a flow of its own once more, in its own time.
    pub fn tell_again(&self, again: Again) {
        let is_last = matches!(again, Again::Last(_));
        self.again.push(again);
        if is_last {
            self.waker.wake();
        }
    }

    /// Has the worker look whether there is another policy.
    pub fn wake(&self) {
        self.waker.wake();
    }

    /// Has the worker send a packet of the gateway itself. One for which there is no place is lost, as on any network.
    pub fn send(&self, packet: Vec<u8>) {
        if self.own.push(packet).is_ok() {
            self.waker.wake();
        }
    }

    /// Has the worker decide about a packet that came elsewhere, offload header in front. One for which there is no place
    /// is lost.
    pub fn hand(&self, packet: Vec<u8>) {
        if self.handed.push(packet).is_ok() {
            self.waker.wake();
        }
    }

    /// Has this woken when the engine has [heard](crate::engine::Heard) something.
    pub fn set_listener(&self, listener: Arc<mio::Waker>) {
        // Whoever listens does so from the start of the worker to its end.
        let _ = self.listener.set(listener);
    }

    pub(super) fn tell_listener(&self) {
        if let Some(listener) = self.listener.get() {
            // An eventfd refuses only what would overflow it.
            let _ = listener.wake();
        }
    }

    /// Has the worker return after the batch in hand.
    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
        self.waker.wake();
    }
}
