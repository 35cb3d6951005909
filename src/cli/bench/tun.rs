//! `bench tun`: the whole gateway, its TUN and the kernel around it, in a lab of its own.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use super::load::{self, Backend};
use super::some_time;
use crate::admin::TunBenchRow;
use crate::cli::demo::lab::Lab;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::{Column, Format, View};
use crate::cli::run;
use crate::config;
use crate::io::daemon::Daemon;
use crate::io::namespace::{NamespaceError, enter_user_namespace};
use crate::io::netlink::Netlink;
use crate::io::sys;
use crate::io::tun::Offloads;
use crate::io::words::with_remedy;

#[derive(Debug, Args)]
pub(in crate::cli) struct TunBench {
    /// TCP streams of `bulk`
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    streams: u16,
    /// Flows of `packets`
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u16).range(1..=40_000))]
    flows: u16,
    /// Workers; by default as many as `run` would have
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: Option<u16>,
    /// How long to measure each row
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = some_time)]
    time: Duration,
    /// How to print it
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(super) output: Format,
}

pub(super) static TUN_BENCHES: View<TunBenchRow> = View {
    kind: "TunBenchList",
    columns: &[
        Column { title: "NAME", cell: |b| b.name.clone() },
        Column { title: "VIA", cell: |b| b.via.clone() },
        Column { title: ">PACKETS/S", cell: |b| or_dash(b.packets_per_second, 0) },
        Column { title: ">GBIT/S", cell: |b| or_dash(b.gbit_per_second, 1) },
        Column { title: ">P50 US", cell: |b| or_dash(b.p50_us, 0) },
        Column { title: ">P99 US", cell: |b| or_dash(b.p99_us, 0) },
    ],
};

fn or_dash(figure: Option<f64>, digits: usize) -> String {
    figure.map_or("-".to_owned(), |figure| format!("{figure:.digits$}"))
}

/// Who carries the load from the client to the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Via {
    Tungate,
    /// The gateway's kernel alone, to the backend's own address: without NAT.
    Kernel,
}

impl Via {
    const fn name(self) -> &'static str {
        match self {
            Self::Tungate => "tungate",
            Self::Kernel => "kernel",
        }
    }

    /// Where the client sends to; ports are the same on both ways.
    fn to(self, port: u16) -> SocketAddr {
        let address = match self {
            Self::Tungate => [192, 0, 2, 10],
            Self::Kernel => [10, 0, 1, 1],
        };
        (address, port).into()
    }
}

const TCP: u16 = 8080;
const UDP: u16 = 5353;
/// The first source port of the small datagrams.
const FIRST_PORT: u16 = 20_000;

const CONFIG: &str = r#"
source-addresses = ["10.99.0.10"]

[[service]]
name = "tcp"
listen = "192.0.2.10:8080"
backends = [{ address = "10.0.1.1" }]
health = { check = "none" }

[[service]]
name = "udp"
protocol = "udp"
listen = "192.0.2.10:5353"
backends = [{ address = "10.0.1.1" }]
"#;

impl TunBench {
    /// Tells `each` of every row as soon as it is measured.
    pub(super) fn measure(&self, mut each: impl FnMut(&TunBenchRow) -> Result<(), Failure>) -> Result<(), Failure> {
        if sys::effective_user() != 0 {
            enter_user_namespace().map_err(|error| Failure::new(Exit::Refused, error.to_string()))?;
        }
        let lab = Lab::build().map_err(|error| {
            Failure::new(if error.is_refusal() { Exit::Refused } else { Exit::No }, error.to_string())
        })?;
        let start = || Backend::start(([0, 0, 0, 0], TCP).into(), ([0, 0, 0, 0], UDP).into());
        let backend = ran(lab.backends[0].run(start))?;
        let mut daemon = self.start_gateway(&lab)?;
        for via in [Via::Tungate, Via::Kernel] {
            each(&self.bulk(&lab, &backend, via)?)?;
            each(&self.packets(&lab, via)?)?;
            each(&self.latency(&lab, via)?)?;
        }
        match daemon.failure() {
            None => Ok(()),
            Some(error) => Err(Failure::no(format!("a worker has ended meanwhile: {}", with_remedy(&error)))),
        }
    }

    fn start_gateway(&self, lab: &Lab) -> Result<Daemon, Failure> {
        let workers = self.workers.map(|n| format!("workers = {n}")).unwrap_or_default();
        let text = format!("[gateway]\n{workers}{CONFIG}");
        let snapshot = config::load(&text, "bench.toml", None, "bench").expect("the bench's configuration is valid");
        let start = || Daemon::start(snapshot, Offloads::All);
        let daemon = lab.gateway.run(start).map_err(|error| Failure::no(error.to_string()))?;
        daemon.map_err(|error| run::start_failure(&error))
    }

    /// Bytes that the backend's server has taken in while all streams sent.
    fn bulk(&self, lab: &Lab, backend: &Backend, via: Via) -> Result<TunBenchRow, Failure> {
        let (to, time) = (via.to(TCP), self.time);
        let (before, begin) = (backend.taken(), sys::now());
        let streams: Vec<_> = (0..self.streams)
            .map(|n| lab.client.spawn(&format!("bench-{n}"), move || load::stream(to, time)))
            .collect::<Result<_, _>>()
            .map_err(|error| Failure::no(error.to_string()))?;
        for stream in streams {
            ran(stream.join().map_err(|_| Failure::no("a stream of the bench panicked: a bug of tungate"))?)?;
        }
        let rate = a_second(backend.taken() - before, sys::now().since(begin));
        Ok(TunBenchRow { gbit_per_second: Some(rate * 8.0 / 1e9), ..row("bulk", via) })
    }

    /// Datagrams that the backend's kernel has counted.
    fn packets(&self, lab: &Lab, via: Via) -> Result<TunBenchRow, Failure> {
        let link = lab.gateway.run(|| Netlink::open()?.link("to-client"));
        let link =
            link.map_err(|error| Failure::no(error.to_string()))?.map_err(|error| Failure::no(error.to_string()))?;
        let gateway = link.hardware_address.expect("a veth has a hardware address");
        let from = ([198, 51, 100, 2], FIRST_PORT).into();
        let before = ran(lab.backends[0].run(load::datagrams))?;
        ran(lab.client.run(|| load::flood(gateway, from, via.to(UDP), self.flows, self.time)))?;
        // What is on its way still counts.
        ran(Ok(sys::wait(&[], Some(Duration::from_millis(100)))))?;
        let after = ran(lab.backends[0].run(load::datagrams))?;
        Ok(TunBenchRow { packets_per_second: Some(a_second(after - before, self.time)), ..row("packets", via) })
    }

    fn latency(&self, lab: &Lab, via: Via) -> Result<TunBenchRow, Failure> {
        let times = ran(lab.client.run(|| load::requests(via.to(TCP), self.time)))?;
        let at = |percent: usize| Some(times[times.len() * percent / 100].as_secs_f64() * 1e6);
        Ok(TunBenchRow { p50_us: at(50), p99_us: at(99), ..row("latency", via) })
    }
}

fn row(name: &str, via: Via) -> TunBenchRow {
    TunBenchRow {
        name: name.to_owned(),
        via: via.name().to_owned(),
        packets_per_second: None,
        gbit_per_second: None,
        p50_us: None,
        p99_us: None,
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn a_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

/// What a load came to, that may have failed at two places.
fn ran<T>(result: Result<io::Result<T>, NamespaceError>) -> Result<T, Failure> {
    let loaded = result.map_err(|error| Failure::no(error.to_string()))?;
    loaded.map_err(|error| Failure::no(format!("the bench's load broke off: {}", with_remedy(&error))))
}
