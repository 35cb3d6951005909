//! The chapter on JSON has the fields that programs get, no more and no less, in their order.

use serde::Serialize;
use tungate::admin::{self, BenchRow, CountRow, HaRow, RejectedRow, Request, Response, State, TunBenchRow};
use tungate::config;
use tungate::control::Controller;
use tungate::control::history::{History, Source};
use tungate::engine::conntrack::FlowRef;
use tungate::engine::{Engine, Instant, NoTrace, Shared, Verdict, WorkerId};
use tungate::wire::build::{self, Tcp};
use tungate::wire::{Endpoint, Offload, Packet, TcpFlags};

use super::{chapter, rows};

const CONFIG: &str = r#"
[[service]]
name = "web"
listen = "192.0.2.10:80"
source-nat = false
backends = [{ address = "10.0.0.1" }]
[service.discovery]
source = "file"
path = "/etc/tungate/web.toml"
"#;

/// A gateway with one flow, asked.
fn ask(request: Request) -> Response {
    let shared = Shared::new(config::load(CONFIG, "test.toml", None, "gw").unwrap(), 1, 7);
    let now = Instant::from_micros(1_000_000);
    let mut packet = syn();
    let mut packet = Packet::parse(&mut packet, Offload::default()).unwrap();
    let verdict = Engine::new(&shared, WorkerId(0), now).handle(&mut packet, now, &mut NoTrace);
    assert_eq!(verdict, Verdict::Forward);
    let nothing = |_: FlowRef| {};
    let mut controller = Controller::new(shared, std::time::Duration::ZERO);
    let source = Source { file: "test.toml".into(), text: CONFIG.into() };
    controller.begin(source.clone(), "gw", History::default(), now);
    let read_file = || Ok(source.clone());
    let (controller, admit) = (&mut controller, &|_: &_| Ok(()));
    let mut state = State {
        controller,
        end_flow: &nothing,
        order_pair: &|_| Ok(()),
        started: now,
        now,
        read_file: &read_file,
        kept: &|_| None,
        admit,
    };
    admin::answer(request, &mut state).next().unwrap()
}

fn syn() -> Vec<u8> {
    let at = |text: &str| Endpoint::from(text.parse::<std::net::SocketAddr>().unwrap());
    let segment = Tcp { flags: TcpFlags::SYN, ..Tcp::default() };
    build::tcp(at("198.51.100.7:40000"), at("192.0.2.10:80"), &segment)
}

/// The fields below the heading of this kind are those of the item.
#[track_caller]
fn assert_fields(kind: &str, item: &impl Serialize) {
    let json = serde_json::to_string(item).unwrap();
    let explained: Vec<String> = rows(&chapter("json.md"), &format!("# {kind}\n")).map(|row| row.key).collect();
    let item: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&json).unwrap();
    let mut found: Vec<&String> = item.keys().collect();
    found.sort_by_key(|field| json.find(&format!("\"{field}\":")));
    assert_eq!(explained.iter().collect::<Vec<_>>(), found, "{kind}");
}

fn pair_row() -> HaRow {
    let peer = admin::ha::PeerRow { name: String::new(), state: None, last_seen_s: None };
    HaRow {
        name: String::new(),
        role: String::new(),
        state: String::new(),
        epoch: 0,
        ready: false,
        ready_reason: None,
        peer,
        paths: Vec::new(),
        flows_synced: 0,
        flows_unsynced: 0,
        oldest_unsynced_s: 0.0,
        transitions: Vec::new(),
        split_brain: String::new(),
        heartbeat_s: 0.0,
        dead_s: 0.0,
        real_time: false,
        held: false,
        rejected: Vec::new(),
    }
}

#[test]
fn the_fields_of_every_kind_are_explained() {
    let Response::Services(services) = ask(Request::ShowServices) else { panic!() };
    assert_fields("ServiceList", &services[0]);
    let Response::Backends(backends) = ask(Request::ShowBackends { service: None }) else { panic!() };
    assert_fields("BackendList", &backends[0]);
    let Response::Flows(flows) = ask(Request::ShowFlows(Default::default())) else { panic!() };
    assert_fields("FlowList", &flows[0]);
    assert_fields("FlowCount", &CountRow { flows: 0 });
    let Response::Workers(workers) = ask(Request::ShowWorkers) else { panic!() };
    assert_fields("WorkerList", &workers[0]);
    let Response::Drops(drops) = ask(Request::ShowDrops) else { panic!() };
    assert_fields("DropList", &drops[0]);
    let Response::Sources(sources) = ask(Request::ShowSources) else { panic!() };
    assert_fields("SourceList", &sources[0]);
    let Response::Config(config) = ask(Request::ShowConfig) else { panic!() };
    assert_fields("Config", &config);
    let probe = admin::Probe { packet: admin::hex::encode(&syn()) };
    let Response::Explained(explained) = ask(Request::Explain(probe)) else { panic!() };
    assert_fields("Explain", &*explained);
    let Response::Plan(plan) = ask(Request::Plan { source: Some(Source { file: "new.toml".into(), text: "".into() }) })
    else {
        panic!()
    };
    assert_fields("Plan", &*plan);
    assert_fields("Change", &plan.changes[0]);
    let Response::History(history) = ask(Request::ShowHistory) else { panic!() };
    assert_fields("HistoryList", &history[0]);
    assert_fields("HaStatus", &pair_row());
    let empty = String::new;
    assert_fields("RejectedConfig", &RejectedRow { at: 0, file: empty(), text: empty(), report: empty() });
    let bench = BenchRow {
        name: String::new(),
        ns_per_packet: 0.0,
        packets_per_second: 0.0,
        flows: 0,
        workers: 1,
        longest_pause_us: 0,
        bytes_per_flow: None,
    };
    assert_fields("BenchList", &bench);
    let (name, via) = (String::new(), String::new());
    let figures = (None, None, None, None);
    let (packets_per_second, gbit_per_second, p50_us, p99_us) = figures;
    let bench = TunBenchRow { name, via, packets_per_second, gbit_per_second, p50_us, p99_us };
    assert_fields("TunBenchList", &bench);
}
