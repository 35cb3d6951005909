//! `bench`: what a packet costs on this machine.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use clap::{Args, Subcommand};

use super::exit::{Exit, Failure};
use super::output::{Column, Format, Printer, View};
use crate::admin::BenchRow;
use crate::config;
use crate::engine::{Engine, NoTrace, Shared, Verdict, WorkerId, steering};
use crate::io::port::Batch;
use crate::io::sys;
use crate::io::words::with_remedy;
use crate::wire::build::{self, Tcp};
use crate::wire::{Address, Endpoint, OFFLOAD_LEN, Offload, Packet, TcpFlags};

/// Measure what a packet costs on this machine
#[derive(Debug, Subcommand)]
pub(super) enum Bench {
    /// The engine alone, in memory: full NAT of TCP packets of 64 bytes, no kernel involved
    ///
    /// `established` sends a packet of each flow in turn, so that with many flows none of them is in the CPU's caches;
    /// `new` opens flows.
    #[command(after_help = "Examples:\n  tungate bench engine\n  \
                            tungate bench engine --flows 1000000 --workers 2 -o json")]
    Engine(EngineBench),
}

#[derive(Debug, Args)]
pub(super) struct EngineBench {
    /// Flows in the table, shared out among the workers
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1_000..=1_000_000))]
    flows: u32,
    /// Workers, a thread each
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
    /// How long to measure each row
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    time: Duration,
    /// How to print it
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

impl Bench {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<Exit, Failure> {
        let Self::Engine(bench) = self;
        let mut printer = Printer::new(out, bench.output, &BENCHES);
        for row in bench.measure()? {
            printer.item(&row)?;
        }
        printer.finish()?;
        Ok(Exit::Yes)
    }
}

static BENCHES: View<BenchRow> = View {
    kind: "BenchList",
    columns: &[
        Column { title: "NAME", cell: |b| b.name.clone() },
        Column { title: ">FLOWS", cell: |b| b.flows.to_string() },
        Column { title: ">WORKERS", cell: |b| b.workers.to_string() },
        Column { title: ">NS/PACKET", cell: |b| format!("{:.1}", b.ns_per_packet) },
        Column { title: ">PACKETS/S", cell: |b| format!("{:.0}", b.packets_per_second) },
    ],
};

impl EngineBench {
    fn measure(&self) -> Result<Vec<BenchRow>, Failure> {
        let text = configuration(self.flows);
        let snapshot = config::load(&text, "bench.toml", None, "bench").expect("the bench's configuration is valid");
        let shared = Shared::new(snapshot, self.workers, 1);
        let start = Arc::new(Barrier::new(usize::from(self.workers)));
        let failed = |error: io::Error| Failure::no(format!("cannot start a worker: {}", with_remedy(&error)));
        let mut threads = Vec::new();
        for id in (0..self.workers).map(WorkerId) {
            let (shared, start) = (Arc::clone(&shared), Arc::clone(&start));
            let share = self.flows.div_ceil(u32::from(self.workers));
            let time = self.time;
            let bench = move || Worker::new(&shared, id, share).measure(time, &start);
            threads.push(sys::spawn(&format!("bench-{}", id.0), bench).map_err(failed)?);
        }
        let mut sums = [Measured::default(); 2];
        for thread in threads {
            let measured = thread.join().map_err(|_| Failure::no("a worker panicked: this is a bug of tungate"))?;
            for (sum, one) in sums.iter_mut().zip(measured) {
                sum.packets += one.packets;
                sum.time += one.time;
            }
        }
        Ok(["new", "established"].iter().zip(sums).map(|(name, sum)| self.row(name, sum)).collect())
    }

    fn row(&self, name: &str, sum: Measured) -> BenchRow {
        #[expect(clippy::cast_precision_loss, reason = "a count of packets is far below 2^52")]
        let ns = sum.time.as_secs_f64() * 1e9 / sum.packets.max(1) as f64;
        BenchRow {
            name: name.to_owned(),
            ns_per_packet: ns,
            packets_per_second: 1e9 / ns * f64::from(self.workers),
            flows: u64::from(self.flows),
            workers: self.workers,
        }
    }
}

/// Packets, and the time that one worker, or several together, spent on them.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    packets: u64,
    time: Duration,
}

/// A gateway with room for so many flows: enough backends and source addresses that no port is ever missing.
fn configuration(flows: u32) -> String {
    let mut text = format!(
        "[gateway]\nsource-addresses = [\"10.99.0.10\", \"10.99.0.11\"]\nmax-flows = {}\n\
         [[service]]\nname = \"web\"\nlisten = \"192.0.2.10:80\"\nbackends = [\n",
        u64::from(flows) + 65_536
    );
    for n in 1..=32 {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{{ name = \"b{n}\", address = \"10.0.0.{n}:8080\" }},");
    }
    text.push_str("]\n");
    text
}

/// One worker, the clients that are its own, and a packet of each of them.
struct Worker {
    engine: Engine,
    clients: Vec<Endpoint>,
    batch: Batch,
}

/// Packets are of this many bytes, behind their offload header.
const PACKET: usize = 64;
const FRAME: usize = OFFLOAD_LEN + PACKET;
const VIP: Endpoint = Endpoint::new(Address::v4([192, 0, 2, 10]), 80);

impl Worker {
    fn new(shared: &Arc<Shared>, id: WorkerId, flows: u32) -> Self {
        let client = |n: u32| {
            // 16 ports of each address: 1,048,576 clients in 65,536 addresses, more than 64 workers' worth of flows.
            let [_, a, b, c] = (n / 16).to_be_bytes();
            Endpoint::new(Address::v4([11, a, b, c]), 40_000 + u16::try_from(n % 16).expect("below 16"))
        };
        let own = (0..).map(client).filter(|client| steering::owner(*client, shared.workers) == id);
        let clients = own.take(flows as usize).collect();
        Self { engine: Engine::new(shared, id, sys::now()), clients, batch: Batch::default() }
    }

    /// What a new flow costs, and then a packet of one.
    fn measure(mut self, time: Duration, start: &Barrier) -> [Measured; 2] {
        let opening: Vec<[u8; FRAME]> =
            self.clients.iter().map(|client| frame(*client, VIP, TcpFlags::SYN, 0)).collect();
        start.wait();
        let opened = self.pass(&opening);
        drop(opening);
        self.establish();
        let data: Vec<[u8; FRAME]> =
            self.clients.iter().map(|client| frame(*client, VIP, TcpFlags::ACK, PACKET - 40)).collect();
        self.pass(&data);
        start.wait();
        let mut established = Measured::default();
        while established.time < time {
            let round = self.pass(&data);
            established.packets += round.packets;
            established.time += round.time;
        }
        [opened, established]
    }

    /// Takes all frames through the engine once, a batch at a time, as a worker does.
    fn pass(&mut self, frames: &[[u8; FRAME]]) -> Measured {
        let before = sys::now();
        for some in frames.chunks(64) {
            self.batch.clear();
            for frame in some {
                let read = self.batch.push(|buffer| {
                    buffer[..FRAME].copy_from_slice(frame);
                    Ok(FRAME)
                });
                read.expect("copying does not fail");
            }
            let now = sys::now();
            self.engine.foresee(self.batch.packets(), sys::prefetch);
            for n in 0..self.batch.len() {
                let mut frame = self.batch.frame(n);
                let mut packet = frame.packet().expect("the bench makes sound packets");
                let verdict = self.engine.handle(&mut packet, now, &mut NoTrace);
                assert_eq!(verdict, Verdict::Forward, "a packet of the bench was not forwarded");
            }
        }
        Measured { packets: frames.len() as u64, time: sys::now().since(before) }
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
