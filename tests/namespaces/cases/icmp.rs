//! Ping to the VIP, and traceroute through it.

use super::{everything, full_nat, in_setups};
use crate::gateway::{Engine, Gateway, Nat, Service, Setup};
use crate::lab::Lab;
use crate::runner::Case;
use crate::servers::{self, ECHO, HTTP};

const WEB: Service = Service { protocol: "tcp", port: 80, to_port: HTTP, backends: &["b1", "b2"] };
/// Nobody listens there, so a backend answers with port unreachable.
const DEAF: Service = Service { protocol: "udp", port: 7, to_port: ECHO, backends: &["b1", "b2"] };

pub(super) fn cases() -> Vec<Case> {
    let mut cases = in_setups("ping_to_the_vip", &["ping"], full_nat(), ping);
    cases.extend(in_setups("tcp_traceroute_reaches_the_vip", &["traceroute", "nginx"], everything(), tcp));
    cases.extend(in_setups("udp_traceroute_ends_at_a_closed_port", &["traceroute"], everything(), udp));
    cases.extend(in_setups("icmp_traceroute_reaches_the_vip", &["traceroute"], full_nat(), icmp));
    cases
}

fn ping(lab: &Lab, setup: &Setup) {
    let _gateway = Gateway::start(lab, setup, &[WEB]);
    // The last in fragments: 3 one way, 3 back.
    for size in [0, 56, 1400, 4000] {
        let report = lab.client().run(&format!("ping -n -c 5 -i 0.1 -W 5 -s {size} {}", setup.vip())).succeeded();
        assert!(report.contains(" 5 received, 0% packet loss"), "{report}");
    }
}

fn tcp(lab: &Lab, setup: &Setup) {
    let _servers = servers::nginx(lab, setup);
    let _gateway = Gateway::start(lab, setup, &[WEB]);
    assert_path(lab, setup, "-T -p 80");
}

fn udp(lab: &Lab, setup: &Setup) {
    let _gateway = Gateway::start(lab, setup, &[DEAF]);
    assert_path(lab, setup, "-U -p 7");
}

fn icmp(lab: &Lab, setup: &Setup) {
    let _gateway = Gateway::start(lab, setup, &[WEB]);
    assert_path(lab, setup, "-I");
}

/// Every hop that can answer does, the last is the VIP, and no address of a backend shows.
#[track_caller]
fn assert_path(lab: &Lab, setup: &Setup, kind: &str) {
    let (router, vip) = (setup.pick("198.51.100.1", "2001:db8:1::1"), setup.vip());
    let ip = setup.pick("-4", "-6");
    let line = format!("traceroute {ip} -n {kind} -q 1 -N 1 -w 2 -m 8 {vip}");
    let report = lab.client().run(&line).succeeded();
    let hops: Vec<&str> = report.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
    let possible: &[&[&str]] = match (setup.engine, setup.nat) {
        // It translates its own errors like any other, so the VIP stands for the router too.
        (Engine::Kernel, _) => &[&[vip], &[vip, vip]],
        // The router before the TUN, we, the router behind it, the backend; or an echo that we answer ourselves.
        (Engine::Tungate { .. }, Nat::Full) => &[&[router, vip], &[router, vip, vip, vip]],
        // The router behind the TUN knows the client's address: its error goes there by itself, past the TUN, quotes
        // what the client has never sent, and is ignored.
        (Engine::Tungate { .. }, Nat::Destination) => &[&[router, vip, "*", vip]],
    };
    assert!(possible.contains(&&hops[..]), "{report}");
    assert!(!report.contains('!'), "the last hop must look like the end, not like an error\n{report}");
}
