//! Backends that stop, hang, or are cut off while clients come, and tunnels that do not work.

use std::time::Duration;

use super::in_setups;
use crate::gateway::{Engine, Family, Nat, Setup, Tungate};
use crate::lab::Lab;
use crate::process::{PATIENCE, Running, wait_for};
use crate::runner::Case;
use crate::servers::{self, HTTP};

/// Requests in each second.
const RATE: u32 = 100;

pub(super) fn cases() -> Vec<Case> {
    let one = || [Setup { engine: Engine::Tungate { workers: 1 }, family: Family::V4, nat: Nat::Full }];
    let both = || [Family::V4, Family::V6].map(|family| Setup { family, ..one()[0] });
    let mut cases = in_setups("a_killed_backend_is_left_at_once", &["nginx"], both(), killed);
    cases.extend(in_setups("a_hanging_backend_is_left_in_time", &["nginx"], one(), hanging));
    cases.extend(in_setups("a_backend_behind_a_firewall_is_left_in_time", &["nft", "nginx"], one(), cut_off));
    cases.extend(in_setups("flows_tell_sooner_than_checks", &["nft", "nginx"], one(), passive));
    cases.extend(in_setups("connections_of_a_dead_backend_are_reset_if_so_wished", &["nft"], one(), reset));
    cases.extend(in_setups("a_service_without_backends_refuses", &["curl"], both(), refused));
    cases.extend(in_setups("a_tunnel_that_does_not_work_says_why", &["nginx"], both(), tunnels));
    cases
}

/// A gateway for `b1` and `b2` on port 80, with these lines behind the service, and both backends up.
pub(super) fn gateway<'a>(lab: &'a Lab, setup: &Setup, lines: &str) -> Tungate<'a> {
    let backend = |name| {
        let address = setup.backend(name);
        let address = setup.pick(format!("{address}:{HTTP}"), format!("[{address}]:{HTTP}"));
        format!("{{ name = \"{name}\", address = \"{address}\" }}")
    };
    let gateway = Tungate::start(
        lab,
        &format!(
            "[gateway]\nname = \"lab\"\nsource-addresses = [\"10.99.0.10\", \"fd00:99::10\"]\n\n[[service]]\n\
             name = \"web\"\nlisten = \"{}\"\nbalance = \"round-robin\"\nbackends = [{}, {}]\n{lines}",
            setup.vip_with(80),
            backend("b1"),
            backend("b2")
        ),
    );
    for name in ["b1", "b2"] {
        becomes(&gateway, name, "up", "");
    }
    gateway
}

/// Waits until a backend is this, and a reason with these words is given.
#[track_caller]
pub(super) fn becomes(gateway: &Tungate<'_>, name: &str, health: &str, why: &str) {
    let mut last = String::new();
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_for(&format!("{name} is {health}"), || {
            let items = gateway.items("show backends");
            let row = items.iter().find(|row| row["name"] == *name).expect("it is configured");
            last = row.to_string();
            let reason = row["health_reason"].as_str().unwrap_or_default();
            (row["health"] == *health && reason.contains(why)).then_some(())
        });
    }));
    assert!(found.is_ok(), "{name} does not become {health} for `{why}`: {last}");
}

/// Requests at a steady rate, each on a connection of its own, until standard input ends.
pub(super) fn load(lab: &Lab, setup: &Setup) -> Running {
    let mut load = lab.client().start_helper(&format!("requests {} {RATE}", setup.vip_with(80)));
    load.has_printed("running\n");
    load
}

/// How the requests ended: served, failed, and how many milliseconds lie between the first and the last failure.
pub(super) fn outcome(load: &mut Running) -> (u64, u64, u64) {
    let said = load.finish(Duration::from_secs(30)).succeeded();
    let line = said.lines().last().expect("a last line");
    let numbers: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [served, failed, span] = numbers[..] else { panic!("{said}") };
    crate::runner::say(&mut std::io::stdout(), line);
    crate::runner::say(&mut std::io::stdout(), "; ");
    (served, failed, span)
}

pub(super) const QUICK: &str = "[service.health]\ninterval = \"500ms\"\ntimeout = \"500ms\"\nrise = 2\nfall = 1\n";

fn killed(lab: &Lab, setup: &Setup) {
    let mut servers = servers::nginx(lab, setup);
    let gateway = gateway(lab, setup, QUICK);
    let mut load = load(lab, setup);
    kill(servers.remove(0));
    becomes(&gateway, "b1", "down", "connection refused");
    becomes(&gateway, "b2", "up", "");
    std::thread::sleep(Duration::from_secs(1));
    let (served, failed, span) = outcome(&mut load);
    // Interval and timeout, twice over: the machine may be busy.
    assert!(served > 100 && failed < u64::from(RATE) * 2 && span < 3_000, "{served} {failed} {span}");
}

/// nginx' master takes its workers with it only if it is told to.
pub(super) fn kill(mut server: Running) {
    server.signal("TERM");
    server.finish(PATIENCE);
}

fn hanging(lab: &Lab, setup: &Setup) {
    let servers = servers::nginx(lab, setup);
    let http = QUICK.replace("interval", "check = \"http\"\ninterval");
    let gateway = gateway(lab, setup, &http);
    let mut load = load(lab, setup);
    let workers = lab.backend("b1").run(&format!("pgrep -P {}", servers[0].id())).succeeded();
    let signal = |name: &str| {
        for worker in workers.split_whitespace() {
            lab.backend("b1").run(&format!("kill -{name} {worker}")).succeeded();
        }
    };
    signal("STOP");
    becomes(&gateway, "b1", "down", "no answer");
    std::thread::sleep(Duration::from_secs(1));
    signal("CONT");
    becomes(&gateway, "b1", "up", "");
    let (served, failed, span) = outcome(&mut load);
    assert!(served > 100 && failed < u64::from(RATE) * 2, "{served} {failed} {span}");
}

/// Drops what comes from the gateway to the backend.
pub(super) fn firewall(lab: &Lab, name: &'static str, closed: bool) {
    let host = lab.backend(name);
    if !closed {
        host.run("nft delete table inet wall").succeeded();
        return;
    }
    let file = lab.folder().join("wall.nft");
    let rule = format!("type filter hook input priority 0;\ntcp dport {HTTP} drop");
    let text = format!("table inet wall {{\nchain incoming {{\n{rule}\n}}\n}}\n");
    std::fs::write(&file, text).expect("the lab's folder takes files");
    host.run(&format!("nft -f {}", file.display())).succeeded();
}

fn cut_off(lab: &Lab, setup: &Setup) {
    let _servers = servers::nginx(lab, setup);
    let gateway = gateway(lab, setup, &format!("{QUICK}slow-start = \"2s\"\n"));
    let mut load = load(lab, setup);
    firewall(lab, "b1", true);
    becomes(&gateway, "b1", "down", "connect timeout");
    std::thread::sleep(Duration::from_secs(1));
    firewall(lab, "b1", false);
    becomes(&gateway, "b1", "up", "");
    let opened = |name: &str| {
        let items = gateway.items("show backends");
        let row = items.iter().find(|row| row["name"] == *name).expect("it is configured");
        row["flows_opened"].as_u64().expect("a number")
    };
    let before = ["b1", "b2"].map(opened);
    std::thread::sleep(Duration::from_millis(600));
    let after = ["b1", "b2"].map(opened);
    let [slow, usual] = [after[0] - before[0], after[1] - before[1]];
    assert!(slow > 0 && slow * 3 < usual * 2, "{slow} new flows, and {usual} of the other: it climbs");
    let (served, failed, span) = outcome(&mut load);
    assert!(served > 100 && failed < u64::from(RATE) * 2, "{served} {failed} {span}");
}

fn passive(lab: &Lab, setup: &Setup) {
    let _servers = servers::nginx(lab, setup);
    let slow = "[service.health]\ninterval = \"60s\"\n[service.passive]\nfailures = 5\neject-for = \"3s\"\n";
    let gateway = gateway(lab, setup, slow);
    let mut load = load(lab, setup);
    firewall(lab, "b1", true);
    becomes(&gateway, "b1", "down", "new flows failed in a row: no answer to a SYN");
    firewall(lab, "b1", false);
    becomes(&gateway, "b1", "up", "");
    let (served, failed, span) = outcome(&mut load);
    assert!(served > 100 && failed < u64::from(RATE) * 3, "{served} {failed} {span}");
}

fn reset(lab: &Lab, setup: &Setup) {
    let start = |name: &'static str| {
        let server = lab.backend(name).start_helper(&format!("tcp-echo {}:{HTTP}", setup.backend(name)));
        lab.backend(name).listens("-t", HTTP);
        server
    };
    let _servers = ["b1", "b2"].map(start);
    let gateway = gateway(lab, setup, &format!("{QUICK}on-down = \"reset\"\n"));
    let mut talk = lab.client().start_helper(&format!("talk 20 {}", setup.vip_with(80)));
    talk.has_printed("open 20\n");
    firewall(lab, "b1", true);
    becomes(&gateway, "b1", "down", "connect timeout");
    let output = talk.finish(Duration::from_secs(20));
    assert!(output.stderr.contains("reset by peer"), "{}", output.report());
    let flows = gateway.items("show flows --state established");
    assert!(flows.iter().all(|flow| flow["backend"] == "b2"), "{flows:?}");
}

/// Nobody is up: a client is told at once.
fn refused(lab: &Lab, setup: &Setup) {
    let servers = servers::nginx(lab, setup);
    let gateway = gateway(lab, setup, QUICK);
    servers.into_iter().for_each(kill);
    for name in ["b1", "b2"] {
        becomes(&gateway, name, "down", "connection refused");
    }
    let output = lab.client().run(&format!("curl -sS --globoff --max-time 10 http://{}/", setup.vip_with(80)));
    assert_eq!(output.status.code(), Some(7), "curl is refused: {}", output.report());
}

fn tunnels(lab: &Lab, setup: &Setup) {
    let _servers = servers::nginx_everywhere(lab, 80);
    lab.connect_backends_to_the_client();
    let backend = setup.pick("10.0.0.1".to_owned(), "fd00::1".to_owned());
    let configuration = |encapsulation: &str| {
        format!(
            "[gateway]\nname = \"lab\"\nsource-addresses = [\"10.99.0.10\", \"fd00:99::10\"]\n\n[[service]]\n\
             name = \"web\"\nlisten = \"{}\"\nmode = \"dsr\"\nencapsulation = \"{encapsulation}\"\n\
             backends = [{{ name = \"b1\", address = \"{backend}\" }}]\n{QUICK}",
            setup.vip_with(80)
        )
    };
    let gateway = Tungate::start(lab, &configuration("gre"));
    let file = lab.folder().join("tungate.toml");
    let host = lab.backend("b1");
    let decap = || {
        let decap = host.start(&format!("{} decap -c {}", env!("CARGO_BIN_EXE_tungate"), file.display()));
        becomes(&gateway, "b1", "up", "");
        decap
    };
    becomes(&gateway, "b1", "down", "takes none of this kind");
    let running = decap();
    let vip = format!("{}/{}", setup.vip(), setup.pick(32, 128));
    // decap has put it on its TUN, too.
    for line in host.run(&format!("ip -o address show to {vip}")).succeeded().lines() {
        let device = line.split_whitespace().nth(1).expect("number, device, and so on");
        host.run(&format!("ip address del {vip} dev {device}")).succeeded();
    }
    let missing = setup.pick("no answer from VIP, though the backend answers itself", "has no way to the VIP");
    becomes(&gateway, "b1", "down", missing);
    host.run(&format!("ip address add {vip} dev lo")).succeeded();
    becomes(&gateway, "b1", "up", "");
    if setup.family == Family::V4 {
        host.run("sysctl -qw net.ipv4.conf.all.rp_filter=1").succeeded();
        becomes(&gateway, "b1", "down", "rp_filter");
        host.run("sysctl -qw net.ipv4.conf.all.rp_filter=0").succeeded();
        becomes(&gateway, "b1", "up", "");
    }
    drop(running);
    becomes(&gateway, "b1", "down", "tunnel: ");
}
