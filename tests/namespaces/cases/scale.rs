//! Many connections at the same time.

use std::fs;
use std::time::Duration;

use super::{everything, in_setups};
use crate::gateway::{Engine, Family, Gateway, Nat, Service, Setup, Tungate};
use crate::lab::Lab;
use crate::runner::Case;
use crate::servers::{self, ECHO};

const TCP_ECHO: Service = Service { protocol: "tcp", port: 7, to_port: ECHO, backends: &["b1", "b2"] };
const CONNECTIONS: usize = 10_000;

/// An address that the gateway has after a reload only.
const LATER: &str = "192.0.2.77:7";

pub(super) fn cases() -> Vec<Case> {
    let mut cases = in_setups("ten_thousand_connections_at_once", &[], everything(), connections);
    let two = Setup { engine: Engine::Tungate { workers: 2 }, family: Family::V4, nat: Nat::Destination };
    cases.extend(in_setups("addresses_of_a_reload_are_steered_too", &[], [two], steered_after_a_reload));
    cases
}

fn connections(lab: &Lab, setup: &Setup) {
    let _servers = servers::echo(lab, setup, "tcp");
    let gateway = Gateway::start(lab, setup, &[TCP_ECHO]);
    let mut client = lab.client().start_helper(&format!("connections {} {CONNECTIONS}", setup.vip_with(7)));
    client.has_printed(&format!("open {CONNECTIONS}\n"));
    for name in TCP_ECHO.backends {
        let sockets = lab.backend(name).run(&format!("ss -Hnt state established sport = :{ECHO}")).succeeded();
        assert_eq!(sockets.lines().count(), CONNECTIONS / 2, "connections that {name} holds");
    }
    if let Gateway::Tungate(gateway) = &gateway {
        let flows = gateway.ask("show flows --count --state established").succeeded();
        assert_eq!(flows.trim(), CONNECTIONS.to_string());
        assert_steered(gateway);
    }
    client.go_on();
    client.has_printed(&format!("verified {CONNECTIONS}\n"));
    client.finish(Duration::from_secs(30)).succeeded();
}

fn steered_after_a_reload(lab: &Lab, setup: &Setup) {
    let _servers = servers::echo(lab, setup, "tcp");
    let Gateway::Tungate(gateway) = Gateway::start(lab, setup, &[TCP_ECHO]) else { unreachable!("not the kernel") };
    let file = lab.folder().join("tungate.toml");
    let before = fs::read_to_string(&file).expect("it was started with it");
    let listen = format!("\"{}\"", setup.vip_with(7));
    let after = before.replace(&listen, &format!("\"{LATER}\""));
    assert_ne!(before, after);
    fs::write(&file, after).expect("the lab's folder takes files");
    gateway.ask("reload").succeeded();
    let mut client = lab.client().start_helper(&format!("connections {LATER} 1000"));
    client.has_printed("open 1000\n");
    client.go_on();
    client.has_printed("verified 1000\n");
    client.finish(Duration::from_secs(30)).succeeded();
    assert_steered(&gateway);
}

/// The kernel has brought every packet to the worker that its flow belongs to.
fn assert_steered(gateway: &Tungate<'_>) {
    let workers = gateway.items("show workers");
    assert!(workers.iter().all(|worker| worker["handed_over"] == 0), "{workers:#?}");
    assert!(workers.iter().all(|worker| worker["packets_in"].as_u64() > Some(0)), "a worker is idle: {workers:#?}");
}
