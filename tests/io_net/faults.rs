use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use tungate::config;
use tungate::engine::{Engine, Shared, WorkerId};
use tungate::io::netlink::{Netlink, Prefix, Route, Target};
use tungate::io::routes::Routes;
use tungate::io::segmenting::Segmenting;
use tungate::io::sys;
use tungate::io::tun::{Offloads, Tun};
use tungate::io::tun_port::TunPort;
use tungate::io::worker::{Mailbox, Worker};

use crate::faulty::{Faults, Faulty};
use crate::mirror::config as tun_config;
use crate::world::{World, ip, set};

const CONFIG: &str = r#"
[gateway]
source-addresses = ["10.99.0.10", "fd00:99::10"]

[[service]]
name = "sink"
listen = ["192.0.2.10:80", "[2001:db8::10]:80"]
backends = [{ address = "10.0.0.2:8080" }, { address = "[fd00::2]:8080" }]
"#;

const OURS: [&str; 4] = ["192.0.2.10", "2001:db8::10", "10.99.0.10", "fd00:99::10"];

/// So many bytes there and back again, through the VIP: `b` is client and backend.
fn transfer(vip: &str, backend: &str, bytes: usize) {
    let listener = TcpListener::bind(SocketAddr::new(ip(backend), 8080)).unwrap();
    let echo = move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(&all).unwrap();
    };
    let sent: Vec<u8> = (0..bytes).map(|n| (n % 251).to_le_bytes()[0]).collect();
    let mut stream = TcpStream::connect(SocketAddr::new(ip(vip), 80)).unwrap();
    thread::scope(|scope| {
        scope.spawn(echo);
        stream.write_all(&sent).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        assert!(received == sent, "{} of {bytes} bytes came back as they were sent", received.len());
    });
}

/// Checksum errors of TCP that the kernel of the calling thread's namespace has counted.
fn checksum_errors() -> String {
    let table = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut lines = table.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let found = names.split(' ').zip(values.split(' ')).find(|(name, _)| *name == "InCsumErrors");
    found.unwrap().1.to_owned()
}

#[test]
fn bulk_tcp_passes_where_the_kernel_refuses_super_packets() {
    let Some(world) = World::build("bulk_tcp_passes_where_the_kernel_refuses_super_packets") else { return };
    let shared = Shared::new(config::load(CONFIG, "test.toml", None, "gw").unwrap(), 1, 7);
    let mailboxes: Arc<[Mailbox]> = Arc::new([Mailbox::new().unwrap()]);
    let faults = Arc::new(Faults::default());
    let start = || {
        set("ipv4/ip_forward", "1");
        set("ipv6/conf/all/forwarding", "1");
        let (tun, mut queues) = Tun::create(&tun_config(1, Offloads::All)).unwrap();
        let routes = Routes::add(&tun, OURS.map(|address| Prefix::host(ip(address))).to_vec()).unwrap();
        let port = Segmenting::new(Faulty::new(TunPort::new(queues.pop().unwrap(), tun.offloads()), &faults));
        let engine = Engine::new(&shared, WorkerId(0), sys::now());
        (tun, routes, Worker::new(WorkerId(0), port, engine, Arc::clone(&mailboxes)))
    };
    let (_tun, _routes, worker) = world.a.run(start).unwrap();
    let worker = thread::Builder::new().spawn(move || worker.run()).unwrap();
    let reach = || {
        for address in OURS {
            let hop = if address.contains(':') { "fd00::1" } else { "10.0.0.1" };
            let (destination, target) = (Prefix::host(ip(address)), Target::Gateway(ip(hop)));
            Netlink::open().unwrap().add_route(&Route { destination, target, metric: None, table: None }).unwrap();
        }
    };
    world.b.run(reach).unwrap();

    let segmented = || shared.counters.sum(|worker| &worker.segmented);
    let both = || {
        transfer("192.0.2.10", "10.0.0.2", 4 << 20);
        transfer("2001:db8::10", "fd00::2", 4 << 20);
        assert_eq!(checksum_errors(), "0");
    };
    world.b.run(both).unwrap();
    assert_eq!(segmented(), 0, "this kernel takes super-packets");
    faults.super_packets.store(libc::EINVAL, Relaxed);
    world.b.run(both).unwrap();

    mailboxes[0].stop();
    worker.join().unwrap().unwrap();
    assert!(segmented() > 100, "{} super-packets were cut", segmented());
    assert_eq!(segmented(), faults.refused.load(Relaxed));
}
