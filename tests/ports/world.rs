//! A gateway whose workers run in threads of their own, each over a port in memory.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tungate::config::{self, Snapshot};
use tungate::engine::counters::WorkerCounters;
use tungate::engine::{DropReason, Engine, Policy, Shared, WorkerId, steering};
use tungate::io::memory::{FarEnd, MemoryPort};
use tungate::io::port::PacketPort;
use tungate::io::sys;
use tungate::io::worker::{Mailbox, Worker};
use tungate::wire::{Endpoint, OFFLOAD_LEN, Offload, Packet};

pub(crate) const CONFIG: &str = r#"
[gateway]
source-addresses = ["10.99.0.10", "fd00:99::10"]
max-flows = 1000

[[service]]
name = "web"
listen = ["192.0.2.10:80", "[2001:db8::10]:80"]
backends = [{ address = "10.0.0.1:8080" }, { address = "[fd00::1]:8080" }]

[[service]]
name = "dns"
protocol = "udp"
listen = ["192.0.2.10:53", "[2001:db8::10]:53"]
backends = [{ address = "10.0.0.1:53" }, { address = "[fd00::1]:53" }]

[[service]]
name = "media"
protocol = "udp"
mode = "dsr"
encapsulation = "ipip"
listen = "192.0.2.12:5000"
backends = [{ address = "10.0.0.3" }]
"#;

/// How long a packet may take: an end to a test that fails.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct World {
    pub(crate) shared: Arc<Shared>,
    pub(crate) mailboxes: Arc<[Mailbox]>,
    ends: Vec<FarEnd>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl World {
    pub(crate) fn new(workers: u16) -> Self {
        Self::over(workers, workers, |port| port)
    }

    /// So many workers, of which the first few run, each over what is made of its port in memory.
    pub(crate) fn over<P: PacketPort + Send + 'static>(workers: u16, run: u16, port: impl Fn(MemoryPort) -> P) -> Self {
        let shared = Shared::new(snapshot(CONFIG), workers, 7);
        let mailboxes: Arc<[Mailbox]> = (0..workers).map(|_| Mailbox::new().unwrap()).collect();
        let (mut ends, mut threads) = (Vec::new(), Vec::new());
        for id in (0..run).map(WorkerId) {
            let (memory, end) = MemoryPort::new().unwrap();
            let engine = Engine::new(&shared, id, sys::now());
            let worker = Worker::new(id, port(memory), engine, Arc::clone(&mailboxes));
            ends.push(end);
            threads.push(thread::Builder::new().spawn(move || worker.run()).unwrap());
        }
        Self { shared, mailboxes, ends, threads }
    }

    /// Another configuration, from the next batch on.
    pub(crate) fn reload(&self, config: &str) {
        let policy = self.shared.policy.load_full();
        let snapshot = config::load(config, "test.toml", Some(&policy.snapshot), "gw").unwrap();
        self.shared.policy.store(Arc::new(Policy::build(Arc::new(snapshot), |b| b.weight, Some(&policy))));
    }

    /// A packet comes to the queue of this worker.
    pub(crate) fn gives(&self, worker: usize, packet: &[u8]) {
        self.gives_frame(worker, [&[0; OFFLOAD_LEN], packet].concat());
    }

    pub(crate) fn gives_frame(&self, worker: usize, frame: Vec<u8>) {
        self.ends[worker].send(frame);
    }

    /// The next packet that leaves by this worker.
    #[track_caller]
    pub(crate) fn gets(&self, worker: usize) -> Vec<u8> {
        self.gets_frame(worker).split_off(OFFLOAD_LEN)
    }

    #[track_caller]
    pub(crate) fn gets_frame(&self, worker: usize) -> Vec<u8> {
        self.ends[worker].receive(PATIENCE).expect("a packet leaves")
    }

    /// A client whose flows are this worker's.
    pub(crate) fn client_of(&self, worker: u16) -> Endpoint {
        let clients = (4000..).map(|port| Endpoint::new(at("198.51.100.7:0").address, port));
        clients.into_iter().find(|client| steering::owner(*client, self.shared.workers) == WorkerId(worker)).unwrap()
    }

    /// Stops the workers, which have nothing left to send; every packet of those given has one end.
    pub(crate) fn stop(self, given: u64) -> Arc<Shared> {
        self.mailboxes.iter().for_each(Mailbox::stop);
        for thread in self.threads {
            thread.join().expect("no panic").expect("it was told to stop");
        }
        for end in &self.ends {
            assert_eq!(end.receive(Duration::ZERO).unwrap_err().kind(), io::ErrorKind::TimedOut, "a packet too many");
        }
        let asleep = self.mailboxes.len() > self.ends.len();
        assert_books_balance(&self.shared, given, asleep);
        self.shared
    }
}

/// `asleep`: not all workers run, and what was handed over lies with those that do not.
fn assert_books_balance(shared: &Shared, given: u64, asleep: bool) {
    let sum = |of: fn(&WorkerCounters) -> u64| shared.counters.workers().map(of).sum::<u64>();
    let drops = DropReason::ALL.iter().map(|reason| shared.counters.sum(|worker| worker.drops(*reason))).sum::<u64>();
    let ended = sum(|w| w.forwarded.get() + w.replied.get() + w.consumed.get()) + drops;
    let handed_over = sum(|w| w.handed_over.get());
    assert_eq!(sum(|w| w.received.packets.get()), ended + handed_over);
    assert_eq!(ended + if asleep { handed_over } else { 0 }, given, "every packet has one end");
}

pub(crate) fn snapshot(config: &str) -> Snapshot {
    config::load(config, "test.toml", None, "gw").unwrap_or_else(|report| panic!("{report}"))
}

pub(crate) fn at(text: &str) -> Endpoint {
    text.parse::<SocketAddr>().unwrap().into()
}

/// From whom a packet is, and to whom.
pub(crate) fn ends(packet: &[u8]) -> (Endpoint, Endpoint) {
    let mut bytes = packet.to_vec();
    let packet = Packet::parse(&mut bytes, Offload::default()).expect("what leaves is sound");
    assert!(packet.transport_checksum_ok());
    packet.endpoints().expect("it has ports")
}
