//! Two gateways: one takes over when the other fails, and what clients notice of it.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use super::in_setups;
use crate::gateway::{Engine, Family, Nat, Setup, Tungate};
use crate::lab::{Host, Lab};
use crate::process::{Running, wait_for};
use crate::runner::Case;
use crate::servers::{self, ECHO};

/// Connections that talk all the time.
const CONNECTIONS: usize = 200;

pub(super) fn cases() -> Vec<Case> {
    let setups = || {
        [(1, Family::V4), (2, Family::V6)].map(|(workers, family)| Setup {
            engine: Engine::Tungate { workers },
            family,
            nat: Nat::Full,
        })
    };
    let one = || [setups()[0]];
    let mut cases = in_setups("a_killed_gateway_loses_no_connection", &[], setups(), killed);
    cases.extend(in_setups("the_role_is_handed_to_and_fro", &[], setups(), handed_over));
    cases.extend(in_setups("a_gateway_that_ends_hands_over", &[], one(), ended));
    cases.extend(in_setups("a_gateway_that_stood_still_forwards_nothing_old", &[], one(), stood_still));
    cases.extend(in_setups("operators_orders_are_obeyed_or_refused_with_the_reason", &[], one(), ordered));
    cases.extend(in_setups("a_stranger_changes_nothing_but_counters", &[], one(), stranger));
    cases.extend(in_setups("a_key_that_others_can_read_is_refused", &[], one(), open_key));
    cases
}

/// The host's end of the nth path, and the other's.
fn ends(host: Host<'_>) -> (String, String) {
    let of = |n: u8| format!("[\"10.0.5.{n}:7946\", \"198.51.100.1{n}:7946\", \"10.0.0.1{n}:7946\"]");
    if host.name == "gw" { (of(1), of(2)) } else { (of(2), of(1)) }
}

fn configuration(host: Host<'_>, setup: &Setup) -> String {
    let Engine::Tungate { workers } = setup.engine else { unreachable!("the kernel has no pair") };
    let (listen, peer) = ends(host);
    let key = key_file(host.lab);
    let backend = |name: &str| format!("{{ name = \"{name}\", address = \"{}\" }}", setup.at(name, ECHO));
    let (vip, b1, b2) = (setup.vip_with(7), backend("b1"), backend("b2"));
    format!(
        "[gateway]\nname = \"{name}\"\nworkers = {workers}\nsource-addresses = [\"10.99.0.10\", \"fd00:99::10\"]\n\
         announce-on = [\"ext\", \"int\"]\n[[service]]\nname = \"echo\"\nlisten = \"{vip}\"\nbackends = [{b1}, {b2}]\n\
         [service.health]\ncheck = \"none\"\n[ha]\nlisten = {listen}\npeer = {peer}\nkey-file = \"{key}\"\n",
        name = host.name,
    )
}

fn key_file(lab: &Lab) -> String {
    lab.folder().join("ha.key").to_str().expect("the temporary folder's path is UTF-8").to_owned()
}

/// Both gateways, the first active, the second ready to take over; and echo servers.
struct Pair<'a> {
    active: Tungate<'a>,
    standby: Tungate<'a>,
    _servers: Vec<Running>,
}

impl<'a> Pair<'a> {
    #[track_caller]
    fn start(lab: &'a Lab, setup: &Setup) -> Self {
        let (first, second) = (lab.gateway(), lab.second_gateway());
        first.run(&format!("{} ha keygen {}", env!("CARGO_BIN_EXE_tungate"), key_file(lab))).succeeded();
        let servers = servers::echo(lab, setup, "tcp");
        let active = Tungate::start_on(first, &configuration(first, setup));
        is(&active, "SOLO");
        let standby = Tungate::start_on(second, &configuration(second, setup));
        is_ready(&standby);
        is(&active, "ACTIVE");
        Self { active, standby, _servers: servers }
    }
}

fn status(gateway: &Tungate<'_>) -> Value {
    gateway.items("ha status").remove(0)
}

#[track_caller]
fn is(gateway: &Tungate<'_>, state: &str) {
    wait_for(&format!("a gateway that is {state}"), || (status(gateway)["state"] == *state).then_some(()));
}

#[track_caller]
fn is_ready(gateway: &Tungate<'_>) {
    wait_for("a standby that is ready", || {
        let status = status(gateway);
        (status["state"] == "STANDBY" && status["ready"] == true).then_some(())
    });
}

/// Connections that talk all the time, from now on.
fn talking(lab: &Lab, setup: &Setup) -> Running {
    let mut client = lab.client().start_helper(&format!("talk {CONNECTIONS} {}", setup.vip_with(7)));
    client.has_printed(&format!("open {CONNECTIONS}\n"));
    client
}

/// Each of them was heard, to the last word.
#[track_caller]
fn all_have_talked(mut client: Running) {
    client.go_on();
    client.has_printed(&format!("verified {CONNECTIONS} in"));
    client.finish(Duration::from_secs(30)).succeeded();
}

fn killed(lab: &Lab, setup: &Setup) {
    let Pair { mut active, standby, _servers } = Pair::start(lab, setup);
    let client = talking(lab, setup);
    active.signal("KILL");
    active.ended();
    is(&standby, "SOLO");
    all_have_talked(client);
    all_have_talked(talking(lab, setup));
    // Who comes back is the standby, and has all flows.
    let host = lab.gateway();
    let client = talking(lab, setup);
    let back = Tungate::start_on(host, &configuration(host, setup));
    is_ready(&back);
    is(&standby, "ACTIVE");
    let mut dead = standby;
    dead.signal("KILL");
    dead.ended();
    is(&back, "SOLO");
    all_have_talked(client);
}

fn handed_over(lab: &Lab, setup: &Setup) {
    let Pair { mut active, mut standby, _servers } = Pair::start(lab, setup);
    let client = talking(lab, setup);
    for _ in 0..6 {
        let said = active.ask("ha flip --wait 10s").succeeded();
        assert!(said.contains("is standby"), "{said}");
        is_ready(&active);
        is(&standby, "ACTIVE");
        std::mem::swap(&mut active, &mut standby);
    }
    all_have_talked(client);
}

fn ended(lab: &Lab, setup: &Setup) {
    let Pair { mut active, standby, _servers } = Pair::start(lab, setup);
    let client = talking(lab, setup);
    active.signal("TERM");
    assert!(active.ended().status.success());
    is(&standby, "SOLO");
    let transitions = status(&standby)["transitions"].to_string();
    assert!(!transitions.contains("silent"), "it did not have to wait: {transitions}");
    all_have_talked(client);
}

fn stood_still(lab: &Lab, setup: &Setup) {
    let Pair { active, standby, _servers } = Pair::start(lab, setup);
    let client = talking(lab, setup);
    active.signal("STOP");
    is(&standby, "SOLO");
    active.signal("CONT");
    is_ready(&active);
    is(&standby, "ACTIVE");
    all_have_talked(client);
    let transitions = status(&active)["transitions"].to_string();
    assert!(transitions.contains("FENCED"), "it was held up: {transitions}");
}

fn ordered(lab: &Lab, setup: &Setup) {
    let Pair { active, standby, _servers } = Pair::start(lab, setup);
    let refused = |gateway: &Tungate<'_>, words: &str, why: &str| {
        let output = gateway.ask(words);
        assert_eq!(output.status.code(), Some(4), "{}", output.report());
        assert!(output.stderr.contains(why), "{}", output.report());
    };
    refused(&standby, "ha flip", "ask the active one");
    refused(&standby, "ha promote", "alive and active");
    refused(&active, "ha promote", "active already");
    refused(&active, "ha resume", "nothing to resume");
    active.ask("ha standby --wait 10s").succeeded();
    is(&active, "MAINT");
    is(&standby, "SOLO");
    refused(&standby, "ha flip", "MAINT");
    active.ask("ha resume").succeeded();
    is_ready(&active);
    is(&standby, "ACTIVE");
    let said = active.ask("show ha -o wide").succeeded();
    assert!(said.contains("ready: a takeover loses nothing"), "{said}");
}

/// Somebody at the peer's address, with a key of his own.
fn stranger(lab: &Lab, setup: &Setup) {
    let (first, second) = (lab.gateway(), lab.second_gateway());
    let keygen = |host: Host<'_>| {
        let line = format!("{} ha keygen {}", env!("CARGO_BIN_EXE_tungate"), key_file(lab));
        host.run(&line).succeeded();
    };
    keygen(first);
    let gateway = Tungate::start_on(first, &configuration(first, setup));
    is(&gateway, "SOLO");
    let epoch = status(&gateway)["epoch"].clone();
    fs::remove_file(key_file(lab)).expect("it is there");
    keygen(second);
    let stranger = Tungate::start_on(second, &configuration(second, setup));
    let refused = |gateway: &Tungate<'_>| {
        let rejected = status(gateway)["rejected"].clone();
        let rows = rejected.as_array().expect("a list").iter();
        rows.filter(|row| row["reason"] == "forged").filter_map(|row| row["packets"].as_u64()).sum::<u64>()
    };
    wait_for("greetings that are refused", || (refused(&gateway) > 100).then_some(()));
    let now = status(&gateway);
    assert_eq!((&now["state"], &now["epoch"]), (&Value::from("SOLO"), &epoch));
    assert_eq!(now["peer"]["state"], Value::Null, "nobody was heard");
    assert!(refused(&stranger) > 100, "nor does the stranger hear anybody");
}

fn open_key(lab: &Lab, setup: &Setup) {
    let host = lab.gateway();
    lab.second_gateway();
    host.run(&format!("{} ha keygen {}", env!("CARGO_BIN_EXE_tungate"), key_file(lab))).succeeded();
    host.run(&format!("chmod 644 {}", key_file(lab))).succeeded();
    let file = lab.folder().join("open.toml");
    fs::write(&file, configuration(host, setup)).expect("the lab's folder takes files");
    let output = host.run(&format!("{} run -c {}", env!("CARGO_BIN_EXE_tungate"), file.display()));
    assert_eq!(output.status.code(), Some(4), "{}", output.report());
    assert!(output.stderr.contains("chmod 600"), "{}", output.report());
}
