//! Many connections at the same time.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use super::{everything, in_setups};
use crate::gateway::{Engine, Family, Gateway, Nat, Service, Setup, Tungate};
use crate::lab::Lab;
use crate::process::wait_for;
use crate::runner::{Case, say};
use crate::servers::{self, ECHO, HTTP};

const TCP_ECHO: Service = Service { protocol: "tcp", port: 7, to_port: ECHO, backends: &["b1", "b2"] };
const CONNECTIONS: usize = 10_000;

/// An address that the gateway has after a reload only.
const LATER: &str = "192.0.2.77:7";

pub(super) fn cases() -> Vec<Case> {
    let mut cases = in_setups("ten_thousand_connections_at_once", &[], everything(), connections);
    let two = Setup { engine: Engine::Tungate { workers: 2 }, family: Family::V4, nat: Nat::Destination };
    cases.extend(in_setups("addresses_of_a_reload_are_steered_too", &[], [two], steered_after_a_reload));
    let one = Setup { engine: Engine::Tungate { workers: 1 }, ..two };
    cases.extend(in_setups("ten_thousand_backends_are_checked", &["nginx"], [one], checked));
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

const SERVICES: usize = 500;
const BACKENDS_EACH: usize = 20;
const BACKENDS: usize = SERVICES * BACKENDS_EACH;

/// Every backend has an address of its own, all of them at `b1`; so many have this weight, and the others 1.
fn ten_thousand(weighed: usize) -> String {
    let backend = |n: usize| {
        let weight = if n < weighed { 7 } else { 1 };
        format!("  {{ name = \"b{n}\", address = \"10.1.{}.{}:{HTTP}\", weight = {weight} }},\n", n / 250, n % 250 + 1)
    };
    let service = |n: usize| {
        let backends: String = (n * BACKENDS_EACH..(n + 1) * BACKENDS_EACH).map(backend).collect();
        format!(
            "\n[[service]]\nname = \"s{n}\"\nlisten = \"192.0.2.10:{}\"\nsource-nat = false\nbackends = [\n{backends}]\n",
            n + 1_000
        )
    };
    "[gateway]\nname = \"lab\"\nworkers = 1\n".to_owned() + &(0..SERVICES).map(service).collect::<String>()
}

/// How long it takes until all backends are this.
fn all_are(gateway: &Tungate<'_>, health: &str) -> Duration {
    let begun = Instant::now();
    wait_for(&format!("all backends are {health}"), || {
        thread::sleep(Duration::from_millis(200));
        gateway.items("show backends").iter().all(|row| row["health"] == *health).then_some(())
    });
    begun.elapsed()
}

fn checked(lab: &Lab, _: &Setup) {
    let _servers = servers::nginx_everywhere(lab, HTTP);
    let addresses = |what| lab.backend("b1").run(&format!("ip route {what} local 10.1.0.0/16 dev lo")).succeeded();
    addresses("add");
    lab.gateway().run("ip route add 10.1.0.0/16 via 10.0.0.1").succeeded();
    let gateway = Tungate::start(lab, &ten_thousand(0));
    let tell = |what: &str, took: Duration| say(&mut std::io::stdout(), &format!("{what} {} ms, ", took.as_millis()));
    let timed = |what: &str, work: &dyn Fn()| {
        let begun = Instant::now();
        work();
        tell(what, begun.elapsed());
    };
    tell("all up", all_are(&gateway, "up"));
    let busy_in = |what: &str, work: &dyn Fn()| {
        let before = gateway.busy();
        work();
        for (thread, busy) in gateway.busy() {
            tell(&format!("{thread} {what}"), busy - before.get(&thread).copied().unwrap_or_default());
        }
    };
    busy_in("in 10 s", &|| thread::sleep(Duration::from_secs(10)));
    say(&mut std::io::stdout(), &format!("{} MiB, ", gateway.resident() >> 20));

    assert_eq!(gateway.items("show backends").len(), BACKENDS);
    timed("show backends", &|| drop(gateway.ask("show backends").succeeded()));
    let next = lab.folder().join("next.toml");
    fs::write(&next, gateway.placed(&ten_thousand(BACKENDS))).expect("the lab's folder takes files");
    let plan = format!("plan {}", next.display());
    timed("plan", &|| assert_eq!(gateway.ask(&plan).succeeded().lines().count(), BACKENDS + 1));
    fs::copy(&next, lab.folder().join("tungate.toml")).expect("the lab's folder takes files");
    timed("reload", &|| assert_eq!(gateway.ask("reload").succeeded().lines().count(), BACKENDS + 1));

    // All that is sent to them is lost without a word.
    addresses("del");
    busy_in("meanwhile", &|| tell("all down", all_are(&gateway, "down")));
    timed("show services", &|| drop(gateway.ask("show services").succeeded()));
    addresses("add");
    busy_in("meanwhile", &|| tell("all up again", all_are(&gateway, "up")));
}
