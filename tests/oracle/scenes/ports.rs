//! Source ports: who keeps the own one, and who gets another.

use tungate::wire::{Address, Endpoint, build};

use super::Scene;
use crate::pair::{Flow, Pair};
use crate::support::segment;

pub(super) const SCENES: &[(&str, Scene)] = &[
    ("clients with the same port", clients_with_the_same_port),
    ("every service's own flows", every_services_own_flows),
];

/// R29: each of them is told apart from all others, whatever ports the two gateways choose.
fn clients_with_the_same_port(pair: &mut Pair, is_v6: bool) {
    for service in ["web", "dns"] {
        for port in [80, 1023, 1024, 50_000] {
            let first = pair.flow(service, is_v6);
            let flows: Vec<Flow> =
                (1..=20).map(|n| Flow { client: neighbour(first.client.address, n, port), ..first }).collect();
            for flow in &flows {
                pair.client_sends(flow, first_packet(flow.client, flow.vip, service)).same(1);
            }
            for flow in flows {
                pair.backend_sends(&flow, |to| first_answer(flow.backend, to, service)).same(1);
            }
        }
    }
}

fn neighbour(address: Address, n: u8, port: u16) -> Endpoint {
    let mut octets = *address.octets();
    octets[13] = 100 + n;
    let address = if address.is_v4() {
        Address::v4([octets[12], octets[13], octets[14], octets[15]])
    } else {
        Address::v6(octets)
    };
    Endpoint::new(address, port)
}

fn first_packet(from: Endpoint, to: Endpoint, service: &str) -> Vec<u8> {
    if service == "web" { build::tcp(from, to, &segment("SYN", 1, 0)) } else { build::udp(from, to, b"?") }
}

fn first_answer(from: Endpoint, to: Endpoint, service: &str) -> Vec<u8> {
    if service == "web" { build::tcp(from, to, &segment("SYN ACK", 7, 2)) } else { build::udp(from, to, b"!") }
}

/// R34: TCP and UDP of the same port pair have nothing to do with each other.
fn every_services_own_flows(pair: &mut Pair, is_v6: bool) {
    let web = pair.flow("web", is_v6);
    let dns = Flow { client: web.client, ..pair.flow("dns", is_v6) };
    for (flow, service) in [(web, "web"), (dns, "dns")] {
        pair.client_sends(&flow, first_packet(flow.client, flow.vip, service)).same(1);
        pair.backend_sends(&flow, |to| first_answer(flow.backend, to, service)).same(1);
    }
}
