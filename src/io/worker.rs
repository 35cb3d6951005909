//! A packet worker: one thread, one port, one engine.

use std::io;
use std::iter;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use crossbeam_queue::{ArrayQueue, SegQueue};

use super::copying::{Again, Copying, Waiting};
use super::duty::{Duty, Order, Watch};
use super::gather::Gather;
use super::lanes::WorkerLane;
use super::port::{Batch, Frame, PacketPort, Sent};
use super::sys::{self, Waker};
use super::words::in_words;
use crate::config::OnDown;
use crate::engine::conntrack::FlowRef;
use crate::engine::{DropReason, Engine, Instant, NoTrace, Outgoing, Verdict, WorkerId};
use crate::wire::gather::Part;
use crate::wire::tunnel::{self, Scratch};
use crate::wire::{OFFLOAD_LEN, Offload, Packet};

/// Packets that may wait for a worker that did not receive them itself.
const HANDOFF_SLOTS: usize = 1024;
/// Packets of the gateway itself that may wait for a worker to send them.
const OWN_SLOTS: usize = 1024;
/// How long a worker that has just had a packet looks for the next one before it sleeps, giving way to whoever wants
/// the CPU: bulk TCP comes in bursts some microseconds apart, and to be woken for each costs a third of its speed.
const LINGER: Duration = Duration::from_micros(20);
/// How often a busy worker looks for flows whose time is over.
const TIMEOUT_INTERVAL: Duration = Duration::from_millis(50);

/// What others may want of a worker, while it runs.
#[derive(Debug)]
pub struct Mailbox {
    /// Packets of its flows that came to others.
    handed: ArrayQueue<Vec<u8>>,
    /// Flows it shall end.
    doomed: SegQueue<FlowRef>,
    /// Flows of backends that are down.
    cut: SegQueue<(FlowRef, OnDown)>,
    /// Flows it shall tell the peer of once more.
    again: SegQueue<Again>,
    /// Packets of the gateway itself, as they are to leave.
    own: ArrayQueue<Vec<u8>>,
    /// Wakes whoever listens to what the engine has heard.
    listener: OnceLock<Arc<mio::Waker>>,
    stop: AtomicBool,
    waker: Waker,
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

    /// Has the worker [cut](Engine::cut) a flow of its own, whose backend is down.
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

    fn tell_listener(&self) {
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

/// One worker's thread-to-be.
#[derive(Debug)]
pub struct Worker<P> {
    id: WorkerId,
    port: P,
    engine: Engine,
    mailboxes: Arc<[Mailbox]>,
    batch: Batch,
    gather: Gather,
    /// Where packets are wrapped for their tunnels.
    wrapping: Scratch,
    next_timeout: Instant,
    /// If this is a gateway of a pair.
    watch: Option<Watch>,
    copying: Option<Copying>,
    /// It is the other one that forwards: nothing is due here.
    passive: bool,
}

impl<P: PacketPort> Worker<P> {
    /// A worker on this port; `mailboxes` are all workers', its own included.
    pub fn new(id: WorkerId, port: P, engine: Engine, mailboxes: Arc<[Mailbox]>) -> Self {
        let (batch, gather, wrapping) = (Batch::default(), Gather::new(port.takes()), Scratch::default());
        let next_timeout = Instant::ZERO;
        Self {
            id,
            port,
            engine,
            mailboxes,
            batch,
            gather,
            wrapping,
            next_timeout,
            watch: None,
            copying: None,
            passive: false,
        }
    }

    /// Does only what the pair calls for.
    #[must_use]
    pub fn on_duty(mut self, duty: Arc<Duty>, lane: WorkerLane) -> Self {
        self.engine.pair();
        let (watch, copying) = (Some(Watch::new(duty, self.id, sys::now())), Some(Copying::new(lane)));
        Self { watch, copying, ..self }
    }

    /// Serves until it is told to stop.
    ///
    /// # Errors
    /// The port is gone or broken.
    pub fn run(mut self) -> io::Result<()> {
        if self.watch.is_some() {
            // It is asked for a sign of life two hundred times a second. Where this is refused, it may be late.
            let _ = sys::become_important();
        }
        let mut woke = sys::now();
        let mut last_packet = woke;
        while !self.mailbox().stop.load(Relaxed) {
            self.batch.clear();
            let now = self.port.receive(&mut self.batch)?;
            self.engine.adopt();
            let full = self.batch.is_full();
            let order = self.watch.as_mut().map_or(Order::Forward, |watch| watch.order(now, full));
            self.passive = order != Order::Forward;
            let more = match order {
                Order::Forward => {
                    let copies = self.lead(now);
                    self.handle_batch(now);
                    let more = self.handle_mail(now);
                    self.handle_timeouts(now) || more || copies
                }
                Order::Discard | Order::Flush | Order::Relay => {
                    self.pass_over(order, now);
                    self.follow(order, now) || full
                }
            };
            self.tell(now);
            if more {
                continue;
            }
            if !self.batch.is_empty() {
                last_packet = now;
            } else if now.since(last_packet) < LINGER {
                thread::yield_now();
            } else {
                self.engine.counters().busy_micros.add(micros(now.since(woke)));
                self.sleep(now)?;
                woke = sys::now();
            }
        }
        Ok(())
    }

    fn handle_batch(&mut self, now: Instant) {
        if self.batch.is_empty() {
            return;
        }
        self.engine.counters().batches.add(1);
        self.engine.foresee(self.batch.packets(), sys::prefetch);
        for n in 0..self.batch.len() {
            let mut frame = self.batch.frame(n);
            let Self { engine, port, wrapping, mailboxes, copying, .. } = self;
            let leaves = process(&mut frame, Way { engine, port, wrapping, mailboxes, copying: copying.as_mut() }, now);
            if let Some(Leaving { len, part }) = leaves {
                self.batch.shorten(n, len);
                self.gather.add(&self.batch, n, part);
            }
            if self.engine.has_mail() {
                // What this packet has set free follows it.
                self.send_gathered();
                send_own(&mut self.engine, &mut self.port);
            }
        }
        self.send_gathered();
    }

    #[inline]
    fn send_gathered(&mut self) {
        let Self { engine, batch, port, gather, .. } = self;
        gather.send(batch, port, |len, sent| count_sent(engine, &sent, len));
    }

    /// Before flows are decided about: those that are known of the other one's are here; true if there may be more to do.
    fn lead(&mut self, now: Instant) -> bool {
        let again = &self.mailboxes[usize::from(self.id.0)].again;
        self.copying.as_mut().is_some_and(|copying| copying.lead(&mut self.engine, || again.pop(), now))
    }

    /// What the other one has decided is so here, too; true if there may be more of it.
    fn follow(&mut self, order: Order, now: Instant) -> bool {
        let follows = matches!(order, Order::Discard | Order::Relay);
        self.copying.as_mut().filter(|_| follows).is_some_and(|copying| copying.follow(&mut self.engine, now))
    }

    /// Tells the other one what was decided, and sends what had to wait for it.
    fn tell(&mut self, now: Instant) {
        let (Some(copying), Some(watch)) = (&mut self.copying, &self.watch) else { return };
        if self.engine.has_news() {
            copying.tell(&mut self.engine);
        }
        if copying.has_told() {
            watch.duty().heart().wake();
        }
        while let Some(waiting) = copying.release(now) {
            send_waiting(waiting, &self.engine, &mut self.port);
        }
    }

    /// What came is not for this gateway to decide about. No flow's time ends meanwhile: that is the other one's to say.
    fn pass_over(&mut self, order: Order, now: Instant) {
        for n in 0..self.batch.len() {
            let frame = self.batch.frame(n);
            let len = frame.bytes().len();
            let taken = order == Order::Relay
                && self.watch.as_ref().is_some_and(|watch| watch.duty().hand_to_peer(frame.as_received().to_vec()));
            let verdict = match order {
                Order::Relay if taken => Verdict::Consume,
                Order::Flush => Verdict::Drop(DropReason::HeldUp),
                Order::Forward | Order::Discard | Order::Relay => Verdict::Drop(DropReason::NotActive),
            };
            self.engine.pass_over(verdict, len);
        }
        let mailbox = &self.mailboxes[usize::from(self.id.0)];
        // Packets of the gateway itself have its addresses, too, and those handed over are as old as those that came.
        while mailbox.own.pop().is_some() {}
        while let Some(mut packet) = mailbox.handed.pop() {
            let len = Frame::new(&mut packet).bytes().len();
            self.engine.pass_over(Verdict::Drop(DropReason::NotActive), len);
        }
        let cut = || mailbox.cut.pop().map(|(flow, _)| flow);
        for flow in iter::from_fn(|| mailbox.doomed.pop().or_else(cut)) {
            self.engine.close(&flow, now);
        }
    }

    /// Packets handed over by other workers, and flows to be ended; true if there may be more.
    fn handle_mail(&mut self, now: Instant) -> bool {
        let mailbox = &self.mailboxes[usize::from(self.id.0)];
        while let Some(flow) = mailbox.doomed.pop() {
            self.engine.close(&flow, now);
        }
        while let Some((flow, on_down)) = mailbox.cut.pop() {
            self.engine.cut(&flow, on_down, now);
        }
        if self.engine.has_mail() {
            send_own(&mut self.engine, &mut self.port);
        }
        while let Some(packet) = mailbox.own.pop() {
            match self.port.send_pieces([&packet, &[]]) {
                Ok(()) => self.engine.counters().sent.count(packet.len()),
                Err(error) => log::debug!("a health check could not be sent: {}", in_words(&error)),
            }
        }
        for _ in 0..64 {
            let Some(mut bytes) = mailbox.handed.pop() else { return false };
            let mut frame = Frame::new(&mut bytes);
            let way = Way {
                engine: &mut self.engine,
                port: &mut self.port,
                wrapping: &mut self.wrapping,
                mailboxes: &self.mailboxes,
                copying: self.copying.as_mut(),
            };
            let leaves = process(&mut frame, way, now);
            if let Some(Leaving { len, .. }) = leaves {
                count_sent(&self.engine, &self.port.send(&mut bytes[..OFFLOAD_LEN + len]), len);
            }
            if self.engine.has_mail() {
                send_own(&mut self.engine, &mut self.port);
            }
        }
        true
    }

    fn handle_timeouts(&mut self, now: Instant) -> bool {
        if now < self.next_timeout {
            return false;
        }
        let more = self.engine.handle_timeout(now);
        if !more {
            self.next_timeout = now + TIMEOUT_INTERVAL;
        }
        more
    }

    /// Waits for a packet, for mail, or for a flow's time to be over.
    fn sleep(&mut self, now: Instant) -> io::Result<()> {
        let due = self.engine.poll_timeout().filter(|_| !self.passive);
        let told = self.copying.as_ref().filter(|_| !self.passive).and_then(Copying::poll_timeout);
        let told = told.map(|at| at.since(now));
        let timeout = due.map(|at| at.max(self.next_timeout).since(now)).into_iter().chain(told).min();
        self.port.wait(&self.mailboxes[usize::from(self.id.0)].waker, timeout)
    }

    fn mailbox(&self) -> &Mailbox {
        &self.mailboxes[usize::from(self.id.0)]
    }
}

/// A packet that is to leave, sealed.
struct Leaving {
    /// Bytes of it.
    len: usize,
    part: Option<Part>,
}

/// What a packet passes.
struct Way<'a, P> {
    engine: &'a mut Engine,
    port: &'a mut P,
    wrapping: &'a mut Scratch,
    mailboxes: &'a [Mailbox],
    copying: Option<&'a mut Copying>,
}

/// Takes one packet through the engine and does what the verdict says, but for sending: what is to be forwarded, and what
/// the engine has to say itself.
#[inline]
fn process<P: PacketPort>(frame: &mut Frame<'_>, way: Way<'_, P>, now: Instant) -> Option<Leaving> {
    let Way { engine, port, wrapping, mailboxes, mut copying } = way;
    let mut leaves = None;
    let (verdict, len, offload) = match frame.packet() {
        Ok(mut packet) => {
            let verdict = engine.handle(&mut packet, now, &mut NoTrace);
            if packet.tunnel().is_some() {
                match wait_for(&mut copying, engine) {
                    Some((copying, told)) => copying.hold(wrapped(&mut packet, wrapping), told, now),
                    None => send_wrapped(&mut packet, engine, port, wrapping),
                }
                return None;
            }
            if verdict == Verdict::Forward {
                leaves = Some(Leaving { len: packet.bytes().len(), part: Part::of(&packet) });
            }
            (verdict, packet.bytes().len(), *packet.offload())
        }
        Err(malformed) => {
            let bytes = frame.bytes();
            (engine.malformed(malformed, bytes, now), bytes.len(), Offload::default())
        }
    };
    match verdict {
        Verdict::Forward => {
            let sealed = frame.seal(len, &offload);
            if let Some((copying, told)) = wait_for(&mut copying, engine) {
                copying.hold(Waiting::Sealed(sealed.to_vec()), told, now);
                return None;
            }
        }
        Verdict::Handoff(owner) => {
            let mailbox = &mailboxes[usize::from(owner.0)];
            match mailbox.handed.push(frame.seal(len, &offload).to_vec()) {
                Ok(()) => mailbox.waker.wake(),
                Err(_) => engine.counters().handoff_failed(DropReason::HandoffFull),
            }
        }
        Verdict::Consume | Verdict::Drop(DropReason::TunnelUnreachable) if engine.has_heard() => {
            mailboxes[0].tell_listener();
        }
        Verdict::Reply | Verdict::Consume | Verdict::Drop(_) => {}
    }
    leaves
}

/// Tells the other gateway of a pair what the packet in hand has changed. The number to wait for, if that has to be known
/// there before it leaves.
#[inline]
fn wait_for<'a>(copying: &'a mut Option<&mut Copying>, engine: &mut Engine) -> Option<(&'a mut Copying, u64)> {
    if !engine.has_news() {
        return None;
    }
    let copying = copying.as_deref_mut()?;
    copying.tell(engine).map(|told| (copying, told))
}

/// The packets that a packet is in its tunnel.
fn wrapped(packet: &mut Packet<'_>, wrapping: &mut Scratch) -> Waiting {
    let mut pieces = Vec::new();
    tunnel::emit(packet, wrapping, |headers, payload| pieces.push([headers, payload].concat()));
    Waiting::Pieces(pieces)
}

/// Sends what had to wait.
#[cold]
fn send_waiting<P: PacketPort>(waiting: Waiting, engine: &Engine, port: &mut P) {
    match waiting {
        Waiting::Sealed(mut bytes) => {
            let sent = port.send(&mut bytes);
            count_sent(engine, &sent, bytes.len().saturating_sub(OFFLOAD_LEN));
        }
        Waiting::Pieces(pieces) => {
            let sent = pieces.iter().take_while(|piece| port.send_pieces([piece, &[]]).is_ok());
            let whole = sent.map(|piece| engine.counters().sent.count(piece.len())).count() == pieces.len();
            if !whole {
                engine.counters().forward_failed(DropReason::SendFailed);
            }
        }
    }
}

#[inline]
fn count_sent(engine: &Engine, sent: &io::Result<Sent>, len: usize) {
    let counters = engine.counters();
    match sent {
        Err(_) => counters.forward_failed(DropReason::SendFailed),
        Ok(how) => {
            counters.sent.count(len);
            counters.segmented.add(u64::from(*how == Sent::Segmented));
        }
    }
}

/// Sends a packet into its tunnel, in as many outer packets as it takes, up to the first that is refused. What has left
/// was sent; the packet itself is lost if any of it is, and its sender will send it again.
#[inline]
fn send_wrapped<P: PacketPort>(packet: &mut Packet<'_>, engine: &Engine, port: &mut P, wrapping: &mut Scratch) {
    let (mut packets, mut bytes, mut refused) = (0, 0, false);
    tunnel::emit(packet, wrapping, |headers, payload| {
        refused = refused || port.send_pieces([headers, payload]).is_err();
        if !refused {
            (packets, bytes) = (packets + 1, bytes + (headers.len() + payload.len()) as u64);
        }
    });
    let sent = &engine.counters().sent;
    sent.packets.add(packets);
    sent.bytes.add(bytes);
    if refused {
        engine.counters().forward_failed(DropReason::SendFailed);
    }
}

/// Sends the gateway's own packets; nobody waits for them, so a failure is the network's to notice.
fn send_own<P: PacketPort>(engine: &mut Engine, port: &mut P) {
    let (mut packets, mut bytes) = (0, 0);
    for Outgoing { packet, .. } in engine.outbox() {
        match port.send_pieces([&packet, &[]]) {
            Ok(()) => (packets, bytes) = (packets + 1, bytes + packet.len() as u64),
            Err(error) => log::debug!("an answer of the gateway could not be sent: {}", in_words(&error)),
        }
    }
    let sent = &engine.counters().sent;
    sent.packets.add(packets);
    sent.bytes.add(bytes);
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
