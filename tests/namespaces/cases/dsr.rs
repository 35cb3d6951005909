//! Direct server return: requests through the gateway's tunnels, answers from the backends straight to the client. The
//! backends are `tungate decap`, so nothing of this needs a tunnel of the kernel's.

use std::fs;
use std::time::Duration;

use crate::counters::assert_no_broken_packets;
use crate::gateway::{Family, Tungate};
use crate::lab::Lab;
use crate::process::{PATIENCE, Running, wait_for};
use crate::runner::Case;
use crate::servers;

/// How requests get to the backends.
#[derive(Clone, Copy, Debug)]
struct Way {
    encapsulation: &'static str,
    inner: Family,
    outer: Family,
}

/// GRE with a key.
const KEYED: &str = "keyed-gre";

const WAYS: [(Family, Family); 4] =
    [(Family::V4, Family::V4), (Family::V6, Family::V4), (Family::V4, Family::V6), (Family::V6, Family::V6)];

pub(super) fn cases() -> Vec<Case> {
    let all = || ["gre", "ipip", "gue"].into_iter().flat_map(by);
    let mut cases = Vec::new();
    cases.extend(by(KEYED).map(|way| case("dsr_backends_see_the_client", &["curl", "nginx"], way, curl)));
    cases.extend(all().map(|way| case("dsr_backends_see_the_client", &["curl", "nginx"], way, curl)));
    cases.extend(all().map(|way| case("dsr_datagrams_come_back", &[], way, datagrams)));
    cases.extend(by("gre").map(|way| case("dsr_answers_pass_the_gateway_by", &["curl", "nginx"], way, download)));
    cases.extend(by("gre").map(|way| case("dsr_uploads_a_gigabyte", &["iperf3"], way, upload)));
    cases.extend(by("gue").map(|way| case("dsr_streams_by_udp", &["iperf3"], way, udp_stream)));
    cases.extend(all().map(|way| case("dsr_uploads_over_a_small_link", &["iperf3"], way, small_link)));
    let way = Way { encapsulation: "gre", inner: Family::V4, outer: Family::V4 };
    cases.push(case("dsr_backends_are_silent_about_a_vip_of_their_own_network", &[], way, arp));
    cases.push(case("dsr_a_gateway_is_no_backend", &[], way, on_the_gateway));
    cases.push(case("dsr_a_backend_that_takes_nothing_apart_is_named", &["curl"], way, forgotten));
    cases.push(case("dsr_a_decap_takes_over_what_a_killed_one_has_left", &[], way, killed));
    cases.push(case("dsr_a_decap_tells_what_it_refuses", &["curl"], way, refused));
    let v6 = all().filter(|way| way.inner == Family::V6);
    cases.extend(v6.map(|way| case("dsr_uploads_over_the_least_link_of_ipv6", &["iperf3"], way, least_link)));
    cases
}

fn by(encapsulation: &'static str) -> impl Iterator<Item = Way> {
    WAYS.into_iter().map(move |(inner, outer)| Way { encapsulation, inner, outer })
}

fn case(what: &str, needs: &'static [&'static str], way: Way, body: fn(&Lab, &Way)) -> Case {
    let name = |family| if family == Family::V4 { "v4" } else { "v6" };
    Case {
        name: format!("{what}/{}-in-{}/{}", name(way.inner), name(way.outer), way.encapsulation),
        needs,
        control: false,
        body: Box::new(move || body(&Lab::new(), &way)),
    }
}

impl Way {
    fn vip(&self) -> &'static str {
        if self.inner == Family::V4 { "192.0.2.10" } else { "2001:db8::10" }
    }

    fn vip_with(&self, port: u16) -> String {
        if self.inner == Family::V4 { format!("{}:{port}", self.vip()) } else { format!("[{}]:{port}", self.vip()) }
    }

    fn client(&self) -> &'static str {
        if self.inner == Family::V4 { "198.51.100.2" } else { "2001:db8:1::2" }
    }

    fn configuration(&self, backends: &[&str]) -> String {
        let address = |name: &str| match (self.outer, name) {
            (Family::V4, name) => format!("10.0.0.{}", &name[1..]),
            (Family::V6, name) => format!("fd00::{}", &name[1..]),
        };
        let backends = backends.iter().map(|name| format!("{{ name = \"{name}\", address = \"{}\" }}", address(name)));
        format!(
            "[gateway]\nname = \"lab\"\nsource-addresses = [\"10.99.0.10\", \"fd00:99::10\"]\n\n\
             [[service]]\nname = \"all\"\nlisten = \"{}\"\nprotocol = \"any\"\nmode = \"dsr\"\n{}\n\
             balance = \"round-robin\"\nbackends = [ {} ]\n[service.health]\ncheck = \"none\"\n",
            if self.inner == Family::V4 { "192.0.2.10:*" } else { "[2001:db8::10]:*" },
            if self.encapsulation == KEYED {
                "encapsulation = \"gre\"\ngre-key = 42".to_owned()
            } else {
                format!("encapsulation = \"{}\"", self.encapsulation)
            },
            backends.collect::<Vec<_>>().join(", "),
        )
    }

    /// The gateway, and `tungate decap` on these backends.
    fn serve<'a>(&self, lab: &'a Lab, backends: &[&'static str]) -> (Tungate<'a>, Vec<Running>) {
        lab.connect_backends_to_the_client();
        let gateway = Tungate::start(lab, &self.configuration(backends));
        let start = |name: &&'static str| {
            let file = lab.folder().join("tungate.toml");
            let host = lab.backend(name);
            let decap = host.start(&format!("{} decap -c {}", env!("CARGO_BIN_EXE_tungate"), file.display()));
            wait_for("the VIP on a backend", || {
                let addresses = host.run("ip -o address show dev lo").succeeded();
                addresses.contains(&format!("{}/", self.vip())).then_some(())
            });
            decap
        };
        let decaps = backends.iter().map(start).collect();
        (gateway, decaps)
    }
}

fn curl(lab: &Lab, way: &Way) {
    let _servers = servers::nginx_everywhere(lab, 80);
    // The default of some distributions, which a TUN without address would not pass.
    for name in ["b1", "b2"] {
        lab.backend(name).run("sysctl -qw net.ipv4.conf.all.rp_filter=2").succeeded();
    }
    let (gateway, decaps) = way.serve(lab, &["b1", "b2"]);
    // A terminal that is closed closes no backend.
    decaps.iter().for_each(|decap| decap.signal("HUP"));
    let url = format!("http://{}/", way.vip_with(80));
    let mut answers = Vec::new();
    for _ in 0..6 {
        answers.push(lab.client().run(&format!("curl -sS --globoff --max-time 5 {url}")).succeeded());
    }
    for name in ["b1", "b2"] {
        assert!(answers.contains(&format!("{name} {}\n", way.client())), "{answers:?}");
    }
    let flows = gateway.ask("show flows --state fin-wait -o jsonl").succeeded();
    assert_eq!(flows.lines().count(), 6, "{flows}");
    assert_no_broken_packets(lab);
    for mut decap in decaps {
        decap.signal("TERM");
        let said = decap.finish(PATIENCE).stderr;
        assert!(said.contains("packets handed to the kernel, 0 refused"), "{said}");
    }
    let left = lab.backend("b1").run("ip -o address show dev lo").succeeded();
    assert!(!left.contains(way.vip()), "decap leaves the VIP behind: {left}");
}

fn datagrams(lab: &Lab, way: &Way) {
    let (_gateway, _decaps) = way.serve(lab, &["b1", "b2"]);
    let start = |name: &'static str| {
        let host = lab.backend(name);
        let server = host.start_helper(&format!("udp-echo {}", way.vip_with(7)));
        host.listens("-u", 7);
        server
    };
    let _servers = [start("b1"), start("b2")];
    let mut client = lab.client().start_helper(&format!("datagrams {} 20000", way.vip_with(7)));
    client.has_printed("verified 20000\n");
    assert_no_broken_packets(lab);
}

/// 100 MB for a request of some bytes: the gateway's machine sees the request and the acknowledgments alone.
fn download(lab: &Lab, way: &Way) {
    const SIZE: usize = 100_000_000;
    fs::write(lab.folder().join("document"), vec![b'x'; SIZE]).expect("the lab's folder takes files");
    let _servers = servers::nginx_everywhere(lab, 80);
    let (_gateway, _decaps) = way.serve(lab, &["b1", "b2"]);
    let url = format!("http://{}/document", way.vip_with(80));
    let line = format!("curl -sS --globoff --max-time 50 -o /dev/null -w %{{size_download}} {url}");
    assert_eq!(lab.client().run(&line).succeeded(), SIZE.to_string());
    for (interface, direction) in [("to-client", "tx"), ("to-b1", "rx"), ("to-b2", "rx")] {
        let bytes =
            lab.gateway().run(&format!("cat /sys/class/net/{interface}/statistics/{direction}_bytes")).succeeded();
        let bytes: u64 = bytes.trim().parse().expect(&bytes);
        assert!(bytes < 20_000, "{bytes} bytes of answers passed the gateway by {interface}");
    }
}

/// Whoever asks for a VIP in the backends' own network is to find the gateway. A backend that would answer says so, and
/// what it says helps.
fn arp(lab: &Lab, _: &Way) {
    const VIP: &str = "10.0.0.100";
    const REMEDY: &str = "sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2";
    lab.gateway().run(&format!("ip route add {VIP} dev to-b1")).succeeded();
    for silent in [false, true] {
        let host = lab.backend("b1");
        let line = format!("{} decap --vip {VIP} --from 10.99.0.10", env!("CARGO_BIN_EXE_tungate"));
        let mut decap = host.start(&line);
        wait_for("the VIP on the backend", || {
            host.run("ip -o address show dev lo").succeeded().contains(VIP).then_some(())
        });
        lab.gateway().run("ip neigh flush dev to-b1").succeeded();
        lab.gateway().run(&format!("ping -c 1 -W 1 {VIP}"));
        let found = lab.gateway().run(&format!("ip neigh show {VIP} dev to-b1")).succeeded();
        assert_eq!(found.contains("lladdr"), !silent, "{found}");
        decap.signal("TERM");
        let said = decap.finish(PATIENCE).stderr;
        assert_eq!(said.contains(REMEDY), !silent, "{said}");
        host.run(REMEDY).succeeded();
    }
}

/// Whoever starts `decap` on the gateway takes nothing away from it; whoever adds the VIP there finds that in the log.
fn on_the_gateway(lab: &Lab, way: &Way) {
    let gateway = Tungate::start(lab, &way.configuration(&["b1"]));
    let file = lab.folder().join("tungate.toml");
    let decap = lab.gateway().run(&format!("{} decap -c {}", env!("CARGO_BIN_EXE_tungate"), file.display()));
    assert_eq!(decap.status.code(), Some(4), "{}", decap.stderr);
    assert!(decap.stderr.contains("this is the gateway: 192.0.2.10/32 leads to tungate0"), "{}", decap.stderr);
    let said = |what: &str| wait_for(what, || gateway.said().contains(what).then_some(()));
    lab.gateway().run("ip address add 192.0.2.10/32 dev lo").succeeded();
    said("192.0.2.10 (a VIP) is an address of lo now");
    said("ip address del 192.0.2.10/32 dev lo");
    let explained = gateway.ask("explain tcp 198.51.100.9:4000 192.0.2.10:80").succeeded();
    assert!(explained.contains("kernel     192.0.2.10 (a VIP) is an address of lo, and keeps"), "{explained}");
    lab.gateway().run("ip address del 192.0.2.10/32 dev lo").succeeded();
    said("192.0.2.10 is no address of lo any more");
    assert!(!gateway.said().contains("another route"), "{}", gateway.said());
}

/// A forgotten `decap` is named in the gateway's log, and by `doctor` on the backend.
fn forgotten(lab: &Lab, way: &Way) {
    let gateway = Tungate::start(lab, &way.configuration(&["b1"]));
    wait_for("the gateway's word on b1", || {
        lab.client().run("curl -s --max-time 1 http://192.0.2.10/");
        gateway.said().contains("backend all/b1 (10.0.0.1) does not take gre: ").then_some(())
    });
    let backends = gateway.ask("show backends -o json").succeeded();
    assert!(backends.contains(r#""last_icmp":"protocol unreachable""#), "{backends}");
    let file = lab.folder().join("tungate.toml");
    let doctor = || {
        let line = format!("{} doctor -c {}", env!("CARGO_BIN_EXE_tungate"), file.display());
        lab.backend("b1").run(&line)
    };
    lab.backend("b1").run("ip address add 192.0.2.10/32 dev lo").succeeded();
    let found = doctor();
    assert_eq!(found.status.code(), Some(1), "{}", found.stdout);
    assert!(found.stdout.contains("nothing takes gre from 10.99.0.10 apart"), "{}", found.stdout);
    let mut decap = lab.backend("b1").start(&format!("{} decap -c {}", env!("CARGO_BIN_EXE_tungate"), file.display()));
    wait_for("decap", || decap.stderr().contains("taking gre from 10.99.0.10").then_some(()));
    let found = doctor().succeeded();
    assert!(found.starts_with("ok    role     backend all/b1 (10.0.0.1)"), "{found}");
    assert!(found.contains("a program takes gre from 10.99.0.10 apart"), "{found}");
    let second = lab.backend("b1").run(&format!("{} decap -c {}", env!("CARGO_BIN_EXE_tungate"), file.display()));
    assert_eq!(second.status.code(), Some(4), "{}", second.stderr);
    assert!(second.stderr.contains("if another decap has it"), "{}", second.stderr);
    decap.signal("TERM");
    let said = decap.finish(PATIENCE).stderr;
    assert!(said.contains("192.0.2.10/32 is on the loopback already, and stays there"), "{said}");
}

/// Nobody removes what a killed `decap` has left but the next one, at its end. An address of the backend itself is no VIP.
fn killed(lab: &Lab, _: &Way) {
    let host = lab.backend("b1");
    let line = |vip: &str| format!("{} decap --vip {vip} --from 10.99.0.10", env!("CARGO_BIN_EXE_tungate"));
    let is_there = || host.run("ip -o address show dev lo").succeeded().contains("192.0.2.10/32");
    let start = || {
        let decap = host.start(&line("192.0.2.10"));
        wait_for("decap", || decap.stderr().contains("taking gre").then_some(()));
        decap
    };
    let mut first = start();
    first.signal("KILL");
    first.finish(PATIENCE);
    assert!(is_there());
    let mut second = start();
    assert!(second.stderr().contains("left by a decap that was killed"), "{}", second.stderr());
    // Another one at its side has nothing to take over.
    let mut third = host.start(&format!("{} --interface other --encapsulation ipip", line("192.0.2.10")));
    wait_for("the third", || third.stderr().contains("taking ipip").then_some(()));
    third.signal("TERM");
    let said = third.finish(PATIENCE).stderr;
    assert!(said.contains("stays there at the end") && is_there(), "{said}");
    second.signal("TERM");
    second.finish(PATIENCE);
    assert!(!is_there());
    let own = host.run(&line("10.0.0.1"));
    assert_eq!(own.status.code(), Some(4), "{}", own.stderr);
    assert!(own.stderr.contains("10.0.0.1 is this machine's own address on eth0"), "{}", own.stderr);
}

/// What is refused is told, not only counted: here the gateway's packets, by who was told of another one.
fn refused(lab: &Lab, way: &Way) {
    let _gateway = Tungate::start(lab, &way.configuration(&["b1"]));
    let line = "decap --vip 192.0.2.10 --from 10.99.0.11 --encapsulation gre";
    let decap = lab.backend("b1").start(&format!("{} {line}", env!("CARGO_BIN_EXE_tungate")));
    wait_for("decap's complaint", || {
        lab.client().run("curl -s --max-time 1 http://192.0.2.10/");
        let expected =
            "refused a packet of 10.99.0.10: not from the gateway; taken is gre from 10.99.0.11 for 192.0.2.10/32";
        decap.stderr().contains(expected).then_some(())
    });
}

fn upload(lab: &Lab, way: &Way) {
    transfer(lab, way, "-n 1G");
    assert_no_broken_packets(lab);
}

fn udp_stream(lab: &Lab, way: &Way) {
    transfer(lab, way, "-u -b 100M -l 1200 -t 2");
    assert_no_broken_packets(lab);
}

/// The client learns what fits from the gateway, and the gateway from the router.
fn small_link(lab: &Lab, way: &Way) {
    lab.put_router_before_b1(1400);
    let gateway = transfer(lab, way, "-n 100M");
    let shown = gateway.ask("show backends -o wide").succeeded();
    assert!(shown.contains("1400 for "), "the path MTU is not shown: {shown}");
}

/// R101: the client may send 1280 bytes, and does; they leave in outer fragments.
fn least_link(lab: &Lab, way: &Way) {
    lab.put_router_before_b1(1280);
    transfer(lab, way, "-n 20M");
}

fn transfer<'a>(lab: &'a Lab, way: &Way, amount: &str) -> Tungate<'a> {
    let (gateway, _decaps) = way.serve(lab, &["b1"]);
    let _server = servers::iperf3_at(lab, &format!("-B {}", way.vip()));
    let line = format!("iperf3 -c {} -p 5201 {amount}", way.vip());
    lab.client().run_within(Duration::from_secs(120), &line).succeeded();
    gateway
}
