//! The simplest of gateways: what comes out of the TUN goes back in, to where it came from.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tungate::io::netlink::{Netlink, Prefix, Route, Target};
use tungate::io::sys::{self, Waker};
use tungate::io::tun::{Offloads, Tun, TunConfig, TunQueue};

use crate::world::{World, ip, set};

pub(crate) const VIPS: [&str; 2] = ["192.0.2.10", "2001:db8::10"];
const HEADER: usize = 10;
pub(crate) const BUFFER: usize = 65_535 + HEADER;

pub(crate) fn config(queues: u16, offloads: Offloads) -> TunConfig<'static> {
    TunConfig { name: "gate", mtu: 1500, queues, offloads }
}

/// Returns to the sender whatever comes out of a TUN: source and destination address change places. That leaves every
/// checksum right, complete or partial. Ends with the waker; says the length of the longest packet seen.
fn mirror(queue: TunQueue, stop: Arc<Waker>) -> JoinHandle<usize> {
    thread::Builder::new()
        .spawn(move || {
            let mut buffer = vec![0; BUFFER];
            let mut longest = 0;
            while !sys::wait(&[queue.as_fd(), stop.as_fd()], None).unwrap().contains(1) {
                let Ok(length) = queue.read(&mut buffer) else { continue };
                let packet = &mut buffer[HEADER..length];
                longest = longest.max(packet.len());
                let (first, size) = if packet[0] >> 4 == 4 { (12, 4) } else { (8, 16) };
                let (source, destination) = packet[first..first + 2 * size].split_at_mut(size);
                source.swap_with_slice(destination);
                queue.write(&buffer[..length]).unwrap();
            }
            longest
        })
        .unwrap()
}

pub(crate) struct Mirror {
    pub(crate) tun: Tun,
    stop: Arc<Waker>,
    workers: Vec<JoinHandle<usize>>,
}

impl Mirror {
    /// In `a`: a TUN for both VIPs, and a mirror on each of its queues.
    pub(crate) fn build(world: &World, queues: u16, offloads: Offloads) -> Self {
        let stop = Arc::new(Waker::new().unwrap());
        let built = world.a.run(|| {
            set("ipv4/ip_forward", "1");
            set("ipv6/conf/all/forwarding", "1");
            let (tun, queues) = Tun::create(&config(queues, offloads)).unwrap();
            let mut netlink = Netlink::open().unwrap();
            for vip in VIPS {
                let (destination, target) = (Prefix::host(ip(vip)), Target::Device(tun.index()));
                netlink.add_route(&Route { destination, target, metric: None, table: None }).unwrap();
            }
            (tun, queues.into_iter().map(|queue| mirror(queue, stop.clone())).collect())
        });
        let (tun, workers) = built.unwrap();
        Self { tun, stop, workers }
    }

    /// Ends it; the longest packet that each worker saw.
    pub(crate) fn stop(self) -> Vec<usize> {
        self.stop.wake();
        self.workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    }
}

/// `b` sends to the VIPs by way of `a`, its gateway.
pub(crate) fn reach_through_a(world: &World) {
    let route = |(vip, hop)| add_route(vip, Target::Gateway(ip(hop)));
    world.b.run(|| VIPS.into_iter().zip(["10.0.0.1", "fd00::1"]).for_each(route)).unwrap();
}

/// `b` takes the VIPs for neighbours, and asks for them on the cable.
pub(crate) fn reach_on_link(world: &World) {
    let body = || {
        let right = Netlink::open().unwrap().link("right").unwrap().index;
        VIPS.into_iter().for_each(|vip| add_route(vip, Target::Device(right)));
    };
    world.b.run(body).unwrap();
}

fn add_route(vip: &str, target: Target) {
    let route = Route { destination: Prefix::host(ip(vip)), target, metric: None, table: None };
    Netlink::open().unwrap().add_route(&route).unwrap();
}
