//! How the daemon comes and goes: what it adds, and that it takes all of that away again.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::{both_families, in_setups};
use crate::gateway::{Engine, Family, Gateway, Nat, Service, Setup, Tungate};
use crate::lab::Lab;
use crate::process::{PATIENCE, wait_for};
use crate::runner::Case;
use crate::servers::{self, HTTP, IPERF};

const WEB: Service = Service { protocol: "tcp", port: 80, to_port: HTTP, backends: &["b1", "b2"] };
const BULK: Service = Service { protocol: "tcp", port: 5201, to_port: IPERF, backends: &["b1"] };

pub(super) fn cases() -> Vec<Case> {
    let tungate = || {
        let engines = [Engine::Tungate { workers: 1 }, Engine::Tungate { workers: 2 }];
        engines.into_iter().flat_map(|engine| both_families(engine, Nat::Full)).collect::<Vec<Setup>>()
    };
    let mut cases = in_setups("a_signal_during_traffic_leaves_nothing", &["iperf3"], tungate(), signals);
    cases.extend(in_setups("it_starts_again_after_a_kill", &["curl", "nginx"], tungate(), killed));
    cases.extend(in_setups("a_tun_set_down_and_up_serves_again", &["curl", "nginx"], tungate(), down_and_up));
    cases.extend(in_setups("announced_addresses_are_found", &["arping", "curl", "nginx"], tungate(), announced));
    let keeping = [Setup { engine: Engine::Tungate { workers: 1 }, family: Family::V4, nat: Nat::Destination }];
    let one = [Setup { engine: Engine::Tungate { workers: 1 }, family: Family::V4, nat: Nat::Full }];
    cases.extend(in_setups("a_signal_at_the_start_leaves_nothing", &[], one, signal_at_the_start));
    cases.extend(in_setups("forwarding_that_is_off_is_told", &[], one, without_forwarding));
    cases.extend(in_setups("a_closed_terminal_ends_nothing", &[], one, hung_up));
    cases.extend(in_setups("a_second_gateway_spares_the_first", &[], one, second_gateway));
    cases.extend(in_setups("a_firewall_that_forwards_nothing_is_named", &["curl", "nft", "nginx"], one, closed));
    cases.extend(in_setups("folders_of_the_socket_are_its_owners", &[], one, folders));
    cases.extend(in_setups("a_lab_that_is_up_is_left_alone", &[], one, second_lab));
    let needs = &["curl", "nft", "nginx"];
    cases.extend(in_setups("a_reverse_path_filter_only_harms_rules_by_mark", needs, keeping, filtered));
    cases
}

/// What `doctor` says of rp_filter, and the manual.
fn filtered(lab: &Lab, setup: &Setup) {
    let _servers = servers::nginx(lab, setup);
    let _gateway = Gateway::start(lab, setup, &[WEB]);
    let gateway = lab.gateway();
    let filter = |all: u8, each: u8| {
        let each =
            ["to-client", "to-b1", "to-b2"].map(|port| format!("net.ipv4.conf.{port}.rp_filter={each}")).join(" ");
        gateway.run(&format!("sysctl -qw net.ipv4.conf.all.rp_filter={all} {each}")).succeeded();
    };
    let url = format!("http://{}/", setup.vip_with(80));
    let served = |seconds| lab.client().run(&format!("curl -sS --max-time {seconds} {url}")).status.success();
    let doctor = format!("{} doctor -c {}", env!("CARGO_BIN_EXE_tungate"), lab.folder().join("tungate.toml").display());
    let warned = || gateway.run(&doctor).stdout.contains("rules by mark");
    assert!(!gateway.run(&doctor).stdout.contains("way back"), "the lab has a rule for each backend");
    for (all, each) in [(0, 0), (0, 1), (1, 1), (2, 2)] {
        filter(all, each);
        assert!(served(5) && !warned(), "rules by interface, rp_filter {all} for all and {each} for each");
    }
    let marks = lab.folder().join("marks.nft");
    let chain = "type filter hook prerouting priority mangle;\niifname \"to-b*\" meta mark set 7\n";
    fs::write(&marks, format!("table ip marks {{\nchain incoming {{\n{chain}}}\n}}\n"))
        .expect("the lab's folder takes files");
    gateway.run(&format!("nft -f {}", marks.display())).succeeded();
    for rule in ["del iif to-b1", "del iif to-b2", "add fwmark 7"] {
        gateway.run(&format!("ip rule {rule} lookup 100")).succeeded();
    }
    for (all, each, passes) in [(0, 0, true), (0, 1, true), (1, 0, false), (2, 0, false)] {
        filter(all, each);
        let seconds = if passes { 5 } else { 1 };
        assert_eq!((served(seconds), warned()), (passes, !passes), "by mark, rp_filter {all} for all, {each} for each");
    }
}

fn signals(lab: &Lab, setup: &Setup) {
    let before = state_of(lab);
    for signal in ["TERM", "INT"] {
        let _server = servers::iperf3(lab);
        let Gateway::Tungate(mut gateway) = Gateway::start(lab, setup, &[BULK]) else { unreachable!() };
        assert_ne!(state_of(lab), before, "a running gateway has an interface and routes");
        let mut traffic =
            lab.client().start(&format!("iperf3 -c {} -p 5201 -t 60 -f m -i 0.1 --forceflush", setup.vip()));
        // The first report of an interval: bytes are flowing.
        traffic.has_printed("Mbits/sec");
        gateway.signal(signal);
        let output = gateway.ended();
        assert!(output.status.success(), "after SIG{signal}: {}", output.report());
        assert_eq!(state_of(lab), before, "after SIG{signal}");
        assert!(!gateway.socket().exists(), "the admin socket is left after SIG{signal}");
    }
}

fn signal_at_the_start(lab: &Lab, _: &Setup) {
    let before = state_of(lab);
    let mut gateway = Tungate::launch(lab, "[gateway]\n");
    wait_for("the first of what it makes is there", || gateway.socket().exists().then_some(()));
    gateway.signal("TERM");
    let output = gateway.ended();
    assert!(output.status.success(), "{}", output.report());
    assert_eq!(state_of(lab), before);
    assert!(!gateway.socket().exists(), "the admin socket is left");
}

fn hung_up(lab: &Lab, _: &Setup) {
    let mut gateway = Tungate::start(lab, "[gateway]\n");
    for (signal, heard) in [("HUP", "cause=reload"), ("USR1", "signal=10"), ("USR2", "signal=12")] {
        gateway.signal(signal);
        wait_for(signal, || gateway.said().contains(heard).then_some(()));
    }
    gateway.ask("show services").succeeded();
    gateway.signal("TERM");
    assert!(gateway.ended().status.success());

    let file = lab.folder().join("tungate.toml");
    let run = ["nohup", env!("CARGO_BIN_EXE_tungate"), "run", "-c", file.to_str().expect("a plain path")];
    let mut deaf = lab.gateway().start_words(&run);
    wait_for("it serves", || gateway.ask("show services").status.success().then_some(()));
    deaf.signal("HUP");
    deaf.signal("TERM");
    let output = deaf.finish(PATIENCE);
    assert!(output.status.success() && !output.stderr.contains("SIGHUP"), "{}", output.report());
}

/// The firewall that Docker and ufw set up, and that what `doctor` says opens it.
fn closed(lab: &Lab, setup: &Setup) {
    let _servers = servers::nginx(lab, setup);
    let _gateway = Gateway::start(lab, setup, &[WEB]);
    let gateway = lab.gateway();
    let served = |seconds| {
        let curl = format!("curl -sS --globoff --max-time {seconds} http://{}/", setup.vip_with(80));
        lab.client().run(&curl).status.success()
    };
    let doctor = format!("{} doctor -c {}", env!("CARGO_BIN_EXE_tungate"), lab.folder().join("tungate.toml").display());
    assert!(served(5) && !gateway.run(&doctor).stdout.contains("forward: chain"));
    let file = lab.folder().join("closed.nft");
    let chain = "type filter hook forward priority 0; policy drop;";
    fs::write(&file, format!("table ip filter {{\nchain FORWARD {{\n{chain}\n}}\n}}\n")).expect("the folder is ours");
    gateway.run(&format!("nft -f {}", file.display())).succeeded();
    let said = gateway.run(&doctor).stdout;
    assert!(said.contains("forward: chain ip filter FORWARD") && !served(1), "{said}");
    let (_, commands) = said.split_once("unless its rules let this through: ").expect("a remedy");
    for command in commands.lines().next().unwrap_or_default().split("; ") {
        gateway.run(command).succeeded();
    }
    assert!(served(5), "{said}");
}

/// Some start it without a umask.
fn folders(lab: &Lab, _: &Setup) {
    let (file, folder) = (lab.folder().join("tungate.toml"), lab.folder().join("made"));
    let socket = folder.join("tungate.sock");
    fs::write(&file, format!("[gateway]\nadmin-socket = \"{}\"\n", socket.display())).expect("the folder is ours");
    let run = format!("umask 0; exec {} run -c {}", env!("CARGO_BIN_EXE_tungate"), file.display());
    let _gateway = lab.gateway().start_words(&["sh", "-c", &run]);
    wait_for("the socket is there", || socket.exists().then_some(()));
    let mode = fs::metadata(&folder).expect("the socket is in it").permissions().mode();
    assert_eq!(mode & 0o777, 0o755, "{mode:o}");
}

/// Who starts a second one for the same addresses is not told to take the first one's routes away.
fn second_gateway(lab: &Lab, _: &Setup) {
    let sources = "source-addresses = [\"10.99.0.10\"]\n";
    let _first = Tungate::start(lab, &format!("[gateway]\n{sources}"));
    let (file, socket) = (lab.folder().join("second.toml"), lab.folder().join("second.sock"));
    let text = format!("[gateway]\ninterface = \"second\"\nadmin-socket = \"{}\"\n{sources}", socket.display());
    fs::write(&file, text).expect("the folder is ours");
    let second = lab.gateway().run(&format!("{} run -c {}", env!("CARGO_BIN_EXE_tungate"), file.display()));
    let told = second.stderr.contains("leads to tungate0") && !second.stderr.contains("ip route del");
    assert!(!second.status.success() && told, "{}", second.report());
}

/// Who runs `lab.sh up` twice under one name keeps what runs in the first.
fn second_lab(lab: &Lab, _: &Setup) {
    let mut resident = lab.gateway().start("sleep 60");
    for words in [&["up"][..], &["run", "true"]] {
        let output = lab.asked_for(words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("is up already"), "{words:?}: {said}");
        lab.client().run("ip link show eth0").succeeded();
        assert!(!resident.has_ended(), "{words:?} has ended what ran in the lab");
    }
}

/// Interfaces, routes and rules of the gateway, without what changes by itself.
fn state_of(lab: &Lab) -> String {
    ["ip -o link", "ip route show table all", "ip -6 route show table all", "ip neigh show proxy"]
        .iter()
        .map(|line| lab.gateway().run(line).succeeded())
        .collect()
}

fn killed(lab: &Lab, setup: &Setup) {
    let _servers = servers::nginx(lab, setup);
    let Gateway::Tungate(mut first) = Gateway::start(lab, setup, &[WEB]) else { unreachable!() };
    first.signal("KILL");
    first.ended();
    assert!(first.socket().exists(), "nobody was left to remove the socket");
    let _second = Gateway::start(lab, setup, &[WEB]);
    lab.client().run(&format!("curl -sS --globoff --max-time 5 http://{}/", setup.vip_with(80))).succeeded();
}

fn down_and_up(lab: &Lab, setup: &Setup) {
    let _servers = servers::nginx(lab, setup);
    let _gateway = Gateway::start(lab, setup, &[WEB]);
    let with_patience = |seconds| format!("curl -sS --globoff --max-time {seconds} http://{}/", setup.vip_with(80));
    let before = state_of(lab);
    let doctor = || {
        let file = lab.folder().join("tungate.toml");
        lab.gateway().run(&format!("{} doctor -c {}", env!("CARGO_BIN_EXE_tungate"), file.display())).stdout
    };
    assert!(doctor().contains("a tungate serves on tungate0"), "{}", doctor());
    lab.client().run(&with_patience(5)).succeeded();
    lab.gateway().run("ip link set tungate0 down").succeeded();
    assert!(doctor().contains("help: ip link set tungate0 up"), "{}", doctor());
    assert!(!lab.client().run(&with_patience(1)).status.success(), "nothing passes a TUN that is down");
    lab.gateway().run("ip link set tungate0 up").succeeded();
    wait_for("the routes are back", || (state_of(lab) == before).then_some(()));
    lab.client().run(&with_patience(5)).succeeded();
}

/// A VIP inside the client's own network, where nothing but an answer to ARP or neighbour discovery leads to it.
fn announced(lab: &Lab, setup: &Setup) {
    let Engine::Tungate { workers } = setup.engine else { unreachable!() };
    let _servers = servers::nginx(lab, setup);
    let (vip, backend) =
        setup.pick(("198.51.100.80", "10.0.0.1".to_string()), ("2001:db8:1::80", format!("[{}]", setup.backend("b1"))));
    let at = setup.pick(format!("{vip}:80"), format!("[{vip}]:80"));
    let configuration = |announced: &str| {
        format!(
            "[gateway]\nworkers = {workers}\nsource-addresses = [\"10.99.0.10\", \"fd00:99::10\"]\n\
             announce-on = [{announced}]\n\
             [[service]]\nname = \"web\"\nlisten = [\"{at}\"]\n\
             backends = [{{ name = \"b1\", address = \"{backend}:{HTTP}\" }}]\n"
        )
    };
    let gateway = Tungate::start(lab, &configuration(""));
    let file = lab.folder().join("tungate.toml");
    let reload = |announced: &str| {
        fs::write(&file, gateway.placed(&configuration(announced))).expect("the lab's folder takes files");
        gateway.ask("reload")
    };
    let patience = |seconds: u8| format!("curl -sS --globoff --max-time {seconds} http://{at}/");
    assert!(!lab.client().run(&patience(1)).status.success(), "nobody says where it is");
    let refused = reload("\"to-nobody\"");
    assert!(refused.status.code() == Some(1) && refused.stderr.contains("to-nobody"), "{}", refused.report());
    reload("\"to-client\"").succeeded();
    if setup.pick(true, false) {
        lab.client().run(&format!("arping -c 1 -w 5 -I eth0 {vip}")).succeeded();
    }
    let answer = lab.client().run(&patience(5)).succeeded();
    assert_eq!(answer, format!("b1 {}\n", setup.seen_source()));
    reload("").succeeded();
    lab.client().run("ip neigh flush all").succeeded();
    assert!(!lab.client().run(&patience(1)).status.success(), "nobody says any more where it is");
}

/// Packets would come to the TUN and go nowhere.
fn without_forwarding(lab: &Lab, _: &Setup) {
    const FILE: &str = "[gateway]\nsource-addresses = [\"10.99.0.10\"]\n";
    for (value, told) in [("0", true), ("1", false)] {
        lab.gateway().run(&format!("sysctl -qw net.ipv4.ip_forward={value}")).succeeded();
        let mut gateway = Tungate::start(lab, FILE);
        let said = gateway.said();
        assert_eq!(said.contains("IPv4 forwarding is off: "), told, "{said}");
        assert!(!said.contains("IPv6 forwarding"), "nothing of IPv6 is served: {said}");
        gateway.signal("TERM");
        gateway.ended();
    }
}
