//! A packet worker: one thread, one port, one engine. What others want of it lies in its [`Mailbox`]; what it does with a
//! packet stands in `process`.

mod mailbox;
mod process;

use std::io;
use std::iter;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use super::copying::Copying;
use super::duty::{Duty, Order, Watch};
use super::gather::Gather;
use super::lanes::WorkerLane;
use super::port::{Batch, Frame, PacketPort};
use super::sys;
use super::words::in_words;
use crate::engine::{DropReason, Engine, Instant, Verdict, WorkerId};
use crate::wire::OFFLOAD_LEN;
use crate::wire::tunnel::Scratch;
use process::{Leaving, Way, count_sent, process, send_own, send_waiting};

pub use mailbox::Mailbox;

/// How long a worker that has just had a packet looks for the next one before it sleeps, giving way to whoever wants
/// the CPU: bulk TCP comes in bursts some microseconds apart, and to be woken for each costs a third of its speed.
const LINGER: Duration = Duration::from_micros(20);
/// How often a busy worker looks for flows whose time is over.
const TIMEOUT_INTERVAL: Duration = Duration::from_millis(50);

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
        let Some(copying) = &mut self.copying else { return false };
        match order {
            Order::Forward | Order::Flush => return false,
            // What was decided before a handover still leaves.
            Order::Relay => {}
            Order::Discard => copying.forget_held(),
        }
        copying.follow(&mut self.engine, now)
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
            let Self { batch, watch, engine, .. } = self;
            leave(batch.frame(n).as_received(), order, watch.as_ref(), engine);
        }
        // Those handed over are as old as those that came.
        while let Some(packet) = self.mailbox().handed.pop() {
            leave(&packet, order, self.watch.as_ref(), &mut self.engine);
        }
        let mailbox = &self.mailboxes[usize::from(self.id.0)];
        // Packets of the gateway itself have its addresses, too.
        while mailbox.own.pop().is_some() {}
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

/// Leaves a packet, offload header included, to the other one, or to nobody.
fn leave(packet: &[u8], order: Order, watch: Option<&Watch>, engine: &mut Engine) {
    let verdict = match (order, watch) {
        (Order::Relay, Some(watch)) if watch.duty().hand_to_peer(packet.to_vec()) => Verdict::Consume,
        (Order::Flush, _) => Verdict::Drop(DropReason::HeldUp),
        (Order::Forward | Order::Discard | Order::Relay, _) => Verdict::Drop(DropReason::NotActive),
    };
    engine.pass_over(verdict, packet.len().saturating_sub(OFFLOAD_LEN));
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
