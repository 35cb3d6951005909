//! Where flows go when backends are down, how one comes back, and what a tunnel of another kind is told by.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use super::health::{QUICK, becomes, firewall, gateway, kill, load, outcome};
use super::in_setups;
use crate::gateway::{Engine, Family, Nat, Setup, Tungate};
use crate::lab::Lab;
use crate::process::{Running, wait_for};
use crate::runner::{Case, say};
use crate::servers::{self, HTTP};

pub(super) fn cases() -> Vec<Case> {
    let one = || [Setup { engine: Engine::Tungate { workers: 1 }, family: Family::V4, nat: Nat::Full }];
    let both = || [Family::V4, Family::V6].map(|family| Setup { family, ..one()[0] });
    let mut cases = in_setups("backups_serve_when_nobody_else_does", &["curl", "nginx"], both(), backups);
    cases.extend(in_setups("a_panic_serves_by_all_that_are_down", &["curl", "nginx"], one(), panics));
    cases.extend(in_setups("a_backend_that_comes_back_climbs", &["nft", "nginx"], one(), climbs));
    cases.extend(in_setups("a_tunnel_of_another_kind_says_so", &["nginx"], both(), another_kind));
    cases
}

/// Who answers six requests, each on a connection of its own.
fn served_by(lab: &Lab, setup: &Setup) -> BTreeSet<String> {
    let url = format!("http://{}/", setup.vip_with(80));
    let fetch = |_| lab.client().run(&format!("curl -sS --globoff --max-time 5 {url}")).succeeded();
    (0..6).map(fetch).map(|text| text[..2].to_owned()).collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Puts another configuration in force.
fn reload(lab: &Lab, gateway: &Tungate<'_>, configuration: &str) {
    let file = lab.folder().join("tungate.toml");
    fs::write(&file, gateway.placed(configuration)).expect("the lab's folder takes files");
    gateway.ask("reload").succeeded();
}

fn backups(lab: &Lab, setup: &Setup) {
    let mut servers = servers::nginx(lab, setup);
    let gateway = gateway(lab, setup, QUICK);
    let file = lab.folder().join("tungate.toml");
    let text = fs::read_to_string(&file).expect("it was started with it");
    fs::write(&file, text.replace("{ name = \"b2\"", "{ backup = true, name = \"b2\"")).expect("it takes files");
    gateway.ask("reload").succeeded();
    assert_eq!(served_by(lab, setup), names(&["b1"]));
    firewall(lab, "b1", true);
    becomes(&gateway, "b1", "down", "connect timeout");
    assert_eq!(served_by(lab, setup), names(&["b2"]));
    firewall(lab, "b1", false);
    becomes(&gateway, "b1", "up", "");
    assert_eq!(served_by(lab, setup), names(&["b1"]));
    kill(servers.remove(0));
    kill(servers.remove(0));
    for name in ["b1", "b2"] {
        becomes(&gateway, name, "down", "connection refused");
    }
    let output = lab.client().run(&format!("curl -sS --globoff --max-time 10 http://{}/", setup.vip_with(80)));
    assert_eq!(output.status.code(), Some(7), "curl is refused: {}", output.report());
}

/// Both serve, and whoever checks them is wrong: nobody listens where he asks.
fn panics(lab: &Lab, setup: &Setup) {
    let _servers = servers::nginx(lab, setup);
    let gateway = gateway(lab, setup, QUICK);
    let file = lab.folder().join("tungate.toml");
    let text = fs::read_to_string(&file).expect("it was started with it");
    let asked_elsewhere = text + &format!("port = {}\n", HTTP + 1);
    for (lines, served) in [("panic-threshold = 50\n", true), ("", false), ("panic-threshold = 1\n", true)] {
        fs::write(&file, asked_elsewhere.clone() + lines).expect("the lab's folder takes files");
        gateway.ask("reload").succeeded();
        for name in ["b1", "b2"] {
            becomes(&gateway, name, "down", "connection refused");
        }
        if served {
            assert_eq!(served_by(lab, setup), names(&["b1", "b2"]), "{lines}");
        } else {
            let output = lab.client().run(&format!("curl -sS --max-time 10 http://{}/", setup.vip_with(80)));
            assert_eq!(output.status.code(), Some(7), "curl is refused: {}", output.report());
        }
    }
}

const CLIMB: Duration = Duration::from_secs(5);
const WINDOWS: u32 = 5;

/// In fifths of `slow-start`, and for a while after it: how many of a hundred new flows the backend gets.
fn climbs(lab: &Lab, setup: &Setup) {
    let _servers = servers::nginx(lab, setup);
    let gateway = gateway(lab, setup, &format!("{QUICK}slow-start = \"{}s\"\n", CLIMB.as_secs()));
    let mut load = load(lab, setup);
    let opened = || {
        let items = gateway.items("show backends");
        ["b1", "b2"].map(|name| {
            let row = items.iter().find(|row| row["name"] == *name).expect("it is configured");
            row["flows_opened"].as_u64().expect("a number")
        })
    };
    let share = |time: Duration| {
        let before = opened();
        thread::sleep(time);
        let after = opened();
        let [slow, usual] = [after[0] - before[0], after[1] - before[1]];
        slow * 100 / (slow + usual).max(1)
    };
    // Whoever looks may be held up for so long that it is all over.
    for _ in 0..3 {
        firewall(lab, "b1", true);
        becomes(&gateway, "b1", "down", "connect timeout");
        firewall(lab, "b1", false);
        becomes(&gateway, "b1", "up", "");
        let begun = Instant::now();
        let climbing: Vec<_> = (0..WINDOWS - 1).map(|_| share(CLIMB / WINDOWS)).collect();
        if begun.elapsed() > CLIMB {
            continue;
        }
        thread::sleep(CLIMB.saturating_sub(begun.elapsed()));
        let whole = share(CLIMB / WINDOWS);
        say(&mut std::io::stdout(), &format!("{climbing:?}, then {whole} %; "));
        assert!(climbing[0] < 30 && climbing[0] < climbing[3] && climbing[3] < 50, "{climbing:?}");
        assert!(whole >= 45, "{whole} % in the end");
        outcome(&mut load);
        return;
    }
    panic!("nobody could look while it climbed");
}

fn another_kind(lab: &Lab, setup: &Setup) {
    let _servers = servers::nginx_everywhere(lab, 80);
    lab.connect_backends_to_the_client();
    let backend = setup.pick("10.0.0.1".to_owned(), "fd00::1".to_owned());
    let configuration = |encapsulation: &str| {
        format!(
            "[gateway]\nname = \"lab\"\nsource-addresses = [\"10.99.0.10\", \"fd00:99::10\"]\n\n[[service]]\n\
             name = \"web\"\nlisten = \"{}\"\nmode = \"dsr\"\n{encapsulation}\n\
             backends = [{{ name = \"b1\", address = \"{backend}\" }}]\n{QUICK}",
            setup.vip_with(80)
        )
    };
    let decap = |options: &str| -> Running {
        let from = setup.pick("10.99.0.10", "fd00:99::10");
        let program = env!("CARGO_BIN_EXE_tungate");
        let decap = lab.backend("b1").start(&format!("{program} decap --vip {} --from {from} {options}", setup.vip()));
        wait_for("it takes tunnels apart", || decap.stderr().contains("taking").then_some(()));
        decap
    };
    let gre = "encapsulation = \"gre\"";
    let gateway = Tungate::start(lab, &configuration(gre));
    let keyed = format!("{gre}\ngre-key = 42");
    for (sent, taken, why, mended) in [
        (gre, "ipip", "takes none of this kind", "gre"),
        ("encapsulation = \"ipip\"", "gue", "takes none of this kind", "ipip"),
        ("encapsulation = \"gue\"", "gre,ipip", "takes none of this kind", "gue"),
        (&keyed, "gre", "no answer from VIP, though the backend answers itself", "gre --gre-key 42"),
    ] {
        reload(lab, &gateway, &configuration(sent));
        let wrong = decap(&format!("--encapsulation {taken}"));
        becomes(&gateway, "b1", "down", why);
        end(wrong);
        let right = decap(&format!("--encapsulation {mended}"));
        becomes(&gateway, "b1", "up", "");
        end(right);
        becomes(&gateway, "b1", "down", "tunnel: ");
    }
}

/// It takes its addresses with it.
fn end(mut decap: Running) {
    decap.signal("TERM");
    decap.finish(crate::process::PATIENCE).succeeded();
}
