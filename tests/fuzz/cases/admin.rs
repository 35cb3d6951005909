//! Any line is a question or refused with a sentence; every answer is one line that its asker can read.

use std::cell::RefCell;
use std::sync::Arc;

use tungate::admin::{self, Answer, FlowFilter, Operate, Probe, Question, Request, Response, hex};
use tungate::control::Controller;
use tungate::control::history::Source;
use tungate::engine::conntrack::FlowRef;
use tungate::engine::{Instant, Shared};
use tungate::wire::build;

use super::support::{World, at};

/// Without Maglev, whose tables take longer to fill for a rehearsal than all the rest.
const CONFIG: &str = r#"
[gateway]
source-addresses = ["10.99.0.10", "fd00:99::10"]
max-flows = 50

[[service]]
name = "web"
listen = ["192.0.2.10:80", "[2001:db8::10]:80"]
balance = "round-robin"
backends = [{ name = "b1", address = "10.0.0.1:8080" }, { name = "b6", address = "[fd00::1]:8080" }]

[[service]]
name = "dns"
listen = "192.0.2.10:53"
protocol = "udp"
source-nat = false
balance = "round-robin"
backends = [{ name = "b1", address = "10.0.0.1:53" }]
"#;

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(with_flows());
}

fn with_flows() -> World {
    let mut world = World::new(CONFIG);
    let _ = world.client(1).opens("web");
    let _ = world.client(2).v6().opens("web");
    let _ = world.receives(build::udp(at("203.0.113.9:1000"), at("192.0.2.10:53"), b"?"));
    world
}

/// A line of JSON; or, behind a byte that begins none, a packet to be explained.
pub(crate) fn run(data: &[u8]) {
    let request = match data.split_first() {
        Some((0, packet)) => Request::Explain(Probe { packet: hex::encode(packet) }),
        _ => match Question::parse(data) {
            Ok(request) => request,
            Err(why) => {
                assert!(!why.is_empty());
                return one_line(Response::Refused(why));
            }
        },
    };
    assert_eq!(Question::parse(&Question::line(request.clone())), Ok(request.clone()));
    WORLD.with_borrow(|world| answered(request, &world.shared));
}

fn answered(request: Request, shared: &Arc<Shared>) {
    let before = (shared.table.len(), shared.counters.sum(|worker| &worker.received.packets));
    let doomed = RefCell::new(Vec::new());
    let end_flow = |flow: FlowRef| doomed.borrow_mut().push(flow);
    let (started, now) = (Instant::from_micros(1_000_000_000), Instant::from_micros(1_005_000_000));
    let mut controller = Controller::new(Arc::clone(shared), std::time::Duration::ZERO);
    let source = || Ok(Source { file: "tungate.toml".to_owned(), text: CONFIG.to_owned() });
    let mut state = admin::State {
        controller: &mut controller,
        end_flow: &end_flow,
        order_pair: &|_| Ok(()),
        started,
        now,
        read_file: &source,
        kept: &|_| None,
        admit: &|_| Ok(()),
    };
    let kills = matches!(&request, Request::KillFlows(_) | Request::Operate(Operate { cut: true, .. }));
    let responses: Vec<Response> = admin::answer(request, &mut state).collect();
    assert!(!responses.is_empty(), "an answer is never empty");
    assert!(kills || doomed.borrow().is_empty(), "only who asks for it ends flows");
    responses.into_iter().for_each(one_line);
    let after = (shared.table.len(), shared.counters.sum(|worker| &worker.received.packets));
    assert_eq!(before, after, "to be asked changes nothing");
}

fn one_line(response: Response) {
    let line = Answer::line(response, true);
    let (end, rest) = line.split_last().unwrap();
    assert!(*end == b'\n' && !rest.contains(&b'\n'));
    let read: Answer = serde_json::from_slice(&line).expect("the asker reads it");
    assert!(read.more);
}
