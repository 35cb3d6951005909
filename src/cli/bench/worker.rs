//! One worker of the bench: its flows, their packets, and how long the engine takes for them.

use std::fs;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use crate::config::ServiceId;
use crate::engine::{Engine, Instant, NoTrace, Shared, Verdict, WorkerId, steering};
use crate::io::port::Batch;
use crate::io::sys;
use crate::wire::build::{self, Tcp};
use crate::wire::{Address, Endpoint, OFFLOAD_LEN, Offload, Packet, TcpFlags};

/// Packets, or flows, and the time that one worker, or several together, spent on them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Measured {
    pub(super) packets: u64,
    pub(super) time: Duration,
    /// The longest time for one batch of them.
    pub(super) longest: Duration,
    /// What it has added to the program's memory, bytes.
    pub(super) memory: Option<u64>,
}

impl Measured {
    pub(super) fn add(&mut self, other: Self) {
        self.packets += other.packets;
        self.time += other.time;
        self.longest = self.longest.max(other.longest);
        self.memory = self.memory.or(other.memory);
    }

    fn add_batch(&mut self, packets: u64, since: Instant) {
        let time = sys::now().since(since);
        self.add(Self { packets, time, longest: time, memory: None });
    }
}

/// One worker, the clients that are its own, and memory for a batch of their packets.
pub(super) struct Worker {
    engine: Engine,
    shared: Arc<Shared>,
    clients: Vec<Endpoint>,
    batch: Batch,
}

/// Packets are of this many bytes, behind their offload header.
const PACKET: usize = 64;
const FRAME: usize = OFFLOAD_LEN + PACKET;
/// Packets of a batch.
const BATCH: usize = 64;
const VIP: Endpoint = Endpoint::new(Address::v4([192, 0, 2, 10]), 80);
/// Longer than any flow lives.
const A_DAY: Duration = Duration::from_secs(86_400);

impl Worker {
    pub(super) fn new(shared: &Arc<Shared>, id: WorkerId, flows: u32) -> Self {
        let client = |n: u32| {
            // 16 ports of each address.
            let [_, a, b, c] = (n / 16).to_be_bytes();
            Endpoint::new(Address::v4([11, a, b, c]), 40_000 + u16::try_from(n % 16).expect("below 16"))
        };
        let own = (0..).map(client).filter(|client| steering::owner(*client, shared.workers) == id);
        let clients = own.take(flows as usize).collect();
        let engine = Engine::new(shared, id, sys::now());
        Self { engine, shared: Arc::clone(shared), clients, batch: Batch::default() }
    }

    /// All rows, in the order of [`super::ROWS`]; waits for the other workers before each that they could disturb.
    pub(super) fn measure(mut self, time: Duration, start: &Barrier) -> [Measured; super::ROWS.len()] {
        let opening = self.frames(TcpFlags::SYN, 0);
        let before = resident();
        start.wait();
        let mut opened = self.pass(&opening);
        self.establish();
        opened.memory = before.zip(resident()).map(|(before, after)| after.saturating_sub(before));
        drop(opening);
        let data = self.frames(TcpFlags::ACK, PACKET - 40);
        self.pass(&data);
        start.wait();
        let harness = self.run(&data, time / 16, |_, batch, _| {
            for n in 0..batch.len() {
                black_box(batch.frame(n));
            }
        });
        let established = self.run(&data, time, forward);
        let listed = self.listed(&data, time);
        start.wait();
        [harness, opened, established, listed, self.expire()]
    }

    fn frames(&self, flags: TcpFlags, payload: usize) -> Vec<[u8; FRAME]> {
        self.clients.iter().map(|client| frame(*client, VIP, flags, payload)).collect()
    }

    fn pass(&mut self, frames: &[[u8; FRAME]]) -> Measured {
        self.run(frames, Duration::ZERO, forward)
    }

    /// Takes all frames through `what` until the time is over, once at least. What is measured is what that takes, not
    /// the making of the batches: the kernel would do that.
    fn run(
        &mut self,
        frames: &[[u8; FRAME]],
        time: Duration,
        mut what: impl FnMut(&mut Engine, &mut Batch, Instant),
    ) -> Measured {
        let mut measured = Measured::default();
        while measured.packets == 0 || measured.time < time {
            for some in frames.chunks(BATCH) {
                self.batch.clear();
                for frame in some {
                    let read = self.batch.push(|buffer| {
                        buffer[..FRAME].copy_from_slice(frame);
                        Ok(FRAME)
                    });
                    read.expect("copying does not fail");
                }
                let now = sys::now();
                what(&mut self.engine, &mut self.batch, now);
                measured.add_batch(some.len() as u64, now);
            }
        }
        measured
    }

    /// As `established`, while another thread lists all flows.
    fn listed(&mut self, data: &[[u8; FRAME]], time: Duration) -> Measured {
        let (shared, stop) = (Arc::clone(&self.shared), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let list = move || {
            while !stopped.load(Relaxed) {
                let mut flows = Vec::new();
                shared.table.for_each(|flow| flows.push(flow.hold()));
            }
        };
        let Ok(lister) = sys::spawn("bench-listing", list) else { return Measured::default() };
        let measured = self.run(data, time, forward);
        stop.store(true, Relaxed);
        lister.join().expect("a listing ends");
        measured
    }

    /// Forgets all flows, as many at once as a worker does.
    fn expire(&mut self) -> Measured {
        let later = sys::now() + A_DAY;
        let mut measured = Measured::default();
        loop {
            let (before, ended) = (sys::now(), self.ended());
            let more = self.engine.handle_timeout(later);
            measured.add_batch(self.ended() - ended, before);
            if !more {
                return measured;
            }
        }
    }

    fn ended(&self) -> u64 {
        self.engine.counters().service(ServiceId(0)).closed.get()
    }

    /// Answers every SYN, and the answer: what goes out is found by asking the engine to send the SYN again.
    fn establish(&mut self) {
        for n in 0..self.clients.len() {
            let client = self.clients[n];
            let (source, backend) = self.forward(frame(client, VIP, TcpFlags::SYN, 0));
            self.forward(frame(backend, source, TcpFlags(TcpFlags::SYN.0 | TcpFlags::ACK.0), 0));
            self.forward(frame(client, VIP, TcpFlags::ACK, 0));
        }
    }

    /// The endpoints of the packet as it left.
    fn forward(&mut self, mut frame: [u8; FRAME]) -> (Endpoint, Endpoint) {
        let mut packet =
            Packet::parse(&mut frame[OFFLOAD_LEN..], Offload::default()).expect("the bench makes sound packets");
        let verdict = self.engine.handle(&mut packet, sys::now(), &mut NoTrace);
        assert_eq!(verdict, Verdict::Forward, "a packet of the bench was not forwarded");
        packet.endpoints().expect("TCP has ports")
    }
}

/// A batch through the engine, as a worker does it.
fn forward(engine: &mut Engine, batch: &mut Batch, now: Instant) {
    engine.foresee(batch.packets(), sys::prefetch);
    for n in 0..batch.len() {
        let mut frame = batch.frame(n);
        let mut packet = frame.packet().expect("the bench makes sound packets");
        let verdict = engine.handle(&mut packet, now, &mut NoTrace);
        assert_eq!(verdict, Verdict::Forward, "a packet of the bench was not forwarded");
    }
}

/// The memory of this program that is in use, bytes.
fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// A TCP segment behind its offload header: sequence numbers as after a handshake that began at 0 on both sides.
fn frame(source: Endpoint, destination: Endpoint, flags: TcpFlags, payload: usize) -> [u8; FRAME] {
    let (syn, ack) = (flags.has(TcpFlags::SYN), flags.has(TcpFlags::ACK));
    let payload = [0; PACKET - 40].get(..payload).unwrap_or_default();
    let segment = Tcp { seq: u32::from(!syn), ack: u32::from(ack), flags, window: 64_000, payload, ..Tcp::default() };
    let packet = build::tcp(source, destination, &segment);
    let mut frame = [0; FRAME];
    frame[OFFLOAD_LEN..][..packet.len()].copy_from_slice(&packet);
    frame
}
