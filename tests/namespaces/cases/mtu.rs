//! Path MTU discovery: a link on the way takes less than the two ends believe.

use std::time::Duration;

use super::{both_families, everything, in_setups};
use crate::gateway::{Engine, Family, Gateway, Nat, Service, Setup};
use crate::lab::Lab;
use crate::runner::Case;
use crate::servers::{self, ECHO, IPERF};

const BULK: Service = Service { protocol: "tcp", port: 5201, to_port: IPERF, backends: &["b1"] };
const DEAF: Service = Service { protocol: "udp", port: 7, to_port: ECHO, backends: &["b1"] };

pub(super) fn cases() -> Vec<Case> {
    let programs = &["iperf3"];
    let mut cases = in_setups("a_small_link_behind_a_router_is_found", programs, everything(), behind_a_router);
    cases.extend(in_setups("a_small_link_behind_the_gateway_is_found", programs, next_to_the_gateway(), behind));
    cases.extend(in_setups("a_small_link_before_the_gateway_is_found", programs, everything(), before));
    cases.extend(in_setups("traceroute_names_the_small_link", &["traceroute"], everything(), traceroute));
    cases
}

/// Where the error about a backend's link is the gateway kernel's own, it goes to the source of the packet. Without
/// source NAT that is the client, straight, past the TUN: there the link belongs behind a router, or into `mtu`.
fn next_to_the_gateway() -> Vec<Setup> {
    [Engine::Tungate { workers: 1 }, Engine::Kernel]
        .into_iter()
        .flat_map(|engine| both_families(engine, Nat::Full))
        .collect()
}

/// IPv6's smallest for one family, an ordinary tunnel's for the other.
fn small(setup: &Setup) -> u16 {
    if setup.family == Family::V4 { 1400 } else { 1280 }
}

fn behind_a_router(lab: &Lab, setup: &Setup) {
    lab.put_router_before_b1(small(setup));
    transfer_both_ways(lab, setup);
}

fn behind(lab: &Lab, setup: &Setup) {
    let mtu = small(setup);
    lab.gateway().run(&format!("ip link set to-b1 mtu {mtu}")).succeeded();
    lab.backend("b1").run(&format!("ip link set eth0 mtu {mtu}")).succeeded();
    claim_a_full_mss(lab, "b1", setup);
    transfer_both_ways(lab, setup);
}

fn before(lab: &Lab, setup: &Setup) {
    let mtu = small(setup);
    lab.gateway().run(&format!("ip link set to-client mtu {mtu}")).succeeded();
    lab.client().run(&format!("ip link set eth0 mtu {mtu}")).succeeded();
    claim_a_full_mss(lab, "client", setup);
    transfer_both_ways(lab, setup);
}

/// Lets `host` promise segments that its own link does not take, so that the other end has to find out.
fn claim_a_full_mss(lab: &Lab, host: &'static str, setup: &Setup) {
    let host = lab.backend(host);
    let (ip, mss) = setup.pick(("ip -4", 1460), ("ip -6", 1440));
    for route in host.run(&format!("{ip} route show")).succeeded().lines().filter(|route| route.contains(" via ")) {
        host.run(&format!("{ip} route change {route} advmss {mss}")).succeeded();
    }
}

fn transfer_both_ways(lab: &Lab, setup: &Setup) {
    let _gateway = Gateway::start(lab, setup, &[BULK]);
    for direction in ["", "-R"] {
        let _server = servers::iperf3(lab);
        let line = format!("iperf3 -c {} -p 5201 -n 200M {direction}", setup.vip());
        lab.client().run_within(Duration::from_secs(60), &line).succeeded();
    }
}

/// The sender learns the size of the link from an error that has passed the gateway.
fn traceroute(lab: &Lab, setup: &Setup) {
    let mtu = small(setup);
    lab.put_router_before_b1(mtu);
    let _gateway = Gateway::start(lab, setup, &[DEAF]);
    let ip = setup.pick("-4", "-6");
    let line = format!("traceroute {ip} -n -U -p 7 --mtu -q 1 -N 1 -w 5 -m 8 {} 1500", setup.vip());
    let report = lab.client().run(&line).succeeded();
    assert!(report.contains(&format!("F={mtu}")), "{report}");
    let last = report.lines().last().and_then(|line| line.split_whitespace().nth(1));
    assert_eq!(last, Some(setup.vip()), "{report}");
}
