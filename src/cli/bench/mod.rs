//! `bench`: what a packet costs on this machine.

mod load;
mod tun;
mod worker;

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use clap::{Args, Subcommand};

use super::exit::{Exit, Failure};
use super::output::{self, Column, Format, Printer, View};
use crate::admin::BenchRow;
use crate::config;
use crate::engine::{Shared, WorkerId};
use crate::io::sys;
use crate::io::words::with_remedy;
use tun::{TUN_BENCHES, TunBench};
use worker::{Measured, Worker};

/// Measure what a packet costs on this machine
#[derive(Debug, Subcommand)]
pub(super) enum Bench {
    /// The engine alone, in memory: full NAT of TCP packets of 64 bytes, no kernel involved
    ///
    /// `new` opens flows; `established` sends a packet of each in turn, so that with many flows none of them is in the
    /// CPU's caches; `listing` does so while another thread lists them all again and again; `expiry` forgets them, and its
    /// figure is that of a flow. `harness` is what the bench itself adds to each of these. PAUSE is the longest time that a
    /// worker spent on one batch of packets, or of flows to forget; BYTES/FLOW what opening the flows has added to the
    /// program's memory, with one worker.
    #[command(after_help = "Examples:\n  tungate bench engine\n  \
                            tungate bench engine --flows 1000000 --workers 2 -o json")]
    Engine(EngineBench),
    /// The whole gateway with its TUN, in a lab of its own: full NAT of bulk TCP, small packets and single requests
    ///
    /// Builds the network of `demo`: a client, a gateway and a backend, each in a network namespace with no way out. `bulk`
    /// sends by several TCP streams at once; `packets` sends UDP datagrams of 18 bytes in many flows, as many as go, and
    /// counts those that arrive; `latency` sends a request of 64 bytes each millisecond and waits for its answer. VIA is
    /// who carries it: tungate, or the gateway's kernel alone, without NAT, so that the rows can be compared. Client,
    /// gateway and backend share this machine's CPUs. Without root it uses a user namespace, where the system allows that.
    #[command(after_help = "Examples:\n  tungate bench tun\n  \
                            tungate bench tun --streams 1 --time 5s -o json")]
    Tun(TunBench),
}

#[derive(Debug, Args)]
pub(super) struct EngineBench {
    /// Flows in the table, shared out among the workers
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1_000..=MOST_FLOWS.into()))]
    flows: u32,
    /// Workers, a thread each
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
    /// How long to measure each row
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = some_time)]
    time: Duration,
    /// How to print it
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

impl Bench {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<Exit, Failure> {
        match self {
            Self::Engine(bench) => {
                let mut printer = Printer::new(out, bench.output, &BENCHES);
                for row in bench.measure()? {
                    printer.item(&row)?;
                }
                printer.finish()?;
            }
            Self::Tun(bench) => {
                let mut printer = Printer::new(out, bench.output, &TUN_BENCHES);
                bench.measure(|row| Ok(printer.item(row)?))?;
                printer.finish()?;
            }
        }
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
        Column { title: ">PAUSE US", cell: |b| b.longest_pause_us.to_string() },
        Column { title: ">BYTES/FLOW", cell: |b| b.bytes_per_flow.map_or("-".to_owned(), |n| n.to_string()) },
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
        let mut sums = [Measured::default(); ROWS.len()];
        for thread in threads {
            let measured = thread.join().map_err(|_| Failure::no("a worker panicked: this is a bug of tungate"))?;
            for (sum, one) in sums.iter_mut().zip(measured) {
                sum.add(one);
            }
        }
        Ok(ROWS.iter().zip(sums).map(|(name, sum)| self.row(name, sum)).collect())
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
            longest_pause_us: u64::try_from(sum.longest.as_micros()).unwrap_or(u64::MAX),
            bytes_per_flow: sum.memory.filter(|_| self.workers == 1).map(|bytes| bytes / u64::from(self.flows)),
        }
    }
}

/// What [`Worker::measure`] measures, in order.
const ROWS: [&str; 5] = ["harness", "new", "established", "listing", "expiry"];

const MOST_FLOWS: u32 = 10_000_000;

/// A time to measure for: without any there is nothing to say.
fn some_time(text: &str) -> Result<Duration, String> {
    let time = output::duration(text)?;
    if time.is_zero() { Err("nothing can be measured in no time".to_owned()) } else { Ok(time) }
}

/// A gateway with room for so many flows: enough backends and source addresses that no port is ever missing.
fn configuration(flows: u32) -> String {
    let sources: Vec<String> = (10..12 + flows / 1_500_000).map(|n| format!("\"10.99.0.{n}\"")).collect();
    let mut text = format!(
        "[gateway]\nsource-addresses = [{}]\nmax-flows = {}\n\
         [[service]]\nname = \"web\"\nlisten = \"192.0.2.10:80\"\nbackends = [\n",
        sources.join(", "),
        u64::from(flows) + 65_536
    );
    for n in 1..=32 {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{{ name = \"b{n}\", address = \"10.0.0.{n}:8080\" }},");
    }
    text.push_str("]\n");
    text
}
