//! Another configuration, and backends in maintenance, while clients go on.

use std::fs;
use std::thread;
use std::time::Duration;

use super::in_setups;
use crate::gateway::{Engine, Family, Nat, Setup, Tungate};
use crate::lab::Lab;
use crate::process::{PATIENCE, Running, wait_for};
use crate::runner::Case;
use crate::servers::{self, ECHO};

const CONNECTIONS: usize = 500;
const RELOADS: usize = 50;
/// New connections a second meanwhile.
const RATE: usize = 100;

pub(super) fn cases() -> Vec<Case> {
    let setups =
        [1, 2].map(|workers| Setup { engine: Engine::Tungate { workers }, family: Family::V4, nat: Nat::Full });
    let mut cases = in_setups("fifty_reloads_break_no_connection", &[], setups, reloads);
    cases.extend(in_setups("a_rolling_restart_fails_no_request", &[], [setups[0]], rolling));
    cases
}

/// Both backends, with what varies.
fn configuration(setup: &Setup, nth: usize) -> String {
    let Engine::Tungate { workers } = setup.engine else { unreachable!("not asked of the kernel") };
    let backend =
        |name: &str, more: &str| format!("{{ name = \"{name}\", address = \"{}:{ECHO}\"{more} }}", setup.backend(name));
    let (b1, b2) = (backend("b1", ""), backend("b2", ""));
    let (more, backends, limits) = match nth % 6 {
        0 => ("", format!("{b1}, {b2}"), ""),
        1 => ("", b1, ""),
        2 => ("balance = \"round-robin\"\n", format!("{b2}, {}", backend("b1", ", weight = 5")), ""),
        3 => ("", b2, "new-flows = \"10k/s\"\n"),
        4 => ("balance = \"least-connections\"\n", format!("{}, {b2}", backend("b1", ", backup = true")), ""),
        _ => ("", format!("{b2}, {b1}"), "max-flows = 50_000\n"),
    };
    let mut text = format!(
        "[gateway]\nworkers = {workers}\nsource-addresses = [\"10.99.0.10\"]\n\
         [[service]]\nname = \"echo\"\nlisten = \"{}\"\n{more}backends = [{backends}]\n[service.limits]\n{limits}",
        setup.vip_with(7)
    );
    if nth % 2 == 1 {
        text +=
            &format!("[[service]]\nname = \"other\"\nlisten = \"192.0.2.77:7\"\nbackends = [{}]\n", backend("b1", ""));
    }
    text
}

fn reloads(lab: &Lab, setup: &Setup) {
    let _servers = servers::echo(lab, setup, "tcp");
    let gateway = Tungate::start(lab, &configuration(setup, 0));
    let mut old = lab.client().start_helper(&format!("talk {CONNECTIONS} {}", setup.vip_with(7)));
    old.has_printed(&format!("open {CONNECTIONS}\n"));
    let mut new = lab.client().start_helper(&format!("visits {} {RATE}", setup.vip_with(7)));

    let file = lab.folder().join("tungate.toml");
    for nth in 1..=RELOADS {
        fs::write(&file, gateway.placed(&configuration(setup, nth))).expect("the lab's folder takes files");
        let plan = gateway.ask("plan").succeeded();
        assert!(plan.ends_with(" 0 lost\n") && plan.lines().count() > 1, "{plan}");
        let changes = |text: &str| text.lines().filter(|line| !line.starts_with("flows")).map(str::to_owned).collect();
        let (planned, done): (Vec<String>, Vec<String>) = (changes(&plan), changes(&gateway.ask("reload").succeeded()));
        assert_eq!(planned, done, "the plan that is printed is the plan that is applied");
        thread::sleep(Duration::from_millis(100));
        if nth == RELOADS / 2 {
            fs::write(&file, "[[service]]\n").expect("the lab's folder takes files");
            assert_eq!(gateway.ask("reload").status.code(), Some(1));
        }
    }
    for client in [&mut old, &mut new] {
        client.go_on();
    }
    let said = old.finish(PATIENCE).succeeded();
    assert!(said.contains(&format!("verified {CONNECTIONS} in ")), "{said}");
    assert_all_served(&mut new, RATE * RELOADS / 20);
}

/// All requests of a `visits` were answered, and there were so many.
#[track_caller]
fn assert_all_served(visits: &mut Running, least: usize) {
    let said = visits.finish(PATIENCE).succeeded();
    let count = |word: &str| {
        let place = said.find(word).unwrap_or_else(|| panic!("no `{word}` in {said}"));
        let number = said[place + word.len()..].split(|c: char| !c.is_ascii_digit()).next();
        number.and_then(|number| number.parse::<usize>().ok()).unwrap_or_else(|| panic!("{said}"))
    };
    assert!(count("failed ") == 0 && count("served ") >= least, "{said}");
}

fn rolling(lab: &Lab, setup: &Setup) {
    let start = |name: &'static str| {
        let host = lab.backend(name);
        let server = host.start_helper(&format!("tcp-echo {}:{ECHO}", setup.backend(name)));
        host.listens("-t", ECHO);
        server
    };
    let mut servers = [("b1", start("b1")), ("b2", start("b2"))];
    let gateway = Tungate::start(lab, &configuration(setup, 0));
    let mut new = lab.client().start_helper(&format!("visits {} {RATE}", setup.vip_with(7)));
    for (name, server) in &mut servers {
        gateway.ask(&format!("drain echo/{name} --for 10m --reason restart")).succeeded();
        wait_for("its flows are over", || {
            let flows = gateway.items(&format!("show flows --backend echo/{name}"));
            flows.iter().all(|flow| flow["state"] == "time-wait" || flow["state"] == "close").then_some(())
        });
        server.signal("KILL");
        server.finish(PATIENCE);
        thread::sleep(Duration::from_millis(300)); // The server is away for a while.
        *server = start(name);
        gateway.ask(&format!("enable echo/{name}")).succeeded();
    }
    thread::sleep(Duration::from_millis(300));
    new.go_on();
    assert_all_served(&mut new, RATE / 4);
    let backends = gateway.items("show backends");
    assert!(backends.iter().all(|backend| backend["flows_opened"].as_u64() > Some(0)), "{backends:#?}");
}
