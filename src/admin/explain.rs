//! One packet through a copy of the engine, every stage written down.

use std::sync::Arc;

use super::describe::describe;
use super::hex;
use super::rows::{Explanation, Stage};
use crate::engine::conntrack::FlowKey;
use crate::engine::{Engine, Instant, Route, Shared, TraceSink, Verdict, WorkerId};
use crate::wire::{Address, Offload, Packet, tunnel};

/// What the gateway would do with this packet now. Nothing happens to the gateway: a rehearsal of it decides, in which
/// every port is free, and schedulers that take turns begin with the first. `kept` says why packets for an address never
/// come to the gateway, if they do not.
pub fn explain(
    shared: &Arc<Shared>,
    packet: &mut [u8],
    kept: &dyn Fn(Address) -> Option<String>,
    now: Instant,
) -> Explanation {
    let mut stages = Stages::default();
    let parsed = Packet::parse(packet, Offload::default());
    let flow = parsed.as_ref().ok().and_then(key).and_then(|key| shared.table.find(&key));
    let rehearsal = shared.rehearsal(flow.as_ref().map(|(flow, _)| flow));
    let mut engine = Engine::new(&rehearsal, WorkerId(0), now);
    let (verdict, mut out) = match parsed {
        Ok(mut packet) => {
            stages.stage("parse", || describe(&packet));
            if let Some(why) = kept(packet.addresses().1) {
                stages.stage("kernel", || why);
            }
            let verdict = engine.handle(&mut packet, now, &mut stages);
            (verdict, (verdict == Verdict::Forward).then(|| tunnel::leaving(&mut packet).swap_remove(0)))
        }
        Err(malformed) => {
            let verdict = engine.malformed(malformed, packet, now);
            stages.stage("verdict", || verdict.to_string());
            (verdict, None)
        }
    };
    for mut answer in engine.outbox().map(|outgoing| outgoing.packet) {
        stages.stage("answer", || told(&mut answer));
        out.get_or_insert(answer);
    }
    let snapshot = &rehearsal.policy.load().snapshot;
    Explanation {
        verdict: word(verdict).to_owned(),
        reason: reason(verdict).map(str::to_owned),
        service: stages.route.service.map(|id| snapshot.service(id).name.clone()),
        backend: stages.route.backend.map(|id| snapshot.backend(id).name.clone()),
        stages: stages.list,
        packet_out: out.map(|packet| hex::encode(&packet)),
    }
}

fn told(answer: &mut [u8]) -> String {
    describe(&Packet::parse(answer, Offload::default()).expect("what the gateway sends is sound"))
}

/// The word for a verdict in reports.
pub fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Forward => "forward",
        Verdict::Reply => "reply",
        Verdict::Consume => "consume",
        Verdict::Handoff(_) => "handoff",
        Verdict::Drop(_) => "drop",
    }
}

/// The name of the reason, if it was dropped.
pub fn reason(verdict: Verdict) -> Option<&'static str> {
    if let Verdict::Drop(reason) = verdict { Some(reason.name()) } else { None }
}

fn key(packet: &Packet<'_>) -> Option<FlowKey> {
    let (source, destination) = packet.endpoints()?;
    Some(FlowKey { source, destination, protocol: packet.protocol() })
}

/// Writes down what it is told.
#[derive(Default)]
struct Stages {
    list: Vec<Stage>,
    route: Route,
}

impl TraceSink for Stages {
    const ENABLED: bool = true;

    fn stage(&mut self, stage: &'static str, text: impl FnOnce() -> String) {
        self.list.push(Stage { stage: stage.to_owned(), text: text() });
    }

    fn route(&mut self, route: Route) {
        self.route = route;
    }
}
