use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::config;
use crate::control::Controller;
use crate::control::history::History;
use crate::engine::conntrack::{Direction, FlowRef};
use crate::engine::{Engine, Instant, NoTrace, Shared, Verdict, WorkerId};
use crate::wire::build::{self, Tcp};
use crate::wire::{Endpoint, Offload, Packet, TcpFlags};

const CONFIG: &str = r#"
[gateway]
name = "gw-test"
source-addresses = ["10.99.0.10"]

[[service]]
name = "web"
listen = "192.0.2.10:80"
balance = "round-robin"
backends = [{ name = "b1", address = "10.0.0.1:8080" }, { name = "b2", address = "10.0.0.2" }]

[[service]]
name = "dns"
listen = "192.0.2.10:53"
protocol = "udp"
source-nat = false
backends = [{ name = "b1", address = "10.0.0.1", weight = 0, backup = true }, { name = "d1", address = "10.0.0.3:5353" }]
"#;

struct World {
    controller: RefCell<Controller>,
    engine: Engine,
    ended: RefCell<Vec<FlowRef>>,
}

fn at(text: &str) -> Endpoint {
    text.parse::<SocketAddr>().unwrap().into()
}

const STARTED: Instant = Instant::from_micros(1_000_000_000);

impl World {
    fn new() -> Self {
        let shared = Shared::new(config::load(CONFIG, "test.toml", None, "host").unwrap(), 1, 7);
        let engine = Engine::new(&shared, WorkerId(0), STARTED);
        let mut controller = Controller::new(shared, Duration::ZERO);
        let source = Source { file: "tungate.toml".into(), text: CONFIG.into() };
        controller.begin(source, "host", History::default(), STARTED);
        Self { controller: RefCell::new(controller), engine, ended: RefCell::default() }
    }

    /// A world in which two clients have opened a connection each and a third has asked for a name.
    fn with_flows() -> Self {
        let mut world = Self::new();
        for client in ["198.51.100.7:40000", "198.51.100.8:40000"] {
            assert_eq!(world.send(syn(client, "192.0.2.10:80")), Verdict::Forward);
        }
        assert_eq!(world.send(build::udp(at("203.0.113.9:1000"), at("192.0.2.10:53"), b"?")), Verdict::Forward);
        world
    }

    fn send(&mut self, mut bytes: Vec<u8>) -> Verdict {
        let mut packet = Packet::parse(&mut bytes, Offload::default()).unwrap();
        self.engine.handle(&mut packet, STARTED, &mut NoTrace)
    }

    fn ask(&self, request: Request) -> Vec<Response> {
        let end_flow = |flow| self.ended.borrow_mut().push(flow);
        let now = STARTED + Duration::from_secs(5);
        let source = || Ok(Source { file: "tungate.toml".into(), text: CONFIG.into() });
        let mut state = State {
            controller: &mut self.controller.borrow_mut(),
            end_flow: &end_flow,
            order_pair: &|_| Ok(()),
            started: STARTED,
            now,
            read_file: &source,
            admit: &|_| Ok(()),
            kept: &|address| (address == at("192.0.2.99:0").address).then(|| "an address of eth0".to_owned()),
        };
        answer(request, &mut state).collect()
    }

    fn flows(&self, filter: FlowFilter) -> Vec<FlowRow> {
        let mut rows = Vec::new();
        for part in self.ask(Request::ShowFlows(filter)) {
            let Response::Flows(part) = part else { panic!("{part:?}") };
            rows.extend(part);
        }
        rows.sort_by(|a, b| a.client.cmp(&b.client));
        rows
    }

    fn explain(&self, packet: &[u8]) -> Explanation {
        let probe = Probe { packet: hex::encode(packet) };
        let [Response::Explained(explanation)] = &self.ask(Request::Explain(probe))[..] else {
            panic!("not explained")
        };
        (**explanation).clone()
    }
}

fn syn(client: &str, listen: &str) -> Vec<u8> {
    build::tcp(at(client), at(listen), &Tcp { flags: TcpFlags::SYN, window: 64_000, ..Tcp::default() })
}

fn backend(name: &str) -> FlowFilter {
    FlowFilter { backend: Some(name.to_owned()), ..FlowFilter::default() }
}

#[test]
fn services_are_shown_with_what_they_carry() {
    let world = World::with_flows();
    let [Response::Services(rows)] = &world.ask(Request::ShowServices)[..] else { panic!() };
    let [web, dns] = &rows[..] else { panic!() };
    assert_eq!((web.name.as_str(), web.protocol.as_str(), web.mode.as_str()), ("web", "tcp", "nat"));
    assert_eq!((web.listen.as_slice(), web.balance.as_str()), (["192.0.2.10:80".to_owned()].as_slice(), "round-robin"));
    assert_eq!((web.backends_up, web.backends_total), (2, 2));
    assert_eq!((web.flows, web.flows_opened, web.packets_in, web.bytes_in, web.packets_out), (2, 2, 2, 80, 0));
    assert_eq!((dns.backends_up, dns.backends_total, dns.flows, dns.packets_in), (1, 2, 1, 1));
}

#[test]
fn backends_are_shown_for_all_services_or_one() {
    let world = World::with_flows();
    let [Response::Backends(all)] = &world.ask(Request::ShowBackends { service: None })[..] else { panic!() };
    let shown: Vec<_> =
        all.iter().map(|b| (b.service.as_str(), b.name.as_str(), b.address.as_str(), b.flows)).collect();
    assert_eq!(
        shown,
        [
            ("web", "b1", "10.0.0.1:8080", 1),
            ("web", "b2", "10.0.0.2", 1),
            ("dns", "b1", "10.0.0.1", 0),
            ("dns", "d1", "10.0.0.3:5353", 1)
        ]
    );
    assert!(all.iter().all(|b| b.backup == (b.service == "dns" && b.name == "b1")));
    let one = Request::ShowBackends { service: Some("dns".to_owned()) };
    let [Response::Backends(rows)] = &world.ask(one)[..] else { panic!() };
    assert_eq!(rows.len(), 2);
    let none = Request::ShowBackends { service: Some("dsn".to_owned()) };
    let not_found = Response::NotFound("there is no service `dsn`; there are web, dns".to_owned());
    assert_eq!(world.ask(none), [not_found]);
}

#[test]
fn flows_are_shown_by_any_filter() {
    let world = World::with_flows();
    let all = world.flows(FlowFilter::default());
    assert_eq!(all.len(), 3);
    let first = &all[0];
    assert_eq!((first.client.as_str(), first.listen.as_str()), ("198.51.100.7:40000", "192.0.2.10:80"));
    assert_eq!(first.source.as_deref(), Some("10.99.0.10:40000"));
    assert_eq!((first.state.as_str(), first.age_s, first.idle_s), ("syn-sent", 5, 5));
    assert_eq!((first.packets, first.bytes), ([1, 0], [40, 0]));
    assert_eq!(all[2].source, None, "without source NAT the client's own address is kept");

    assert_eq!(world.flows(backend("b1")).len(), 1);
    assert_eq!(world.flows(backend("web/b2")).len(), 1);
    let web = FlowFilter { service: Some("web".to_owned()), ..FlowFilter::default() };
    assert_eq!(world.flows(web.clone()).len(), 2);
    let client = FlowFilter { client: Some("198.51.100.8/31".parse().unwrap()), ..web.clone() };
    assert_eq!(world.flows(client.clone()).len(), 1);
    assert_eq!(world.ask(Request::CountFlows(client)), [Response::Count(CountRow { flows: 1 })]);
    let state = FlowFilter { state: Some("unreplied".to_owned()), ..FlowFilter::default() };
    assert_eq!(world.flows(state).len(), 1);
    let neither = FlowFilter { state: Some("unreplied".to_owned()), ..web };
    assert_eq!(world.ask(Request::ShowFlows(neither)), [Response::Flows(Vec::new())], "an empty list is an answer");
}

#[test]
fn a_name_that_does_not_exist_is_said_to_be_so() {
    let world = World::with_flows();
    let not_found = |filter: FlowFilter| match &world.ask(Request::KillFlows(filter))[..] {
        [Response::NotFound(what)] => what.clone(),
        other => panic!("{other:?}"),
    };
    assert!(not_found(backend("b9")).ends_with("there are web/b1, web/b2, dns/b1, dns/d1"));
    let state = FlowFilter { state: Some("open".to_owned()), ..FlowFilter::default() };
    assert!(not_found(state).contains("established"));
    assert!(world.ended.borrow().is_empty());
}

#[test]
fn killed_flows_are_handed_to_their_owner() {
    let world = World::with_flows();
    let web = FlowFilter { service: Some("web".to_owned()), ..FlowFilter::default() };
    assert_eq!(world.ask(Request::KillFlows(web)), [Response::Count(CountRow { flows: 2 })]);
    let ended = world.ended.borrow();
    assert!(ended.iter().all(|flow| flow.key(Direction::Original).destination.port == 80));
    assert_eq!(ended.len(), 2);
}

#[test]
fn every_reason_is_listed_and_workers_have_their_counts() {
    let mut world = World::with_flows();
    let _dropped = world.send(build::udp(at("203.0.113.9:1000"), at("192.0.2.99:53"), b"?"));
    let [Response::Drops(rows)] = &world.ask(Request::ShowDrops)[..] else { panic!() };
    assert_eq!(rows.len(), crate::engine::DropReason::COUNT);
    assert_eq!(rows.iter().map(|row| row.packets).sum::<u64>(), 1);
    let [Response::Workers(rows)] = &world.ask(Request::ShowWorkers)[..] else { panic!() };
    assert_eq!((rows.len(), rows[0].packets_in, rows[0].busy_ratio), (1, 4, 0.0));
    let [Response::Config(row)] = &world.ask(Request::ShowConfig)[..] else { panic!() };
    assert_eq!((row.name.as_str(), row.generation, row.text.as_str()), ("gw-test", 1, CONFIG));
}

#[test]
fn an_explanation_tells_the_way_and_changes_nothing() {
    let world = World::with_flows();
    let packet = syn("198.51.100.9:40000", "192.0.2.10:80");
    let told = world.explain(&packet);
    assert_eq!((told.verdict.as_str(), told.reason.as_deref()), ("forward", None));
    assert_eq!((told.service.as_deref(), told.backend.as_deref()), (Some("web"), Some("b1")));
    let stages: Vec<_> = told.stages.iter().map(|stage| stage.stage.as_str()).collect();
    assert_eq!((stages.first(), stages.last()), (Some(&"parse"), Some(&"verdict")));
    let mut out = hex::decode(told.packet_out.as_deref().unwrap()).unwrap();
    let out = Packet::parse(&mut out, Offload::default()).unwrap();
    assert_eq!(out.endpoints(), Some((at("10.99.0.10:40000"), at("10.0.0.1:8080"))));
    assert_eq!(world.explain(&packet), told, "asked twice, told the same");
    assert_eq!(world.flows(FlowFilter::default()).len(), 3);
}

#[test]
fn an_explanation_tells_what_the_gateway_answers_with() {
    let world = World::new();
    let (client, vip) = (at("198.51.100.9:40000"), at("192.0.2.10:81"));
    let ping = build::icmp(client.address, vip.address, vec![8, 0, 0, 0, 0, 1, 0, 1]);
    let mut late = syn("198.51.100.9:40000", "192.0.2.10:80");
    (late[8], late[10]) = (1, late[10] + 63); // TTL, and the checksum that goes with it
    for (packet, answer) in [
        (
            syn("198.51.100.9:40000", "192.0.2.10:81"),
            "tcp 192.0.2.10:81 -> 198.51.100.9:40000, RST,ACK, TTL 64, 40 bytes",
        ),
        (build::udp(client, vip, b"?"), "icmp port unreachable 192.0.2.10 -> 198.51.100.9, TTL 64, 57 bytes"),
        (late, "icmp time exceeded 192.0.2.10 -> 198.51.100.9, TTL 64, 68 bytes"),
        (ping, "icmp echo reply 192.0.2.10 -> 198.51.100.9, TTL 64, 28 bytes"),
    ] {
        let told = world.explain(&packet);
        let last = told.stages.last().unwrap();
        assert_eq!((told.verdict.as_str(), last.stage.as_str(), last.text.as_str()), ("reply", "answer", answer));
        assert!(told.packet_out.is_some());
    }
}

#[test]
fn an_explanation_tells_of_what_the_kernel_keeps() {
    let world = World::new();
    let stage = |to: &str| world.explain(&syn("198.51.100.9:40000", to)).stages.swap_remove(1);
    assert_eq!(
        (stage("192.0.2.99:80").stage, stage("192.0.2.99:80").text),
        ("kernel".into(), "an address of eth0".into())
    );
    assert_ne!(stage("192.0.2.10:80").stage, "kernel");
}

#[test]
fn an_explanation_knows_the_flows_there_are() {
    let world = World::with_flows();
    let second = &world.flows(backend("b2"))[0];
    let told = world.explain(&syn(&second.client, &second.listen));
    assert_eq!(told.backend.as_deref(), Some("b2"), "a SYN again, of a flow that b2 has");
    assert!(told.stages.iter().any(|stage| stage.text.starts_with("flow known")), "{:?}", told.stages);
    assert_eq!(world.flows(backend("b2"))[0].packets, [1, 0]);
}

#[test]
fn what_is_no_packet_is_explained_too() {
    let world = World::new();
    assert_eq!(world.explain(&[0x45, 0, 0]).reason.as_deref(), Some("truncated"));
    let odd = Request::Explain(Probe { packet: "45f".to_owned() });
    assert!(matches!(&world.ask(odd)[..], [Response::Refused(_)]));
}

#[test]
fn a_question_survives_the_socket() {
    let filter = FlowFilter { service: Some("web".to_owned()), ..FlowFilter::default() };
    for request in [Request::ShowServices, Request::ShowFlows(filter), Request::ShowBackends { service: None }] {
        let line = Question::line(request.clone());
        assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
        assert_eq!(Question::parse(&line), Ok(request));
    }
    assert_eq!(Question::line(Request::ShowServices), b"{\"version\":1,\"request\":\"show-services\"}\n");
}

#[test]
fn what_is_not_understood_is_refused_with_a_reason() {
    let refused = |line: &str| Question::parse(line.as_bytes()).unwrap_err();
    assert!(refused("GET / HTTP/1.1").contains("no question to tungate"));
    assert!(refused(r#"{"version":9,"request":"future"}"#).contains("version 9"));
    assert!(refused(r#"{"version":1,"request":"future"}"#).contains("does not know the request"));
}

#[test]
fn an_operator_is_heard_and_a_name_that_means_several_is_refused() {
    let world = World::with_flows();
    let said = |backend: &str, operation, cut| Operate {
        backend: backend.to_owned(),
        operation,
        for_s: Some(60),
        reason: Some("kernel update".to_owned()),
        cut,
    };
    let [Response::NotFound(why)] = &world.ask(Request::Operate(said("b1", Operation::Drain, false)))[..] else {
        panic!()
    };
    assert!(why.contains("SERVICE/BACKEND"), "{why}");
    for reason in ["a\nb", "\u{1b}[31mred", &"x".repeat(201)] {
        let said = Operate { reason: Some(reason.to_owned()), ..said("web/b1", Operation::Disable, false) };
        let [Response::Invalid(why)] = &world.ask(Request::Operate(said))[..] else { panic!("{reason:?}") };
        assert!(why.contains("one line"), "{why}");
    }
    assert_eq!(world.ask(Request::Operate(said("web/b1", Operation::Drain, false))), [Response::Done]);
    let [Response::Backends(rows)] = &world.ask(Request::ShowBackends { service: None })[..] else { panic!() };
    let shown: Vec<_> =
        rows.iter().map(|row| (row.admin.name(), row.admin_reason.as_deref(), row.admin_left_s)).collect();
    let nothing = ("enabled", None, None);
    assert_eq!(shown, [("drain", Some("kernel update"), Some(60)), nothing, nothing, nothing]);
    assert!(world.ended.borrow().is_empty());
    assert_eq!(world.ask(Request::Operate(said("web/b1", Operation::Disable, true))), [Response::Done]);
    assert_eq!(world.ended.borrow().len(), 1, "its flow is cut");
}

#[test]
fn a_plan_is_shown_and_a_refused_configuration_told() {
    let world = World::with_flows();
    let source = |text: String| Some(Source { file: "new.toml".to_owned(), text });
    let new = CONFIG.replace("10.0.0.1:8080", "10.0.0.9:8080");
    let [Response::Plan(plan)] = &world.ask(Request::Plan { source: source(new) })[..] else { panic!() };
    let changes: Vec<_> = plan.changes.iter().map(|c| format!("{} {}: {}", c.sign, c.subject, c.change)).collect();
    assert_eq!(changes, ["+ backend web/b1: 10.0.0.9:8080", "- backend web/b1: 10.0.0.1:8080"]);
    assert_eq!((plan.flows_kept, plan.flows_drained, plan.flows_lost, plan.needs_restart), (2, 1, 0, false));
    let [Response::Invalid(report)] = &world.ask(Request::Plan { source: source("mtu = 1".into()) })[..] else {
        panic!()
    };
    assert!(report.contains("new.toml:1:1"), "{report}");
    let [Response::NotFound(_)] = &world.ask(Request::ShowRejected)[..] else { panic!("a plan is no reload") };
    let [Response::Plan(plan)] = &world.ask(Request::Reload { confirm_s: None })[..] else { panic!() };
    assert!(plan.changes.is_empty());
    let [Response::History(rows)] = &world.ask(Request::ShowHistory)[..] else { panic!() };
    assert_eq!(rows.iter().map(|row| (row.steps, row.cause.as_str())).collect::<Vec<_>>(), [(0, "start")]);
    let [Response::NotFound(_)] = &world.ask(Request::Confirm)[..] else { panic!() };
}
