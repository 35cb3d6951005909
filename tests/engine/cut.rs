//! A backend goes down: its flows find another, or their ends hear that they are over.

use std::sync::Arc;

use tungate::config::{BackendId, OnDown};
use tungate::engine::conntrack::FlowRef;
use tungate::engine::{Engine, Policy};

use crate::CONFIG;
use crate::support::{Sight, World, flags};

impl World {
    /// This backend takes no new flows, and the ones there are are cut. What its flows' ends are told.
    fn goes_down(&mut self, backend: BackendId, on_down: OnDown) -> Vec<Sight> {
        let policy = self.shared.policy.load_full();
        let weight = |b: &tungate::config::Backend| if b.id == backend { 0 } else { b.weight };
        let without = Policy::build(Arc::clone(&policy.snapshot), weight, Some(&policy));
        self.shared.policy.store(Arc::new(without));
        self.engines.iter_mut().for_each(Engine::adopt);
        let mut flows: Vec<FlowRef> = Vec::new();
        self.shared.table.for_each(|flow| flows.extend((flow.backend() == backend).then(|| flow.hold())));
        let engine = &mut self.engines[0];
        flows.iter().for_each(|flow| engine.cut(flow, on_down, self.now));
        engine.outbox().map(|outgoing| Sight::of(outgoing.packet)).collect()
    }

    /// The backend of the only flow.
    fn backend_of_the_flow(&self) -> BackendId {
        let mut backends = Vec::new();
        self.shared.table.for_each(|flow| backends.push(flow.backend()));
        assert_eq!(backends.len(), 1);
        backends[0]
    }
}

#[test]
fn a_connection_that_was_not_answered_goes_elsewhere_when_its_syn_comes_again() {
    for on_down in [OnDown::Keep, OnDown::Reset] {
        let mut world = World::new(CONFIG);
        let first = world.client(1).syn("web").forwarded();
        let down = world.backend_of_the_flow();
        assert!(world.goes_down(down, on_down).is_empty(), "a RST would keep it from trying again");
        let second = world.client(1).syn("web").forwarded();
        assert_ne!(first.ends().1, second.ends().1);
        assert_ne!(world.backend_of_the_flow(), down);
        world.check_invariants();
    }
}

#[test]
fn an_open_connection_goes_on_unless_it_is_to_be_reset() {
    let mut world = World::new(CONFIG);
    let mut connection = world.client(1).opens("web");
    let down = world.backend_of_the_flow();
    assert!(world.goes_down(down, OnDown::Keep).is_empty());
    world.client_sends(&mut connection, 1_000);
    world.backend_sends(&mut connection, 1_000);
    let told = world.goes_down(down, OnDown::Reset);
    assert_eq!(told.len(), 2, "both ends");
    assert!(told.iter().all(|sight| sight.tcp.unwrap().0 == flags("RST ACK")), "{told:?}");
    assert_eq!(world.states(), []);
    world.check_invariants();
}

#[test]
fn a_flow_of_datagrams_goes_elsewhere_with_the_next_one() {
    let mut world = World::new(CONFIG);
    let first = world.client(1).asks("dns", b"?").forwarded();
    let down = world.backend_of_the_flow();
    assert!(world.goes_down(down, OnDown::Keep).is_empty());
    assert_ne!(world.client(1).asks("dns", b"?").forwarded().ends().1, first.ends().1);
    world.check_invariants();
}
