//! A gateway that is about to stop: what it still does, and what it waits for.

use std::sync::Arc;

use tungate::engine::conntrack::State;
use tungate::engine::{DropReason, Engine, Verdict};
use tungate::wire::{Protocol, build};

use crate::CONFIG;
use crate::support::{World, segment};

impl World {
    fn drains(&mut self) {
        let closed = self.shared.policy.load().closed();
        self.shared.policy.store(Arc::new(closed));
        self.engines.iter_mut().for_each(Engine::adopt);
    }

    /// Whether the gateway would wait.
    fn carries(&self) -> bool {
        self.shared.table.any(|flow| flow.carries(self.now))
    }
}

#[test]
fn new_flows_are_refused_so_that_clients_fail_over_and_old_ones_go_on() {
    for v6 in [false, true] {
        let mut world = World::new(CONFIG);
        let client = |world: &mut World, n| {
            let client = world.client(n);
            let client = if v6 { client.v6() } else { client };
            (client.endpoint(), client.vip("web"), client.vip("dns"))
        };
        let (open, web, dns) = client(&mut world, 1);
        let mut connection = world.client_at(open).opens("web");
        world.drains();

        let (late, ..) = client(&mut world, 2);
        let reset = world.receives(build::tcp(late, web, &segment("SYN", 7, 0))).answered();
        assert_eq!((reset.ends(), reset.tcp), ((web, late), Some((crate::support::flags("RST ACK"), 0, 8))));
        let datagram = build::udp(late, dns, b"question");
        let unreachable = world.receives(datagram.clone()).answered();
        assert_eq!(unreachable.icmp(), if v6 { (1, 4, &datagram[..]) } else { (3, 3, &datagram[..]) });
        // Not more often than others are told things (R10); what is not answered has its reason.
        let dropped = (0..20).filter(|_| world.receives(datagram.clone()).own.is_empty()).count();
        assert_eq!((dropped, world.counters()["drop draining"], world.counters()["refused"]), (11, 11, 22));

        world.client_sends(&mut connection, 1_000);
        world.backend_sends(&mut connection, 5_000);
        world.client_closes(&mut connection);
        world.backend_closes(&mut connection);
        // Nor does a SYN revive what is over.
        world.client_says(&connection, &segment("SYN", connection.client_next.wrapping_add(100_000), 0)).answered();
        world.check_invariants();
    }
}

/// Its backend knows the connection, and so will the next gateway: a RST of this one would end it for nothing.
#[test]
fn r53_a_connection_by_tunnel_that_is_not_known_goes_on_while_the_gateway_drains() {
    const DSR: &str = "[gateway]\nsource-addresses = ['10.99.0.10']\n[[service]]\nname = 'web'\nmode = 'dsr'\n\
                       listen = '192.0.2.10:80'\nbackends = [{ address = '10.0.0.1' }, { address = '10.0.0.2' }]\n";
    let (mut world, mut other) = (World::new(DSR), World::new(DSR));
    world.drains();
    for n in 1..20 {
        let ack = segment("ACK", 5_000, 6_000);
        let outcome = world.client(n).sends("web", &ack);
        assert_eq!((outcome.verdict, outcome.sent), (Verdict::Forward, other.client(n).sends("web", &ack).sent));
    }
    assert_eq!(world.states().len(), 0, "nobody waits for it");
    world.client(30).syn("web").answered();
    world.check_invariants();
}

#[test]
fn a_connection_is_waited_for_until_both_sides_have_closed_it() {
    let mut world = World::new(CONFIG);
    assert!(!world.carries());
    let mut connection = world.client(1).opens("web");
    world.wait(7_000);
    assert!(world.carries(), "however silent");
    world.client_closes(&mut connection);
    assert!(world.carries(), "half-closed");
    world.backend_closes(&mut connection);
    assert!(!world.carries() && world.shared.table.len() == 1, "in TIME-WAIT");

    let reset = world.client(2).opens("web");
    world.client_says(&reset, &reset.client_segment("RST ACK")).forwarded();
    assert!(!world.carries());
}

#[test]
fn what_has_no_end_is_waited_for_until_it_is_silent() {
    let mut world = World::new(CONFIG);
    let question = world.client(1).asks("dns", b"question").forwarded();
    world.wait(9);
    assert!(world.carries(), "the answer may come");
    world.answers(question.destination, question.source, b"answer").forwarded();
    world.client(1).asks("dns", b"more").forwarded();
    world.wait(9);
    assert!(world.carries());
    world.wait(2);
    assert!(!world.carries());
    let (client, vip) = (world.client(1).endpoint(), world.client(1).vip("dns"));
    assert!(world.flow(client, vip, Protocol::UDP).is_some(), "it is not forgotten for that");

    let _half_open = world.client(2).begins("web");
    assert!(world.carries());
    world.wait(11);
    assert!(!world.carries());
}

/// Of a DSR service the backend's FIN goes past the gateway.
#[test]
fn what_a_backend_says_past_the_gateway_is_not_waited_for_for_ever() {
    let mut world = World::new(
        r#"
        [gateway]
        source-addresses = ["10.99.0.10"]
        [[service]]
        name = "web"
        listen = "192.0.2.10:80"
        mode = "dsr"
        backends = [{ address = "10.0.0.1" }]
        "#,
    );
    for flags in ["SYN", "ACK"] {
        assert_eq!(world.client(1).sends("web", &segment(flags, 1_000, 1)).verdict, Verdict::Forward);
    }
    world.wait(7_000);
    assert!(world.carries(), "open, however silent");
    assert_eq!(world.client(1).sends("web", &segment("FIN ACK", 1_000, 1)).verdict, Verdict::Forward);
    world.wait(9);
    assert!(world.carries(), "its answer may still be under way");
    assert_eq!(world.client(1).sends("web", &segment("ACK", 1_001, 9_000)).verdict, Verdict::Forward);
    world.wait(9);
    assert!(world.carries(), "it was");
    world.wait(2);
    assert!(!world.carries() && world.states() == [State::FinWait]);
}

#[test]
fn a_draining_gateway_drops_what_it_may_not_answer() {
    let mut world = World::new(CONFIG);
    world.drains();
    let (client, vip) = (world.client(1).endpoint(), world.client(1).vip("dns"));
    let mut damaged = build::udp(client, vip, b"question");
    *damaged.last_mut().unwrap() ^= 1;
    world.receives(damaged).dropped(DropReason::BadTransportChecksum);
}
